package fetch

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

// intelRootCRL is Intel's distribution point of the root's list (DER). PCS does not
// serve the list; PCCS-shaped services do, at /sgx/certification/v4/rootcacrl.
const intelRootCRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"

// Paths of Intel PCS API v4.
const (
	pathTCB     = "/tdx/certification/v4/tcb"
	pathQE      = "/tdx/certification/v4/qe/identity"
	pathPCKCRL  = "/sgx/certification/v4/pckcrl"
	pathRootCRL = "/sgx/certification/v4/rootcacrl"
)

// Names of Intel's certificates.
const (
	cnTCBSigning  = "Intel SGX TCB Signing"
	cnPlatformCA  = "Intel SGX PCK Platform CA"
	cnProcessorCA = "Intel SGX PCK Processor CA"
)

// question is what a quote makes us ask Intel.
type question struct {
	fmspc [6]byte
	ca    string // "platform" or "processor"
	spki  [32]byte
	root  *x509.Certificate
	chain []*x509.Certificate // PCK, CA, root of the quote; nil when there is no quote
}

// known is what the quotes of one host ask for.
type known struct {
	q   question // without certificates
	all []statement
}

// askQuote answers from memory without parsing certificates again, when a quote of
// the same host was answered before.
func (c *Client) askQuote(ctx context.Context, quote []byte) (Answer, error) {
	parsed, err := tdx.ParseQuote(quote)
	if err != nil {
		return Answer{}, err
	}
	if k, ok := c.known.Get(parsed.CertificateChain()); ok {
		if got, missing, err := c.lookUp(k.all); err == nil && missing == nil {
			return c.intelAnswer(k.q, k.all, got), nil
		}
	}
	q, err := quoted(parsed)
	if err != nil {
		return Answer{}, err
	}
	a, err := c.askIntel(ctx, q)
	if err == nil {
		q.root, q.chain = nil, nil
		c.known.Put(known{q, c.intel(q)}, parsed.CertificateChain())
	}
	return a, err
}

// quoted reads what a quote names. Nothing is verified.
func quoted(q *tdx.Quote) (question, error) {
	chain, pck, err := q.ParseChain()
	if err != nil {
		return question{}, err
	}
	return question{fmspc: pck.FMSPC, ca: pck.CA, spki: collateral.SPKIHash(chain[2]), root: chain[2], chain: chain}, nil
}

// ForFMSPC returns the collateral of a processor model, without evidence: what an
// offline bundle is made of. root is the sha256 of the root's SubjectPublicKeyInfo,
// ca whose list of processors counts ("platform" or "processor"). Errors: as For.
func (c *Client) ForFMSPC(ctx context.Context, root [32]byte, fmspc [6]byte, ca string) (Answer, error) {
	if ca != "platform" && ca != "processor" {
		return Answer{}, cvm.Errorf(cvm.Invalid, "collateral: CA %q, want platform or processor", ca)
	}
	q := question{fmspc: fmspc, ca: ca, spki: root}
	if err := c.admitted(root); err != nil {
		return Answer{}, err
	}
	t, err := c.get(ctx, c.tcbInfo(q))
	if err != nil {
		return Answer{}, err
	}
	certs, err := collateral.ParseChain(t.chain, 2)
	if err != nil {
		return Answer{}, err
	}
	q.root = certs[1]
	return c.askIntel(ctx, q)
}

// admitted refuses roots that are none of Config.Roots.
func (c *Client) admitted(spki [32]byte) error {
	if c.roots == nil || c.roots[spki] {
		return nil
	}
	return cvm.Errorf(cvm.Denied, "collateral: the root %x... is not admitted: nothing is asked about it", spki[:8]).WithReason(ReasonRoot)
}

// askIntel gathers the four statements. Each is got once, whatever the number of
// callers and of processor models that share it.
func (c *Client) askIntel(ctx context.Context, q question) (Answer, error) {
	if err := c.admitted(q.spki); err != nil {
		return Answer{}, err
	}
	all := c.intel(q)
	got, missing, err := c.lookUp(all)
	if err != nil {
		return Answer{}, err
	}
	if len(missing) > 0 {
		// What nobody signed must not choose what is asked for.
		if q.chain != nil {
			if err := collateral.VerifyChain(q.chain, c.cfg.Clock()); err != nil {
				return Answer{}, err
			}
		}
		if err := c.gather(ctx, all, got, missing); err != nil {
			return Answer{}, err
		}
	}
	return c.intelAnswer(q, all, got), nil
}

func (c *Client) intel(q question) []statement {
	return []statement{c.tcbInfo(q), c.qeIdentity(q), c.pckCRL(q), c.rootCRL(q)}
}

// lookUp answers what it can from memory.
func (c *Client) lookUp(all []statement) (got []found, missing []int, err error) {
	got = make([]found, len(all))
	at := c.cfg.Clock()
	for i, s := range all {
		f, ok, err := c.held(s, at)
		if err != nil {
			return nil, nil, err
		}
		if got[i] = f; !ok {
			missing = append(missing, i)
		}
	}
	return got, missing, nil
}

func (c *Client) intelAnswer(q question, all []statement, got []found) Answer {
	a := c.answer(all, got)
	a.Subject = q.subject()
	a.Set = collateral.Set{
		TCBInfo: got[0].body, TCBInfoIssuerChain: got[0].chain, QEIdentity: got[1].body, QEIdentityIssuerChain: got[1].chain,
		PCKCRL: got[2].body, PCKCRLIssuerChain: got[2].chain, RootCRL: got[3].body,
	}
	return a
}

// gather gets the missing statements at the same time.
func (c *Client) gather(ctx context.Context, all []statement, got []found, missing []int) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for _, i := range missing {
		wg.Go(func() { got[i], errs[i] = c.get(ctx, all[i]) })
	}
	wg.Wait()
	for _, err := range errs { // the first says enough: they mostly fail for one reason
		if err != nil {
			return err
		}
	}
	return nil
}

// answer sums up what is known about the parts.
func (c *Client) answer(all []statement, got []found) Answer {
	var a Answer
	for i, f := range got {
		if a.Until.IsZero() || f.ends.Before(a.Until) {
			a.Until = f.ends
		}
		if all[i].lasting {
			continue
		}
		if a.Fetched.IsZero() || f.fetched.Before(a.Fetched) {
			a.Fetched = f.fetched
		}
		a.Stale = a.Stale || f.stale
	}
	if a.Stale {
		c.count.stale.Add(1)
	}
	return a
}

func (q question) subject() collateral.Subject {
	return collateral.Subject{Root: q.spki, FMSPC: q.fmspc, CA: q.ca}
}

// key names a statement of one root.
func (q question) key(what string) string {
	return "intel/" + hex.EncodeToString(q.spki[:]) + "/" + what
}

// early is the end of the keys of statements that Intel serves in two versions.
func (c *Client) early() string {
	if c.cfg.Early {
		return "/early"
	}
	return ""
}

func (c *Client) tcbInfo(q question) statement {
	// Intel prints FMSPC in upper case and some caches compare it as text.
	query := "?fmspc=" + strings.ToUpper(hex.EncodeToString(q.fmspc[:]))
	if c.cfg.Early {
		query += "&update=early"
	}
	return statement{
		key: q.key("tcb/"+hex.EncodeToString(q.fmspc[:])) + c.early(), of: c.pcs, paths: under(pathTCB + query),
		headers: []string{"TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"},
		check: func(p *part, at time.Time) (time.Time, collateral.Floor, error) {
			t, err := collateral.ParseTCBInfo(p.body)
			if err != nil {
				return time.Time{}, nil, err
			}
			if t.FMSPC != q.fmspc {
				return time.Time{}, nil, fmt.Errorf("TCB info for FMSPC %X, asked for %X", t.FMSPC, q.fmspc)
			}
			ends, root, err := q.signed(p.chain, t.Signed, t.Window, at)
			if err != nil {
				return time.Time{}, nil, err
			}
			return ends, collateral.MarksOf(root, t, nil), nil
		},
	}
}

func (c *Client) qeIdentity(q question) statement {
	query := ""
	if c.cfg.Early {
		query = "?update=early"
	}
	return statement{
		key: q.key("qe") + c.early(), of: c.pcs, paths: under(pathQE + query), headers: []string{"SGX-Enclave-Identity-Issuer-Chain", "Enclave-Identity-Issuer-Chain"},
		check: func(p *part, at time.Time) (time.Time, collateral.Floor, error) {
			e, err := collateral.ParseQEIdentity(p.body)
			if err != nil {
				return time.Time{}, nil, err
			}
			ends, root, err := q.signed(p.chain, e.Signed, e.Window, at)
			if err != nil {
				return time.Time{}, nil, err
			}
			return ends, collateral.MarksOf(root, nil, e), nil
		},
	}
}

// signed checks that the vendor's TCB signer, under the very root of the question,
// signed a statement which is current.
func (q question) signed(chain []byte, s collateral.Signed, w collateral.Window, at time.Time) (ends time.Time, root *x509.Certificate, err error) {
	certs, err := collateral.ParseChain(chain, 2)
	if err != nil {
		return ends, nil, err
	}
	if err := collateral.VerifyChain(certs, at); err != nil {
		return ends, nil, err
	}
	if collateral.SPKIHash(certs[1]) != q.spki {
		return ends, nil, q.otherRoot(certs[1])
	}
	if cn := certs[0].Subject.CommonName; cn != cnTCBSigning {
		return ends, nil, fmt.Errorf("signed by %q, want %q", cn, cnTCBSigning)
	}
	pub, _ := certs[0].PublicKey.(*ecdsa.PublicKey)
	if err := s.Verify(pub); err != nil {
		return ends, nil, err
	}
	return earliest(w.Until, certs[0].NotAfter, certs[1].NotAfter), certs[1], w.Check(at)
}

func (q question) otherRoot(c *x509.Certificate) error {
	got := collateral.SPKIHash(c)
	return fmt.Errorf("another vendor's statement: its root is %x..., want %x...", got[:8], q.spki[:8])
}

func (c *Client) pckCRL(q question) statement {
	cn := map[string]string{"platform": cnPlatformCA, "processor": cnProcessorCA}[q.ca]
	return statement{
		key: q.key("pckcrl/" + q.ca), of: c.pcs, paths: under(pathPCKCRL + "?ca=" + q.ca + "&encoding=der"),
		headers: []string{"SGX-PCK-CRL-Issuer-Chain", "PCK-CRL-Issuer-Chain"}, decode: decodeCRL,
		check: func(p *part, at time.Time) (time.Time, collateral.Floor, error) {
			certs, err := collateral.ParseChain(p.chain, 2)
			if err != nil {
				return time.Time{}, nil, err
			}
			ca, root := certs[0], certs[1]
			switch {
			case collateral.SPKIHash(root) != q.spki:
				return time.Time{}, nil, q.otherRoot(root)
			case ca.Subject.CommonName != cn:
				return time.Time{}, nil, fmt.Errorf("the list of %q, want that of %q", ca.Subject.CommonName, cn)
			}
			if err := collateral.VerifyChain([]*x509.Certificate{root}, at); err != nil {
				return time.Time{}, nil, err
			}
			return listed(p.body, ca, root, at)
		},
	}
}

// listed checks a revocation list, its issuer under a root that was checked.
func listed(der []byte, issuer, root *x509.Certificate, at time.Time) (time.Time, collateral.Floor, error) {
	l, err := collateral.ParseCRL(der)
	if err != nil {
		return time.Time{}, nil, err
	}
	switch {
	case !bytes.Equal(issuer.RawIssuer, root.RawSubject):
		return time.Time{}, nil, fmt.Errorf("%s is not issued by %s", issuer.Subject.CommonName, root.Subject.CommonName)
	case at.Before(issuer.NotBefore) || at.After(issuer.NotAfter):
		return time.Time{}, nil, fmt.Errorf("%s is valid %s to %s", issuer.Subject.CommonName, issuer.NotBefore, issuer.NotAfter)
	}
	if err := issuer.CheckSignatureFrom(root); err != nil {
		return time.Time{}, nil, err
	}
	if err := l.Verify(issuer, at); err != nil {
		return time.Time{}, nil, err
	}
	return earliest(l.Window().Until, issuer.NotAfter, root.NotAfter), collateral.MarksOf(root, nil, nil, l), nil
}

// rootCRL is judged with the root certificate that the quote (or, without one, the
// TCB info) shows: the list comes without any.
func (c *Client) rootCRL(q question) statement {
	return statement{
		key: q.key("rootcrl"), of: c.pcs, decode: decodeCRL,
		paths: func(base string) []string {
			if base == IntelPCS {
				return []string{intelRootCRL}
			}
			return []string{base + pathRootCRL, base + "/IntelSGXRootCA.der"}
		},
		check: func(p *part, at time.Time) (time.Time, collateral.Floor, error) {
			if err := collateral.VerifyChain([]*x509.Certificate{q.root}, at); err != nil {
				return time.Time{}, nil, err
			}
			return listed(p.body, q.root, q.root, at)
		},
	}
}

func under(path string) func(string) []string {
	return func(base string) []string { return []string{base + path} }
}

func earliest(ts ...time.Time) time.Time {
	out := ts[0]
	for _, t := range ts[1:] {
		if t.Before(out) {
			out = t
		}
	}
	return out
}
