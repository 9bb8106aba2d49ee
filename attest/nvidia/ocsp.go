package nvidia

import (
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/cvm"
)

const (
	maxOCSP      = 32                       // responses
	maxOCSPBytes = 64 << 10                 // each
	maxOCSPLife  = 7 * 24                   // hours that one response may speak for
	oidSHA384    = "2.16.840.1.101.3.4.2.2" // SHA-384
)

// revocation asks that the vendor said "good" of every certificate it issued, in a
// response that is current.
func (v *verifier) revocation() {
	if v.p.WithoutRevocation {
		v.rec.Pass(claim.GPURevoked, "not asked for by the policy")
		return
	}
	if len(v.issued) == 0 {
		v.rec.Fail(claim.GPURevoked, "", "", "no certificate chain was verified")
		return
	}
	if len(v.e.OCSP) > maxOCSP {
		v.rec.Fail(claim.GPURevoked, "", "", "more OCSP responses than can be needed")
		return
	}
	for _, p := range v.issued {
		until, err := status(v.e.OCSP, p.cert, p.issuer, v.at)
		if err != nil {
			v.rec.Fail(claim.GPURevoked, "good", clip(p.cert.Subject.CommonName), err.Error())
			continue
		}
		v.until(until)
	}
	v.rec.Pass(claim.GPURevoked, "")
}

// status finds the response that speaks of cert and judges it. The first one that
// issuer or its delegate signed decides: a later one cannot mend it.
func status(responses [][]byte, cert, issuer *x509.Certificate, at time.Time) (until time.Time, err error) {
	for _, der := range responses {
		if len(der) > maxOCSPBytes {
			return until, cvm.Errorf(cvm.Invalid, "an OCSP response of %d bytes", len(der))
		}
		r, err := ocsp.ParseResponseForCert(der, cert, issuer)
		if err != nil {
			continue // speaks of another certificate, or another issuer signed it
		}
		if err := responder(r, issuer, at); err != nil {
			return until, err
		}
		w := collateral.Window{From: r.ThisUpdate, Until: r.NextUpdate}
		switch {
		case r.Status != ocsp.Good:
			return until, cvm.Errorf(cvm.Denied, "the vendor says that it is not good (status %d)", r.Status)
		case r.NextUpdate.Sub(r.ThisUpdate) > maxOCSPLife*time.Hour:
			return until, cvm.Errorf(cvm.Invalid, "an OCSP response for longer than %d hours", maxOCSPLife)
		}
		return r.NextUpdate, w.Check(at)
	}
	return until, cvm.Errorf(cvm.Invalid, "no OCSP response of its issuer")
}

// responder judges a delegate (RFC 6960, 4.2.2.2): issued by the issuer, which the
// parser checked, for this purpose alone, and valid.
func responder(r *ocsp.Response, issuer *x509.Certificate, at time.Time) error {
	c := r.Certificate
	if c == nil || c.Equal(issuer) {
		return nil
	}
	if !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) || at.Before(c.NotBefore) || at.After(c.NotAfter) {
		return cvm.Errorf(cvm.Invalid, "an OCSP response signed by a certificate that may not")
	}
	return nil
}

type fwid struct {
	Alg    asn1.ObjectIdentifier
	Digest []byte
}

// checkFWID compares the firmware id that reports with the one in the key's
// certificate (DICE TcbInfo, field [6]): the device certified the key for that
// firmware alone.
func checkFWID(c *x509.Certificate, want []byte) error {
	raw, ok := collateral.Extension(c, oidTCBInfo)
	if !ok {
		return refuse("the certificate names no firmware")
	}
	var info asn1.RawValue
	if rest, err := asn1.Unmarshal(raw, &info); err != nil || len(rest) != 0 || info.Class != asn1.ClassUniversal || info.Tag != asn1.TagSequence {
		return refuse("the certificate's TCB info is not readable")
	}
	var found []fwid
	for b := info.Bytes; len(b) > 0; {
		var f asn1.RawValue
		var err error
		if b, err = asn1.Unmarshal(b, &f); err != nil {
			return refuse("the certificate's TCB info is not readable")
		}
		if f.Class != asn1.ClassContextSpecific || f.Tag != 6 {
			continue
		}
		for b := f.Bytes; len(b) > 0; {
			var id fwid
			if b, err = asn1.Unmarshal(b, &id); err != nil {
				return refuse("the certificate's firmware ids are not readable")
			}
			found = append(found, id)
		}
	}
	if len(found) != 1 || found[0].Alg.String() != oidSHA384 || !slices.Equal(found[0].Digest, want) {
		return refuse("the certificate is for another firmware")
	}
	return nil
}
