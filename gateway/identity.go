package gateway

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/keys"
)

// identity is what the gateway gets from its own guest agent: it is an app like
// any other, and holds no key of its own making but the TLS key.
type identity struct {
	agent   *guestapi.Dstack
	kms     atomic.Pointer[guestapi.KMSInfo]
	cert    atomic.Pointer[tls.Certificate] // of the tunnel API
	names   []string
	storage keys.Secret
	tunnel  keys.Secret // WireGuard private key
}

// load asks for everything once.
func (id *identity) load(ctx context.Context, endpoint string) error {
	if err := id.refreshKMS(ctx); err != nil {
		return err
	}
	info, err := id.agent.Info(ctx)
	if err != nil {
		return fmt.Errorf("asking the guest agent who this is: %w", err)
	}
	if id.storage, err = id.derive(ctx, "gateway/storage"); err != nil {
		return err
	}
	// All instances of an app derive the same keys, but each gateway is its own
	// WireGuard peer: its instance and its endpoint are part of the path.
	path := "gateway/wireguard/" + hex.EncodeToString(info.InstanceID) + "/" + endpoint
	if id.tunnel, err = id.derive(ctx, path); err != nil {
		return err
	}
	return id.refreshCert(ctx)
}

// derive gets a path's key and separates it from other uses of the same path.
func (id *identity) derive(ctx context.Context, path string) (keys.Secret, error) {
	k, err := id.agent.GetKey(ctx, guestapi.KeyRequest{Path: path})
	if err != nil {
		return keys.Secret{}, fmt.Errorf("asking the guest agent for the key %q: %w", path, err)
	}
	if len(k.Key) != 32 {
		return keys.Secret{}, cvm.Errorf(cvm.Unavailable, "the guest agent's key %q has %d bytes, want 32", path, len(k.Key))
	}
	b, err := hkdf.Key(sha256.New, k.Key, nil, "phala-gateway:v1:"+path, 32)
	if err != nil {
		return keys.Secret{}, err
	}
	return keys.NewSecret(b), nil
}

func (id *identity) refreshKMS(ctx context.Context) error {
	k, err := id.agent.KMS(ctx)
	if err != nil {
		return fmt.Errorf("asking the guest agent about its KMS: %w", err)
	}
	if len(k.TicketKey) != 32 {
		return cvm.Errorf(cvm.Unavailable, "the guest agent does not know the KMS's ticket key yet")
	}
	b, _ := pem.Decode([]byte(k.RootCA))
	if b == nil {
		return cvm.Errorf(cvm.Unavailable, "the guest agent does not know the KMS's root certificate yet")
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil || hex.EncodeToString(c.RawSubjectPublicKeyInfo) != k.RootSPKI {
		return cvm.Errorf(cvm.Precondition, "the guest agent's KMS root certificate and root key differ")
	}
	id.kms.Store(&k)
	return nil
}

// refreshCert gets the tunnel API's certificate: it chains to the KMS root and its
// APP_ID extension is this app, which is what guests check.
func (id *identity) refreshCert(ctx context.Context) error {
	k, err := id.agent.GetTLSKey(ctx, guestapi.TLSKeyRequest{Subject: "phala-gateway", AltNames: id.names, ServerAuth: true})
	if err != nil {
		return fmt.Errorf("asking the guest agent for a certificate: %w", err)
	}
	c, err := tls.X509KeyPair([]byte(strings.Join(k.CertificateChain, "\n")), []byte(k.Key))
	if err != nil {
		// Not wrapped: the error of a private key's parser is nobody's business.
		return cvm.Errorf(cvm.Unavailable, "the guest agent's certificate or key cannot be read")
	}
	id.cert.Store(&c)
	return nil
}

func (id *identity) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := id.cert.Load(); c != nil {
		return c, nil
	}
	return nil, cvm.Errorf(cvm.Unavailable, "no certificate yet")
}

// Refreshing: certificates at two thirds of their life, the KMS facts every minute.
const (
	kmsEvery   = time.Minute
	certEvery  = 12 * time.Hour
	retryAfter = 5 * time.Second
)

func (id *identity) certDue(at time.Time) time.Time {
	c := id.cert.Load()
	if c == nil || c.Leaf == nil {
		return at
	}
	return at.Add(max(retryAfter, min(certEvery, c.Leaf.NotAfter.Sub(at)*2/3)))
}

// refresh keeps the identity fresh until ctx ends. changed is called with each
// answer of the KMS.
func (id *identity) refresh(ctx context.Context, changed func(guestapi.KMSInfo), failed func(error)) error {
	kmsDue, certDue := time.Now().Add(kmsEvery), id.certDue(time.Now())
	for {
		next := kmsDue
		if certDue.Before(next) {
			next = certDue
		}
		if err := run.Pause(ctx, time.Until(next)); err != nil {
			return err
		}
		now := time.Now()
		if !now.Before(kmsDue) {
			kmsDue = now.Add(kmsEvery)
			if err := id.refreshKMS(ctx); err != nil {
				failed(err)
				kmsDue = now.Add(retryAfter)
			} else {
				changed(*id.kms.Load())
			}
		}
		if !now.Before(certDue) {
			if err := id.refreshCert(ctx); err != nil {
				failed(err)
				certDue = now.Add(retryAfter)
			} else {
				certDue = id.certDue(now)
			}
		}
	}
}

// certNames are the names and addresses that guests may use for the tunnel API.
func certNames(domain string, addrs ...string) []string {
	out := []string{"gateway." + domain}
	for _, a := range addrs {
		if host, _, err := net.SplitHostPort(a); err == nil && host != "" && !slices.Contains(out, host) {
			out = append(out, host)
		}
	}
	return out
}
