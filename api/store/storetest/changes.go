package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

func (x *suite) prepared(t *testing.T, c store.CVM, n byte, slot, hash string) store.Prepared {
	t.Helper()
	p := store.Prepared{Token: [32]byte{n}, WorkspaceID: c.WorkspaceID, CVMID: c.ID, Slot: slot, ComposeHash: hash, ExpiresAt: x.clock.Now().Add(time.Hour),
		PreparedBody: store.PreparedBody{By: "me", Base: "b", Patch: store.Patch{AppCompose: []byte(`{"a":1}`), ComposeHash: hash}}}
	if err := x.s.Prepare(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return must[store.Prepared](t)(x.s.PreparedByToken(t.Context(), p.Token))
}

func preparedChanges(t *testing.T, x *suite) {
	ctx := t.Context()
	c := must[store.CVM](t)(x.vm(t, must[store.Principal](t)(x.s.Admin(ctx)), 1, "one", "aa"))
	if _, err := x.s.PreparedByToken(ctx, [32]byte{1}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown token: %v", err)
	}
	first := x.prepared(t, c, 1, "update", "h1")
	if first.State != store.Waiting || first.Base != "b" || string(first.Patch.AppCompose) != `{"a":1}` || !first.ExpiresAt.Equal(x.clock.Now().Add(time.Hour)) {
		t.Errorf("prepared %+v", first)
	}
	other := x.prepared(t, c, 2, "replica:1", "h1")
	second := x.prepared(t, c, 3, "update", "h2")
	if p := must[store.Prepared](t)(x.s.PreparedByToken(ctx, first.Token)); p.State != store.Replaced || p.Patch.AppCompose != nil {
		t.Errorf("the older one of the slot: %+v", p)
	}
	if p := must[store.Prepared](t)(x.s.PreparedFor(ctx, c.ID, "update", "h2")); p.ID != second.ID {
		t.Errorf("by compose hash: %+v", p)
	}
	if _, err := x.s.PreparedFor(ctx, c.ID, "update", "h3"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown hash: %v", err)
	}
	if l := must[[]store.Prepared](t)(x.s.WaitingChanges(ctx, c.ID, "update")); len(l) != 1 || l[0].ID != second.ID {
		t.Errorf("waiting: %+v", l)
	}
	spend := func(id int64) error {
		_, err := x.s.Change(ctx, c.ID, x.enqueue, func(ch *store.Change) error {
			ch.Spend = id
			ch.Begin(store.Update, store.OperationBody{})
			return nil
		})
		return err
	}
	jobs := len(x.jobs)
	if err := spend(first.ID); !errors.Is(err, store.ErrSpent) {
		t.Errorf("spending a superseded one: %v", err)
	}
	if got := must[store.CVM](t)(x.s.CVM(ctx, c.ID)); got.Generation != 1 || len(x.jobs) != jobs {
		t.Errorf("a refused commit changed something: generation %d", got.Generation)
	}
	if err := spend(second.ID); err != nil {
		t.Fatal(err)
	}
	if p := must[store.Prepared](t)(x.s.PreparedByToken(ctx, second.Token)); p.State != store.Committed || p.CommittedCVM != c.ID || p.CommittedGeneration != 2 {
		t.Errorf("committed: %+v", p)
	}
	if err := spend(second.ID); !errors.Is(err, store.ErrSpent) {
		t.Errorf("spending twice: %v", err)
	}
	if l := must[[]store.Prepared](t)(x.s.WaitingChanges(ctx, c.ID, "update")); len(l) != 0 {
		t.Errorf("waiting after the commit: %+v", l)
	}
	x.clock.Add(2 * time.Hour)
	if l := must[[]store.Prepared](t)(x.s.WaitingChanges(ctx, c.ID, "replica:1")); len(l) != 0 {
		t.Errorf("waiting after its time: %+v", l)
	}
	if err := spend(other.ID); !errors.Is(err, store.ErrSpent) {
		t.Errorf("spending an expired one: %v", err)
	}
}

func deletions(t *testing.T, x *suite) {
	ctx := t.Context()
	c := must[store.CVM](t)(x.vm(t, must[store.Principal](t)(x.s.Admin(ctx)), 1, "one", "aa"))
	set := func(at time.Time) {
		t.Helper()
		must[store.CVM](t)(x.s.Change(ctx, c.ID, x.enqueue, func(ch *store.Change) error { ch.CVM.DeleteAt = at; return nil }))
	}
	due := func() int { return len(must[[]int64](t)(x.s.DueDeletions(ctx))) }
	set(x.clock.Now().Add(time.Hour))
	if due() != 0 {
		t.Error("due before its time")
	}
	x.clock.Add(time.Hour)
	if due() != 1 {
		t.Error("not due at its time")
	}
	set(x.clock.Now().Add(time.Minute))
	if due() != 0 {
		t.Error("due after it was put off")
	}
	set(time.Time{})
	x.clock.Add(time.Hour)
	if due() != 0 {
		t.Error("due after it was called off")
	}
	set(x.clock.Now())
	must[store.CVM](t)(x.s.Change(ctx, c.ID, x.enqueue, func(ch *store.Change) error { ch.CVM.DeletedAt = ch.At; return nil }))
	if due() != 0 {
		t.Error("a deleted CVM is due")
	}
}

func history(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	c := must[store.CVM](t)(x.vm(t, a, 1, "one", "aa"))
	for _, kind := range []string{store.Stop, store.Start, store.Stop} {
		x.clock.Add(time.Minute)
		must[store.CVM](t)(x.s.Change(ctx, c.ID, x.enqueue, func(ch *store.Change) error {
			ch.Begin(kind, store.OperationBody{By: "me", ByID: 7})
			ch.Emit(cloudapi.Event{Kind: cloudapi.EventStatus, Status: "s"})
			return nil
		}))
	}
	for name, q := range map[string]struct {
		q           store.OpsQuery
		want, total int
		first       int
	}{
		"all":    {store.OpsQuery{Limit: 10}, 4, 4, 4},
		"page":   {store.OpsQuery{Limit: 2}, 2, 4, 4},
		"next":   {store.OpsQuery{Limit: 2, Before: 3}, 2, 4, 2},
		"kinds":  {store.OpsQuery{Limit: 10, Kinds: []string{store.Stop, store.Deploy}}, 3, 3, 4},
		"from":   {store.OpsQuery{Limit: 10, From: x.clock.Now()}, 1, 1, 4},
		"to":     {store.OpsQuery{Limit: 10, To: x.clock.Now().Add(-time.Minute)}, 3, 3, 3},
		"nobody": {store.OpsQuery{Limit: 10, Kinds: []string{"x"}}, 0, 0, 0},
	} {
		ops, total, err := x.s.Operations(ctx, c.ID, q.q)
		if err != nil || len(ops) != q.want || total != q.total || len(ops) > 0 && ops[0].Generation != q.first {
			t.Errorf("%s: %d operations of %d, %v", name, len(ops), total, err)
		}
	}
	ev := must[[]cloudapi.Event](t)(x.s.EventsOf(ctx, c.ID, 3, 10))
	if len(ev) != 2 || ev[0].Generation != 3 || ev[1].Status != "s" || ev[0].Seq >= ev[1].Seq {
		t.Errorf("events of the third: %+v", ev)
	}
	r := must[[]store.Revision](t)(x.s.Revisions(ctx, a.WorkspaceID, "aa"))
	if got, err := x.s.Revision(ctx, a.WorkspaceID, "aa", r[0].ID); err != nil || string(got.AppCompose) != `{}` {
		t.Errorf("revision %+v %v", got, err)
	}
	if _, err := x.s.Revision(ctx, a.WorkspaceID+1, "aa", r[0].ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("somebody else's revision: %v", err)
	}
}

func answers(t *testing.T, x *suite) {
	ctx := t.Context()
	scope, req := [32]byte{1}, [32]byte{2}
	reserve := func() (store.Answer, bool) {
		t.Helper()
		a, fresh, err := x.s.Reserve(ctx, scope, req)
		if err != nil {
			t.Fatal(err)
		}
		return a, fresh
	}
	if _, fresh := reserve(); !fresh {
		t.Fatal("the first is not fresh")
	}
	if a, fresh := reserve(); fresh || a.Status != 0 || a.Request != req {
		t.Errorf("while it is being answered: %+v %v", a, fresh)
	}
	x.clock.Add(3 * time.Minute)
	if _, fresh := reserve(); !fresh {
		t.Error("a dead process's reservation was kept")
	}
	if err := x.s.Answered(ctx, scope, store.Answer{}); err != nil {
		t.Fatal(err)
	}
	if _, fresh := reserve(); !fresh {
		t.Error("a forgotten reservation was kept")
	}
	if err := x.s.Answered(ctx, scope, store.Answer{Status: 202, Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if a, fresh := reserve(); fresh || a.Status != 202 || string(a.Body) != "x" {
		t.Errorf("the answer: %+v %v", a, fresh)
	}
	x.clock.Add(25 * time.Hour)
	if _, fresh := reserve(); !fresh {
		t.Error("an answer of yesterday was kept")
	}
}
