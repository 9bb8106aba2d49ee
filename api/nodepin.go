package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

const reasonKeyChanged = "tls-key-changed"

// pins say whom the API speaks TLS with: a node's VMM must be known to the node's CA
// and, once the node has joined, answer with the key that it proved. Else nothing is
// sent: the token would go to somebody else.
type pins struct {
	mu sync.Mutex
	by map[string]*pin // host:port
}

type pin struct {
	name  string
	roots *x509.CertPool // nil: the system's
	key   string         // hex sha256 of the SubjectPublicKeyInfo; "" is any
}

// vmmAddress is where a VMM's URL leads; "" for one without TLS.
func vmmAddress(raw string) (address, host string) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" {
		return "", ""
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port), u.Hostname()
}

// plainLoopback tells a VMM that is spoken to without TLS on this machine.
func plainLoopback(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && ip.IsLoopback()
}

// add makes the node's address known.
func (p *pins) add(c NodeConfig) error {
	address, host := vmmAddress(c.URL)
	if address == "" {
		return nil
	}
	pin := &pin{name: host}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return err
		}
		if pin.roots = x509.NewCertPool(); !pin.roots.AppendCertsFromPEM(pem) {
			return errors.New(c.CAFile + " holds no certificate")
		}
	}
	p.by[address] = pin
	return nil
}

// set pins the key of an address, "" for any, and tells whether that is new.
func (p *pins) set(address, key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	pin := p.by[address]
	if pin == nil || pin.key == key {
		return false
	}
	pin.key = key
	return true
}

// config is for one connection; any key will do without pinned.
func (p *pins) config(address string, pinned bool) *tls.Config {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	pin := p.by[address]
	if pin == nil {
		host, _, _ := net.SplitHostPort(address)
		c.ServerName = host
		return c
	}
	c.ServerName, c.RootCAs = pin.name, pin.roots
	if key := pin.key; pinned && key != "" {
		c.VerifyConnection = func(st tls.ConnectionState) error {
			if got := spkiHash(st); got != key {
				return cvm.Errorf(cvm.Denied, "the VMM answers with the TLS key %s, and joined with %s", got, key).WithReason(reasonKeyChanged)
			}
			return nil
		}
	}
	return c
}

func spkiHash(st tls.ConnectionState) string {
	h := sha(st.PeerCertificates[0].RawSubjectPublicKeyInfo)
	return hex.EncodeToString(h[:])
}

func (p *pins) connect(ctx context.Context, address string, pinned bool) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := (&tls.Dialer{Config: p.config(address, pinned)}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return c.(*tls.Conn), nil //nolint:forcetypeassert // a tls.Dialer makes these
}

// key is the hash of the key that an address answers with now; nothing is sent.
func (p *pins) key(ctx context.Context, address string) (string, error) {
	c, err := p.connect(ctx, address, false)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }() // nothing was said
	return spkiHash(c.ConnectionState()), nil
}

// transport is shared by all VMMs. No proxy: behind one, the key that answers would
// not be seen.
func (p *pins) transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one
	// The jobs of a busy node share connections; many nodes do not keep many.
	t.Proxy, t.MaxIdleConns, t.MaxIdleConnsPerHost = nil, 256, 32
	t.DialTLSContext = func(ctx context.Context, _, address string) (net.Conn, error) { return p.connect(ctx, address, true) }
	return t
}

// keyChanged tells whether a call failed because another key answered.
func keyChanged(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if e, ok := err.(*cvm.Error); ok && e.Reason == reasonKeyChanged { //nolint:errorlint // one of the chain, not the first
			return true
		}
	}
	return false
}
