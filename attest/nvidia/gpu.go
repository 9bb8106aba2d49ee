// Package nvidia verifies what NVIDIA GPUs prove in confidential computing mode:
// Verify takes a GPU's own SPDM report, its certificates, OCSP responses and signed
// reference values (RIM); VerifyToken takes the tokens of NVIDIA's Remote
// Attestation Service. The two Parse functions trust nothing.
//
// A GPU's proof says which firmware runs on which GPU, in which mode. It does not say
// to which VM the GPU is attached, nor that it stays attached: bind its nonce to the
// CPU's evidence (NonceFor, attest/composite), and have attested code in the VM ask.
//
// Formats: DMTF DSP0274 (SPDM 1.1); the opaque fields, the use of RIMs and the VBIOS
// version's form are those of NVIDIA's attestation SDK as publicly described. No
// recorded report of a real GPU was available to check them: tests are self-made.
package nvidia

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
)

// MaxChain is how many certificates a GPU may show, root included.
const MaxChain = 6

// Evidence is what a GPU shows.
type Evidence struct {
	Report []byte   // SPDM request || response
	Chain  [][]byte // DER, the key that signs reports first, the root last
}

// Endorsements are the vendor's statements. Nothing in them is trusted unverified.
type Endorsements struct {
	DriverRIM, VBIOSRIM []byte   // signed XML
	RIMIssuers          [][]byte // DER: what completes the RIMs' chains up to the root
	OCSP                [][]byte // DER: one response for each certificate that the vendor issued
}

// Policy is what a relying party admits. The zero Policy accepts nothing. No root of
// NVIDIA's is compiled in: none could be had here from a source that can be checked,
// so roots are the relying party's to name, and count as custom.
type Policy struct {
	Roots             [][32]byte // sha256 of an admitted device root's SubjectPublicKeyInfo
	RIMRoots          [][32]byte // likewise, of the roots that reference values chain to
	WithoutRevocation bool       // no OCSP responses are asked for
	Nonce             []byte     // 32 bytes that the request must carry, see NonceFor
	Drivers           []string   // admitted driver versions; nil refuses unless AnyVersion
	VBIOSes           []string   // likewise
	AnyVersion        bool       // whatever NVIDIA still signs for
}

// Claims is what a verified report says.
type Claims struct {
	Model        string    `json:"model"`     // common name of the device's own CA
	DeviceID     [32]byte  `json:"device_id"` // sha256 of the device key (second certificate)
	KeySPKI      [32]byte  `json:"key_spki"`
	RootSPKI     [32]byte  `json:"root_spki"`
	Driver       string    `json:"driver"`
	VBIOS        string    `json:"vbios"`
	FWID         []byte    `json:"fwid"`
	Measurements int       `json:"measurements"` // how many were compared with the reference
	Nonce        []byte    `json:"nonce"`
	Expires      time.Time `json:"expires"`
}

// NonceFor is the nonce that binds a GPU's report to a CPU's evidence. The guest
// asks the GPU with it after it chose the report data of its own quote.
func NonceFor(reportData []byte) []byte {
	h := sha256.Sum256(append([]byte("phala-gpu-nonce:v1:"), reportData...))
	return h[:]
}

// Verify checks a GPU's report. A rejection is a *claim.Rejection; the checks are
// listed either way. Claims mean something only without an error.
func Verify(ev Evidence, e Endorsements, p Policy, at time.Time) (Claims, []claim.Check, error) {
	v := &verifier{ev: ev, e: e, p: p, at: at, rec: &claim.Recorder{Variant: claim.VariantGPU}}
	v.verify()
	checks := v.rec.Checks()
	if !claim.OK(checks) {
		return Claims{}, checks, &claim.Rejection{Checks: checks, Genuine: v.rec.Passed(claim.GPUReportParse, claim.GPUChain, claim.RootAdmitted, claim.GPUReportSignature)}
	}
	return v.out, checks, nil
}

type verifier struct {
	ev  Evidence
	e   Endorsements
	p   Policy
	at  time.Time
	rec *claim.Recorder
	r   *Report
	out Claims

	issued []pair // certificates that the vendor issued: what OCSP must speak of
}

type pair struct{ cert, issuer *x509.Certificate }

func (v *verifier) verify() {
	r, err := ParseReport(v.ev.Report)
	if err == nil {
		v.out.Driver, err = r.Driver()
	}
	if err == nil {
		v.out.VBIOS, err = r.VBIOS()
	}
	if err == nil {
		v.out.FWID, err = r.FWID()
	}
	if !v.rec.Try(claim.GPUReportParse, err) {
		return
	}
	v.r, v.out.Nonce = r, r.Nonce[:]
	if chain := v.chain(); chain != nil {
		v.rec.Try(claim.GPUFirmware, checkFWID(chain[0], v.out.FWID))
		v.rec.Try(claim.GPUReportSignature, v.signature(chain[0]))
	}
	switch {
	case len(v.p.Nonce) != 32:
		v.rec.Fail(claim.GPUNonce, "", "", "the policy names no nonce of 32 bytes")
	case !bytes.Equal(v.p.Nonce, v.r.Nonce[:]):
		v.rec.Fail(claim.GPUNonce, short(v.p.Nonce), short(v.r.Nonce[:]), "the report was not made for this request")
	default:
		v.rec.Pass(claim.GPUNonce, "")
	}
	driver := v.rim(claim.GPUDriverRIM, v.e.DriverRIM, v.out.Driver, v.p.Drivers)
	vbios := v.rim(claim.GPUVBIOSRIM, v.e.VBIOSRIM, v.out.VBIOS, v.p.VBIOSes)
	if driver != nil && vbios != nil {
		v.measurements(driver, vbios)
	}
	v.revocation()
}

const oidTCBInfo = "2.23.133.5.4.1" // DICE TcbInfo (TCG)

func rules() collateral.Rules {
	return collateral.Rules{Algorithms: []x509.SignatureAlgorithm{x509.ECDSAWithSHA384}, Critical: []string{oidTCBInfo}}
}

func (v *verifier) chain() []*x509.Certificate {
	chain, err := collateral.ParseDER(v.ev.Chain, MaxChain)
	if err == nil {
		err = rules().Verify(chain, v.at)
	}
	if err == nil && len(chain) < 3 {
		err = refuse("%d certificates, want at least a report key, a device key and a root", len(chain))
	}
	if !v.rec.Try(claim.GPUChain, err) {
		return nil
	}
	root := collateral.SPKIHash(chain[len(chain)-1])
	v.out.RootSPKI, v.out.KeySPKI, v.out.DeviceID = root, collateral.SPKIHash(chain[0]), collateral.SPKIHash(chain[1])
	v.out.Model = chain[1].Subject.CommonName
	if slices.Contains(v.p.Roots, root) {
		v.rec.Pass(claim.RootAdmitted, short(root[:]))
	} else {
		v.rec.Fail(claim.RootAdmitted, "an admitted root", "sha256 of its key "+short(root[:]), "the GPU's root is not admitted")
	}
	// The device itself issues chain[0] at each start: the vendor cannot speak of it.
	for i := 1; i < len(chain)-1; i++ {
		v.issued = append(v.issued, pair{chain[i], chain[i+1]})
	}
	for _, c := range chain {
		v.until(c.NotAfter)
	}
	return chain
}

func (v *verifier) until(t time.Time) {
	if v.out.Expires.IsZero() || t.Before(v.out.Expires) {
		v.out.Expires = t
	}
}

func (v *verifier) signature(key *x509.Certificate) error {
	k, ok := key.PublicKey.(*ecdsa.PublicKey)
	d := sha512.Sum384(v.r.signed)
	s := v.r.Signature
	if !ok || k.Curve != elliptic.P384() || !ecdsa.Verify(k, d[:], new(big.Int).SetBytes(s[:48]), new(big.Int).SetBytes(s[48:])) {
		return refuse("the signature does not match")
	}
	return nil
}

// rim checks one set of reference values: its content, signer, root and version.
func (v *verifier) rim(name string, raw []byte, version string, admitted []string) *RIM {
	r, err := ParseRIM(raw)
	if err != nil {
		v.rec.Fail(name, "", "", err.Error())
		return nil
	}
	chain, err := r.sig.parsed(v.e.RIMIssuers)
	if err == nil && len(chain) < 2 {
		err = refuseXML("signed by its own root")
	}
	if err == nil {
		err = rules().Verify(chain, v.at)
	}
	if err == nil {
		err = r.sig.verify(chain[0])
	}
	if err != nil {
		v.rec.Fail(name, "", "", err.Error())
		return nil
	}
	root := collateral.SPKIHash(chain[len(chain)-1])
	switch {
	case !slices.Contains(v.p.RIMRoots, root):
		v.rec.Fail(name, "an admitted root", "sha256 of its key "+short(root[:]), "the reference values' root is not admitted")
	case !strings.EqualFold(r.Version, version):
		v.rec.Fail(name, version, clip(r.Version), "the reference values are for another version")
	case !v.p.AnyVersion && !slices.Contains(admitted, version):
		v.rec.Fail(name, fmt.Sprintf("one of %q", admitted), version, "the policy does not admit this version")
	default:
		v.rec.Pass(name, version)
	}
	for i, c := range chain {
		v.until(c.NotAfter)
		if i < len(chain)-1 {
			v.issued = append(v.issued, pair{c, chain[i+1]})
		}
	}
	return r
}

// The video decoder's measurement (index 35 from 0) means something only while the
// GPU reports its first decoder as enabled.
const (
	nvdecIndex    = 35
	nvdecDisabled = 0x55
)

// measurements compares each reference value that is active with what the GPU
// reports. A GPU in debug mode or with other fuses measures something else.
func (v *verifier) measurements(rims ...*RIM) {
	got := map[int][]byte{}
	for _, m := range v.r.Measurements {
		got[int(m.Index)-1] = m.Value
	}
	dec := v.r.field(opaqueNVDEC0)
	noDecoder := len(dec) > 0 && dec[0] == nvdecDisabled && !slices.ContainsFunc(dec[1:], func(b byte) bool { return b != 0 })
	judged := map[int]bool{}
	for _, r := range rims {
		for i, want := range r.Golden {
			if judged[i] {
				v.rec.Fail(claim.GPUMeasurements, "", "", fmt.Sprintf("driver and VBIOS both claim measurement %d", i))
				continue
			}
			judged[i] = true
			if i == nvdecIndex && noDecoder {
				continue
			}
			if !slices.ContainsFunc(want, func(w []byte) bool { return bytes.Equal(w, got[i]) }) {
				v.rec.Fail(claim.GPUMeasurements, short(want[0]), short(got[i]), fmt.Sprintf("measurement %d is not what %s admits", i, clip(r.TagID)))
			}
		}
	}
	v.out.Measurements = len(judged)
	v.rec.Pass(claim.GPUMeasurements, fmt.Sprintf("%d of %d", len(judged), len(got)))
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}

func short(b []byte) string {
	if len(b) > 16 {
		b = b[:16]
	}
	return hex.EncodeToString(b) + "..."
}
