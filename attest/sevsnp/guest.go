package sevsnp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
)

// GuestPolicy is the POLICY that a VM was launched with (AMD 56860, "Guest
// Policy"): bits 0-7 minimum ABI minor, 8-15 ABI major, then the bits below.
type GuestPolicy uint64

// Bits of a guest policy.
const (
	GuestSMT              GuestPolicy = 1 << 16 // may run where SMT is on
	guestReserved1        GuestPolicy = 1 << 17 // always set
	GuestMigrationAgent   GuestPolicy = 1 << 18
	GuestDebug            GuestPolicy = 1 << 19
	GuestSingleSocket     GuestPolicy = 1 << 20
	GuestCXL              GuestPolicy = 1 << 21 // may use CXL memory
	GuestAES256XTS        GuestPolicy = 1 << 22
	GuestRAPLDisabled     GuestPolicy = 1 << 23
	GuestCiphertextHiding GuestPolicy = 1 << 24
	GuestPageSwapDisabled GuestPolicy = 1 << 25
	guestKnown            GuestPolicy = 1<<26 - 1
)

// ABI is the minimum firmware ABI that the guest demands.
func (p GuestPolicy) ABI() (major, minor uint8) { return uint8(p >> 8), uint8(p) } //nolint:gosec // one byte each

// Debug reports whether the host may read the VM's memory.
func (p GuestPolicy) Debug() bool { return p&GuestDebug != 0 }

// Bits of PLATFORM_INFO.
const (
	PlatformSMT              uint64 = 1 << 0
	PlatformTSME             uint64 = 1 << 1
	PlatformECC              uint64 = 1 << 2
	PlatformRAPLDisabled     uint64 = 1 << 3
	PlatformCiphertextHiding uint64 = 1 << 4
	PlatformAliasCheck       uint64 = 1 << 5
	PlatformTIO              uint64 = 1 << 7
	platformKnown            uint64 = 1<<8 - 1 - 1<<6
)

type named struct {
	name string
	bit  uint64
	weak bool // set, it weakens the VM: a policy must allow it
}

func guestBits() []named {
	return []named{
		{"smt", uint64(GuestSMT), true}, {"cxl", uint64(GuestCXL), true},
		{"single-socket", uint64(GuestSingleSocket), false}, {"aes256-xts", uint64(GuestAES256XTS), false},
		{"rapl-disabled", uint64(GuestRAPLDisabled), false}, {"ciphertext-hiding", uint64(GuestCiphertextHiding), false},
		{"page-swap-disabled", uint64(GuestPageSwapDisabled), false},
	}
}

func platformBits() []named {
	return []named{
		{"smt", PlatformSMT, true}, {"tio", PlatformTIO, true},
		{"tsme", PlatformTSME, false}, {"ecc", PlatformECC, false}, {"rapl-disabled", PlatformRAPLDisabled, false},
		{"ciphertext-hiding", PlatformCiphertextHiding, false}, {"alias-check", PlatformAliasCheck, false},
	}
}

// Guest is what a relying party admits of a VM's launch. The zero value admits the
// strictest launch only: VMPL 0, no SMT, no ID block. A debuggable VM and one with a
// migration agent are never admitted.
type Guest struct {
	// Allow lists the bits of the guest policy that weaken it and are admitted: "smt", "cxl".
	Allow []string `json:"allow" toml:"allow,omitempty"`
	// Require lists bits that must be set: "single-socket", "aes256-xts", "rapl-disabled", "ciphertext-hiding", "page-swap-disabled".
	Require []string `json:"require" toml:"require,omitempty"`
	// MinABIMajor and MinABIMinor: the guest must demand at least this firmware ABI.
	MinABIMajor uint8 `json:"min_abi_major" toml:"min_abi_major,omitempty"`
	MinABIMinor uint8 `json:"min_abi_minor" toml:"min_abi_minor,omitempty"`
	// VMPL is the only privilege level that reports are accepted from (0 to 3).
	VMPL uint32 `json:"vmpl" toml:"vmpl,omitempty"`
	// IDKeys are the digests of admitted ID keys. nil: the VM must have been launched without an ID block.
	IDKeys []cvm.Measurement `json:"id_keys" toml:"id_keys,omitempty"`
	// AuthorKeys are the digests of admitted author keys. nil: none may have been used.
	AuthorKeys []cvm.Measurement `json:"author_keys" toml:"author_keys,omitempty"`
	// MinSVN is the least guest SVN (a field of the ID block).
	MinSVN uint32 `json:"min_svn" toml:"min_svn,omitempty"`
	// PlatformAllow lists bits of PLATFORM_INFO that weaken a VM and are admitted: "smt", "tio".
	PlatformAllow []string `json:"platform_allow" toml:"platform_allow,omitempty"`
	// PlatformRequire lists bits that must be set: "tsme", "ecc", "rapl-disabled", "ciphertext-hiding", "alias-check".
	PlatformRequire []string `json:"platform_require" toml:"platform_require,omitempty"`
	// LaunchMitigations and CurrentMitigations must be set in the report's mitigation vectors (version 5).
	LaunchMitigations  uint64 `json:"launch_mitigations" toml:"launch_mitigations,omitempty"`
	CurrentMitigations uint64 `json:"current_mitigations" toml:"current_mitigations,omitempty"`
	// MinFirmware is the least SEV firmware, committed and current.
	MinFirmware Firmware `json:"min_firmware" toml:"min_firmware,omitempty"`
}

// CheckGuest judges what the VM was launched with and records each check.
func CheckGuest(r *Report, g Guest, rec *claim.Recorder) {
	if r.Policy.Debug() {
		rec.Fail(claim.SNPDebug, "no debug", fmt.Sprintf("policy %#x", uint64(r.Policy)), "the host may read this VM's memory")
	} else {
		rec.Pass(claim.SNPDebug, "")
	}
	rec.Try(claim.SNPGuest, g.policy(r.Policy))
	if r.VMPL != g.VMPL || g.VMPL > 3 {
		rec.Fail(claim.SNPVMPL, fmt.Sprint(g.VMPL), fmt.Sprint(r.VMPL), "the report comes from another privilege level")
	} else {
		rec.Pass(claim.SNPVMPL, fmt.Sprint(r.VMPL))
	}
	rec.Try(claim.SNPIDBlock, g.idBlock(r))
	rec.Try(claim.SNPPlatform, platformInfo(r.PlatformInfo, g))
	if !r.Current.AtLeast(g.MinFirmware) || !r.Committed.AtLeast(g.MinFirmware) {
		rec.Fail(claim.SNPFirmware, fmt.Sprintf("%+v", g.MinFirmware), fmt.Sprintf("%+v", r.Committed), "the SEV firmware is too old")
	} else {
		rec.Pass(claim.SNPFirmware, fmt.Sprintf("%d.%d.%d", r.Current.Major, r.Current.Minor, r.Current.Build))
	}
	if r.LaunchMit&g.LaunchMitigations != g.LaunchMitigations || r.CurrentMit&g.CurrentMitigations != g.CurrentMitigations {
		rec.Fail(claim.SNPMitigation, fmt.Sprintf("%#x, %#x", g.LaunchMitigations, g.CurrentMitigations),
			fmt.Sprintf("%#x, %#x", r.LaunchMit, r.CurrentMit), "mitigations are missing")
	} else {
		rec.Pass(claim.SNPMitigation, "")
	}
}

func (g Guest) policy(p GuestPolicy) error {
	major, minor := p.ABI()
	switch {
	case p&guestReserved1 == 0 || p&^guestKnown != 0:
		return refuse("guest policy %#x: reserved bit 17 is clear or an unknown bit is set", uint64(p))
	case p&GuestMigrationAgent != 0:
		return refuse("the VM has a migration agent, which may move it to another host")
	case major < g.MinABIMajor || major == g.MinABIMajor && minor < g.MinABIMinor:
		return refuse("the VM demands firmware ABI %d.%d, want %d.%d", major, minor, g.MinABIMajor, g.MinABIMinor)
	}
	return bits("guest policy", uint64(p), guestBits(), g.Allow, g.Require)
}

func platformInfo(v uint64, g Guest) error {
	if v&^platformKnown != 0 {
		return refuse("PLATFORM_INFO %#x has unknown bits set", v)
	}
	return bits("PLATFORM_INFO", v, platformBits(), g.PlatformAllow, g.PlatformRequire)
}

// bits refuses weakening bits that are not allowed and required ones that are
// clear. A name that is not in the table is a mistake in the policy, never skipped.
func bits(what string, v uint64, table []named, allow, require []string) error {
	for _, l := range []struct {
		list []string
		weak bool
	}{{allow, true}, {require, false}} {
		for _, n := range l.list {
			if !slices.ContainsFunc(table, func(b named) bool { return b.name == n && b.weak == l.weak }) {
				return refuse("the policy names %q, which is nothing that %s can %s", n, what, map[bool]string{true: "allow", false: "require"}[l.weak])
			}
		}
	}
	var wrong []string
	for _, b := range table {
		switch on := v&b.bit != 0; {
		case b.weak && on && !slices.Contains(allow, b.name):
			wrong = append(wrong, b.name+" is on")
		case !b.weak && !on && slices.Contains(require, b.name):
			wrong = append(wrong, b.name+" is off")
		}
	}
	if wrong != nil {
		return refuse("%s %#x: %s", what, v, strings.Join(wrong, ", "))
	}
	return nil
}

func (g Guest) idBlock(r *Report) error {
	var none cvm.Measurement
	for _, d := range []struct {
		what     string
		digest   cvm.Measurement
		admitted []cvm.Measurement
	}{{"ID key", r.IDKeyDigest, g.IDKeys}, {"author key", r.AuthorKeyDigest, g.AuthorKeys}} {
		switch {
		case d.admitted != nil && len(d.admitted) == 0 || slices.Contains(d.admitted, none):
			return refuse("the policy names an empty %s digest", d.what)
		case len(d.admitted) == 0 && d.digest != none:
			return refuse("the %s %.16s... is not expected", d.what, d.digest)
		case len(d.admitted) != 0 && !slices.Contains(d.admitted, d.digest):
			return refuse("the %s %.16s... is not one that the policy names", d.what, d.digest)
		}
	}
	switch {
	case r.AuthorKey != (r.AuthorKeyDigest != none):
		return refuse("AUTHOR_KEY_EN is %v, the author key's digest says otherwise", r.AuthorKey)
	case r.GuestSVN < g.MinSVN:
		return refuse("guest SVN %d, want %d", r.GuestSVN, g.MinSVN)
	}
	return nil
}
