package pci

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
)

// card is a device of the fake sysfs.
type card struct {
	slot, vendor, device, class, node, driver string
	group                                     int
}

// host: two GPUs and a switch in groups of their own, a GPU whose group holds a
// network card, a GPU of another product, one without IOMMU, a display card.
var host = []card{
	{"0000:3b:00.0", "0x10de", "0x2335", "0x030200", "0", "nvidia", 10},
	{"0000:5e:00.0", "0x10de", "0x2335", "0x030200", "1", "vfio-pci", 11},
	{"0000:5d:00.0", "0x8086", "0x352a", "0x060400", "1", "pcieport", 11},
	{"0000:86:00.0", "0x10de", "0x22a3", "0x068000", "1", "", 12},
	{"0000:af:00.0", "0x10de", "0x2335", "0x030200", "1", "", 13},
	{"0000:af:00.1", "0x15b3", "0x101e", "0x020000", "1", "mlx5_core", 13},
	{"0000:b0:00.0", "0x10de", "0x20b5", "0x030200", "1", "", 14},
	{"0000:b1:00.0", "0x10de", "0x2335", "0x030200", "-1", "", -1},
	{"0000:b2:00.0", "0x10de", "0x2335", "0x030000", "0", "", 15},
}

var selection = Selection{Products: []string{"10de:2335", "10de:22a3"}}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func fakeSysfs(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	link := func(target, path string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(root, "bus/pci/drivers_probe"), "")
	for _, c := range host {
		dir := filepath.Join(root, "bus/pci/devices", c.slot)
		for name, v := range map[string]string{"vendor": c.vendor, "device": c.device, "class": c.class, "numa_node": c.node, "driver_override": ""} {
			put(t, filepath.Join(dir, name), v+"\n")
		}
		if c.driver != "" {
			put(t, filepath.Join(root, "bus/pci/drivers", c.driver, "unbind"), "")
			link("../../drivers/"+c.driver, filepath.Join(dir, "driver"))
		}
		if c.group >= 0 {
			link(fmt.Sprintf("../../../../kernel/iommu_groups/%d", c.group), filepath.Join(dir, "iommu_group"))
			put(t, filepath.Join(root, "kernel/iommu_groups", fmt.Sprint(c.group), "devices", c.slot), "")
		}
	}
	return root
}

func slots(ds []Device) (out []string) {
	for _, d := range ds {
		out = append(out, d.Slot)
	}
	return out
}

func TestDiscover(t *testing.T) {
	root := fakeSysfs(t)
	ds, err := Discover(root, selection)
	if err != nil {
		t.Fatal(err)
	}
	want := []Device{
		{"0000:3b:00.0", "10de:2335", false, 0, 10, "nvidia"}, {"0000:5e:00.0", "10de:2335", false, 1, 11, "vfio-pci"},
		{"0000:86:00.0", "10de:22a3", true, 1, 12, ""}, {"0000:af:00.0", "10de:2335", false, 1, 13, ""}, {"0000:b1:00.0", "10de:2335", false, -1, -1, ""},
	}
	if !slices.Equal(ds, want) {
		t.Errorf("got %+v", ds)
	}
	for _, c := range []struct {
		name string
		sel  Selection
		want []string
	}{
		{"no policy", Selection{}, nil},
		{"exclude", Selection{Products: selection.Products, Exclude: []string{"0000:3b:00.0", "0000:b1:00.0"}}, []string{"0000:5e:00.0", "0000:86:00.0", "0000:af:00.0"}},
		{"include", Selection{Products: selection.Products, Include: []string{"0000:3b:00.0", "0000:b0:00.0"}}, []string{"0000:3b:00.0"}},
		{"both", Selection{Products: selection.Products, Include: []string{"0000:3b:00.0"}, Exclude: []string{"0000:3b:00.0"}}, nil},
	} {
		if ds, err := Discover(root, c.sel); err != nil || !slices.Equal(slots(ds), c.want) {
			t.Errorf("%s: %v %v", c.name, slots(ds), err)
		}
	}
	if ds, err := Discover(t.TempDir(), selection); err != nil || ds != nil {
		t.Errorf("a host without PCI: %v %v", ds, err)
	}
	bad := Selection{Products: []string{"8086:1234", "10DE:2335"}, Include: []string{"3b:00.0"}}
	if err := bad.Validate(); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want three problems: %v", err)
	}
}

func TestAttachable(t *testing.T) {
	root := fakeSysfs(t)
	ds, _ := Discover(root, selection)
	got, err := Attachable(root, ds, []string{"0000:86:00.0", "0000:3b:00.0", "0000:5e:00.0"})
	if err != nil || !slices.Equal(slots(got), []string{"0000:3b:00.0", "0000:5e:00.0", "0000:86:00.0"}) {
		t.Fatalf("%v %v", slots(got), err)
	}
	for _, c := range []struct {
		name, says string
		slots      []string
	}{
		{"group neighbour", "0000:af:00.1 is in the same IOMMU group 13", []string{"0000:af:00.0"}},
		{"not listed", "0000:b0:00.0: not a card", []string{"0000:b0:00.0"}},
		{"network card", "0000:af:00.1: not a card", []string{"0000:af:00.0", "0000:af:00.1"}},
		{"twice", "named twice", []string{"0000:3b:00.0", "0000:3b:00.0"}},
		{"no IOMMU", "no IOMMU group", []string{"0000:b1:00.0"}},
		{"options", "want domain:bus", []string{"0000:3b:00.0,rombar=0"}},
		{"upper case", "want domain:bus", []string{"0000:3B:00.0"}},
		{"short", "want domain:bus", []string{"3b:00.0"}},
	} {
		if got, err := Attachable(root, ds, c.slots); err == nil || !strings.Contains(err.Error(), c.says) || got != nil {
			t.Errorf("%s: %v %v", c.name, got, err)
		}
	}
}

// TestBind plays the kernel: a probe gives the card to its override, or to nobody.
func TestBind(t *testing.T) {
	root := fakeSysfs(t)
	dev := filepath.Join(root, "bus/pci/devices")
	loaded := true
	var writes []string
	b := NewBinder(root)
	plain := b.write
	b.write = func(path, value string) error {
		rel, _ := filepath.Rel(root, path)
		writes = append(writes, rel+" <- "+strings.TrimSpace(value))
		if err := plain(path, value); err != nil {
			return err
		}
		switch filepath.Base(path) {
		case "unbind":
			return os.Remove(filepath.Join(dev, value, "driver"))
		case "drivers_probe":
			o, _ := os.ReadFile(filepath.Join(dev, value, "driver_override"))
			if d := strings.TrimSpace(string(o)); d != "" && loaded {
				return os.Symlink("../../drivers/"+d, filepath.Join(dev, value, "driver"))
			}
		}
		return nil
	}
	gpu := "0000:3b:00.0"
	if err := b.Bind(gpu); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"bus/pci/devices/" + gpu + "/driver_override <- vfio-pci",
		"bus/pci/drivers/nvidia/unbind <- " + gpu, "bus/pci/drivers_probe <- " + gpu,
	}
	if !slices.Equal(writes, want) {
		t.Errorf("writes:\n%s", strings.Join(writes, "\n"))
	}
	writes = nil
	if err := b.Bind(gpu); err != nil || writes != nil {
		t.Errorf("bound already: %v %v", writes, err)
	}
	if err := os.WriteFile(filepath.Join(dev, gpu, "driver_override"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Unbind(gpu); err != nil || linkBase(filepath.Join(dev, gpu), "driver") != "" || len(writes) != 3 {
		t.Errorf("unbind: %v %v", writes, err)
	}
	writes = nil
	if err := b.Unbind("0000:af:00.1"); err != nil || writes != nil {
		t.Errorf("took a card that vfio-pci does not have: %v %v", writes, err)
	}
	loaded = false
	if err := b.Bind("0000:86:00.0"); cvm.ReasonOf(err) != "vfio-bind" {
		t.Errorf("the module is not loaded: %v", err)
	}
	if err := b.Bind("0000:99:00.0"); cvm.CodeOf(err) != cvm.NotFound {
		t.Errorf("no such card: %v", err)
	}
	if err := b.Bind("../../x"); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("path: %v", err)
	}
}

func TestTopology(t *testing.T) {
	root := t.TempDir()
	for id, cpus := range map[int]string{0: "0-1,4-5", 1: "2-3,6-7"} {
		dir := filepath.Join(root, fmt.Sprintf("devices/system/node/node%d", id))
		put(t, filepath.Join(dir, "cpulist"), cpus+"\n")
		put(t, filepath.Join(dir, "meminfo"), fmt.Sprintf("Node %d MemTotal:       16777216 kB\nNode %d MemFree: 1 kB\n", id, id))
		put(t, filepath.Join(dir, "hugepages/hugepages-1048576kB/nr_hugepages"), fmt.Sprintf("%d\n", 2+id))
	}
	put(t, filepath.Join(root, "devices/system/node/possible"), "0-1\n")
	got, err := Topology(root, 1<<20)
	want := []Node{{0, []int{0, 1, 4, 5}, 16384, 2048}, {1, []int{2, 3, 6, 7}, 16384, 3072}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := Topology(root, 2048); err != nil || got[0].HugeMiB != 0 {
		t.Errorf("another page size: %+v %v", got, err)
	}
	put(t, filepath.Join(root, "devices/system/node/node1/cpulist"), "3-1\n")
	if _, err := Topology(root, 2048); err == nil {
		t.Error("a broken CPU list was read")
	}
	if here, err := Topology("/sys", 2048); err != nil {
		t.Errorf("this host: %+v %v", here, err)
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"0000:3b:00.0", "ffff:ff:1f.7", "0000:3b:20.0", "0000:3b:00.8", "0000:3B:00.0", "0000:3b:00.0\n", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if (err == nil) != (err == nil && a.String() == s) {
			t.Fatalf("%q was read as %s", s, a)
		}
	})
}

func FuzzParseCPUList(f *testing.F) {
	f.Add("0-3,8,10-11")
	f.Add("0-65535")
	f.Add("3-1,,")
	f.Fuzz(func(t *testing.T, s string) {
		cpus, err := ParseCPUList(s)
		if err == nil && !slices.IsSorted(cpus) {
			t.Fatalf("%q: %v", s, cpus)
		}
	})
}
