package sevsnp

import (
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
)

// TCB statuses. AMD publishes none: they are derived from the relying party's
// minimum.
const (
	UpToDate  = "UpToDate"
	OutOfDate = "OutOfDate"
)

// Options say what a relying party admits of the platform. The zero Options admit
// nothing.
type Options struct {
	// Admitted says whether a root, by the sha256 of its SubjectPublicKeyInfo, is trusted for a product.
	Admitted func(product string, spki [32]byte) bool
	// Products are the admitted processor lines.
	Products []string
	// MinTCB is the least TCB of each product; a product without one is not rated.
	MinTCB map[string]TCB
	// CSPs are the providers whose VLEK is admitted. Empty: VCEK only.
	CSPs []string
	// AnyMaskedChip admits a masked (zero) chip id.
	AnyMaskedChip bool
	// AnyProvisional admits firmware that is not committed.
	AnyProvisional bool
	// Cache, if any, spares signatures that were checked before.
	Cache *Cache
}

// Result is what the vendor's part of a verification found. Fields hold values
// only as far as the checks that fill them passed.
type Result struct {
	Report   *Report
	Leaf     *Leaf    // nil until the chain verified
	RootSPKI [32]byte // sha256; of the chain's own root, admitted or not
	TCB      claim.TCB
	Marks    collateral.Floor // number of the revocation list; nil until it is verified
	Expires  time.Time        // the earliest end among certificates and list
}

// Genuine lists the checks whose passing means that the holder of an admitted
// root's key stands behind the report.
func Genuine() []string {
	return []string{claim.QuoteParse, claim.SNPChain, claim.RootAdmitted, claim.QuoteSignature}
}

// Verify makes the vendor's checks on a report of exactly ReportSize bytes and
// records each of them. The TCB status is evaluated, not judged.
func Verify(raw []byte, c *collateral.AMD, o Options, at time.Time, rec *claim.Recorder) Result {
	v := &verifier{o: o, at: at, rec: rec}
	if o.Cache == nil {
		o.Cache = &Cache{}
	}
	r, err := ParseReport(raw)
	if !rec.Try(claim.QuoteParse, err) {
		return v.res
	}
	v.r, v.res.Report = r, r
	e, parseErr, err := o.Cache.endorse(c)
	if !rec.Try(claim.CollateralParse, parseErr) {
		return v.res
	}
	if err == nil {
		v.res.Expires, err = e.valid(at)
	}
	if !rec.Try(claim.SNPChain, err) {
		return v.res
	}
	v.e, v.res.Leaf, v.res.RootSPKI = e, e.leaf, e.root
	v.root()
	v.product()
	v.signer()
	v.signature(raw)
	v.revocation()
	v.chip()
	v.tcb()
	if rec.Passed(Genuine()...) {
		o.Cache.remember(c, e)
	}
	return v.res
}

type verifier struct {
	o   Options
	at  time.Time
	rec *claim.Recorder
	r   *Report
	e   endorsement
	res Result
}

func (v *verifier) root() {
	if v.o.Admitted != nil && v.o.Admitted(v.e.leaf.Product, v.e.root) {
		v.rec.Pass(claim.RootAdmitted, short(v.e.root[:]))
		return
	}
	v.rec.Fail(claim.RootAdmitted, "an admitted root", "sha256 of its key "+short(v.e.root[:]), "the report's root is not admitted for "+v.e.leaf.Product)
}

// product compares the report's processor with the certificate's. Version 2 names
// none: the certificate's, whose key signed the report, counts.
func (v *verifier) product() {
	line, named := v.e.leaf.Product, v.r.Product()
	switch {
	case v.r.Version >= 3 && named != line:
		v.rec.Fail(claim.SNPProduct, line, named, "the report is of another product than its certificate")
	case !slices.Contains(v.o.Products, line):
		v.rec.Fail(claim.SNPProduct, "", line, "the policy does not admit this product")
	default:
		v.rec.Pass(claim.SNPProduct, line)
	}
}

// signer compares the kind of key that the report names with the certificate.
func (v *verifier) signer() {
	kind := map[uint8]string{KeyVCEK: "VCEK", KeyVLEK: "VLEK", KeyNone: "none"}
	l := v.e.leaf
	switch {
	case v.r.SigningKey == KeyNone:
		v.rec.Fail(claim.SNPSigner, kind[l.Kind], kind[KeyNone], "the report says that no key signed it")
	case v.r.SigningKey != l.Kind:
		v.rec.Fail(claim.SNPSigner, kind[v.r.SigningKey], kind[l.Kind], "the certificate is for another kind of key than the report names")
	case l.Kind == KeyVLEK && !slices.Contains(v.o.CSPs, l.CSP):
		v.rec.Fail(claim.SNPSigner, "", "VLEK of "+l.CSP, "the policy does not admit this provider's key")
	default:
		v.rec.Pass(claim.SNPSigner, kind[l.Kind])
	}
}

func (v *verifier) signature(raw []byte) {
	digest := sha512.Sum384(raw[:SignedSize])
	r, s := new(big.Int).SetBytes(v.r.R[:]), new(big.Int).SetBytes(v.r.S[:])
	if !ecdsa.Verify(v.e.leaf.Key, digest[:], r, s) {
		v.rec.Fail(claim.QuoteSignature, "", "", "the signature does not match the report")
		return
	}
	v.rec.Pass(claim.QuoteSignature, "")
}

// revocation requires the root's list, current and signed, and looks up both
// certificates below it. AMD gives VCEKs the serial number 0, which only a list that
// means one of them names.
func (v *verifier) revocation() {
	err := v.e.crlErr
	if err == nil {
		err = v.e.crl.Window().Check(v.at)
	}
	if !v.rec.Try(claim.CRLFresh, err) {
		return
	}
	if u := v.e.crl.Window().Until; u.Before(v.res.Expires) {
		v.res.Expires = u
	}
	v.res.Marks = collateral.MarksOf(v.e.ark, nil, nil, v.e.crl)
	for _, c := range []*x509.Certificate{v.e.ask, v.e.leaf.Cert} {
		if v.e.crl.Revoked(c.SerialNumber) {
			v.rec.Fail(claim.CRLRevoked, "", c.Subject.CommonName, "the vendor revoked this certificate")
		}
	}
	v.rec.Pass(claim.CRLRevoked, "")
}

// chip compares the report's chip with that of a VCEK. A VLEK names none.
func (v *verifier) chip() {
	l, id := v.e.leaf, v.r.ChipID
	switch size := HWIDSize(l.Product); {
	case id == [64]byte{} && !v.o.AnyMaskedChip:
		v.rec.Fail(claim.SNPChip, "a chip id", "zeros", "the host masks its chip id")
	case id == [64]byte{}:
		v.rec.Pass(claim.SNPChip, "masked")
	case !zero(id[size:]):
		v.rec.Fail(claim.SNPChip, "", short(id[:]), "the chip id is longer than this product's")
	case l.Kind == KeyVCEK && string(id[:size]) != string(l.HWID):
		v.rec.Fail(claim.SNPChip, short(l.HWID), short(id[:]), "the certificate is of another chip")
	default:
		v.rec.Pass(claim.SNPChip, short(id[:]))
	}
}

func short(b []byte) string { return hex.EncodeToString(b[:8]) + "..." }

func zero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
