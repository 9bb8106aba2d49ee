package tdx

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
)

// collateral checks the vendor's statements and rates the platform by them.
func (v *verifier) collateral(c collateral.Set) {
	s, known := v.cache.sets.Get(v.issuers.id[:], v.host.pck.FMSPC[:])
	if known = known && s.is(c); !known {
		var err error
		if s, err = parseSet(c, v.issuers.root); err != nil {
			v.rec.Fail(claim.CollateralParse, "", "", err.Error())
			return
		}
	}
	v.rec.Pass(claim.CollateralParse, "")
	v.revocation(s, known)
	if !v.signers(s, known) {
		return
	}
	if err := v.match(s.tcb); !v.rec.Try(claim.CollateralMatch, err) {
		return
	}
	v.fresh(s)
	v.levels(s)
	if !known && v.rec.Passed(Genuine()...) && v.rec.Passed(claim.CRLFresh, claim.CRLRevoked, claim.CollateralFresh) {
		if v.cache.remember(s, v.issuers) {
			v.unseen.issuers, v.unseen.host, v.unseen.report = true, true, true
		}
	}
}

// revocation requires both lists, current and by the right issuers, and looks up
// every certificate that the verdict rests on. known: the signatures are.
func (v *verifier) revocation(s *endorsed, known bool) {
	for _, l := range [...]struct {
		crl    *collateral.CRL
		issuer *x509.Certificate
	}{{s.rootCRL, v.issuers.root}, {s.pckCRL, v.issuers.ca}} {
		var err error
		if !known {
			err = l.crl.SignedBy(l.issuer)
		}
		if err == nil {
			err = l.crl.Window().Check(v.at)
		}
		if err != nil {
			v.rec.Fail(claim.CRLFresh, "", l.issuer.Subject.CommonName, err.Error())
			return
		}
		v.until(l.crl.Window().Until)
	}
	v.rec.Pass(claim.CRLFresh, "")
	for _, c := range [...]*x509.Certificate{v.issuers.ca, s.tcbChain[0], s.qeChain[0]} {
		if s.rootCRL.Revoked(c.SerialNumber) {
			v.rec.Fail(claim.CRLRevoked, "", c.Subject.CommonName, "the root revoked this certificate")
		}
	}
	if s.pckCRL.Revoked(v.host.serial) {
		v.rec.Fail(claim.CRLRevoked, "", cnPCK, "the vendor revoked this processor's certificate")
	}
	v.rec.Pass(claim.CRLRevoked, "")
}

// signers checks that TCB info and QE identity are signed by the vendor's TCB
// signing certificate under the very root of the quote. known: the signatures are.
func (v *verifier) signers(s *endorsed, known bool) bool {
	for i, chain := range [...][]*x509.Certificate{s.tcbChain, s.qeChain} {
		same := i == 1 && chain[0] == s.tcbChain[0] && chain[1] == s.tcbChain[1]
		if err := v.signer(chain, known || same); err != nil {
			v.rec.Fail(claim.CollateralChain, "", "", err.Error())
			return false
		}
	}
	v.rec.Pass(claim.CollateralChain, "")
	for _, x := range [...]struct {
		what  string
		s     *collateral.Signed
		chain []*x509.Certificate
	}{{"TCB info", &s.tcb.Signed, s.tcbChain}, {"QE identity", &s.qe.Signed, s.qeChain}} {
		if known {
			break
		}
		pub, _ := x.chain[0].PublicKey.(*ecdsa.PublicKey)
		if err := x.s.Verify(pub); err != nil {
			v.rec.Fail(claim.CollateralSigned, "", x.what, err.Error())
			return false
		}
	}
	v.rec.Pass(claim.CollateralSigned, "")
	return true
}

func (v *verifier) signer(chain []*x509.Certificate, known bool) error {
	for i, c := range chain {
		if err := collateral.CheckValidity(c.Subject.CommonName, c.NotBefore, c.NotAfter, v.at); err != nil {
			return err
		}
		if known {
			continue
		}
		if err := v.issued(c, chain[1], i); err != nil {
			return err
		}
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

// issued checks a certificate of the collateral's chain. The quote's own root was
// checked with the quote.
func (v *verifier) issued(c, root *x509.Certificate, place int) error {
	switch {
	case place == 0:
		return collateral.CheckIssued(c, root, 0)
	case bytes.Equal(c.Raw, v.issuers.root.Raw):
		return nil
	}
	return checkRoot(c, place)
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

func (v *verifier) fresh(s *endorsed) {
	for _, w := range [...]struct {
		what string
		w    collateral.Window
	}{{"TCB info", s.tcb.Window}, {"QE identity", s.qe.Window}} {
		v.until(w.w.Until)
		if err := w.w.Check(v.at); err != nil {
			v.rec.Fail(claim.CollateralFresh, "", w.what, err.Error())
		}
	}
	var buf [32]byte
	v.rec.Pass(claim.CollateralFresh, string(v.res.Expires.UTC().AppendFormat(append(buf[:0], "until "...), time.RFC3339)))
	v.res.TCB.EvalNumber, v.res.TCB.QEEvalNumber, v.res.Marks = s.tcb.EvalNumber, s.qe.EvalNumber, s.marks
}
