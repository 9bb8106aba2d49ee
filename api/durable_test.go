package api_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// The test binary is also the API process that the tests kill.
func TestMain(m *testing.M) {
	if child := os.Getenv("PHALA_TEST_API"); child != "" {
		if err := serve(child); err != nil {
			slog.Error("child", "err", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serve(config string) error {
	var cfg api.Config
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		return err
	}
	cfg.Log, cfg.Keys, cfg.Apps = slog.New(slog.NewTextHandler(os.Stderr, nil)), fakeKMS{}, allowsAll{}
	s, err := api.New(cfg)
	if err != nil {
		return err
	}
	return s.Run(context.Background())
}

// child runs the API in a process of its own, on the world's state.
func (w *world) child() *exec.Cmd {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // to find a free port
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := w.cfg
	cfg.Listen, cfg.Log, cfg.Keys = l.Addr().String(), nil, nil
	_ = l.Close()
	b, err := json.Marshal(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "PHALA_TEST_API="+string(b))
	cmd.Stderr = w.logs
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { kill(cmd) })
	w.url = "http://" + cfg.Listen
	w.c = &cloudapi.Client{Base: w.url + cloudapi.Prefix, Key: w.key}
	w.until("the API process answers", func() bool { _, err := w.c.Me(w.t.Context()); return err == nil })
	return cmd
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill() // SIGKILL; an error means it is dead
	_ = cmd.Wait()
}

// The process dies right after the VMM did what it was asked and before the answer
// arrives: the worst moment. Each operation still takes effect exactly once.
func TestKilledAPICompletesOnce(t *testing.T) {
	tests := []struct {
		name, dieAt   string // method and end of path of the VMM call
		begin         func(*world) error
		status        string
		puts, starts  int
		restarts, del int
	}{
		{"deploy, VM defined", "PUT ", nil, cloudapi.StatusRunning, 1, 1, 0, 0},
		{"deploy, VM started", "POST /start", nil, cloudapi.StatusRunning, 1, 1, 0, 0},
		{"restart", "POST /restart", func(w *world) error { _, err := w.c.Restart(w.t.Context(), "my-app"); return err }, cloudapi.StatusRunning, 1, 1, 1, 0},
		{"stop", "POST /stop", func(w *world) error { _, err := w.c.Stop(w.t.Context(), "my-app"); return err }, cloudapi.StatusStopped, 1, 1, 0, 0},
		{"update, app written", "PUT /app", updateTo128, cloudapi.StatusRunning, 1, 1, 1, 0},
		{"update, VM restarted", "POST /restart", updateTo128, cloudapi.StatusRunning, 1, 1, 1, 0},
		{"update in place", "POST /update", func(w *world) error { w.vmm.knowsUpdates(); return updateTo128(w) }, cloudapi.StatusRunning, 1, 1, 0, 0},
		{"delete", "DELETE ", func(w *world) error { return w.c.Delete(w.t.Context(), "my-app", "delete") }, cloudapi.StatusDeleted, 1, 1, 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.stop() // it only made the key
			cmd := w.child()
			if tt.begin != nil {
				w.deploy("my-app", 1, nil)
			}
			hit, released := make(chan struct{}, 64), make(chan struct{})
			method, end, _ := strings.Cut(tt.dieAt, " ")
			w.vmm.mu.Lock()
			w.vmm.after = func(call string) {
				m, path, _ := strings.Cut(call, " ")
				if m == method && strings.HasSuffix(path, end) && (end != "" || strings.Count(path, "/") == 3) {
					hit <- struct{}{}
					<-released
				}
			}
			w.vmm.mu.Unlock()
			if tt.begin == nil {
				w.commit("my-app", 1, nil)
			} else if err := tt.begin(w); err != nil {
				t.Fatal(err)
			}
			select {
			case <-hit:
			case <-time.After(20 * time.Second):
				t.Fatalf("the VMM never saw %s\n%s", tt.dieAt, w.logs)
			}
			all, err := w.c.CVMs(t.Context())
			if err != nil || len(all) != 1 {
				t.Fatalf("before the kill: %d CVMs, %v", len(all), err)
			}
			kill(cmd)
			close(released)
			w.child()
			if done := w.wait(*all[0].VMUUID, 0); done.Status != tt.status {
				t.Fatalf("ended %+v, want %s\n%s", done, tt.status, w.logs)
			}
			app := w.vmm.count("PUT app")
			got := [4]int{w.vmm.count("PUT") - app, w.vmm.count("POST start"), w.vmm.count("POST restart"), 0}
			want := [4]int{tt.puts, tt.starts, tt.restarts, 0}
			if tt.status != cloudapi.StatusDeleted { // deleting what is gone is free
				want[3], got[3] = tt.del, w.vmm.count("DELETE")
			}
			if n := w.vmm.count("POST update"); n != 1 && tt.name == "update in place" {
				t.Errorf("%d updates", n)
			}
			if got != want {
				t.Errorf("the VMM saw puts, starts, restarts, deletes %v, want %v: %v", got, want, w.vmm.calls)
			}
		})
	}
}

func updateTo128(w *world) error {
	p, err := w.c.ProvisionCompose(w.t.Context(), "my-app", map[string]any{"docker_compose_file": strings.Replace(composeYAML, "1.27", "1.28", 1)})
	if err != nil {
		return err
	}
	w.chain.allow(p.ComposeHash)
	_, err = w.c.UpdateCompose(w.t.Context(), "my-app", cloudapi.ComposeUpdate{ComposeHash: p.ComposeHash})
	return err
}

func TestGracefulRestartGoesOn(t *testing.T) {
	w := newWorld(t, nil)
	release := make(chan struct{})
	w.vmm.setBoot(func(vmmapi.VM) *vmmapi.VMError { <-release; return nil })
	vm := w.commit("my-app", 1, nil)
	w.until("the VM starts", func() bool { return w.vmm.count("POST start") == 1 })
	w.stop()
	w.start()
	close(release)
	if done := w.wait(*vm.VMUUID, 0); done.Status != cloudapi.StatusRunning {
		t.Fatalf("ended %+v", done)
	}
	if n := w.vmm.count("POST start"); n != 1 {
		t.Errorf("%d starts", n)
	}
}

func TestVMMThatDoesNotAnswer(t *testing.T) {
	w := newWorld(t, nil)
	p, err := w.c.Provision(t.Context(), cloudapi.ProvisionRequest{Name: "my-app", ComposeFile: compose(nil)})
	if err != nil {
		t.Fatal(err)
	}
	// It goes away after the placement was decided, while the VM is defined.
	w.vmm.mu.Lock()
	w.vmm.after = func(call string) {
		if strings.HasPrefix(call, "PUT") {
			w.vmm.down.Store(true)
		}
	}
	w.vmm.mu.Unlock()
	vm, err := w.c.Commit(t.Context(), cloudapi.CommitRequest{AppID: w.app(1), ComposeHash: p.ComposeHash})
	if err != nil {
		t.Fatal(err)
	}
	w.until("an event about it", func() bool {
		events, err := w.c.Events(t.Context(), *vm.VMUUID, 0)
		return err == nil && strings.Contains(toJSON(events), `"kind":"retry"`)
	})
	d, err := w.c.CVM(t.Context(), "my-app")
	if err != nil || d.Status != cloudapi.StatusStarting && d.Status != cloudapi.StatusCreating || d.Progress == nil {
		t.Errorf("while it is down: %q %+v %v", d.Status, d.Progress, err)
	}
	w.vmm.down.Store(false)
	if done := w.wait(*vm.VMUUID, 0); done.Status != cloudapi.StatusRunning {
		t.Fatalf("ended %+v", done)
	}
}

func toJSON(v any) string { b, _ := json.Marshal(v); return string(b) }

func TestOrderAndOvertaking(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	release := make(chan struct{})
	w.vmm.setBoot(func(vmmapi.VM) *vmmapi.VMError { <-release; return nil })
	t.Cleanup(func() { w.vmm.wg.Wait() })
	vm := w.commit("my-app", 1, nil)
	w.until("the VM starts", func() bool { return w.vmm.count("POST start") == 1 })
	for name, do := range map[string]func() error{
		"restart": func() error { _, err := w.c.Restart(ctx, "my-app"); return err },
		"start":   func() error { _, err := w.c.Start(ctx, "my-app"); return err },
		"update":  func() error { return updateTo128(w) },
	} {
		if err := do(); cvm.CodeOf(err) != cvm.Conflict || cvm.ReasonOf(err) != "busy" {
			t.Errorf("%s during a deploy: %v", name, err)
		}
	}
	v, err := w.c.Stop(ctx, "my-app")
	if err != nil {
		t.Fatal(err)
	}
	if done := w.wait("my-app", v.EventSeq); done.Status != cloudapi.StatusStopped {
		t.Fatalf("stop during a deploy ended %+v", done)
	}
	if err := w.c.Delete(ctx, "my-app", "delete"); err != nil {
		t.Fatal(err)
	}
	if done := w.wait(*vm.VMUUID, v.EventSeq); done.Status != cloudapi.StatusDeleted {
		t.Fatalf("delete ended %+v", done)
	}
	close(release)
}

func TestCrashIsNoticed(t *testing.T) {
	w := newWorld(t, nil)
	vm, _ := w.deploy("my-app", 1, nil)
	w.vmm.mu.Lock()
	v := w.vmm.vms[*vm.VMUUID]
	v.State, v.Error = vmmapi.StateFailed, &vmmapi.VMError{Reason: "crashed", Message: "the guest agent exited"}
	w.vmm.mu.Unlock()
	w.until("the CVM is failed", func() bool {
		d, err := w.c.CVM(t.Context(), "my-app")
		return err == nil && d.Status == cloudapi.StatusFailed && d.Error != nil && d.Error.Reason == "crashed"
	})
	w.vmm.mu.Lock()
	v.State, v.Error, v.Boots = vmmapi.StateRunning, nil, 2
	w.vmm.mu.Unlock()
	w.until("it runs again", func() bool {
		d, err := w.c.CVM(t.Context(), "my-app")
		return err == nil && d.Status == cloudapi.StatusRunning && d.Error == nil
	})
}
