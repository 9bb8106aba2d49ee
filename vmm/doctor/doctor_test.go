package doctor

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const intelFlags = "fpu vmx tme tdx_host_platform sgx"

// tdxHost is the files of a host that is as it should be.
func tdxHost() map[string]string {
	return map[string]string{
		"/proc/cpuinfo": "vendor_id\t: GenuineIntel\nmodel name\t: Xeon\nmicrocode\t: 0x2b000603\nflags\t\t: " + intelFlags + "\n" +
			"vendor_id\t: GenuineIntel\nmodel name\t: Xeon\nmicrocode\t: 0x2b000603\nflags\t\t: " + intelFlags + "\n",
		"/proc/sys/kernel/osrelease": "6.16.3-generic\n",
		"/boot/config-6.16.3-generic": "CONFIG_KVM=m\nCONFIG_TUN=m\nCONFIG_BRIDGE=m\nCONFIG_NF_TABLES=m\nCONFIG_VHOST_VSOCK=m\nCONFIG_INTEL_TDX_HOST=y\nCONFIG_KVM_INTEL_TDX=y\nCONFIG_X86_SGX=y\n" +
			"CONFIG_KVM_AMD_SEV=y\nCONFIG_AMD_MEM_ENCRYPT=y\nCONFIG_CRYPTO_DEV_SP_PSP=y\n",
		"/dev/kvm": "", "/dev/vhost-vsock": "", "/dev/net/tun": "", "/dev/sgx_enclave": "", "/dev/sgx_provision": "",
		"/dev/kmsg":                                   "6,1,1,-;virt/tdx: BIOS enabled: private KeyID range [64, 128)\n6,2,2,-;x86/mktme: enabled by BIOS\n6,3,3,-;virt/tdx: module initialized\n",
		"/sys/module/kvm_intel/parameters/tdx":        "Y\n",
		"/sys/devices/system/cpu/vulnerabilities/mds": "Not affected\n",
		"/usr/bin/qemu-system-x86_64":                 "binary",
		"/usr/share/ovmf/OVMF.fd":                     string(make([]byte, 2<<20)),
		"/etc/sgx_default_qcnl.conf":                  "{\n  // the cache\n  \"pccs_url\": \"https://localhost:8081/sgx/certification/v4/\"\n}\n",
		"/proc/sys/net/ipv4/ip_forward":               "1\n", "/proc/sys/net/ipv6/conf/all/forwarding": "1\n",
		"/proc/modules":                     "nf_tables 300000 10 - Live 0x0\n",
		"/proc/net/tcp":                     "  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A 0\n   1: 0100007F:2210 0100007F:0001 01 0\n",
		"/proc/self/limits":                 "Limit  Soft Hard\nMax open files            1024                 524288               files\n",
		"/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids\n",
		"/etc/passwd":                       "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
		"/etc/subuid":                       "user:100000:65536\n",
		"/proc/self/uid_map":                "         0          0 4294967295\n",
		"/sys/kernel/iommu_groups/7/devices/0000:17:00.0": "", "/sys/kernel/iommu_groups/7/devices/0000:17:00.1": "",
		"/sys/bus/pci/devices/0000:17:00.0/vendor": "0x10de\n", "/sys/bus/pci/devices/0000:17:00.0/class": "0x030200\n",
		"/sys/bus/pci/devices/0000:17:00.0/driver": "->/sys/bus/pci/drivers/vfio-pci", "/sys/bus/pci/devices/0000:17:00.0/iommu_group": "->/sys/kernel/iommu_groups/7",
	}
}

func snpHost() map[string]string {
	h := tdxHost()
	for _, n := range []string{"/sys/module/kvm_intel/parameters/tdx", "/dev/sgx_enclave", "/dev/sgx_provision", "/etc/sgx_default_qcnl.conf"} {
		delete(h, n)
	}
	h["/proc/cpuinfo"] = "vendor_id\t: AuthenticAMD\nmodel name\t: EPYC\nmicrocode\t: 0xa0011d5\nflags\t\t: svm sev sev_es sev_snp\n"
	h["/sys/module/kvm_amd/parameters/sev_snp"] = "Y\n"
	h["/dev/sev"] = ""
	h["/dev/kmsg"] = "6,1,1,-;SEV-SNP: RMP table physical range [0x1-0x2]\n6,2,2,-;ccp 0000:42:00.1: SEV-SNP API:1.55 build:24\n"
	h["/proc/cmdline"] = "root=/dev/sda1 quiet\n"
	return h
}

// tree writes the files; "->" at the start of a text makes a link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for n, text := range files {
		p := filepath.Join(root, n)
		err := os.MkdirAll(filepath.Dir(p), 0o755)
		if to, link := strings.CutPrefix(text, "->"); err == nil && link {
			err = os.Symlink(to, p)
		} else if err == nil {
			err = os.WriteFile(p, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// healthy answers what is no file.
func healthy() Probe {
	return Probe{
		Run: func(_ context.Context, path string, args ...string) (string, error) {
			if !strings.HasSuffix(path, "/usr/bin/qemu-system-x86_64") {
				return "", errors.New("another program: " + path)
			}
			if args[0] == "--version" {
				return "QEMU emulator version 11.1.3 (Debian)\nCopyright", nil
			}
			return "List of user creatable objects:\n  sev-snp-guest\n  tdx-guest\n", nil
		},
		Dial:  func(_ context.Context, network, address string) error { return nil },
		Disk:  func(string) (int64, string, error) { return 500 << 30, "ext4", nil },
		Clock: func() (bool, time.Duration, error) { return true, time.Millisecond, nil },
	}
}

func examine(t *testing.T, files map[string]string, change func(*Config)) map[string]Finding {
	t.Helper()
	c := Config{Root: tree(t, files), Ports: []int{8720}, UIDBase: 500000, UIDCount: 1000, GPUs: true, Probe: healthy()}
	if change != nil {
		change(&c)
	}
	out := map[string]Finding{}
	for _, f := range Run(t.Context(), c) {
		if f.Found == "" || (f.Result == Fail || f.Result == Warn) != (f.Remedy != "") {
			t.Errorf("%+v: every finding says what was found, every bad one what to do, no good one anything", f)
		}
		out[f.Code] = f
	}
	return out
}

func TestCodes(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range checks() {
		if !regexp.MustCompile(`^HOST-[A-Z]+-\d{3}$`).MatchString(k.code) || seen[k.code] || k.name == "" {
			t.Errorf("%+v", k)
		}
		seen[k.code] = true
	}
}

func TestGoodHosts(t *testing.T) {
	for want, files := range map[string]map[string]string{TDX: tdxHost(), SNP: snpHost()} {
		found := examine(t, files, nil)
		for code, f := range found {
			foreign := strings.HasPrefix(code, "HOST-TDX") || strings.HasPrefix(code, "HOST-QGS") || strings.HasPrefix(code, "HOST-PCCS")
			if want == TDX {
				foreign = strings.HasPrefix(code, "HOST-SNP")
			}
			switch {
			case foreign && f.Result == Skip, !foreign && f.Result == OK:
			case code == "HOST-FW-001" && want == TDX && f.Result == Fail: // a file of zeros starts no TD
			default:
				t.Errorf("%s host: %+v", want, f)
			}
		}
		if f := found["HOST-CPU-002"]; f.Found != want {
			t.Errorf("%+v", f)
		}
	}
}

// broken hosts: one thing is changed, one finding says so.
func TestBrokenHosts(t *testing.T) {
	set := func(path, text string) func(map[string]string) { return func(m map[string]string) { m[path] = text } }
	without := func(path string) func(map[string]string) { return func(m map[string]string) { delete(m, path) } }
	replace := func(path, a, b string) func(map[string]string) {
		return func(m map[string]string) {
			if !strings.Contains(m[path], a) {
				panic(path + " holds no " + a)
			}
			m[path] = strings.ReplaceAll(m[path], a, b)
		}
	}
	const cpu, conf, kmsg = "/proc/cpuinfo", "/boot/config-6.16.3-generic", "/dev/kmsg"
	for _, c := range []struct {
		host, code string
		result     Result
		found      string
		change     func(map[string]string)
	}{
		{TDX, "HOST-CPU-001", Fail, "neither VMX", replace(cpu, "vmx ", "")},
		{TDX, "HOST-CPU-001", Fail, "no CPU", without(cpu)},
		{TDX, "HOST-CPU-002", Fail, "reports none", replace(cpu, "tdx_host_platform ", "")},
		{TDX, "HOST-UCODE-001", Fail, "different", func(m map[string]string) { m[cpu] = strings.Replace(m[cpu], "0x2b000603", "0x2b000600", 1) }},
		{TDX, "HOST-UCODE-001", Warn, "hypervisor", replace(cpu, "0x2b000603", "0xffffffff")},
		{TDX, "HOST-TCB-001", Warn, "mds", set("/sys/devices/system/cpu/vulnerabilities/mds", "Vulnerable: Clear CPU buffers attempted, no microcode")},
		{TDX, "HOST-KVM-001", Fail, "kvm", without("/dev/kvm")},
		{TDX, "HOST-KERNEL-001", Fail, "6.8.0", set("/proc/sys/kernel/osrelease", "6.8.0-generic")},
		{SNP, "HOST-KERNEL-001", Fail, "6.10", set("/proc/sys/kernel/osrelease", "6.10.1")},
		{TDX, "HOST-KERNEL-002", Fail, "CONFIG_KVM_INTEL_TDX", replace(conf, "CONFIG_KVM_INTEL_TDX=y", "# CONFIG_KVM_INTEL_TDX is not set")},
		{SNP, "HOST-KERNEL-002", Fail, "CONFIG_KVM_AMD_SEV", replace(conf, "CONFIG_KVM_AMD_SEV=y", "")},
		{TDX, "HOST-TDX-001", Fail, "tdx_host_platform is missing", func(m map[string]string) {
			m[cpu] = strings.ReplaceAll(m[cpu], "tdx_host_platform ", "")
			m[kmsg] = ""
		}},
		{TDX, "HOST-TDX-002", Fail, "is N", set("/sys/module/kvm_intel/parameters/tdx", "N")},
		{TDX, "HOST-TDX-002", Fail, "not there", without("/sys/module/kvm_intel/parameters/tdx")},
		{TDX, "HOST-TDX-003", Fail, "SEAMCALL failed", replace(kmsg, "virt/tdx: module initialized", "virt/tdx: SEAMCALL failed: TDX Module not loaded.")},
		{TDX, "HOST-TDX-003", Warn, "does not say", set(kmsg, "")},
		{TDX, "HOST-TDX-004", Warn, "memory encryption", func(m map[string]string) { m[cpu], m[kmsg] = strings.ReplaceAll(m[cpu], " tme", ""), "" }},
		{TDX, "HOST-TDX-005", Fail, "sgx_provision", without("/dev/sgx_provision")},
		{TDX, "HOST-PCCS-001", Fail, "no pccs_url", set("/etc/sgx_default_qcnl.conf", `{ //"pccs_url": "https://x/"`+"\n}")},
		{TDX, "HOST-PCCS-001", Fail, "cannot be read", set("/etc/sgx_default_qcnl.conf", "{\n\"pccs_url\": \"nothing\"}")},
		{SNP, "HOST-SNP-001", Fail, "sev_snp", replace(cpu, " sev_snp", "")},
		{SNP, "HOST-SNP-002", Fail, "is N", set("/sys/module/kvm_amd/parameters/sev_snp", "N")},
		{SNP, "HOST-SNP-003", Fail, "/dev/sev", without("/dev/sev")},
		{SNP, "HOST-SNP-004", Warn, "RMP", set(kmsg, "")},
		{SNP, "HOST-SNP-005", Fail, "iommu=pt", set("/proc/cmdline", "quiet iommu=pt")},
		{TDX, "HOST-QEMU-001", Fail, "no qemu", without("/usr/bin/qemu-system-x86_64")},
		{TDX, "HOST-VSOCK-001", Warn, "vhost-vsock", without("/dev/vhost-vsock")},
		{TDX, "HOST-GPU-001", Fail, "bound to nvidia", set("/sys/bus/pci/devices/0000:17:00.0/driver", "->/sys/bus/pci/drivers/nvidia")},
		{TDX, "HOST-GPU-001", Fail, "no IOMMU group", without("/sys/bus/pci/devices/0000:17:00.0/iommu_group")},
		{TDX, "HOST-GPU-001", Fail, "shares IOMMU group 7 with 0000:18:00.0", set("/sys/kernel/iommu_groups/7/devices/0000:18:00.0", "")},
		{TDX, "HOST-GPU-001", Fail, "no NVIDIA", without("/sys/bus/pci/devices/0000:17:00.0/vendor")},
		{TDX, "HOST-NET-001", Warn, "IPv4 forwarding is off", set("/proc/sys/net/ipv4/ip_forward", "0")},
		{TDX, "HOST-NET-001", Warn, "IPv6 forwarding is off", without("/proc/sys/net/ipv6/conf/all/forwarding")},
		{TDX, "HOST-NET-002", Warn, "tun", without("/dev/net/tun")},
		{TDX, "HOST-NET-003", Fail, "nf_tables", func(m map[string]string) {
			delete(m, "/proc/modules")
			m[conf] = strings.ReplaceAll(m[conf], "CONFIG_NF_TABLES=m", "")
		}},
		{TDX, "HOST-PORT-001", Warn, "8720", replace("/proc/net/tcp", "1F90", "2210")},
		{TDX, "HOST-LIMIT-001", Warn, "4096", replace("/proc/self/limits", "524288", "4096")},
		{TDX, "HOST-CGROUP-001", Warn, "not version 2", without("/sys/fs/cgroup/cgroup.controllers")},
		{TDX, "HOST-CGROUP-001", Warn, "without io", replace("/sys/fs/cgroup/cgroup.controllers", " io", "")},
		{TDX, "HOST-UID-001", Fail, "user someone", set("/etc/passwd", "someone:x:500999:1::/:/bin/sh")},
		{TDX, "HOST-UID-001", Fail, "subuid", set("/etc/subuid", "user:499999:2")},
		{TDX, "HOST-UID-001", Fail, "do not exist", set("/proc/self/uid_map", "0 1000 65536")},
	} {
		files := map[string]map[string]string{TDX: tdxHost(), SNP: snpHost()}[c.host]
		c.change(files)
		f := examine(t, files, func(x *Config) { x.Want = c.host })[c.code]
		if f.Result != c.result || !strings.Contains(f.Found, c.found) {
			t.Errorf("%s: want %s %q, got %+v", c.code, c.result, c.found, f)
		}
	}
}

// TestBrokenServices: what is no file.
func TestBrokenServices(t *testing.T) {
	no := errors.New("it does not answer")
	for _, c := range []struct {
		code   string
		result Result
		found  string
		change func(*Config)
	}{
		{"HOST-QGS-001", Fail, "vsock:4050: it does not answer; /var/run/tdx-qgs", func(c *Config) { c.Probe.Dial = func(context.Context, string, string) error { return no } }},
		{"HOST-PCCS-001", Fail, "8081", func(c *Config) {
			c.Probe.Dial = func(_ context.Context, network, address string) error {
				if network == "tcp" && address == "localhost:8081" {
					return no
				}
				return nil
			}
		}},
		{"HOST-QEMU-001", Fail, "8.2.0", func(c *Config) {
			c.Probe.Run = func(context.Context, string, ...string) (string, error) { return "QEMU emulator version 8.2.0", nil }
		}},
		{"HOST-QEMU-001", Fail, "it does not answer", func(c *Config) {
			c.Probe.Run = func(context.Context, string, ...string) (string, error) { return "", no }
		}},
		{"HOST-QEMU-002", Fail, "no tdx-guest", func(c *Config) {
			c.Probe.Run = func(context.Context, string, ...string) (string, error) { return "sev-guest", nil }
		}},
		{"HOST-FW-001", Fail, "not there", func(c *Config) { c.Firmware = "/nowhere.fd" }},
		{"HOST-DISK-001", Fail, "1 GiB", func(c *Config) { c.Probe.Disk = func(string) (int64, string, error) { return 1 << 30, "ext4", nil } }},
		{"HOST-DISK-001", Warn, "50 GiB", func(c *Config) { c.Probe.Disk = func(string) (int64, string, error) { return 50 << 30, "ext4", nil } }},
		{"HOST-DISK-002", Fail, "tmpfs", func(c *Config) { c.Probe.Disk = func(string) (int64, string, error) { return 500 << 30, "tmpfs", nil } }},
		{"HOST-DISK-002", Warn, "nfs", func(c *Config) { c.Probe.Disk = func(string) (int64, string, error) { return 500 << 30, "nfs", nil } }},
		{"HOST-CLOCK-001", Warn, "not synchronised", func(c *Config) { c.Probe.Clock = func() (bool, time.Duration, error) { return false, 0, nil } }},
		{"HOST-CLOCK-001", Warn, "off by 16s", func(c *Config) {
			c.Probe.Clock = func() (bool, time.Duration, error) { return true, 16 * time.Second, nil }
		}},
	} {
		if f := examine(t, tdxHost(), c.change)[c.code]; f.Result != c.result || !strings.Contains(f.Found, c.found) {
			t.Errorf("%s: want %s %q, got %+v", c.code, c.result, c.found, f)
		}
	}
}

// TestPlainHost: no TEE is a warning, unless one is wanted.
func TestPlainHost(t *testing.T) {
	files := tdxHost()
	files["/proc/cpuinfo"] = strings.ReplaceAll(files["/proc/cpuinfo"], "tdx_host_platform ", "")
	found := examine(t, files, nil)
	if found["HOST-CPU-002"].Result != Warn || found["HOST-TDX-001"].Result != Skip || found["HOST-SNP-001"].Result != Skip {
		t.Errorf("%+v", found)
	}
	if found = examine(t, files, func(c *Config) { c.Want = TDX }); found["HOST-CPU-002"].Result != Fail || found["HOST-TDX-001"].Result == Skip {
		t.Errorf("%+v", found)
	}
	if got := examine(t, map[string]string{}, nil); Worst(append([]Finding{}, mapsValues(got)...)) != Fail {
		t.Errorf("an empty tree is taken for a host: %+v", got)
	}
}

func mapsValues(m map[string]Finding) (out []Finding) {
	for v := range maps.Values(m) {
		out = append(out, v)
	}
	return out
}

func TestWorst(t *testing.T) {
	for want, rs := range map[Result][]Result{OK: {OK, Skip}, Warn: {OK, Warn, Skip}, Fail: {Warn, Fail, OK}} {
		var f []Finding
		for _, r := range rs {
			f = append(f, Finding{Result: r})
		}
		if Worst(f) != want {
			t.Errorf("%v: %s", rs, Worst(f))
		}
	}
}

// TestThisMachine: the real probes answer, whatever they find.
func TestThisMachine(t *testing.T) {
	for _, f := range Run(t.Context(), Config{Ports: []int{1}, UIDBase: 700000, UIDCount: 10}) {
		t.Logf("%-16s %-4s %s", f.Code, f.Result, f.Found)
		if f.Found == "" {
			t.Errorf("%+v", f)
		}
		if f.Code == "HOST-CPU-001" && strings.Contains(f.Found, "no CPU") || f.Code == "HOST-DISK-001" && strings.Contains(f.Found, "error") {
			t.Errorf("%+v", f)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, f := range Run(gone, Config{}) {
		if f.Result != Skip {
			t.Errorf("examined after the context ended: %+v", f)
		}
	}
}
