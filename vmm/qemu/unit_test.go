package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/machine"
)

func exitError(t *testing.T, script string) *exec.ExitError {
	t.Helper()
	var e *exec.ExitError
	if err := exec.CommandContext(t.Context(), "sh", "-c", script).Run(); !errors.As(err, &e) {
		t.Fatal(err)
	}
	return e
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		name      string
		e         end
		code      int
		oom, said bool // OOMKilled, Requested
		detail    string
	}{
		{"power-off", end{reason: "guest-shutdown", seen: true}, 0, false, false, "the guest powered off"},
		{"power-off nobody saw", end{reason: statusShutdown}, 0, false, false, "the guest powered off"},
		{"refused", end{reason: "guest-shutdown", refused: refusedRE.FindStringSubmatch("[ 1.0] x\r\n\r\nphala-initramfs: rootfs-corrupt: block 3\r\n[ 2.0] reboot: Power down\r\n")}, 0, false, false, "refused to start: block 3"},
		{"panic nobody saw", end{reason: statusShutdown, panicLine: "Fatal exception"}, codePanic, false, false, "panicked: Fatal exception"},
		{"restart", end{reason: "guest-reset"}, codeReset, false, false, "restarted itself"},
		{"panic=1", end{reason: "guest-reset", panicLine: "sysrq triggered crash"}, codePanic, false, false, "panicked: sysrq"},
		{"panic device", end{reason: statusPanicked, panicLine: "x"}, codePanic, false, false, "panicked"},
		{"kvm", end{reason: statusInternal}, codeFault, false, false, "KVM internal error"},
		{"asked", end{reason: "guest-shutdown", stopping: true}, 0, false, true, "powered off"},
		{"too slow", end{reason: "host-qmp-quit", stopping: true}, 0, false, true, "ended by the host"},
		{"killed by Stop", end{stopping: true, seen: true, status: exitError(t, "kill -9 $$")}, 137, false, true, "did not power off in time"},
		{"host's SIGTERM", end{reason: "host-signal"}, 143, false, false, "host-signal"},
		{"crash", end{seen: true, status: exitError(t, "kill -SEGV $$")}, 139, false, false, "signal: segmentation fault"},
		{"failure", end{seen: true, status: exitError(t, "exit 1"), said: "no such disk"}, 1, false, false, "code 1: no such disk"},
		{"out of memory", end{seen: true, oom: true, status: exitError(t, "kill -9 $$")}, 137, true, false, "more memory"},
		{"power-off after an old OOM", end{reason: "guest-shutdown", oom: true}, 0, false, false, "powered off"},
		{"unseen", end{}, codeUnknown, false, false, "while no VMM watched"},
	} {
		x := classify(c.e)
		if x.Code != c.code || x.OOMKilled != c.oom || x.Requested != c.said || !strings.Contains(x.Detail, c.detail) {
			t.Errorf("%s: %+v", c.name, x)
		}
		if (x.Reason == "rootfs-corrupt") != (c.name == "refused") {
			t.Errorf("%s: reason %q", c.name, x.Reason)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"QMP":{"version":{}}}`))
	f.Add([]byte(`{"return":{},"id":1}`))
	f.Add([]byte(`{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}`))
	f.Add([]byte(`{"error":{"class":"GenericError","desc":"x"},"id":7}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := decode(line)
		if err != nil {
			return
		}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatalf("%q does not encode: %v", line, err)
		}
		again, err := decode(b)
		if err != nil {
			t.Fatalf("%q became %q: %v", line, b, err)
		}
		if c, err := json.Marshal(again); err != nil || !bytes.Equal(b, c) {
			t.Fatalf("%q, then %q: %v", b, c, err)
		}
	})
}

func TestReadLineIsBounded(t *testing.T) {
	if _, err := readLine(bufio.NewReader(io.LimitReader(zeros{}, 2*maxMessage))); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("an endless line: %v", err)
	}
	if b, err := readLine(bufio.NewReaderSize(strings.NewReader(strings.Repeat("a", 5000)+"\r\nrest"), 16)); err != nil || len(b) != 5000 {
		t.Errorf("a long line: %d bytes, %v", len(b), err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// fakeQEMU answers each line that it reads with what say returns.
func fakeQEMU(t *testing.T, greeting string, say func(line string) string) string {
	t.Helper()
	sock := filepath.Join(t.TempDir(), "q")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, greeting)
			for s := bufio.NewScanner(c); s.Scan(); {
				_, _ = io.WriteString(c, say(s.Text()))
			}
			c.Close()
		}
	}()
	return sock
}

func TestQMPRefusals(t *testing.T) {
	ok := func(string) string { return "{\"return\":{},\"id\":1}\n" }
	for name, f := range map[string]struct {
		greeting string
		say      func(string) string
	}{
		"no greeting":   {`{"return":{}}` + "\n", ok},
		"garbage":       {"hello\n", ok},
		"two kinds":     {`{"QMP":{},"return":{}}` + "\n", ok},
		"no answer":     {`{"QMP":{}}` + "\n", func(string) string { return "" }},
		"other answer":  {`{"QMP":{}}` + "\n", func(string) string { return "{\"return\":{},\"id\":99}\n" }},
		"refused":       {`{"QMP":{}}` + "\n", func(string) string { return "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"},\"id\":1}\n" }},
		"end of stream": {"", ok},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if q, err := dialQMP(ctx, fakeQEMU(t, f.greeting, f.say), ignoreEvents); err == nil {
			t.Errorf("%s: accepted", name)
			q.close()
		}
		cancel()
	}
	if q, err := dialQMP(t.Context(), fakeQEMU(t, `{"QMP":{}}`+"\n", ok), ignoreEvents); err != nil {
		t.Error(err)
	} else {
		q.close()
	}
}

// The binary of the probe guest is what its source says.
func TestProbeGuest(t *testing.T) {
	for _, tool := range []string{"as", "ld"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("SKIPPED: no " + tool)
		}
	}
	dir := t.TempDir()
	for _, args := range [][]string{{"as", "--32", "-o", dir + "/o", "probe/probe.S"}, {"ld", "-m", "elf_i386", "-Ttext", "0x100000", "--oformat", "binary", "-o", dir + "/bin", dir + "/o"}} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: %v %s", err, out)
		}
	}
	if b := readFile(t, dir+"/bin"); !bytes.Equal(b, probeGuest) {
		t.Errorf("probe.bin has %d bytes, probe.S gives %d others", len(probeGuest), len(b))
	}
}

func testDriver(t *testing.T, edit func(*Config)) *Driver {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("SKIPPED: no qemu-system-x86_64")
	}
	c := Config{Options: DefaultOptions(), Dir: t.TempDir()}
	edit(&c)
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A host without TEE runs nothing unless its owner said so.
func TestProbe(t *testing.T) {
	if _, err := os.Stat("/sys/module/kvm_intel/parameters/tdx"); err == nil {
		t.Skip("SKIPPED: this host may have TDX")
	}
	d := testDriver(t, func(*Config) {})
	if _, err := d.probe(t.Context()); cvm.ReasonOf(err) != "no-accelerator" || !strings.Contains(err.Error(), "tdx: ") || !strings.Contains(err.Error(), "snp: ") {
		t.Errorf("a host without TEE: %v", err)
	}
	d = testDriver(t, func(c *Config) { c.AllowSimulated, c.TEE = true, noTEE{} })
	h, err := d.probe(t.Context())
	if err != nil || (h.accel != TCG && h.accel != KVM) || len(h.notes) < 2 {
		t.Fatalf("with a simulated TEE allowed: %+v %v", h, err)
	}
	d = testDriver(t, func(c *Config) { c.Accel = TDX })
	if _, err := d.probe(t.Context()); cvm.ReasonOf(err) != "no-accelerator" {
		t.Errorf("tdx forced: %v", err)
	}
	d = testDriver(t, func(c *Config) { c.Binary = filepath.Join(t.TempDir(), "none") })
	if _, err := d.probe(t.Context()); cvm.ReasonOf(err) != "qemu-missing" {
		t.Errorf("no QEMU: %v", err)
	}
}

type noTEE struct{ TEE }

func TestNewRefuses(t *testing.T) {
	good := func() Config { return Config{Options: DefaultOptions(), Dir: t.TempDir()} }
	for name, edit := range map[string]func(*Config){
		"relative directory":          func(c *Config) { c.Dir = "x" },
		"simulated without hardware":  func(c *Config) { c.AllowSimulated = true },
		"kvm without leave":           func(c *Config) { c.Accel = KVM },
		"tcg without leave":           func(c *Config) { c.Accel = TCG },
		"no accelerator":              func(c *Config) { c.Accel = "" },
		"format":                      func(c *Config) { c.DiskFormat = "vmdk" },
		"translation cache of nobody": func(c *Config) { c.TBSizeMiB = 0 },
	} {
		c := good()
		edit(&c)
		if _, err := New(c); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A process is never taken for another one, whatever its number is.
func TestNeverAnotherProcess(t *testing.T) {
	self, err := identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]process{
		"this one: not QEMU": self, "none": {}, "init": {PID: 1}, "ended": {PID: 1 << 22, Start: 1},
		"other start": {PID: self.PID, Start: self.Start + 1, Host: self.Host}, "other boot": {PID: self.PID, Start: self.Start, Host: "x"},
	} {
		if f, err := p.open(vmID); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%s: %v %v", name, f, err)
		}
	}
	// One whose command line names the machine is it, at its own start only.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "read x; true", "-name", "guest="+vmID)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	f, err := p.open(vmID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.open("00000000-0000-0000-0000-000000000000"); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("the process of another machine: %v", err)
	}
	p.Start++
	if _, err := p.open(vmID); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a process with another start: %v", err)
	}
	if err := kill(f); err != nil {
		t.Error(err)
	}
	await(f)
	in.Close()
	_ = cmd.Wait()
	if err := kill(f); err != nil {
		t.Errorf("killing what has ended: %v", err)
	}
}

func TestDisk(t *testing.T) {
	for _, format := range []string{FormatRaw, FormatQCOW2} {
		d := &Driver{cfg: Config{Options: DefaultOptions()}}
		d.cfg.DiskFormat = format
		p := paths{data: filepath.Join(t.TempDir(), "data.img")}
		for _, step := range []struct{ mib, want int }{{4, 4}, {16, 16}, {8, 16}} {
			if err := d.ensureDisk(t.Context(), p, machine.Size{DiskMiB: step.mib}); err != nil {
				t.Skipf("SKIPPED: %s: %v", format, err)
			}
			var have int64
			if format == FormatRaw {
				have = size(p.data)
			} else {
				have, _ = d.virtualSize(t.Context(), p.data)
			}
			if have != int64(step.want)<<20 {
				t.Errorf("%s of %d MiB: %d bytes, want %d MiB", format, step.mib, have, step.want)
			}
		}
		if err := d.ensureDisk(t.Context(), p, machine.Size{}); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("no size: %v", err)
		}
		link := paths{data: p.data + ".link"}
		if err := os.Symlink(p.data, link.data); err != nil {
			t.Fatal(err)
		}
		if err := d.ensureDisk(t.Context(), link, machine.Size{DiskMiB: 99}); cvm.CodeOf(err) != cvm.Precondition {
			t.Errorf("a symbolic link as disk: %v", err)
		}
	}
}

func TestDescribes(t *testing.T) {
	hash := cvm.ImageHash{1}
	m := machine.Machine{ID: vmID, Image: machine.Image{Hash: hash}, Size: machine.Size{VCPU: 2, MemoryMiB: 2048}, NICs: []machine.NIC{userNIC(1)}}
	good := map[string]any{"os_image_hash": hash, "cpu_count": 2, "memory_size": 2048 << 20, "tdx_attestation_variant": Variant, "hotplug_off": true,
		"host_share_mode": "tar", "qemu_version": "11.1.3", "num_gpus": 0}
	h := &host{accel: TDX, version: "11.1.3"}
	try := func(key string, v any) error {
		c := map[string]any{}
		for k, v := range good {
			c[k] = v
		}
		c[key] = v
		b, _ := json.Marshal(c)
		m.VMConfig = string(b)
		return describes(m, h, TDX)
	}
	if err := try("num_nics", 1); err != nil {
		t.Fatal(err)
	}
	for key, v := range map[string]any{"os_image_hash": cvm.ImageHash{2}, "cpu_count": 1, "memory_size": 1 << 30, "tdx_attestation_variant": "container", "hotplug_off": false,
		"host_share_mode": "9p", "qemu_version": "11.1.2", "num_gpus": 1, "num_nvswitches": 1, "num_nics": 2, "num_verity_volumes": 1, "hugepages": true} {
		if err := try(key, v); err == nil {
			t.Errorf("%s = %v: accepted", key, v)
		}
	}
}

func TestNoTEE(t *testing.T) {
	d := testDriver(t, func(*Config) {})
	for _, h := range []*host{{accel: TDX}, {accel: SNP}} {
		if _, err := d.accelFor(h, machine.Machine{NoTEE: true}); cvm.ReasonOf(err) != "no-tee-denied" {
			t.Errorf("%s without leave: %v", h.accel, err)
		}
		if a, err := d.accelFor(h, machine.Machine{}); err != nil || a != h.accel {
			t.Errorf("%s: %s %v", h.accel, a, err)
		}
	}
	d.cfg.AllowSimulated = true
	if a, err := d.accelFor(&host{accel: TDX}, machine.Machine{NoTEE: true}); err != nil || a != KVM {
		t.Errorf("with leave: %s %v", a, err)
	}
}

func TestConsole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "serial.log")
	writeFile(t, path, []byte("one\ntwo\nthree\n"))
	ended := make(chan struct{})
	r, err := openConsole(t.Context(), path, machine.ConsoleOptions{Tail: 2, Follow: true}, ended)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if _, err := io.ReadFull(r, b); err != nil || string(b) != "two\nthree\n" {
		t.Fatalf("%q %v", b, err)
	}
	f, _ := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	_, _ = f.WriteString("four\n")
	if _, err := io.ReadFull(r, b[:5]); err != nil || string(b[:5]) != "four\n" {
		t.Fatalf("%q %v", b[:5], err)
	}
	_, _ = f.WriteString("five\n")
	close(ended)
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "five\n" {
		t.Errorf("after the end: %q %v", rest, err)
	}
	if got := tailText(path, 0, 10); got != "four\nfive" {
		t.Errorf("%q", got)
	}
}

// QEMU's own words and the console are files of their own.
func TestLogFiles(t *testing.T) {
	i := &instance{p: (&Driver{cfg: Config{Dir: "/m"}}).paths("id")}
	for channel, want := range map[string]string{machine.ChannelSerial: "/m/id/serial.log", machine.ChannelStdout: "/m/id/qemu.out", machine.ChannelStderr: "/m/id/qemu.log", "other": ""} {
		if got := i.LogFile(channel); got != want {
			t.Errorf("%s: %q, want %q", channel, got, want)
		}
	}
}
