// Package fetch gets vendor collateral from Intel PCS v4, a PCCS, AMD's KDS or
// attest/simtee, and keeps it in memory and on disk. Client.For answers for one
// piece of evidence; Client.Run asks again before statements get old. The verify
// path never touches the network: callers fetch, then verify.
//
// A service is believed in nothing: every statement must be signed under the very
// root that the evidence names, be current, be about what was asked, and not be
// older than what was seen before (collateral.Floor); else the next service is
// asked. That chooses among services; the judgement is attest.Verify's.
package fetch

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/seen"
	"github.com/confidential-cloud/phala/cvm"
)

// The vendors' own services.
const (
	IntelPCS = "https://api.trustedservices.intel.com"
	AMDKDS   = "https://kdsintf.amd.com"
)

// Reasons of errors.
const (
	ReasonUnavailable = "collateral-unavailable" // no service and no cache has it
	ReasonRoot        = "root-not-admitted"      // the evidence's root is none of Config.Roots: nothing is asked
)

// Config of a Client.
type Config struct {
	URLs   []string           // base URLs of PCS or PCCS services, tried in order
	KDS    []string           // base URLs of AMD key distribution services, tried in order
	Bundle *collateral.Bundle // statements to fall back on; without URLs and KDS the client is offline
	Dir    string             // disk cache and floors; "": memory only

	// Roots whose platforms are asked about. Nil: any root, and no floors are kept, since
	// a floor may rest on an admitted root only.
	Roots []attest.Root

	Timeout time.Duration // of one statement from one service, all included; 0: 15 s
	Refresh time.Duration // age at which a statement is asked for again; 0: 1 h
	MaxAge  time.Duration // age at which it is no longer served; 0: only its own end counts
	Early   bool          // ask Intel for update=early: TCB recoveries before their deadline
	Entries int           // statements kept in memory, and on disk; 0: 1024
	Bytes   int64         // kept in memory; 0: 64 MiB

	TLS       *tls.Config       // nil: the system's roots
	Transport http.RoundTripper // nil: one of its own with TLS. Another one bounds headers itself
	Clock     func() time.Time  // nil: time.Now
	Log       *slog.Logger      // nil: discarded
}

// Client fetches collateral. It is safe for concurrent use; concurrent calls share
// the fetch of each statement.
type Client struct {
	cfg   Config
	http  *http.Client
	pcs   *services
	kds   *services
	chips *services         // the same as kds, with bounds of its own: strangers can ask for any chip
	roots map[[32]byte]bool // nil: any

	flight  singleflight.Group
	store   *store
	disk    *disk // nil: none
	floors  *floors
	known   *seen.Cache[known] // by the certificate chain of a quote
	bundled map[string]*part
	wake    chan struct{} // tells Run that there is something new
	count   counters
}

// knownHosts bounds the memory of what quotes ask for: about 4 KiB each.
const knownHosts = 2048

// New checks the config and reads what the disk holds of floors.
func New(cfg Config) (*Client, error) {
	if len(cfg.URLs) == 0 && len(cfg.KDS) == 0 && cfg.Bundle == nil {
		return nil, cvm.Errorf(cvm.Invalid, "collateral: no service URL and no bundle").WithFix("name a PCS or PCCS, for example " + IntelPCS)
	}
	if cfg.Timeout < 0 || cfg.Refresh < 0 || cfg.MaxAge < 0 || cfg.Entries < 0 || cfg.Bytes < 0 {
		return nil, cvm.Errorf(cvm.Invalid, "collateral: a limit is negative")
	}
	defaults(&cfg)
	c := &Client{cfg: cfg, store: newStore(cfg.Entries, cfg.Bytes), wake: make(chan struct{}, 1),
		known: seen.New[known](knownHosts)}
	c.http = httpClient(cfg)
	var err error
	if c.pcs, err = newServices(cfg.URLs); err != nil {
		return nil, err
	}
	if c.kds, err = newServices(cfg.KDS); err != nil {
		return nil, err
	}
	c.chips = &services{all: c.kds.all, slots: make(chan struct{}, maxFetches)}
	if cfg.Roots != nil {
		c.roots = map[[32]byte]bool{}
		for _, r := range cfg.Roots {
			c.roots[r.SPKI] = true
		}
	}
	if cfg.Dir != "" {
		if c.disk, err = openDisk(cfg.Dir, cfg.Entries); err != nil {
			return nil, err
		}
	}
	if c.floors, err = openFloors(cfg.Dir, c.roots); err != nil {
		return nil, err
	}
	c.bundled, err = c.unpack(cfg.Bundle)
	return c, err
}

func defaults(cfg *Config) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 15 * time.Second
	}
	if cfg.Refresh == 0 {
		cfg.Refresh = time.Hour
	}
	if cfg.Entries == 0 {
		cfg.Entries = 1024
	}
	if cfg.Bytes == 0 {
		cfg.Bytes = 64 << 20
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
}

// Answer is a Set and where it comes from.
type Answer struct {
	Set     collateral.Set
	Subject collateral.Subject
	Fetched time.Time // of the oldest statement in it that can change
	Until   time.Time // earliest end among its statements and their issuers
	// Stale: a statement is older than Config.Refresh, and no service gave a newer one.
	Stale bool
}

// For returns the collateral for evidence, which is not verified here. Errors:
// invalid for evidence that cannot be read or whose certificate chain does not hold,
// denied (reason ReasonRoot) for a root that is not admitted, unavailable (reason
// ReasonUnavailable) when neither a service nor a cache has what is still valid.
func (c *Client) For(ctx context.Context, ev attest.Evidence) (collateral.Set, error) {
	a, err := c.Ask(ctx, ev)
	return a.Set, err
}

// Ask is For with what is known about the answer.
func (c *Client) Ask(ctx context.Context, ev attest.Evidence) (Answer, error) {
	switch ev.Variant {
	case "", cvm.VariantTDX:
		return c.askQuote(ctx, ev.Quote)
	case cvm.VariantSNP:
		return c.askAMD(ctx, ev)
	}
	return Answer{}, cvm.Errorf(cvm.Unsupported, "collateral: %q is no kind of TEE whose vendor is known here", ev.Variant)
}

// Forget drops what is cached, on disk too: the next call asks the services. Floors stay.
func (c *Client) Forget() {
	c.store.clear()
	c.disk.clear()
}

// Close ends idle connections. The Client stays usable.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Stats are counters since New, for a metrics page.
type Stats struct {
	Hits     int64 // statements answered from memory
	Disk     int64 // read from disk or the bundle
	Fetched  int64 // got from a service
	Failed   int64 // statements no service gave
	Stale    int64 // answers that were older than Refresh
	Entries  int   // statements in memory
	Bytes    int64 // their size
	Services []ServiceStats
}

type counters struct{ hits, disk, fetched, failed, stale atomic.Int64 }

// Stats tells what the client has done.
func (c *Client) Stats() Stats {
	s := Stats{Hits: c.count.hits.Load(), Disk: c.count.disk.Load(), Fetched: c.count.fetched.Load(), Failed: c.count.failed.Load(), Stale: c.count.stale.Load()}
	s.Entries, s.Bytes = c.store.size()
	s.Services = append(c.pcs.stats(), c.kds.stats()...)
	return s
}
