package nvidia_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/nvidia"
	"github.com/confidential-cloud/phala/attest/simtee/simdev"
	"github.com/confidential-cloud/phala/cvm"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

type scene struct {
	hw   *simdev.GPU
	ev   nvidia.Evidence
	ends nvidia.Endorsements
	p    nvidia.Policy
	at   time.Time
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// newScene is accepted as it stands; edit changes the GPU before it reports.
func newScene(t testing.TB, edit func(*simdev.GPU)) *scene {
	t.Helper()
	hw := must(simdev.NewGPU("a", at))
	if edit != nil {
		edit(hw)
	}
	nonce := nvidia.NonceFor([]byte("report data"))
	s := &scene{hw: hw, at: at}
	s.ev = nvidia.Evidence{Report: must(hw.Sign(nonce)), Chain: hw.PKI.DER()}
	s.ends = nvidia.Endorsements{DriverRIM: must(hw.DriverRIM(nil)), VBIOSRIM: must(hw.VBIOSRIM(nil)), RIMIssuers: hw.RIMPKI.DER()[2:], OCSP: must(hw.OCSP(at))}
	s.p = nvidia.Policy{Roots: [][32]byte{hw.PKI.Root()}, RIMRoots: [][32]byte{hw.RIMPKI.Root()}, Nonce: nonce,
		Drivers: []string{"550.54.15"}, VBIOSes: []string{"96.00.74.00.01"}}
	return s
}

func (s *scene) verify() (nvidia.Claims, error) {
	c, _, err := nvidia.Verify(s.ev, s.ends, s.p, s.at)
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
	s := newScene(t, nil)
	c, err := s.verify()
	if err != nil {
		t.Fatal(err)
	}
	if c.Driver != "550.54.15" || c.VBIOS != "96.00.74.00.01" || c.Measurements != 64 || c.Model != "GH100 A01 GSP BROM" || !c.Expires.Equal(at.Add(time.Hour)) {
		t.Fatalf("claims %+v", c)
	}
}

// debug is what a GPU with its debug fuses open does: it measures something else.
func debug(g *simdev.GPU) {
	d := sha512.Sum384([]byte("debug"))
	g.Report.Measurements[9].Value = d[:]
}

func replace(old, repl string) func(string) string {
	return func(s string) string { return strings.Replace(s, old, repl, 1) }
}

// Number 61 of the negative list, the GPU's own report: another GPU's certificate,
// RIM version mismatch, debug on, nonce not derived from the CPU evidence. With
// them, every other way to be refused. (alg none: TestNegative61Token.)
func TestNegative61(t *testing.T) {
	other := must(simdev.NewGPU("b", at))
	for name, tc := range map[string]struct {
		check string
		make  func(*simdev.GPU)
		edit  func(*scene)
	}{
		"another GPU's certificate": {claim.GPUReportSignature, func(g *simdev.GPU) { g.PKI.Keys[0] = other.PKI.Keys[0] }, nil},
		"driver RIM of another version": {claim.GPUDriverRIM, nil, func(s *scene) {
			s.ends.DriverRIM = must(s.hw.DriverRIM(replace(`colloquialVersion="550.54.15"`, `colloquialVersion="550.54.14"`)))
		}},
		"VBIOS RIM of another version": {claim.GPUVBIOSRIM, nil, func(s *scene) {
			s.ends.VBIOSRIM = must(s.hw.VBIOSRIM(replace(`colloquialVersion="96.`, `colloquialVersion="95.`)))
		}},
		"debug on":                         {claim.GPUMeasurements, debug, nil},
		"nonce not of the CPU evidence":    {claim.GPUNonce, nil, func(s *scene) { s.p.Nonce = nvidia.NonceFor([]byte("other report data")) }},
		"the bare report data as nonce":    {claim.GPUNonce, nil, func(s *scene) { s.ev.Report = must(s.hw.Sign([]byte("report data"))) }},
		"no nonce in the policy":           {claim.GPUNonce, nil, func(s *scene) { s.p.Nonce = nil }},
		"no root in the policy":            {claim.RootAdmitted, nil, func(s *scene) { s.p.Roots = nil }},
		"another root":                     {claim.RootAdmitted, nil, func(s *scene) { s.p.Roots = [][32]byte{other.PKI.Root()} }},
		"no driver in the policy":          {claim.GPUDriverRIM, nil, func(s *scene) { s.p.Drivers = nil }},
		"no VBIOS in the policy":           {claim.GPUVBIOSRIM, nil, func(s *scene) { s.p.VBIOSes = nil }},
		"an old driver":                    {claim.GPUDriverRIM, nil, func(s *scene) { s.p.Drivers = []string{"560.0.0"} }},
		"another firmware":                 {claim.GPUFirmware, func(g *simdev.GPU) { g.Report.Opaque[3].Value = make([]byte, 48) }, nil},
		"a certificate without firmware":   {claim.GPUFirmware, func(g *simdev.GPU) { g.PKI = must(simdev.NewPKI("gpu-a", at, names(g.PKI), nil)) }, nil},
		"no OCSP":                          {claim.GPURevoked, nil, func(s *scene) { s.ends.OCSP = nil }},
		"too many OCSP responses":          {claim.GPURevoked, nil, func(s *scene) { s.ends.OCSP = slices.Repeat(s.ends.OCSP, 9) }},
		"an endless OCSP response":         {claim.GPURevoked, nil, func(s *scene) { s.ends.OCSP = append([][]byte{make([]byte, 64<<10+1)}, s.ends.OCSP...) }},
		"one OCSP response is missing":     {claim.GPURevoked, nil, func(s *scene) { s.ends.OCSP = s.ends.OCSP[1:] }},
		"revoked device":                   {claim.GPURevoked, nil, func(s *scene) { s.ends.OCSP = must(s.hw.OCSP(at, s.hw.PKI.Certs[1])) }},
		"revoked RIM signer":               {claim.GPURevoked, nil, func(s *scene) { s.ends.OCSP = must(s.hw.OCSP(at, s.hw.RIMPKI.Certs[0])) }},
		"OCSP expired":                     {claim.GPURevoked, nil, func(s *scene) { s.ends.OCSP = must(s.hw.OCSP(at.Add(-3 * time.Hour))) }},
		"OCSP of the future":               {claim.GPURevoked, nil, func(s *scene) { s.ends.OCSP = must(s.hw.OCSP(at.Add(2 * time.Hour))) }},
		"OCSP of another vendor":           {claim.GPURevoked, nil, func(s *scene) { s.ends.OCSP = must(other.OCSP(at)) }},
		"OCSP by a certificate not for it": {claim.GPURevoked, nil, func(s *scene) { s.ends.OCSP[0] = delegated(s.hw, false, time.Hour) }},
		"OCSP that never ends":             {claim.GPURevoked, nil, func(s *scene) { s.ends.OCSP[0] = delegated(s.hw, true, 9*24*time.Hour) }},
		"driver and VBIOS RIM swapped":     {claim.GPUDriverRIM, nil, func(s *scene) { s.ends.DriverRIM, s.ends.VBIOSRIM = s.ends.VBIOSRIM, s.ends.DriverRIM }},
		"no driver RIM":                    {claim.GPUDriverRIM, nil, func(s *scene) { s.ends.DriverRIM, s.p.WithoutRevocation = nil, true }},
		"no root for RIMs in the policy":   {claim.GPUDriverRIM, nil, func(s *scene) { s.p.RIMRoots = nil }},
		"RIM of another vendor":            {claim.GPUDriverRIM, nil, func(s *scene) { s.ends.DriverRIM, s.p.WithoutRevocation = must(other.DriverRIM(nil)), true }},
		"both RIMs claim a measurement": {claim.GPUMeasurements, nil, func(s *scene) {
			s.ends.DriverRIM = must(s.hw.DriverRIM(func(x string) string {
				d7, d40 := sha512.Sum384([]byte{7}), sha512.Sum384([]byte{40})
				return replace(hex.EncodeToString(d7[:]), hex.EncodeToString(d40[:]))(replace(`index="7"`, `index="40"`)(x))
			}))
		}},
		"a measurement is missing":       {claim.GPUMeasurements, func(g *simdev.GPU) { g.Report.Measurements = g.Report.Measurements[:63] }, nil},
		"measurement 35 with decoder on": {claim.GPUMeasurements, func(g *simdev.GPU) { g.Report.Measurements[35].Value = make([]byte, 48) }, nil},
		"certificate expired":            {claim.GPUChain, nil, func(s *scene) { s.at = at.Add(25 * time.Hour) }},
		"chain without root":             {claim.GPUChain, nil, func(s *scene) { s.ev.Chain = s.ev.Chain[:3] }},
		"only key and root":              {claim.GPUChain, nil, func(s *scene) { s.ev.Chain = s.ev.Chain[2:] }},
		"report altered in the middle":   {claim.GPUReportSignature, nil, func(s *scene) { s.ev.Report = bytes.Clone(s.ev.Report); s.ev.Report[30] ^= 1 }},
		"a report key of P-256": {claim.GPUReportSignature, func(g *simdev.GPU) {
			b := sha256.Sum256([]byte("p-256"))
			g.PKI.Keys[0] = must(ecdsa.ParseRawPrivateKey(elliptic.P256(), b[:]))
			certify(g, g.PKI.Keys[0].Public())
		}, nil},
		"a report key of Ed25519":          {claim.GPUReportSignature, func(g *simdev.GPU) { certify(g, ed25519.NewKeyFromSeed(make([]byte, 32)).Public()) }, nil},
		"report with a tail":               {claim.GPUReportParse, nil, func(s *scene) { s.ev.Report = append(bytes.Clone(s.ev.Report), 0) }},
		"no driver version in the report":  {claim.GPUReportParse, func(g *simdev.GPU) { g.Report.Opaque = g.Report.Opaque[1:] }, nil},
		"no VBIOS version in the report":   {claim.GPUReportParse, func(g *simdev.GPU) { g.Report.Opaque[1].Type = 99 }, nil},
		"no firmware id in the report":     {claim.GPUReportParse, func(g *simdev.GPU) { g.Report.Opaque = g.Report.Opaque[:3] }, nil},
		"the same measurement twice":       {claim.GPUReportParse, func(g *simdev.GPU) { g.Report.Measurements[3].Index = 1 }, nil},
		"the same opaque field twice":      {claim.GPUReportParse, func(g *simdev.GPU) { g.Report.Opaque = append(g.Report.Opaque, g.Report.Opaque[0]) }, nil},
		"a driver version that is no text": {claim.GPUReportParse, func(g *simdev.GPU) { g.Report.Opaque[0].Value = []byte("550\n") }, nil},
	} {
		s := newScene(t, tc.make)
		if tc.edit != nil {
			tc.edit(s)
		}
		if _, err := s.verify(); !slices.Contains(failed(err), tc.check) || len(failed(err)) > 1 && !strings.Contains("gpu.chain gpu.driver-rim gpu.signature", tc.check) {
			t.Errorf("%s: failed %v, want %s (%v)", name, failed(err), tc.check, err)
		}
	}
}

// certify gives the GPU a genuine certificate for another report key.
func certify(g *simdev.GPU, key any) {
	t := *g.PKI.Certs[0]
	t.SignatureAlgorithm = x509.ECDSAWithSHA384
	for _, e := range t.Extensions {
		if e.Id.String() == "2.23.133.5.4.1" {
			t.ExtraExtensions = append(t.ExtraExtensions, e)
		}
	}
	g.PKI.Certs[0] = must(x509.ParseCertificate(must(x509.CreateCertificate(nil, &t, g.PKI.Certs[1], key, g.PKI.Keys[1]))))
}

func names(p simdev.PKI) (out []string) {
	for _, c := range p.Certs {
		out = append(out, c.Subject.CommonName)
	}
	return out
}

// delegated is an OCSP response for the device's certificate by a delegate of its
// issuer, with or without the right to sign it.
func delegated(g *simdev.GPU, may bool, life time.Duration) []byte {
	key := must(simdev.Key("responder"))
	tpl := &x509.Certificate{SerialNumber: g.PKI.Certs[0].SerialNumber, NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour), SignatureAlgorithm: x509.ECDSAWithSHA384}
	if may {
		tpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	}
	cert := must(x509.ParseCertificate(must(x509.CreateCertificate(nil, tpl, g.PKI.Certs[2], key.Public(), g.PKI.Keys[2]))))
	return must(ocsp.CreateResponse(g.PKI.Certs[2], cert, ocsp.Response{Status: ocsp.Good, SerialNumber: g.PKI.Certs[1].SerialNumber, Certificate: cert,
		ThisUpdate: at.Add(-time.Hour), NextUpdate: at.Add(life)}, key))
}

func TestDelegatedOCSP(t *testing.T) {
	s := newScene(t, nil)
	s.ends.OCSP[0] = delegated(s.hw, true, time.Hour)
	if _, err := s.verify(); err != nil {
		t.Fatal(err)
	}
}

// A measurement that means nothing while the decoder is off does not count then.
func TestDecoderOff(t *testing.T) {
	s := newScene(t, func(g *simdev.GPU) {
		g.Report.Opaque[2].Value = []byte{0x55}
		g.Report.Measurements[35].Value = make([]byte, 48)
	})
	if _, err := s.verify(); err != nil {
		t.Fatal(err)
	}
}

// A decoder state that is longer than it should be does not count as off.
func TestDecoderStrange(t *testing.T) {
	s := newScene(t, func(g *simdev.GPU) {
		g.Report.Opaque[2].Value = []byte{0x55, 1}
		g.Report.Measurements[35].Value = make([]byte, 48)
	})
	if _, err := s.verify(); !slices.Equal(failed(err), []string{claim.GPUMeasurements}) {
		t.Fatal(err)
	}
}

func TestRevocationWaived(t *testing.T) {
	s := newScene(t, nil)
	s.ends.OCSP, s.p.WithoutRevocation = nil, true
	if _, err := s.verify(); err != nil {
		t.Fatal(err)
	}
}

// Every single-bit flip of the report, the certificates, the RIMs and the OCSP
// responses is refused. A run samples them: PHALA_LONG samples more.
func TestBitFlips(t *testing.T) {
	s := newScene(t, nil)
	pieces := map[string]*[]byte{"report": &s.ev.Report, "key": &s.ev.Chain[0], "device": &s.ev.Chain[1], "driver RIM": &s.ends.DriverRIM}
	step := 1999
	if os.Getenv("PHALA_LONG") != "" {
		step = 7
	}
	if testing.Short() {
		step *= 97
	}
	s.p.WithoutRevocation = true // each flip costs less; the responses are flipped below
	flip := func(name string, p *[]byte, step int) {
		good := *p
		for i := 0; i < len(good)*8; i += step {
			*p = bytes.Clone(good)
			(*p)[i/8] ^= 1 << (i % 8)
			if _, err := s.verify(); err == nil {
				t.Fatalf("%s: bit %d flipped is accepted", name, i)
			}
		}
		*p = good
	}
	for name, p := range pieces {
		flip(name, p, step)
	}
	s.p.WithoutRevocation = false
	flip("OCSP", &s.ends.OCSP[0], step)
	if _, err := s.verify(); err != nil {
		t.Fatal(err)
	}
}

// What is accepted re-encodes to the same bytes.
func FuzzParseReport(f *testing.F) {
	s := newScene(f, nil)
	f.Add(s.ev.Report)
	f.Add(s.ev.Report[:60])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := nvidia.ParseReport(b)
		if err != nil {
			if cvm.CodeOf(err) != cvm.Invalid {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(simdev.EncodeReport(*r), b) {
			t.Fatalf("not canonical: %x", b)
		}
	})
}

// What binds a GPU to a CPU's evidence. DO NOT CHANGE.
func TestBindingVector(t *testing.T) {
	if got := hex.EncodeToString(nvidia.NonceFor([]byte("report data"))); got != "19850369dc53376ff68cfcb5bb88afecee5e66b726ae5f241f2af4677eb4a2bf" {
		t.Error(got)
	}
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
