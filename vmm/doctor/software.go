package doctor

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/confidential-cloud/phala/attest/measure"
)

var versionRE = regexp.MustCompile(`(\d+)\.(\d+)`)

// version reads the first "major.minor" of a text.
func version(text string) (v [2]int, found bool) {
	m := versionRE.FindStringSubmatch(text)
	if m == nil {
		return v, false
	}
	v[0], _ = strconv.Atoi(m[1])
	v[1], _ = strconv.Atoi(m[2])
	return v, true
}

func older(a, b [2]int) bool { return a[0] < b[0] || a[0] == b[0] && a[1] < b[1] }

func kernelVersion(_ context.Context, e *exam) verdict {
	text := e.read("/proc/sys/kernel/osrelease")
	v, found := version(text)
	if !found {
		return fail("the kernel's version cannot be read", "is /proc mounted?")
	}
	want := e.oldest([2]int{6, 16}, [2]int{6, 11}, [2]int{5, 10})
	if older(v, want) {
		return fail(text, fmt.Sprintf("install a kernel from %d.%d on", want[0], want[1]))
	}
	return ok(text)
}

// oldest is the oldest version that serves the wanted platform.
func (e *exam) oldest(tdx, snp, none [2]int) [2]int {
	switch e.want {
	case TDX:
		return tdx
	case SNP:
		return snp
	}
	return none
}

// kernelOptions reads the configuration that the kernel was built with.
func (e *exam) kernelOptions() (map[string]bool, string) {
	path := e.first("/boot/config-"+e.read("/proc/sys/kernel/osrelease"), "/proc/config.gz")
	text := e.read(path)
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(bytes.NewReader([]byte(text)))
		if err != nil {
			return nil, path
		}
		b, _ := io.ReadAll(io.LimitReader(z, maxRead))
		text = string(b)
	}
	out := map[string]bool{}
	for line := range strings.Lines(text) {
		if k, v, found := strings.Cut(strings.TrimSpace(line), "="); found && (v == "y" || v == "m") {
			out[k] = true
		}
	}
	return out, path
}

func kernelConfig(_ context.Context, e *exam) verdict {
	options, path := e.kernelOptions()
	if len(options) == 0 {
		return skip("the kernel's configuration is neither in /boot nor in /proc/config.gz")
	}
	need := []string{"CONFIG_KVM", "CONFIG_TUN", "CONFIG_BRIDGE", "CONFIG_NF_TABLES", "CONFIG_VHOST_VSOCK"}
	switch e.want {
	case TDX:
		need = append(need, "CONFIG_INTEL_TDX_HOST", "CONFIG_KVM_INTEL_TDX", "CONFIG_X86_SGX")
	case SNP:
		need = append(need, "CONFIG_KVM_AMD_SEV", "CONFIG_AMD_MEM_ENCRYPT", "CONFIG_CRYPTO_DEV_SP_PSP")
	}
	var missing []string
	for _, n := range need {
		if !options[n] {
			missing = append(missing, n)
		}
	}
	switch {
	case len(missing) == 0:
		return ok(path + " has all that is needed")
	case e.want == None:
		return warn("not in "+path+": "+strings.Join(missing, ", "), "install a kernel with them; without, some ways of running VMs are missing")
	}
	return fail("not in "+path+": "+strings.Join(missing, ", "), "install a kernel with them")
}

// qemu is the path of the binary, as the host sees it.
func (e *exam) qemu() string {
	if e.cfg.QEMU != "" {
		return e.first(e.cfg.QEMU)
	}
	return e.first("/usr/local/bin/qemu-system-x86_64", "/usr/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm")
}

func qemuVersion(ctx context.Context, e *exam) verdict {
	path := e.qemu()
	if path == "" {
		return fail("there is no qemu-system-x86_64", "install QEMU (qemu-system-x86), or name the binary")
	}
	out, err := e.probe.Run(ctx, e.path(path), "--version")
	line, _, _ := strings.Cut(out, "\n")
	v, found := version(line)
	if err != nil || !found {
		return fail(fmt.Sprintf("%s --version: %q %v", path, line, err), "install QEMU again")
	}
	want := e.oldest([2]int{10, 1}, [2]int{9, 1}, [2]int{7, 2})
	if older(v, want) {
		return fail(path+": "+line, fmt.Sprintf("install QEMU from %d.%d on", want[0], want[1]))
	}
	return ok(path + ": " + line)
}

func qemuObjects(ctx context.Context, e *exam) verdict {
	path := e.qemu()
	if path == "" {
		return skip("there is no QEMU")
	}
	out, err := e.probe.Run(ctx, e.path(path), "-object", "help")
	if err != nil {
		return fail(fmt.Sprintf("%s -object help: %v", path, err), "install QEMU again")
	}
	has := map[string]bool{}
	for _, w := range strings.Fields(out) {
		has[w] = true
	}
	need := map[string]string{TDX: "tdx-guest", SNP: "sev-snp-guest"}[e.want]
	switch {
	case need != "" && !has[need]:
		return fail("this QEMU has no "+need, "install a newer QEMU, built with KVM")
	case has["tdx-guest"] && has["sev-snp-guest"]:
		return ok("tdx-guest and sev-snp-guest")
	case need != "":
		return ok(need)
	}
	return warn("tdx-guest: "+yesNo(has["tdx-guest"])+", sev-snp-guest: "+yesNo(has["sev-snp-guest"]), "not needed for VMs without a TEE; else install QEMU from 10.1 on")
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func firmware(_ context.Context, e *exam) verdict {
	paths := []string{e.cfg.Firmware}
	if e.cfg.Firmware == "" {
		paths = []string{"/usr/share/ovmf/OVMF.fd", "/usr/share/qemu/OVMF.fd", "/usr/share/edk2/ovmf/OVMF.fd"}
	}
	path := e.first(paths...)
	if path == "" {
		const fix = "install ovmf, or name the file"
		if e.cfg.Firmware != "" {
			return fail(e.cfg.Firmware+" is not there", fix)
		}
		return warn("no OVMF in the usual places", "images bring their own firmware; others need it: "+fix)
	}
	b, err := os.ReadFile(e.path(path))
	if err != nil || len(b) < 1<<20 || len(b)%4096 != 0 {
		return fail(fmt.Sprintf("%s: %d bytes: %v", path, len(b), err), "this is no firmware volume: install it again")
	}
	if _, _, err := measure.MRTD(b); err != nil {
		if e.want == TDX {
			return fail(path+" cannot start a TD: "+err.Error(), "use a firmware built with TDX support")
		}
		return ok(path + " (without TDX support)")
	}
	return ok(path + " (with TDX support)")
}

func qgs(ctx context.Context, e *exam) verdict {
	places := []string{e.cfg.QGS}
	if e.cfg.QGS == "" {
		places = []string{"vsock:4050", "/var/run/tdx-qgs/qgs.socket"}
	}
	var tried []string
	for _, p := range places {
		network, address := "unix", p
		if port, found := strings.CutPrefix(p, "vsock:"); found {
			network, address = "vsock", port
		}
		err := e.probe.Dial(ctx, network, address)
		if err == nil {
			return ok("answers on " + p)
		}
		tried = append(tried, p+": "+err.Error())
	}
	return fail(strings.Join(tried, "; "), "install tdx-qgs and start qgsd; register the platform (mpa_manage, or the PCCS)")
}

// pccsURL is in Intel's configuration, which is JSON with comments.
var pccsURL = regexp.MustCompile(`(?m)^\s*,?\s*"pccs_url"\s*:\s*"([^"]+)"`)

func pccs(ctx context.Context, e *exam) verdict {
	const fix = "install the PCCS or name another: pccs_url in /etc/sgx_default_qcnl.conf"
	text := e.cfg.PCCS
	if text == "" {
		m := pccsURL.FindStringSubmatch(e.read("/etc/sgx_default_qcnl.conf"))
		if m == nil {
			return fail("/etc/sgx_default_qcnl.conf names no pccs_url", fix)
		}
		text = m[1]
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return fail(fmt.Sprintf("the PCCS URL %q cannot be read", text), fix)
	}
	port := orElse(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	if err := e.probe.Dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port)); err != nil {
		return fail(text+": "+err.Error(), fix)
	}
	return ok(text + " can be connected to")
}
