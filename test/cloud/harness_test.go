// Package cloud tests the whole cloud: its services in this process, its guests as
// real containers (or, with PHALA_TEST_DRIVER=qemu, as real virtual machines), its
// user the real CLI as a program of its own.
package cloud

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/devcloud"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// envDriver chooses what runs the guests, envImage a guest image that is built
// already. A virtual machine is emulated here: what waits for one has emulated times
// the patience.
const (
	envDriver = "PHALA_TEST_DRIVER"
	envImage  = "PHALA_TEST_IMAGE"
	emulated  = 6
)

const (
	portBase = 18700
	network  = "phala-test"
	subnet   = "172.31.78.0/24"
)

// The one cloud of this test binary; nil where it cannot run.
var (
	theCloud *devcloud.Cloud
	theCfg   devcloud.Config
	whyNot   string
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getuid() != 0 {
		whyNot = "it needs root (guest containers, a bridge network)"
	} else if out, err := exec.Command("docker", "info").CombinedOutput(); err != nil {
		whyNot = "no Docker engine answers: " + firstLine(string(out))
	}
	if whyNot != "" {
		fmt.Fprintln(os.Stderr, "SKIPPING the whole-cloud tests:", whyNot)
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "phala-cloud")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if theCfg, err = configure(dir); err == nil && theCfg.Driver == devcloud.DriverQEMU {
		err = theQEMU.install(filepath.Join(dir, "qemu"))
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
		theCloud, err = devcloud.Start(ctx, theCfg)
		cancel()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the cloud did not start:", err)
		dumpLogs(dir)
		return 1
	}
	code := m.Run()
	if err := theCloud.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stopping the cloud:", err)
		code = 1
	}
	if code != 0 {
		dumpLogs(dir)
	}
	if err := devcloud.Clean(context.Background(), theCfg); err != nil {
		fmt.Fprintln(os.Stderr, "cleaning:", err)
		code = 1
	}
	return code
}

func configure(dir string) (devcloud.Config, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return devcloud.Config{}, err
	}
	bin := filepath.Join(dir, "bin")
	build := exec.Command("go", "build", "-trimpath", "-o", bin+"/", "./cmd/phala")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return devcloud.Config{}, fmt.Errorf("building the CLI: %w\n%s", err, out)
	}
	cfg, err := devcloud.Default()
	if err != nil {
		return cfg, err
	}
	cfg.StateDir, cfg.RunDir, cfg.Source, cfg.BinDir = filepath.Join(dir, "state"), "/run/phala-test", root, bin
	cfg.CLIDir = filepath.Join(dir, "cli")
	cfg.Network, cfg.Subnet, cfg.Ports = network, subnet, devcloud.PortsFrom(portBase)
	if d := os.Getenv(envDriver); d != "" {
		cfg.Driver = d
	}
	if cfg.Driver == devcloud.DriverQEMU { // apart from the containers' cloud, which may run meanwhile
		cfg.RunDir, cfg.Network, cfg.Subnet, cfg.Ports = "/run/phala-test3", "phala-test3", "172.31.84.0/24", devcloud.PortsFrom(portBase+200)
	}
	cfg.ImageDir = os.Getenv(envImage)
	cfg.Machines = hostile
	cfg.MaxStaleness = 6 * time.Second // so that a cut chain is noticed within a test
	cfg.LeaseTTL = 90 * time.Second    // so that what runs outlives a chain or quorum that a test takes away, also on a busy machine
	cfg.Out = os.Stderr
	return cfg, nil
}

func dumpLogs(dir string) {
	logs, _ := filepath.Glob(filepath.Join(dir, "state", "logs", "*.log"))
	for _, l := range logs {
		b, _ := os.ReadFile(l)
		if len(b) > 6000 {
			b = b[len(b)-6000:]
		}
		fmt.Fprintf(os.Stderr, "---- %s\n%s\n", filepath.Base(l), b)
	}
}

// cloud returns the running cloud or skips.
func cloud(t *testing.T) *devcloud.Cloud {
	t.Helper()
	if theCloud == nil {
		t.Skip("the whole cloud cannot run here: " + whyNot)
	}
	return theCloud
}

type result struct {
	out, err string
	code     int
}

// phala runs the CLI; the test decides what the exit code should be.
func phala(t *testing.T, args ...string) result {
	t.Helper()
	r := quietly(t, args...)
	t.Logf("$ phala %s  -> %d\n%s%s", strings.Join(args, " "), r.code, clip(r.out), clip(r.err))
	return r
}

// quietly is phala for polling: its output is not logged.
func quietly(t *testing.T, args ...string) result {
	t.Helper()
	patience := 4 * time.Minute
	if theCfg.Driver == devcloud.DriverQEMU {
		patience *= 3
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(theCfg.BinDir, "phala"), args...)
	cmd.Env = append(os.Environ(), "PHALA_CLOUD_DIR="+theCfg.CLIDir, "PHALA_DISABLE_UPDATE_CHECK=1", "NO_COLOR=1")
	cmd.Dir = t.TempDir()
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("phala %s: %v", strings.Join(args, " "), err)
	}
	return result{out.String(), errb.String(), cmd.ProcessState.ExitCode()}
}

// must runs the CLI and fails the test unless it exits 0.
func must(t *testing.T, args ...string) result {
	t.Helper()
	r := phala(t, args...)
	if r.code != 0 {
		t.Fatalf("phala %s exited with %d:\n%s\n%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r
}

func clip(s string) string {
	if len(s) > 3000 {
		return s[:1500] + "\n…\n" + s[len(s)-1500:]
	}
	return s
}

func firstLine(s string) string { l, _, _ := strings.Cut(strings.TrimSpace(s), "\n"); return l }

// browser trusts the local CA and resolves every name to the gateway.
func browser(t *testing.T) *http.Client {
	t.Helper()
	ca, err := os.ReadFile(theCloud.CACert())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatal("the CA file holds no certificate")
	}
	gw := net.JoinHostPort("127.0.0.1", fmt.Sprint(theCfg.Ports.Gateway))
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool},
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", gw)
		},
	}}
}

// appURL is the URL of a port of an app (0: the default one).
func appURL(app string, port int) string {
	host := app
	if port != 0 {
		host += fmt.Sprintf("-%d", port)
	}
	return fmt.Sprintf("https://%s.%s:%d/", host, theCfg.BaseDomain, theCfg.Ports.Gateway)
}

func get(t *testing.T, url string) (int, string, error) {
	t.Helper()
	res, err := browser(t).Get(url)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, string(b), err
}

// eventually polls until ok says so; it names what it waited for.
func eventually(t *testing.T, what string, patience time.Duration, ok func() error) {
	t.Helper()
	if theCfg.Driver == devcloud.DriverQEMU {
		patience *= emulated
	}
	deadline := time.Now().Add(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
		<-time.After(200 * time.Millisecond)
	}
}

// getOK waits for a page.
func getOK(t *testing.T, url string) string {
	t.Helper()
	var body string
	eventually(t, "GET "+url, 60*time.Second, func() error {
		code, b, err := get(t, url)
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("status %d: %s", code, firstLine(b))
		}
		body = b
		return err
	})
	return body
}

// vmOf finds an app's machine by its name.
func vmOf(t *testing.T, name string) vmmapi.VM {
	t.Helper()
	vm, ok := findVM(t, name)
	if !ok {
		t.Fatalf("no VM is called %q", name)
	}
	return vm
}

func findVM(t *testing.T, name string) (vmmapi.VM, bool) {
	t.Helper()
	vms, err := theVMM(t).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, vm := range vms {
		if vm.Spec.Name == name {
			return vm, true
		}
	}
	return vmmapi.VM{}, false
}

// theVMM is the node as its host operates it, past the cloud API.
func theVMM(t *testing.T) *vmmapi.Client {
	t.Helper()
	cl, err := theCloud.VMM()
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

// lastJSON decodes the last JSON object of an output (deploy prints a line before it).
func lastJSON(t *testing.T, s string, v any) {
	t.Helper()
	i := strings.Index(s, "{")
	if i < 0 {
		t.Fatalf("no JSON in %q", s)
	}
	if err := json.Unmarshal([]byte(s[i:]), v); err != nil {
		t.Fatalf("%v in %s", err, s)
	}
}
