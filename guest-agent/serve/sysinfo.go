package serve

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/disk"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// SysInfo reads the guest's load. What cannot be read is left zero: the numbers
// are for people, nothing rests on them.
func SysInfo(dataDir string) guestapi.SysInfo {
	s := guestapi.SysInfo{NumCPUs: uint32(runtime.NumCPU()), CPUModel: cpuModel()} // #nosec G115
	os := keyValues("/etc/os-release", "=")
	s.OSName, s.OSVersion = strings.Trim(os["NAME"], `"`), strings.Trim(os["VERSION_ID"], `"`)
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		s.KernelVersion = unix.ByteSliceToString(u.Release[:])
	}
	memory(&s)
	load(&s)
	if total, free, err := disk.Usage(dataDir); err == nil {
		s.Disks = []guestapi.Disk{{Name: "data", MountPoint: dataDir, TotalSize: total, FreeSize: free}}
	}
	return s
}

// memory is the guest's limit where it has one (a container guest), else the machine's.
func memory(s *guestapi.SysInfo) {
	m := keyValues("/proc/meminfo", ":")
	kb := func(name string) uint64 {
		n, _ := strconv.ParseUint(strings.TrimSuffix(m[name], " kB"), 10, 64)
		return n << 10
	}
	s.TotalMemory, s.AvailableMemory, s.FreeMemory = kb("MemTotal"), kb("MemAvailable"), kb("MemFree")
	s.TotalSwap, s.FreeSwap = kb("SwapTotal"), kb("SwapFree")
	for _, f := range [][2]string{
		{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
		{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"},
	} {
		limit, used := number(f[0]), number(f[1])
		if limit > 0 && limit < s.TotalMemory && used <= limit {
			s.TotalMemory, s.FreeMemory, s.AvailableMemory = limit, limit-used, limit-used
			s.TotalSwap, s.FreeSwap = 0, 0
		}
	}
	s.UsedMemory = s.TotalMemory - min(s.AvailableMemory, s.TotalMemory)
	s.UsedSwap = s.TotalSwap - min(s.FreeSwap, s.TotalSwap)
}

func number(path string) uint64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return n
}

func load(s *guestapi.SysInfo) {
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		f := strings.Fields(string(b))
		for i, dst := range []*uint32{&s.LoadavgOne, &s.LoadavgFive, &s.LoadavgFifteen} {
			if i < len(f) {
				v, _ := strconv.ParseFloat(f[i], 64)
				*dst = uint32(v * 100)
			}
		}
	}
	if b, err := os.ReadFile("/proc/uptime"); err == nil {
		v, _, _ := strings.Cut(string(b), ".")
		s.Uptime, _ = strconv.ParseUint(strings.TrimSpace(v), 10, 64)
	}
}

func cpuModel() string { return keyValues("/proc/cpuinfo", ":")["model name"] }

// keyValues reads "name<sep>value" lines; the first of a name counts.
func keyValues(path, sep string) map[string]string {
	out := map[string]string{}
	b, err := os.ReadFile(path)
	if err != nil {
		return out
	}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		k, v, ok := strings.Cut(sc.Text(), sep)
		if k = strings.TrimSpace(k); ok && out[k] == "" {
			out[k] = strings.TrimSpace(v)
		}
	}
	return out
}

// machineNames are DMI's words for who made the machine.
func machineNames() (vendor, product string) {
	read := func(name string) string {
		b, err := os.ReadFile("/sys/class/dmi/id/" + name)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	return read("sys_vendor"), read("product_name")
}

// metrics is /metrics in the reference's names.
func (b *Backend) metrics(w http.ResponseWriter, _ *http.Request) {
	if !b.App.PublicSysinfo {
		rpc.WriteError(w, cvm.Errorf(cvm.Denied, "this app does not publish its system information").WithReason("sysinfo-not-public"))
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = w.Write(slices.Concat(metricsText(SysInfo(b.DataDir)), b.appMetrics(), requestMetrics(b.Requests())))
}

// appMetrics says what of the app its measurement does not cover.
func (b *Backend) appMetrics() []byte {
	var out bytes.Buffer
	if b.Containers != nil {
		named := map[string]int{"digest": 0, "tag": 0, "build": 0}
		for _, u := range b.Containers.Images() {
			switch {
			case u.Pinned:
				named["digest"]++
			case u.Built:
				named["build"]++
			default:
				named["tag"]++
			}
		}
		out.WriteString("# HELP phala_guest_images Services by what names their image: only a digest is measured.\n# TYPE phala_guest_images gauge\n")
		for _, by := range []string{"digest", "tag", "build"} {
			fmt.Fprintf(&out, "phala_guest_images{named_by=%q} %d\n", by, named[by])
		}
	}
	out.WriteString("# HELP phala_guest_ignored_keys Top-level keys of the app-compose that this guest ignores.\n# TYPE phala_guest_ignored_keys gauge\n")
	fmt.Fprintf(&out, "phala_guest_ignored_keys %d\n", len(b.App.Unknown))
	return out.Bytes()
}

func metricsText(s guestapi.SysInfo) []byte {
	var out bytes.Buffer
	gauge := func(name string, value any, labels ...string) {
		var l string
		for i := 0; i+1 < len(labels); i += 2 {
			if l != "" {
				l += ","
			}
			l += labels[i] + "=" + strconv.Quote(labels[i+1])
		}
		if l != "" {
			l = "{" + l + "}"
		}
		fmt.Fprintf(&out, "# TYPE %s gauge\n%s%s %v\n", name, name, l, value)
	}
	gauge("system_os_name", 1, "os_name", s.OSName)
	gauge("system_os_version", 1, "os_version", s.OSVersion)
	gauge("system_kernel_version", 1, "kernel_version", s.KernelVersion)
	gauge("system_cpu_model", 1, "cpu_model", s.CPUModel)
	gauge("system_num_cpus", s.NumCPUs)
	gauge("system_memory_total", s.TotalMemory)
	gauge("system_memory_available", s.AvailableMemory)
	gauge("system_memory_used", s.UsedMemory)
	gauge("system_memory_free", s.FreeMemory)
	gauge("system_swap_total", s.TotalSwap)
	gauge("system_swap_used", s.UsedSwap)
	gauge("system_swap_free", s.FreeSwap)
	gauge("system_uptime", s.Uptime)
	gauge("system_load_average_1m", float64(s.LoadavgOne)/100)
	gauge("system_load_average_5m", float64(s.LoadavgFive)/100)
	gauge("system_load_average_15m", float64(s.LoadavgFifteen)/100)
	for _, d := range s.Disks {
		gauge("disk_total_size", d.TotalSize, "name", d.Name, "mount_point", d.MountPoint)
		gauge("disk_free_size", d.FreeSize, "name", d.Name, "mount_point", d.MountPoint)
		gauge("disk_used_size", d.TotalSize-min(d.FreeSize, d.TotalSize), "name", d.Name, "mount_point", d.MountPoint)
	}
	return out.Bytes()
}
