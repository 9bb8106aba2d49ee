// Package online gives package verify its network: the gateway over HTTPS, vendor
// collateral, the chain's RPC endpoints and the KMS's ledger, all as a trust
// profile names them.
package online

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/verify"
)

// Options of Open. The zero value will do.
type Options struct {
	Timeout time.Duration // of one request, default 20 s
	Log     *slog.Logger
	// CacheDir keeps vendor collateral, and the numbers of it that must not go back,
	// between runs; "": nothing is kept.
	CacheDir string
	// Bundle, when given, is the only source of collateral: no service is asked.
	Bundle *collateral.Bundle
}

// Collateral makes the client that asks for the vendors' statements about the
// platforms that a profile admits.
func Collateral(p verify.Profile, o Options) (*fetch.Client, error) {
	age, err := p.MaxCollateralAge()
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "trust profile: tee.collateral_max_age: %w", err)
	}
	c := fetch.Config{URLs: p.TEE.CollateralURLs, KDS: p.TEE.KDSURLs, Roots: p.AdmittedRoots(), Dir: o.CacheDir, MaxAge: age, Log: o.Log}
	if o.Bundle != nil {
		return fetch.Offline(c, *o.Bundle)
	}
	return fetch.New(c)
}

// Open makes the sources of a verification. Nothing is asked yet but the
// feed of reference values, where the profile names one. Call close when done.
func Open(ctx context.Context, p verify.Profile, o Options) (s verify.Sources, closeAll func(), err error) {
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	stale, err := p.MaxStaleness()
	if err != nil {
		return s, nil, cvm.Errorf(cvm.Invalid, "trust profile: chain.max_staleness: %w", err)
	}
	edge, err := newEdge(p, o.Timeout)
	if err != nil {
		return s, nil, err
	}
	col, err := Collateral(p, o)
	if err != nil {
		return s, nil, err
	}
	values, err := feed(ctx, p, o)
	if err != nil {
		return s, nil, err
	}
	kms, err := kmsapi.New(kmsapi.Config{URLs: p.KMS.URLs, RootSPKI: p.KMS.RootSPKI, Timeout: o.Timeout})
	if err != nil {
		return s, nil, err
	}
	chain, err := ethereum.New(ctx, ethereum.Config{RPCURLs: p.Chain.RPCURLs, ChainID: p.Chain.ID, KMSContract: p.Chain.KMSContract,
		Final: p.Chain.Final, MaxStaleness: config.Duration(stale), Log: o.Log})
	if err != nil {
		kms.Close()
		return s, nil, err
	}
	return verify.Sources{Edge: edge, Collateral: col, Chain: chain, Ledger: kms, Values: values}, func() { kms.Close(); chain.Close(); col.Close() }, nil
}

// OpenPlatform makes the sources of verify.Platform alone: collateral, and the feed
// of reference values where the profile names one. Call close when done.
func OpenPlatform(ctx context.Context, p verify.Profile, o Options) (s verify.Sources, closeAll func(), err error) {
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	col, err := Collateral(p, o)
	if err != nil {
		return s, nil, err
	}
	values, err := feed(ctx, p, o)
	if err != nil {
		col.Close()
		return s, nil, err
	}
	return verify.Sources{Collateral: col, Values: values}, col.Close, nil
}

// feed asks for the reference values that the profile names, once. What came of it
// is a check of the report. Nil: it names none.
func feed(ctx context.Context, p verify.Profile, o Options) (verify.Values, error) {
	v := p.TEE.ReferenceValues
	if v == nil {
		return nil, nil
	}
	f, err := fetch.NewFeed(fetch.FeedConfig{Sources: v.Sources, Keys: v.Keys, Dir: o.CacheDir, Timeout: o.Timeout, Log: o.Log})
	if err != nil {
		return nil, err
	}
	_ = f.Refresh(ctx) // Values says whether any hold
	return f, nil
}

// edge looks at certificates and fetches evidence through the gateway.
type edge struct {
	p       verify.Profile
	roots   *x509.CertPool
	timeout time.Duration
}

// NewEdge only looks at what the gateway and the apps show.
func NewEdge(p verify.Profile, timeout time.Duration) (verify.Edge, error) {
	return newEdge(p, timeout)
}

func newEdge(p verify.Profile, timeout time.Duration) (*edge, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if p.Gateway.CAPEM != "" && !roots.AppendCertsFromPEM([]byte(p.Gateway.CAPEM)) {
		return nil, cvm.Errorf(cvm.Invalid, "trust profile: gateway.ca_pem holds no certificate")
	}
	return &edge{p: p, roots: roots, timeout: timeout}, nil
}

// tlsConfig records the certificate and judges nothing: no secret is ever sent here,
// and what comes back proves itself. Whether the certificate is valid for the name
// is a check of its own (peer).
func tlsConfig(host string) *tls.Config {
	return &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, InsecureSkipVerify: true} // #nosec G402 -- see above
}

func (e *edge) peer(host string, st *tls.ConnectionState) (verify.Peer, error) {
	if st == nil || len(st.PeerCertificates) == 0 {
		return verify.Peer{}, cvm.Errorf(cvm.Unavailable, "%s shows no certificate", host)
	}
	leaf := st.PeerCertificates[0]
	p := verify.Peer{SPKI: leaf.RawSubjectPublicKeyInfo,
		Subject: "valid until " + leaf.NotAfter.UTC().Format("2006-01-02 15:04Z") + ", issued by " + leaf.Issuer.String()}
	inter := x509.NewCertPool()
	for _, c := range st.PeerCertificates[1:] {
		inter.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: e.roots, Intermediates: inter}); err != nil {
		p.Untrusted = err.Error()
	}
	return p, nil
}

// Connect implements verify.Edge.
func (e *edge) Connect(ctx context.Context, host string, port int) (verify.Peer, error) {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	addr := e.p.Address(host, port)
	conn, err := (&tls.Dialer{Config: tlsConfig(host)}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return verify.Peer{}, cvm.Errorf(cvm.Unavailable, "connecting to %s: %w", addr, err)
	}
	defer conn.Close()
	st := conn.(*tls.Conn).ConnectionState() //nolint:forcetypeassert // a tls.Dialer makes these
	return e.peer(host, &st)
}

// GatewayEvidence implements verify.Edge.
func (e *edge) GatewayEvidence(ctx context.Context, nonce []byte) (ev gatewayapi.Evidence, p verify.Peer, err error) {
	p, err = e.get(ctx, "gateway."+e.p.Gateway.Domain, nonce, &ev)
	return ev, p, err
}

// AppEvidence implements verify.Edge.
func (e *edge) AppEvidence(ctx context.Context, id string, nonce []byte) (ev guestapi.Evidence, p verify.Peer, err error) {
	host := id + "-8090." + e.p.Gateway.Domain
	p, err = e.get(ctx, host, nonce, &ev)
	return ev, p, err
}

// get fetches /evidence?nonce= over a connection of its own and tells whose key it had.
func (e *edge) get(ctx context.Context, host string, nonce []byte, out any) (verify.Peer, error) {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	addr := e.p.Address(host, e.p.Gateway.Port)
	tr := &http.Transport{TLSClientConfig: tlsConfig(host), DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		}}
	u := url.URL{Scheme: "https", Host: host, Path: "/evidence", RawQuery: "nonce=" + hex.EncodeToString(nonce)}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return verify.Peer{}, cvm.Errorf(cvm.Invalid, "evidence of %s: %w", host, err)
	}
	c := &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("evidence is never redirected")
	}}
	res, err := c.Do(req)
	if err != nil {
		return verify.Peer{}, cvm.Errorf(cvm.Unavailable, "evidence of %s: %w", host, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, rpc.MaxBody+1))
	if err != nil || len(body) > rpc.MaxBody {
		return verify.Peer{}, cvm.Errorf(cvm.Unavailable, "evidence of %s: the answer is torn or larger than %d bytes", host, rpc.MaxBody)
	}
	if res.StatusCode != http.StatusOK {
		return verify.Peer{}, answered(host, res.Status, body)
	}
	if err := json.Unmarshal(body, out); err != nil {
		return verify.Peer{}, cvm.Errorf(cvm.Invalid, "evidence of %s: not what was expected: %w", host, err)
	}
	return e.peer(host, res.TLS)
}

// answered keeps the other side's coded error.
func answered(host, status string, body []byte) error {
	var b struct {
		Error *cvm.Error `json:"error"`
	}
	if json.Unmarshal(body, &b) == nil && b.Error != nil && b.Error.Message != "" {
		return cvm.Errorf(b.Error.Code, "evidence of %s: %w", host, b.Error)
	}
	return cvm.Errorf(cvm.Unavailable, "evidence of %s: it answered %s", host, status)
}
