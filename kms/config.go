package kms

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/internal/config"
)

// Config of a member. The tagged fields are the TOML file of phala-kms; the others
// are handed in by the process.
type Config struct {
	// ID names this member for ever: lowercase letters, digits and dashes.
	ID string `toml:"id"`
	// Dir holds the member's state: raft log and snapshots (ciphertext only) and the
	// sealed member key.
	Dir string `toml:"dir"`
	// RPC lists the addresses the API listens on (TLS), for example "127.0.0.1:8701".
	RPC []string `toml:"rpc"`
	// URLs lists the https base URLs under which clients reach this member. Their
	// hosts go into its certificate.
	URLs []string `toml:"urls"`
	// Raft is the address members talk on (mutual RA-TLS): listened on, and told to
	// the others unless RaftAdvertise says otherwise.
	Raft          string `toml:"raft"`
	RaftAdvertise string `toml:"raft_advertise,omitempty"`
	// Peers lists raft addresses of members to join through at first start.
	Peers []string `toml:"peers,omitempty"`
	// Bootstrap makes new root keys at first start. Set it on exactly one member of a
	// new cluster; it does nothing once there is state.
	Bootstrap bool `toml:"bootstrap"`
	// Cluster is the cluster's name, which becomes the ledger's origin with a random
	// part. Only the bootstrapping member reads it.
	Cluster string `toml:"cluster"`

	// VMConfig is the vm_config JSON of the member's own TD.
	VMConfig string `toml:"vm_config"`
	// SimTEE is the control socket of the simulated hardware (attest/simtee) in which
	// the member makes its TD. Empty: TEE must be handed in.
	SimTEE string `toml:"simtee,omitempty"`
	// CollateralURLs are PCS-shaped services, tried in order.
	CollateralURLs []string `toml:"collateral_urls"`
	// KDSURLs are AMD's key distribution service or shaped like it, tried in order. They
	// are needed where attestation.snp admits guests: a revocation list that nobody
	// fetched refuses.
	KDSURLs []string `toml:"kds_urls,omitempty"`
	// Fetch says how what they answer is kept.
	Fetch Fetch `toml:"collateral"`

	// Attestation says whose evidence is believed. By default nobody's.
	Attestation Attestation `toml:"attestation"`

	// MaxStaleness is how long ago the chain's head may have been read, in "60s" form.
	MaxStaleness config.Duration `toml:"max_staleness"`
	// LeaseTTL is how long a released or renewed lease lasts.
	LeaseTTL config.Duration `toml:"lease_ttl"`
	// AllowNonceless serves the reference's GetAppKey and SignCert, whose guests send
	// no nonce: their evidence may be old, and they hold no lease. See docs/spec/kms-reference-wire.md.
	AllowNonceless bool `toml:"allow_nonceless"`

	Authority  governance.Authority `toml:"-"`
	TEE        TEE                  `toml:"-"` // nil: a TD made through SimTEE
	Collateral Collateral           `toml:"-"` // nil: fetched from CollateralURLs
	Log        *slog.Logger         `toml:"-"` // nil: discarded
	Clock      func() time.Time     `toml:"-"` // nil: time.Now
}

// Attestation is the member's policy for evidence of guests and of other members.
type Attestation struct {
	// Genuine admits Intel's and AMD's pinned roots.
	Genuine bool `toml:"genuine"`
	// SimulatedRoots lists hex sha256 hashes of the root keys of simulated hardware.
	// Everything that rests on them is reported as SIMULATED.
	SimulatedRoots []string `toml:"simulated_roots"`
	// TCBStatus lists the admitted merged statuses.
	TCBStatus []string `toml:"tcb_status"`
	// DenyAdvisories lists vendor advisories ("INTEL-SA-00615") that refuse a platform
	// although its status is admitted. Reference values may name more.
	DenyAdvisories []string `toml:"deny_advisories,omitempty"`
	// MinEvalNumber is the lowest admitted evaluation data number of TCB info and QE
	// identity; reference values may ask for a higher one. 0: no minimum of one's own
	// (what was seen before is never gone back on, whatever this says).
	MinEvalNumber int `toml:"min_eval_number,omitempty"`
	// MRSeam lists the admitted TDX modules by MRSEAM (96 hex digits). Absent: those
	// of the reference values; the compiled-in ones list none and leave modules to the
	// vendor's rating, which reports show as "any". An empty list is an error.
	MRSeam []cvm.Measurement `toml:"mr_seam,omitempty"`
	// Variants lists the admitted measurement variants: "lite", "container", and "" for
	// legacy, whose images reference_values must list.
	Variants []string `toml:"variants"`
	// AnyACPI admits variant lite and legacy without judging the ACPI tables that the
	// host gave the firmware; reports say so. Otherwise reference values list them.
	AnyACPI bool `toml:"any_acpi,omitempty"`
	// SNP says what of SEV-SNP guests is admitted; absent: none, whatever the roots say.
	// SEV-SNP proves no phase of the boot, so that keys are released once per launch
	// (docs/design/006-sev-snp.md). Members of the KMS are never admitted by it.
	SNP *attest.SNPPolicy `toml:"snp,omitempty"`
	// ReferenceValues names a signed feed of reference values; optional.
	ReferenceValues ReferenceValues `toml:"reference_values,omitempty"`
}

// TEE is what a member needs of its TD. simtee.Device and simtee.TD are ones.
type TEE interface {
	Quote(ctx context.Context, reportData [64]byte) ([]byte, error)
	Extend(ctx context.Context, index int, digest cvm.Measurement) error
	CCEL(ctx context.Context) ([]byte, error)
	Sealer
}

// Sealer gives a key that only this measured code on this machine can have:
// what the member's own keys are encrypted with on disk.
type Sealer interface {
	SealKey(ctx context.Context, context []byte) ([]byte, error)
}

// Collateral gets vendor collateral for evidence. fetch.Client is one.
type Collateral interface {
	For(ctx context.Context, ev attest.Evidence) (collateral.Set, error)
}

// Default is the config before the file: it admits nothing.
func Default() Config {
	return Config{
		Cluster: "phala-kms", MaxStaleness: config.Duration(time.Minute), LeaseTTL: config.Duration(30 * time.Second),
		Fetch:       defaultFetch(),
		Attestation: Attestation{TCBStatus: []string{"UpToDate"}},
	}
}

var memberID = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// Validate returns all problems of the file's part.
func (c *Config) Validate() error {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(memberID.MatchString(c.ID), "id: %q: want 1 to 63 of a-z, 0-9 and -", c.ID)
	bad(c.Dir != "", "dir: missing")
	bad(len(c.RPC) > 0, "rpc: no listen address")
	bad(len(c.URLs) > 0, "urls: no URL for clients")
	for _, u := range c.URLs {
		p, err := url.Parse(u)
		bad(err == nil && p.Scheme == "https" && p.Host != "", "urls: %q: want https://host:port", u)
	}
	bad(c.Raft != "", "raft: no listen address")
	bad(c.Bootstrap || len(c.Peers) > 0, "peers: name members to join through, or set bootstrap on the first one")
	bad(memberID.MatchString(c.Cluster), "cluster: %q: want 1 to 63 of a-z, 0-9 and -", c.Cluster)
	bad(c.VMConfig != "", "vm_config: missing")
	bad(c.MaxStaleness > 0, "max_staleness: must be positive")
	bad(c.LeaseTTL >= config.Duration(time.Second), "lease_ttl: must be at least 1s")
	if err := c.Fetch.validate(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.Attestation.policy(); err != nil {
		errs = append(errs, err)
	}
	if err := c.Attestation.ReferenceValues.validate(); err != nil {
		errs = append(errs, err)
	}
	if s := c.Attestation.SNP; s != nil && s.Admit {
		bad(len(s.Products) > 0, "attestation.snp: admit without products: name Milan, Genoa or Turin")
		bad(len(c.KDSURLs) > 0 || c.Collateral != nil || c.Fetch.Bundle != "", "attestation.snp: admit without kds_urls: nobody would know AMD's revocation list")
	}
	return errors.Join(errs...)
}

// policy turns the section into an attest.Policy without binding and phases. What
// it leaves open of TDX modules is for the reference values.
func (a Attestation) policy() (attest.Policy, error) {
	p := attest.Policy{TCBStatus: a.TCBStatus, DenyAdvisories: a.DenyAdvisories, MinEvalNumber: a.MinEvalNumber, TD: attest.StrictTD(), Image: measure.Policy{Variants: a.Variants, AnyACPI: a.AnyACPI}}
	p.TD.AnyMRSeam, p.TD.MRSeam = false, a.MRSeam
	if a.SNP != nil {
		p.SNP = *a.SNP
	}
	if a.Genuine {
		p.Roots = append(attest.IntelRoots(), attest.AMDRoots()...)
	}
	for _, s := range a.SimulatedRoots {
		b, err := hex.DecodeString(s)
		if err != nil || len(b) != 32 {
			return p, fmt.Errorf("attestation.simulated_roots: %q: want 64 hex digits", s)
		}
		p.Roots = append(p.Roots, attest.Root{SPKI: [32]byte(b), Platform: cvm.PlatformSimulated})
	}
	if len(p.Roots) == 0 {
		return p, errors.New("attestation: no root is admitted: set genuine, or name simulated_roots")
	}
	if len(p.TCBStatus) == 0 || len(p.Image.Variants) == 0 {
		return p, errors.New("attestation: tcb_status and variants must each admit something")
	}
	if err := p.Validate(); err != nil {
		return p, fmt.Errorf("attestation: %w", err)
	}
	return p, nil
}
