package storetest

import (
	"errors"
	"slices"
	"sync"
	counter "sync/atomic"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/attest/claim"
)

// nodeProofs: one proof for each node, the newest; its end is told once, whoever
// looks at the same time; each change makes an event.
func nodeProofs(t *testing.T, x *suite) {
	ctx := t.Context()
	a, b := must[int64](t)(x.s.NodeID(ctx, "http://a")), must[int64](t)(x.s.NodeID(ctx, "http://b"))
	proof := func(node int64, device string, ends time.Duration) store.NodeProof {
		return store.NodeProof{NodeEvidence: cloudapi.NodeEvidence{NodeID: int(node), Fresh: "ab", Attestation: []byte{1, 2}, Checks: []claim.Check{{Name: "quote.signature", Verdict: claim.Passed}},
			NodeProof: cloudapi.NodeProof{Platform: "tdx", DeviceID: device, TCB: claim.TCB{Status: "UpToDate", Advisories: []string{}}, ExpiresAt: x.clock.Now().Add(ends)}}}
	}
	event := func(node int64, kind, text string) cloudapi.NodeEvent {
		return cloudapi.NodeEvent{NodeID: node, Kind: kind, Message: text, By: "admin"}
	}
	if _, err := x.s.NodeProof(ctx, a); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no proof: %v", err)
	}
	if n := must[int64](t)(x.s.LastNodeEvent(ctx)); n != 0 {
		t.Errorf("event %d of nobody", n)
	}
	for i, device := range []string{"01", "02"} {
		if err := x.s.PutNodeProof(ctx, proof(a, device, time.Duration(i+1)*time.Hour), event(a, cloudapi.NodeJoined, device)); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.s.PutNodeProof(ctx, proof(b, "03", 9*time.Hour), event(b, cloudapi.NodeJoined, "03")); err != nil {
		t.Fatal(err)
	}
	got := must[store.NodeProof](t)(x.s.NodeProof(ctx, a))
	if got.DeviceID != "02" || got.Fresh != "ab" || !slices.Equal(got.Attestation, []byte{1, 2}) || len(got.Checks) != 1 || got.Told || got.NodeID != int(a) {
		t.Errorf("%+v", got)
	}
	all := must[[]store.NodeProof](t)(x.s.NodeProofs(ctx))
	if len(all) != 2 || all[0].DeviceID != "02" || all[0].Attestation != nil || all[0].TCB.Status != "UpToDate" || all[1].NodeID != int(b) {
		t.Errorf("%+v", all)
	}

	end := func(node int64) (bool, error) {
		return x.s.EndNodeProof(ctx, x.clock.Now(), event(node, cloudapi.NodeExpired, "over"))
	}
	x.clock.Add(2*time.Hour - time.Millisecond)
	if ended := must[bool](t)(end(a)); ended {
		t.Error("ended before its time")
	}
	x.clock.Add(time.Millisecond)
	var told counter.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if ended, err := end(a); err != nil {
				t.Error(err)
			} else if ended {
				told.Add(1)
			}
		})
	}
	wg.Wait()
	if told.Load() != 1 || must[bool](t)(end(b)) {
		t.Errorf("the end was told %d times", told.Load())
	}
	if p := must[store.NodeProof](t)(x.s.NodeProof(ctx, a)); !p.Told {
		t.Error("not marked as told")
	}
	for range 2 {
		if err := x.s.AddNodeEvent(ctx, event(a, cloudapi.NodeDrained, "fans")); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(x.s.AddNodeEvent(ctx, event(a, cloudapi.NodeUndrained, "")), x.s.AddNodeEvent(ctx, event(a, cloudapi.NodeDrained, "fans"))); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	events := must[[]cloudapi.NodeEvent](t)(x.s.NodeEvents(ctx, a, 0, 100))
	for _, e := range events {
		kinds = append(kinds, e.Kind)
		if e.NodeID != a || e.By != "admin" || e.Time.IsZero() {
			t.Errorf("%+v", e)
		}
	}
	want := []string{cloudapi.NodeJoined, cloudapi.NodeJoined, cloudapi.NodeExpired, cloudapi.NodeDrained, cloudapi.NodeUndrained, cloudapi.NodeDrained}
	if !slices.Equal(kinds, want) {
		t.Errorf("events %v, want %v", kinds, want)
	}
	last := events[len(events)-1].Seq
	if n := must[int64](t)(x.s.LastNodeEvent(ctx)); n != last {
		t.Errorf("newest event %d, want %d", n, last)
	}
	if some := must[[]cloudapi.NodeEvent](t)(x.s.NodeEvents(ctx, a, events[1].Seq, 2)); len(some) != 2 || some[0].Seq != events[2].Seq {
		t.Errorf("a page: %+v", some)
	}

	if err := x.s.DropNodeProof(ctx, event(a, cloudapi.NodeLeft, "dropped")); err != nil {
		t.Fatal(err)
	}
	if err := x.s.DropNodeProof(ctx, event(a, cloudapi.NodeLeft, "again")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("dropped twice: %v", err)
	}
	if all := must[[]cloudapi.NodeEvent](t)(x.s.NodeEvents(ctx, a, last, 100)); len(all) != 1 || all[0].Message != "dropped" {
		t.Errorf("%+v", all)
	}
}
