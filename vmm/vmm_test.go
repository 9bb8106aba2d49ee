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

const composeDoc = `{"manifest_version":2,"name":"hello","runner":"docker-compose","docker_compose_file":"services: {}","public_logs":true,"public_sysinfo":true,"kms_enabled":false,"gateway_enabled":false,"local_key_provider_enabled":false,"allowed_envs":[],"no_instance_id":false}`

const vmID = "0b7d5f86-6c55-4b6a-9d0a-7a8f54c6d001"

func spec() vmmapi.Spec {
	return vmmapi.Spec{
		ID: vmID, Name: "hello", AppID: cvm.AppID{1, 2, 3},
		Resources: vmmapi.Resources{VCPU: 1, MemoryMiB: 512, DiskMiB: 2048},
		App:       vmmapi.App{AppCompose: []byte(composeDoc), EncryptedEnv: []byte("ciphertext")},
		KMSURLs:   []string{"https://172.31.77.1:8701"},
	}
}

// node is a VMM of the test, restartable on the same directories.
type node struct {
	t     *testing.T
	cfg   Config
	drive *dry.Driver
	c     *vmmapi.Client
	vmm   *VMM
	stop  func()
}

func newNode(t *testing.T, d *dry.Driver, change func(*Config)) *node {
	t.Helper()
	dir := t.TempDir()
	run, err := os.MkdirTemp("", "vmm") // short: sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	c := Default()
	c.Listen, c.TokenFile, c.Dir, c.RunDir, c.ImagesDir = "127.0.0.1:0", filepath.Join(dir, "token"), filepath.Join(dir, "vmm"), run, filepath.Join(dir, "images")
	c.Driver, c.Machines = "dry", d
	c.BackOff, c.BackOffMax, c.StopGrace = config.Duration(time.Millisecond), config.Duration(10*time.Millisecond), config.Duration(2*time.Second)
	c.Capacity = Capacity{VCPU: 4, MemoryMiB: 4096, DiskMiB: 10000}
	if change != nil {
		change(&c)
	}
	n := &node{t: t, cfg: c, drive: d}
	n.start()
	t.Cleanup(func() { n.stop() })
	return n
}

func (n *node) start() {
	n.t.Helper()
	m, err := New(n.cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	select {
	case <-m.Ready():
	case err := <-done:
		n.t.Fatal(err)
	}
	token, err := EnsureToken(n.cfg.TokenFile)
	if err != nil {
		n.t.Fatal(err)
	}
	n.vmm, n.c = m, vmmapi.NewClient("http://"+m.Addr(), token, nil)
	n.stop = func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
		n.stop = func() {}
	}
}

// wait polls until the VM is as wanted.
func (n *node) wait(what string, ok func(vmmapi.VM) bool) vmmapi.VM {
	n.t.Helper()
	deadline := time.Now().Add(90 * time.Second) // a loaded machine; only failures wait for it
	for {
		vm, err := n.c.Get(n.t.Context(), vmID)
		if err == nil && ok(vm) {
			return vm
		}
		if time.Now().After(deadline) {
			ev, _ := n.c.Events(n.t.Context(), vmID)
			n.t.Fatalf("never %s: %+v, %v\nevents: %+v", what, vm, err, ev)
		}
		time.Sleep(2 * time.Millisecond) // polling with a deadline
	}
}

func (n *node) waitState(s string) vmmapi.VM {
	n.t.Helper()
	return n.wait(s, func(v vmmapi.VM) bool { return v.State == s })
}

func (n *node) must(vm vmmapi.VM, err error) vmmapi.VM {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
	return vm
}

func instanceInfo() string {
	app := cvm.AppID{1, 2, 3}
	seed := make([]byte, 20)
	b, _ := json.Marshal(guestapi.InstanceInfo{Seed: strings.Repeat("00", 20), InstanceID: cvm.NewInstanceID(seed, app).String(), AppID: app.String()})
	return string(b)
}

func TestLifecycle(t *testing.T) {
	d := dry.New(dry.Config{Script: func(machine.Machine) []guestapi.Notify {
		return []guestapi.Notify{{Event: "boot.progress", Payload: "1/10 host-shared"}, {Event: "instance.info", Payload: instanceInfo()}, {Event: "ready"}}
	}})
	n := newNode(t, d, nil)
	ctx := t.Context()
	vm := n.must(n.c.Put(ctx, spec()))
	if vm.State != vmmapi.StateCreated || vm.Desired != stopped {
		t.Fatalf("created: %+v", vm)
	}
	if d.Launches(vmID) != 0 {
		t.Fatal("creating must not start")
	}
	if _, err := n.c.Log(ctx, vmID, vmmapi.LogQuery{Tail: 0, Follow: false}); cvm.ReasonOf(err) != "no-console" {
		t.Fatalf("console before the first start: %v", err)
	}
	n.must(n.c.Start(ctx, vmID))
	vm = n.waitState(vmmapi.StateRunning)
	if vm.InstanceID.IsZero() || vm.Boots != 1 || vm.ReadyAt.IsZero() || vm.BootProgress != "" {
		t.Fatalf("running: %+v", vm)
	}
	n.must(n.c.Start(ctx, vmID)) // idempotent
	if node, err := n.c.Node(ctx); err != nil || node.Used.VCPU != 1 || node.Used.DiskMiB != 2048 || !node.Simulated {
		t.Fatalf("node %+v, %v", node, err)
	}
	rc, err := n.c.Log(ctx, vmID, vmmapi.LogQuery{Tail: 10, Follow: false})
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(rc); !strings.Contains(string(b), "dry guest of hello") {
		t.Fatalf("console %q", b)
	}
	n.must(n.c.Restart(ctx, vmID))
	n.wait("restarted", func(v vmmapi.VM) bool { return v.State == vmmapi.StateRunning && v.Boots == 2 })
	n.must(n.c.Stop(ctx, vmID))
	n.waitState(vmmapi.StateStopped)
	if node, _ := n.c.Node(ctx); node.Used.VCPU != 0 || node.Used.DiskMiB != 2048 {
		t.Fatalf("a stopped VM holds its disk only: %+v", node.Used)
	}
	if d.Launches(vmID) != 2 {
		t.Fatalf("%d launches, want 2", d.Launches(vmID))
	}
	ev, err := n.c.Events(ctx, vmID)
	if err != nil || ev[0].Kind != "created" || ev[len(ev)-1].Kind != "stopped" {
		t.Fatalf("%+v %v", ev, err)
	}
	for i, e := range ev {
		if e.Seq != int64(i+1) {
			t.Fatalf("event %d has seq %d", i, e.Seq)
		}
	}
	if err := n.c.Delete(ctx, vmID, false); err != nil {
		t.Fatal(err)
	}
	n.waitGone()
	if err := n.c.Delete(ctx, vmID, false); err != nil {
		t.Fatal("deleting twice:", err)
	}
	if node, _ := n.c.Node(ctx); node.Used != (vmmapi.Resources{}) {
		t.Fatalf("a deleted VM holds %+v", node.Used)
	}
}

func (n *node) waitGone() {
	n.t.Helper()
	deadline := time.Now().Add(90 * time.Second) // a loaded machine; only failures wait for it
	for {
		_, err := n.c.Get(n.t.Context(), vmID)
		if cvm.CodeOf(err) == cvm.NotFound {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatal("never gone:", err)
		}
		time.Sleep(2 * time.Millisecond) // polling with a deadline
	}
}

func TestSharedFiles(t *testing.T) {
	n := newNode(t, dry.New(dry.Config{}), func(c *Config) {
		c.DockerRegistry, c.InsecureRegistries = "http://172.31.77.1:5080", []string{"172.31.77.1:5080"}
	})
	ctx := t.Context()
	s := spec()
	s.App.UserConfig = []byte("user")
	s.App.EnvSignature = &vmmapi.EnvSignature{Counter: 7, Signer: "0x00", Signature: "00"}
	n.must(n.c.Put(ctx, s))
	n.must(n.c.Start(ctx, vmID))
	n.waitState(vmmapi.StateRunning)
	dir := n.vmm.store.shared(vmID)
	read := func(f string) string { b, _ := os.ReadFile(filepath.Join(dir, f)); return string(b) }
	if read("app-compose.json") != composeDoc {
		t.Fatal("app-compose.json must be the exact bytes")
	}
	if read(".encrypted-env") != "ciphertext" || read(".user-config") != "user" || !strings.Contains(read(".env-signature.json"), `"counter":7`) {
		t.Fatal("env, its signature or user config missing")
	}
	var sys guestapi.SysConfig
	if err := json.Unmarshal([]byte(read(".sys-config.json")), &sys); err != nil || sys.KMSURLs[0] != s.KMSURLs[0] || sys.DockerRegistry == "" {
		t.Fatalf("%+v %v", sys, err)
	}
	// DO NOT CHANGE: verifiers recompute the registers from it.
	want := `{"os_image_hash":"0000000000000000000000000000000000000000000000000000000000000000","cpu_count":1,"memory_size":536870912,"pci_hole64_size":0,"hugepages":false,"num_gpus":0,"num_nvswitches":0,"hotplug_off":false,"image":"dry","host_share_mode":"bind","spec_version":1}`
	if sys.VMConfig != want {
		t.Fatalf("vm_config\n got %s\nwant %s", sys.VMConfig, want)
	}
	if got := read(".instance_info"); got != `{"app_id":"0102030000000000000000000000000000000000"}` {
		t.Fatalf(".instance_info %s", got)
	}
	// A file that is not set any more must not stay.
	n.must(n.c.PutApp(ctx, vmID, vmmapi.App{AppCompose: []byte(composeDoc)}))
	if read(".user-config") == "" {
		t.Fatal("an update takes effect at the next start, not before")
	}
	n.must(n.c.Restart(ctx, vmID))
	n.wait("restarted", func(v vmmapi.VM) bool { return v.State == vmmapi.StateRunning && v.Boots == 2 })
	if read(".user-config") != "" || read(".encrypted-env") != "" || read(".env-signature.json") != "" {
		t.Fatal("files of the old app are still there")
	}
}

func TestPutIsIdempotent(t *testing.T) {
	n := newNode(t, dry.New(dry.Config{}), nil)
	ctx := t.Context()
	n.must(n.c.Put(ctx, spec()))
	n.must(n.c.Put(ctx, spec()))
	s := spec()
	s.Resources.VCPU = 2
	if _, err := n.c.Put(ctx, s); cvm.CodeOf(err) != cvm.Conflict || cvm.ReasonOf(err) != "vm-differs" {
		t.Fatalf("another spec: %v", err)
	}
	n.must(n.c.PutResources(ctx, vmID, s.Resources))
	n.must(n.c.Put(ctx, spec())) // the first request again, late
	n.must(n.c.Put(ctx, s))      // what the VM is now
	if l, err := n.c.List(ctx); err != nil || len(l) != 1 || l[0].Spec.Resources.VCPU != 2 {
		t.Fatalf("%+v %v", l, err)
	}
	if ev, _ := n.c.Events(ctx, vmID); len(ev) != 2 {
		t.Fatalf("created, resized; got %+v", ev)
	}
	s.Resources.DiskMiB = 1024
	if _, err := n.c.PutResources(ctx, vmID, s.Resources); cvm.ReasonOf(err) != "disk-shrinks" {
		t.Fatalf("shrinking: %v", err)
	}
}

func TestPutImage(t *testing.T) {
	n := newNode(t, dry.New(dry.Config{}), nil)
	ctx := t.Context()
	n.must(n.c.Put(ctx, spec()))
	if v := n.must(n.c.PutImage(ctx, vmID, "phala-2")); v.Spec.Image != "phala-2" || v.Boots != 0 {
		t.Fatalf("%+v", v)
	}
	for _, bad := range []string{"", "../phala-2", "a/b"} {
		if _, err := n.c.PutImage(ctx, vmID, bad); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("image %q: %v", bad, err)
		}
	}
	if v := n.must(n.c.Get(ctx, vmID)); v.Spec.Image != "phala-2" {
		t.Errorf("a refused change changed the image: %q", v.Spec.Image)
	}
	if _, err := n.c.PutImage(ctx, "0b7d5f86-6c55-4b6a-9d0a-7a8f54c6d009", "x"); cvm.CodeOf(err) != cvm.NotFound {
		t.Errorf("an unknown VM: %v", err)
	}
}

func TestInvalidSpecs(t *testing.T) {
	n := newNode(t, dry.New(dry.Config{}), nil)
	for want, edit := range map[string]func(*vmmapi.Spec){
		"lowercase UUID":          func(s *vmmapi.Spec) { s.ID = "x" },
		`name ""`:                 func(s *vmmapi.Spec) { s.Name = "" },
		"name":                    func(s *vmmapi.Spec) { s.Name = "a\nb" },
		"app_id":                  func(s *vmmapi.Spec) { s.AppID = cvm.AppID{} },
		"app_compose":             func(s *vmmapi.Spec) { s.App.AppCompose = []byte("{") },
		"restart":                 func(s *vmmapi.Spec) { s.Restart = "sometimes" },
		"resources.vcpu":          func(s *vmmapi.Spec) { s.Resources.VCPU = 0 },
		"resources.memory_mib":    func(s *vmmapi.Spec) { s.Resources.MemoryMiB = 255 },
		"resources.disk_mib":      func(s *vmmapi.Spec) { s.Resources.DiskMiB = 1023 },
		"encrypted_env: 262145":   func(s *vmmapi.Spec) { s.App.EncryptedEnv = make([]byte, 262145) },
		"env_signature":           func(s *vmmapi.Spec) { s.App.EncryptedEnv = nil; s.App.EnvSignature = &vmmapi.EnvSignature{} },
		"kms_urls":                func(s *vmmapi.Spec) { s.KMSURLs = []string{"file:///etc"} },
		"guest itself":            func(s *vmmapi.Spec) { s.KMSURLs = []string{"https://127.0.0.1:1"} },
		"gateway_urls: 17":        func(s *vmmapi.Spec) { s.GatewayURLs = make([]string, 17) },
		"image \"../x\"":          func(s *vmmapi.Spec) { s.Image = "../x" },
		"user_config: 4194305":    func(s *vmmapi.Spec) { s.App.UserConfig = make([]byte, 4<<20+1) },
		"resources.memory_mib -1": func(s *vmmapi.Spec) { s.Resources.MemoryMiB = -1 },
	} {
		s := spec()
		edit(&s)
		path := s.ID
		_, err := n.c.Put(t.Context(), s)
		if cvm.CodeOf(err) != cvm.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s (%s): got %v", want, path, err)
		}
	}
	s := spec()
	s.Name, s.Resources.VCPU = "", 0
	if _, err := n.c.Put(t.Context(), s); err == nil || !strings.Contains(err.Error(), "name") || !strings.Contains(err.Error(), "vcpu") {
		t.Errorf("all problems together: %v", err)
	}
	if l, _ := n.c.List(t.Context()); len(l) != 0 {
		t.Errorf("refused specs left %d VMs", len(l))
	}
}

func TestAuthentication(t *testing.T) {
	n := newNode(t, dry.New(dry.Config{}), nil)
	for _, token := range []string{"", "wrong", "Bearer"} {
		c := vmmapi.NewClient("http://"+n.vmm.Addr(), token, nil)
		if _, err := c.Node(t.Context()); cvm.CodeOf(err) != cvm.Unauthenticated {
			t.Errorf("token %q: %v", token, err)
		}
		if err := c.Delete(t.Context(), vmID, false); cvm.CodeOf(err) != cvm.Unauthenticated {
			t.Errorf("token %q: %v", token, err)
		}
	}
	if st, err := os.Stat(n.cfg.TokenFile); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("token file: %v %v", st, err)
	}
	res, err := http.Get("http://" + n.vmm.Addr() + "/v1/nothing")
	if err != nil || res.StatusCode != http.StatusUnauthorized {
		t.Errorf("unknown paths tell nothing to strangers: %v %v", res, err)
	}
}

func TestAdmission(t *testing.T) {
	n := newNode(t, dry.New(dry.Config{}), nil)
	ctx := t.Context()
	s := spec()
	s.Resources = vmmapi.Resources{VCPU: 3, MemoryMiB: 1024, DiskMiB: 4096}
	n.must(n.c.Put(ctx, s))
	n.must(n.c.Start(ctx, s.ID))
	b := s
	b.ID = strings.Replace(vmID, "001", "002", 1)
	n.must(n.c.Put(ctx, b)) // the disk fits
	if _, err := n.c.Start(ctx, b.ID); cvm.CodeOf(err) != cvm.Exhausted || !strings.Contains(err.Error(), "vcpu: 3 wanted, 1 free of 4") {
		t.Fatalf("cpu is full: %v", err)
	}
	if vm, _ := n.c.Get(ctx, b.ID); vm.State != vmmapi.StateCreated {
		t.Fatalf("a refused start leaves the VM as it was: %+v", vm)
	}
	c := s
	c.ID = strings.Replace(vmID, "001", "003", 1)
	if _, err := n.c.Put(ctx, c); cvm.CodeOf(err) != cvm.Exhausted || !strings.Contains(err.Error(), "disk") {
		t.Fatalf("disk is full: %v", err)
	}
	n.must(n.c.Stop(ctx, s.ID))
	n.waitState(vmmapi.StateStopped)
	n.must(n.c.Start(ctx, b.ID))
}

func TestRestartOfTheVMMKeepsEverything(t *testing.T) {
	d := dry.New(dry.Config{})
	n := newNode(t, d, nil)
	ctx := t.Context()
	n.must(n.c.Put(ctx, spec()))
	n.must(n.c.Start(ctx, vmID))
	n.waitState(vmmapi.StateRunning)
	n.stop()
	n.start()
	vm := n.waitState(vmmapi.StateRunning)
	if vm.Boots != 1 || d.Launches(vmID) != 1 {
		t.Fatalf("a running machine must be adopted, not started again: %+v, %d launches", vm, d.Launches(vmID))
	}
	// The host API is served again.
	if err := d.Say(ctx, vmID, guestapi.Notify{Event: "boot.progress", Payload: "hello again"}); err != nil {
		t.Fatal(err)
	}
	// Deleted while the VMM is away: the machine is lost and started again.
	n.stop()
	_ = d.Remove(ctx, vmID, true)
	n.start()
	n.wait("started again", func(v vmmapi.VM) bool { return v.State == vmmapi.StateRunning && v.Boots == 2 })
	// Stopped machines stay stopped.
	n.must(n.c.Stop(ctx, vmID))
	n.waitState(vmmapi.StateStopped)
	before, _ := n.c.Events(ctx, vmID)
	n.stop()
	n.start()
	n.must(n.c.PutApp(ctx, vmID, spec().App)) // goes through the loop once
	if vm := n.waitState(vmmapi.StateStopped); vm.Boots != 2 {
		t.Fatalf("%+v", vm)
	}
	if after, _ := n.c.Events(ctx, vmID); len(after) != len(before)+1 {
		t.Fatalf("a restart of the VMM made events of a stopped VM: %+v", after[len(before):])
	}
}

func TestBootThatEndedWhileTheVMMWasAway(t *testing.T) {
	hold := make(chan struct{})
	d := dry.New(dry.Config{Script: func(machine.Machine) []guestapi.Notify {
		<-hold
		return dry.DefaultScript(machine.Machine{})
	}})
	n := newNode(t, d, nil)
	ctx := t.Context()
	n.must(n.c.Put(ctx, spec()))
	n.must(n.c.Start(ctx, vmID))
	n.wait("launched", func(vmmapi.VM) bool { return true })
	close(hold)
	n.wait("ran", func(v vmmapi.VM) bool { return v.State == vmmapi.StateRunning })
	// Pretend that the last words were missed.
	n.stop()
	edit := func(r *record) { r.VM.State = vmmapi.StateBooting }
	v := n.vmm.vms[vmID]
	edit(&v.rec)
	if err := n.vmm.store.save(&v.rec); err != nil {
		t.Fatal(err)
	}
	n.start()
	if vm := n.waitState(vmmapi.StateRunning); vm.Boots != 1 {
		t.Fatalf("%+v", vm)
	}
}

func TestCrashesAreTriedAgain(t *testing.T) {
	d := dry.New(dry.Config{})
	n := newNode(t, d, nil)
	ctx := t.Context()
	n.must(n.c.Put(ctx, spec()))
	n.must(n.c.Start(ctx, vmID))
	n.waitState(vmmapi.StateRunning)
	for i := range 5 { // an app that served comes back without a limit
		d.Crash(vmID, machine.Exit{Code: 137, OOMKilled: true})
		n.wait("back", func(v vmmapi.VM) bool { return v.State == vmmapi.StateRunning && v.Boots == i+2 })
	}
	ev, _ := n.c.Events(ctx, vmID)
	if !strings.Contains(fmt.Sprint(ev), "out-of-memory") {
		t.Fatalf("no event names the reason: %+v", ev)
	}
	s := spec()
	s.ID, s.Restart = strings.Replace(vmID, "001", "009", 1), "never"
	n.must(n.c.Put(ctx, s))
	n.must(n.c.Start(ctx, s.ID))
	n.waitOther(s.ID, vmmapi.StateRunning)
	d.Crash(s.ID, machine.Exit{Code: 3, Detail: "exit code 3"})
	vm := n.waitOther(s.ID, vmmapi.StateFailed)
	if vm.Error == nil || vm.Error.Reason != "guest-crashed" || !strings.Contains(vm.Error.Message, "exit code 3") {
		t.Fatalf("%+v", vm.Error)
	}
	if d.Launches(s.ID) != 1 {
		t.Fatal("restart never was restarted")
	}
}

func (n *node) waitOther(id, state string) vmmapi.VM {
	n.t.Helper()
	deadline := time.Now().Add(90 * time.Second) // a loaded machine; only failures wait for it
	for {
		vm, err := n.c.Get(n.t.Context(), id)
		if err == nil && vm.State == state {
			return vm
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("never %s: %+v %v", state, vm, err)
		}
		time.Sleep(2 * time.Millisecond) // polling with a deadline
	}
}

func TestBootErrors(t *testing.T) {
	for name, c := range map[string]struct {
		err      vmmapi.VMError
		launches int
	}{
		"refused by the KMS":     {vmmapi.VMError{Reason: kmsapi.ReasonGovernance, Message: "compose hash not allowed", Stage: "4/10 keys", Fix: "register it"}, 1},
		"env rolled back":        {vmmapi.VMError{Reason: kmsapi.ReasonEnvRolledBack, Message: "counter 3 < 4"}, 1},
		"image cannot be pulled": {vmmapi.VMError{Reason: "image-pull", Message: "denied", Stage: "10/10 containers"}, 1},
		"no quorum":              {vmmapi.VMError{Reason: kmsapi.ReasonNoQuorum, Message: "no leader"}, maxFirstAttempts},
		"chain stale":            {vmmapi.VMError{Reason: kmsapi.ReasonChainStale, Message: "head is 90 s old"}, maxFirstAttempts},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := json.Marshal(c.err)
			d := dry.New(dry.Config{Script: func(machine.Machine) []guestapi.Notify {
				return []guestapi.Notify{{Event: "boot.progress", Payload: "4/10 keys"}, {Event: "boot.error", Payload: string(b)}}
			}})
			n := newNode(t, d, nil)
			n.cfg.StopGrace = config.Duration(time.Second)
			n.must(n.c.Put(t.Context(), spec()))
			n.must(n.c.Start(t.Context(), vmID))
			// The guest lingers after its error; make it exit.
			for i := range c.launches {
				n.wait("boot error", func(vmmapi.VM) bool { return n.count("boot.error") == i+1 })
				d.Crash(vmID, machine.Exit{Code: 1})
			}
			vm := n.wait("failed for good", func(v vmmapi.VM) bool { return v.State == vmmapi.StateFailed && !n.alive() })
			if *vm.Error != c.err {
				t.Fatalf("error %+v, want %+v", vm.Error, c.err)
			}
			if d.Launches(vmID) != c.launches {
				t.Fatalf("%d launches, want %d", d.Launches(vmID), c.launches)
			}
			if node, _ := n.c.Node(t.Context()); node.Used.VCPU != 0 {
				t.Fatalf("a failed VM holds CPU: %+v", node.Used)
			}
			n.must(n.c.Start(t.Context(), vmID)) // an order starts it again
			n.wait("another try", func(v vmmapi.VM) bool { return d.Launches(vmID) == c.launches+1 })
		})
	}
}

func (n *node) count(kind string) (c int) {
	ev, err := n.c.Events(n.t.Context(), vmID)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, e := range ev {
		if e.Kind == kind {
			c++
		}
	}
	return c
}

func (n *node) alive() bool {
	v, err := n.vmm.find(vmID)
	if err != nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.inst != nil
}

func TestGuestCannotLie(t *testing.T) {
	d := dry.New(dry.Config{})
	n := newNode(t, d, nil)
	ctx := t.Context()
	n.must(n.c.Put(ctx, spec()))
	n.must(n.c.Start(ctx, vmID))
	n.waitState(vmmapi.StateRunning)
	other := strings.Replace(instanceInfo(), cvm.AppID{1, 2, 3}.String(), cvm.AppID{9}.String(), 1)
	for _, p := range []string{other, "{", `{"app_id":"zz"}`} {
		if err := d.Say(ctx, vmID, guestapi.Notify{Event: "instance.info", Payload: p}); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("instance.info %s: %v", p, err)
		}
	}
}

func TestReadyAfterAStopDoesNotCount(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	d := dry.New(dry.Config{Guest: func(machine.Machine) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { close(asked); <-release })
	}})
	n := newNode(t, d, func(c *Config) { c.StopGrace = config.Duration(20 * time.Second) })
	ctx := t.Context()
	n.must(n.c.Put(ctx, spec()))
	n.must(n.c.Start(ctx, vmID))
	n.waitState(vmmapi.StateRunning)
	n.must(n.c.Stop(ctx, vmID))
	<-asked
	if err := d.Say(ctx, vmID, guestapi.Notify{Event: "ready"}); err != nil {
		t.Fatal(err)
	}
	if vm, err := n.c.Get(ctx, vmID); err != nil || vm.State != vmmapi.StateStopping {
		t.Fatalf("a guest that is being stopped says ready: %s, %v", vm.State, err)
	}
	d.Crash(vmID, machine.Exit{})
	close(release)
	n.waitState(vmmapi.StateStopped)
}

func TestGuestProxy(t *testing.T) {
	var seen *http.Request
	d := dry.New(dry.Config{Guest: func(machine.Machine) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen = r
			switch r.URL.Path {
			case "/v1/containers":
				_, _ = io.WriteString(w, `{"containers":[{"id":"c1"}]}`)
			case "/v1/logs/web":
				_, _ = io.WriteString(w, "line\n")
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			default:
				w.WriteHeader(http.StatusTeapot)
			}
		})
	}})
	n := newNode(t, d, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n.must(n.c.Put(ctx, spec()))
	if _, err := n.c.GuestContainers(ctx, vmID); cvm.ReasonOf(err) != "vm-not-running" {
		t.Fatalf("guest of a VM that does not run: %v", err)
	}
	n.must(n.c.Start(ctx, vmID))
	n.waitState(vmmapi.StateRunning)
	cs, err := n.c.GuestContainers(ctx, vmID)
	if err != nil || len(cs.Containers) != 1 {
		t.Fatalf("%+v %v", cs, err)
	}
	if seen.Header.Get("Authorization") != "" {
		t.Fatal("the VMM's token reached the guest")
	}
	rc, err := n.c.GuestLogs(ctx, vmID, "web", map[string][]string{"follow": {"true"}})
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(rc, b); err != nil || string(b) != "line\n" {
		t.Fatalf("streamed logs: %q %v", b, err)
	}
	if seen.URL.Query().Get("follow") != "true" {
		t.Fatal("query lost")
	}
	rc.Close()
	if _, err := n.c.GuestEvidence(ctx, vmID, nil); cvm.CodeOf(err) != cvm.Invalid {
		t.Fatalf("evidence without nonce: %v", err)
	}
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+n.vmm.Addr()+"/v1/vms/"+vmID+"/guest/shutdown", nil)
	token, _ := EnsureToken(n.cfg.TokenFile)
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil || res.StatusCode != http.StatusNotFound {
		t.Fatalf("shutdown must not be proxied: %v %v", res, err)
	}
}

func TestStopOnExitKeepsWhatIsWanted(t *testing.T) {
	d := dry.New(dry.Config{})
	n := newNode(t, d, func(c *Config) { c.StopOnExit = true })
	ctx := t.Context()
	n.must(n.c.Put(ctx, spec()))
	n.must(n.c.Start(ctx, vmID))
	n.waitState(vmmapi.StateRunning)
	n.stop()
	if _, alive, err := d.Adopt(ctx, vmID); err != nil || alive {
		t.Fatalf("the machine must be stopped: alive %v, %v", alive, err)
	}
	n.start()
	vm := n.wait("back", func(v vmmapi.VM) bool { return v.State == vmmapi.StateRunning && v.Boots == 2 })
	if vm.Restarts != 0 || vm.Error != nil {
		t.Fatalf("coming back is not a crash: %+v", vm)
	}
}

func TestBrokenRecordIsAnError(t *testing.T) {
	n := newNode(t, dry.New(dry.Config{}), nil)
	n.must(n.c.Put(t.Context(), spec()))
	n.stop()
	path := filepath.Join(n.vmm.store.vmDir(vmID), "record.json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(n.cfg); err == nil || !strings.Contains(err.Error(), vmID) {
		t.Fatalf("a broken record must not be skipped: %v", err)
	}
}
