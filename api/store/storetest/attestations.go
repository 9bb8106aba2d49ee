package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/store"
)

func attestations(t *testing.T, x *suite) {
	ctx := t.Context()
	put := func(sum string, verified bool) store.Attestation {
		t.Helper()
		return must[store.Attestation](t)(x.s.PutAttestation(ctx, store.Attestation{Checksum: sum, Verified: verified, TCBStatus: "UpToDate", Summary: "s", PPID: "aa", DeviceID: "d", Quote: []byte(sum), Collateral: []byte("{}")}))
	}
	first := put("one", false)
	if p := must[map[string]string](t)(x.s.PPIDs(ctx)); len(p) != 0 {
		t.Errorf("the PPID of a quote that was not verified: %q", p)
	}
	x.clock.Add(time.Minute)
	again := put("one", true)
	if !again.CreatedAt.Equal(first.CreatedAt) || again.VerifiedAt.Sub(first.VerifiedAt) != time.Minute {
		t.Errorf("seen again: %+v after %+v", again, first)
	}
	if a := must[store.Attestation](t)(x.s.Attestation(ctx, "one")); !a.Verified || string(a.Quote) != "one" || string(a.Collateral) != "{}" || a.TCBStatus != "UpToDate" {
		t.Errorf("stored %+v", a)
	}
	if p := must[map[string]string](t)(x.s.PPIDs(ctx)); len(p) != 1 || p["d"] != "aa" {
		t.Errorf("PPID %q", p)
	}
	if _, err := x.s.Attestation(ctx, "none"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	for i := range 3 {
		put(fmt.Sprint(i), true)
	}
	l := must[[]store.Attestation](t)(x.s.RecentAttestations(ctx, 1, 2))
	if len(l) != 2 || l[0].Checksum != "1" || l[1].Checksum != "0" || l[0].Quote != nil {
		t.Errorf("recent %+v", l)
	}
}

func appCVMs(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	c := must[store.CVM](t)(x.vm(t, a, 1, "one", "aa"))
	must[store.CVM](t)(x.vm(t, a, 2, "other", "bb"))
	if l := must[[]store.CVM](t)(x.s.AppCVMs(ctx, "aa")); len(l) != 1 || l[0].ID != c.ID {
		t.Errorf("of an app: %+v", l)
	}
	must[store.CVM](t)(x.s.Change(ctx, c.ID, x.enqueue, func(ch *store.Change) error {
		ch.CVM.DeletedAt = ch.At
		return nil
	}))
	if l := must[[]store.CVM](t)(x.s.AppCVMs(ctx, "aa")); len(l) != 0 {
		t.Errorf("after its deletion: %+v", l)
	}
}
