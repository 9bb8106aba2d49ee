# probe.S: asks whether an accelerator runs what an ordinary kernel runs: entry in
# protected mode (multiboot), paging, long mode, cmpxchg16b, xsave, a few privileged
# instructions. Says 'K' on port 0xe9's neighbour, isa-debug-exit: QEMU ends with 97.
#   as --32 -o probe.o probe.S && ld -m elf_i386 -Ttext 0x100000 --oformat binary -o probe.bin probe.o
	.set BASE, 0x100000
	.code32
	.globl _start
_start:
	.long 0x1BADB002            # multiboot header, addresses in the header
	.long 0x00010000
	.long -(0x1BADB002 + 0x00010000)
	.long BASE, BASE, BASE + (end - _start), 0, BASE + (code - _start)
code:
	cli
	mov $0x110000, %edi         # three zeroed pages: PML4, PDPT, PD
	xor %eax, %eax
	mov $0xc00, %ecx
	cld
	rep stosl
	movl $0x111003, 0x110000
	movl $0x112003, 0x111000
	movl $0x000083, 0x112000    # 2 MiB, identity
	mov $0x110000, %eax
	mov %eax, %cr3
	mov $0x620, %eax            # PAE, OSFXSR, OSXMMEXCPT
	mov %eax, %cr4
	mov $0xC0000080, %ecx       # EFER.LME
	rdmsr
	or $0x100, %eax
	wrmsr
	mov %cr0, %eax
	and $0xfffffffb, %eax       # no FPU emulation
	or $0x80000003, %eax
	mov %eax, %cr0
	lgdt gdtr - _start + BASE
	ljmp $8, $(long - _start + BASE)
	.code64
long:
	mov $0x10, %eax
	mov %eax, %ss
	mov $0x120000, %esp
	push %rbp
	pop %rbp
	xor %eax, %eax
	xor %edx, %edx
	xor %ebx, %ebx
	xor %ecx, %ecx
	movq $0, 0x118000
	movq $0, 0x118008
	mov $0x118000, %esi
	lock cmpxchg16b (%rsi)
	jnz bad
	fxsave 0x119000
	fxrstor 0x119000
	mov %cr4, %rax
	mov %rax, %cr4
	wbinvd
	swapgs
	swapgs
	xor %eax, %eax
	cpuid
	mov $48, %al                # 48<<1|1 = 97
	out %al, $0xf4
bad:	hlt
	jmp bad
	.balign 8
gdt:	.quad 0, 0x00209A0000000000, 0x0000920000000000
gdtr:	.word gdtr - gdt - 1
	.long gdt - _start + BASE
end:
