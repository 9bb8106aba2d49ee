package attest_test

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-tdx-guest/verify"

	"github.com/confidential-cloud/phala/attest/simtee"
)

// pcs answers go-tdx-guest's requests to Intel from the simulated vendor.
type pcs struct{ h http.Handler }

func (p pcs) Get(raw string) (map[string][]string, []byte, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, nil, err
	}
	w := httptest.NewRecorder()
	p.h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, u.RequestURI(), nil))
	return w.Result().Header, w.Body.Bytes(), nil //nolint:bodyclose // a recorder
}

// go-tdx-guest, an implementation that is not ours, accepts what the simulated TEE
// makes under its root, and refuses it under Intel's. Ours is never laxer.
func TestOracle(t *testing.T) {
	for _, tc := range []struct {
		name         string
		cfg          simtee.Config
		theirs, ours bool
	}{
		{"version 4", simtee.Config{}, true, true},
		{"version 5", simtee.Config{QuoteVersion: 5}, true, true},
		{"collateral expired", simtee.Config{Faults: simtee.Faults{Expired: true}}, false, false},
		{"other FMSPC", simtee.Config{Faults: simtee.Faults{OtherFMSPC: true}}, false, false},
		{"PCK revoked", simtee.Config{Faults: simtee.Faults{RevokePCK: true}}, false, false},
		{"CA revoked", simtee.Config{Faults: simtee.Faults{RevokeCA: true}}, false, false},
		{"other QE signer", simtee.Config{Faults: simtee.Faults{QE: simtee.QEOtherSigner}}, false, false},
		{"signed by the CA", simtee.Config{Faults: simtee.Faults{SignedByCA: true}}, false, false},
		// Known: with TDX 1.5 modules it drops the platform's status.
		{"platform revoked", simtee.Config{Faults: simtee.Faults{TCBStatus: "Revoked"}}, true, false},
		{"QE vendor", simtee.Config{Faults: simtee.Faults{QE: simtee.QEVendor}}, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene(t, func(s *scene) {
				s.cfg.QuoteVersion, s.cfg.Faults = tc.cfg.QuoteVersion, tc.cfg.Faults
			})
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(s.hw.RootPEM())
			opts := &verify.Options{GetCollateral: true, CheckRevocations: true, Getter: pcs{s.hw.Handler()}, TrustedRoots: roots,
				Now: &verify.TimeSet{PckCertChain: s.at, TcbInfo: s.at, QeIdentity: s.at, PckCrl: s.at, RootCaCrl: s.at}}
			err := verify.RawTdxQuote(s.ev.Quote, opts)
			if (err == nil) != tc.theirs {
				t.Errorf("go-tdx-guest: %v", err)
			}
			if _, _, err := s.verify(); (err == nil) != tc.ours {
				t.Errorf("ours: %v", err)
			}
			if tc.theirs && !tc.ours {
				t.Log("ours is stricter")
			}
			strict := verify.DefaultOptions()
			if err := verify.RawTdxQuote(s.ev.Quote, strict); err == nil || strings.Contains(err.Error(), "panic") {
				t.Errorf("accepted under Intel's root: %v", err)
			}
		})
	}
}
