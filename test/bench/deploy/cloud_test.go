package deploy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/devcloud"
	"github.com/confidential-cloud/phala/internal/profile"
	"github.com/confidential-cloud/phala/internal/registry"
	"github.com/confidential-cloud/phala/verify"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// Where the bench's cloud is, beside one that somebody runs here and the tests'.
const (
	portBase = 19700
	network  = "phala-bench"
	subnet   = "172.31.79.0/24"
	appPort  = 8000 // in the container; of the guest
	repo     = "phala-bench/app"
)

// cloud is a whole cloud on one machine, and who asks it.
type cloud struct {
	t      *testing.T
	cfg    devcloud.Config
	c      *devcloud.Cloud
	api    *cloudapi.Client
	vmm    *vmmapi.Client
	trust  verify.Profile
	http   *http.Client // to the gateway, whatever the name
	digest string       // of the app's image in the cloud's registry
}

func start(t *testing.T, driver, image string) *cloud {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: the cloud needs root")
	}
	dir := t.TempDir()
	b := &cloud{t: t, cfg: configure(t, dir)}
	b.cfg.Driver, b.cfg.ImageDir = driver, image
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	var err error
	if b.c, err = devcloud.Start(ctx, b.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.c.Stop(); err != nil {
			t.Error("stopping the cloud:", err)
		}
		if err := devcloud.Clean(context.Background(), b.cfg); err != nil {
			t.Error("cleaning:", err)
		}
	})
	b.connect()
	return b
}

func configure(t *testing.T, dir string) devcloud.Config {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	build(t, root, bin+"/", "./cmd/phala")
	cfg, err := devcloud.Default()
	if err != nil {
		t.Fatal(err)
	}
	cfg.StateDir, cfg.RunDir, cfg.Source, cfg.BinDir = filepath.Join(dir, "state"), "/run/phala-bench", root, bin
	cfg.CLIDir = filepath.Join(dir, "cli")
	cfg.Network, cfg.Subnet, cfg.Ports = network, subnet, devcloud.PortsFrom(portBase)
	cfg.Out = os.Stderr
	return cfg
}

// build compiles a static program.
func build(t *testing.T, dir, out, pkg string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", pkg, err, b)
	}
}

func (b *cloud) connect() {
	b.t.Helper()
	check := func(err error) {
		b.t.Helper()
		if err != nil {
			b.t.Fatal(err)
		}
	}
	creds, err := profile.LoadCredentials(b.cfg.CLIDir)
	check(err)
	_, login, _ := creds.Find(devcloud.ProfileName)
	b.api = &cloudapi.Client{Base: login.APIPrefix, Key: login.Token}
	b.vmm, err = b.c.VMM()
	check(err)
	b.trust, err = verify.LoadProfile(b.c.TrustPath())
	check(err)
	ca, err := os.ReadFile(b.c.CACert())
	check(err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		b.t.Fatal("the CA file holds no certificate")
	}
	b.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", b.trust.Gateway.Address)
		},
	}}
	app := filepath.Join(b.t.TempDir(), "app")
	build(b.t, ".", app, "./testdata/app")
	img, err := registry.FromBinary(app, "app", registry.ImageConfig{Ports: []string{strconv.Itoa(appPort) + "/tcp"}})
	check(err)
	b.digest, err = b.c.Registry().Push(b.t.Context(), repo, "1", img)
	check(err)
}

// compose is the file that is deployed and, with the image's name at a registry and
// another port, brought up beside it. It sees every process, for GET /memory.
func (b *cloud) compose(image string, port int) string {
	return fmt.Sprintf(`services:
  web:
    image: %s@%s
    ports: ["%d:%d"]
    pid: host
    cap_add: [SYS_PTRACE]
`, image, b.digest, port, appPort)
}

func (b *cloud) composeFile() string {
	path := filepath.Join(b.t.TempDir(), "docker-compose.yml")
	if err := os.WriteFile(path, []byte(b.compose(repo, appPort)), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// phala is the CLI.
func (b *cloud) phala(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(b.cfg.BinDir, "phala"), args...)
	cmd.Env = append(os.Environ(), "PHALA_CLOUD_DIR="+b.cfg.CLIDir, "PHALA_DISABLE_UPDATE_CHECK=1", "NO_COLOR=1")
	cmd.Dir = b.t.TempDir()
	return cmd
}

func (b *cloud) remove(name string) {
	b.t.Helper()
	if out, err := b.phala(b.t.Context(), "cvms", "delete", name, "--yes", "--volumes", "delete").CombinedOutput(); err != nil {
		b.t.Fatalf("deleting %s: %v\n%s", name, err, out)
	}
}

// get asks an app through the gateway.
func get(ctx context.Context, c *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", res.Status, body)
	}
	return body, err
}

// answered returns when fn has no error any more.
func answered(ctx context.Context, every time.Duration, fn func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := fn()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

func appURL(c *cloud, app string) string {
	return fmt.Sprintf("https://%s-%d.%s/", app, appPort, net.JoinHostPort(c.cfg.BaseDomain, strconv.Itoa(c.cfg.Ports.Gateway)))
}
