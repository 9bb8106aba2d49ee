// Package doctor looks at a host that is to run confidential VMs and says what is in
// the way: CPU and BIOS, kernel, QEMU and firmware, quoting services, disks, network,
// limits. Run changes nothing; each finding has a code that stays the same, so that
// it can be searched for and alerted on.
//
// Everything is read below Config.Root, so that a tree of files stands for a host;
// what is no file goes through Config.Probe.
package doctor

import (
	"context"
	"slices"
)

// Result of a check.
type Result string

// Results, from best to worst but for Skip.
const (
	OK   Result = "ok"
	Warn Result = "warn" // works, or may work; someone should look
	Fail Result = "fail" // VMs of the wanted kind cannot run
	Skip Result = "skip" // does not apply, or could not be looked at; Found says why
)

// Finding is what one check found.
type Finding struct {
	Code   string `json:"code"` // HOST-KVM-001; stable
	Name   string `json:"name"`
	Result Result `json:"result"`
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"`
}

// Platforms that a host can be wanted for.
const (
	TDX  = "tdx"
	SNP  = "snp"
	None = "none" // VMs without a TEE
)

// Config of an examination. The zero value examines this machine for what its CPU is.
type Config struct {
	Root     string   // "" is "/"
	Want     string   // TDX, SNP, None; "": what the CPU offers
	QEMU     string   // path of the binary; "": the usual places
	Firmware string   // path; "": the usual places
	Dirs     []string // where VMs and images are; none: /var/lib
	Ports    []int    // TCP ports that must be free
	QGS      string   // vsock:PORT or a socket's path; "": vsock:4050, then the usual socket
	PCCS     string   // URL; "": that of sgx_default_qcnl.conf
	UIDBase  int      // first user id of VMs; 0: not looked at
	UIDCount int
	GPUs     bool // GPUs are to be passed through
	Probe    Probe
}

// Worst is the worst result of all: Fail before Warn before OK.
func Worst(found []Finding) Result {
	for _, r := range []Result{Fail, Warn} {
		if slices.ContainsFunc(found, func(f Finding) bool { return f.Result == r }) {
			return r
		}
	}
	return OK
}

// exam is one examination.
type exam struct {
	cfg   Config
	probe Probe
	cpu   cpuInfo
	log   string // the kernel's
	want  string
}

// verdict is a finding without its code.
type verdict struct {
	result        Result
	found, remedy string
}

func ok(found string) verdict               { return verdict{OK, found, ""} }
func skip(found string) verdict             { return verdict{Skip, found, ""} }
func warn(found string, fix string) verdict { return verdict{Warn, found, fix} }
func fail(found string, fix string) verdict { return verdict{Fail, found, fix} }

type check struct {
	code, name string
	only       string // TDX, SNP: skipped on other hosts
	fn         func(context.Context, *exam) verdict
}

// checks is the table of codes. A code is never given to something else.
func checks() []check {
	return []check{
		{"HOST-CPU-001", "CPU virtualization", "", virtualization},
		{"HOST-CPU-002", "confidential computing in the CPU", "", platform},
		{"HOST-UCODE-001", "microcode", "", microcode},
		{"HOST-TCB-001", "patch level", "", vulnerabilities},
		{"HOST-KVM-001", "/dev/kvm", "", kvm},
		{"HOST-KERNEL-001", "kernel version", "", kernelVersion},
		{"HOST-KERNEL-002", "kernel configuration", "", kernelConfig},
		{"HOST-TDX-001", "TDX enabled by the BIOS", TDX, tdxBIOS},
		{"HOST-TDX-002", "TDX in KVM", TDX, tdxKVM},
		{"HOST-TDX-003", "TDX module", TDX, tdxModule},
		{"HOST-TDX-004", "memory encryption (TME-MT)", TDX, tdxTME},
		{"HOST-TDX-005", "SGX for quotes", TDX, tdxSGX},
		{"HOST-QGS-001", "quote generation service", TDX, qgs},
		{"HOST-PCCS-001", "collateral cache (PCCS)", TDX, pccs},
		{"HOST-SNP-001", "SEV-SNP enabled by the BIOS", SNP, snpBIOS},
		{"HOST-SNP-002", "SEV-SNP in KVM", SNP, snpKVM},
		{"HOST-SNP-003", "/dev/sev", SNP, snpDevice},
		{"HOST-SNP-004", "reverse map table", SNP, snpRMP},
		{"HOST-SNP-005", "IOMMU for SEV-SNP", SNP, snpIOMMU},
		{"HOST-QEMU-001", "QEMU", "", qemuVersion},
		{"HOST-QEMU-002", "QEMU's confidential guests", "", qemuObjects},
		{"HOST-FW-001", "firmware", "", firmware},
		{"HOST-VSOCK-001", "/dev/vhost-vsock", "", vsock},
		{"HOST-MEM-001", "huge pages", "", hugepages},
		{"HOST-GPU-001", "GPUs for passthrough", "", gpus},
		{"HOST-DISK-001", "disk space", "", diskSpace},
		{"HOST-DISK-002", "file system", "", fileSystem},
		{"HOST-CLOCK-001", "clock", "", clock},
		{"HOST-NET-001", "forwarding", "", forwarding},
		{"HOST-NET-002", "tap devices and bridges", "", taps},
		{"HOST-NET-003", "nftables", "", nftables},
		{"HOST-PORT-001", "ports", "", ports},
		{"HOST-LIMIT-001", "open files", "", openFiles},
		{"HOST-CGROUP-001", "cgroups", "", cgroups},
		{"HOST-UID-001", "user ids of VMs", "", userIDs},
	}
}

// Run examines the host. It ends early, with the rest skipped, when ctx ends.
func Run(ctx context.Context, c Config) []Finding {
	if c.Root == "" {
		c.Root = "/"
	}
	if len(c.Dirs) == 0 {
		c.Dirs = []string{"/var/lib"}
	}
	e := &exam{cfg: c, probe: c.Probe.orReal(c.Root)}
	e.cpu = parseCPU(e.read("/proc/cpuinfo"))
	e.log = e.kernelLog()
	if e.want = c.Want; e.want == "" {
		e.want = e.cpu.platform()
	}
	var out []Finding
	for _, k := range checks() {
		v := skip("the examination was interrupted")
		switch {
		case ctx.Err() != nil:
		case k.only != "" && k.only != e.want:
			v = skip("not a " + k.only + " host")
		default:
			v = k.fn(ctx, e)
		}
		out = append(out, Finding{Code: k.code, Name: k.name, Result: v.result, Found: v.found, Remedy: v.remedy})
	}
	return out
}
