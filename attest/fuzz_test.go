package attest_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"os"
	"path/filepath"
	"testing"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

// seeds are attestations in every form.
func seeds(f *testing.F) {
	f.Helper()
	hw, err := simtee.New(simtee.Config{Seed: make([]byte, 32)})
	if err != nil {
		f.Fatal(err)
	}
	for version := 1; version <= 2; version++ {
		g, err := hw.Boot(context.Background(), simtee.Boot{Name: string(rune('a' + version)), Version: version, Phase: claim.PhaseRunning})
		if err != nil {
			f.Fatal(err)
		}
		ev, err := g.Evidence(context.Background(), [64]byte{})
		if err != nil {
			f.Fatal(err)
		}
		for _, e := range []attest.Evidence{ev, ev.Strip(), {Quote: []byte{1}, Encoding: attest.EncodingV0}, {Encoding: attest.EncodingV1}} {
			b, err := e.Marshal()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	pod := "{}"
	for _, e := range []attest.Evidence{snpEvidence(), nitroEvidence(claim.VariantNitroEnclave), nitroEvidence(claim.VariantNitroTPM), {PodPayload: &pod, ReportData: sha512.Sum512([]byte("app-data:" + pod))}} {
		for _, form := range []attest.Encoding{attest.EncodingAuto, attest.EncodingV1} {
			e.Encoding = form
			b, err := e.Marshal()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	if b, err := os.ReadFile(filepath.Join("..", "..", "shared", "vectors", "simulator", "attestation.bin")); err == nil {
		f.Add(b)
	}
}

// What is accepted re-encodes to the same bytes.
func FuzzParseEvidence(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		ev, err := attest.ParseEvidence(b)
		if err != nil {
			if c := cvm.CodeOf(err); c != cvm.Invalid && c != cvm.Unsupported {
				t.Fatalf("code %s: %v", c, err)
			}
			return
		}
		again, err := ev.Marshal()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("not canonical: %v", err)
		}
		if _, err := ev.Strip().Marshal(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestEvidenceRefusals(t *testing.T) {
	s := newScene(t, nil)
	v0, err := s.ev.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	s.ev.Encoding = attest.EncodingV1
	v1, err := s.ev.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if v0[0] != 0 || v1[0] != 0x83 {
		t.Fatalf("first bytes %#x %#x", v0[0], v1[0])
	}
	replace := func(b []byte, old, repl string) []byte { return bytes.Replace(b, []byte(old), []byte(repl), 1) }
	for name, b := range map[string][]byte{
		"empty": {}, "unknown first byte": {0x42}, "V0 other TEE": {0, 3}, "V0 truncated": v0[:len(v0)-1], "V0 trailing": append(bytes.Clone(v0), 0),
		"V1 truncated": v1[:len(v1)-1], "V1 trailing": append(bytes.Clone(v1), 0), "V1 other TEE": replace(v1, "\xa3tdx", "\xa3sev"),
		"V1 other stack": replace(v1, "\xa6dstack", "\xa6dstacc"), "V1 other key": replace(v1, "event_log", "event_lag"),
		"V1 version": replace(v1, "version\x01", "version\x02"), "V1 not shortest": replace(v1, "version\x01", "version\xcc\x01"),
		// 14 could be one byte: a length in its long form.
		"V0 not shortest":             append([]byte{0, 0, 0x38 | 1, 0}, make([]byte, 14)...),
		"V0 a name that is not UTF-8": replace(v0, "app-id", "app-\xff\xfe"),
		"too large":                   make([]byte, attest.MaxEvidence+1),
		"V0 endless":                  {0, 0, 3, 0xff, 0xff, 0xff, 0xff},
	} {
		if _, err := attest.ParseEvidence(b); cvm.CodeOf(err) != cvm.Invalid && cvm.CodeOf(err) != cvm.Unsupported {
			t.Errorf("%s: %v", name, err)
		}
	}
	for b, n := range map[string][]byte{"V0": v0, "V1": v1} {
		for i := range n {
			if i%17 == 0 {
				if _, err := attest.ParseEvidence(n[:i]); err == nil {
					t.Errorf("%s cut at %d is accepted", b, i)
				}
			}
		}
	}
}
