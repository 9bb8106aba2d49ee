package container

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	ctypes "github.com/docker/docker/api/types/container"
	itypes "github.com/docker/docker/api/types/image"

	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// These tests use the local docker engine. Everything they make is named
// "vmm-test-..." and removed.
const (
	testSubnet = "172.31.201.0/24"
	testPrefix = "vmm-test-"
)

// tee records TDs; its sockets are files.
type tee struct {
	mu   sync.Mutex
	tds  map[string]simtee.Shape
	sock map[string]string
	fail error
	snps map[string]simtee.SNPShape // nil: this hardware has none
}

func (f *tee) CreateTD(_ context.Context, name, sock string, s simtee.Shape) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.tds[name], f.sock[name] = s, sock
	return os.WriteFile(sock, nil, 0o600)
}

func (f *tee) CreateSNP(_ context.Context, name, _ string, s simtee.SNPShape) error {
	if f.snps == nil {
		return errors.New("this hardware has no SEV-SNP")
	}
	f.snps[name] = s
	return nil
}

func (f *tee) DestroyTD(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.tds, name)
	return nil
}

func (f *tee) Info(context.Context) (simtee.Info, error) {
	return simtee.Info{DeviceID: cvm.DeviceID{7}}, nil
}

func (f *tee) td(id string) (simtee.Shape, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.tds["vm-"+id]
	return s, ok
}

func testNetwork() Network {
	return Network{Name: testPrefix + "net", Subnet: testSubnet, Bridge: "vmmtest0"}
}

// engine skips loudly when there is no docker.
func engine(t *testing.T) (*Driver, *tee) {
	t.Helper()
	f := &tee{tds: map[string]simtee.Shape{}, sock: map[string]string{}}
	d, err := New(Config{TEE: f, Network: testNetwork(), Prefix: testPrefix, ImageRepo: testPrefix + "guest", Entrypoint: []string{"/guest"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := d.cli.Ping(ctx); err != nil {
		t.Skipf("SKIPPED, no docker engine: %v", err)
	}
	t.Cleanup(func() {
		_ = d.cli.NetworkRemove(context.Background(), testNetwork().Name)
		_ = d.cli.Close()
	})
	return d, f
}

// testImage builds an image directory around the test guest.
func testImage(t *testing.T, d *Driver) machine.Image {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "vmm-test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "guest")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, "./testdata/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"rootfs.tar":       tarOf(t, "etc/os-release", []byte("ID=vmm-test\n"), 0o644),
		"agent.tar":        tarOf(t, "guest", b, 0o755),
		image.MetadataFile: []byte(`{"rootfs":"rootfs.tar","overlay":"agent.tar","version":"0","driver":"container","is_dev":true}`),
	}
	var sums bytes.Buffer
	for _, n := range []string{"rootfs.tar", "agent.tar", image.MetadataFile} {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(files[n]), n)
	}
	files[image.SumsFile] = sums.Bytes()
	files[image.DigestFile] = fmt.Appendf(nil, "%x\n", sha256.Sum256(sums.Bytes()))
	for n, c := range files {
		if err := os.WriteFile(filepath.Join(dir, n), c, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	im, err := image.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, ref := range []string{d.cfg.ImageRepo + ":" + im.Hash.String(), d.cfg.ImageRepo + "-base:" + im.SHA256("rootfs.tar")} {
			_, _ = d.cli.ImageRemove(context.Background(), ref, itypes.RemoveOptions{Force: true})
		}
	})
	return machine.Image{Name: im.Name, Dir: dir, Hash: im.Hash}
}

func tarOf(t *testing.T, name string, b []byte, mode int64) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(b)), Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func testMachine(t *testing.T, d *Driver, im machine.Image, id, compose string) machine.Machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "vmmt")
	if err != nil {
		t.Fatal(err)
	}
	m := machine.Machine{
		ID: id, Name: id, Boot: 1, Image: im, Size: machine.Size{VCPU: 1, MemoryMiB: 256, DiskMiB: 1024},
		Shared: filepath.Join(dir, "shared"), Run: filepath.Join(dir, "run"),
		VMConfig:   fmt.Sprintf(`{"os_image_hash":"%s","cpu_count":1,"memory_size":268435456,"tdx_attestation_variant":"container","spec_version":1}`, im.Hash),
		MRConfigID: cvm.Measurement{1, 2},
	}
	for _, p := range []string{m.Shared, m.Run} {
		if err := os.MkdirAll(p, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(m.Shared, "app-compose.json"), []byte(compose), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Remove(context.Background(), id, false); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	return m
}

func ask(t *testing.T, i machine.Instance, path string) string {
	t.Helper()
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return i.DialGuest(ctx) }}}
	deadline := time.Now().Add(20 * time.Second)
	for {
		res, err := c.Get("http://guest" + path)
		if err == nil {
			b, _ := io.ReadAll(res.Body)
			res.Body.Close()
			return string(b)
		}
		if time.Now().After(deadline) {
			t.Fatal("the guest never answered:", err)
		}
		time.Sleep(20 * time.Millisecond) // polling with a deadline
	}
}

func facts(t *testing.T, i machine.Instance) map[string]string {
	t.Helper()
	var f map[string]string
	if err := json.Unmarshal([]byte(ask(t, i, "/facts")), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestGuestLifecycle(t *testing.T) {
	d, hw := engine(t)
	ctx := t.Context()
	desc, err := d.Describe(ctx)
	if err != nil || !desc.Simulated || desc.DeviceID != (cvm.DeviceID{7}) || !strings.Contains(strings.Join(desc.Warnings, " "), "SIMULATED") {
		t.Fatalf("%+v %v", desc, err)
	}
	m := testMachine(t, d, testImage(t, d), "life", "{}")
	if _, _, err := d.Adopt(ctx, m.ID); cvm.CodeOf(err) != cvm.NotFound {
		t.Fatalf("nothing to adopt yet: %v", err)
	}
	i, err := d.Launch(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	shape, ok := hw.td(m.ID)
	if !ok || shape.MRConfigID != m.MRConfigID {
		t.Fatalf("TD %+v", shape)
	}
	f := facts(t, i)
	if f["pid"] != "1" || f["boots"] != "x" || f["hostname"] != "cvm-life" {
		t.Errorf("facts %v", f)
	}
	if f["sharedWrite"] == "<nil>" {
		t.Error("the guest can write host-shared files")
	}
	if f["runWrite"] != "<nil>" {
		t.Error("the guest cannot write its run directory:", f["runWrite"])
	}
	if f["memory"] != fmt.Sprint(256<<20) || f["pids"] != "4096" {
		t.Errorf("limits seen from inside: memory %s, pids %s", f["memory"], f["pids"])
	}
	if f["remount"] != "ok" {
		t.Error("the guest cannot make cgroups of its own:", f["remount"])
	}
	if n := strings.Count(f["env"], "\n"); n > 5 {
		t.Errorf("environment of the guest: %s", f["env"])
	}

	// A VMM that comes back finds it, through another Driver.
	again, err := New(d.cfg)
	if err != nil {
		t.Fatal(err)
	}
	adopted, alive, err := again.Adopt(ctx, m.ID)
	if err != nil || !alive {
		t.Fatalf("adopt: alive %v, %v", alive, err)
	}
	if f := facts(t, adopted); f["boots"] != "x" {
		t.Errorf("adopted another boot: %v", f)
	}
	if err := adopted.Stop(ctx, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	e, err := adopted.Wait(ctx)
	if err != nil || e.Code != 0 || !e.Requested {
		t.Fatalf("polite stop: %+v %v", e, err)
	}
	if e, err := i.Wait(ctx); err != nil || e.Code != 0 {
		t.Fatalf("the first watcher: %+v %v", e, err)
	}
	if _, alive, err := d.Adopt(ctx, m.ID); err != nil || alive {
		t.Fatalf("an ended run is adopted as ended: %v %v", alive, err)
	}
	rc, err := i.Console(ctx, machine.ConsoleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(rc); !strings.Contains(string(b), "hello, console") || !strings.Contains(string(b), "hello, stderr") {
		t.Errorf("console after the end: %q", b)
	}

	// The state volume outlives the run and Remove(keep), not Remove.
	if i, err = d.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	if f := facts(t, i); f["boots"] != "xx" {
		t.Errorf("second boot: %v", f)
	}
	if err := d.Remove(ctx, m.ID, true); err != nil {
		t.Fatal(err)
	}
	if _, ok := hw.td(m.ID); ok {
		t.Error("the TD is still there")
	}
	if i, err = d.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	if f := facts(t, i); f["boots"] != "xxx" {
		t.Errorf("after Remove(keep): %v", f)
	}
	if err := d.Remove(ctx, m.ID, false); err != nil {
		t.Fatal(err)
	}
	if _, err := d.cli.VolumeInspect(ctx, d.name(m.ID)); !errdefs.IsNotFound(err) {
		t.Errorf("the volume is still there: %v", err)
	}
	if err := d.Remove(ctx, m.ID, false); err != nil {
		t.Error("removing twice:", err)
	}
}

func TestStubbornAndCrashingGuests(t *testing.T) {
	d, _ := engine(t)
	im := testImage(t, d)
	ctx := t.Context()
	i, err := d.Launch(ctx, testMachine(t, d, im, "stubborn", `"stubborn"`))
	if err != nil {
		t.Fatal(err)
	}
	facts(t, i)
	if err := i.Stop(ctx, time.Second); err != nil {
		t.Fatal(err)
	}
	if e, err := i.Wait(ctx); err != nil || e.Code != 137 {
		t.Fatalf("by force: %+v %v", e, err)
	}
	i, err = d.Launch(ctx, testMachine(t, d, im, "crash", `"exit-now"`))
	if err != nil {
		t.Fatal(err)
	}
	if e, err := i.Wait(ctx); err != nil || e.Code != 7 || e.Requested {
		t.Fatalf("crash: %+v %v", e, err)
	}
}

func TestGuestsAreApart(t *testing.T) {
	d, _ := engine(t)
	im := testImage(t, d)
	ctx := t.Context()
	gw, err := EnsureNetwork(ctx, testNetwork())
	if err != nil || gw != "172.31.201.1" {
		t.Fatalf("gateway %q, %v", gw, err)
	}
	if again, err := d.EnsureNetwork(ctx); err != nil || again != gw {
		t.Fatalf("twice: %q %v", again, err)
	}
	listen := func(addr string) string {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		return port
	}
	onBridge, onLoopback := listen(gw+":0"), listen("127.0.0.1:0")
	a, err := d.Launch(ctx, testMachine(t, d, im, "apart-a", "{}"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Launch(ctx, testMachine(t, d, im, "apart-b", "{}"))
	if err != nil {
		t.Fatal(err)
	}
	facts(t, a)
	ip := facts(t, b)["ip"]
	dial := func(addr string) string { return ask(t, a, "/dial?addr="+url.QueryEscape(addr)) }
	if got := dial(gw + ":" + onBridge); got != "open" {
		t.Error("a guest cannot reach the bridge address:", got)
	}
	if got := dial(gw + ":" + onLoopback); got == "open" {
		t.Error("a guest reaches the host's loopback")
	}
	if got := dial("127.0.0.1:80"); got != "open" {
		t.Error("the guest's own port 80:", got)
	}
	if got := dial(ip + ":80"); got == "open" {
		t.Error("a guest reaches another guest at", ip)
	}
}

func TestNetworkRefusals(t *testing.T) {
	d, _ := engine(t)
	ctx := t.Context()
	if _, err := d.EnsureNetwork(ctx); err != nil {
		t.Fatal(err)
	}
	other := testNetwork()
	other.Subnet = "172.31.202.0/24"
	if _, err := EnsureNetwork(ctx, other); cvm.ReasonOf(err) != "network-differs" {
		t.Errorf("another subnet: %v", err)
	}
	open := Network{Name: "bridge", Subnet: "172.17.0.0/16", Bridge: "docker0"} // docker's own lets containers meet
	if _, err := EnsureNetwork(ctx, open); cvm.ReasonOf(err) != "network-not-isolated" {
		t.Errorf("network with ICC: %v", err)
	}
}

func TestConfigRefusals(t *testing.T) {
	good := testNetwork()
	for name, edit := range map[string]func(*Network){
		"not a network": func(n *Network) { n.Subnet = "x" }, "host bits": func(n *Network) { n.Subnet = "172.31.77.1/24" },
		"public": func(n *Network) { n.Subnet = "8.8.8.0/24" }, "tiny": func(n *Network) { n.Subnet = "172.31.77.0/30" },
		"v6": func(n *Network) { n.Subnet = "fd00::/64" }, "long bridge": func(n *Network) { n.Bridge = "sixteen-bytes-br" },
	} {
		n := good
		edit(&n)
		if _, err := New(Config{TEE: &tee{}, Network: n}); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(Config{Network: good}); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("no TEE: %v", err)
	}
	if _, err := EnsureNetwork(t.Context(), Network{DockerHost: "unix:///nonexistent.sock", Name: "x", Subnet: testSubnet, Bridge: "x"}); cvm.ReasonOf(err) != "docker-unreachable" {
		t.Errorf("no engine: %v", err)
	}
}

func TestNothingRunsAfterAFailedLaunch(t *testing.T) {
	d, hw := engine(t)
	im := testImage(t, d)
	ctx := t.Context()
	m := testMachine(t, d, im, "fail", "{}")
	hw.fail = cvm.Errorf(cvm.Unavailable, "no hardware")
	if _, err := d.Launch(ctx, m); cvm.ReasonOf(err) != "tee-unavailable" {
		t.Fatalf("without TEE: %v", err)
	}
	hw.fail = nil
	d.cfg.Entrypoint = []string{"/not-there"}
	if _, err := d.Launch(ctx, m); err == nil {
		t.Fatal("a guest without its first process started")
	}
	if _, err := d.cli.ContainerInspect(ctx, d.name(m.ID)); !errdefs.IsNotFound(err) {
		t.Errorf("a container is left: %v", err)
	}
	if _, ok := hw.td(m.ID); ok {
		t.Error("a TD is left")
	}
	// A changed image is not used.
	d.cfg.Entrypoint = []string{"/guest"}
	_, _ = d.cli.ImageRemove(ctx, d.cfg.ImageRepo+":"+im.Hash.String(), itypes.RemoveOptions{Force: true})
	if err := os.WriteFile(filepath.Join(im.Dir, "agent.tar"), []byte("evil"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Launch(ctx, m); cvm.ReasonOf(err) != "image-broken" {
		t.Errorf("changed image: %v", err)
	}
	m.Run = "/tmp/" + strings.Repeat("r", 100)
	if _, err := d.Launch(ctx, m); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("long run directory: %v", err)
	}
	if l, err := d.cli.ContainerList(ctx, ctypes.ListOptions{All: true}); err == nil {
		for _, c := range l {
			if c.Labels[labelVM] == m.ID {
				t.Errorf("container %v is left", c.Names)
			}
		}
	}
}
