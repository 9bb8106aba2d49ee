package netplane_test

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/netplane"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

const composeDoc = `{"manifest_version":2,"name":"hello","runner":"docker-compose","docker_compose_file":"services: {}","kms_enabled":false,"gateway_enabled":false,"allowed_envs":[]}`

// serve runs a VMM until the returned function is called.
func serve(t *testing.T, cfg vmm.Config) (*vmmapi.Client, func()) {
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
	token, err := os.ReadFile(cfg.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	return vmmapi.NewClient("http://"+m.Addr(), strings.TrimSpace(string(token)), nil), func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(60 * time.Second)
	for !ok() {
		if time.Now().After(end) {
			t.Fatal("never ", what)
		}
	}
}

func rules(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestLifeOfAVM: what a VM has of the host's network comes with its start, stays
// over a restart of the VMM, and goes with its stop.
func TestLifeOfAVM(t *testing.T) {
	if os.Getenv("NETPLANE_TEST_ROLE") != "inside" {
		t.Skip("SKIPPED: needs root and network namespaces")
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	dir := t.TempDir()
	run, err := os.MkdirTemp("", "np")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	cfg := vmm.Default()
	cfg.Listen, cfg.TokenFile, cfg.Dir, cfg.RunDir, cfg.ImagesDir = "127.0.0.1:0", filepath.Join(dir, "token"), filepath.Join(dir, "vmm"), run, dir
	cfg.Driver, cfg.Machines, cfg.Log = "dry", dry.New(dry.Config{}), slog.New(slog.DiscardHandler)
	cfg.Capacity = vmm.Capacity{VCPU: 8, MemoryMiB: 8192, DiskMiB: 100000}
	cfg.Networks.Modes = []string{"bridge", "user"}
	cfg.Networks.Bridges = []netplane.Bridge{{Name: "plife0", Managed: true, NAT: true, IPv4: netip.MustParsePrefix("10.78.0.1/24")}}
	cfg.Ports = vmm.Ports{Enabled: true, Address: netip.MustParseAddr("127.0.0.1"), Ranges: []vmmapi.PortRange{{Protocol: "tcp", From: 8000, To: 8999}}}
	cfg.Confine.FirstUID, cfg.Confine.UIDs = 64000, 4
	c, stop := serve(t, cfg)
	ctx := t.Context()
	const id = "0b7d5f86-6c55-4b6a-9d0a-7a8f54c6d001"
	state := func(want string) func() bool {
		return func() bool { v, err := c.Get(ctx, id); return err == nil && v.State == want }
	}
	spec := vmmapi.Spec{ID: id, Name: "hello", AppID: cvm.AppID{1}, Resources: vmmapi.Resources{VCPU: 1, MemoryMiB: 512, DiskMiB: 2048},
		App: vmmapi.App{AppCompose: []byte(composeDoc)}, Ports: []vmmapi.PortMap{{Protocol: "tcp", HostPort: 8080, VMPort: 80}}}
	if _, err := c.Put(ctx, spec); err != nil {
		t.Fatal(err)
	}
	tap := netplane.TapName(id, 0)
	index := func() int {
		l, err := netlink.LinkByName(tap)
		if err != nil {
			return 0
		}
		return l.Attrs().Index
	}
	if index() != 0 {
		t.Error("a tap before the first start")
	}
	if _, err := c.Start(ctx, id); err != nil {
		t.Fatal(err)
	}
	until(t, "running", state(vmmapi.StateRunning))
	first := index()
	if r := rules(t); first == 0 || !strings.Contains(r, "dnat ip to 10.78.0.") || !strings.Contains(r, "table netdev "+tap) {
		t.Fatalf("tap %d, rules %s", first, r)
	}
	if tuntap, ok := must(netlink.LinkByName(tap)).(*netlink.Tuntap); !ok || tuntap.Owner != 64000 {
		t.Errorf("the tap is not its hypervisor's user's: %+v", tuntap)
	}
	stop()
	if index() != first {
		t.Error("the tap went with the VMM")
	}
	if err := netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "ptffffffffffff"}, Mode: netlink.TUNTAP_MODE_TAP}); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetAlias(must(netlink.LinkByName("ptffffffffffff")), "phala-vm:gone"); err != nil {
		t.Fatal(err)
	}
	c, stop = serve(t, cfg)
	defer func() { stop() }()
	until(t, "running again", state(vmmapi.StateRunning))
	if index() != first || !strings.Contains(rules(t), "dnat ip to 10.78.0.") {
		t.Error("the running VM's network did not stay")
	}
	if _, err := netlink.LinkByName("ptffffffffffff"); err == nil {
		t.Error("what a VM left is still there")
	}
	if _, err := c.Stop(ctx, id); err != nil {
		t.Fatal(err)
	}
	until(t, "stopped", state(vmmapi.StateStopped))
	if r := rules(t); index() != 0 || strings.Contains(r, "dnat") || strings.Contains(r, "netdev") {
		t.Errorf("after the stop: tap %d, rules %s", index(), r)
	}
	if err := c.Delete(ctx, id, false); err != nil {
		t.Fatal(err)
	}
	until(t, "deleted", func() bool { _, err := c.Get(ctx, id); return cvm.CodeOf(err) == cvm.NotFound })
	_ = netlink.LinkDel(must(netlink.LinkByName("plife0")))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
