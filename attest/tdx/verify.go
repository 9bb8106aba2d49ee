package tdx

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
)

// Result is what the vendor's part of a verification found. Fields hold values
// only as far as the checks that fill them passed.
type Result struct {
	Quote    *Quote
	PCK      *PCK
	RootSPKI [32]byte // sha256; of the chain's own root, admitted or not
	TCB      claim.TCB
	Marks    collateral.Floor // how far the collateral has come; nil until it is verified
	Expires  time.Time        // the earliest end among certificates, collateral and lists
}

// Genuine lists the checks whose passing means that the holder of an admitted
// root's key stands behind the quote.
func Genuine() []string {
	return []string{claim.QuoteParse, claim.PCKChain, claim.RootAdmitted, claim.QEReport, claim.QuoteKey, claim.QuoteSignature}
}

// Verify makes the vendor's checks (all but policy on the TD's content) and
// records each of them. admitted says whether a root, by the sha256 of its
// SubjectPublicKeyInfo, is trusted. The TCB status is evaluated, not judged: only
// Revoked fails here.
func Verify(raw []byte, c collateral.Set, admitted func(spki [32]byte) bool, at time.Time, rec *claim.Recorder) Result {
	v := &verifier{at: at, rec: rec}
	q, err := ParseQuote(raw)
	if !rec.Try(claim.QuoteParse, err) {
		return v.res
	}
	v.q, v.res.Quote = q, q
	v.pckChain()
	if v.chain != nil {
		if v.res.RootSPKI = collateral.SPKIHash(v.chain[2]); admitted(v.res.RootSPKI) {
			rec.Pass(claim.RootAdmitted, short(v.res.RootSPKI[:]))
		} else {
			rec.Fail(claim.RootAdmitted, "an admitted root", "sha256 of its key "+short(v.res.RootSPKI[:]), "the quote's root is not admitted")
		}
		v.qe()
	}
	v.signature()
	if v.chain != nil {
		v.collateral(c)
	}
	return v.res
}

type verifier struct {
	q     *Quote
	at    time.Time
	rec   *claim.Recorder
	chain []*x509.Certificate // nil until the PCK chain verified
	res   Result
}

// until lowers the result's end of validity.
func (v *verifier) until(t time.Time) {
	if v.res.Expires.IsZero() || t.Before(v.res.Expires) {
		v.res.Expires = t
	}
}

func (v *verifier) pckChain() {
	chain, pck, err := v.q.ParseChain()
	if err == nil {
		err = collateral.VerifyChain(chain, v.at)
	}
	if !v.rec.Try(claim.PCKChain, err) {
		return
	}
	v.chain, v.res.PCK = chain, pck
	for _, c := range chain {
		v.until(c.NotAfter)
	}
}

// qe checks that the processor's key signed the QE report and that the report
// names the attestation key.
func (v *verifier) qe() {
	q := v.q
	pub, ok := v.chain[0].PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() || !collateral.VerifyRaw(pub, q.report, q.reportSig) {
		v.rec.Fail(claim.QEReport, "", "", "the quoting enclave's report is not signed by the processor's key")
		return
	}
	v.rec.Pass(claim.QEReport, "")
	want := sha256.Sum256(append(append([]byte{}, q.key...), q.auth...))
	got := q.report[320:384]
	if !sameBytes(got[:32], want[:]) || !zero(got[32:]) {
		v.rec.Fail(claim.QuoteKey, short(want[:]), short(got), "the quoting enclave's report names another attestation key")
		return
	}
	v.rec.Pass(claim.QuoteKey, "")
}

func (v *verifier) signature() {
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, v.q.key...))
	if err != nil {
		v.rec.Fail(claim.QuoteSignature, "", "", "the attestation key is not a point of P-256")
		return
	}
	if !collateral.VerifyRaw(pub, v.q.signed, v.q.signature) {
		v.rec.Fail(claim.QuoteSignature, "", "", "the signature does not match the quote")
		return
	}
	v.rec.Pass(claim.QuoteSignature, "")
}

// collateral checks the vendor's statements and rates the platform by them.
func (v *verifier) collateral(c collateral.Set) {
	s, err := parse(c)
	if !v.rec.Try(claim.CollateralParse, err) {
		return
	}
	v.revocation(s)
	if !v.signers(s) {
		return
	}
	if err := v.match(s.tcb); !v.rec.Try(claim.CollateralMatch, err) {
		return
	}
	v.fresh(s)
	v.levels(s)
}

// parsed is a Set after parsing; nothing in it is verified.
type parsed struct {
	tcb               *collateral.TCBInfo
	qe                *collateral.QEIdentity
	tcbChain, qeChain []*x509.Certificate // signer, root
	rootCRL, pckCRL   *collateral.CRL
}

func parse(c collateral.Set) (s parsed, err error) {
	if s.tcb, err = collateral.ParseTCBInfo(c.TCBInfo); err != nil {
		return s, err
	}
	if s.qe, err = collateral.ParseQEIdentity(c.QEIdentity); err != nil {
		return s, err
	}
	if s.tcbChain, err = collateral.ParseChain(c.TCBInfoIssuerChain, 2); err != nil {
		return s, err
	}
	if s.qeChain, err = collateral.ParseChain(c.QEIdentityIssuerChain, 2); err != nil {
		return s, err
	}
	if s.rootCRL, err = collateral.ParseCRL(c.RootCRL); err != nil {
		return s, err
	}
	s.pckCRL, err = collateral.ParseCRL(c.PCKCRL)
	return s, err
}

// revocation requires both lists, current and by the right issuers, and looks up
// every certificate that the verdict rests on.
func (v *verifier) revocation(s parsed) {
	root, ca := v.chain[2], v.chain[1]
	for _, l := range []struct {
		crl    *collateral.CRL
		issuer *x509.Certificate
	}{{s.rootCRL, root}, {s.pckCRL, ca}} {
		if err := l.crl.Verify(l.issuer, v.at); err != nil {
			v.rec.Fail(claim.CRLFresh, "", "", err.Error())
			return
		}
		v.until(l.crl.Window().Until)
	}
	v.rec.Pass(claim.CRLFresh, "")
	for _, c := range []*x509.Certificate{ca, s.tcbChain[0], s.qeChain[0]} {
		if s.rootCRL.Revoked(c.SerialNumber) {
			v.rec.Fail(claim.CRLRevoked, "", c.Subject.CommonName, "the root revoked this certificate")
		}
	}
	if s.pckCRL.Revoked(v.chain[0].SerialNumber) {
		v.rec.Fail(claim.CRLRevoked, "", cnPCK, "the vendor revoked this processor's certificate")
	}
	v.rec.Pass(claim.CRLRevoked, "")
}

// signers checks that TCB info and QE identity are signed by the vendor's TCB
// signing certificate under the very root of the quote.
func (v *verifier) signers(s parsed) bool {
	for _, chain := range [][]*x509.Certificate{s.tcbChain, s.qeChain} {
		if err := v.signer(chain); err != nil {
			v.rec.Fail(claim.CollateralChain, "", "", err.Error())
			return false
		}
	}
	v.rec.Pass(claim.CollateralChain, "")
	for _, x := range []struct {
		what  string
		s     collateral.Signed
		chain []*x509.Certificate
	}{{"TCB info", s.tcb.Signed, s.tcbChain}, {"QE identity", s.qe.Signed, s.qeChain}} {
		pub, _ := x.chain[0].PublicKey.(*ecdsa.PublicKey)
		if err := x.s.Verify(pub); err != nil {
			v.rec.Fail(claim.CollateralSigned, "", x.what, err.Error())
			return false
		}
	}
	v.rec.Pass(claim.CollateralSigned, "")
	return true
}

func (v *verifier) signer(chain []*x509.Certificate) error {
	if err := collateral.VerifyChain(chain, v.at); err != nil {
		return err
	}
	if collateral.SPKIHash(chain[1]) != v.res.RootSPKI {
		return refuse("the collateral's root is not the quote's root")
	}
	if cn := chain[0].Subject.CommonName; cn != cnTCBSigning {
		return refuse("the collateral is signed by %q, want %q", cn, cnTCBSigning)
	}
	v.until(chain[0].NotAfter)
	return nil
}

// match compares bytes, so that the case of hex in collateral does not matter.
func (v *verifier) match(t *collateral.TCBInfo) error {
	if t.FMSPC != v.res.PCK.FMSPC {
		return refuse("TCB info for FMSPC %x, the processor is %x", t.FMSPC, v.res.PCK.FMSPC)
	}
	if t.PCEID != v.res.PCK.PCEID {
		return refuse("TCB info for PCE %x, the processor has %x", t.PCEID, v.res.PCK.PCEID)
	}
	return nil
}

func (v *verifier) fresh(s parsed) {
	for _, w := range []struct {
		what string
		w    collateral.Window
	}{{"TCB info", s.tcb.Window}, {"QE identity", s.qe.Window}} {
		v.until(w.w.Until)
		if err := w.w.Check(v.at); err != nil {
			v.rec.Fail(claim.CollateralFresh, "", w.what, err.Error())
		}
	}
	v.rec.Pass(claim.CollateralFresh, "until "+v.res.Expires.UTC().Format(time.RFC3339))
	v.res.TCB.EvalNumber, v.res.TCB.QEEvalNumber = s.tcb.EvalNumber, s.qe.EvalNumber
	v.res.Marks = collateral.MarksOf(v.chain[2], s.tcb, s.qe, s.rootCRL, s.pckCRL)
}

func sha(b []byte) [32]byte { return sha256.Sum256(b) }

func short(b []byte) string {
	if len(b) > 16 {
		b = b[:16]
	}
	return hex.EncodeToString(b) + "..."
}

func zero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

func le64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
