package measure

import "encoding/binary"

// vmsa is the save area of a vCPU at reset as QEMU with KVM sets it up (AMD APM
// volume 2, table B-4): real mode at eip, with the CPU's signature in RDX.
func vmsa(eip, signature uint32, features uint64) []byte {
	b := make([]byte, pageSize)
	le := binary.LittleEndian
	for _, s := range []struct {
		at             int
		selector, attr uint16
		base           uint64
	}{
		{0x00, 0, 0x93, 0}, // es
		{0x10, 0xf000, 0x9b, uint64(eip & 0xffff0000)}, // cs
		{0x20, 0, 0x93, 0}, // ss
		{0x30, 0, 0x93, 0}, // ds
		{0x40, 0, 0x93, 0}, // fs
		{0x50, 0, 0x93, 0}, // gs
		{0x60, 0, 0, 0},    // gdtr
		{0x70, 0, 0x82, 0}, // ldtr
		{0x80, 0, 0, 0},    // idtr
		{0x90, 0, 0x8b, 0}, // tr
	} {
		le.PutUint16(b[s.at:], s.selector)
		le.PutUint16(b[s.at+2:], s.attr)
		le.PutUint32(b[s.at+4:], 0xffff)
		le.PutUint64(b[s.at+8:], s.base)
	}
	for at, v := range map[int]uint64{
		0xd0:  0x1000,               // efer
		0x148: 0x40,                 // cr4
		0x158: 0x10,                 // cr0
		0x160: 0x400,                // dr7
		0x168: 0xffff0ff0,           // dr6
		0x170: 2,                    // rflags
		0x178: uint64(eip & 0xffff), // rip
		0x268: 0x0007040600070406,   // g_pat
		0x310: uint64(signature),    // rdx
		0x3b0: features,             // sev_features
		0x3e8: 1,                    // xcr0
	} {
		le.PutUint64(b[at:], v)
	}
	le.PutUint32(b[0x408:], 0x1f80) // mxcsr
	le.PutUint16(b[0x410:], 0x37f)  // x87 control word
	return b
}
