package qemu

import (
	"errors"
	"flag"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/machine"
)

var update = flag.Bool("update", false, "write the golden files")

func mac(n byte) net.HardwareAddr { return net.HardwareAddr{0x02, 0, 0, 0, 0, n} }

func userNIC(n byte, forwards ...machine.Forward) machine.NIC {
	return machine.NIC{Mode: machine.NICUser, MAC: mac(n), Net: netip.MustParsePrefix("10.0.2.0/24"), DHCPStart: netip.MustParseAddr("10.0.2.10"), Forwards: forwards}
}

// plain is a machine with one card; dir holds its files.
func plain(dir string, a Accel) Launch {
	f := func(name string) string { return filepath.Join(dir, name) }
	l := Launch{
		ID: "4e0c2a11-6b7e-4d6e-9c57-1f0a3b5d7e90", Accel: a, TBSizeMiB: 256,
		Firmware: f("ovmf.fd"), Kernel: f("bzImage"), Initrd: f("initramfs.cpio.gz"), Rootfs: f("rootfs.img"),
		Cmdline:  "console=ttyS0 panic=1 dstack.rootfs_hash=00ff,x=1 dstack.rootfs_size=4096",
		DataDisk: f("data.img"), DataFormat: FormatRaw, SharedDisk: f("shared.img"), SerialLog: f("serial.log"), PIDFile: f("qemu.pid"),
		VCPU: 2, MemoryMiB: 2048, NICs: []machine.NIC{userNIC(1)}, QMPFD: 3, LinkFD: 4,
	}
	switch a {
	case TDX:
		l.MRConfigID, l.QGSPort = cvm.Measurement{1, 2, 3}, 4050
	case SNP:
		l.HostData, l.SEV = [32]byte{9, 8, 7}, SEV{CBitPos: 51, ReducedPhysBits: 1}
	}
	return l
}

func gpus(n, switches int) (out []machine.GPU) {
	for i := range n {
		out = append(out, machine.GPU{Slot: "0000:" + string("123456789"[i]) + "a:00.0", Node: i / 4})
	}
	for i := range switches {
		out = append(out, machine.GPU{Slot: "0000:" + string("abcd"[i]) + "5:00.0", Switch: true, Node: 1})
	}
	return out
}

func twoNodes() []machine.NUMANode {
	return []machine.NUMANode{{Node: 0, VCPUs: 12, MemoryMiB: 65536, HostCPUs: []int{0, 1}}, {Node: 1, VCPUs: 12, MemoryMiB: 65536, HostCPUs: []int{2, 3}}}
}

// cases are the golden command lines.
func cases(dir string) map[string]Launch {
	with := func(a Accel, edit func(*Launch)) Launch {
		l := plain(dir, a)
		edit(&l)
		return l
	}
	big := func(l *Launch) { l.VCPU, l.MemoryMiB = 24, 131072 }
	vsock := func(l *Launch) { l.CID, l.VSockFD = 20000, 5 }
	forward := machine.Forward{Protocol: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:18080"), GuestPort: 80}
	return map[string]Launch{
		"tdx": plain(dir, TDX), "snp": plain(dir, SNP), "kvm": plain(dir, KVM), "tcg": plain(dir, TCG),
		"tdx-1gpu":  with(TDX, func(l *Launch) { l.GPUs = []machine.GPU{{Slot: "0000:1a:00.0", Node: -1}} }),
		"tdx-8gpu":  with(TDX, func(l *Launch) { big(l); l.GPUs, l.NUMA, l.Hugepages = gpus(8, 4), twoNodes(), true }),
		"snp-numa":  with(SNP, func(l *Launch) { big(l); l.NUMA = twoNodes() }),
		"tdx-huge":  with(TDX, func(l *Launch) { l.Hugepages = true }),
		"kvm-numa":  with(KVM, func(l *Launch) { big(l); l.NUMA = twoNodes() }),
		"tdx-noqgs": with(TDX, func(l *Launch) { l.QGSPort = 0 }),
		"user-forwards": with(TCG, func(l *Launch) {
			udp := forward
			udp.Protocol, udp.GuestPort = "udp", 53
			l.NICs = []machine.NIC{userNIC(1, forward, udp)}
			l.NICs[0].Restrict = true
		}),
		"tdx-vsock":      with(TDX, vsock),
		"snp-vsock":      with(SNP, vsock),
		"kvm-vsock":      with(KVM, vsock),
		"tdx-vsock-only": with(TDX, func(l *Launch) { vsock(l); l.LinkFD = 0 }),
		"tap":            with(TCG, func(l *Launch) { l.NICs = []machine.NIC{{Mode: machine.NICTap, MAC: mac(1), Tap: "pt0123456789ab"}} }),
		"cards":          with(TCG, func(l *Launch) { l.NICs = []machine.NIC{userNIC(1), userNIC(2), userNIC(3, forward)} }),
		"no-card":        with(TCG, func(l *Launch) { l.NICs = nil }),
		"volumes":        with(TCG, func(l *Launch) { l.Volumes = []string{filepath.Join(dir, "model,a.img"), filepath.Join(dir, "b.img")} }),
		"limits": with(TCG, func(l *Launch) {
			l.Limits = machine.Limits{DiskBytesPerSec: 50 << 20, DiskIOPS: 1000}
			l.DataDisk, l.DataFormat, l.PCIHole64Bytes = filepath.Join(dir, "data.qcow2"), FormatQCOW2, 1<<36
		}),
	}
}

const goldenDir = "/phala/golden"

func TestArgvGolden(t *testing.T) {
	for name, l := range cases(goldenDir) {
		args, err := Argv(l)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		path := filepath.Join("testdata", name+".argv")
		if *update {
			if err := os.WriteFile(path, []byte(lines(args)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := lines(args); got != string(want) {
			t.Errorf("%s differs from its golden file (go test -update):\n%s", name, got)
		}
	}
}

func TestArgvIsAFunction(t *testing.T) {
	a, _ := Argv(cases(goldenDir)["tdx-8gpu"])
	for range 50 {
		if b, _ := Argv(cases(goldenDir)["tdx-8gpu"]); !slices.Equal(a, b) {
			t.Fatal("the same machine has two command lines")
		}
	}
}

// No hardware TEE ever comes with the simulated one, and none without its object.
func TestTEEObjects(t *testing.T) {
	for name, l := range cases(goldenDir) {
		args, _ := Argv(l)
		s := lines(args)
		if got, want := strings.Contains(s, `"tdx-guest"`), l.Accel == TDX; got != want {
			t.Errorf("%s: tdx object %t, want %t", name, got, want)
		}
		if got, want := strings.Contains(s, "sev-snp-guest"), l.Accel == SNP; got != want {
			t.Errorf("%s: snp object %t, want %t", name, got, want)
		}
		if got, want := strings.Contains(s, "confidential-guest-support="), l.Accel.hardware(); got != want {
			t.Errorf("%s: confidential-guest-support %t, want %t", name, got, want)
		}
		if l.Accel == SNP {
			for _, a := range args {
				if (strings.HasPrefix(a, "virtio-") || strings.HasPrefix(a, "vhost-")) && !strings.Contains(a, ",disable-legacy=on,iommu_platform=true") {
					t.Errorf("%s: %s would use the guest's memory in clear", name, a)
				}
			}
		}
	}
}

func TestArgvRefuses(t *testing.T) {
	for name, edit := range map[string]func(*Launch){
		"id":                   func(l *Launch) { l.ID = "x,debug-threads=on" },
		"accelerator":          func(l *Launch) { l.Accel = "xen" },
		"no accelerator":       func(l *Launch) { l.Accel = "" },
		"sev of another host":  func(l *Launch) { l.Accel = SNP; l.SEV = SEV{} },
		"no cache":             func(l *Launch) { l.TBSizeMiB = 0 },
		"no cpu":               func(l *Launch) { l.VCPU = 0 },
		"no memory":            func(l *Launch) { l.MemoryMiB = 0 },
		"stdin as socket":      func(l *Launch) { l.QMPFD = 0 },
		"one socket for both":  func(l *Launch) { l.LinkFD = l.QMPFD },
		"no host link":         func(l *Launch) { l.LinkFD = 0 },
		"the host's own cid":   func(l *Launch) { l.CID, l.VSockFD = 2, 5 },
		"any cid":              func(l *Launch) { l.CID, l.VSockFD = 1<<32-1, 5 },
		"vsock without a file": func(l *Launch) { l.CID = 20000 },
		"vsock on the monitor": func(l *Launch) { l.CID, l.VSockFD = 20000, l.QMPFD },
		"a file for no vsock":  func(l *Launch) { l.VSockFD = 5 },
		"relative path":        func(l *Launch) { l.DataDisk = "data.img" },
		"protocol":             func(l *Launch) { l.Rootfs = "nbd:host:10809" },
		"json":                 func(l *Launch) { l.Rootfs = `json:{"driver":"null-co"}` },
		"newline in a path":    func(l *Launch) { l.SharedDisk += "\n" },
		"relative volume":      func(l *Launch) { l.Volumes = []string{"a.img"} },
		"too many volumes":     func(l *Launch) { l.Volumes = slices.Repeat([]string{"/a"}, maxDisks+1) },
		"format to be guessed": func(l *Launch) { l.DataFormat = "" },
		"newline in cmdline":   func(l *Launch) { l.Cmdline = "a\nb" },
		"long cmdline":         func(l *Launch) { l.Cmdline = strings.Repeat("a", maxCmdline+1) },
		"no mac":               func(l *Launch) { l.NICs[0].MAC = nil },
		"multicast mac":        func(l *Launch) { l.NICs[0].MAC = net.HardwareAddr{1, 0, 0, 0, 0, 1} },
		"nic mode":             func(l *Launch) { l.NICs[0].Mode = "bridge" },
		"tap option":           func(l *Launch) { l.NICs[0] = machine.NIC{Mode: machine.NICTap, MAC: mac(1), Tap: "t0,br=x"} },
		"tap with forwards": func(l *Launch) {
			l.NICs[0].Mode, l.NICs[0].Tap = machine.NICTap, "t0"
			l.NICs[0].Forwards = make([]machine.Forward, 1)
		},
		"forward protocol": func(l *Launch) {
			l.NICs[0].Forwards = []machine.Forward{{Protocol: "tcp,x", Host: netip.MustParseAddrPort("1.2.3.4:5"), GuestPort: 1}}
		},
		"forward without port": func(l *Launch) {
			l.NICs[0].Forwards = []machine.Forward{{Protocol: "tcp", Host: netip.MustParseAddrPort("1.2.3.4:5")}}
		},
		"forward without host":  func(l *Launch) { l.NICs[0].Forwards = []machine.Forward{{Protocol: "tcp", GuestPort: 1}} },
		"dhcp of other network": func(l *Launch) { l.NICs[0].DHCPStart = netip.MustParseAddr("10.9.9.9") },
		"gpu slot option":       func(l *Launch) { l.GPUs = []machine.GPU{{Slot: "0000:1a:00.0,x-pci-device-id=1"}} },
		"gpu slot upper case":   func(l *Launch) { l.GPUs = []machine.GPU{{Slot: "0000:1A:00.0"}} },
		"gpu twice":             func(l *Launch) { l.GPUs = append(gpus(1, 0), gpus(1, 0)...) },
		"numa cpus":             func(l *Launch) { l.NUMA = []machine.NUMANode{{VCPUs: 1, MemoryMiB: 2048}} },
		"numa memory":           func(l *Launch) { l.NUMA = []machine.NUMANode{{VCPUs: 2, MemoryMiB: 2047}} },
		"numa node twice":       func(l *Launch) { l.NUMA = []machine.NUMANode{{VCPUs: 1, MemoryMiB: 1024}, {VCPUs: 1, MemoryMiB: 1024}} },
		"negative limit":        func(l *Launch) { l.Limits.DiskIOPS = -1 },
		"pci hole":              func(l *Launch) { l.PCIHole64Bytes = 1 << 60 },
	} {
		l := plain(goldenDir, TCG)
		edit(&l)
		args, err := Argv(l)
		if err == nil || args != nil {
			t.Errorf("%s: accepted: %q", name, args)
		}
		var coded *cvm.Error
		if !errors.As(err, &coded) || coded.Code != cvm.Invalid {
			t.Errorf("%s: %v has no code", name, err)
		}
	}
}

// keysOf splits a value as QEMU does: at single commas.
func keysOf(value string) (keys []string) {
	value = strings.ReplaceAll(value, ",,", "\x00")
	for i, kv := range strings.Split(value, ",") {
		k, _, has := strings.Cut(kv, "=")
		if has || i > 0 {
			keys = append(keys, k)
		}
	}
	return keys
}

// FuzzArgv: whatever the values are, the options and their properties are those of
// the same machine with harmless values.
func FuzzArgv(f *testing.F) {
	f.Add("/a,readonly=off/data.img", "quiet -S", "pt0", "0000:1a:00.0", "/vol,format=qcow2")
	f.Add("/x", "-monitor stdio", "tap0", "0000:1a:00.0", "/v")
	f.Fuzz(func(t *testing.T, path, cmdline, tap, slot, volume string) {
		shape := func(path, cmdline, tap, slot, volume string) (Launch, []string, error) {
			l := plain(goldenDir, TDX)
			l.Firmware, l.Kernel, l.Initrd, l.Rootfs, l.DataDisk, l.SharedDisk, l.SerialLog, l.PIDFile = path, path, path, path, path, path, path, path
			l.Cmdline, l.Volumes, l.GPUs = cmdline, []string{volume}, []machine.GPU{{Slot: slot}}
			l.NICs = []machine.NIC{{Mode: machine.NICTap, MAC: mac(1), Tap: tap}}
			args, err := Argv(l)
			return l, args, err
		}
		_, args, err := shape(path, cmdline, tap, slot, volume)
		if err != nil {
			return
		}
		_, want, err := shape("/a", "b", "t0", "0000:00:00.0", "/v")
		if err != nil || len(args) != len(want) {
			t.Fatalf("%d arguments, want %d (%v)", len(args), len(want), err)
		}
		for i, a := range args {
			if raw := i > 0 && slices.Contains([]string{"-bios", "-kernel", "-initrd", "-append", "-pidfile"}, want[i-1]); raw {
				continue // taken whole, whatever it holds
			}
			if strings.HasPrefix(want[i], "-") || strings.HasPrefix(want[i], "{") {
				if a != want[i] {
					t.Fatalf("argument %d is %q, want %q", i, a, want[i])
				}
				continue
			}
			if got, want := keysOf(a), keysOf(want[i]); !slices.Equal(got, want) {
				t.Fatalf("%q has properties %q, want %q", a, got, want)
			}
		}
	})
}
