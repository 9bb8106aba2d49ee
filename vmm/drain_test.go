package vmm

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

func TestDrain(t *testing.T) {
	d := dry.New(dry.Config{})
	n := newNode(t, d, nil)
	ctx := t.Context()
	if _, err := n.c.Put(ctx, spec()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.c.Start(ctx, vmID); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []int64{-1, maxStopAfter + 1} {
		if _, err := n.c.Drain(ctx, vmmapi.DrainRequest{StopAfterSeconds: &bad}); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("stop after %d: %v", bad, err)
		}
	}
	s, err := n.c.Drain(ctx, vmmapi.DrainRequest{Reason: "new fans"})
	if err != nil || !s.Draining || !slices.Equal(s.Running, []string{vmID}) || s.Since.IsZero() || !s.StopAt.IsZero() {
		t.Fatalf("%+v %v", s, err)
	}
	other := spec()
	other.ID = strings.Replace(vmID, "0b7d", "1b7d", 1)
	refused := func() {
		t.Helper()
		if _, err := n.c.Put(ctx, other); cvm.ReasonOf(err) != "node-draining" || !strings.Contains(err.Error(), "new fans") {
			t.Fatalf("a drained node takes a new VM: %v", err)
		}
	}
	refused()
	n.stop() // the state outlives the VMM
	n.start()
	refused()
	if node, err := n.c.Node(ctx); err != nil || !node.Draining {
		t.Fatalf("%+v %v", node, err)
	}
	if _, err := n.c.Put(ctx, spec()); err != nil { // what is there is not refused
		t.Fatal(err)
	}
	if _, err := n.c.Restart(ctx, vmID); err != nil { // nor its restart, while it may run
		t.Fatal(err)
	}
	now := int64(0)
	if _, err := n.c.Drain(ctx, vmmapi.DrainRequest{Reason: "new fans", StopAfterSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		s, err := n.c.DrainState(ctx)
		return err == nil && len(s.Running) == 0 && slices.Equal(s.Stopped, []string{vmID})
	})
	if _, err := n.c.Start(ctx, vmID); cvm.ReasonOf(err) != "node-draining" {
		t.Fatalf("what the drain stopped starts again: %v", err)
	}
	if s, err = n.c.Undrain(ctx, vmmapi.UndrainRequest{Start: true}); err != nil || s.Draining || !slices.Equal(s.Running, []string{vmID}) {
		t.Fatalf("%+v %v", s, err)
	}
	if _, err := n.c.Put(ctx, other); err != nil {
		t.Fatal(err)
	}
}

// TestDrainStopsLater: the time to stop is kept over a restart of the VMM.
func TestDrainStopsLater(t *testing.T) {
	n := newNode(t, dry.New(dry.Config{}), nil)
	if _, err := n.c.Put(t.Context(), spec()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.c.Start(t.Context(), vmID); err != nil {
		t.Fatal(err)
	}
	hour := int64(3600)
	s, err := n.c.Drain(t.Context(), vmmapi.DrainRequest{StopAfterSeconds: &hour})
	if err != nil || s.StopAt.Sub(s.Since) != time.Hour {
		t.Fatalf("%+v %v", s, err)
	}
	n.stop()
	path := filepath.Join(n.cfg.Dir, "drain.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	stop, _ := s.StopAt.MarshalText()
	past, _ := s.Since.Add(-time.Second).MarshalText()
	if !strings.Contains(string(b), string(stop)) {
		t.Fatalf("%s is not in %s", stop, b)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(b), string(stop), string(past), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start()
	waitFor(t, func() bool {
		v, err := n.c.Get(t.Context(), vmID)
		return err == nil && v.State == vmmapi.StateStopped
	})
	n.stop()
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(n.cfg); err == nil || !strings.Contains(err.Error(), "drain.json") {
		t.Errorf("a broken drain.json is taken for a node in service: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	n.start()
}

// waitFor polls until ok, at most half a minute.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(30 * time.Second)
	defer end.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatal("it did not happen within 30 s")
		}
	}
}

// TestReadersDoNotDrain: a token that may only read changes neither images nor the node.
func TestReadersDoNotDrain(t *testing.T) {
	n := newNode(t, dry.New(dry.Config{}), nil)
	stranger := vmmapi.NewClient("http://"+n.vmm.Addr(), "not the token", http.DefaultClient)
	if _, err := stranger.Drain(t.Context(), vmmapi.DrainRequest{}); cvm.CodeOf(err) != cvm.Unauthenticated {
		t.Errorf("drain: %v", err)
	}
	if err := stranger.DeleteImage(t.Context(), "x"); cvm.CodeOf(err) != cvm.Unauthenticated {
		t.Errorf("delete: %v", err)
	}
	if _, err := stranger.Pull(t.Context(), vmmapi.PullRequest{Ref: "127.0.0.1:1/a:b"}); cvm.CodeOf(err) != cvm.Unauthenticated {
		t.Errorf("pull: %v", err)
	}
}
