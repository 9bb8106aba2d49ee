package kms

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/attest/refvalue"
	"github.com/confidential-cloud/phala/internal/config"
)

// ReferenceValues says where the member gets reference values: a signed feed of
// admitted TDX modules, image measurements and ACPI tables
// (docs/spec/reference-values.md). Without it the compiled-in set holds, which
// leaves TDX modules to Intel's rating and lists no image and no tables. With it,
// nothing is released while there is no feed that holds.
type ReferenceValues struct {
	// Sources are URLs or paths of files; the newest feed of all counts. The newest one
	// seen is kept in the member's directory and never gone back from.
	Sources []string `toml:"sources,omitempty"`
	// Keys are the verifier keys (name+hash+base64), one of which must have signed.
	Keys []string `toml:"keys,omitempty"`
	// Refresh is the time between two looks at the sources, 10m by default.
	Refresh config.Duration `toml:"refresh,omitempty"`
}

func (r ReferenceValues) configured() bool { return len(r.Sources) > 0 || len(r.Keys) > 0 }

func (r ReferenceValues) validate() error {
	if r.configured() && (len(r.Sources) == 0 || len(r.Keys) == 0 || r.Refresh < 0) {
		return errors.New("attestation.reference_values: name both sources and keys")
	}
	return nil
}

// values keeps the member's policy filled with the newest reference values.
type values struct {
	base attest.Policy
	feed *fetch.Feed // nil: compiled in

	mu      sync.Mutex
	version uint64
	filled  attest.Policy
}

func newValues(c Config, now func() time.Time, log *slog.Logger) (*values, error) {
	base, err := c.Attestation.policy()
	if err != nil {
		return nil, err
	}
	v := &values{base: base, filled: refvalue.Builtin().Fill(base)}
	if r := c.Attestation.ReferenceValues; r.configured() {
		v.feed, err = fetch.NewFeed(fetch.FeedConfig{Sources: r.Sources, Keys: r.Keys, Dir: filepath.Join(c.Dir, "reference-values"),
			Every: time.Duration(r.Refresh), Clock: now, Log: log})
	}
	return v, err
}

// policy is what holds at this moment. With a feed that expired or never came it is
// an error, code unavailable: nothing is admitted then.
func (v *values) policy() (attest.Policy, error) {
	if v.feed == nil {
		return v.filled, nil
	}
	now, err := v.feed.Values()
	if err != nil {
		return attest.Policy{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.version != now.Version { // filling decodes every image
		v.version, v.filled = now.Version, now.Fill(v.base)
	}
	return v.filled, nil
}

// start looks at the sources once. That none answers is no error while values are
// known from before; policy says when none are.
func (v *values) start(ctx context.Context) {
	if v.feed != nil {
		_ = v.feed.Refresh(ctx) // logged by the feed
	}
}

// run keeps the values fresh until ctx ends.
func (v *values) run(ctx context.Context) error {
	if v.feed == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return v.feed.Run(ctx)
}
