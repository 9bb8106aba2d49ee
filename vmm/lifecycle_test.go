package vmm

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// wanted is the model of one VM: what must be true when everything has settled.
type wanted struct {
	state string
	app   string
	res   vmmapi.Resources
	never bool // restart policy
}

// world is a node and its model.
type world struct {
	*node
	x     *versions
	vms   map[string]*wanted
	order []string // ids by age
	rng   *rand.Rand
	n     int
	trace []string
}

// TestLifecycles plays random sequences of orders, crashes and kills against a
// model. A failing seed is played again with PHALA_SEED.
func TestLifecycles(t *testing.T) {
	seeds := 12
	if os.Getenv("PHALA_LONG") == "1" {
		seeds = 200
	}
	for seed := range seeds {
		if s := os.Getenv("PHALA_SEED"); s != "" && s != fmt.Sprint(seed) {
			continue
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			lifecycle(t, uint64(seed))
		})
	}
}

func lifecycle(t *testing.T, seed uint64) {
	x := newVersions()
	close(x.hold)
	w := &world{x: x, vms: map[string]*wanted{}, rng: rand.New(rand.NewPCG(seed, 4))}
	w.node = newNode(t, x.Driver, func(c *Config) {
		c.UpdateWithin = config.Duration(30 * time.Second)
		c.Capacity = Capacity{VCPU: 8, MemoryMiB: 8192, DiskMiB: 20000}
	})
	defer func() {
		if t.Failed() {
			t.Logf("seed %d: %s", seed, strings.Join(w.trace, "; "))
		}
	}()
	steps := []func(){w.create, w.create, w.start, w.start, w.stopOne, w.crash, w.crash, w.kill, w.resize, w.update, w.update, w.updateBad, w.remove, w.restart}
	for range 25 {
		steps[w.rng.IntN(len(steps))]()
		if w.rng.IntN(3) > 0 { // else the next order meets one that is not done
			w.settle()
		}
	}
	w.settle()
	for _, id := range w.order {
		w.say("delete %s", id[:4])
		if err := w.c.Delete(t.Context(), id, false); err != nil {
			t.Fatal(err)
		}
		delete(w.vms, id)
	}
	w.order = nil
	w.settle()
	w.nothingLeft()
}

func (w *world) say(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// pick is a VM that has settled: crashes and orders on moving VMs are tested apart.
func (w *world) pick() (string, *wanted) {
	if len(w.order) == 0 {
		return "", nil
	}
	w.settle()
	id := w.order[w.rng.IntN(len(w.order))]
	return id, w.vms[id]
}

// used is what the model holds of the node.
func (w *world) used() (u vmmapi.Resources) {
	for _, m := range w.vms {
		u.DiskMiB += m.res.DiskMiB
		if m.state == vmmapi.StateRunning {
			u.VCPU, u.MemoryMiB = u.VCPU+m.res.VCPU, u.MemoryMiB+m.res.MemoryMiB
		}
	}
	return u
}

// fits reports whether the node has room for more.
func (w *world) fits(more vmmapi.Resources) bool {
	u := w.used()
	return u.VCPU+more.VCPU <= 8 && u.MemoryMiB+more.MemoryMiB <= 8192 && u.DiskMiB+more.DiskMiB <= 20000
}

// expect checks that an order is taken exactly when the model says so.
func (w *world) expect(ok bool, err error) bool {
	w.t.Helper()
	if ok != (err == nil) || err != nil && cvm.CodeOf(err) != cvm.Exhausted {
		w.t.Fatalf("the model says %v, the VMM says %v", ok, err)
	}
	return ok
}

func (w *world) create() {
	s := spec()
	raw := [16]byte{}
	for i := range raw {
		raw[i] = byte(w.rng.UintN(256))
	}
	s.ID = uuid.UUID(raw).String()
	s.Resources = vmmapi.Resources{VCPU: 1 + w.rng.IntN(3), MemoryMiB: 512 << w.rng.IntN(3), DiskMiB: 1024 * (1 + w.rng.IntN(6))}
	if w.rng.IntN(4) == 0 {
		s.Restart = "never"
	}
	w.say("create %s %+v %s", s.ID[:4], s.Resources, s.Restart)
	_, err := w.c.Put(w.t.Context(), s)
	if w.expect(w.fits(vmmapi.Resources{DiskMiB: s.Resources.DiskMiB}), err) {
		w.vms[s.ID] = &wanted{state: vmmapi.StateCreated, app: "old", res: s.Resources, never: s.Restart == "never"}
		w.order = append(w.order, s.ID)
	}
}

func (w *world) start() {
	id, m := w.pick()
	if m == nil {
		return
	}
	w.say("start %s", id[:4])
	_, err := w.c.Start(w.t.Context(), id)
	if m.state == vmmapi.StateRunning {
		w.expect(true, err)
		return
	}
	if w.expect(w.fits(vmmapi.Resources{VCPU: m.res.VCPU, MemoryMiB: m.res.MemoryMiB}), err) {
		m.state = vmmapi.StateRunning
	}
}

func (w *world) restart() {
	id, m := w.pick()
	if m == nil || m.state != vmmapi.StateRunning {
		return
	}
	w.say("restart %s", id[:4])
	_, err := w.c.Restart(w.t.Context(), id)
	w.expect(true, err)
}

func (w *world) stopOne() {
	id, m := w.pick()
	if m == nil {
		return
	}
	w.say("stop %s", id[:4])
	_, err := w.c.Stop(w.t.Context(), id)
	w.expect(true, err)
	if m.state == vmmapi.StateRunning || m.state == vmmapi.StateFailed {
		m.state = vmmapi.StateStopped
	}
}

func (w *world) crash() {
	id, m := w.pick()
	if m == nil || m.state != vmmapi.StateRunning {
		return
	}
	w.say("crash %s", id[:4])
	before := w.get(id)
	w.drive.Crash(id, machine.Exit{Code: 139, Detail: "killed"})
	if m.never {
		m.state = vmmapi.StateFailed
	}
	w.waitTrue("the crash is noticed", func() bool {
		now := w.get(id)
		return m.never && now.State == vmmapi.StateFailed || now.Restarts > before.Restarts
	})
}

// kill ends the VMM, perhaps with a machine, and starts another on its directory.
func (w *world) kill() {
	victim := ""
	if len(w.order) > 0 && w.rng.IntN(2) == 0 {
		id, m := w.pick()
		if m.state == vmmapi.StateRunning {
			victim = id
		}
	}
	w.say("kill the VMM and %.4s", victim)
	w.stop()
	if victim != "" {
		w.drive.Crash(victim, machine.Exit{Code: 137})
		if w.vms[victim].never {
			w.vms[victim].state = vmmapi.StateFailed
		}
	}
	w.node.start()
	if victim != "" && !w.vms[victim].never {
		w.waitTrue("the crash is noticed", func() bool { return w.get(victim).Restarts > 0 })
	}
}

func (w *world) resize() {
	id, m := w.pick()
	if m == nil {
		return
	}
	next := m.res
	next.VCPU, next.DiskMiB = 1+w.rng.IntN(4), next.DiskMiB+512*w.rng.IntN(3)
	more := vmmapi.Resources{DiskMiB: next.DiskMiB - m.res.DiskMiB}
	if m.state == vmmapi.StateRunning {
		more.VCPU = next.VCPU - m.res.VCPU
	}
	w.say("resize %s %+v", id[:4], next)
	_, err := w.c.PutResources(w.t.Context(), id, next)
	if more.VCPU < 0 {
		more.VCPU = 0
	}
	if w.expect(w.fits(more), err) {
		m.res = next
	}
}

func (w *world) update() {
	id, m := w.pick()
	if m == nil {
		return
	}
	w.n++
	app := fmt.Sprintf("v%d", w.n)
	next := m.res
	next.VCPU = 1 + w.rng.IntN(3)
	grow := vmmapi.Resources{}
	if m.state == vmmapi.StateRunning {
		grow.VCPU = max(0, next.VCPU-m.res.VCPU)
	}
	if m.state == vmmapi.StateFailed { // an update of a VM that should run is an order to try
		grow = vmmapi.Resources{VCPU: max(next.VCPU, m.res.VCPU), MemoryMiB: next.MemoryMiB}
	}
	w.say("update %s to %s %+v", id[:4], app, next)
	a := vmmapi.App{AppCompose: []byte(strings.Replace(composeDoc, `"services: {}"`, `"services: {} # `+app+`"`, 1))}
	_, err := w.c.Update(w.t.Context(), id, vmmapi.UpdateRequest{App: &a, Resources: &next})
	if !w.expect(w.fits(grow), err) {
		return
	}
	m.app, m.res = app, next
	if m.state == vmmapi.StateFailed {
		m.state = vmmapi.StateRunning
	}
}

// updateBad is refused by the KMS and comes back.
func (w *world) updateBad() {
	id, m := w.pick()
	if m == nil || m.state != vmmapi.StateRunning {
		return
	}
	w.say("bad update %s", id[:4])
	_, err := w.c.Update(w.t.Context(), id, vmmapi.UpdateRequest{App: app("denied")})
	w.expect(true, err)
	w.waitTrue("rolled back", func() bool { return w.get(id).LastUpdate.Phase == vmmapi.UpdateRolledBack })
}

func (w *world) remove() {
	id, m := w.pick()
	if m == nil {
		return
	}
	w.say("delete %s", id[:4])
	if err := w.c.Delete(w.t.Context(), id, false); err != nil {
		w.t.Fatal(err)
	}
	delete(w.vms, id)
	for i, o := range w.order {
		if o == id {
			w.order = append(w.order[:i:i], w.order[i+1:]...)
			break
		}
	}
}

func (w *world) get(id string) vmmapi.VM {
	w.t.Helper()
	vm, err := w.c.Get(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return vm
}

// settle waits until every VM is as the model says, and checks what must hold then.
func (w *world) settle() {
	w.t.Helper()
	deadline := time.Now().Add(60 * time.Second) // a loaded machine; only failures wait for it
	for {
		diff := w.difference()
		if diff == "" {
			break
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("never settled: %s", diff)
		}
		time.Sleep(2 * time.Millisecond) // polling with a deadline
	}
	w.checkPool()
	if got := w.vmm.pool.Used(); got != w.used() {
		w.t.Fatalf("the node holds %+v, the model %+v", got, w.used())
	}
}

func (w *world) difference() string {
	list, err := w.c.List(w.t.Context())
	if err != nil {
		return err.Error()
	}
	if len(list) != len(w.vms) {
		return fmt.Sprintf("%d VMs, want %d", len(list), len(w.vms))
	}
	for _, vm := range list {
		m := w.vms[vm.Spec.ID]
		if m == nil {
			return "VM " + vm.Spec.ID + " should be gone"
		}
		_, alive, err := w.drive.Adopt(w.t.Context(), vm.Spec.ID)
		runs := err == nil && alive
		switch {
		case vm.State != m.state, runs != (m.state == vmmapi.StateRunning), vm.LastUpdate.UnderWay():
			return fmt.Sprintf("VM %s is %s (machine: %v), want %s", vm.Spec.ID, vm.State, runs, m.state)
		case word(vm.Spec.App.AppCompose) != m.app || vm.Spec.Resources != m.res:
			return fmt.Sprintf("VM %s has %s %+v, want %s %+v", vm.Spec.ID, word(vm.Spec.App.AppCompose), vm.Spec.Resources, m.app, m.res)
		}
	}
	return ""
}

// nothingLeft: no machine, record, socket or reservation outlives its VM.
func (w *world) nothingLeft() {
	w.t.Helper()
	if u := w.vmm.pool.Used(); u != (vmmapi.Resources{}) {
		w.t.Errorf("the pool still holds %+v", u)
	}
	for _, dir := range []string{filepath.Join(w.cfg.Dir, "vms"), w.cfg.RunDir} {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 0 {
			w.t.Errorf("%s: %v %v", dir, entries, err)
		}
	}
	if n := w.drive.Machines(); n != 0 {
		w.t.Errorf("%d machines are left", n)
	}
}
