package container

import (
	"testing"

	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// A SEV-SNP guest is launched with the digest of its image and shape and with the hash
// that the VMM bound it to, and with no other.
func TestSNPLaunch(t *testing.T) {
	const config = `{"os_image_hash":"0100000000000000000000000000000000000000000000000000000000000000","cpu_count":2,"memory_size":1073741824,"tdx_attestation_variant":"container"}`
	digest, _, err := measure.ContainerSNP(config)
	if err != nil {
		t.Fatal(err)
	}
	f := &tee{tds: map[string]simtee.Shape{}, sock: map[string]string{}, snps: map[string]simtee.SNPShape{}}
	d := &Driver{cfg: Config{TEE: f, SNP: true}}
	m := machine.Machine{ID: "a", Run: t.TempDir(), VMConfig: config, MRConfigID: cvm.Measurement{3, 7, 8}}
	if err := d.createTD(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if s := f.snps["vm-a"]; s.Measurement != digest || s.HostData != [32]byte{7, 8} || s.SockMode != 0o600 || len(f.tds) != 0 {
		t.Errorf("%+v, TDs %v", s, f.tds)
	}
	m.MRConfigID = cvm.Measurement{1}
	if err := d.createTD(t.Context(), m); cvm.ReasonOf(err) != "no-mr-config" {
		t.Errorf("a launch that is bound to no document: %v", err)
	}
	f.snps, m.MRConfigID = nil, cvm.Measurement{3}
	if err := d.createTD(t.Context(), m); cvm.ReasonOf(err) != "tee-unavailable" {
		t.Errorf("hardware without SEV-SNP: %v", err)
	}
	if _, err := d.Describe(t.Context()); cvm.ReasonOf(err) != "no-sev-snp" {
		t.Errorf("a node whose hardware has no SEV-SNP: %v", err)
	}
}
