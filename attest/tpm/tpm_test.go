package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/simtee/simdev"
	"github.com/confidential-cloud/phala/attest/tpm"
	"github.com/confidential-cloud/phala/cvm"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

type scene struct {
	hw   *simdev.TPM
	ev   tpm.Evidence
	ends tpm.Endorsements
	p    tpm.Policy
	at   time.Time
}

func events() []eventlog.Runtime {
	return []eventlog.Runtime{
		{Name: eventlog.SystemPreparing}, {Name: eventlog.AppID, Payload: make([]byte, 20)}, {Name: eventlog.ComposeHash, Payload: make([]byte, 32)},
		{Name: eventlog.GPUPolicyHash, Payload: make([]byte, 32)}, {Name: eventlog.InstanceID, Payload: make([]byte, 20)}, {Name: eventlog.BootMRDone},
	}
}

// newScene is accepted as it stands; edit changes the TPM before it quotes.
func newScene(t testing.TB, edit func(*simdev.TPM)) *scene {
	t.Helper()
	hw, err := simdev.NewTPM("a", at)
	if err != nil {
		t.Fatal(err)
	}
	pcr14, err := eventlog.ReplayBank(events(), crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	hw.PCRs = map[int][]byte{0: bytes.Repeat([]byte{1}, 32), 2: bytes.Repeat([]byte{2}, 32), 14: pcr14}
	if edit != nil {
		edit(hw)
	}
	s := &scene{hw: hw, at: at}
	if s.ev, err = hw.Evidence([]byte("the nonce")); err != nil {
		t.Fatal(err)
	}
	s.ev.Events = events()
	s.ends.Chain = hw.PKI.DER()[1:]
	if s.ends.CRLs, err = hw.PKI.CRLs(at); err != nil {
		t.Fatal(err)
	}
	s.p = tpm.Policy{Roots: [][32]byte{hw.PKI.Root()}, Nonce: []byte("the nonce"), Bank: tpm.SHA256,
		PCRs: map[int][]byte{0: bytes.Repeat([]byte{1}, 32), 2: bytes.Repeat([]byte{2}, 32)}, AnyMachine: true, Phases: []claim.Phase{claim.PhaseRelease}}
	return s
}

func (s *scene) verify() (tpm.Claims, error) {
	c, _, err := tpm.Verify(s.ev, s.ends, s.p, s.at)
	return c, err
}

// failed lists the required checks that did not pass.
func failed(err error) (out []string) {
	var r *claim.Rejection
	if errors.As(err, &r) {
		for _, c := range r.Checks {
			if c.Verdict == claim.Failed {
				out = append(out, c.Name)
			}
		}
	}
	return out
}

func TestAccepted(t *testing.T) {
	s := newScene(t, nil)
	c, err := s.verify()
	if err != nil {
		t.Fatal(err)
	}
	if c.Launch == nil || c.Launch.Phase != claim.PhaseRelease || !c.Expires.Equal(at.Add(time.Hour)) || c.RootSPKI != s.hw.PKI.Root() {
		t.Fatalf("claims %+v", c)
	}
}

// Every one of these must be refused, by the named check and by no other.
func TestRefusals(t *testing.T) {
	other, err := simdev.NewTPM("b", at)
	if err != nil {
		t.Fatal(err)
	}
	wrongUsage := func(i int, c *x509.Certificate) {
		if i == 0 {
			c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
		}
	}
	for name, tc := range map[string]struct {
		check string
		make  func(*simdev.TPM)
		edit  func(*scene)
	}{
		"no root in the policy":      {claim.RootAdmitted, nil, func(s *scene) { s.p.Roots = nil }},
		"another root":               {claim.RootAdmitted, nil, func(s *scene) { s.p.Roots = [][32]byte{other.PKI.Root()} }},
		"no revocation lists":        {claim.CRLRevoked, nil, func(s *scene) { s.ends.CRLs = nil }},
		"one list is missing":        {claim.CRLRevoked, nil, func(s *scene) { s.ends.CRLs = s.ends.CRLs[:1] }},
		"lists of another vendor":    {claim.CRLRevoked, nil, func(s *scene) { s.ends.CRLs, _ = other.PKI.CRLs(at) }},
		"expired lists":              {claim.CRLRevoked, nil, func(s *scene) { s.ends.CRLs, _ = s.hw.PKI.CRLs(at.Add(-3 * time.Hour)) }},
		"revoked key":                {claim.CRLRevoked, nil, func(s *scene) { s.ends.CRLs, _ = s.hw.PKI.CRLs(at, s.hw.PKI.Certs[0]) }},
		"revoked CA":                 {claim.CRLRevoked, nil, func(s *scene) { s.ends.CRLs, _ = s.hw.PKI.CRLs(at, s.hw.PKI.Certs[1]) }},
		"no nonce in the policy":     {claim.TPMQuoteNonce, nil, func(s *scene) { s.p.Nonce = nil }},
		"empty nonce":                {claim.TPMQuoteNonce, nil, func(s *scene) { s.p.Nonce = []byte{} }},
		"another nonce":              {claim.TPMQuoteNonce, nil, func(s *scene) { s.p.Nonce = []byte("another") }},
		"no registers in the policy": {claim.TPMPCRs, nil, func(s *scene) { s.p.PCRs = nil }},
		"no bank in the policy":      {claim.TPMPCRs, nil, func(s *scene) { s.p.Bank = 0 }},
		"another bank":               {claim.TPMPCRs, nil, func(s *scene) { s.p.Bank = tpm.SHA384 }},
		"another firmware":           {claim.TPMPCRs, nil, func(s *scene) { s.p.PCRs[0] = make([]byte, 32) }},
		"a register not quoted":      {claim.TPMPCRs, nil, func(s *scene) { s.p.PCRs[5] = make([]byte, 32) }},
		"an empty expectation":       {claim.TPMPCRs, nil, func(s *scene) { s.p.PCRs[0] = nil }},
		"a register that is none":    {claim.TPMPCRs, nil, func(s *scene) { s.p.PCRs[24] = make([]byte, 32) }},
		"a value altered":            {claim.TPMPCRDigest, nil, func(s *scene) { s.ev.PCRs[2] = make([]byte, 32) }},
		"a value missing":            {claim.TPMPCRDigest, nil, func(s *scene) { delete(s.ev.PCRs, 2) }},
		"a value too many":           {claim.TPMPCRDigest, nil, func(s *scene) { s.ev.PCRs[3] = make([]byte, 32) }},
		"bank SHA-1":                 {claim.TPMPCRDigest, func(h *simdev.TPM) { h.Quote.Bank = tpm.SHA1 }, nil},
		"no machine in the policy":   {claim.TPMMachine, nil, func(s *scene) { s.p.AnyMachine = false }},
		"project, none certified":    {claim.TPMMachine, nil, func(s *scene) { s.p.AnyMachine, s.p.Projects = false, []string{"p"} }},
		"no phase for a log":         {claim.PhaseCheck, nil, func(s *scene) { s.p.Phases = nil }},
		"another phase":              {claim.PhaseCheck, nil, func(s *scene) { s.p.Phases = []claim.Phase{claim.PhaseRunning} }},
		"no log where one must be":   {claim.EventlogReplay, nil, func(s *scene) { s.ev.Events = nil }},
		"an event changed":           {claim.EventlogReplay, nil, func(s *scene) { s.ev.Events[1].Payload = bytes.Repeat([]byte{9}, 20) }},
		"PCR14 not quoted":           {claim.EventlogReplay, func(h *simdev.TPM) { delete(h.PCRs, 14) }, nil},
		"chain without root":         {claim.TPMKeyChain, nil, func(s *scene) { s.ends.Chain = s.ends.Chain[:1] }},
		"another machine's key":      {claim.TPMKeyChain, nil, func(s *scene) { s.ev.Chain = other.PKI.DER()[:1] }},
		"six certificates":           {claim.TPMKeyChain, nil, func(s *scene) { s.ends.Chain = slices.Repeat(s.ends.Chain, 3) }},
		"expired certificate":        {claim.TPMKeyChain, nil, func(s *scene) { s.at = at.Add(25 * time.Hour) }},
		"not yet valid":              {claim.TPMKeyChain, nil, func(s *scene) { s.at = at.Add(-2 * time.Hour) }},
		"signature of another":       {claim.TPMQuoteSignature, nil, func(s *scene) { s.ev.Signature, _ = other.Sign(s.ev.Quote) }},
		"signature over other bytes": {claim.TPMQuoteSignature, nil, func(s *scene) { s.ev.Signature, _ = s.hw.Sign([]byte("x")) }},
		"self-signed key":            {claim.TPMKeyChain, nil, func(s *scene) { s.ev.Chain, s.ends.Chain = s.hw.PKI.DER()[2:], nil }},
		"an endorsement key signs too": {claim.TPMKeyChain, func(h *simdev.TPM) {
			h.PKI, _ = simdev.NewPKI("a", at, []string{"tpm-ak", "tpm-ca", "tpm-root"}, wrongUsage)
		}, nil},
		"quote cut":             {claim.TPMQuoteParse, nil, func(s *scene) { s.ev.Quote = s.ev.Quote[:len(s.ev.Quote)-1] }},
		"quote with a tail":     {claim.TPMQuoteParse, nil, func(s *scene) { s.ev.Quote = append(bytes.Clone(s.ev.Quote), 0) }},
		"signature with a tail": {claim.TPMQuoteParse, nil, func(s *scene) { s.ev.Signature = append(bytes.Clone(s.ev.Signature), 0) }},
		"quote too large":       {claim.TPMQuoteParse, nil, func(s *scene) { s.ev.Quote = make([]byte, tpm.MaxQuote+1) }},
	} {
		s := newScene(t, tc.make)
		if tc.edit != nil {
			tc.edit(s)
		}
		if _, err := s.verify(); !slices.Equal(failed(err), []string{tc.check}) && !(tc.check == claim.TPMKeyChain && slices.Contains(failed(err), tc.check)) {
			t.Errorf("%s: failed %v, want %s (%v)", name, failed(err), tc.check, err)
		}
	}
	if _, _, err := tpm.Verify(tpm.Evidence{}, tpm.Endorsements{}, tpm.Policy{}, at); err == nil {
		t.Error("nothing at all is accepted")
	}
}

func TestRevocationWaived(t *testing.T) {
	s := newScene(t, nil)
	s.ends.CRLs, s.p.WithoutRevocation = nil, true
	if _, err := s.verify(); err != nil {
		t.Fatal(err)
	}
}

// With SHA-384 the bank's replay is that of RTMR3.
func TestReplayBankAgrees(t *testing.T) {
	for _, version := range []int{1, 2} {
		ev := events()
		for i := range ev {
			ev[i].Version = version
		}
		want, err := eventlog.ReplayRuntime(ev)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := eventlog.ReplayBank(ev, crypto.SHA384); err != nil || !bytes.Equal(got, want[:]) {
			t.Fatalf("version %d: %x, %v", version, got, err)
		}
	}
	if _, err := eventlog.ReplayBank([]eventlog.Runtime{{Name: "a:b"}}, crypto.SHA256); err == nil || !strings.Contains(err.Error(), "event name") {
		t.Fatal(err)
	}
	if _, err := eventlog.ReplayBank(nil, 0); err == nil {
		t.Fatal("a bank without a hash is replayed")
	}
}

// Every single-bit flip of the quote, its signature, the values and the key's
// certificate is refused.
func TestBitFlips(t *testing.T) {
	s := newScene(t, nil)
	s.p.WithoutRevocation = true // each flip costs less
	step := 11                   // of every position some bytes
	if os.Getenv("PHALA_LONG") != "" {
		step = 1
	}
	if testing.Short() {
		step *= 97
	}
	pieces := map[string]*[]byte{"quote": &s.ev.Quote, "signature": &s.ev.Signature, "certificate": &s.ev.Chain[0]}
	for name, p := range pieces {
		good := *p
		for i := 0; i < len(good)*8; i += step {
			bad := bytes.Clone(good)
			bad[i/8] ^= 1 << (i % 8)
			*p = bad
			if _, err := s.verify(); err == nil {
				t.Fatalf("%s: bit %d flipped is accepted", name, i)
			}
		}
		*p = good
	}
	if _, err := s.verify(); err != nil {
		t.Fatal(err)
	}
}

// What a TPM would never write is refused before anything is verified.
func TestParseQuoteRefusals(t *testing.T) {
	good := newScene(t, nil).ev.Quote
	// Offsets: magic 0, type 4, name 6, extra data 42, safe 69, count 78, bank 82, size 84, mask 85, digest 88.
	at := func(i int, v ...byte) []byte { b := bytes.Clone(good); copy(b[i:], v); return b }
	cut := append(at(0)[:86:86], good[88:]...)
	cut[84] = 1
	for name, b := range map[string][]byte{
		"empty": nil, "not made by a TPM": at(0, 0xfe), "a certification": at(4, 0x80, 0x17), "safe is 2": at(69, 2), "no bank": at(78, 0, 0, 0, 0),
		"two banks": at(78, 0, 0, 0, 2), "a selection of four bytes": at(84, 4), "a selection of one byte": cut, "no register": at(85, 0, 0, 0),
		"a long name": at(6, 1, 0), "a long digest": at(88, 1, 0), "a digest longer than the quote": at(88, 0, 49), "cut in the clock": good[:60], "cut at the mask": good[:86],
	} {
		if q, err := tpm.ParseQuote(b); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %+v, %v", name, q, err)
		}
	}
	q, err := tpm.ParseQuote(good)
	if err != nil || q.Has(-1) || q.Has(24) || q.Has(32) || !q.Has(14) || q.Has(1) {
		t.Fatalf("%+v, %v", q, err)
	}
	for name, edit := range map[string]func([]byte) []byte{
		"SHA-1":           func(b []byte) []byte { b[3] = 4; return b },
		"no hash":         func(b []byte) []byte { b[2], b[3] = 0, 0x10; return b },
		"another scheme":  func(b []byte) []byte { b[1] = 0x16; return b },
		"cut":             func(b []byte) []byte { return b[:len(b)-1] },
		"empty":           func([]byte) []byte { return nil },
		"r too long":      func(b []byte) []byte { b[4] = 1; return b },
		"RSA for an EC":   func([]byte) []byte { return append([]byte{0, 0x14, 0, 0x0c, 0, 96}, make([]byte, 96)...) },
		"the hash is 512": func(b []byte) []byte { b[3] = 0x0d; return b },
	} {
		s := newScene(t, nil)
		s.ev.Signature = edit(bytes.Clone(s.ev.Signature))
		want := claim.TPMQuoteParse
		if name == "RSA for an EC" || name == "the hash is 512" {
			want = claim.TPMQuoteSignature
		}
		if _, err := s.verify(); !slices.Contains(failed(err), want) {
			t.Errorf("signature, %s: failed %v", name, failed(err))
		}
	}
}

// What is accepted re-encodes to the same bytes.
func FuzzParseQuote(f *testing.F) {
	s := newScene(f, nil)
	f.Add(s.ev.Quote)
	f.Add(s.ev.Quote[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := tpm.ParseQuote(b)
		if err == nil && !bytes.Equal(simdev.EncodeQuote(*q), b) {
			t.Fatalf("not canonical: %x", b)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	s := newScene(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.verify(); err != nil {
			b.Fatal(err)
		}
	}
}
