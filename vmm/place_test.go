package vmm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"net/netip"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/netplane"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

const (
	vmID2 = "0b7d5f86-6c55-4b6a-9d0a-7a8f54c6d002"
	gpu0  = "0000:3b:00.0"
	gpu1  = "0000:5e:00.0"
)

func portsOn(c *Config) {
	c.Ports = Ports{Enabled: true, Address: netip.MustParseAddr("127.0.0.1"), Ranges: []vmmapi.PortRange{{Protocol: "tcp", From: 20000, To: 29999}, {Protocol: "udp", From: 20000, To: 20010}}}
}

// hostTree is a sysfs with two GPUs that vfio-pci has already, on two NUMA nodes.
func hostTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	put := func(path, text string) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, slot := range []string{gpu0, gpu1} {
		dir := "bus/pci/devices/" + slot
		for name, v := range map[string]string{"vendor": "0x10de", "device": "0x2335", "class": "0x030200", "numa_node": fmt.Sprint(i)} {
			put(dir+"/"+name, v+"\n")
		}
		put(fmt.Sprintf("kernel/iommu_groups/%d/devices/%s", i, slot), "")
		for link, to := range map[string]string{"driver": "../../drivers/vfio-pci", "iommu_group": fmt.Sprintf("../../../../kernel/iommu_groups/%d", i)} {
			if err := os.Symlink(to, filepath.Join(root, dir, link)); err != nil {
				t.Fatal(err)
			}
		}
		node := fmt.Sprintf("devices/system/node/node%d/", i)
		put(node+"cpulist", fmt.Sprintf("%d-%d\n", 4*i, 4*i+3))
		put(node+"meminfo", fmt.Sprintf("Node %d MemTotal: 4194304 kB\n", i))
		put(node+"hugepages/hugepages-2048kB/nr_hugepages", "512\n")
	}
	return root
}

func gpusOn(t *testing.T) func(*Config) {
	root := hostTree(t)
	return func(c *Config) { c.Sysfs, c.GPUs.Products = root, []string{"10de:2335"} }
}

// secondSpec is another VM.
func secondSpec(change func(*vmmapi.Spec)) vmmapi.Spec {
	s := spec()
	s.ID, s.Name = vmID2, "second"
	change(&s)
	return s
}

func TestPortsAreReserved(t *testing.T) {
	n := newNode(t, dry.New(dry.Config{}), portsOn)
	ctx := t.Context()
	s := spec()
	s.Ports = []vmmapi.PortMap{{Protocol: "tcp", HostPort: 28080, VMPort: 80, Allow: []string{"192.0.2.0/24"}}}
	n.must(n.c.Put(ctx, s))
	other := secondSpec(func(s *vmmapi.Spec) {
		s.Ports = []vmmapi.PortMap{{Protocol: "tcp", HostPort: 28081, VMPort: 1}, {Protocol: "tcp", HostPort: 28080, VMPort: 1}}
	})
	refused := func(when string) {
		t.Helper()
		_, err := n.c.Put(ctx, other)
		if cvm.CodeOf(err) != cvm.Exhausted || !strings.Contains(err.Error(), "port tcp 127.0.0.1:28080: held by VM "+vmID) {
			t.Errorf("%s: %v", when, err)
		}
		if all, err := n.c.List(ctx); err != nil || len(all) != 1 {
			t.Errorf("%s: a refused VM is there: %v %v", when, all, err)
		}
	}
	refused("first")
	n.stop()
	n.start()
	refused("after a restart")
	if err := n.c.Delete(ctx, vmID, false); err != nil {
		t.Fatal(err)
	}
	n.waitGone()
	n.must(n.c.Put(ctx, other))
}

func TestCardsAreLeased(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]machine.Machine{}
	d := dry.New(dry.Config{Script: func(m machine.Machine) []guestapi.Notify {
		mu.Lock()
		defer mu.Unlock()
		seen[m.ID] = m
		return dry.DefaultScript(m)
	}})
	n := newNode(t, d, gpusOn(t))
	ctx := t.Context()
	s := spec()
	s.GPUs, s.PinNUMA = &vmmapi.GPUs{AttachMode: "listed", Slots: []string{gpu1}}, true
	n.must(n.c.Put(ctx, s))
	n.must(n.c.Start(ctx, vmID))
	n.waitState(vmmapi.StateRunning)
	mu.Lock()
	m := seen[vmID]
	mu.Unlock()
	if len(m.GPUs) != 1 || m.GPUs[0] != (machine.GPU{Slot: gpu1, Node: 1}) || len(m.NUMA) != 1 || m.NUMA[0].Node != 1 || m.NUMA[0].HostCPUs[0] != 4 {
		t.Errorf("the machine: %+v", m)
	}
	if len(m.NICs) != 1 || m.NICs[0].Mode != machine.NICUser || m.NICs[0].MAC.String() != netplane.MAC(vmID, 0).String() {
		t.Errorf("its card: %+v", m.NICs)
	}
	other := secondSpec(func(s *vmmapi.Spec) { s.GPUs = &vmmapi.GPUs{AttachMode: "listed", Slots: []string{gpu1}} })
	n.must(n.c.Put(ctx, other))
	held := func(when string) {
		t.Helper()
		if _, err := n.c.Start(ctx, vmID2); cvm.CodeOf(err) != cvm.Exhausted || !strings.Contains(err.Error(), "GPU "+gpu1+": held by VM "+vmID) {
			t.Errorf("%s: %v", when, err)
		}
		node, err := n.c.Node(ctx)
		if err != nil || len(node.GPUs) != 2 || node.GPUs[1].HeldBy != vmID || node.GPUs[0].HeldBy != "" || len(node.NUMA) != 2 || node.NUMA[0].HugeMiB != 1024 {
			t.Errorf("%s: %+v %v", when, node, err)
		}
	}
	held("first")
	n.stop()
	n.start()
	n.waitState(vmmapi.StateRunning)
	held("after a restart")
	n.must(n.c.Stop(ctx, vmID))
	n.waitState(vmmapi.StateStopped)
	n.must(n.c.Start(ctx, vmID2))
	if _, err := n.c.Start(ctx, vmID); !strings.Contains(fmt.Sprint(err), "held by VM "+vmID2) {
		t.Errorf("the card was given twice: %v", err)
	}
}

func TestHostRefusals(t *testing.T) {
	vols := t.TempDir()
	for _, name := range []string{"model.img", "dir/x"} {
		_ = os.MkdirAll(filepath.Dir(filepath.Join(vols, name)), 0o700)
		if err := os.WriteFile(filepath.Join(vols, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/shadow", filepath.Join(vols, "link")); err != nil {
		t.Fatal(err)
	}
	c := goodConfig()
	c.Driver = "dry"
	portsOn(&c)
	gpusOn(t)(&c)
	c.VolumesDir = vols
	port := func(p vmmapi.PortMap) func(*vmmapi.Spec) {
		return func(s *vmmapi.Spec) { s.Ports = []vmmapi.PortMap{p} }
	}
	gpus := func(mode string, slots ...string) func(*vmmapi.Spec) {
		return func(s *vmmapi.Spec) { s.GPUs = &vmmapi.GPUs{AttachMode: mode, Slots: slots} }
	}
	good := spec()
	good.Ports = []vmmapi.PortMap{{Protocol: "udp", HostPort: 20010, VMPort: 53, Allow: []string{"::/0"}}}
	good.Volumes, good.Hugepages, good.GPUs = []string{"model.img"}, true, &vmmapi.GPUs{AttachMode: "listed", Slots: []string{gpu0, gpu1}}
	if err := c.checkSpec(&good); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		says   string
		change func(*vmmapi.Spec)
	}{
		"protocol":           {"protocol", port(vmmapi.PortMap{Protocol: "sctp", HostPort: 20000, VMPort: 1})},
		"range":              {"not in this node's ranges", port(vmmapi.PortMap{Protocol: "tcp", HostPort: 22, VMPort: 1})},
		"range of the other": {"not in this node's ranges", port(vmmapi.PortMap{Protocol: "udp", HostPort: 20011, VMPort: 1})},
		"no VM port":         {"vm_port", port(vmmapi.PortMap{Protocol: "tcp", HostPort: 20000})},
		"address":            {"not an address that this node gives", port(vmmapi.PortMap{Protocol: "tcp", HostPort: 20000, VMPort: 1, HostAddress: "0.0.0.0"})},
		"source":             {"not a network", port(vmmapi.PortMap{Protocol: "tcp", HostPort: 20000, VMPort: 1, Allow: []string{"192.0.2.1/24"}})},
		"source text":        {"allow", port(vmmapi.PortMap{Protocol: "tcp", HostPort: 20000, VMPort: 1, Allow: []string{"any } accept; #"}})},
		"volume path":        {"want the name of a file", func(s *vmmapi.Spec) { s.Volumes = []string{"../record.json"} }},
		"volume below":       {"want the name of a file", func(s *vmmapi.Spec) { s.Volumes = []string{"dir/x"} }},
		"volume link":        {"no such file", func(s *vmmapi.Spec) { s.Volumes = []string{"link"} }},
		"volume directory":   {"no such file", func(s *vmmapi.Spec) { s.Volumes = []string{"dir"} }},
		"volume options":     {"want the name of a file", func(s *vmmapi.Spec) { s.Volumes = []string{"model.img,readonly=off"} }},
		"GPU unknown":        {"not a card", gpus("listed", "0000:00:00.0")},
		"GPU injection":      {"want domain:bus", gpus("listed", gpu0+",rombar=0")},
		"GPU mode":           {"attach_mode", gpus("some", gpu0)},
		"GPU none":           {"attach_mode", gpus("listed")},
		"GPU all":            {"does not give all", gpus("all")},
		"network":            {"mode", func(s *vmmapi.Spec) { s.Networks = []vmmapi.Network{{Mode: "bridge"}} }},
		"limits":             {"negative", func(s *vmmapi.Spec) { s.Limits = &vmmapi.Limits{DiskIOPS: -1} }},
		"huge pages":         {"a multiple of 2", func(s *vmmapi.Spec) { s.Hugepages, s.Resources.MemoryMiB = true, 513 }},
	} {
		s := spec()
		x.change(&s)
		if err := c.checkSpec(&s); cvm.CodeOf(err) != cvm.Invalid || !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.Ports.Enabled, c.VolumesDir, c.GPUs.Products = false, "", nil
	if err := c.checkSpec(&good); err == nil || !strings.Contains(err.Error(), "gives no ports") || !strings.Contains(err.Error(), "volumes: this node has none") || !strings.Contains(err.Error(), "not a card") {
		t.Errorf("a node that gives nothing: %v", err)
	}
	c.Driver = "container"
	if err := c.checkSpec(&good); err == nil || !strings.Contains(err.Error(), "need real machines") {
		t.Errorf("containers: %v", err)
	}
	for want, change := range map[string]func(*Config){
		"over_commit": func(c *Config) { c.OverCommit = 0.5 }, "hugepage_kib": func(c *Config) { c.HugepageKiB = 4 }, "volumes_dir": func(c *Config) { c.VolumesDir = "x" },
		"needs address": func(c *Config) { c.Ports.Enabled = true }, "ports.ranges": func(c *Config) { portsOn(c); c.Ports.Ranges[0].To = 1 },
	} {
		c := goodConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// A node chooses the cards of a VM that asks for a number of one kind, and those of a
// VM that runs stay its own over a restart.
func TestCardsByNumber(t *testing.T) {
	n := newNode(t, dry.New(dry.Config{}), gpusOn(t))
	ctx := t.Context()
	s := spec()
	for _, bad := range []vmmapi.GPUs{
		{AttachMode: "count", Product: "10de:2335"}, {AttachMode: "count", Count: 1}, {AttachMode: "count", Product: "10de:2901", Count: 1},
		{AttachMode: "count", Product: "10de:2335", Count: 3}, {AttachMode: "count", Product: "10de:2335", Count: 1, Slots: []string{gpu0}},
		{AttachMode: "listed", Slots: []string{gpu0}, Count: 1},
	} {
		s.GPUs = &bad
		if _, err := n.c.Put(ctx, s); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	s.GPUs = &vmmapi.GPUs{AttachMode: "count", Product: "10de:2335", Count: 1}
	n.must(n.c.Put(ctx, s))
	n.must(n.c.Start(ctx, vmID))
	n.waitState(vmmapi.StateRunning)
	n.must(n.c.Put(ctx, secondSpec(func(s *vmmapi.Spec) { s.GPUs = &vmmapi.GPUs{AttachMode: "count", Product: "10de:2335", Count: 2} })))
	for range 2 {
		if _, err := n.c.Start(ctx, vmID2); cvm.CodeOf(err) != cvm.Exhausted || !strings.Contains(err.Error(), "GPUs 10de:2335: 2 wanted, 1 free of 2") {
			t.Error(err)
		}
		node, err := n.c.Node(ctx)
		if err != nil || len(node.GPUs) != 2 || node.GPUs[0].HeldBy != vmID || node.GPUs[1].HeldBy != "" || node.GPUs[0].Problem != "" {
			t.Errorf("%+v %v", node.GPUs, err)
		}
		n.stop()
		n.start()
		n.waitState(vmmapi.StateRunning)
	}
}

// TestContextIDsOfMachines: one for each machine, the same after a restart of the VMM,
// free once the machine is deleted; none where machines have no vsock.
func TestContextIDsOfMachines(t *testing.T) {
	images := filepath.Dir(sampleImage(t).Dir)
	var mu sync.Mutex
	seen := map[string]uint32{}
	d := dry.New(dry.Config{Script: func(m machine.Machine) []guestapi.Notify {
		mu.Lock()
		defer mu.Unlock()
		seen[m.ID] = m.CID
		return dry.DefaultScript(m)
	}})
	has := func(when, id string, want uint32) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if seen[id] != want {
			t.Errorf("%s: VM %.4s has the context id %d, want %d", when, id, seen[id], want)
		}
	}
	n := newNode(t, d, func(c *Config) {
		c.Driver, c.ImagesDir = "qemu", images
		c.QEMU.CIDStart, c.QEMU.CIDPoolSize = 4000000000, 2
	})
	ctx := t.Context()
	other := secondSpec(func(*vmmapi.Spec) {})
	n.must(n.c.Put(ctx, spec()))
	n.must(n.c.Put(ctx, other))
	n.must(n.c.Start(ctx, vmID2))
	n.until(vmID2, vmmapi.StateRunning)
	has("the second", vmID2, 4000000001)
	n.stop()
	n.start()
	third := secondSpec(func(s *vmmapi.Spec) { s.ID, s.Name = "0b7d5f86-6c55-4b6a-9d0a-7a8f54c6d003", "third" })
	if _, err := n.c.Put(ctx, third); cvm.CodeOf(err) != cvm.Exhausted || !strings.Contains(err.Error(), "vsock context ids: all 2 are taken") {
		t.Errorf("a third VM: %v", err)
	}
	n.must(n.c.Start(ctx, vmID)) // never started by the VMM that gave it its id
	n.waitState(vmmapi.StateRunning)
	has("after a restart of the VMM", vmID, 4000000000)
	if err := n.c.Delete(ctx, vmID, false); err != nil {
		t.Fatal(err)
	}
	n.waitGone()
	n.must(n.c.Put(ctx, third))
	n.must(n.c.Start(ctx, third.ID))
	n.until(third.ID, vmmapi.StateRunning)
	has("that of a deleted VM", third.ID, 4000000000)

	serial := newNode(t, d, func(c *Config) { c.Driver, c.ImagesDir, c.QEMU.HostLink = "qemu", images, "virtio-serial" })
	serial.must(serial.c.Put(ctx, spec()))
	serial.must(serial.c.Start(ctx, vmID))
	serial.waitState(vmmapi.StateRunning)
	has("without vsock", vmID, 0)
}

// until waits for the state of one of several VMs.
func (n *node) until(id, state string) {
	n.t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(2 * time.Millisecond) { // only failures wait for it
		v, err := n.c.Get(n.t.Context(), id)
		if err == nil && v.State == state {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("VM %s is never %s: %+v, %v", id, state, v, err)
		}
	}
}
