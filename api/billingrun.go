package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/confidential-cloud/phala/api/billing"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/jobs"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

const (
	meterLook   = time.Second
	meterAtOnce = 100
	// dayRest is how long after midnight a day is closed: the clocks of several API
	// processes differ, and an event of yesterday may still be on its way.
	dayRest = 5 * time.Minute
	// reviewEvery is in looks.
	reviewEvery = 10
	// billed is who asked for what a policy began.
	billed = "billing"
)

// meter turns events into the ledger until ctx ends, and looks after accounts.
func (s *Server) meter(ctx context.Context) error {
	every := meterLook
	if s.cfg.Sync > 0 {
		every = s.cfg.Sync
	}
	look := time.NewTicker(every)
	defer look.Stop()
	for n := 0; ; n++ {
		err := s.meterNow(ctx)
		if err == nil && n%reviewEvery == 0 {
			err = s.review(ctx)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("metering", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

func (s *Server) meterNow(ctx context.Context) error {
	for {
		n, err := s.store.MeterDue(ctx, meterAtOnce)
		if err != nil {
			return err
		}
		if n < meterAtOnce {
			break
		}
	}
	midnight := billing.Midnight(s.now().Add(-dayRest))
	for {
		n, err := s.store.CutDays(ctx, midnight, meterAtOnce)
		if err != nil || n < meterAtOnce {
			return err
		}
	}
}

// review moves each account to the state that its balance gives, and does what the
// state says. Each step can be done again: a process that dies between two leaves
// nothing undone.
func (s *Server) review(ctx context.Context) error {
	accounts, err := s.store.Accounts(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range accounts {
		if s.cfg.Billing.Suspension.Enforce || a.State != billing.Active {
			errs = append(errs, s.reviewOne(ctx, a.WorkspaceID))
		}
	}
	return errors.Join(errs...)
}

func (s *Server) reviewOne(ctx context.Context, workspace int64) error {
	a, accruing, _, err := s.worth(ctx, workspace)
	if err != nil {
		return err
	}
	now := s.now()
	state, since := s.cfg.policy().Next(a.State, a.Since, a.Balance()-accruing, a.PostPaid, now)
	switch {
	case billing.Stops(state):
		err = s.eachCVM(ctx, workspace, ends(state))
	case billing.Stops(a.State): // before the state moves, so that it is done again after a crash
		err = s.resume(ctx, workspace)
	}
	if err != nil || state == a.State {
		return err
	}
	err = s.store.MoveAccount(ctx, a, state, since)
	if errors.Is(err, store.ErrMoved) {
		return nil // another process was first
	}
	if err == nil {
		s.log.Warn("a workspace's account", "workspace", workspace, "was", a.State, "is", state)
	}
	return err
}

// eachCVM changes each live CVM of a workspace.
func (s *Server) eachCVM(ctx context.Context, workspace int64, fn func(*store.Change) error) error {
	all, err := s.store.List(ctx, workspace)
	var errs []error
	for _, c := range all {
		// What rests as it should is left alone.
		if c.Status == cloudapi.StatusStopped || c.Status == cloudapi.StatusDeleting {
			if done, derr := s.rests(ctx, c, fn); done || derr != nil {
				errs = append(errs, derr)
				continue
			}
		}
		if _, err := s.store.Change(ctx, c.ID, s.jobs.Enqueue, fn); err != nil {
			errs = append(errs, fmt.Errorf("cvm %s: %w", c.UUID, err))
		}
	}
	return errors.Join(append(errs, err)...)
}

// rests tries a change on a copy: whether it would begin nothing.
func (s *Server) rests(ctx context.Context, c store.CVM, fn func(*store.Change) error) (bool, error) {
	ops, err := s.store.OpenOps(ctx, c.ID)
	try := store.Change{CVM: c, Ops: ops, At: s.now()}
	if err == nil {
		err = fn(&try)
	}
	return len(try.Begun) == 0, err
}

// ends begins what a state does to a CVM: a stop, or a deletion.
func ends(state string) func(*store.Change) error {
	kind, status, why := store.Stop, cloudapi.StatusStopping, "the workspace's balance is used up: its CVMs stop, their disks stay"
	body := store.OperationBody{By: billed}
	if state == billing.Abandoned {
		kind, status, why = store.Delete, cloudapi.StatusDeleting, "the workspace's balance was used up for too long"
		body.Volumes = "delete"
	}
	return func(ch *store.Change) error {
		idle := kind == store.Stop && len(ch.Ops) == 0 && (ch.CVM.Status == cloudapi.StatusStopped || ch.CVM.Status == cloudapi.StatusFailed)
		if !ch.CVM.Live() || idle {
			return nil
		}
		if n := len(ch.Ops); n > 0 {
			if last := ch.Ops[n-1].Kind; last == store.Delete || kind == store.Stop && jobs.Overtakes(last) {
				return nil
			}
		}
		body.CorrelationID = uuid.NewString()
		ch.Begin(kind, body)
		ch.CVM.Error = nil
		ch.SetStatus(status, why)
		return nil
	}
}

// resume starts what a suspension stopped, and nothing else: the last thing that was
// asked of such a CVM is that stop.
func (s *Server) resume(ctx context.Context, workspace int64) error {
	all, err := s.store.List(ctx, workspace)
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range all {
		o, err := s.store.Operation(ctx, c.ID, c.Generation)
		if errors.Is(err, store.ErrNotFound) || err == nil && (o.By != billed || o.Kind != store.Stop) {
			continue
		}
		if err == nil {
			_, err = s.store.Change(ctx, c.ID, s.jobs.Enqueue, func(ch *store.Change) error {
				if !ch.CVM.Live() || ch.CVM.Generation != o.Generation {
					return nil // somebody asked for something else meanwhile
				}
				ch.Begin(store.Start, store.OperationBody{CorrelationID: uuid.NewString(), By: billed})
				ch.CVM.Error = nil
				ch.SetStatus(cloudapi.StatusStarting, "the workspace has money again")
				return nil
			})
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// solvent refuses what would cost money that is not there: anything that starts in a
// suspended workspace, and anything new without a balance.
func (s *Server) solvent(ctx context.Context, workspace int64, isNew bool) error {
	if !s.cfg.Billing.Suspension.Enforce {
		return nil
	}
	a, accruing, _, err := s.worth(ctx, workspace)
	if err != nil || a.PostPaid {
		return err
	}
	if billing.Stops(a.State) || isNew && a.Balance()-accruing <= 0 {
		return fail(http.StatusPaymentRequired, errBalance, cvm.Precondition, "balance", "the workspace's balance is used up", "add credit, then try again: phala usage shows the balance")
	}
	return nil
}

// limits are what a workspace may have.
func (s *Server) limits(ctx context.Context, workspace int64) (string, billing.Limits, error) {
	a, err := s.store.Account(ctx, workspace)
	name, l := s.cfg.Billing.tier(a.Tier)
	return name, l, err
}

// mayMake refuses something new without a balance, and gives the limits that are
// checked in the transaction which makes it.
func (s *Server) mayMake(ctx context.Context, workspace int64) (*billing.Limits, error) {
	if err := s.solvent(ctx, workspace, true); err != nil {
		return nil, err
	}
	_, l, err := s.limits(ctx, workspace)
	return &l, err
}

// admits tells whether a workspace may have one more CVM of a size. (What is made is
// checked once more, in its transaction.)
func (s *Server) admits(ctx context.Context, workspace int64, z size) error {
	if err := s.solvent(ctx, workspace, true); err != nil {
		return err
	}
	_, l, err := s.limits(ctx, workspace)
	if err != nil || l.None() {
		return err
	}
	h, err := s.store.Held(ctx, workspace)
	if err != nil {
		return err
	}
	one := billing.Size{VCPU: z.vcpu, MemoryMiB: z.memory, DiskGB: z.disk, GPUs: z.gpus}
	if x := l.Check(h.Add(one, 1), one); x != nil {
		return &store.LimitError{Excess: *x}
	}
	return nil
}

// overLimit is the answer for a workspace that would have more than it may.
func overLimit(e *store.LimitError) error {
	code := errLimits
	if e.What == "CVMs" {
		code = errMaxCVMs
	}
	return fail(http.StatusConflict, code, cvm.Exhausted, "workspace-limit", fmt.Sprintf("the workspace's tier allows %d %s, this would make it %d", e.Limit, e.What, e.Have),
		"delete what is not needed (stopped CVMs count too), or ask for another tier")
}

func quota(limit, used int) cloudapi.Quota {
	if limit == billing.Unlimited {
		return cloudapi.Quota{Limit: limit, Remaining: limit}
	}
	return cloudapi.Quota{Limit: limit, Remaining: max(limit-used, 0)}
}

func (s *Server) quotas(ctx context.Context, in *SlugInput) (out cloudapi.Quotas, err error) {
	p := who(ctx)
	if err := in.in(p); err != nil {
		return out, err
	}
	name, l, err := s.limits(ctx, p.WorkspaceID)
	if err != nil {
		return out, err
	}
	h, err := s.store.Held(ctx, p.WorkspaceID)
	return cloudapi.Quotas{TeamSlug: in.Slug, Tier: name, Quotas: cloudapi.QuotaSet{VMSlots: quota(l.CVMs, h.CVMs), VCPU: quota(l.VCPU, h.VCPU),
		MemoryMB: quota(l.MemoryMB, h.MemoryMB), DiskGB: quota(l.DiskGB, h.DiskGB), GPUs: quota(l.GPUs, h.GPUs)}, AsOf: s.now().UTC()}, err
}

// ledgerCheck reads all events of all CVMs that the ledger names, and compares.
func (s *Server) ledgerCheck(ctx context.Context, _ *none) (out cloudapi.LedgerCheck, err error) {
	p := who(ctx)
	all, err := s.store.Lines(ctx, p.WorkspaceID, store.LedgerQuery{})
	if err != nil {
		return out, err
	}
	out.Lines, out.Problems = len(all), []string{}
	byCVM := map[int64][]store.Entry{}
	for _, e := range all {
		if e.CVMID != 0 {
			byCVM[e.CVMID] = append(byCVM[e.CVMID], e)
		}
	}
	for id := range byCVM {
		// Its lines once more, after the events: what is metered meanwhile is in both.
		want, err := s.store.Replay(ctx, id)
		if err != nil {
			return out, err
		}
		have, err := s.store.Lines(ctx, p.WorkspaceID, store.LedgerQuery{CVMID: id})
		if err != nil {
			return out, err
		}
		out.CVMs++
		for _, g := range want {
			i := slices.IndexFunc(have, func(e store.Entry) bool { return e.Kind == g.Kind && e.Seq == g.Seq && e.From.Equal(g.From) })
			if i < 0 || have[i].Amount != -g.Amount || !have[i].To.Equal(g.To) {
				out.Problems = append(out.Problems, fmt.Sprintf("cvm %d: the events give %s from %s to %s for %s, the ledger does not", id, g.Kind, stamp(g.From), stamp(g.To), g.Amount))
				continue
			}
			have = slices.Delete(have, i, i+1)
		}
		for _, e := range have {
			if s.metered(ctx, id, e, want) {
				continue
			}
			out.Problems = append(out.Problems, fmt.Sprintf("line %d: the events do not give it", e.ID))
		}
	}
	out.Agrees = len(out.Problems) == 0
	return out, nil
}

// metered tells whether a line came after the events were read.
func (s *Server) metered(ctx context.Context, id int64, e store.Entry, before []billing.Segment) bool {
	again, err := s.store.Replay(ctx, id)
	return err == nil && len(again) > len(before) && slices.ContainsFunc(again[len(before):], func(g billing.Segment) bool {
		return g.Kind == e.Kind && g.Seq == e.Seq && g.From.Equal(e.From) && g.Amount == -e.Amount
	})
}
