package guestagent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/guest-agent/boot"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/hostlink"
	"github.com/confidential-cloud/phala/internal/hostshare"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// guestVM is a machine under emulation, booted from a real image.
type guestVM struct {
	*world
	relay  *hostlink.Relay
	serial string
	done   chan error // QEMU's end
	qmp    string
}

// imageDir is the image to boot. The agent in it must be this tree's to prove anything:
// the caller says so by setting PHALA_VM.
func imageDir(t *testing.T) string {
	t.Helper()
	if os.Getenv("PHALA_VM") == "" {
		t.Skip("SKIPPED: boots a virtual machine under emulation; set PHALA_VM=1 (and PHALA_VM_IMAGE to an image directory)")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("SKIPPED: no qemu-system-x86_64")
	}
	if d := os.Getenv("PHALA_VM_IMAGE"); d != "" {
		return d
	}
	found, _ := filepath.Glob("../build/images/phala-[0-9]*/rootfs.img")
	if len(found) == 0 {
		t.Skip("SKIPPED: no image; run make image")
	}
	return filepath.Dir(found[len(found)-1])
}

// power starts QEMU with an image and the host-shared files of the world.
func power(t *testing.T, w *world, extra ...string) *guestVM {
	t.Helper()
	dir := imageDir(t)
	var meta struct{ Cmdline string }
	b, err := os.ReadFile(filepath.Join(dir, "metadata.json"))
	if err == nil {
		err = json.Unmarshal(b, &meta)
	}
	if err != nil {
		t.Fatal(err)
	}
	var shared bytes.Buffer
	if err := hostshare.Pack(&shared, filepath.Join(w.dir, "shared")); err != nil {
		t.Fatal(err)
	}
	tarFile := filepath.Join(w.dir, "shared.tar")
	if err := os.WriteFile(tarFile, shared.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(w.dir, "data.img")
	f, err := os.OpenFile(data, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = errors.Join(f.Truncate(1<<30), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	g := &guestVM{world: w, serial: filepath.Join(w.dir, "serial.log"), done: make(chan error, 1), qmp: filepath.Join(w.dir, "qmp.sock")}
	link := filepath.Join(w.dir, "link.sock")
	file := func(name string) string { return filepath.Join(dir, name) }
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	args := []string{"-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max", "-M", "q35,hpet=off", "-m", "1024M", "-smp", "2",
		"-nodefaults", "-display", "none", "-no-reboot", "-bios", file("ovmf.fd"), "-kernel", file("bzImage"), "-initrd", file("initramfs.cpio.gz"), "-append", meta.Cmdline,
		"-drive", "file=" + file("rootfs.img") + ",if=none,id=root,format=raw,readonly=on", "-device", "virtio-blk-pci,drive=root,serial=phala-rootfs",
		"-drive", "file=" + tarFile + ",if=none,id=shared,format=raw,readonly=on", "-device", "virtio-blk-pci,drive=shared,serial=phala-shared",
		"-drive", "file=" + data + ",if=none,id=data,format=raw,cache=unsafe,discard=unmap", "-device", "virtio-blk-pci,drive=data,serial=phala-data",
		"-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0",
		"-chardev", "socket,id=link,path=" + link + ",server=on,wait=off", "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=link,name=phala.link",
		"-qmp", "unix:" + g.qmp + ",server=on,wait=off",
		"-chardev", "file,id=serial,path=" + g.serial, "-serial", "chardev:serial"}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append(args, extra...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		err := cmd.Wait()
		if out.Len() > 0 {
			t.Log("qemu: ", out.String())
		}
		g.done <- err
		close(ended)
	}()
	g.relay = hostlink.NewHost(hostlink.HostConfig{Sock: link, RunDir: filepath.Join(w.dir, "run")})
	relayDone := make(chan error, 1)
	go func() { relayDone <- g.relay.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-relayDone
		<-ended
		if t.Failed() {
			b, _ := os.ReadFile(g.serial)
			t.Logf("console:\n%s", b)
		}
	})
	return g
}

// await waits for a notification; the machine's end or a boot error comes first in vain.
func (g *guestVM) await(t *testing.T, event string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for g.last(event) == "" && !g.has(event) {
		if event != "boot.error" && g.has("boot.error") {
			t.Fatalf("boot error: %s", g.last("boot.error"))
		}
		select {
		case err := <-g.done:
			g.done <- err
			if !g.has(event) {
				t.Fatalf("the machine ended without %s: %v", event, err)
			}
		case <-tick.C:
		}
	}
}

func (w *world) has(event string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.sent {
		if n.Event == event {
			return true
		}
	}
	return false
}

// off waits until the machine has switched itself off.
func (g *guestVM) off(t *testing.T) string {
	t.Helper()
	if err := <-g.done; err != nil {
		t.Fatalf("the machine did not switch itself off: %v", err)
	}
	g.done <- nil
	b, err := os.ReadFile(g.serial)
	if err != nil || !strings.Contains(string(b), "power off") {
		t.Errorf("no orderly end on the console (%v)", err)
	}
	return string(b)
}

func (g *guestVM) client() *rpc.Client {
	return &rpc.Client{Base: "http://guest", HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return g.relay.DialGuest(ctx) }}}}
}

func plainApp() map[string]any {
	return map[string]any{"key_provider": "none", "key_provider_id": "", "secure_time": false, "x_note": 1}
}

func TestAMachineBootsServesAndSwitchesItselfOff(t *testing.T) {
	imageDir(t)
	w := newWorld(t, "127.0.0.1")
	w.share(t, plainApp(), nil)
	g := power(t, w)
	g.await(t, "ready")
	var b guestapi.Boot
	if err := g.client().Call(t.Context(), http.MethodGet, "/v1/boot", nil, &b); err != nil || !b.Ready {
		t.Fatalf("boot %+v, %v", b, err)
	}
	stages := map[string]guestapi.Stage{}
	w.mu.Lock()
	for _, n := range w.sent {
		var s guestapi.Stage
		if n.Event == guestapi.EventStage && json.Unmarshal([]byte(n.Payload), &s) == nil {
			stages[s.Stage] = s
		}
	}
	w.mu.Unlock()
	for i, name := range append([]string{"system"}, boot.MachineStages()...) {
		if s, ok := stages[name]; !ok || s.Number != i || s.DurationMS <= 0 {
			t.Errorf("stage %s: %+v", name, s)
		}
		t.Logf("%2d %-14s %8.0f ms", i, name, stages[name].DurationMS)
	}
	if got := w.last(guestapi.EventUnknownKeys); got != `["x_note"]` {
		t.Errorf("unknown keys: %q", got)
	}
	var ev guestapi.Evidence
	if err := g.client().Call(t.Context(), http.MethodGet, guestapi.PathGuestProof+"?nonce=0011223344556677", nil, &ev); err != nil || len(ev.Attestation) == 0 {
		t.Errorf("evidence: %v", err)
	}
	var si guestapi.SysInfo
	if err := g.client().Call(t.Context(), http.MethodGet, guestapi.PathSysInfo, nil, &si); err != nil || si.TotalSwap != 0 {
		t.Errorf("sysinfo %+v, %v", si, err)
	} else {
		t.Logf("memory used %d MiB of %d, kernel %s", si.UsedMemory>>20, si.TotalMemory>>20, si.KernelVersion)
	}
	if err := g.client().Call(t.Context(), http.MethodPost, guestapi.PathShutdown, struct{}{}, nil); err != nil {
		t.Fatal(err)
	}
	g.off(t)
	if got := w.last(guestapi.EventExit); got != "0" {
		t.Errorf("exit %q", got)
	}
}

func TestAMachineObeysThePowerButton(t *testing.T) {
	imageDir(t)
	w := newWorld(t, "127.0.0.1")
	w.share(t, plainApp(), nil)
	g := power(t, w)
	g.await(t, "ready")
	c, err := net.Dial("unix", g.qmp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go io.Copy(io.Discard, c)
	_, _ = io.WriteString(c, `{"execute":"qmp_capabilities"}{"execute":"system_powerdown"}`)
	if out := g.off(t); !strings.Contains(out, "the power button was pressed") {
		t.Error("it ended for another reason")
	}
	if got := w.last(guestapi.EventExit); got != "0" {
		t.Errorf("exit %q", got)
	}
}

func TestAMachineWhoseBootFailsTellsAndSwitchesItselfOff(t *testing.T) {
	imageDir(t)
	w := newWorld(t, "127.0.0.1")
	w.share(t, map[string]any{"key_provider": "none", "key_provider_id": "", "secure_time": false, "runner": "bash"}, nil)
	g := power(t, w)
	g.await(t, "boot.error")
	if e := w.last("boot.error"); !strings.Contains(e, boot.ReasonUnsupported) {
		t.Errorf("boot error %s", e)
	}
	g.off(t)
	if got := w.last(guestapi.EventExit); got != "1" {
		t.Errorf("exit %q", got)
	}
}
