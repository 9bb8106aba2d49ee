package vm

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func startVMM(t *testing.T, cfg vmm.Config) (*vmm.VMM, func()) {
	t.Helper()
	m, err := vmm.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	select {
	case <-m.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	return m, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestNode is one VMM with many VMs that are empty: what admission, records, lists
// and a restart of the VMM cost.
func TestNode(t *testing.T) {
	dir := t.TempDir()
	cfg := dryConfig(t, dir, *vms)
	driver := dry.New(dry.Config{})
	cfg.Machines = driver
	empty := heap()
	_, stop := startVMM(t, cfg)
	token, err := os.ReadFile(cfg.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	c := vmmapi.NewClient("http://"+cfg.Listen, strings.TrimSpace(string(token)), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	var put, start, read, list, full, restart spread
	for i := range *vms {
		s := spec(i)
		put.time(func() { ask(t)(c.Put(ctx, s)) })
		start.time(func() { ask(t)(c.Start(ctx, s.ID)) })
	}
	allRunning(ctx, t, c)
	for range 20 {
		read.time(func() { ask(t)(c.Get(ctx, seededUUID(*vms/2))) })
		list.time(func() { ask(t)(c.List(ctx)) })
	}
	// One more than there is room for is refused, and quickly.
	big := spec(*vms)
	big.Resources.VCPU = 10000
	for range 20 {
		full.time(func() {
			if _, err := c.Put(ctx, big); err == nil {
				_, err = c.Start(ctx, big.ID)
				if cvm.CodeOf(err) != cvm.Exhausted {
					t.Errorf("a VM of 10000 CPUs: %v", err)
				}
			}
		})
	}
	if err := c.Delete(ctx, big.ID, false); err != nil {
		t.Fatal(err)
	}
	grown := heap() - empty
	for range 3 {
		stop()
		restart.time(func() {
			_, stop = startVMM(t, cfg)
			allRunning(ctx, t, c)
		})
	}
	defer stop()
	for i := range *vms {
		if n := driver.Launches(seededUUID(i)); n != 1 {
			t.Fatalf("VM %d was launched %d times over restarts of the VMM", i, n)
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "| %d VMs on one node, driver `dry` | p50 ms | p95 ms | most |\n|---|---|---|---|\n", *vms)
	for _, r := range []struct {
		name string
		s    spread
	}{{"define a VM (admission, record on disk)", put}, {"order its start", start}, {"read one", read}, {"list all", list}, {"refuse one that does not fit", full},
		{"restart of the VMM: read the records, adopt all, answer", restart}} {
		fmt.Fprintf(&out, "| %s | %s |\n", r.name, r.s.cells())
	}
	fmt.Fprintf(&out, "\nMemory of the VMM per VM, with the empty machine's own part: %.0f KiB.\n", float64(grown)/1024/float64(*vms))
	publish(t, "node", out.String())
	if n := *vms; n >= 200 && put[n-n/10:].at(0.5) > 20*put[:n/10].at(0.5) {
		t.Errorf("defining the last VMs takes %s, the first ones %s: admission grows with the node", put[n-n/10:].at(0.5), put[:n/10].at(0.5))
	}
}

func spec(i int) vmmapi.Spec {
	return vmmapi.Spec{ID: seededUUID(i), Name: seededName(i), AppID: cvm.AppID{1, byte(i), byte(i >> 8)},
		Resources: vmmapi.Resources{VCPU: 1, MemoryMiB: 2048, DiskMiB: 20 << 10},
		App:       vmmapi.App{AppCompose: []byte(`{"manifest_version":2,"name":"bench","runner":"docker-compose","docker_compose_file":"services:\n  web:\n    image: nginx:1.27\n"}`)},
		KMSURLs:   []string{"https://172.31.77.1:8701"}, GatewayURLs: []string{"https://172.31.77.1:8740"}}
}

func ask(t *testing.T) func(any, error) {
	return func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func allRunning(ctx context.Context, t *testing.T, c *vmmapi.Client) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := c.List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, v := range list {
			if v.State == vmmapi.StateRunning {
				n++
			}
		}
		if n == *vms {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%d of %d VMs run", n, *vms)
		}
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
