// Package lease is the guest's side of the KMS: one pinned channel with one client
// key, over which keys are released at boot, the lease is renewed while the app
// runs, and certificates are signed. Make a Session, call Release once in phase
// release, then Keep until the app stops.
package lease

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ratls"
)

// Reasons beside kmsapi's.
const (
	ReasonFalseKMS    = "kms-identity-mismatch" // whoever answered is not the pinned KMS
	ReasonUnreachable = "kms-unreachable"
	ReasonLost        = "lease-lost"
)

// Prove makes evidence over report data at this moment.
type Prove func(ctx context.Context, reportData [64]byte) (attest.Evidence, error)

// Config of a session.
type Config struct {
	// URLs of the KMS members, host-written: the pin decides, not the address.
	URLs []string
	// RootSPKI is the pinned KMS root (DER). Nil authenticates nobody: only where an
	// operator allowed unpinned apps.
	RootSPKI []byte
	Prove    Prove
	Log      *slog.Logger
	Now      func() time.Time
}

// Session is a guest's channel to the KMS. It is safe for concurrent use.
type Session struct {
	cfg  Config
	key  *ecdsa.PrivateKey
	spki []byte
	self tls.Certificate
	http *http.Client

	mu      sync.Mutex
	last    int // index of the URL that answered last
	release kmsapi.Release
	expires time.Time // of the lease, by the local monotonic clock
	certs   []string
	ticket  []byte
}

// New makes the session's key. Nothing is sent yet.
func New(c Config) (*Session, error) {
	if len(c.URLs) == 0 {
		return nil, cvm.Errorf(cvm.Precondition, "the host named no KMS (kms_urls of .sys-config.json is empty)").WithReason(ReasonUnreachable)
	}
	for _, u := range c.URLs {
		if !strings.HasPrefix(u, "https://") {
			return nil, cvm.Errorf(cvm.Invalid, "KMS URL %q: want https://", u).WithReason(ReasonUnreachable)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	self, err := selfSigned(key, c.Now())
	if err != nil {
		return nil, err
	}
	s := &Session{cfg: c, key: key, spki: spki, self: self}
	conf := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: []tls.Certificate{self}} // #nosec G402 -- only without a pin
	if len(c.RootSPKI) > 0 {
		conf = ratls.PinnedClient(c.RootSPKI, ratls.UsageKMSRPC, nil, &self)
	}
	s.http = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig: conf, TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: 30 * time.Second,
		DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	}}
	return s, nil
}

func selfSigned(key *ecdsa.PrivateKey, at time.Time) (tls.Certificate, error) {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "phala-guest"},
		NotBefore: at.Add(-time.Hour), NotAfter: at.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// SPKI is the DER public key that everything of this session is bound to.
func (s *Session) SPKI() []byte { return s.spki }

// Granted is the release; zero before.
func (s *Session) Granted() kmsapi.Release {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.release
}

// Ticket is the newest route ticket; empty when none was asked for.
func (s *Session) Ticket() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ticket
}

// Expires is when the lease ends unless it is renewed.
func (s *Session) Expires() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expires
}

// Certificate is the newest certificate of the session's key under the app's CA,
// with its chain (PEM), leaf first.
func (s *Session) Certificate() ([]string, *tls.Certificate, error) {
	s.mu.Lock()
	chain := s.certs
	s.mu.Unlock()
	c := &tls.Certificate{PrivateKey: s.key}
	for _, p := range chain {
		for b, rest := pem.Decode([]byte(p)); b != nil; b, rest = pem.Decode(rest) {
			c.Certificate = append(c.Certificate, b.Bytes)
		}
	}
	if len(c.Certificate) == 0 {
		return nil, nil, cvm.Errorf(cvm.Precondition, "no certificate was issued yet")
	}
	return chain, c, nil
}

// each tries the members, first the one that answered last. A member that cannot
// answer is passed over; a member that refuses has the last word, since members
// decide together.
func (s *Session) each(ctx context.Context, what string, fn func(c *rpc.Client) error) error {
	s.mu.Lock()
	first := s.last
	s.mu.Unlock()
	var errs []error
	for i := range s.cfg.URLs {
		n := (first + i) % len(s.cfg.URLs)
		err := fn(&rpc.Client{Base: strings.TrimSuffix(s.cfg.URLs[n], "/"), HTTP: s.http})
		if err == nil {
			s.mu.Lock()
			s.last = n
			s.mu.Unlock()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.cfg.Log.Warn("KMS member did not "+what, "url", s.cfg.URLs[n], "err", err, "reason", cvm.ReasonOf(err))
		if !Temporary(err) {
			return err
		}
		errs = append(errs, err)
	}
	return summary(what, errs)
}

// Temporary reports whether the same request may succeed later or elsewhere.
func Temporary(err error) bool {
	switch cvm.CodeOf(err) {
	case cvm.Unavailable, cvm.Exhausted, cvm.Internal:
		return true
	}
	r := cvm.ReasonOf(err)
	return r == kmsapi.ReasonNonceExpired || r == ReasonFalseKMS
}

// summary is one error for all members: the first that came from a genuine KMS,
// else the false identity, else unreachable.
func summary(what string, errs []error) error {
	var pin error
	for _, err := range errs {
		if cvm.ReasonOf(err) != "" && cvm.ReasonOf(err) != ReasonFalseKMS {
			return err
		}
		if fe := falseKMS(err); fe != nil {
			pin = fe
		}
	}
	if pin != nil {
		return pin
	}
	return cvm.Errorf(cvm.Unavailable, "no KMS member could %s: %w", what, errors.Join(errs...)).WithReason(ReasonUnreachable).
		WithFix("check that the KMS runs and that the guest's network reaches it")
}

// falseKMS recognizes a server that failed the pin: a certificate error is the
// only refusal that this side of the handshake makes.
func falseKMS(err error) error {
	if cvm.ReasonOf(err) == ReasonFalseKMS {
		return err // said already
	}
	var alert tls.AlertError
	for e := err; e != nil; e = errors.Unwrap(e) {
		var c *cvm.Error
		var cert *tls.CertificateVerificationError
		switch {
		case errors.As(e, &alert):
			return nil // the other side's refusal
		case errors.As(e, &cert):
		case errors.As(e, &c) && c != err && c.Code != cvm.Unavailable: //nolint:errorlint // identity is meant
		default:
			continue
		}
		return cvm.Errorf(cvm.Denied, "the KMS that answered is not the one that the app-compose pins: %w", err).
			WithReason(ReasonFalseKMS).WithFix("compare key_provider_id in the app-compose with the KMS's root key; the host may have named a false KMS")
	}
	return nil
}

// post is one call; a pin that failed gets its own reason.
func post(ctx context.Context, c *rpc.Client, path string, req, resp any) error {
	err := c.Call(ctx, http.MethodPost, path, req, resp)
	if err == nil {
		return nil
	}
	if fe := falseKMS(err); fe != nil {
		return fe
	}
	return err
}

func (s *Session) nonce(ctx context.Context, c *rpc.Client) ([]byte, error) {
	var n kmsapi.Nonce
	if err := post(ctx, c, kmsapi.PathNonce, struct{}{}, &n); err != nil {
		return nil, err
	}
	if len(n.Nonce) == 0 || len(n.Nonce) > 4096 {
		return nil, cvm.Errorf(cvm.Unavailable, "the KMS gave a nonce of %d bytes", len(n.Nonce))
	}
	return n.Nonce, nil
}
