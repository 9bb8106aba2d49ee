package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/billing"
	"github.com/confidential-cloud/phala/api/store"
)

// reservations: room is promised once, whoever asks at the same time, until it is
// redeemed, released or too old.
func reservations(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	c := must[store.CVM](t)(x.vm(t, a, 1, "one", "aa"))
	limit := store.Room{VCPU: 4, MemoryMiB: 4096, DiskGB: 100, GPUs: 4}.Plus(c.Takes())
	reserve := func(id string, r store.Room) error {
		return x.s.HoldRoom(ctx, store.Reservation{ID: id, NodeID: c.NodeID, Room: r, ExpiresAt: x.clock.Now().Add(time.Minute)}, limit)
	}
	var wg sync.WaitGroup
	results := make([]error, 12)
	for i := range results {
		wg.Go(func() {
			results[i] = reserve(fmt.Sprint("r", i), store.Room{VCPU: 1, MemoryMiB: 1024, DiskGB: 25, GPUs: 1})
		})
	}
	wg.Wait()
	won := ""
	n := 0
	for i, err := range results {
		switch {
		case err == nil:
			won, n = fmt.Sprint("r", i), n+1
		case !errors.Is(err, store.ErrNoRoom):
			t.Fatal(err)
		}
	}
	if n != 4 {
		t.Fatalf("%d reservations in the room of 4", n)
	}
	if sum := must[store.Promised](t)(x.s.PromisedRoom(ctx, 0)).Rooms; sum[c.NodeID] != limit {
		t.Errorf("promised %+v", sum)
	}
	for _, node := range []int64{0, c.NodeID} {
		if p := must[store.Promised](t)(x.s.PromisedRoom(ctx, node)); len(p.Held) != 4 || !p.Held[won] || p.Rooms[c.NodeID] != limit {
			t.Errorf("node %d: %+v", node, p)
		}
	}
	if p := must[store.Promised](t)(x.s.PromisedRoom(ctx, c.NodeID+1)); len(p.Held) != 0 || len(p.Rooms) != 0 {
		t.Errorf("another node: %+v", p)
	}
	redeem := func(id string) error {
		_, err := x.s.Change(ctx, c.ID, nil, func(ch *store.Change) error { ch.Reservation = id; return nil })
		return err
	}
	if err := redeem(won); err != nil {
		t.Fatal(err)
	}
	if err := redeem(won); !errors.Is(err, store.ErrReservationGone) {
		t.Errorf("redeemed twice: %v", err)
	}
	for _, more := range []store.Room{{VCPU: 2}, {VCPU: 1, MemoryMiB: 1025}, {VCPU: 1, DiskGB: 26}, {VCPU: 1, GPUs: 2}} {
		if err := reserve("more", more); !errors.Is(err, store.ErrNoRoom) {
			t.Errorf("%+v over the limit: %v", more, err)
		}
	}
	if err := errors.Join(reserve("last", store.Room{VCPU: 1}), x.s.FreeRoom(ctx, "last"), x.s.FreeRoom(ctx, "last"), reserve("last", store.Room{VCPU: 1})); err != nil {
		t.Error(err)
	}
	x.clock.Add(time.Minute)
	if err := redeem("last"); !errors.Is(err, store.ErrReservationGone) {
		t.Errorf("redeemed too late: %v", err)
	}
	if sum := must[store.Promised](t)(x.s.PromisedRoom(ctx, 0)).Rooms; len(sum) != 1 || sum[c.NodeID] != c.Takes() {
		t.Errorf("expired, and promised: %+v", sum)
	}
	if err := reserve("after", store.Room{VCPU: 4, MemoryMiB: 4096, DiskGB: 100}); err != nil {
		t.Errorf("the room of expired ones: %v", err)
	}
	// A CVM's cards count on its node while it is not down, in its workspace until it is gone.
	for status, cards := range map[string]int{"running": 2, "stopped": 0} {
		if _, err := x.s.Change(ctx, c.ID, nil, func(ch *store.Change) error {
			ch.CVM.Status, ch.CVM.GPUs, ch.CVM.GPU = status, 2, "10de:2335"
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if sum := must[store.Promised](t)(x.s.PromisedRoom(ctx, 0)).Rooms; sum[c.NodeID].GPUs != cards {
			t.Errorf("%s: promised %+v", status, sum)
		}
		if h := must[billing.Held](t)(x.s.Held(ctx, a.WorkspaceID)); h.GPUs != 2 {
			t.Errorf("%s: the workspace holds %+v", status, h)
		}
	}
}
