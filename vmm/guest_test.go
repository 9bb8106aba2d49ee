package vmm

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/internal/registry"
	"github.com/confidential-cloud/phala/templates"
	"github.com/confidential-cloud/phala/templates/builder"
	"github.com/confidential-cloud/phala/vmm/container"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// TestRealGuest runs the hello app in the real guest image, with the real guest
// agent, simulated hardware and registry: everything but KMS and gateway.
func TestRealGuest(t *testing.T) {
	images := os.Getenv("PHALA_IMAGES")
	if images == "" {
		images = "../build/images"
	}
	images, _ = filepath.Abs(images)
	if _, err := os.Stat(filepath.Join(images, "phala-container", "digest.txt")); err != nil {
		t.Skipf("SKIPPED: no guest image in %s; run `make image`", images)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	net0 := container.Network{Name: "vmm-guest-test", Subnet: "172.31.203.0/24", Bridge: "vmmguest0"}
	gw, err := container.EnsureNetwork(ctx, net0)
	if err != nil {
		t.Skipf("SKIPPED, no docker engine: %v", err)
	}
	dir, err := os.MkdirTemp("", "vmmg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	hw, err := simtee.New(simtee.Config{Dir: filepath.Join(dir, "tee"), ControlSock: filepath.Join(dir, "tee.sock")})
	if err != nil {
		t.Fatal(err)
	}
	background(t, hw.Run, hw.Ready())
	reg, err := registry.New(registry.Config{Dir: filepath.Join(dir, "registry"), Addrs: []string{net.JoinHostPort(gw, "0")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := builder.BuildHello(ctx, "..", reg); err != nil {
		t.Fatal(err)
	}
	background(t, reg.Run, reg.Ready())

	driver, err := container.New(container.Config{Network: net0, TEE: simtee.NewControl(filepath.Join(dir, "tee.sock")), Prefix: "vmm-guest-test-"})
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t, nil, func(c *Config) {
		c.Driver, c.Machines, c.ImagesDir, c.DefaultImage = "container", driver, images, "phala-container"
		c.Network, c.TEESocket = net0, filepath.Join(dir, "tee.sock")
		c.DockerRegistry, c.InsecureRegistries = "http://"+reg.Addrs()[0], []string{reg.Addrs()[0]}
		c.StopGrace = config.Duration(30 * time.Second)
		c.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	})
	s := spec()
	s.ID = uuid.NewString()
	s.App = vmmapi.App{AppCompose: helloCompose(t)}
	s.KMSURLs = nil
	s.Resources.MemoryMiB = 1024
	t.Cleanup(func() {
		if err := container.Purge(context.Background(), net0, "vmm-guest-test-", []string{s.ID}); err != nil {
			t.Error(err)
		}
	})
	n.must(n.c.Put(ctx, s))
	n.must(n.c.Start(ctx, s.ID))
	vm := n.untilReady(ctx, s.ID)
	t.Logf("ready after %s, instance %s", vm.ReadyAt.Sub(vm.StartedAt), vm.InstanceID)
	if vm.InstanceID.IsZero() {
		t.Error("no instance id")
	}
	cs, err := n.c.GuestContainers(ctx, s.ID)
	if err != nil || len(cs.Containers) != 1 || cs.Containers[0].State != "running" {
		t.Fatalf("containers %+v, %v", cs, err)
	}
	var info map[string]any
	if err := n.c.GuestInfo(ctx, s.ID, &info); err != nil || info["app_id"] != s.AppID.String() {
		t.Fatalf("info %v, %v", info["app_id"], err)
	}
	logs, err := n.c.GuestLogs(ctx, s.ID, strings.TrimPrefix(cs.Containers[0].Names[0], "/"), map[string][]string{"text": {"true"}})
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(logs); !strings.Contains(string(b), "hello listens") {
		t.Errorf("logs %q", b)
	}
	// The VMM dies and comes back; the guest runs on.
	n.stop()
	n.start()
	vm = n.waitOther(s.ID, vmmapi.StateRunning)
	if vm.Boots != 1 {
		t.Fatalf("the guest was started again: %+v", vm)
	}
	if _, err := n.c.GuestContainers(ctx, s.ID); err != nil {
		t.Error("after a restart of the VMM:", err)
	}
	before := vm.InstanceID
	n.must(n.c.Restart(ctx, s.ID))
	n.waitBoot(ctx, s.ID, 2)
	vm = n.untilReady(ctx, s.ID)
	if vm.Error != nil {
		t.Errorf("after a restart: %+v", vm.Error)
	}
	t.Logf("second boot: ready after %s; instance %s, before %s", vm.ReadyAt.Sub(vm.StartedAt), vm.InstanceID, before)
	n.must(n.c.Stop(ctx, s.ID))
	n.waitOther(s.ID, vmmapi.StateStopped)
	inst, _, err := driver.Adopt(ctx, s.ID)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := inst.Wait(ctx); err != nil || e.Code != 0 {
		t.Errorf("the guest did not stop politely: %+v %v", e, err)
	}
	if rc, err := inst.Console(ctx, machine.ConsoleOptions{Tail: 15}); err == nil && t.Failed() {
		b, _ := io.ReadAll(rc)
		t.Logf("console:\n%s", b)
	}
}

func helloCompose(t *testing.T) []byte {
	t.Helper()
	hello, err := templates.Get("hello")
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]any{
		"manifest_version": 2, "name": "hello", "runner": "docker-compose", "docker_compose_file": hello.Compose,
		"public_logs": true, "public_sysinfo": true, "kms_enabled": false, "gateway_enabled": false,
		"local_key_provider_enabled": false, "key_provider": "none", "allowed_envs": []string{"GREETING"}, "no_instance_id": false,
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func background(t *testing.T, run func(context.Context) error, ready <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
}

func (n *node) waitBoot(ctx context.Context, id string, boot int) {
	n.t.Helper()
	for ctx.Err() == nil {
		if vm, err := n.c.Get(ctx, id); err == nil && vm.Boots >= boot {
			return
		}
		time.Sleep(20 * time.Millisecond) // polling until ctx ends
	}
	n.t.Fatal("never booted again")
}

// untilReady waits for running, and fails with the console when the boot fails.
func (n *node) untilReady(ctx context.Context, id string) vmmapi.VM {
	n.t.Helper()
	for ctx.Err() == nil {
		vm, err := n.c.Get(ctx, id)
		if err == nil && vm.State == vmmapi.StateRunning {
			return vm
		}
		if err == nil && vm.State == vmmapi.StateFailed || cvm.CodeOf(err) == cvm.NotFound {
			ev, _ := n.c.Events(ctx, id)
			var console []byte
			if rc, err := n.c.Log(ctx, id, vmmapi.LogQuery{Tail: 50, Follow: false}); err == nil {
				console, _ = io.ReadAll(rc)
			}
			n.t.Fatalf("boot failed: %+v\nevents %+v\nconsole:\n%s", vm.Error, ev, console)
		}
		time.Sleep(50 * time.Millisecond) // polling until ctx ends
	}
	n.t.Fatal("never ready")
	return vmmapi.VM{}
}
