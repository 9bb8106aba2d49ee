package tpm_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee/simdev"
	"github.com/confidential-cloud/phala/attest/tpm"
	"github.com/confidential-cloud/phala/cvm"
)

// encodeLog writes a log whose algorithms are SHA-256 and SHA-1, in that order.
func encodeLog(events []tpm.LogEvent) []byte {
	le := binary.LittleEndian
	spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2, 2, 0, 0, 0, 0x0b, 0, 32, 0, 4, 0, 20, 0, 0)
	b := append(le.AppendUint32([]byte{0, 0, 0, 0, 3, 0, 0, 0}, 0), make([]byte, 16)...)
	b = append(le.AppendUint32(b, uint32(len(spec))), spec...)
	for _, e := range events {
		b = le.AppendUint32(le.AppendUint32(le.AppendUint32(b, uint32(e.PCR)), e.Type), 2)
		b = append(append(b, 0x0b, 0), e.Digests[tpm.SHA256]...)
		b = append(append(b, 4, 0), e.Digests[tpm.SHA1]...)
		b = append(le.AppendUint32(b, uint32(len(e.Data))), e.Data...)
	}
	return b
}

func bootEvents() (out []tpm.LogEvent) {
	add := func(pcr int, typ uint32, d byte) {
		out = append(out, tpm.LogEvent{PCR: pcr, Type: typ, Data: []byte("data"),
			Digests: map[tpm.Alg][]byte{tpm.SHA256: bytes.Repeat([]byte{d}, 32), tpm.SHA1: make([]byte, 20)}})
	}
	add(0, 8, 1)
	add(0, 3, 9) // EV_NO_ACTION extends nothing
	add(2, 0x80000004, 2)
	add(2, 4, 3)
	add(2, 0x80000003, 4)
	return out
}

// bootScene is accepted: PCR0 and PCR2 replay, and the kernel is admitted.
func bootScene(t testing.TB, events []tpm.LogEvent) *scene {
	t.Helper()
	want := map[int][]byte{}
	for _, i := range []int{0, 2} {
		v, err := tpm.Replay(bootEvents(), i, tpm.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		want[i] = v
	}
	s := newScene(t, func(h *simdev.TPM) { maps.Copy(h.PCRs, want) })
	s.p.PCRs, s.p.Kernels = want, [][]byte{bytes.Repeat([]byte{4}, 32)}
	s.ev.BootLog = encodeLog(events)
	return s
}

func TestBootLog(t *testing.T) {
	s := bootScene(t, bootEvents())
	c, err := s.verify()
	if err != nil || c.Kernel[0] != 4 {
		t.Fatal(c.Kernel, err)
	}
	for name, tc := range map[string]struct {
		check string
		edit  func(*scene)
	}{
		"no log":                {claim.TPMBootLog, func(s *scene) { s.ev.BootLog = nil }},
		"an event less":         {claim.TPMBootLog, func(s *scene) { s.ev.BootLog = encodeLog(bootEvents()[1:]) }},
		"another kernel":        {claim.TPMKernel, func(s *scene) { s.p.Kernels = [][]byte{make([]byte, 32)} }},
		"an empty kernel":       {claim.TPMKernel, func(s *scene) { s.p.Kernels = [][]byte{nil} }},
		"a digest exchanged":    {claim.TPMBootLog, func(s *scene) { e := bootEvents(); e[4].Digests[tpm.SHA256][0] = 9; s.ev.BootLog = encodeLog(e) }},
		"the kernel's type":     {claim.TPMKernel, func(s *scene) { e := bootEvents(); e[4].Type = 0x80000004; s.ev.BootLog = encodeLog(e) }},
		"events of other order": {claim.TPMBootLog, func(s *scene) { e := bootEvents(); e[3], e[4] = e[4], e[3]; s.ev.BootLog = encodeLog(e) }},
		"PCR0-7 not quoted": {claim.TPMBootLog, func(s *scene) {
			o := newScene(t, func(h *simdev.TPM) { delete(h.PCRs, 0); delete(h.PCRs, 2) })
			s.ev.Quote, s.ev.Signature, s.ev.PCRs = o.ev.Quote, o.ev.Signature, o.ev.PCRs
			s.p.PCRs = map[int][]byte{14: o.ev.PCRs[14]}
		}},
	} {
		s := bootScene(t, bootEvents())
		tc.edit(s)
		if _, err := s.verify(); !slices.Equal(failed(err), []string{tc.check}) {
			t.Errorf("%s: failed %v, want %s (%v)", name, failed(err), tc.check, err)
		}
	}
	good := encodeLog(bootEvents())
	first := len(encodeLog(nil)) // where the first event begins: PCR, type, count, digests
	edit := func(i int, v ...byte) []byte { b := bytes.Clone(good); copy(b[first+i:], v); return b }
	for name, b := range map[string][]byte{
		"empty": nil, "cut": good[:len(good)-1], "a tail": append(bytes.Clone(good), 0, 1), "another first event": append([]byte{1}, good[1:]...),
		"an unknown algorithm": bytes.Replace(good, []byte{0x0b, 0, 32, 0}, []byte{0x12, 0, 32, 0}, 1), "a size": bytes.Replace(good, []byte{0x0b, 0, 32, 0}, []byte{0x0b, 0, 31, 0}, 1),
		"PCR24": edit(0, 24), "one digest": edit(8, 1), "three digests": edit(8, 3), "a digest of SHA-384": edit(12, 0x0c), "two digests of SHA-1": edit(12, 4),
		"two of SHA-256":  edit(46, 0x0b),
		"too many events": encodeLog(slices.Repeat(bootEvents()[:1], 4097)), "no algorithms": bytes.Replace(good, []byte{2, 0, 0, 0, 0x0b, 0, 32, 0}, []byte{0, 0, 0, 0, 0x0b, 0, 32, 0}, 1),
		"one algorithm twice": bytes.Replace(good, []byte{4, 0, 20, 0}, []byte{0x0b, 0, 32, 0}, 1), "too large": make([]byte, tpm.MaxLog+1),
	} {
		if _, err := tpm.ParseLog(b); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, fill := range []byte{0, 0xff} {
		if e, err := tpm.ParseLog(append(bytes.Clone(good), bytes.Repeat([]byte{fill}, 100)...)); err != nil || len(e) != 5 {
			t.Errorf("padding %#x: %v", fill, err)
		}
	}
	if _, err := tpm.Replay(bootEvents(), 0, tpm.SHA384); err == nil {
		t.Error("a bank without digests is replayed")
	}
}

// The log of the recorded Google VM replays to the PCRs that its TPM quoted. DO NOT CHANGE.
func TestRecordedGoogleLog(t *testing.T) {
	ev, e := recordedGCE(t, "gce-cos-85-nonce9009.pb", tpm.SHA256)
	for _, f := range fields(t, moduleFile(t, tpmTools, "internal/test/attestations/gce-cos-85-nonce9009.pb")) {
		if f.num == 3 {
			ev.BootLog = f.bytes
		}
	}
	p := tpm.Policy{Roots: tpm.GoogleRoots(), WithoutRevocation: true, Nonce: []byte{0x90, 0x09}, Bank: tpm.SHA256, PCRs: map[int][]byte{0: ev.PCRs[0]}, AnyMachine: true}
	_, checks, err := tpm.Verify(ev, e, p, time.Date(2021, 9, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(checks, func(c claim.Check) bool { return c.Name == claim.TPMBootLog })
	if checks[i].Verdict != claim.Passed || checks[i].Got != "8 registers" {
		t.Fatalf("%+v", checks[i])
	}
}

// What is accepted re-encodes to the same bytes, but for its padding.
func FuzzParseLog(f *testing.F) {
	f.Add(encodeLog(bootEvents()))
	f.Fuzz(func(t *testing.T, b []byte) {
		events, err := tpm.ParseLog(b)
		if err != nil {
			return
		}
		for i := range 8 {
			_, _ = tpm.Replay(events, i, tpm.SHA256)
		}
		mine := encodeLog(events)
		// Order and choice of algorithms are the log's own: compare where they are encodeLog's.
		if head := encodeLog(nil); bytes.HasPrefix(b, head) && inOrder(b[len(head):], len(events)) && !bytes.HasPrefix(b, mine) {
			t.Fatalf("not canonical: %x", b)
		}
	})
}

// inOrder reports whether each event lists SHA-256 first.
func inOrder(b []byte, n int) bool {
	for range n {
		if b[12] != 0x0b {
			return false
		}
		b = b[12+2+32+2+20:]
		b = b[4+binary.LittleEndian.Uint32(b):]
	}
	return true
}

// What binds a TPM to a CPU's evidence. DO NOT CHANGE.
func TestBindingVectors(t *testing.T) {
	if got := hex.EncodeToString(tpm.NonceFor([]byte("quote"))); got != "6327245c3a45d3d9ea72b70fbb671926e7b80f63d311bfd73dde876d5df02b26" {
		t.Error(got)
	}
	rd := tpm.ReportDataFor([]byte("spki"))
	if got := hex.EncodeToString(rd[:]); got != "8eca0c8b1c0cfc3be41f23f3657434d24b51a4f6502ce3042195c8b5af8267664bc80aea4c949ca4207a90fdbb49435d9fb2b7faabfcc7399ded092125d067d5" {
		t.Error(got)
	}
}
