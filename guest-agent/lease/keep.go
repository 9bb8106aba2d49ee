package lease

import (
	"context"
	"regexp"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/run"
)

// Pauses between renewals that failed, and how long the first of a boot may take.
const (
	minPause  = time.Second
	maxPause  = 10 * time.Second
	firstWait = 2 * time.Minute
)

// Keeper renews a lease for as long as the app runs.
type Keeper struct {
	Session   *Session
	WireGuard []byte // public key for the route ticket, or nil
	// Grace is how long past its end a lease may be outlived while no member can
	// answer (the app's measured on_stale policy); 0 stops at the end.
	Grace time.Duration
	// Renewed is called after each renewal, with the new ticket in the session.
	Renewed func(ctx context.Context)
}

// due is how long until half of the lease's life is over. It counts from the grant: the
// rest of the boot lies between the keys and the first renewal.
func (k *Keeper) due() time.Duration {
	s := k.Session
	return max(s.Expires().Add(-s.Granted().Lease.TTL/2).Sub(s.cfg.Now()), 0)
}

// Begin renews a lease that is past its half, and waits for it: the boot between the
// keys and here takes longer on a slow machine than the lease lasts. Call it before
// anything of the app runs: as nothing depends on the lease yet, its end does not bound
// this renewal as it does every later one. A KMS that refuses, or that cannot answer
// for firstWait, ends the boot.
func (k *Keeper) Begin(ctx context.Context) error {
	if k.due() > 0 {
		return nil
	}
	c, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		err := k.Session.Renew(c, k.WireGuard)
		switch {
		case err == nil:
			return nil
		case c.Err() == nil && !Temporary(err):
			return refused(err)
		case run.Pause(c, pause) != nil:
			return lost(err)
		}
	}
}

func refused(err error) error {
	return cvm.Errorf(cvm.CodeOf(err), "the KMS refuses to renew the lease: %w", err).WithReason(reason(err))
}

func lost(err error) error {
	return cvm.Errorf(cvm.Unavailable, "the lease ended and no KMS member renewed it: %w", err).WithReason(reason(err))
}

// Keep renews at half-life until ctx ends (nil) or the lease is lost: the KMS
// refuses, or its time (plus Grace) runs out. The caller then stops the app (T5).
func (k *Keeper) Keep(ctx context.Context) error {
	s := k.Session
	pause := minPause
	next := k.due()
	for {
		if err := run.Pause(ctx, next); err != nil {
			return nil //nolint:nilerr // ctx ended
		}
		err := k.renew(ctx)
		switch {
		case err == nil:
			next, pause = k.due(), minPause
			if k.Renewed != nil {
				k.Renewed(ctx)
			}
			continue
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the same
		case !Temporary(err):
			return refused(err)
		}
		left := s.Expires().Add(k.Grace).Sub(s.cfg.Now())
		if left <= 0 {
			return lost(err)
		}
		next = min(pause, left)
		pause = min(2*pause, maxPause)
	}
}

// renew is bounded by the lease, so that a member that hangs cannot stretch it.
func (k *Keeper) renew(ctx context.Context) error {
	limit := max(k.Session.Expires().Add(k.Grace).Sub(k.Session.cfg.Now()), minPause)
	c, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := k.Session.Renew(c, k.WireGuard)
	if err != nil && c.Err() != nil {
		return cvm.Errorf(cvm.Unavailable, "renewing took too long: %w", err).WithReason(ReasonUnreachable)
	}
	return err
}

func reason(err error) string {
	if r := cvm.ReasonOf(err); r != "" {
		return r
	}
	return ReasonLost
}

var serve = regexp.MustCompile(`^serve\(([^)]+)\)$`)

// Grace reads app-compose's on_stale: "" is none, "serve(<duration>)" goes on for
// that long after the lease ended, while the KMS cannot answer.
func Grace(onStale string) (time.Duration, error) {
	if onStale == "" || onStale == "stop" {
		return 0, nil
	}
	m := serve.FindStringSubmatch(onStale)
	if m == nil {
		return 0, cvm.Errorf(cvm.Invalid, "app-compose: on_stale: %q is not stop or serve(<duration>)", onStale)
	}
	d, err := time.ParseDuration(m[1])
	if err != nil || d < 0 {
		return 0, cvm.Errorf(cvm.Invalid, "app-compose: on_stale: %q is not a duration", m[1])
	}
	return d, nil
}
