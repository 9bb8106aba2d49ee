package vm

import (
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
)

// tree makes files below a root.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestOnlyTheImagesCommandLineIsAMachine(t *testing.T) {
	if !IsVM("console=ttyS0 dstack.rootfs_hash=ab dstack.rootfs_size=1\n") {
		t.Error("a machine is not seen")
	}
	for _, s := range []string{"", "console=ttyS0", "xdstack.rootfs_hash=ab", "init=dstack.rootfs_hash"} {
		if IsVM(s) {
			t.Errorf("%q is taken for a machine", s)
		}
	}
}

func TestDisksAreFoundBySerialNumber(t *testing.T) {
	root := tree(t, map[string]string{"sys/block/vda/serial": "phala-rootfs", "sys/block/vdb/serial": "phala-data\n", "sys/block/vdc/serial": "phala-shared\x00", "sys/block/loop0/size": "0"})
	for serial, want := range map[string]string{SerialData: "/dev/vdb", SerialShared: "/dev/vdc"} {
		if got, err := Disk(root, serial); err != nil || got != want {
			t.Errorf("%s: %q, %v", serial, got, err)
		}
	}
	if _, err := Disk(root, "phala-vol0"); cvm.CodeOf(err) != cvm.NotFound {
		t.Errorf("a disk that is not there: %v", err)
	}
	two := tree(t, map[string]string{"sys/block/vda/serial": SerialData, "sys/block/vdb/serial": SerialData})
	if _, err := Disk(two, SerialData); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("two disks of one name: %v", err)
	}
}

func TestThePortIsFoundByName(t *testing.T) {
	root := tree(t, map[string]string{"sys/class/virtio-ports/vport1p1/name": "org.qemu.agent", "sys/class/virtio-ports/vport1p2/name": PortName + "\n"})
	if got, err := port(root); err != nil || got != "vport1p2" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := port(t.TempDir()); cvm.CodeOf(err) != cvm.NotFound {
		t.Errorf("no port: %v", err)
	}
}

func TestTheVSockDeviceIsFound(t *testing.T) {
	with := tree(t, map[string]string{"sys/bus/virtio/devices/virtio0/device": "0x0002\n", "sys/bus/virtio/devices/virtio3/device": "0x0013\n"})
	without := tree(t, map[string]string{"sys/bus/virtio/devices/virtio0/device": "0x0003\n"})
	if !hasVSock(with) || hasVSock(without) || hasVSock(t.TempDir()) {
		t.Errorf("with %v, without %v, nothing %v", hasVSock(with), hasVSock(without), hasVSock(t.TempDir()))
	}
}

// TestHardwareIsNeverOverlooked: on a machine with a real TEE no simulated device may
// be used, whatever the host offers.
func TestHardwareIsNeverOverlooked(t *testing.T) {
	plain := "processor\t: 0\nflags\t\t: fpu sse2 hypervisor tdx_host_platform\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"none":                     {map[string]string{"proc/cpuinfo": plain}, ""},
		"tdx by the processor":     {map[string]string{"proc/cpuinfo": "flags\t\t: fpu tdx_guest\n"}, "tdx"},
		"tdx by its device":        {map[string]string{"proc/cpuinfo": plain, "dev/tdx_guest": ""}, "tdx"},
		"tdx by its registers":     {map[string]string{"proc/cpuinfo": plain, "sys/devices/virtual/misc/tdx_guest/dev": ""}, "tdx"},
		"snp by its device":        {map[string]string{"proc/cpuinfo": plain, "dev/sev-guest": ""}, "sev-snp"},
		"snp before its device":    {map[string]string{"sys/devices/virtual/misc/sev-guest/dev": ""}, "sev-snp"},
		"snp without its module":   {map[string]string{"sys/bus/platform/devices/sev-guest/uevent": ""}, "sev-snp"},
		"snp by its level":         {map[string]string{"sys/devices/system/cpu/sev/vmpl": "0"}, "sev-snp"},
		"tdx, and the host's sock": {map[string]string{"proc/cpuinfo": "flags : tdx_guest\n", "run/phala/vm/tee.sock": ""}, "tdx"},
	} {
		if got := Hardware(tree(t, c.files)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// What the kernel lacks is named, with what to do about it.
func TestWhatTheKernelLacks(t *testing.T) {
	tsm, regs := "sys/kernel/config/tsm/report/x", "sys/devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384"
	for name, c := range map[string]struct {
		hardware string
		files    []string
		missing  string
	}{
		"tdx":                   {HardwareTDX, []string{tsm, regs}, ""},
		"tdx without reports":   {HardwareTDX, []string{regs}, "/sys/kernel/config/tsm/report"},
		"tdx without registers": {HardwareTDX, []string{tsm}, "measurements"},
		"snp":                   {HardwareSNP, []string{tsm}, ""},
		"snp without reports":   {HardwareSNP, []string{"dev/sev-guest"}, "/sys/kernel/config/tsm/report"},
		"none":                  {"", nil, ""},
	} {
		files := map[string]string{}
		for _, f := range c.files {
			files[f] = ""
		}
		err := NeedTEE(tree(t, files), c.hardware)
		if c.missing == "" && err != nil || c.missing != "" && (cvm.ReasonOf(err) != ReasonTEE || !strings.Contains(err.Error(), c.missing)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func event(kind, code uint16, value uint32) []byte {
	b := make([]byte, eventSize)
	binary.NativeEndian.PutUint16(b[16:], kind)
	binary.NativeEndian.PutUint16(b[18:], code)
	binary.NativeEndian.PutUint32(b[20:], value)
	return b
}

func TestThePowerButton(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		want bool
	}{
		"pressed":      {slices.Concat(event(0, 0, 0), event(evKey, keyPower, 1)), true},
		"released":     {event(evKey, keyPower, 0), false},
		"another key":  {event(evKey, 30, 1), false},
		"no key":       {event(3, keyPower, 1), false},
		"half":         {event(evKey, keyPower, 1)[:20], false},
		"nothing":      {nil, false},
		"sleep button": {event(evKey, keySleep, 1), true},
	} {
		if got := pressed(c.b); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	class := tree(t, map[string]string{"event0/device/name": "AT Translated Set 2 keyboard\n", "event1/device/name": "Power Button\n", "input0/name": "Power Button"})
	if got := powerInputs(class); !slices.Equal(got, []string{"event1"}) {
		t.Errorf("inputs %q", got)
	}
}

func TestWhatIsUnmounted(t *testing.T) {
	table := "rootfs / squashfs ro 0 0\nproc /proc proc rw 0 0\noverlay /var overlay rw 0 0\n/dev/mapper/phala-data /var/lib/phala ext4 rw 0 0\noverlay /var/lib/phala/docker/a\\040b overlay rw 0 0\nshort\n"
	want := []string{"/var/lib/phala/docker/a b", "/var/lib/phala", "/var"}
	if got := dataMounts(table); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func ack(t *testing.T, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	base := []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IP{10, 0, 2, 15}), dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(net.IP{10, 0, 2, 2}),
		dhcpv4.WithDNS(net.IP{10, 0, 2, 3}, net.IP{0, 0, 0, 0}, net.IP{1, 1, 1, 1}, net.IP{8, 8, 8, 8}, net.IP{9, 9, 9, 9})}
	p, err := dhcpv4.New(append(base, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestALeaseIsCheckedBeforeItIsUsed(t *testing.T) {
	o, err := parseLease(ack(t))
	if err != nil || o.Address.String() != "10.0.2.15/24" || o.Router.String() != "10.0.2.2" || len(o.DNS) != maxServers || o.DNS[1].String() != "1.1.1.1" {
		t.Fatalf("%+v, %v", o, err)
	}
	if o, err := parseLease(ack(t, dhcpv4.WithOption(dhcpv4.OptRouter()))); err != nil || o.Router.IsValid() {
		t.Errorf("without a router: %+v, %v", o, err)
	}
	for name, m := range map[string]dhcpv4.Modifier{
		"loopback":       dhcpv4.WithYourIP(net.IP{127, 0, 0, 1}),
		"no address":     dhcpv4.WithYourIP(net.IP{0, 0, 0, 0}),
		"multicast":      dhcpv4.WithYourIP(net.IP{224, 0, 0, 1}),
		"broadcast":      dhcpv4.WithYourIP(net.IP{255, 255, 255, 255}),
		"everything":     dhcpv4.WithNetmask(net.CIDRMask(0, 32)),
		"far router":     dhcpv4.WithRouter(net.IP{192, 168, 0, 1}),
		"own router":     dhcpv4.WithRouter(net.IP{10, 0, 2, 15}),
		"mask with hole": dhcpv4.WithNetmask(net.IPMask{255, 0, 255, 0}),
	} {
		if o, err := parseLease(ack(t, m)); cvm.ReasonOf(err) != ReasonNetwork {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
	}
}

// FuzzLease: any answer is refused or gives an address that can be used.
func FuzzLease(f *testing.F) {
	p, err := dhcpv4.New(dhcpv4.WithYourIP(net.IP{10, 0, 2, 15}), dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(net.IP{10, 0, 2, 2}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		o, err := parseLease(p)
		if err == nil && (!o.Address.IsValid() || o.Router.IsValid() && !o.Address.Contains(o.Router) || len(o.DNS) > maxServers) {
			t.Fatalf("%+v", o)
		}
	})
}

func TestTheClockBelievesOnlyServersThatProveThemselves(t *testing.T) {
	c := &Clock{Servers: []string{"a.example", "b.example"}, Dir: "/run/chrony"}
	secure, loose := c.Config(true, "/dev/ptp0"), c.Config(false, "/dev/ptp0")
	if strings.Contains(secure, "ptp0") || !strings.Contains(secure, "authselectmode require") || strings.Count(secure, " nts\n") != 2 {
		t.Errorf("secure:\n%s", secure)
	}
	if !strings.Contains(loose, "refclock PHC /dev/ptp0") || strings.Contains(loose, "authselectmode require") {
		t.Errorf("loose:\n%s", loose)
	}
	if err := (&Clock{}).Wait(t.Context()); cvm.ReasonOf(err) != ReasonTime {
		t.Errorf("no server, and the app wants one: %v", err)
	}
	for _, bad := range []string{"", "a b", "x\nserver evil", "a;b", strings.Repeat("a", 300)} {
		if ValidServers([]string{bad}) == nil {
			t.Errorf("%q is a host name", bad)
		}
	}
	if err := ValidServers([]string{"time.example.org", "2001:db8::1"}); err != nil {
		t.Error(err)
	}
}

func TestAuthorizedKeys(t *testing.T) {
	const k = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKHEXkNZXdoZ6uKRPyl0p4ZkA6xmF9KSvJXvKlq0Yg7f"
	keys, bad := AuthorizedKeys(k+" me\n# note\n\ncommand=\"id\" "+k+"\nrubbish", []byte(`{"ssh_authorized_keys":["`+k+` other","x\ny"],"hostname":null}`))
	if bad != 3 || !slices.Equal(keys, []string{k + " me", k + " other"}) {
		t.Errorf("%q, %d bad", keys, bad)
	}
	if keys, bad := AuthorizedKeys("", []byte("not json")); len(keys) != 0 || bad != 0 {
		t.Errorf("%q, %d", keys, bad)
	}
}

func TestRulesFollowTheMeasuredApp(t *testing.T) {
	yes := &appcompose.PortPolicy{RestrictMode: true, Ports: []appcompose.Port{{Port: 443}, {Port: 80}}}
	open := &appcompose.PortPolicy{Ports: []appcompose.Port{{Port: 5000}}}
	for name, c := range map[string]struct {
		policy  *appcompose.PortPolicy
		want    []string
		wantNot []string
	}{
		"no policy":   {nil, []string{"tcp dport { 8090 } accept", "ct status dnat accept"}, []string{"proto-dst"}},
		"a list":      {open, []string{"tcp dport { 5000, 8090 } accept", "ct status dnat accept"}, []string{"proto-dst"}},
		"restricted":  {yes, []string{"tcp dport { 80, 443, 8090 } accept", "ct original proto-dst { 80, 443 } accept"}, []string{"ct status dnat accept"}},
		"nothing":     {&appcompose.PortPolicy{RestrictMode: true}, []string{"tcp dport { 8090 } accept"}, []string{"dnat"}},
		"always drop": {nil, []string{"hook input priority filter; policy drop;", "hook forward priority filter; policy drop;", "udp dport 9182 accept"}, nil},
	} {
		got := AppRules(&appcompose.Document{PortPolicy: c.policy}, []string{"eth0"}, 9182).Table()
		for _, w := range c.want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: no %q in\n%s", name, w, got)
			}
		}
		for _, w := range c.wantNot {
			if strings.Contains(got, w) {
				t.Errorf("%s: %q in\n%s", name, w, got)
			}
		}
	}
}
