package nitro_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/nitro"
	"github.com/confidential-cloud/phala/attest/simtee/simdev"
	"github.com/confidential-cloud/phala/cvm"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

type scene struct {
	hw   *simdev.Nitro
	ev   nitro.Evidence
	ends nitro.Endorsements
	p    nitro.Policy
	at   time.Time
}

func events() []eventlog.Runtime {
	return []eventlog.Runtime{
		{Name: eventlog.SystemPreparing}, {Name: eventlog.AppID, Payload: make([]byte, 20)}, {Name: eventlog.ComposeHash, Payload: make([]byte, 32)},
		{Name: eventlog.GPUPolicyHash, Payload: make([]byte, 32)}, {Name: eventlog.InstanceID, Payload: make([]byte, 20)}, {Name: eventlog.BootMRDone},
	}
}

// newScene is accepted as it stands; edit changes the hypervisor before it signs.
func newScene(t testing.TB, tpm bool, edit func(*simdev.Nitro)) *scene {
	t.Helper()
	hw, err := simdev.NewNitro("a", at, tpm)
	if err != nil {
		t.Fatal(err)
	}
	hw.Document.Nonce, hw.Document.PublicKey, hw.Document.UserData = []byte("nonce"), []byte("key"), []byte{}
	which, s := []int{0, 1, 2}, &scene{hw: hw, at: at}
	s.p.Variant, s.p.Phases = claim.VariantNitroEnclave, []claim.Phase{claim.PhaseUnproven}
	if tpm {
		which, s.p.Variant, s.p.Phases, s.ev.Events = []int{4, 7, 12}, claim.VariantNitroTPM, []claim.Phase{claim.PhaseRelease}, events()
		if hw.Document.PCRs[14], err = eventlog.ReplayBank(events(), crypto.SHA384); err != nil {
			t.Fatal(err)
		}
	}
	var image []byte
	for _, i := range which {
		image = append(image, hw.Document.PCRs[i]...)
	}
	if edit != nil {
		edit(hw)
	}
	s.p.Roots, s.p.MaxAge = [][32]byte{hw.PKI.Root()}, time.Minute
	s.p.Nonce, s.p.PublicKey, s.p.UserData = []byte("nonce"), []byte("key"), []byte{}
	s.p.Images = []cvm.ImageHash{sha256.Sum256(image)}
	if s.ends.CRLs, err = hw.PKI.CRLs(at); err != nil {
		t.Fatal(err)
	}
	s.sign(t)
	return s
}

func (s *scene) sign(t testing.TB) {
	t.Helper()
	var err error
	if s.ev.Document, err = s.hw.Sign(); err != nil {
		t.Fatal(err)
	}
}

func (s *scene) verify() (nitro.Claims, error) {
	c, _, err := nitro.Verify(s.ev, s.ends, s.p, s.at)
	return c, err
}

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
	for _, tpm := range []bool{false, true} {
		s := newScene(t, tpm, nil)
		c, err := s.verify()
		if err != nil {
			t.Fatal(err)
		}
		if c.Image != s.p.Images[0] || c.DeviceID != sha256.Sum256([]byte("i-0123")) || (c.Launch != nil) != tpm || !c.Expires.Equal(at.Add(time.Hour)) {
			t.Fatalf("claims %+v", c)
		}
	}
}

// Number 60 of the negative list: a debug enclave, a document older than its leaf,
// another root. With them, every other way to be refused.
func TestNegative60(t *testing.T) {
	other, err := simdev.NewNitro("b", at, false)
	if err != nil {
		t.Fatal(err)
	}
	otherRoot := other.PKI.Root()
	for name, tc := range map[string]struct {
		check string
		tpm   bool
		make  func(*simdev.Nitro)
		edit  func(*scene)
	}{
		"debug enclave":          {claim.DocumentDebug, false, func(n *simdev.Nitro) { n.Document.PCRs[0] = make([]byte, 48) }, func(s *scene) { s.p.Images = []cvm.ImageHash{debugImage(s.hw)} }},
		"older than its leaf":    {claim.DocumentFresh, false, func(n *simdev.Nitro) { n.Document.Timestamp -= 3601_000 }, func(s *scene) { s.p.MaxAge = 2 * time.Hour }},
		"another root":           {claim.RootAdmitted, false, nil, func(s *scene) { s.p.Roots = [][32]byte{otherRoot} }},
		"AWS's root, not this":   {claim.RootAdmitted, false, nil, func(s *scene) { s.p.Roots = [][32]byte{nitro.AWSRoot()} }},
		"no root in the policy":  {claim.RootAdmitted, false, nil, func(s *scene) { s.p.Roots = nil }},
		"no age in the policy":   {claim.DocumentFresh, false, nil, func(s *scene) { s.p.MaxAge = 0 }},
		"no nonce in the policy": {claim.DocumentNonce, false, nil, func(s *scene) { s.p.Nonce = nil }},
		"empty nonce":            {claim.DocumentNonce, false, func(n *simdev.Nitro) { n.Document.Nonce = nil }, func(s *scene) { s.p.Nonce = []byte{} }},
		"no image in the policy": {claim.DocumentImage, false, nil, func(s *scene) { s.p.Images = nil }},
		"no key in the policy":   {claim.DocumentBinding, false, nil, func(s *scene) { s.p.PublicKey = nil }},
		"another nonce":          {claim.DocumentNonce, false, func(n *simdev.Nitro) { n.Document.Nonce = []byte("other") }, nil},
		"another key":            {claim.DocumentBinding, false, func(n *simdev.Nitro) { n.Document.PublicKey = []byte("other") }, nil},
		"data where none is due": {claim.DocumentBinding, false, func(n *simdev.Nitro) { n.Document.UserData = []byte("x") }, nil},
		"another image":          {claim.DocumentImage, false, func(n *simdev.Nitro) { n.Document.PCRs[2] = make([]byte, 48) }, nil},
		"a PCR is missing":       {claim.DocumentImage, false, func(n *simdev.Nitro) { n.Document.PCROrder = []int{0, 1} }, nil},
		"too old":                {claim.DocumentFresh, false, nil, func(s *scene) { s.at = at.Add(61 * time.Second) }},
		"from the future":        {claim.DocumentFresh, false, func(n *simdev.Nitro) { n.Document.Timestamp += 31_000 }, nil},
		"no revocation lists":    {claim.CRLRevoked, false, nil, func(s *scene) { s.ends.CRLs = nil }},
		"revoked leaf":           {claim.CRLRevoked, false, nil, func(s *scene) { s.ends.CRLs, _ = s.hw.PKI.CRLs(at, s.hw.PKI.Certs[0]) }},
		"revoked zone":           {claim.CRLRevoked, false, nil, func(s *scene) { s.ends.CRLs, _ = s.hw.PKI.CRLs(at, s.hw.PKI.Certs[2]) }},
		"expired leaf":           {claim.DocumentChain, false, nil, func(s *scene) { s.at = at.Add(25 * time.Hour) }},
		"newer than its leaf": {claim.DocumentFresh, false, func(n *simdev.Nitro) { n.Document.Timestamp += 24*3600_000 + 10_000 }, func(s *scene) {
			s.at = at.Add(24*time.Hour - 10*time.Second)
			s.ends.CRLs, _ = s.hw.PKI.CRLs(s.at)
		}},
		"zeros for a missing PCR": {claim.DocumentImage, false, func(n *simdev.Nitro) { n.Document.PCROrder = []int{0, 1} }, func(s *scene) {
			s.p.Images = []cvm.ImageHash{sha256.Sum256(slices.Concat(s.hw.Document.PCRs[0], s.hw.Document.PCRs[1], make([]byte, 48)))}
		}},
		"a leaf of P-256":   {claim.DocumentSignature, false, func(n *simdev.Nitro) { weakLeaf(n) }, nil},
		"a leaf of Ed25519": {claim.DocumentSignature, false, func(n *simdev.Nitro) { certify(n, ed25519.NewKeyFromSeed(make([]byte, 32)).Public()) }, nil},
		"a leaf of RSA": {claim.DocumentChain, false, func(n *simdev.Nitro) {
			k, _ := rsa.GenerateKey(rand.Reader, 2048)
			certify(n, k.Public())
		}, nil},
		"bundle leaf first":       {claim.DocumentChain, false, func(n *simdev.Nitro) { n.Document.Bundle = n.PKI.DER()[1:] }, nil},
		"bundle without its root": {claim.DocumentChain, false, func(n *simdev.Nitro) { n.Document.Bundle = n.PKI.DER()[1:2] }, nil},
		"signed by its root":      {claim.DocumentChain, false, func(n *simdev.Nitro) { n.Document.Certificate = n.PKI.DER()[3]; n.Document.Bundle = n.PKI.DER()[3:] }, nil},
		"another signer":          {claim.DocumentSignature, false, func(n *simdev.Nitro) { n.PKI.Keys[0] = other.PKI.Keys[0] }, nil},
		"an enclave as TPM":       {claim.DocumentParse, false, nil, func(s *scene) { s.p.Variant = claim.VariantNitroTPM }},
		"a TPM as enclave":        {claim.DocumentParse, true, nil, func(s *scene) { s.p.Variant = claim.VariantNitroEnclave }},
		"no phase":                {claim.PhaseCheck, false, nil, func(s *scene) { s.p.Phases = nil }},
		"a phase not provable":    {claim.PhaseCheck, false, nil, func(s *scene) { s.p.Phases = []claim.Phase{claim.PhaseRelease, claim.PhaseRunning} }},
		"TPM: no phase":           {claim.PhaseCheck, true, nil, func(s *scene) { s.p.Phases = nil }},
		"TPM: no log":             {claim.EventlogReplay, true, nil, func(s *scene) { s.ev.Events = nil }},
		"TPM: another log":        {claim.EventlogReplay, true, nil, func(s *scene) { s.ev.Events[2].Payload = bytes.Repeat([]byte{1}, 32) }},
		"TPM: no PCR14":           {claim.EventlogReplay, true, func(n *simdev.Nitro) { n.Document.PCROrder = []int{4, 7, 12} }, nil},
		"TPM: a log out of order": {claim.EventlogIdentity, true, func(n *simdev.Nitro) { n.Document.PCRs[14], _ = eventlog.ReplayBank(events()[1:], crypto.SHA384) }, func(s *scene) { s.ev.Events = s.ev.Events[1:] }},
		"TPM: another boot path":  {claim.DocumentImage, true, func(n *simdev.Nitro) { n.Document.PCRs[7] = make([]byte, 48) }, nil},
	} {
		s := newScene(t, tc.tpm, tc.make)
		if tc.edit != nil {
			tc.edit(s)
		}
		if _, err := s.verify(); !slices.Equal(failed(err), []string{tc.check}) && !(tc.check == claim.DocumentChain && slices.Contains(failed(err), tc.check)) {
			t.Errorf("%s: failed %v, want %s (%v)", name, failed(err), tc.check, err)
		}
	}
	s := newScene(t, false, nil)
	s.p.Variant = ""
	if _, _, err := nitro.Verify(s.ev, s.ends, s.p, at); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("no variant: %v", err)
	}
}

// With ReportData one value stands in the document, wherever it stands.
func TestReportData(t *testing.T) {
	data := bytes.Repeat([]byte{7}, 64)
	for name, tc := range map[string]struct {
		user, nonce []byte
		want        []string
	}{
		"user data":         {data, nil, nil},
		"nonce":             {nil, data, nil},
		"both":              {data, data, nil},
		"beside an empty":   {data, []byte{}, nil},
		"another user data": {bytes.Repeat([]byte{8}, 64), nil, []string{claim.DocumentNonce}},
		"and another nonce": {data, []byte("x"), []string{claim.DocumentNonce}},
		"and another data":  {[]byte("x"), data, []string{claim.DocumentNonce}},
		"shorter":           {data[:63], nil, []string{claim.DocumentNonce}},
		"none":              {nil, nil, []string{claim.DocumentNonce}},
	} {
		s := newScene(t, false, func(n *simdev.Nitro) { n.Document.UserData, n.Document.Nonce = tc.user, tc.nonce })
		s.p.ReportData, s.p.Nonce, s.p.UserData = data, nil, nil
		if _, err := s.verify(); !slices.Equal(failed(err), tc.want) {
			t.Errorf("%s: failed %v, want %v", name, failed(err), tc.want)
		}
	}
	s := newScene(t, false, func(n *simdev.Nitro) { n.Document.UserData, n.Document.Nonce = nil, nil })
	s.p.ReportData = []byte{}
	if _, err := s.verify(); !slices.Equal(failed(err), []string{claim.DocumentNonce}) {
		t.Errorf("empty report data: %v", err)
	}
}

// weakLeaf gives the hypervisor a P-256 key with a genuine certificate.
func weakLeaf(n *simdev.Nitro) {
	b := sha256.Sum256([]byte("p-256"))
	n.PKI.Keys[0], _ = ecdsa.ParseRawPrivateKey(elliptic.P256(), b[:])
	certify(n, n.PKI.Keys[0].Public())
}

func certify(n *simdev.Nitro, key crypto.PublicKey) {
	t := *n.PKI.Certs[0]
	t.SignatureAlgorithm, t.ExtraExtensions = x509.ECDSAWithSHA384, nil
	der, err := x509.CreateCertificate(nil, &t, n.PKI.Certs[1], key, n.PKI.Keys[1])
	if err != nil {
		panic(err)
	}
	n.PKI.Certs[0], _ = x509.ParseCertificate(der)
}

func debugImage(n *simdev.Nitro) cvm.ImageHash {
	return sha256.Sum256(slices.Concat(n.Document.PCRs[0], n.Document.PCRs[1], n.Document.PCRs[2]))
}

func TestParseRefusals(t *testing.T) {
	s := newScene(t, false, nil)
	good := s.ev.Document
	if _, err := nitro.ParseDocument(good); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"empty": nil, "a tail": append(bytes.Clone(good), 0), "another tag": append([]byte{0xd1}, good...), "tag twice": append([]byte{0xd2, 0xd2}, good...),
		"three members": append([]byte{0x83}, good[1:]...), "indefinite": append([]byte{0x9f}, good[1:]...),
		"ES256":                 bytes.Replace(good, []byte{0xa1, 0x01, 0x38, 0x22}, []byte{0xa1, 0x01, 0x38, 0x06}, 1),
		"alg none":              append([]byte{0x84, 0x41, 0xa0}, good[6:]...),
		"an unprotected header": bytes.Replace(good, []byte{0x38, 0x22, 0xa0}, []byte{0x38, 0x22, 0xa1, 0x04, 0x40}, 1),
		"a long head":           bytes.Replace(good, []byte{0x84, 0x44}, []byte{0x84, 0x58, 0x04}, 1),
		"too large":             make([]byte, nitro.MaxDocument+1),
	} {
		if _, err := nitro.ParseDocument(b); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, edit := range map[string]func(*nitro.Document){
		"a member twice":      func(d *nitro.Document) { d.Keys[8] = "user_data" },
		"an unknown member":   func(d *nitro.Document) { d.Keys = append(d.Keys[:8:8], "nonse") },
		"both kinds of PCRs":  func(d *nitro.Document) { d.Keys[8] = "nitrotpm_pcrs" },
		"no PCRs":             func(d *nitro.Document) { d.Keys = slices.Delete(d.Keys, 3, 4) },
		"no bundle":           func(d *nitro.Document) { d.Bundle = [][]byte{} },
		"no digest":           func(d *nitro.Document) { d.Keys = slices.Delete(d.Keys, 1, 2) },
		"SHA-512":             func(d *nitro.Document) { d.Digest = "SHA512" },
		"a short PCR":         func(d *nitro.Document) { d.PCRs[3] = make([]byte, 32) },
		"a PCR twice":         func(d *nitro.Document) { d.PCROrder[1] = 0 },
		"PCR 32":              func(d *nitro.Document) { d.PCRs[32] = d.PCRs[1]; d.PCROrder[1] = 32 },
		"no time":             func(d *nitro.Document) { d.Timestamp = 0 },
		"time out of range":   func(d *nitro.Document) { d.Timestamp = 1 << 60 },
		"text not UTF-8":      func(d *nitro.Document) { d.ModuleID = "\xff" },
		"nine certificates":   func(d *nitro.Document) { d.Bundle = slices.Repeat([][]byte{{1}}, 9) },
		"certificate too big": func(d *nitro.Document) { d.Certificate = make([]byte, 1025) },
	} {
		s := newScene(t, false, func(n *simdev.Nitro) { edit(&n.Document) })
		if _, err := nitro.ParseDocument(s.ev.Document); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every single-bit flip of an accepted document is refused, with or without tag.
func TestBitFlips(t *testing.T) {
	s := newScene(t, false, func(n *simdev.Nitro) { n.Document.Tagged = true })
	s.p.WithoutRevocation = true // each flip costs less
	step := 61                   // of every position some bytes
	if os.Getenv("PHALA_LONG") != "" {
		step = 1
	}
	if testing.Short() {
		step *= 97
	}
	good := s.ev.Document
	for i := 0; i < len(good)*8; i += step {
		s.ev.Document = bytes.Clone(good)
		s.ev.Document[i/8] ^= 1 << (i % 8)
		if _, err := s.verify(); err == nil {
			t.Fatalf("bit %d flipped is accepted", i)
		}
	}
	s.ev.Document = good
	if _, err := s.verify(); err != nil {
		t.Fatal(err)
	}
}

// A general decoder of CBOR reads the same document.
func TestAgreesWithLibrary(t *testing.T) {
	s := newScene(t, false, nil)
	var cose []cbor.RawMessage
	var payload []byte
	var doc struct {
		ModuleID  string         `cbor:"module_id"`
		Timestamp uint64         `cbor:"timestamp"`
		PCRs      map[int][]byte `cbor:"pcrs"`
		Bundle    [][]byte       `cbor:"cabundle"`
		Nonce     []byte         `cbor:"nonce"`
	}
	if err := cbor.Unmarshal(s.ev.Document, &cose); err != nil || len(cose) != 4 {
		t.Fatal(err)
	}
	if err := errors.Join(cbor.Unmarshal(cose[2], &payload), cbor.Unmarshal(payload, &doc)); err != nil {
		t.Fatal(err)
	}
	d, err := nitro.ParseDocument(s.ev.Document)
	if err != nil || d.ModuleID != doc.ModuleID || d.Timestamp != doc.Timestamp || len(d.PCRs) != len(doc.PCRs) || !bytes.Equal(d.PCRs[15], doc.PCRs[15]) || len(d.Bundle) != len(doc.Bundle) || !bytes.Equal(d.Nonce, doc.Nonce) {
		t.Fatalf("%+v\n%+v\n%v", d, doc, err)
	}
}

// AWS's root has the published fingerprint and the pinned key. Its file is named by
// PHALA_AWS_ROOT (PEM), else the test is skipped: nothing here carries it.
func TestAWSRoot(t *testing.T) {
	b, err := os.ReadFile(os.Getenv("PHALA_AWS_ROOT"))
	if err != nil {
		t.Skip("SKIPPED: set PHALA_AWS_ROOT to the PEM file of AWS's Nitro root G1")
	}
	block, _ := pem.Decode(b)
	c, err := x509.ParseCertificate(block.Bytes)
	published, _ := hex.DecodeString("641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b")
	if err != nil || sha256.Sum256(c.Raw) != [32]byte(published) || sha256.Sum256(c.RawSubjectPublicKeyInfo) != nitro.AWSRoot() || c.CheckSignatureFrom(c) != nil || c.Subject.CommonName != "aws.nitro-enclaves" {
		t.Fatal(err, c.Subject)
	}
}

// What is accepted re-encodes to the same bytes.
func FuzzParseDocument(f *testing.F) {
	for _, tpm := range []bool{false, true} {
		s := newScene(f, tpm, nil)
		f.Add(s.ev.Document)
		f.Add(append([]byte{0xd2}, s.ev.Document...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := nitro.ParseDocument(b)
		if err == nil && !bytes.Equal(simdev.EncodeDocument(*d), b) {
			t.Fatalf("not canonical: %x", b)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	s := newScene(b, false, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.verify(); err != nil {
			b.Fatal(err)
		}
	}
}
