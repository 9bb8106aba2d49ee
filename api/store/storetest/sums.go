package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/billing"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

// sums: what is kept beside the CVMs is what reading all of them gives, whatever
// happened to them, at the same time too.
func sums(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	b := must[store.Principal](t)(x.s.AddWorkspace(ctx, "b", "b", "", "user"))
	nodes := must[[]int64](t)(x.s.NodeIDs(ctx, []string{"http://one", "http://two", "http://three"}))
	x.agree(t, a.WorkspaceID, b.WorkspaceID)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(7, uint64(worker))) //nolint:gosec // which way a test goes
			p := []store.Principal{a, b}[worker%2]
			var live []store.CVM
			for step := range 40 {
				if len(live) == 0 || rnd.IntN(4) == 0 {
					c, err := x.s.Create(ctx, store.CVM{
						WorkspaceID: p.WorkspaceID, UserID: p.UserID, UUID: fmt.Sprintf("00000000-0000-4000-8000-%04d%08d", worker, step),
						Name: fmt.Sprintf("w%d-%d", worker, step), AppID: fmt.Sprintf("%d%d", worker%2, rnd.IntN(3)), NodeID: nodes[rnd.IntN(3)], Status: cloudapi.StatusCreating,
						Body: store.Body{VCPU: 1 + rnd.IntN(8), MemoryMiB: 1024 * (1 + rnd.IntN(8)), DiskGB: 20 + rnd.IntN(80)},
					}, nil, func(*store.Change) error { return nil })
					if err != nil {
						t.Error(err)
						return
					}
					live = append(live, c)
					continue
				}
				i := rnd.IntN(len(live))
				fail := rnd.IntN(5) == 0
				_, err := x.s.Change(ctx, live[i].ID, nil, func(c *store.Change) error {
					switch rnd.IntN(5) {
					case 0:
						c.CVM.Status = cloudapi.StatusStopped
					case 1:
						c.CVM.Status = cloudapi.StatusRunning
					case 2:
						c.CVM.VCPU, c.CVM.DiskGB = 1+rnd.IntN(8), c.CVM.DiskGB+rnd.IntN(9)
					case 3:
						c.CVM.NodeID = nodes[rnd.IntN(3)]
					case 4:
						c.CVM.DeletedAt = c.At
					}
					if fail {
						return errUndone
					}
					live[i] = c.CVM
					return nil
				})
				if err != nil && !errors.Is(err, errUndone) {
					t.Error(err)
					return
				}
				if !live[i].Live() {
					live = append(live[:i], live[i+1:]...)
				}
			}
		})
	}
	wg.Wait()
	x.agree(t, a.WorkspaceID, b.WorkspaceID)
}

var errUndone = errors.New("changed its mind")

// agree reads all CVMs and compares.
func (x *suite) agree(t *testing.T, workspaces ...int64) {
	t.Helper()
	ctx := t.Context()
	rooms := map[int64]store.Room{}
	for _, w := range workspaces {
		var want billing.Held
		apps, replicas := map[string]bool{}, map[string]map[int64]int{}
		for _, c := range must[[]store.CVM](t)(x.s.List(ctx, w)) {
			want = want.Add(billing.Size{VCPU: c.VCPU, MemoryMiB: c.MemoryMiB, DiskGB: c.DiskGB, GPUs: c.GPUs}, 1)
			rooms[c.NodeID] = rooms[c.NodeID].Plus(c.Takes())
			apps[c.AppID] = true
			if replicas[c.AppID] == nil {
				replicas[c.AppID] = map[int64]int{}
			}
			replicas[c.AppID][c.NodeID]++
		}
		if got := must[billing.Held](t)(x.s.Held(ctx, w)); got != want {
			t.Errorf("workspace %d holds %+v, its CVMs give %+v", w, got, want)
		}
		if _, n, err := x.s.Page(ctx, store.ListQuery{Workspace: w, Limit: 1}); err != nil || n != want.CVMs {
			t.Errorf("workspace %d: a page of %d CVMs, want %d, %v", w, n, want.CVMs, err)
		}
		if _, n, err := x.s.AppPage(ctx, store.ListQuery{Workspace: w, Limit: 1}); err != nil || n != len(apps) {
			t.Errorf("workspace %d: a page of %d apps, want %d, %v", w, n, len(apps), err)
		}
		for app, want := range replicas {
			if got := must[map[int64]int](t)(x.s.ReplicasOf(ctx, app)); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("replicas of %s: %v, want %v", app, got, want)
			}
		}
	}
	got := must[store.Promised](t)(x.s.PromisedRoom(ctx, 0)).Rooms
	for n, r := range got {
		if r != rooms[n] {
			t.Errorf("node %d: promised %+v, its CVMs take %+v", n, r, rooms[n])
		}
	}
	for n, r := range rooms {
		if got[n] != r {
			t.Errorf("node %d: promised %+v, its CVMs take %+v", n, got[n], r)
		}
	}
}

// accrues: what stands open is what its meters would sum, each of them rounded.
func (x *suite) accrues(t *testing.T, workspace int64) {
	t.Helper()
	ctx := t.Context()
	prices := must[func(time.Time) billing.Prices](t)(x.s.PriceLists(ctx))
	for _, after := range []time.Duration{0, time.Millisecond, 1234567 * time.Millisecond} {
		now := x.clock.Now().Add(after)
		var want, hourly, rounded billing.Micro
		for _, r := range must[[]store.Running](t)(x.s.RunningMeters(ctx, workspace)) {
			m := r.Meter.Copy()
			for _, g := range m.Until(now, prices) {
				want += g.Amount
				rounded++
			}
			for _, rate := range r.Meter.Rates {
				hourly += rate
			}
		}
		amount, rate, err := x.s.Accruing(ctx, workspace, now)
		if err != nil || amount < want || amount > want+rounded || rate != hourly {
			t.Errorf("after %v: accruing %d at %d an hour, %v; the meters give %d to %d at %d", after, amount, rate, err, want, want+rounded, hourly)
		}
	}
}
