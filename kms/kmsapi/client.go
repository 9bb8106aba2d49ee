package kmsapi

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/ledger"
	"github.com/confidential-cloud/phala/ratls"
)

// Config of a Client.
type Config struct {
	URLs []string // https base URLs of members; the pin decides, not the address
	// RootSPKI is the pinned KMS root key, hex DER SubjectPublicKeyInfo (the
	// app-compose's key_provider_id).
	RootSPKI string
	// Unpinned authenticates nobody. It is for the first look at a KMS (Meta), whose
	// answer a person compares with a pin; only Meta and Status work with it.
	Unpinned bool
	// Certificate is the TLS client certificate (self-signed will do) that nonces,
	// leases and certificates are bound to. Nil: public calls only.
	Certificate *tls.Certificate
	Timeout     time.Duration // of one attempt at one member; 0: 20 s
}

// Client calls a KMS cluster. It tries the members in turn: one that is down,
// starting or without quorum is passed over, one that refuses has the last word.
// It is safe for concurrent use.
type Client struct {
	urls     []string
	http     *http.Client
	unpinned bool
	next     atomic.Int64
}

// New checks the config. Nothing is sent.
func New(c Config) (*Client, error) {
	if len(c.URLs) == 0 {
		return nil, cvm.Errorf(cvm.Invalid, "KMS client: no URLs").WithFix("name at least one KMS member")
	}
	out := &Client{unpinned: c.Unpinned}
	for _, u := range c.URLs {
		if !strings.HasPrefix(u, "https://") {
			return nil, cvm.Errorf(cvm.Invalid, "KMS client: URL %q: want https://", u)
		}
		out.urls = append(out.urls, strings.TrimRight(u, "/"))
	}
	conf, err := c.tls()
	if err != nil {
		return nil, err
	}
	if c.Timeout == 0 {
		c.Timeout = 20 * time.Second
	}
	out.http = &http.Client{Timeout: c.Timeout, Transport: &http.Transport{
		TLSClientConfig: conf, TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: 30 * time.Second,
		DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	}}
	return out, nil
}

func (c Config) tls() (*tls.Config, error) {
	if c.Unpinned {
		return &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}, nil // #nosec G402 -- nothing is believed, see Config.Unpinned
	}
	spki, err := hex.DecodeString(strings.TrimPrefix(c.RootSPKI, "0x"))
	if err != nil || len(spki) == 0 {
		return nil, cvm.Errorf(cvm.Invalid, "KMS client: the pinned root key is missing or not hex").
			WithFix("use the trust profile's KMS root (key_provider_id)")
	}
	return ratls.PinnedClient(spki, ratls.UsageKMSRPC, nil, c.Certificate), nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// elsewhere reports whether another member may answer what this one could not.
func elsewhere(err error) bool {
	switch cvm.CodeOf(err) {
	case cvm.Unavailable, cvm.Internal, cvm.Exhausted:
		return true
	}
	return false
}

// call tries every member, starting with the one that answered last. Chain
// trouble is reported at once: the members share the chain.
func (c *Client) call(ctx context.Context, method, path string, req, resp any) error {
	return c.each(ctx, func(rc *rpc.Client) error { return rc.Call(ctx, method, path, req, resp) })
}

func (c *Client) each(ctx context.Context, fn func(*rpc.Client) error) error {
	first := c.next.Load()
	var errs []error
	for i := range c.urls {
		n := (int(first) + i) % len(c.urls)
		err := fn(&rpc.Client{Base: c.urls[n], HTTP: c.http})
		if err == nil {
			c.next.Store(int64(n))
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !elsewhere(err) {
			return err
		}
		errs = append(errs, err)
	}
	for _, err := range errs { // a member's own reason says more than a refused connection
		if cvm.ReasonOf(err) != "" {
			return err
		}
	}
	return cvm.Errorf(cvm.Unavailable, "no KMS member answers: %w", errors.Join(errs...)).WithReason("kms-unreachable").
		WithFix("check that the KMS members run and that this machine reaches them")
}

func (c *Client) pinned() error {
	if c.unpinned {
		return cvm.Errorf(cvm.Precondition, "KMS client: this call needs a pinned root")
	}
	return nil
}

// Meta describes the KMS.
func (c *Client) Meta(ctx context.Context) (m Meta, err error) {
	return m, c.call(ctx, http.MethodGet, PathMeta, nil, &m)
}

// Status is the health of whichever member answers.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, http.MethodGet, PathStatus, nil, &s)
}

// StatusOf asks one member (the index of Config.URLs) and no other.
func (c *Client) StatusOf(ctx context.Context, i int) (s Status, err error) {
	rc := &rpc.Client{Base: c.urls[i], HTTP: c.http}
	return s, rc.Call(ctx, http.MethodGet, PathStatus, nil, &s)
}

// EnvKey is an app's environment key. Check it with keys.VerifyEnvKey.
func (c *Client) EnvKey(ctx context.Context, app cvm.AppID) (k EnvKey, err error) {
	if err := c.pinned(); err != nil {
		return k, err
	}
	return k, c.call(ctx, http.MethodGet, PathEnvKey+app.String(), nil, &k)
}

// Nonce asks for a challenge bound to this client's certificate.
func (c *Client) Nonce(ctx context.Context) (n Nonce, err error) {
	if err := c.pinned(); err != nil {
		return n, err
	}
	return n, c.call(ctx, http.MethodPost, PathNonce, struct{}{}, &n)
}

// Release asks for an app's keys. It is not idempotent: a nonce redeems once, so
// after an error without a reason take a new nonce and new evidence.
func (c *Client) Release(ctx context.Context, r ReleaseRequest) (out Release, err error) {
	if err := c.pinned(); err != nil {
		return out, err
	}
	return out, c.call(ctx, http.MethodPost, PathRelease, r, &out)
}

// Renew extends a lease.
func (c *Client) Renew(ctx context.Context, r RenewRequest) (out Renewal, err error) {
	if err := c.pinned(); err != nil {
		return out, err
	}
	return out, c.call(ctx, http.MethodPost, PathRenew, r, &out)
}

// SignCert asks for a certificate under the app's CA.
func (c *Client) SignCert(ctx context.Context, r SignCertRequest) (out SignCertResponse, err error) {
	if err := c.pinned(); err != nil {
		return out, err
	}
	return out, c.call(ctx, http.MethodPost, PathSignCert, r, &out)
}

// Checkpoint reads the newest signed checkpoint. Open it with ledger.Keys.
func (c *Client) Checkpoint(ctx context.Context) ([]byte, error) {
	return c.raw(ctx, PathLedger+"checkpoint")
}

// Leaf reads the exact bytes of one leaf.
func (c *Client) Leaf(ctx context.Context, index int64) ([]byte, error) {
	return c.raw(ctx, fmt.Sprintf("%sleaf/%d", PathLedger, index))
}

// Proof is what the proof routes answer.
type Proof struct {
	Proof [][]byte `json:"proof"` // 32 bytes each
}

// Inclusion reads a proof for ledger.CheckInclusion.
func (c *Client) Inclusion(ctx context.Context, index, size int64) ([][]byte, error) {
	var p Proof
	err := c.call(ctx, http.MethodGet, fmt.Sprintf("%sproof/inclusion?index=%d&size=%d", PathLedger, index, size), nil, &p)
	return p.Proof, err
}

// Consistency reads a proof for ledger.CheckConsistency.
func (c *Client) Consistency(ctx context.Context, from, to int64) ([][]byte, error) {
	var p Proof
	err := c.call(ctx, http.MethodGet, fmt.Sprintf("%sproof/consistency?old=%d&new=%d", PathLedger, from, to), nil, &p)
	return p.Proof, err
}

// Receipt reads a leaf with its proof under the newest checkpoint of members that
// keys names, and verifies it.
func (c *Client) Receipt(ctx context.Context, k ledger.Keys, index int64) (ledger.Receipt, ledger.Leaf, error) {
	var r ledger.Receipt
	note, err := c.Checkpoint(ctx)
	if err != nil {
		return r, ledger.Leaf{}, err
	}
	cp, err := k.Open(note)
	if err != nil {
		return r, ledger.Leaf{}, err
	}
	leaf, err := c.Leaf(ctx, index)
	if err != nil {
		return r, ledger.Leaf{}, err
	}
	proof, err := c.Inclusion(ctx, index, cp.Size)
	if err != nil {
		return r, ledger.Leaf{}, err
	}
	r = ledger.Receipt{Leaf: leaf, Index: index, TreeSize: cp.Size, Proof: proof, Checkpoint: note}
	l, err := r.Verify(k)
	return r, l, err
}

// maxRaw bounds ledger documents, in bytes.
const maxRaw = 1 << 20

func (c *Client) raw(ctx context.Context, path string) (out []byte, err error) {
	err = c.each(ctx, func(rc *rpc.Client) error {
		body, err := rc.Stream(ctx, http.MethodGet, path, nil)
		if err != nil {
			return err
		}
		defer body.Close()
		if out, err = io.ReadAll(io.LimitReader(body, maxRaw)); err != nil {
			return cvm.Errorf(cvm.Unavailable, "GET %s: %w", path, err)
		}
		return nil
	})
	return out, err
}
