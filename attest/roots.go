package attest

import (
	"github.com/confidential-cloud/phala/attest/nitro"
	"github.com/confidential-cloud/phala/attest/sevsnp"
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

// AMDRoots are the roots of genuine SEV-SNP: the AMD root keys (ARK) of Milan,
// Genoa and Turin.
func AMDRoots() []Root {
	var out []Root
	for _, k := range arks() {
		out = append(out, Root{SPKI: k.spki, Platform: cvm.PlatformSEVSNP})
	}
	return out
}

// AWSRoots are the roots of AWS Nitro.
func AWSRoots() []Root { return []Root{{SPKI: nitro.AWSRoot(), Platform: cvm.PlatformNitro}} }

// ark is the root key of one AMD product.
type ark struct {
	product string
	spki    [32]byte
}

// arks are the keys of "ARK-Milan" (serial 010000, to 2045), "ARK-Genoa" (020000,
// to 2047) and "ARK-Turin" (030000, to 2048).
func arks() []ark {
	return []ark{
		{sevsnp.Milan, [32]byte{
			0x9f, 0x05, 0x6b, 0xee, 0x44, 0x37, 0x7e, 0x29, 0x30, 0x8c, 0xb5, 0xff, 0xa8, 0x95, 0xbd, 0xfb,
			0x62, 0xd1, 0x88, 0x81, 0xfa, 0x6b, 0xed, 0x8d, 0x6f, 0x07, 0x5b, 0x02, 0x04, 0x08, 0x9c, 0xb9,
		}},
		{sevsnp.Genoa, [32]byte{
			0x42, 0x9a, 0x69, 0xc9, 0x42, 0x2a, 0xa2, 0x58, 0xee, 0x4d, 0x8d, 0xb5, 0xfc, 0xda, 0x9c, 0x64,
			0x70, 0xef, 0x15, 0xf8, 0xcd, 0x5a, 0x9c, 0xeb, 0xd6, 0xcb, 0xc7, 0xd9, 0x0b, 0x86, 0x38, 0x31,
		}},
		{sevsnp.Turin, [32]byte{
			0x4f, 0x12, 0x54, 0x10, 0x56, 0x3a, 0x2a, 0xb9, 0xa5, 0x03, 0x56, 0xf9, 0x24, 0x3f, 0x6f, 0xe0,
			0xb6, 0xf7, 0x3d, 0xe9, 0x86, 0x03, 0xf5, 0x3f, 0x90, 0x33, 0x9c, 0x70, 0xe9, 0xd7, 0xad, 0x08,
		}},
	}
}

// genuine is the platform that a pinned vendor key stands for; "" for any other key.
func genuine(spki [32]byte) cvm.Platform {
	if spki == intelSGXRoot() {
		return cvm.PlatformTDX
	}
	if spki == nitro.AWSRoot() {
		return cvm.PlatformNitro
	}
	for _, k := range arks() {
		if spki == k.spki {
			return cvm.PlatformSEVSNP
		}
	}
	return ""
}

// SimulatedRoot admits one simulated machine's vendor by name (T10).
func SimulatedRoot(spki [32]byte) Root { return Root{SPKI: spki, Platform: cvm.PlatformSimulated} }
