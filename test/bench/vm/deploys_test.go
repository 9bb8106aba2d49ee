package vm

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// deployRegion is where the real VMMs are: all nodes are looked at, these take it.
const deployRegion = "deploys"

// dryVMM is a real VMM whose machines are empty.
type dryVMM struct {
	url    string
	driver *dry.Driver
	client *vmmapi.Client
}

// dryNodes start VMMs that have together a little more room than n CVMs take.
func dryNodes(t *testing.T, dir, token string, n int) (out []dryVMM) {
	t.Helper()
	const many = 8
	for i := range many {
		home := filepath.Join(dir, fmt.Sprint("node", i))
		if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		cfg := dryConfig(t, home, n/many+2)
		driver := dry.New(dry.Config{})
		cfg.TokenFile, cfg.Node.Region, cfg.Machines = token, deployRegion, driver
		_, stop := startVMM(t, cfg)
		t.Cleanup(stop)
		secret, err := os.ReadFile(token)
		if err != nil {
			t.Fatal(err)
		}
		url := "http://" + cfg.Listen
		out = append(out, dryVMM{url, driver, vmmapi.NewClient(url, strings.TrimSpace(string(secret)), nil)})
	}
	return out
}

// dryConfig is a VMM with room for n VMs of bench's size.
func dryConfig(t *testing.T, dir string, n int) vmm.Config {
	t.Helper()
	sock, err := os.MkdirTemp("", "bv") // short: sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sock) })
	cfg := vmm.Default()
	cfg.Listen, cfg.TokenFile, cfg.Dir, cfg.RunDir, cfg.ImagesDir = freeAddr(t), filepath.Join(dir, "token"), filepath.Join(dir, "vmm"), sock, filepath.Join(dir, "images")
	cfg.Driver, cfg.Log = "dry", slog.New(slog.DiscardHandler)
	cfg.Capacity = vmm.Capacity{VCPU: n, MemoryMiB: n * 2048, DiskMiB: n * (20 << 10)}
	cfg.Limits.MaxVMs, cfg.StopOnExit = n+1, false
	return cfg
}

// deployAll begins all deploys at once; each is a client of its own. It returns the
// CVMs' ids.
func deployAll(t *testing.T, api cloudAPI, vmms []dryVMM, out *strings.Builder) (made []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	var mu sync.Mutex
	var provision, commit, running spread
	var wg sync.WaitGroup
	before, begin := cpu(api.pid), time.Now()
	for i := range *deploys {
		wg.Go(func() {
			t0 := time.Now()
			p, err := api.Provision(ctx, cloudapi.ProvisionRequest{Name: fmt.Sprintf("bench-%d", i), InstanceType: "tdx.small", DiskSize: 20, Region: deployRegion,
				ComposeFile: map[string]any{"docker_compose_file": fmt.Sprintf("services:\n  web:\n    image: nginx:1.27\n    environment:\n      - N=%d\n", i)}})
			if err != nil {
				t.Errorf("provision %d: %v", i, err)
				return
			}
			t1 := time.Now()
			vm, err := api.Commit(ctx, cloudapi.CommitRequest{AppID: *p.AppID, ComposeHash: p.ComposeHash})
			if err != nil {
				t.Errorf("commit %d: %v", i, err)
				return
			}
			t2 := time.Now()
			done, err := api.Progress(ctx, *vm.VMUUID, vm.EventSeq, nil)
			if err != nil || done.Status != cloudapi.StatusRunning {
				t.Errorf("deploy %d ended %+v, %v", i, done, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			provision, commit, running = append(provision, t1.Sub(t0)), append(commit, t2.Sub(t1)), append(running, time.Since(t0))
			made = append(made, *vm.VMUUID)
		})
	}
	wg.Wait()
	took := time.Since(begin)
	if t.Failed() {
		t.FailNow()
	}
	fmt.Fprintf(out, "\n| of %d deploys begun at once, to %d nodes with room for %d | p50 ms | p95 ms | most |\n|---|---|---|---|\n| provision | %s |\n| commit | %s |\n| until running | %s |\n",
		*deploys, len(vmms), (*deploys/len(vmms)+2)*len(vmms), provision.cells(), commit.cells(), running.cells())
	fmt.Fprintf(out, "\n%.1f deploys per second; processor of the API per deploy: %s ms.\n", float64(*deploys)/took.Seconds(), millis((cpu(api.pid)-before)/time.Duration(*deploys)))
	return made
}

// checkDeploys looks for what was lost, done twice or done in another order.
func checkDeploys(t *testing.T, api cloudAPI, vmms []dryVMM, made []string) {
	t.Helper()
	ctx := t.Context()
	on := map[string]int{}
	total := 0
	for i, v := range vmms {
		list, err := v.client.List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		total += len(list)
		for _, vm := range list {
			on[vm.Spec.ID]++
			if n := v.driver.Launches(vm.Spec.ID); n != 1 || vm.State != vmmapi.StateRunning || vm.Boots != 1 {
				t.Errorf("node %d: VM %s is %s, launched %d times, %d boots", i, vm.Spec.ID, vm.State, n, vm.Boots)
			}
		}
		if room := *deploys/len(vmms) + 2; len(list) > room {
			t.Errorf("node %d has %d VMs, room for %d", i, len(list), room)
		}
	}
	if total != *deploys || len(made) != *deploys {
		t.Errorf("%d deploys made %d CVMs and %d VMs", *deploys, len(made), total)
	}
	for _, id := range made {
		if on[id] != 1 {
			t.Errorf("CVM %s has %d VMs", id, on[id])
		}
		if err := inOrder(ctx, api, id); err != nil {
			t.Errorf("CVM %s: %v", id, err)
		}
	}
}

// inOrder reads a CVM's events: numbered upwards, one deploy, one that it runs.
func inOrder(ctx context.Context, api cloudAPI, id string) error {
	events, err := api.Events(ctx, id, 0)
	if err != nil {
		return err
	}
	var last int64
	seen := map[string]int{}
	for _, e := range events {
		if e.Seq <= last {
			return fmt.Errorf("event %d after %d", e.Seq, last)
		}
		last = e.Seq
		if e.Kind == cloudapi.EventOperation || e.Kind == cloudapi.EventStatus {
			seen[e.Kind+" "+e.Status]++
		}
	}
	if seen[cloudapi.EventOperation+" "] != 1 || seen[cloudapi.EventStatus+" "+cloudapi.StatusRunning] != 1 {
		return fmt.Errorf("events: %v", seen)
	}
	return nil
}
