package tpm

import (
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"slices"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
)

// GoogleRoots are the roots of Google Compute Engine's vTPM certificates, by sha256 of
// their keys: "EK/AK CA Root" (serial 00a65da4f9e328f38035c3a73d4f72432bdf15dc, to
// 2122) and its predecessor "tpm_ek_v1_cloud_host_root" (6f0e24b18dbe4e538c4f96c3a8265ac1,
// to 2118).
func GoogleRoots() [][32]byte {
	return [][32]byte{
		{
			0x56, 0xa6, 0x13, 0xf5, 0x71, 0x26, 0xa3, 0x85, 0xdd, 0x69, 0x49, 0x29, 0x4e, 0x93, 0xb0, 0xb5,
			0x66, 0xf9, 0x6a, 0xb0, 0x57, 0x3b, 0xe0, 0xc2, 0x36, 0x8e, 0x6f, 0x5c, 0xa7, 0x79, 0x83, 0x1f,
		},
		{
			0xf2, 0x30, 0x57, 0xf4, 0xf9, 0x7d, 0x1d, 0x90, 0xe4, 0xca, 0xe0, 0xce, 0x91, 0xd5, 0xa0, 0xfc,
			0x99, 0x06, 0x9f, 0x0a, 0x1b, 0xc1, 0x47, 0x02, 0x1d, 0xca, 0x33, 0xb1, 0xe9, 0xc4, 0xd0, 0xd9,
		},
	}
}

// Machine is what Google certified about the VM that holds the TPM.
type Machine struct {
	Zone          string `json:"zone"`
	ProjectNumber uint64 `json:"project_number"`
	Project       string `json:"project"`
	InstanceID    uint64 `json:"instance_id"`
	Instance      string `json:"instance"`
}

const oidGCEInstance = "1.3.6.1.4.1.11129.2.1.21"

// gceInstance is the extension's ASN.1. Security properties may follow, in [0].
type gceInstance struct {
	Zone          string `asn1:"utf8"`
	ProjectNumber *big.Int
	Project       string `asn1:"utf8"`
	InstanceID    *big.Int
	Instance      string        `asn1:"utf8"`
	Security      asn1.RawValue `asn1:"optional"`
}

// ReadMachine reads Google's instance extension; nil without one.
func ReadMachine(c *x509.Certificate) (*Machine, error) {
	raw, ok := collateral.Extension(c, oidGCEInstance)
	if !ok {
		return nil, nil
	}
	var g gceInstance
	rest, err := asn1.Unmarshal(raw, &g)
	security := g.Security.FullBytes == nil || g.Security.Class == asn1.ClassContextSpecific && g.Security.Tag == 0
	if err != nil || len(rest) != 0 || !security || !g.ProjectNumber.IsUint64() || !g.InstanceID.IsUint64() {
		return nil, refuse("the certificate's instance extension is not readable")
	}
	return &Machine{Zone: g.Zone, ProjectNumber: g.ProjectNumber.Uint64(), Project: g.Project, InstanceID: g.InstanceID.Uint64(), Instance: g.Instance}, nil
}

func (v *verifier) machine(ak *x509.Certificate) {
	m, err := ReadMachine(ak)
	if err != nil {
		v.rec.Fail(claim.TPMMachine, "", "", err.Error())
		return
	}
	v.out.Machine = m
	switch {
	case v.p.AnyMachine:
		v.rec.Pass(claim.TPMMachine, "any")
	case m == nil || !slices.Contains(v.p.Projects, m.Project):
		got := "a certificate that names no machine"
		if m != nil {
			got = m.Project
		}
		v.rec.Fail(claim.TPMMachine, "an admitted project", got, "the policy does not admit this machine")
	default:
		v.rec.Pass(claim.TPMMachine, m.Project+"/"+m.Zone+"/"+m.Instance)
	}
}
