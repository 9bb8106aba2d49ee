package vm

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store/storetest"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/dry"
)

// TestAPISQLite is the cloud API with many nodes and CVMs on the embedded database.
func TestAPISQLite(t *testing.T) { scale(t, "api-sqlite", func() string { return "" }) }

// TestAPIPostgres is the same on PostgreSQL.
func TestAPIPostgres(t *testing.T) {
	scale(t, "api-postgres", func() string { return storetest.StartPostgres(t).NewDatabase(t) })
}

func scale(t *testing.T, name string, database func() string) {
	t.Helper()
	if os.Getenv("PHALA_LONG") == "" && *write == "" {
		t.Skip("SKIPPED: minutes of the machine; PHALA_LONG=1 runs it")
	}
	f := newFleet(t)
	dir := t.TempDir()
	c := childConfig{Dir: filepath.Join(dir, "api"), DatabaseURL: database(), Token: filepath.Join(dir, "token")}
	if err := os.Mkdir(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	url := dryNode(t, dir, c.Token, *deploys)
	for i := range *nodes {
		c.Nodes = append(c.Nodes, f.url(i))
	}
	c.Nodes = append(c.Nodes, url)

	var out strings.Builder
	fmt.Fprintf(&out, "%d nodes of which one is a real VMM (driver `dry`).\n\n| CVMs | start | node asked every | API at rest: processor | memory |\n|---|---|---|---|---|\n", *nodes+1)
	seededTo := 0
	var api cloudAPI
	for _, n := range []int{0, *cvms / 10, *cvms} {
		seed(t, c, f, seededTo, n)
		seededTo = n
		begin := time.Now()
		api = startAPI(t, c)
		if _, err := api.Me(t.Context()); err != nil {
			t.Fatal(err)
		}
		up := time.Since(begin)
		waitAsked(t, f, int64(*nodes))
		asked, before, from := f.asked.Load(), cpu(api.pid), time.Now()
		waitAsked(t, f, int64(2*(*nodes)))
		took := time.Since(from)
		every := time.Duration(float64(took) * float64(*nodes) / float64(f.asked.Load()-asked))
		fmt.Fprintf(&out, "| %d | %.1f s | %.1f s | %.0f %% of a core | %.0f MiB |\n", n, up.Seconds(), every.Seconds(),
			100*ratio(cpu(api.pid)-before, took), rss(api.pid))
		if n != *cvms {
			api.stop()
		}
	}
	measureReads(t, api, &out)
	t.Log("\n" + out.String()) // also if the deploys take too long
	measureDeploys(t, api, &out)
	fmt.Fprintf(&out, "\nMemory of the API after all of this: %.0f MiB.\n", rss(api.pid))
	publish(t, name, out.String())
}

// waitAsked waits until the fleet was asked n times more.
func waitAsked(t *testing.T, f *fleet, n int64) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for until := f.asked.Load() + n; f.asked.Load() < until; {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("the API does not ask its nodes")
		}
	}
}

// dryNode is a real VMM whose machines are empty.
func dryNode(t *testing.T, dir, token string, n int) string {
	t.Helper()
	cfg := dryConfig(t, dir, n)
	cfg.TokenFile = token
	cfg.Machines = dry.New(dry.Config{})
	_, stop := startVMM(t, cfg)
	t.Cleanup(stop)
	return "http://" + cfg.Listen
}

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
	cfg.Capacity = vmm.Capacity{VCPU: n + 100, MemoryMiB: (n + 1000) * 2048, DiskMiB: (n + 100) * (20 << 10)}
	cfg.Limits.MaxVMs, cfg.StopOnExit = n+1, false
	return cfg
}

// measureReads asks what clients ask, in turn, while the API does its other work.
func measureReads(t *testing.T, api cloudAPI, out *strings.Builder) {
	t.Helper()
	mid := *cvms / 2
	paths := []string{
		"/cvms/paginated?page=1&page_size=30", fmt.Sprintf("/cvms/paginated?page=%d&page_size=100", max(mid/100, 1)), "/cvms/" + seededUUID(mid), "/cvms/" + seededName(mid),
		"/cvms/" + seededUUID(mid) + "/state", "/apps?page=1&page_size=30", "/apps?page=1&page_size=30&search=" + seededName(mid), "/apps/" + seededApp(mid),
		"/apps/" + seededApp(mid) + "/revisions", "/teepods/available",
	}
	times := make([]spread, len(paths))
	for range *reads {
		for i, p := range paths {
			times[i].time(func() { get(t, api, p) })
		}
	}
	fmt.Fprintf(out, "\n| read, %d CVMs in the workspace | p50 ms | p95 ms | most |\n|---|---|---|---|\n", *cvms)
	for i, p := range paths {
		fmt.Fprintf(out, "| `%s` | %s |\n", p, times[i].cells())
	}
}

func get(t *testing.T, api cloudAPI, path string) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api.Base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", api.Key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s %.300s %v", path, res.Status, b, err)
	}
}

// measureDeploys begins all deploys at once; each is a client of its own.
func measureDeploys(t *testing.T, api cloudAPI, out *strings.Builder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	var mu sync.Mutex
	var provision, commit, running spread
	var wg sync.WaitGroup
	before, begin := cpu(api.pid), time.Now()
	for i := range *deploys {
		wg.Go(func() {
			t0 := time.Now()
			p, err := api.Provision(ctx, cloudapi.ProvisionRequest{Name: fmt.Sprintf("bench-%d", i), InstanceType: "tdx.small", DiskSize: 20,
				ComposeFile: map[string]any{"docker_compose_file": fmt.Sprintf("services:\n  web:\n    image: nginx:1.27\n    environment:\n      - N=%d\n", i)}})
			if err != nil {
				t.Errorf("provision: %v", err)
				return
			}
			t1 := time.Now()
			vm, err := api.Commit(ctx, cloudapi.CommitRequest{AppID: cvm.AppID{1, byte(i), byte(i >> 8)}.String(), ComposeHash: p.ComposeHash})
			if err != nil {
				t.Errorf("commit: %v", err)
				return
			}
			t2 := time.Now()
			done, err := api.Progress(ctx, *vm.VMUUID, vm.EventSeq, nil)
			if err != nil || done.Status != cloudapi.StatusRunning {
				t.Errorf("deploy ended %+v, %v", done, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			provision, commit, running = append(provision, t1.Sub(t0)), append(commit, t2.Sub(t1)), append(running, time.Since(t0))
		})
	}
	wg.Wait()
	took := time.Since(begin)
	if t.Failed() {
		t.FailNow()
	}
	fmt.Fprintf(out, "\n| of %d deploys begun at once | p50 ms | p95 ms | most |\n|---|---|---|---|\n| provision | %s |\n| commit | %s |\n| until running | %s |\n", *deploys, provision.cells(), commit.cells(), running.cells())
	fmt.Fprintf(out, "\n%.0f deploys per second; processor of the API per deploy: %s ms.\n", float64(*deploys)/took.Seconds(), millis((cpu(api.pid)-before)/time.Duration(*deploys)))
}
