package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

type cpuInfo struct {
	vendor, model, microcode string
	flags                    map[string]bool
	cores                    int
	mixed                    bool // processors with different microcode
}

func parseCPU(text string) cpuInfo {
	c := cpuInfo{flags: map[string]bool{}}
	for line := range strings.Lines(text) {
		k, v, found := strings.Cut(line, ":")
		if !found {
			continue
		}
		v = strings.TrimSpace(v)
		switch strings.TrimSpace(k) {
		case "vendor_id":
			c.vendor = v
			c.cores++
		case "model name":
			c.model = v
		case "microcode":
			c.mixed = c.mixed || c.microcode != "" && c.microcode != v
			c.microcode = v
		case "flags":
			if len(c.flags) > 0 {
				continue // the same on all
			}
			for _, f := range strings.Fields(v) {
				c.flags[f] = true
			}
		}
	}
	return c
}

func (c cpuInfo) platform() string {
	switch {
	case c.flags["tdx_host_platform"]:
		return TDX
	case c.flags["sev_snp"]:
		return SNP
	}
	return None
}

func virtualization(_ context.Context, e *exam) verdict {
	switch c := e.cpu; {
	case c.vendor == "":
		return fail("/proc/cpuinfo names no CPU", "is /proc mounted?")
	case c.flags["vmx"], c.flags["svm"]:
		return ok(fmt.Sprintf("%s, %d processors", c.model, c.cores))
	}
	return fail(e.cpu.model+" offers neither VMX nor SVM", "enable virtualization in the BIOS; inside a VM, ask for nested virtualization. Without it VMs are emulated (slow, no TEE)")
}

func platform(_ context.Context, e *exam) verdict {
	has := e.cpu.platform()
	switch {
	case has != None && (e.want == has || e.want == None):
		return ok(has)
	case e.want != None:
		return fail("wanted is "+e.want+"; the kernel reports "+has, "TDX: 5th generation Xeon or 6 (4th: cloud parts only), enabled in the BIOS; SEV-SNP: EPYC 7003 or later, enabled in the BIOS")
	}
	return warn("neither TDX nor SEV-SNP", "VMs of this host run without a TEE, or on the simulated one: nobody should trust them with secrets")
}

func microcode(_ context.Context, e *exam) verdict {
	v := e.cpu.microcode
	switch {
	case v == "":
		return warn("the kernel does not say", "inside a VM that is normal")
	case e.cpu.mixed:
		return fail("processors have different versions, one of them "+v, "load the microcode early in the boot (initramfs), on all processors")
	case v == "0x0" || v == "0xffffffff":
		return warn(v+": hidden by a hypervisor", "ask who runs the machine below")
	}
	return ok(v)
}

// vulnerabilities is a hint only: what counts is the TCB status that Intel or AMD
// give to the quotes of this host.
func vulnerabilities(_ context.Context, e *exam) verdict {
	const dir = "/sys/devices/system/cpu/vulnerabilities"
	names := e.names(dir)
	if len(names) == 0 {
		return skip("the kernel does not say")
	}
	var open []string
	for _, n := range names {
		if v := e.read(dir + "/" + n); strings.HasPrefix(v, "Vulnerable") || strings.Contains(strings.ToLower(v), "no microcode") {
			open = append(open, n)
		}
	}
	if len(open) > 0 {
		return warn("not mitigated: "+strings.Join(open, ", "), "update BIOS and microcode: a quote of this host will probably be OutOfDate, and policies refuse that")
	}
	return ok(fmt.Sprintf("%d known weaknesses, all mitigated or absent", len(names)))
}

func kvm(_ context.Context, e *exam) verdict {
	if err := e.openable("/dev/kvm"); err != nil {
		return fail(err.Error(), "load kvm_intel or kvm_amd; give the VMM's user the group kvm")
	}
	return ok("can be opened")
}

func tdxBIOS(_ context.Context, e *exam) verdict {
	line := e.logged("virt/tdx: BIOS enabled")
	if e.cpu.flags["tdx_host_platform"] {
		return ok(orElse(line, "the CPU flag tdx_host_platform is set"))
	}
	return fail(orElse(line, "the CPU flag tdx_host_platform is missing"), "in the BIOS: enable Total Memory Encryption (TME), TME Multi-Tenant, TDX, TDX SEAM loader and SGX; split the key ids (TME-MT/TDX); disable the limit of physical address bits")
}

func tdxKVM(_ context.Context, e *exam) verdict {
	return parameter(e, "/sys/module/kvm_intel/parameters/tdx", "load kvm_intel with tdx=1 (kernel 6.16 or later), after the BIOS enabled TDX")
}

func parameter(e *exam, path, remedy string) verdict {
	switch v := e.read(path); v {
	case "Y", "1":
		return ok(path + " is " + v)
	case "":
		return fail(path+" is not there", remedy)
	default:
		return fail(path+" is "+v, remedy)
	}
}

func tdxModule(_ context.Context, e *exam) verdict {
	const remedy = "update the BIOS (it brings SEAMLDR and the TDX module), or put a newer module where the BIOS looks (EFI/TDX/TDX-SEAM.so); then look at `dmesg | grep -i tdx`"
	if line := e.logged("virt/tdx: module initialized"); line != "" {
		return ok(line)
	}
	for _, text := range []string{"virt/tdx: SEAMCALL failed", "virt/tdx: module initialization failed", "virt/tdx: initialization failed", "SEAMLDR"} {
		if line := e.logged(text); line != "" {
			return fail(line, remedy)
		}
	}
	// Newer kernels initialise it with the first TD; the log may also have been overwritten.
	return warn("the kernel's log does not say that the module was initialized", remedy)
}

func tdxTME(_ context.Context, e *exam) verdict {
	if line := orElse(e.logged("x86/mktme: enabled by BIOS"), e.logged("x86/tme: enabled by BIOS")); line != "" {
		return ok(line)
	}
	if e.cpu.flags["tme"] {
		return ok("the CPU flag tme is set")
	}
	return warn("no sign of memory encryption", "in the BIOS: enable TME and TME Multi-Tenant")
}

func tdxSGX(_ context.Context, e *exam) verdict {
	for _, d := range []string{"/dev/sgx_enclave", "/dev/sgx_provision"} {
		if !e.exists(d) {
			return fail(d+" is not there: no quotes can be made", "in the BIOS: enable SGX, and SGX auto registration; kernel option X86_SGX")
		}
	}
	return ok("/dev/sgx_enclave and /dev/sgx_provision are there")
}

func snpBIOS(_ context.Context, e *exam) verdict {
	if e.cpu.flags["sev_snp"] {
		return ok("the CPU flag sev_snp is set")
	}
	return fail("the CPU flag sev_snp is missing", "in the BIOS: enable SMEE, SEV-SNP support and the RMP table (SNP Memory Coverage), and set the minimum SEV ASID")
}

func snpKVM(_ context.Context, e *exam) verdict {
	return parameter(e, "/sys/module/kvm_amd/parameters/sev_snp", "load kvm_amd with sev=1 sev_es=1 sev_snp=1 (kernel 6.11 or later)")
}

func snpDevice(_ context.Context, e *exam) verdict {
	if !e.exists("/dev/sev") {
		return fail("/dev/sev is not there", "load the module ccp; update the SEV firmware (amd_sev_fam*.sbin)")
	}
	return ok(orElse(e.logged("SEV-SNP API:"), "/dev/sev is there"))
}

func snpRMP(_ context.Context, e *exam) verdict {
	if line := orElse(e.logged("SEV-SNP: RMP table physical"), e.logged("SEV-SNP: Segmented RMP")); line != "" {
		return ok(line)
	}
	return warn("the kernel's log does not name an RMP table", "in the BIOS: set SNP Memory Coverage to enabled; the log may also have been overwritten")
}

func snpIOMMU(_ context.Context, e *exam) verdict {
	words := strings.Fields(e.read("/proc/cmdline"))
	for _, w := range []string{"iommu=pt", "amd_iommu=off", "iommu=off", "iommu.passthrough=1"} {
		if slices.Contains(words, w) {
			return fail("the kernel was started with "+w+": SEV-SNP is off with it", "take it off the kernel's command line")
		}
	}
	if len(e.names("/sys/kernel/iommu_groups")) == 0 {
		return fail("there are no IOMMU groups", "enable the IOMMU in the BIOS")
	}
	return ok("translating")
}

func orElse(a, b string) string {
	if a == "" {
		return b
	}
	return a
}
