package vmm

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// app makes an app-compose of its own hash; what the scripted guest does follows
// from the word.
func app(word string) *vmmapi.App {
	return &vmmapi.App{AppCompose: []byte(strings.Replace(composeDoc, `"services: {}"`, `"services: {} # `+word+`"`, 1))}
}

// versions is a dry driver whose guests behave as the word in their app says.
type versions struct {
	*dry.Driver
	mu       sync.Mutex
	prepared []string
	seen     []string      // launches: word and disk
	hold     chan struct{} // "slow" prepares wait for it
}

func newVersions() *versions {
	x := &versions{hold: make(chan struct{})}
	x.Driver = dry.New(dry.Config{Script: x.script, Guest: x.guest})
	return x
}

func word(b []byte) string {
	_, rest, ok := strings.Cut(string(b), "{} # ")
	if !ok {
		return "old"
	}
	return rest[:strings.IndexByte(rest, '"')]
}

func (x *versions) script(m machine.Machine) []guestapi.Notify {
	w := word(readShared(m))
	x.mu.Lock()
	x.seen = append(x.seen, fmt.Sprintf("%s/%d", w, m.Size.DiskMiB))
	x.mu.Unlock()
	switch {
	case strings.HasPrefix(w, "denied"):
		b, _ := json.Marshal(vmmapi.VMError{Reason: kmsapi.ReasonGovernance, Message: "not allowed", Stage: "keys"})
		return []guestapi.Notify{{Event: "boot.progress", Payload: "4/10 keys"}, {Event: "boot.error", Payload: string(b)}}
	case strings.HasPrefix(w, "hangs"):
		return []guestapi.Notify{{Event: "boot.progress", Payload: "10/10 containers"}}
	}
	return dry.DefaultScript(m)
}

func (x *versions) guest(m machine.Machine) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/prepare", func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			AppCompose string `json:"app_compose"`
		}
		_ = json.NewDecoder(r.Body).Decode(&q)
		name := word([]byte(q.AppCompose))
		x.mu.Lock()
		x.prepared = append(x.prepared, name)
		x.mu.Unlock()
		switch {
		case strings.HasPrefix(name, "ancient"):
			http.NotFound(w, r)
			return
		case strings.HasPrefix(name, "missing"):
			_, _ = io.WriteString(w, `{"state":"pulling","image":"web"}`+"\n"+`{"state":"failed","reason":"image-pull","error":"no such image"}`+"\n")
			return
		case strings.HasPrefix(name, "broken"):
			_, _ = io.WriteString(w, `{"state":"pulling","image":"web"}`+"\n")
			return
		case strings.HasPrefix(name, "slow"):
			_, _ = io.WriteString(w, `{"state":"pulling","image":"web","done":10000000,"total":100000000}`+"\n")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-x.hold:
			case <-r.Context().Done():
				return
			}
		}
		_, _ = io.WriteString(w, `{"state":"ready"}`+"\n")
	})
	mux.HandleFunc("GET /v1/boot", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, fmt.Sprintf(`{"progress":"10/10 containers","ready":%t}`, word(readShared(m)) != "hangs" && word(readShared(m)) != "denied"))
	})
	mux.HandleFunc("POST /v1/shutdown", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "{}")
		x.Crash(m.ID, machine.Exit{})
	})
	return mux
}

func (n *node) serving(app string) {
	n.t.Helper()
	n.must(n.c.Put(n.t.Context(), spec()))
	n.must(n.c.Start(n.t.Context(), vmID))
	n.waitState(vmmapi.StateRunning)
	_ = app
}

func (n *node) ended(phase string) vmmapi.VM {
	n.t.Helper()
	return n.wait("update "+phase, func(v vmmapi.VM) bool { return v.LastUpdate != nil && v.LastUpdate.Phase == phase })
}

func TestUpdate(t *testing.T) {
	for name, c := range map[string]struct {
		to, phase, reason, runs string
		boots                   int
	}{
		"ready":                        {"new", vmmapi.UpdateDone, "", "new", 2},
		"a guest too old to prepare":   {"ancient", vmmapi.UpdateDone, "", "ancient", 2},
		"image missing":                {"missing", vmmapi.UpdateFailed, "image-pull", "old", 1},
		"no verdict":                   {"broken", vmmapi.UpdateFailed, "prepare-failed", "old", 1},
		"refused by the KMS":           {"denied", vmmapi.UpdateRolledBack, kmsapi.ReasonGovernance, "old", 3},
		"containers that do not start": {"hangs", vmmapi.UpdateRolledBack, "update-timeout", "old", 3},
	} {
		t.Run(name, func(t *testing.T) {
			x := newVersions()
			n := newNode(t, x.Driver, func(c *Config) { c.UpdateWithin = config.Duration(300 * time.Millisecond) })
			n.serving("old")
			big := spec().Resources
			big.VCPU, big.DiskMiB = 2, 3000
			n.must(n.c.Update(t.Context(), vmID, vmmapi.UpdateRequest{App: app(c.to), Resources: &big, ReadyWithinSeconds: map[bool]int{true: 60}[c.runs != "old" || c.to == "denied"]}))
			n.ended(c.phase)
			vm := n.waitState(vmmapi.StateRunning)
			if got := word(vm.Spec.App.AppCompose); got != c.runs || vm.Boots != c.boots || vm.Error != nil || vm.LastUpdate.EndedAt.IsZero() {
				t.Fatalf("runs %q after %d boots, want %q after %d: %+v", got, vm.Boots, c.runs, c.boots, vm)
			}
			if e := vm.LastUpdate.Error; (e == nil) != (c.reason == "") || e != nil && e.Reason != c.reason {
				t.Fatalf("error %+v, want %q", e, c.reason)
			}
			want := vmmapi.Resources{VCPU: 1, MemoryMiB: 512, DiskMiB: 2048}
			switch c.phase {
			case vmmapi.UpdateDone:
				want = big
			case vmmapi.UpdateRolledBack:
				want.DiskMiB = 3000 // it had grown; disks do not shrink
			}
			if node, _ := n.c.Node(t.Context()); node.Used != want || vm.Spec.Resources != want {
				t.Fatalf("used %+v, spec %+v, want %+v", node.Used, vm.Spec.Resources, want)
			}
			if c.phase == vmmapi.UpdateRolledBack && n.count("rolled-back") != 1 {
				t.Fatal("no event rolled-back")
			}
			if len(x.prepared) != 1 {
				t.Fatalf("the guest was asked to prepare %v", x.prepared)
			}
		})
	}
}

func TestUpdateRefusals(t *testing.T) {
	x := newVersions()
	n := newNode(t, x.Driver, nil)
	n.serving("old")
	before := n.must(n.c.Get(t.Context(), vmID))
	res := func(c, m, d int) *vmmapi.Resources { return &vmmapi.Resources{VCPU: c, MemoryMiB: m, DiskMiB: d} }
	for want, q := range map[string]vmmapi.UpdateRequest{
		"nothing to change":    {},
		"app_compose":          {App: &vmmapi.App{AppCompose: []byte("{")}},
		"does not shrink":      {App: app("new"), Resources: res(1, 512, 1024)},
		"vcpu: 9 wanted":       {App: app("new"), Resources: res(9, 512, 2048)},
		"resources.memory_mib": {Resources: res(1, 1, 2048)},
		"not an image name":    {App: app("new"), Image: "../x"},
		"ready_within_seconds": {App: app("new"), ReadyWithinSeconds: -1},
	} {
		if _, err := n.c.Update(t.Context(), vmID, q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := n.c.IfMatch(before.Generation-1).Update(t.Context(), vmID, vmmapi.UpdateRequest{App: app("new")}); cvm.ReasonOf(err) != "generation" {
		t.Errorf("an old generation: %v", err)
	}
	if after := n.must(n.c.Get(t.Context(), vmID)); fmt.Sprintf("%+v", after) != fmt.Sprintf("%+v", before) {
		t.Fatalf("refused updates changed the VM\n%+v\n%+v", before, after)
	}
	// While one is under way nothing else changes the spec.
	n.must(n.c.IfMatch(before.Generation).Update(t.Context(), vmID, vmmapi.UpdateRequest{App: app("slow")}))
	n.wait("progress", func(v vmmapi.VM) bool { return strings.Contains(v.LastUpdate.Progress, "10 of 100 MB") })
	for what, err := range map[string]error{
		"update":    failure(n.c.Update(t.Context(), vmID, vmmapi.UpdateRequest{App: app("new")})),
		"app":       failure(n.c.PutApp(t.Context(), vmID, *app("new"))),
		"resources": failure(n.c.PutResources(t.Context(), vmID, *res(2, 512, 2048))),
		"image":     failure(n.c.PutImage(t.Context(), vmID, "other")),
		"restart":   failure(n.c.Restart(t.Context(), vmID)),
	} {
		if cvm.ReasonOf(err) != "update-in-progress" {
			t.Errorf("%s during an update: %v", what, err)
		}
	}
	// Stopping gives it up.
	n.must(n.c.Stop(t.Context(), vmID))
	vm := n.waitState(vmmapi.StateStopped)
	if vm.LastUpdate.Phase != vmmapi.UpdateCancelled || word(vm.Spec.App.AppCompose) != "old" {
		t.Fatalf("%+v", vm)
	}
	// A stopped VM takes the new version at its next start.
	n.must(n.c.Update(t.Context(), vmID, vmmapi.UpdateRequest{App: app("new")}))
	if vm := n.ended(vmmapi.UpdateApplied); word(vm.Spec.App.AppCompose) != "new" || vm.State != vmmapi.StateStopped {
		t.Fatalf("%+v", vm)
	}
}

func failure[T any](_ T, err error) error { return err }

// TestUpdateSurvivesAKilledVMM kills the VMM after every durable write of an
// update: it must end in the old version or in the new one.
func TestUpdateSurvivesAKilledVMM(t *testing.T) {
	for to, want := range map[string]string{"new": "new", "denied": "old", "slow": "slow", "hangs": "old"} {
		for step := 1; ; step++ {
			finished := false
			t.Run(fmt.Sprintf("%s/%d", to, step), func(t *testing.T) { finished = killedUpdate(t, to, want, step) })
			if finished || t.Failed() {
				break
			}
		}
	}
}

// killedUpdate reports whether the update ended before the step-th write.
func killedUpdate(t *testing.T, to, want string, step int) (finished bool) {
	x := newVersions()
	within := 30 * time.Second
	if want == "old" { // given up when nothing is heard of it: soon, here
		within = 400 * time.Millisecond
	}
	n := newNode(t, x.Driver, func(c *Config) { c.UpdateWithin = config.Duration(within) })
	n.serving("old")
	frozen := n.vmm.freezeAfter(step)
	big := spec().Resources
	big.DiskMiB = 4000
	c := n.c
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = c.Update(context.Background(), vmID, vmmapi.UpdateRequest{App: app(to), Resources: &big})
	}()
	close(x.hold)
	select {
	case <-frozen:
	case <-n.settledUpdate():
		finished = true
	}
	n.stop()
	<-asked
	n.start()
	vm := n.wait("settled", func(v vmmapi.VM) bool { return v.State == vmmapi.StateRunning && !v.LastUpdate.UnderWay() })
	got := word(vm.Spec.App.AppCompose)
	if got != want && (got != "old" || vm.LastUpdate != nil) { // killed before the request was written: nothing happened
		ev, _ := n.c.Events(t.Context(), vmID)
		t.Fatalf("step %d: ended in %q, want %q: %+v\n%+v\n%+v", step, got, want, vm.LastUpdate, vm.LastUpdate.Error, ev)
	}
	x.mu.Lock()
	last := x.seen[len(x.seen)-1]
	x.mu.Unlock()
	if w, _, _ := strings.Cut(last, "/"); w != got {
		t.Fatalf("step %d: the record says %q, the machine runs %q (launches %v)", step, got, w, x.seen)
	}
	n.checkPool()
	return finished
}

// settledUpdate is closed when an update has ended and its VM runs.
func (n *node) settledUpdate() <-chan struct{} {
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(n.t.Context())
	n.t.Cleanup(cancel)
	vmm := n.vmm
	go func() {
		for ctx.Err() == nil {
			if vm, err := vmm.get(vmID); err == nil && vm.State == vmmapi.StateRunning && vm.LastUpdate != nil && !vm.LastUpdate.UnderWay() {
				close(done)
				return
			}
			time.Sleep(time.Millisecond) // polling until the test ends
		}
	}()
	return done
}

// checkPool: what is held is the sum of what the records say.
func (n *node) checkPool() {
	n.t.Helper()
	var want vmmapi.Resources
	for _, v := range n.vmm.all() {
		v.mu.Lock()
		h := held(&v.rec)
		v.mu.Unlock()
		want.VCPU, want.MemoryMiB, want.DiskMiB = want.VCPU+h.VCPU, want.MemoryMiB+h.MemoryMiB, want.DiskMiB+h.DiskMiB
	}
	if got := n.vmm.pool.Used(); got != want {
		n.t.Fatalf("the pool holds %+v, the records say %+v", got, want)
	}
}

// freezeAfter lets n more writes of records reach the disk. The next one hangs until
// the VMM ends, as if it had been killed there; the channel is closed then.
func (m *VMM) freezeAfter(n int) <-chan struct{} {
	frozen := make(chan struct{})
	var mu sync.Mutex
	for _, v := range m.all() {
		v.mu.Lock()
		defer v.mu.Unlock()
	}
	m.store.write = func(path string, b []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if n--; n >= 0 {
			return writeDurably(path, b)
		}
		if n == -1 {
			close(frozen)
		}
		mu.Unlock()
		<-m.ctx().Done()
		mu.Lock()
		return nil
	}
	return frozen
}

func readShared(m machine.Machine) []byte {
	b, _ := os.ReadFile(filepath.Join(m.Shared, "app-compose.json"))
	return b
}
