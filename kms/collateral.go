package kms

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/config"
)

// Fetch says how vendor collateral is got and kept.
type Fetch struct {
	// Cache is the directory of the disk cache and of the floors (numbers of statements
	// that must never go back), so that a member starts and works while its services do
	// not answer. Empty: "collateral" in the member's directory; "none": memory only.
	// What it holds is public, and judged like an answer of a service when it is read.
	Cache string `toml:"cache,omitempty"`
	// Refresh is the age at which a statement is asked for again.
	Refresh config.Duration `toml:"refresh"`
	// MaxAge is the age at which a statement is no longer used, though its vendor would
	// allow it (Intel: 30 days). It bounds how long whoever cuts this member off can hide a
	// revocation from it, and how long a member outlives its services. 0: only the vendor's end counts.
	MaxAge config.Duration `toml:"max_age"`
	// Timeout is how long one service may take for one statement.
	Timeout config.Duration `toml:"timeout"`
	// Early asks Intel for TCB recoveries as soon as they are known, before their deadline.
	Early bool `toml:"early"`
	// Bundle is a file (phala collateral export) to fall back on.
	Bundle string `toml:"bundle,omitempty"`
	// CAFile is a PEM file of the only roots that TLS to the services is checked against.
	// Empty: the system's. The statements prove themselves: this only keeps out noise.
	CAFile string `toml:"ca_file,omitempty"`
}

func defaultFetch() Fetch {
	return Fetch{Refresh: config.Duration(time.Hour), MaxAge: config.Duration(7 * 24 * time.Hour), Timeout: config.Duration(15 * time.Second)}
}

func (f Fetch) validate() error {
	if f.Refresh <= 0 || f.Timeout <= 0 || f.MaxAge < 0 || f.MaxAge > 0 && f.MaxAge < f.Refresh {
		return errors.New("collateral: refresh and timeout must be positive, max_age at least refresh (or 0)")
	}
	return nil
}

// newCollateral makes the member's client of the collateral services.
func newCollateral(c Config, roots []attest.Root, now func() time.Time, log *slog.Logger) (*fetch.Client, error) {
	f := c.Fetch
	out := fetch.Config{
		URLs: c.CollateralURLs, KDS: c.KDSURLs, Roots: roots, Timeout: time.Duration(f.Timeout), Refresh: time.Duration(f.Refresh), MaxAge: time.Duration(f.MaxAge),
		Early: f.Early, Clock: now, Log: log,
	}
	switch f.Cache {
	case "":
		out.Dir = filepath.Join(c.Dir, "collateral")
	case "none":
	default:
		out.Dir = f.Cache
	}
	if f.Bundle != "" {
		raw, err := os.ReadFile(f.Bundle)
		if err != nil {
			return nil, fmt.Errorf("collateral.bundle: %w", err)
		}
		b, err := collateral.ParseBundle(raw)
		if err != nil {
			return nil, fmt.Errorf("collateral.bundle: %w", err)
		}
		out.Bundle = &b
	}
	if f.CAFile != "" {
		raw, err := os.ReadFile(f.CAFile)
		if err != nil {
			return nil, fmt.Errorf("collateral.ca_file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(raw) {
			return nil, cvm.Errorf(cvm.Invalid, "collateral.ca_file: %s holds no certificate", f.CAFile)
		}
		out.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return fetch.New(out)
}

// floor is what the collateral must not go back below.
func (m *Member) floor() collateral.Floor {
	if m.fetcher == nil {
		return nil
	}
	return m.fetcher.Floor()
}
