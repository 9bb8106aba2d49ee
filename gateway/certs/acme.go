package certs

import (
	"crypto/x509"
	"net/url"
	"os"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/confidential-cloud/phala/cvm"
)

// ACME says how to get public certificates (RFC 8555). Challenges: DNS-01 when DNS
// is set (needed for the wildcard), else TLS-ALPN-01 on the gateway's own port,
// one certificate per connected name.
type ACME struct {
	// Directory URL of the CA.
	Directory string `toml:"directory"`
	// Email for the account; may be empty.
	Email string `toml:"email"`
	// RootsFile is a PEM file with the CAs of the directory's own HTTPS; the system's when empty.
	RootsFile string `toml:"roots_file"`
	// AgreeTOS must be true: the operator has read the CA's terms.
	AgreeTOS bool `toml:"agree_tos"`
	DNS      DNS  `toml:"dns"`

	// ListenHost and ListenPort are the gateway's TLS listener, set by the gateway.
	ListenHost string `toml:"-"`
	ListenPort int    `toml:"-"`
}

// DNS is an RFC 2136 (dynamic update) server for DNS-01.
type DNS struct {
	// Server is host:port; empty switches DNS-01 off.
	Server string `toml:"server"`
	// KeyName, KeyAlgorithm (default hmac-sha256) and KeyFile (base64) are the TSIG
	// key. Updates are never sent unsigned.
	KeyName      string `toml:"key_name"`
	KeyAlgorithm string `toml:"key_algorithm"`
	KeyFile      string `toml:"key_file"`
	// Resolvers (host:port) that must show the record before the CA is asked.
	Resolvers []string `toml:"resolvers"`
}

// Validate says what is missing.
func (a ACME) Validate() error {
	u, err := url.Parse(a.Directory)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "":
		return cvm.Errorf(cvm.Invalid, "acme.directory %q: want an https URL", a.Directory)
	case !a.AgreeTOS:
		return cvm.Errorf(cvm.Invalid, "acme.agree_tos must be true: read the CA's terms of service first")
	case a.DNS.Server != "" && (a.DNS.KeyName == "" || a.DNS.KeyFile == ""):
		return cvm.Errorf(cvm.Invalid, "acme.dns needs key_name and key_file (TSIG): unsigned updates are not sent")
	}
	return nil
}

func (k *Keeper) useACME(store, exact certmagic.Storage) error {
	a := k.cfg.ACME
	if err := a.Validate(); err != nil {
		return err
	}
	t := certmagic.ACMEIssuer{
		CA: a.Directory, TestCA: a.Directory, Email: a.Email, Agreed: true,
		DisableHTTPChallenge: true, DisableDistributedSolvers: true,
		ListenHost: a.ListenHost, AltTLSALPNPort: a.ListenPort,
		CertObtainTimeout: obtainTimeout, Logger: zap.NewNop(),
	}
	if a.RootsFile != "" {
		pem, err := os.ReadFile(a.RootsFile)
		if err != nil {
			return cvm.Errorf(cvm.Invalid, "acme.roots_file: %w", err)
		}
		t.TrustedRoots = x509.NewCertPool()
		if !t.TrustedRoots.AppendCertsFromPEM(pem) {
			return cvm.Errorf(cvm.Invalid, "acme.roots_file %s holds no certificate", a.RootsFile)
		}
	}
	if a.DNS.Server != "" {
		p, err := newRFC2136(a.DNS)
		if err != nil {
			return err
		}
		w := t
		w.DNS01Solver = &certmagic.DNS01Solver{DNSManager: certmagic.DNSManager{
			DNSProvider: p, TTL: time.Minute, PropagationTimeout: 2 * time.Minute,
			Resolvers: a.DNS.Resolvers, Logger: zap.NewNop(),
		}}
		k.wild, k.wildC = k.magic(store, nil, false, func(c *certmagic.Config) certmagic.Issuer {
			return certmagic.NewACMEIssuer(c, w)
		})
	} else {
		_, k.wildC = k.magic(store, nil, false, func(c *certmagic.Config) certmagic.Issuer { return certmagic.NewACMEIssuer(c, t) })
	}
	k.exact, k.exactC = k.magic(exact, k.onDemand(), false, func(c *certmagic.Config) certmagic.Issuer {
		return certmagic.NewACMEIssuer(c, t)
	})
	return nil
}
