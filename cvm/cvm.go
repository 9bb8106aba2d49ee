// Package cvm holds the words every other package speaks: the identities of
// apps, instances, devices and images, the digests of what runs, the platforms
// it runs on, and the coded error used at every edge.
//
// It imports the standard library only, does no I/O and knows no clock.
package cvm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// AppID names an app: the 20-byte address of its DstackApp contract, or, without
// a chain, the first 20 bytes of its compose hash.
type AppID [20]byte

// InstanceID names one instance of an app: sha256(seed || app id)[:20]. The zero
// value stands for "no instance id" (an app that sets no_instance_id).
type InstanceID [20]byte

// DeviceID names the machine: sha256 of the PPID (TDX) or of the chip id (SNP).
type DeviceID [32]byte

// ComposeHash is sha256 over the exact bytes of app-compose.json.
type ComposeHash [32]byte

// ImageHash is the OS image's identity: sha256 over the bytes of sha256sum.txt.
type ImageHash [32]byte

// Measurement is one SHA-384 measurement register (MRTD, RTMR0-3, SNP launch digest).
type Measurement [48]byte

func (v AppID) String() string       { return hex.EncodeToString(v[:]) }
func (v InstanceID) String() string  { return hex.EncodeToString(v[:]) }
func (v DeviceID) String() string    { return hex.EncodeToString(v[:]) }
func (v ComposeHash) String() string { return hex.EncodeToString(v[:]) }
func (v ImageHash) String() string   { return hex.EncodeToString(v[:]) }
func (v Measurement) String() string { return hex.EncodeToString(v[:]) }

// IsZero reports whether the id is absent.
func (v AppID) IsZero() bool      { return v == AppID{} }
func (v InstanceID) IsZero() bool { return v == InstanceID{} }

// MarshalText writes lowercase hex without 0x.
func (v AppID) MarshalText() ([]byte, error)       { return []byte(v.String()), nil }
func (v DeviceID) MarshalText() ([]byte, error)    { return []byte(v.String()), nil }
func (v ComposeHash) MarshalText() ([]byte, error) { return []byte(v.String()), nil }
func (v ImageHash) MarshalText() ([]byte, error)   { return []byte(v.String()), nil }
func (v Measurement) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// MarshalText writes lowercase hex, or nothing for the zero id.
func (v InstanceID) MarshalText() ([]byte, error) {
	if v.IsZero() {
		return nil, nil
	}
	return []byte(v.String()), nil
}

// UnmarshalText reads hex of exactly the right length, with an optional 0x.
func (v *AppID) UnmarshalText(b []byte) error       { return unhex("app id", v[:], b) }
func (v *DeviceID) UnmarshalText(b []byte) error    { return unhex("device id", v[:], b) }
func (v *ComposeHash) UnmarshalText(b []byte) error { return unhex("compose hash", v[:], b) }
func (v *ImageHash) UnmarshalText(b []byte) error   { return unhex("image hash", v[:], b) }
func (v *Measurement) UnmarshalText(b []byte) error { return unhex("measurement", v[:], b) }

// UnmarshalText reads 40 hex digits, or the empty string for the zero id.
func (v *InstanceID) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*v = InstanceID{}
		return nil
	}
	return unhex("instance id", v[:], b)
}

// ParseAppID reads 40 hex digits with an optional 0x.
func ParseAppID(s string) (v AppID, err error) { return v, v.UnmarshalText([]byte(s)) }

// ParseInstanceID reads 40 hex digits with an optional 0x, or "" for none.
func ParseInstanceID(s string) (v InstanceID, err error) { return v, v.UnmarshalText([]byte(s)) }

// ParseDeviceID reads 64 hex digits with an optional 0x.
func ParseDeviceID(s string) (v DeviceID, err error) { return v, v.UnmarshalText([]byte(s)) }

// ParseComposeHash reads 64 hex digits with an optional 0x.
func ParseComposeHash(s string) (v ComposeHash, err error) { return v, v.UnmarshalText([]byte(s)) }

func unhex(what string, dst, src []byte) error {
	s := strings.TrimPrefix(string(src), "0x")
	if len(s) != 2*len(dst) {
		return Errorf(Invalid, "%s: want %d hex digits, got %d", what, 2*len(dst), len(s))
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return Errorf(Invalid, "%s: not hex", what)
	}
	copy(dst, b)
	return nil
}

// NewInstanceID derives an instance id from its 20-byte seed and the app.
func NewInstanceID(seed []byte, app AppID) (v InstanceID) {
	h := sha256.Sum256(append(append([]byte{}, seed...), app[:]...))
	copy(v[:], h[:20])
	return v
}

// Platform is what kind of TEE stands behind a piece of evidence. It is decided
// by the root the evidence chains to, never by what the evidence says.
type Platform string

const (
	PlatformTDX       Platform = "tdx"       // Intel's pinned root
	PlatformSEVSNP    Platform = "sev-snp"   // AMD's pinned roots
	PlatformNitro     Platform = "aws-nitro" // AWS's pinned root: a hypervisor's word, no processor vendor's
	PlatformSimulated Platform = "simulated" // attest/simtee: proves nothing about hardware
	PlatformCustom    Platform = "custom"    // any other root that a policy named
)

// TEE variant names as the reference spells them in boot info and requirements.
const (
	VariantTDX = "dstack-tdx"
	VariantSNP = "dstack-amd-sev-snp"
)

// String makes Platform printable in reports.
func (p Platform) String() string {
	if p == "" {
		return "unknown"
	}
	return string(p)
}

var _ fmt.Stringer = AppID{}
