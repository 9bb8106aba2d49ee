package differential

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-tdx-guest/verify"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/tdx"
)

// verdict is what one verifier says.
type verdict struct {
	ok     bool
	status string // merged TCB status, where the verifier says it
	why    string // of a refusal: the check, and the reason
}

// ours applies the vendor's rules, as all oracles do: no policy on the TD.
func (p pool) ours(c sample) verdict { return p.cached(nil, c) }

// cached is ours with signatures remembered; the nil cache remembers none.
func (p pool) cached(cache *tdx.Cache, c sample) verdict {
	rec := &claim.Recorder{}
	res := cache.Verify(c.quote, c.set, func(spki [32]byte) bool { return spki == p.spki }, c.at, rec)
	v := verdict{ok: true, status: res.TCB.Status}
	for _, x := range rec.Checks() {
		if x.Verdict == claim.Failed {
			return verdict{why: x.Name + ": " + strings.TrimPrefix(x.Got+": "+x.Reason, ": ")}
		}
	}
	if vendor := append(tdx.Genuine(), claim.CollateralParse, claim.CollateralChain, claim.CollateralSigned, claim.CollateralMatch,
		claim.CollateralFresh, claim.CRLFresh, claim.CRLRevoked, claim.QEIdentity, claim.TDXModule, claim.TCBMatch); !rec.Passed(vendor...) {
		return verdict{why: "a check was not made"}
	}
	return v
}

// getter answers go-tdx-guest's requests from a set.
type getter struct{ c sample }

func (g getter) Get(raw string) (map[string][]string, []byte, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, nil, err
	}
	header := func(name string, chain []byte) map[string][]string {
		return map[string][]string{http.CanonicalHeaderKey(name): {strings.ReplaceAll(url.QueryEscape(string(chain)), "+", "%20")}}
	}
	s := g.c.set
	switch p := u.Path; {
	case strings.HasSuffix(p, "/tdx/certification/v4/tcb"):
		return header("TCB-Info-Issuer-Chain", s.TCBInfoIssuerChain), s.TCBInfo, nil
	case strings.HasSuffix(p, "/qe/identity"):
		return header("SGX-Enclave-Identity-Issuer-Chain", s.QEIdentityIssuerChain), s.QEIdentity, nil
	case strings.HasSuffix(p, "/pckcrl"):
		return header("SGX-PCK-CRL-Issuer-Chain", s.PCKCRLIssuerChain), s.PCKCRL, nil
	case strings.HasSuffix(p, ".der"):
		return nil, s.RootCRL, nil
	}
	return nil, nil, fmt.Errorf("nothing at %s", u.Path)
}

// goTDX is go-tdx-guest with collateral and revocation; a panic is a refusal.
func (p pool) goTDX(c sample) (v verdict) {
	defer func() {
		if r := recover(); r != nil {
			v = verdict{why: fmt.Sprintf("PANIC: %v", r)}
		}
	}()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.root)
	err := verify.RawTdxQuote(c.quote, &verify.Options{GetCollateral: true, CheckRevocations: true, Getter: getter{c}, TrustedRoots: roots,
		Now: &verify.TimeSet{PckCertChain: c.at, TcbInfo: c.at, QeIdentity: c.at, PckCrl: c.at, RootCaCrl: c.at}})
	if err != nil {
		return verdict{why: err.Error()}
	}
	return verdict{ok: true}
}
