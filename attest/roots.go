package attest

import (
	"github.com/confidential-cloud/phala/cvm"
)

// Root is an admitted trust root.
type Root struct {
	SPKI     [32]byte // sha256 of the root certificate's SubjectPublicKeyInfo
	Platform cvm.Platform
}

// IntelRoots are the roots of genuine TDX: the Intel SGX Root CA.
func IntelRoots() []Root { return []Root{{SPKI: intelSGXRoot(), Platform: cvm.PlatformTDX}} }

// intelSGXRoot is the sha256 of the key of "Intel SGX Root CA" (serial
// 22650cd65a9d3489f383b49552bf501b392706ac), valid to the end of 2049.
func intelSGXRoot() [32]byte {
	return [32]byte{
		0xa0, 0xaf, 0x03, 0x12, 0x89, 0xf5, 0xd5, 0xd4, 0x13, 0x2f, 0x91, 0x86, 0x06, 0x8a, 0x7f, 0xc1,
		0x36, 0x28, 0x63, 0x3b, 0xa2, 0x35, 0x77, 0x74, 0x72, 0xe2, 0x9b, 0x6b, 0x6c, 0x67, 0xa4, 0x9e,
	}
}

func isIntel(spki [32]byte) bool { return spki == intelSGXRoot() }

// SimulatedRoot admits one simulated machine's vendor by name (T10).
func SimulatedRoot(spki [32]byte) Root { return Root{SPKI: spki, Platform: cvm.PlatformSimulated} }
