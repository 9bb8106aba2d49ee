package sevsnp

import (
	"encoding/binary"
	"fmt"
)

// Products (processor lines) with a root key of their own.
const (
	Milan = "Milan"
	Genoa = "Genoa"
	Turin = "Turin"
)

// Products lists them all.
func Products() []string { return []string{Milan, Genoa, Turin} }

// product is the line of the processor that made a report, from its CPUID family
// and model; "" when the model is unknown. Bergamo and Siena (0xa0) count as Genoa, the
// dense Turin (0x11) as Turin.
func product(family, model uint8) string {
	switch {
	case family == 0x19 && model == 0x01:
		return Milan
	case family == 0x19 && (model == 0x11 || model == 0xa0):
		return Genoa
	case family == 0x1a && (model == 0x02 || model == 0x11):
		return Turin
	}
	return ""
}

// Product is the processor line that the report names; "" in version 2, which
// names none, and for unknown lines.
func (r *Report) Product() string {
	if r.Version < 3 {
		return ""
	}
	return product(r.Family, r.Model)
}

// HWIDSize is the length of a chip's id in bytes. Reports carry it zero-padded to 64.
func HWIDSize(product string) int {
	if product == Turin {
		return 8
	}
	return 64
}

// TCB is a TCB_VERSION in parts: security patch levels.
type TCB struct {
	FMC        uint8 `json:"fmc,omitempty" toml:"fmc,omitempty"` // Turin only
	BootLoader uint8 `json:"bootloader" toml:"bootloader,omitempty"`
	TEE        uint8 `json:"tee" toml:"tee,omitempty"`
	SNP        uint8 `json:"snp" toml:"snp,omitempty"`
	Microcode  uint8 `json:"microcode" toml:"microcode,omitempty"`
}

// ParseTCB splits a TCB_VERSION by the layout of a product. Reserved bytes must be zero.
func ParseTCB(product string, v uint64) (TCB, error) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	t := TCB{BootLoader: b[0], TEE: b[1], SNP: b[6], Microcode: b[7]}
	if product == Turin {
		t = TCB{FMC: b[0], BootLoader: b[1], TEE: b[2], SNP: b[3], Microcode: b[7]}
	}
	if t.Value(product) != v {
		return TCB{}, refuse("TCB %#016x has reserved bytes set", v)
	}
	return t, nil
}

// Value is the TCB_VERSION for a product.
func (t TCB) Value(product string) uint64 {
	b := [8]byte{t.BootLoader, t.TEE, 0, 0, 0, 0, t.SNP, t.Microcode}
	if product == Turin {
		b = [8]byte{t.FMC, t.BootLoader, t.TEE, t.SNP, 0, 0, 0, t.Microcode}
	}
	return binary.LittleEndian.Uint64(b[:])
}

// AtLeast reports whether every part reaches that of other.
func (t TCB) AtLeast(other TCB) bool {
	return t.FMC >= other.FMC && t.BootLoader >= other.BootLoader && t.TEE >= other.TEE && t.SNP >= other.SNP && t.Microcode >= other.Microcode
}

// String is short and safe to show.
func (t TCB) String() string {
	return fmt.Sprintf("fmc %d, bootloader %d, tee %d, snp %d, microcode %d", t.FMC, t.BootLoader, t.TEE, t.SNP, t.Microcode)
}
