package tpm_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/tpm"
)

// moduleFile reads a file of a Go module that is in the module cache. It is no
// dependency of ours: without it the test is skipped aloud.
func moduleFile(t testing.TB, module, name string) []byte {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil || len(bytes.TrimSpace(dir)) == 0 {
		t.Skipf("SKIPPED: recorded evidence of %s is not here (go mod download %s, outside this module)", module, module)
	}
	b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const tpmTools = "github.com/google/go-tpm-tools@v0.4.10"

// field is one field of a protobuf message: a varint, or length-delimited bytes.
type field struct {
	num   uint64
	value uint64
	bytes []byte
}

func fields(t testing.TB, b []byte) (out []field) {
	t.Helper()
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		v, m := binary.Uvarint(b[n:])
		f := field{num: tag >> 3, value: v}
		b = b[n+m:]
		if tag&7 == 2 {
			f.bytes, b = b[:v], b[v:]
		}
		out = append(out, f)
	}
	return out
}

// recordedGCE reads a Google attestation of a real VM: the SHA-256 or SHA-384 quote
// and the attestation key's chain to the root.
func recordedGCE(t testing.TB, name string, bank tpm.Alg) (ev tpm.Evidence, e tpm.Endorsements) {
	t.Helper()
	for _, f := range fields(t, moduleFile(t, tpmTools, "internal/test/attestations/"+name)) {
		switch f.num {
		case 6:
			ev.Chain = [][]byte{f.bytes}
		case 2:
			var got tpm.Evidence
			got.PCRs = map[int][]byte{}
			var alg tpm.Alg
			for _, q := range fields(t, f.bytes) {
				switch q.num {
				case 1:
					got.Quote = q.bytes
				case 2:
					got.Signature = q.bytes
				case 3:
					for _, p := range fields(t, q.bytes) {
						if p.num == 1 {
							alg = tpm.Alg(p.value) //nolint:gosec // a TPM_ALG_ID
							continue
						}
						entry := fields(t, p.bytes)
						i := 0
						if len(entry) == 2 {
							i = int(entry[0].value) //nolint:gosec // a register's number
						}
						got.PCRs[i] = entry[len(entry)-1].bytes
					}
				}
			}
			if alg == bank {
				ev.Quote, ev.Signature, ev.PCRs = got.Quote, got.Signature, got.PCRs
			}
		}
	}
	e.Chain = [][]byte{moduleFile(t, tpmTools, "server/ca-certs/tpm_ek_intermediate_2.crt"), moduleFile(t, tpmTools, "server/ca-certs/tpm_ek_root_1.cer")}
	return ev, e
}

// A quote that a Google VM made in 2021, under Google's pinned root. DO NOT CHANGE.
func TestRecordedGoogleVM(t *testing.T) {
	when := time.Date(2021, 9, 1, 0, 0, 0, 0, time.UTC)
	for _, bank := range []tpm.Alg{tpm.SHA256, tpm.SHA384} {
		ev, e := recordedGCE(t, "gce-cos-85-nonce9009.pb", bank)
		p := tpm.Policy{Roots: tpm.GoogleRoots(), WithoutRevocation: true, Nonce: []byte{0x90, 0x09}, Bank: bank,
			PCRs: map[int][]byte{0: ev.PCRs[0], 4: ev.PCRs[4]}, Projects: []string{"google.com:wuale-gcp-testing"}}
		c, checks, err := tpm.Verify(ev, e, p, when)
		if err != nil {
			t.Fatalf("bank %#x: %v", bank, err)
		}
		want := tpm.Machine{Zone: "us-central1-a", ProjectNumber: 0x1b5a475c69, Project: "google.com:wuale-gcp-testing", InstanceID: 0x5e53e3fbbf8306c5, Instance: "cos-test"}
		if *c.Machine != want || c.Firmware != 0x2016051100162800 || len(c.PCRs) != 24 {
			t.Fatalf("claims %+v machine %+v checks %v", c, c.Machine, checks)
		}
		for name, edit := range map[string]func(*tpm.Evidence, *tpm.Policy){
			claim.TPMQuoteNonce: func(_ *tpm.Evidence, p *tpm.Policy) { p.Nonce = []byte{0x90, 0x0a} },
			claim.TPMMachine:    func(_ *tpm.Evidence, p *tpm.Policy) { p.Projects = []string{"another"} },
			claim.CRLRevoked:    func(_ *tpm.Evidence, p *tpm.Policy) { p.WithoutRevocation = false },
			claim.RootAdmitted:  func(_ *tpm.Evidence, p *tpm.Policy) { p.Roots = p.Roots[:1] },
			claim.TPMPCRDigest:  func(ev *tpm.Evidence, _ *tpm.Policy) { ev.PCRs[7] = make([]byte, len(ev.PCRs[7])) },
		} {
			ev2, p2 := ev, p
			ev2.PCRs = maps.Clone(ev.PCRs)
			edit(&ev2, &p2)
			if _, _, err := tpm.Verify(ev2, e, p2, when); !slices.Equal(failed(err), []string{name}) {
				t.Errorf("bank %#x, %s: failed %v", bank, name, failed(err))
			}
		}
	}
	// The quote of the SHA-1 bank is genuine too, and nothing may rest on SHA-1.
	ev, e := recordedGCE(t, "gce-cos-85-nonce9009.pb", tpm.SHA1)
	p := tpm.Policy{Roots: tpm.GoogleRoots(), WithoutRevocation: true, Nonce: []byte{0x90, 0x09}, Bank: tpm.SHA1, PCRs: map[int][]byte{0: ev.PCRs[0]}, AnyMachine: true}
	if _, _, err := tpm.Verify(ev, e, p, when); !slices.Equal(failed(err), []string{claim.TPMPCRDigest}) {
		t.Errorf("SHA-1: %v", err)
	}
}

// Certificates that Google issued to attestation keys, RSA and ECC, under both roots;
// those of endorsement keys are no attestation keys'. DO NOT CHANGE.
func TestRecordedGoogleCertificates(t *testing.T) {
	when := time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		file, ca, root string
		sign           bool
	}{
		{"pca_tpm_rsa_sign_cert.pem", "gcp_ek_ak_ca_intermediate_v3.crt", "gcp_ek_ak_ca_root.crt", true},
		{"pca_tpm_ecc_sign_cert.pem", "gcp_ek_ak_ca_intermediate_v3.crt", "gcp_ek_ak_ca_root.crt", true},
		{"uca_tpm_rsa_sign_cert.pem", "tpm_ek_intermediate_3.crt", "tpm_ek_root_1.cer", true},
		{"uca_tpm_ecc_sign_cert.pem", "tpm_ek_intermediate_3.crt", "tpm_ek_root_1.cer", true},
		{"pca_tpm_rsa_enc_cert.pem", "gcp_ek_ak_ca_intermediate_v3.crt", "gcp_ek_ak_ca_root.crt", false},
		{"uca_tpm_ecc_enc_cert.pem", "tpm_ek_intermediate_3.crt", "tpm_ek_root_1.cer", false},
	} {
		block, _ := pem.Decode(moduleFile(t, tpmTools, "internal/test/certificates/"+tc.file))
		ev := tpm.Evidence{Chain: [][]byte{block.Bytes}}
		e := tpm.Endorsements{Chain: [][]byte{moduleFile(t, tpmTools, "server/ca-certs/"+tc.ca), moduleFile(t, tpmTools, "server/ca-certs/"+tc.root)}}
		s := newScene(t, nil) // another key's quote: only its signature and root are wrong
		ev.Quote, ev.Signature, ev.PCRs, ev.Events = s.ev.Quote, s.ev.Signature, s.ev.PCRs, s.ev.Events
		s.p.Roots, s.p.WithoutRevocation = tpm.GoogleRoots(), true
		want := []string{claim.TPMQuoteSignature}
		if !tc.sign {
			want = []string{claim.TPMKeyChain}
		}
		_, _, err := tpm.Verify(ev, e, s.p, when)
		if !slices.Equal(failed(err), want) {
			t.Errorf("%s: failed %v, want %v (%v)", tc.file, failed(err), want, err)
		}
		chain, err := collateral.ParseDER(append(ev.Chain, e.Chain...), 3)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := tpm.ReadMachine(chain[0]); err != nil || m == nil || m.Zone == "" {
			t.Errorf("%s: machine %+v, %v", tc.file, m, err)
		}
	}
}

// A quote of a Windows VM, whose key has no certificate: it parses and re-encodes. DO NOT CHANGE.
func TestRecordedWindowsQuote(t *testing.T) {
	var doc struct{ Quote struct{ Quote []byte } }
	if err := json.Unmarshal(moduleFile(t, "github.com/google/go-attestation@v0.6.1", "attest/testdata/windows_gcp_shielded_vm.json"), &doc); err != nil {
		t.Fatal(err)
	}
	q, err := tpm.ParseQuote(doc.Quote.Quote)
	if err != nil {
		t.Fatal(err)
	}
	if q.Bank != tpm.SHA1 || q.Count() != 24 || q.Firmware != 4747978653607321653 || q.Resets != 1045281252 || !q.Safe {
		t.Fatalf("%+v", q)
	}
}
