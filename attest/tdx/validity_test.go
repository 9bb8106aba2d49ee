package tdx

import (
	"crypto/x509"
	"testing"
	"time"
)

// Each certificate's own period counts, also of one that was believed before.
func TestEachCertificatesValidity(t *testing.T) {
	at := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	from, until := at.AddDate(-1, 0, 0), at.AddDate(1, 0, 0)
	for _, over := range []string{"none", "PCK", "CA", "root"} {
		end := func(name string) time.Time {
			if name == over {
				return at.Add(-time.Second)
			}
			return until
		}
		cert := func(name string) *x509.Certificate {
			return &x509.Certificate{NotBefore: from, NotAfter: end(name)}
		}
		v := &verifier{at: at}
		err := v.current(&issuers{ca: cert("CA"), root: cert("root")}, &host{from: from, until: end("PCK")})
		if (err == nil) != (over == "none") {
			t.Errorf("%s is over: %v", over, err)
		}
	}
	for place, over := range []string{"signer", "root"} {
		chain := []*x509.Certificate{{NotBefore: from, NotAfter: until}, {NotBefore: from, NotAfter: until}}
		chain[0].Subject.CommonName = cnTCBSigning
		v := &verifier{at: at}
		v.res.RootSPKI = [32]byte{}
		chain[place].NotAfter = at.Add(-time.Second)
		if err := v.signer(chain, true); err == nil || !containsDate(err.Error()) {
			t.Errorf("the collateral's %s is over: %v", over, err)
		}
	}
}

// containsDate: the refusal is about the period, not about what comes after.
func containsDate(s string) bool { return len(s) > 10 && s[len(s)-10:] == "2026-05-31" }
