// Package nitro verifies attestation documents of AWS: of Nitro Enclaves and of
// NitroTPM instances. ParseDocument reads one and trusts nothing; Verify checks the
// certificate chain to a root, the signature, age, nonce, key and data, the image,
// and for NitroTPM the launch log behind PCR14.
//
// What a document proves, it proves in AWS's word: the hypervisor is AWS's, and no
// processor vendor stands behind it.
//
// Formats: AWS Nitro Enclaves, "Verifying the root of trust"; EC2 NitroTPM,
// "attestation document"; COSE_Sign1 (RFC 9052) with ES384; PCR14 as the reference
// extends it.
package nitro

import (
	"bytes"
	"crypto"
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
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/cvm"
)

// launchPCR is the register that the guest of a NitroTPM instance extends.
const launchPCR = 14

// maxSkew is how far the hypervisor's clock may be ahead of the verifier's.
const maxSkew = 30 * time.Second

// Evidence is a document and, of a NitroTPM, the log that PCR14 replays to.
type Evidence struct {
	Document []byte
	Events   []eventlog.Runtime
}

// Endorsements are the vendor's statements. Nothing in them is trusted unverified.
type Endorsements struct {
	CRLs [][]byte // DER: one current list of each issuer
}

// Policy is what a relying party admits. The zero Policy accepts nothing.
type Policy struct {
	Variant           string        // claim.VariantNitroEnclave or claim.VariantNitroTPM
	Roots             [][32]byte    // sha256 of an admitted root's SubjectPublicKeyInfo
	WithoutRevocation bool          // no revocation lists are asked for
	MaxAge            time.Duration // of the document; 0 refuses
	Nonce             []byte        // what the document must carry
	UserData          []byte        // likewise; nil: it must carry none, unless AnyUserData
	AnyUserData       bool          // the caller judges Claims.UserData
	PublicKey         []byte        // likewise; nil: it must carry none, unless AnyPublicKey
	AnyPublicKey      bool          // the caller judges Claims.PublicKey
	// ReportData, when not nil, takes the place of Nonce and UserData: one of the two
	// members must be it, and the other absent, empty or the same.
	ReportData []byte
	Images     []cvm.ImageHash // admitted images, see Claims.Image
	AnyImage   bool            // the caller judges Claims.Image
	Phases     []claim.Phase   // admitted phases of the launch log; an enclave has none: claim.PhaseUnproven
}

// Claims is what a verified document says.
type Claims struct {
	Variant   string                  `json:"tee_variant"`
	RootSPKI  [32]byte                `json:"root_spki"`
	ModuleID  string                  `json:"module_id"`
	DeviceID  cvm.DeviceID            `json:"device_id"` // sha256 of the instance's id
	Time      time.Time               `json:"time"`
	PCRs      map[int]cvm.Measurement `json:"pcrs"`
	Image     cvm.ImageHash           `json:"image"` // sha256 of PCR0, 1, 2; of PCR4, 7, 12 of a NitroTPM
	PublicKey []byte                  `json:"public_key,omitempty"`
	UserData  []byte                  `json:"user_data,omitempty"`
	Nonce     []byte                  `json:"nonce,omitempty"`
	Launch    *eventlog.Launch        `json:"launch,omitempty"` // NitroTPM
	Expires   time.Time               `json:"expires"`
}

// AWSRoot is the sha256 of the key of "aws.nitro-enclaves", AWS's root G1, valid to
// 2049-10-28. The certificate has the fingerprint that AWS publishes, 641a0321...bb5b.
func AWSRoot() [32]byte {
	return [32]byte{
		0xf2, 0xca, 0xf5, 0xec, 0xc6, 0x19, 0x0b, 0x4a, 0x83, 0x99, 0xb7, 0x8b, 0xc5, 0x8a, 0x2b, 0xbc,
		0xd0, 0x38, 0x23, 0x75, 0xdb, 0x8a, 0x1b, 0xfd, 0x78, 0xa8, 0x27, 0x43, 0x87, 0x4f, 0xd2, 0x25,
	}
}

// Verify checks a document. A rejection is a *claim.Rejection; the checks are
// listed either way. Claims mean something only without an error.
func Verify(ev Evidence, e Endorsements, p Policy, at time.Time) (Claims, []claim.Check, error) {
	if p.Variant != claim.VariantNitroEnclave && p.Variant != claim.VariantNitroTPM {
		return Claims{}, nil, cvm.Errorf(cvm.Invalid, "the policy names variant %q, want %s or %s", p.Variant, claim.VariantNitroEnclave, claim.VariantNitroTPM)
	}
	rec := &claim.Recorder{Variant: p.Variant}
	out := Record(ev, e, p, at, rec)
	checks := rec.Checks()
	if !claim.OK(checks) {
		return Claims{}, checks, &claim.Rejection{Checks: checks, Genuine: rec.Passed(Genuine()...)}
	}
	return out, checks, nil
}

// Record is Verify into a list of checks that its caller began and judges. The
// claims are as far as the checks came.
func Record(ev Evidence, e Endorsements, p Policy, at time.Time, rec *claim.Recorder) Claims {
	v := &verifier{ev: ev, e: e, p: p, at: at, rec: rec}
	v.verify()
	return v.out
}

// Genuine names the checks that say that an admitted root's hypervisor made a document.
func Genuine() []string {
	return []string{claim.DocumentParse, claim.DocumentChain, claim.RootAdmitted, claim.DocumentSignature}
}

type verifier struct {
	ev  Evidence
	e   Endorsements
	p   Policy
	at  time.Time
	rec *claim.Recorder
	d   *Document
	out Claims
}

func (v *verifier) verify() {
	d, err := ParseDocument(v.ev.Document)
	if err == nil && d.TPM != (v.p.Variant == claim.VariantNitroTPM) {
		err = cvm.Errorf(cvm.Invalid, "attestation document: of another kind than %s", v.p.Variant)
	}
	if !v.rec.Try(claim.DocumentParse, err) {
		return
	}
	v.d = d
	v.out = Claims{Variant: v.p.Variant, ModuleID: d.ModuleID, DeviceID: sha256.Sum256([]byte(instanceID(d.ModuleID))), Time: d.Time(), PublicKey: d.PublicKey, UserData: d.UserData, Nonce: d.Nonce}
	v.out.PCRs = map[int]cvm.Measurement{}
	for i, m := range d.PCRs {
		v.out.PCRs[i] = cvm.Measurement(m)
	}
	if chain := v.chain(); chain != nil {
		v.rec.Try(claim.DocumentSignature, v.signature(chain[0]))
		v.fresh(chain[0])
	}
	v.binding()
	v.image()
	if d.TPM {
		v.launch()
	} else {
		v.phase(claim.PhaseUnproven)
	}
}

// instanceID is the EC2 instance in a module id: "i-0123-enc4567" is enclave 4567 of
// instance "i-0123".
func instanceID(module string) string {
	p := strings.SplitN(module, "-", 3)
	return strings.Join(p[:min(2, len(p))], "-")
}

func rules() collateral.Rules {
	return collateral.Rules{Algorithms: []x509.SignatureAlgorithm{x509.ECDSAWithSHA384}}
}

// chain checks leaf and bundle (which has its root first) at the verifier's time.
func (v *verifier) chain() []*x509.Certificate {
	der := [][]byte{v.d.Certificate}
	for _, c := range slices.Backward(v.d.Bundle) {
		der = append(der, c)
	}
	chain, err := collateral.ParseDER(der, maxBundle+1)
	if err == nil && len(chain) < 2 {
		err = cvm.Errorf(cvm.Invalid, "attestation document: signed by its own root")
	}
	if err == nil {
		err = rules().Verify(chain, v.at)
	}
	if !v.rec.Try(claim.DocumentChain, err) {
		return nil
	}
	v.out.Expires = chain[0].NotAfter
	for _, c := range chain {
		if c.NotAfter.Before(v.out.Expires) {
			v.out.Expires = c.NotAfter
		}
	}
	v.out.RootSPKI = collateral.SPKIHash(chain[len(chain)-1])
	if slices.Contains(v.p.Roots, v.out.RootSPKI) {
		v.rec.Pass(claim.RootAdmitted, short(v.out.RootSPKI[:]))
	} else {
		v.rec.Fail(claim.RootAdmitted, "an admitted root", short(v.out.RootSPKI[:]), "the document's root is not admitted")
	}
	if v.p.WithoutRevocation {
		v.rec.Pass(claim.CRLRevoked, "not asked for by the policy")
		return chain
	}
	until, err := collateral.CheckRevoked(chain, v.e.CRLs, v.at)
	if v.rec.Try(claim.CRLRevoked, err) && until.Before(v.out.Expires) {
		v.out.Expires = until
	}
	return chain
}

func (v *verifier) signature(leaf *x509.Certificate) error {
	k, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P384() {
		return cvm.Errorf(cvm.Invalid, "attestation document: the certificate's key is not of P-384")
	}
	h := sha512.Sum384(v.d.signed())
	r, s := new(big.Int).SetBytes(v.d.Signature[:48]), new(big.Int).SetBytes(v.d.Signature[48:])
	if !ecdsa.Verify(k, h[:], r, s) {
		return cvm.Errorf(cvm.Invalid, "attestation document: the signature does not match")
	}
	return nil
}

// fresh judges the hypervisor's own time of the document: a signed value. It must
// lie in the leaf's life (a document from before its key was certified is not one
// that this key made), not ahead of the verifier's clock, and not be too old.
func (v *verifier) fresh(leaf *x509.Certificate) {
	made := v.d.Time()
	got := made.Format(time.RFC3339)
	switch {
	case v.p.MaxAge <= 0:
		v.rec.Fail(claim.DocumentFresh, "", "", "the policy names no maximum age")
	// Certificates count in seconds, documents in milliseconds.
	case made.Before(leaf.NotBefore) || made.After(leaf.NotAfter):
		v.rec.Fail(claim.DocumentFresh, leaf.NotBefore.UTC().Format(time.RFC3339)+" to "+leaf.NotAfter.UTC().Format(time.RFC3339), got, "the document is older or newer than its certificate")
	case made.After(v.at.Add(maxSkew)):
		v.rec.Fail(claim.DocumentFresh, "", got, "the document is from the future")
	case v.at.Sub(made) > v.p.MaxAge:
		v.rec.Fail(claim.DocumentFresh, "at most "+v.p.MaxAge.String()+" old", got, "the document is too old")
	default:
		v.rec.Pass(claim.DocumentFresh, got)
	}
}

func (v *verifier) binding() {
	data := []member{{"public key", v.p.PublicKey, v.d.PublicKey, v.p.AnyPublicKey}}
	switch {
	case v.p.ReportData != nil:
		v.reportData()
	case len(v.p.Nonce) == 0:
		v.rec.Fail(claim.DocumentNonce, "", "", "the policy names no nonce")
	case !bytes.Equal(v.p.Nonce, v.d.Nonce):
		v.rec.Fail(claim.DocumentNonce, short(v.p.Nonce), short(v.d.Nonce), "the document was not made for this request")
	default:
		v.rec.Pass(claim.DocumentNonce, "")
	}
	if v.p.ReportData == nil {
		data = append(data, member{"user data", v.p.UserData, v.d.UserData, v.p.AnyUserData})
	}
	for _, x := range data {
		if !x.any && !bytes.Equal(x.want, x.got) {
			v.rec.Fail(claim.DocumentBinding, short(x.want), short(x.got), "another "+x.what)
		}
	}
	v.rec.Pass(claim.DocumentBinding, "")
}

// member is one that the requester chose, and what it must be.
type member struct {
	what      string
	want, got []byte
	any       bool
}

// reportData wants one value in the document, so that it answers one request only.
func (v *verifier) reportData() {
	want, found := v.p.ReportData, false
	for _, got := range [][]byte{v.d.UserData, v.d.Nonce} {
		switch {
		case len(want) != 0 && bytes.Equal(got, want):
			found = true
		case len(got) != 0:
			v.rec.Fail(claim.DocumentNonce, short(want), short(got), "the document was not made for this request")
		}
	}
	if !found {
		v.rec.Fail(claim.DocumentNonce, short(want), "none", "the document answers no request")
		return
	}
	v.rec.Pass(claim.DocumentNonce, "")
}

// image reads what was started: an enclave's image, kernel and applications (PCR0,
// 1, 2), or an instance's boot path (PCR4, 7, 12).
func (v *verifier) image() {
	which := [3]int{0, 1, 2}
	if v.d.TPM {
		which = [3]int{4, 7, 12}
	}
	h := sha256.New()
	for _, i := range which {
		m, ok := v.out.PCRs[i]
		if !ok {
			v.rec.Fail(claim.DocumentImage, "", "", fmt.Sprintf("PCR%d is not in the document", i))
			return
		}
		h.Write(m[:])
	}
	h.Sum(v.out.Image[:0])
	if !v.d.TPM {
		if v.out.PCRs[0] == (cvm.Measurement{}) {
			v.rec.Fail(claim.DocumentDebug, "", "PCR0 is zero", "the enclave runs in debug mode: its parent can read it")
		} else {
			v.rec.Pass(claim.DocumentDebug, "")
		}
	}
	if !v.p.AnyImage && !slices.Contains(v.p.Images, v.out.Image) {
		v.rec.Fail(claim.DocumentImage, "an admitted image", v.out.Image.String(), "the policy does not admit this image")
		return
	}
	v.rec.Pass(claim.DocumentImage, v.out.Image.String())
}

// launch replays the runtime events into PCR14, which starts at zero and is
// extended with SHA-384, as RTMR3 is.
func (v *verifier) launch() {
	want, ok := v.d.PCRs[launchPCR]
	if !ok {
		v.rec.Fail(claim.EventlogReplay, "", "", "PCR14 is not in the document")
		return
	}
	got, err := eventlog.ReplayBank(v.ev.Events, crypto.SHA384)
	switch {
	case err != nil:
		v.rec.Fail(claim.EventlogReplay, "", "", err.Error())
		return
	case !bytes.Equal(got, want):
		v.rec.Fail(claim.EventlogReplay, short(want), short(got), "PCR14 does not replay")
		return
	}
	v.rec.Pass(claim.EventlogReplay, fmt.Sprintf("%d events", len(v.ev.Events)))
	l, err := eventlog.ReadLaunch(v.ev.Events)
	if !v.rec.Try(claim.EventlogIdentity, err) {
		return
	}
	v.phase(l.Phase)
	v.out.Launch = &l
}

func (v *verifier) phase(is claim.Phase) {
	if !slices.Contains(v.p.Phases, is) {
		v.rec.Fail(claim.PhaseCheck, fmt.Sprintf("one of %q", v.p.Phases), string(is), "the policy does not admit this phase of the boot")
		return
	}
	v.rec.Pass(claim.PhaseCheck, string(is))
}

func short(b []byte) string {
	if b == nil {
		return "none"
	}
	if len(b) > 16 {
		b = b[:16]
	}
	return hex.EncodeToString(b) + "..."
}
