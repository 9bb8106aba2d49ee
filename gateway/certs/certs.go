// Package certs keeps the gateway's certificates. Keys are made here, inside the
// enclave, and lie in the store encrypted with the gateway app's key from the KMS.
//
// One key serves every name, so that one quote binds them all (SPKI). Names whose
// streams may be HTTP/2 get certificates of their own (Exact): browsers reuse an
// HTTP/2 connection for any other name its certificate covers, and under the
// wildcard that would send one app's requests to another.
//
// It is the home of certmagic.
package certs

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

// Issuers.
const (
	IssuerFileCA = "file-ca" // a local CA in two PEM files
	IssuerACME   = "acme"
)

// Config of the certificate keeper.
type Config struct {
	Domain string // base domain, lower case
	Dir    string // of the encrypted store
	// StorageKey encrypts the store: the app's key from the KMS, at least 32 bytes.
	StorageKey keys.Secret
	Issuer     string // IssuerFileCA or IssuerACME
	CACert     string // file-ca: PEM file
	CAKey      string // file-ca: PEM file
	ACME       ACME
	// Allow says whether a name deserves a certificate of its own: an app that is
	// connected. Required.
	Allow func(ctx context.Context, name string) error
	Log   *slog.Logger
}

// Keeper has the certificates and renews them.
type Keeper struct {
	cfg           Config
	key           *ecdsa.PrivateKey
	spki          []byte
	wild          *certmagic.Config // nil when the issuer cannot make wildcards
	exact         *certmagic.Config
	wildC, exactC *certmagic.Cache
	once          sync.Once
}

const servingKeyName = "gateway/serving-key"

// New opens the store. With a local CA the certificates are there when it
// returns; with ACME, Run gets them.
func New(ctx context.Context, c Config) (*Keeper, error) {
	if c.Allow == nil || c.Domain == "" || c.Dir == "" {
		return nil, cvm.Errorf(cvm.Invalid, "certificates: domain, dir and the list of allowed names are needed")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	store, err := newSealed(filepath.Join(c.Dir, "store"), c.StorageKey)
	if err != nil {
		return nil, err
	}
	// certmagic takes a wildcard from the store where it finds no exact certificate:
	// names that must not have the wildcard get a store without one.
	exact, err := newSealed(filepath.Join(c.Dir, "exact"), c.StorageKey)
	if err != nil {
		return nil, err
	}
	k := &Keeper{cfg: c}
	if err := k.loadKey(ctx, store); err != nil {
		return nil, err
	}
	switch c.Issuer {
	case IssuerFileCA:
		err = k.useFileCA(store, exact)
	case IssuerACME:
		err = k.useACME(store, exact)
	default:
		err = cvm.Errorf(cvm.Invalid, "certificate issuer %q is not one of %s, %s", c.Issuer, IssuerFileCA, IssuerACME)
	}
	if err != nil {
		return nil, err
	}
	if c.Issuer == IssuerFileCA {
		if err := k.wild.ManageSync(ctx, k.wildNames()); err != nil {
			k.Close()
			return nil, fmt.Errorf("certificates for %s: %w", c.Domain, err)
		}
	}
	return k, nil
}

func (k *Keeper) wildNames() []string { return []string{"*." + k.cfg.Domain, k.cfg.Domain} }

// Run gets what is missing and renews until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.Close()
	if k.cfg.Issuer == IssuerACME {
		var err error
		if k.wild != nil {
			err = k.wild.ManageAsync(ctx, k.wildNames())
		} else {
			err = k.exact.ManageAsync(ctx, []string{"gateway." + k.cfg.Domain})
		}
		if err != nil {
			return fmt.Errorf("certificates for %s: %w", k.cfg.Domain, err)
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// Close stops the renewals, as the end of Run does.
func (k *Keeper) Close() {
	k.once.Do(func() {
		k.exactC.Stop()
		k.wildC.Stop()
	})
}

// SPKI is the DER SubjectPublicKeyInfo of the key that serves every name.
func (k *Keeper) SPKI() []byte { return k.spki }

// Certificate serves HTTP/1.1, raw TCP and the gateway's own pages: the wildcard
// where there is one. It is a tls.Config.GetCertificate.
func (k *Keeper) Certificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if k.wild != nil {
		return k.wild.GetCertificate(h)
	}
	return k.exact.GetCertificate(h)
}

// Exact serves names that may be HTTP/2, and answers ACME's TLS-ALPN-01 challenges.
// It is a tls.Config.GetCertificate and may take as long as the issuer does.
func (k *Keeper) Exact(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return k.exact.GetCertificate(h)
}

func (k *Keeper) useFileCA(store, exact certmagic.Storage) error {
	i, err := loadCA(k.cfg.CACert, k.cfg.CAKey)
	if err != nil {
		return err
	}
	if err := i.covers([]string{k.cfg.Domain}); err != nil {
		return err
	}
	k.wild, k.wildC = k.magic(store, nil, true, func(*certmagic.Config) certmagic.Issuer { return i })
	k.exact, k.exactC = k.magic(exact, k.onDemand(), true, func(*certmagic.Config) certmagic.Issuer { return i })
	return nil
}

func (k *Keeper) onDemand() *certmagic.OnDemandConfig {
	return &certmagic.OnDemandConfig{DecisionFunc: k.cfg.Allow}
}

// magic makes a config with a cache of its own: certmagic's package-level defaults
// are shared state.
func (k *Keeper) magic(store certmagic.Storage, od *certmagic.OnDemandConfig, noOCSP bool, issuer func(*certmagic.Config) certmagic.Issuer) (*certmagic.Config, *certmagic.Cache) {
	var cfg *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return cfg, nil },
		Capacity:         10000,
		Logger:           zap.NewNop(),
	})
	cfg = certmagic.New(cache, certmagic.Config{
		Storage: store, OnDemand: od, KeySource: k,
		OCSP:    certmagic.OCSPConfig{DisableStapling: noOCSP},
		OnEvent: k.event, Logger: zap.NewNop(),
	})
	cfg.Issuers = []certmagic.Issuer{issuer(cfg)}
	return cfg, cache
}

// event logs what certmagic does; its own logger is off, because it logs requests.
func (k *Keeper) event(_ context.Context, name string, data map[string]any) error {
	switch name {
	case "cert_obtained":
		k.cfg.Log.Info("certificate obtained", "name", data["identifier"], "renewal", data["renewal"])
	case "cert_failed":
		k.cfg.Log.Warn("certificate failed", "name", data["identifier"], "err", data["error"])
	}
	return nil
}

// GenerateKey gives certmagic the one serving key (certmagic.KeyGenerator).
func (k *Keeper) GenerateKey() (crypto.PrivateKey, error) { return k.key, nil }

func (k *Keeper) loadKey(ctx context.Context, store certmagic.Storage) error {
	der, err := store.Load(ctx, servingKeyName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if k.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return err
		}
		if der, err = x509.MarshalPKCS8PrivateKey(k.key); err != nil {
			return err
		}
		if err := store.Store(ctx, servingKeyName, der); err != nil {
			return fmt.Errorf("keeping the serving key: %w", err)
		}
	case err != nil:
		return fmt.Errorf("opening the serving key: %w", err)
	default:
		p, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return cvm.Errorf(cvm.Precondition, "certificate store: the serving key is damaged")
		}
		var ok bool
		if k.key, ok = p.(*ecdsa.PrivateKey); !ok {
			return cvm.Errorf(cvm.Precondition, "certificate store: the serving key is not ECDSA")
		}
	}
	k.spki, err = x509.MarshalPKIXPublicKey(k.key.Public())
	return err
}

// obtainTimeout bounds one certificate with all its retries' waits inside.
const obtainTimeout = 3 * time.Minute
