// Package api tests the cloud API over the real VMM with its dry driver.
package api_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/machine"
)

type noKMS struct{}

func (noKMS) EnvKey(context.Context, cvm.AppID) (kmsapi.EnvKey, error) {
	return kmsapi.EnvKey{}, cvm.Errorf(cvm.Unavailable, "no KMS in this test")
}

func (noKMS) Meta(context.Context) (kmsapi.Meta, error) {
	return kmsapi.Meta{}, cvm.Errorf(cvm.Unavailable, "no KMS in this test")
}

type part struct {
	cancel context.CancelFunc
	done   chan error
}

func (p part) stop(t *testing.T) {
	t.Helper()
	p.cancel()
	if err := <-p.done; err != nil {
		t.Error(err)
	}
}

func begin(run func(context.Context) error) part {
	ctx, cancel := context.WithCancel(context.Background())
	p := part{cancel, make(chan error, 1)}
	go func() { p.done <- run(ctx) }()
	return p
}

func startVMM(t *testing.T, cfg vmm.Config) (*vmm.VMM, part) {
	t.Helper()
	m, err := vmm.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := begin(m.Run)
	select {
	case <-m.Ready():
	case err := <-p.done:
		t.Fatal(err)
	}
	return m, p
}

func TestOverTheRealVMM(t *testing.T) {
	dir := t.TempDir()
	sock, err := os.MkdirTemp("", "api") // short: sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sock) })
	log := slog.New(slog.DiscardHandler)
	var refuse atomic.Int32 // boots
	script := func(m machine.Machine) []guestapi.Notify {
		if m.Name == "refused-app" || refuse.Add(-1) >= 0 {
			return []guestapi.Notify{{Event: "boot.progress", Payload: "4/10 keys"},
				{Event: "boot.error", Payload: `{"reason":"governance-denied","message":"compose hash not allowed","stage":"4 keys"}`}}
		}
		return dry.DefaultScript(m)
	}
	vc := vmm.Default()
	vc.Listen, vc.TokenFile, vc.Dir, vc.RunDir, vc.ImagesDir = freeAddr(t), filepath.Join(dir, "token"), filepath.Join(dir, "vmm"), sock, filepath.Join(dir, "images")
	vc.Driver, vc.Machines, vc.Log = "dry", dry.New(dry.Config{Script: script}), log
	vc.Capacity = vmm.Capacity{VCPU: 4, MemoryMiB: 8192, DiskMiB: 200 << 10}
	vc.StopOnExit = false
	_, vp := startVMM(t, vc)
	defer func() { vp.stop(t) }()

	ac := api.DefaultConfig()
	ac.Dir, ac.Log, ac.Keys, ac.KMS.RootSPKI = filepath.Join(dir, "api"), log, noKMS{}, "3059"
	ac.Nodes = []api.NodeConfig{{URL: "http://" + vc.Listen, TokenFile: vc.TokenFile}}
	ac.KMS.URLs, ac.KMS.GuestURLs = []string{"https://172.31.77.1:8701"}, []string{"https://172.31.77.1:8701"}
	ac.Gateway = api.GatewayConfig{Domain: "dev.localhost", Port: 8443, GuestURLs: []string{"https://172.31.77.1:8740"}}
	ac.Chain = api.ChainConfig{ID: 31337, Name: "dev", Contract: "0x1111111111111111111111111111111111111111"}
	ac.Poll, ac.Sync = 20*time.Millisecond, 100*time.Millisecond
	s, err := api.New(ac)
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.NewAdminKey(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ap := begin(func(ctx context.Context) error { return s.Serve(ctx, l) })
	defer func() { ap.stop(t) }()
	c := &cloudapi.Client{Base: "http://" + l.Addr().String() + cloudapi.Prefix, Key: key}

	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	deploy := func(name string, n byte) (cloudapi.VM, cloudapi.Done, string) {
		t.Helper()
		p, err := c.Provision(ctx, cloudapi.ProvisionRequest{Name: name, InstanceType: "tdx.small", DiskSize: 20,
			ComposeFile: map[string]any{"docker_compose_file": "services:\n  web:\n    image: nginx:1.27\n"}})
		if err != nil {
			t.Fatal(err)
		}
		vm, err := c.Commit(ctx, cloudapi.CommitRequest{AppID: cvm.AppID{n}.String(), ComposeHash: p.ComposeHash})
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		done, err := c.Progress(ctx, *vm.VMUUID, vm.EventSeq, func(e cloudapi.Event) { told = append(told, e.Kind+" "+e.Message) })
		if err != nil {
			t.Fatal(err)
		}
		return vm, done, strings.Join(told, "\n")
	}
	vm, done, told := deploy("good-app", 1)
	if done.Status != cloudapi.StatusRunning || !strings.Contains(told, "progress 10/10 containers") {
		t.Fatalf("deploy ended %+v\n%s", done, told)
	}
	_, done, told = deploy("refused-app", 2)
	if done.Status != cloudapi.StatusFailed || done.Error == nil || done.Error.Reason != "governance-denied" || !strings.Contains(told, "4/10 keys") {
		t.Fatalf("refused deploy ended %+v\n%s", done, told)
	}
	// The VMM goes away and comes back: nothing is done twice, the app runs on.
	vp.stop(t)
	v, err := c.Restart(ctx, "good-app")
	if err != nil {
		t.Fatal(err)
	}
	_, vp = startVMM(t, vc)
	if done, err := c.Progress(ctx, "good-app", v.EventSeq, nil); err != nil || done.Status != cloudapi.StatusRunning {
		t.Fatalf("restart over an absent VMM: %+v, %v", done, err)
	}
	if n := vc.Machines.(*dry.Driver).Launches(*vm.VMUUID); n != 2 {
		t.Errorf("%d launches, want one for the deploy and one for the restart", n)
	}
	for _, step := range []struct {
		do   func(context.Context, string) (cloudapi.VM, error)
		want string
	}{{c.Stop, cloudapi.StatusStopped}, {c.Start, cloudapi.StatusRunning}} {
		v, err := step.do(ctx, "good-app")
		if err != nil {
			t.Fatal(err)
		}
		if done, err := c.Progress(ctx, "good-app", v.EventSeq, nil); err != nil || done.Status != step.want {
			t.Fatalf("%+v, %v, want %s", done, err, step.want)
		}
	}
	resize := func(vcpu int) cloudapi.Done {
		t.Helper()
		var a cloudapi.Accepted
		if err := c.Do(ctx, "PATCH", "/cvms/good-app/resources", map[string]any{"vcpu": vcpu, "memory": 2048}, &a); err != nil {
			t.Fatal(err)
		}
		done, err := c.Progress(ctx, "good-app", a.EventSeq, nil)
		d, err2 := c.CVM(ctx, "good-app")
		if err := errors.Join(err, err2); err != nil || done.Error == nil && *d.Resource.VCPU != vcpu || done.Error != nil && *d.Resource.VCPU == vcpu {
			t.Fatalf("resize to %d: %v; done %+v, CVM %+v", vcpu, err, done, d.Resource)
		}
		return done
	}
	if done := resize(2); done.Status != cloudapi.StatusRunning || done.Error != nil {
		t.Errorf("an update in place: %+v", done)
	}
	refuse.Store(1)
	if done := resize(1); done.Status != cloudapi.StatusRunning || done.Error == nil || done.Error.Reason != "governance-denied" {
		t.Errorf("an update that is rolled back: %+v", done)
	}
	for _, name := range []string{"good-app", "refused-app"} {
		d, err := c.CVM(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Delete(ctx, name, "delete"); err != nil {
			t.Fatal(err)
		}
		if done, err := c.Progress(ctx, *d.VMUUID, 0, nil); err != nil || done.Status != cloudapi.StatusDeleted {
			t.Fatalf("delete: %+v, %v", done, err)
		}
	}
	if n, err := c.Nodes(ctx); err != nil || n.Nodes[0].RemainingVCPU != 4 {
		t.Errorf("after deleting all: %+v, %v", n, err)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
