package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// services that may die alone; gateway-guest is the gateway's TEE and goes with it.
var services = []string{"kms-1", "kms-2", "kms-3", "vmm", "gateway", "api"}

// Moments of a deploy, as the CLI shows them.
const (
	onSent    = "transaction 0x" // the app's contract is on its way: nothing is committed
	onCommit  = "placed on"      // the API has accepted it
	onStart   = "the VM is starting"
	onBoot    = "boot 1/10"
	onKeys    = "boot 4/10" // keys were released
	onGateway = "boot 9/10"
)

// A kill of one service at one moment of a deploy.
type kill struct {
	victim, moment string
}

func kills() []kill {
	if !long() {
		return []kill{{"leader", onBoot}, {"api", onCommit}, {"vmm", onKeys}, {"follower", onCommit}, {"gateway", onBoot}}
	}
	var all []kill
	for _, v := range []string{"leader", "follower", "api", "vmm", "gateway"} {
		for _, m := range []string{onSent, onCommit, onStart, onBoot, onKeys, onGateway} {
			all = append(all, kill{v, m})
		}
	}
	return all
}

// killDuringDeploy: whatever dies while an app is deployed comes back, the deploy
// ends once or fails and can be repeated, and apps that run go on running.
func (m *machine) killDuringDeploy(t *testing.T, hello string) {
	for i, k := range kills() {
		t.Run(fmt.Sprintf("%s at %s", k.victim, k.moment), func(t *testing.T) {
			m.killOne(t, hello, fmt.Sprintf("killed-%d", i), k)
		})
		if t.Failed() {
			return
		}
	}
}

func (m *machine) killOne(t *testing.T, hello, name string, k kill) {
	victim := m.service(t, k.victim)
	watch := m.watch(t, hello)
	d := m.start(t, "phala", "deploy", "-c", filepath.Join(m.state, "hello", "docker-compose.yml"), "-n", name, "-t", "tdx.small")
	d.sees(t, k.moment, time.Minute)
	down := time.Now()
	old := m.kill(t, victim)
	served := watch.good()
	eventually(t, victim+" is started again", held+20*time.Second, func() error {
		if p := m.pid(victim); p == 0 || p == old {
			return fmt.Errorf("pid %d", p)
		}
		return nil
	})
	served = watch.good() - served
	code := d.ends(t, 3*time.Minute)
	t.Logf("%s was down for %s, in which hello answered %d times; the deploy ended with %d", victim, time.Since(down).Round(100*time.Millisecond), served, code)
	if code != 0 {
		m.failedCleanly(t, d.output())
		m.healthy(t)
		m.must(t, "deploy", "-c", filepath.Join(m.state, "hello", "docker-compose.yml"), "-n", name, "-t", "tdx.small")
	}
	m.healthy(t)
	m.onlyOnce(t, name, k)
	c := m.client(t)
	begin := time.Now()
	eventually(t, "hello, afterwards", 45*time.Second, func() error { return fetch(c, m.url(hello)) })
	if w := time.Since(begin); w > time.Second {
		t.Logf("hello was back %s after the deploy", w.Round(100*time.Millisecond))
	}
	if k.victim == "gateway" {
		// Both ends begin anew: the first handshakes may cross, and are tried again after 5 s.
		eventually(t, "hello answers steadily", 60*time.Second, func() error { return watch.steady(6 * time.Second) })
	}
	failures := watch.stop()
	if k.victim != "gateway" {
		if served == 0 {
			t.Errorf("hello did not answer once while %s was down", victim)
		}
		if len(failures) > 0 {
			t.Errorf("while %s was down hello failed %d times: %v", victim, len(failures), failures[0])
		}
	} else if len(failures) == 0 {
		t.Error("hello answered without a gateway: the test does not watch what it should")
	}
	if t.Failed() {
		t.Logf("the deploy said:\n%s", d.output())
	}
	m.must(t, "cvms", "delete", name, "--yes", "--volumes", "delete")
}

// service finds who plays a role now.
func (m *machine) service(t *testing.T, role string) (name string) {
	t.Helper()
	if role != "leader" && role != "follower" {
		return role
	}
	c := m.kms(t)
	eventually(t, "the KMS has a "+role, 30*time.Second, func() error {
		for i := range 3 {
			s, err := c.StatusOf(t.Context(), i)
			if err != nil {
				return err
			}
			if s.State == role {
				name = s.ID
			}
		}
		if name == "" {
			return fmt.Errorf("no member is %s", role)
		}
		return nil
	})
	return name
}

// kill ends a service the hard way, by the process id in its file and only if that
// process is one of ours.
func (m *machine) kill(t *testing.T, service string) int {
	t.Helper()
	pid := m.pid(service)
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || filepath.Dir(exe) != m.bin {
		t.Fatalf("%s: process %d is %q, %v", service, pid, exe, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("killing %s: %v", service, err)
	}
	return pid
}

// failedCleanly: the deploy says what happened and how to go on.
func (m *machine) failedCleanly(t *testing.T, out string) {
	t.Helper()
	t.Logf("the deploy failed:\n%s", out)
	if strings.Contains(out, "panic:") || strings.Contains(out, "goroutine ") || !strings.Contains(out, "\n✗ ") {
		t.Errorf("the deploy did not fail cleanly:\n%s", out)
	}
}

// healthy waits until all parts answer again.
func (m *machine) healthy(t *testing.T) {
	t.Helper()
	c := m.kms(t)
	eventually(t, "all KMS members are in", 60*time.Second, func() error {
		for i := range 3 {
			if s, err := c.StatusOf(t.Context(), i); err != nil {
				return err
			} else if !s.Quorum || s.Members != 3 {
				return fmt.Errorf("%s is %s, quorum %v, %d members", s.ID, s.State, s.Quorum, s.Members)
			}
		}
		return nil
	})
	vmm := m.vmmClient(t)
	eventually(t, "the VMM answers", 30*time.Second, func() error { _, err := vmm.List(t.Context()); return err })
	eventually(t, "the API answers", 30*time.Second, func() error {
		out, err := m.cmd(t.Context(), "phala", "cvms", "list").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, firstLine(string(out)))
		}
		return nil
	})
}

func (m *machine) vmmClient(t *testing.T) *vmmapi.Client {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(m.state, "vmm", "token"))
	if err != nil {
		t.Fatal(err)
	}
	return vmmapi.NewClient(fmt.Sprintf("http://127.0.0.1:%d", m.ports.VMM), strings.TrimSpace(string(token)), nil)
}

func (m *machine) vms(t *testing.T) []vmmapi.VM {
	t.Helper()
	vms, err := m.vmmClient(t).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return vms
}

// onlyOnce: one CVM, one VM, one container of that name, running, and the page.
func (m *machine) onlyOnce(t *testing.T, name string, k kill) {
	t.Helper()
	var list struct {
		Items []struct {
			Name   string `json:"name"`
			AppID  string `json:"app_id"`
			UUID   string `json:"vm_uuid"`
			Status string `json:"status"`
		} `json:"items"`
	}
	out := m.must(t, "cvms", "list", "--json")
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 2 { // and hello
		t.Errorf("%d CVMs, not 2", len(list.Items))
	}
	vms := m.vms(t)
	if len(vms) != 2 {
		t.Errorf("%d VMs, not 2", len(vms))
	}
	if c := m.containers(t, "status=running"); len(c) != 2 {
		t.Errorf("containers: %v", c)
	}
	for _, i := range list.Items {
		if i.Name != name {
			continue
		}
		if i.Status != "running" {
			t.Errorf("the CVM is %s", i.Status)
		}
		for _, v := range vms {
			if v.Spec.ID != i.UUID {
				continue
			}
			// A VMM that dies while it starts a machine cannot know whether it has: it looks, and starts it again if not.
			if v.Boots != 1 && k != (kill{"vmm", onStart}) && k != (kill{"vmm", onCommit}) {
				t.Errorf("the VM was booted %d times", v.Boots)
			}
			if v.State != vmmapi.StateRunning {
				t.Errorf("the VM is %s", v.State)
			}
			c := m.client(t)
			eventually(t, name+" through the gateway", 45*time.Second, func() error { return fetch(c, m.url(i.AppID)) })
			return
		}
	}
	t.Errorf("%s has no VM: %+v", name, list.Items)
}

// watching asks for a page again and again.
type watching struct {
	mu   sync.Mutex
	ok   int
	bad  []string
	last time.Time // failure
	end  chan struct{}
	over chan struct{}
	once sync.Once
}

func (m *machine) watch(t *testing.T, app string) *watching {
	t.Helper()
	w := &watching{end: make(chan struct{}), over: make(chan struct{})}
	c, url := m.client(t), m.url(app)
	if err := fetch(c, url); err != nil {
		t.Fatalf("hello, before: %v", err)
	}
	go func() {
		defer close(w.over)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			err := fetch(c, url)
			w.mu.Lock()
			if err == nil {
				w.ok++
			} else {
				w.last = time.Now()
				w.bad = append(w.bad, time.Now().Format(time.TimeOnly)+" "+err.Error())
			}
			w.mu.Unlock()
			select {
			case <-tick.C:
			case <-w.end:
				return
			}
		}
	}()
	t.Cleanup(func() { w.stop() })
	return w
}

// steady is nil when the last failure is long enough ago.
func (w *watching) steady(d time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if since := time.Since(w.last); since < d {
		return fmt.Errorf("it failed %s ago: %s", since.Round(time.Second), w.bad[len(w.bad)-1])
	}
	return nil
}

func (w *watching) good() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ok
}

// stop returns the failures.
func (w *watching) stop() []string {
	w.once.Do(func() { close(w.end) })
	<-w.over
	return w.bad
}
