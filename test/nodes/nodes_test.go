// Package nodes runs phala node against a cloud: the real API and VMM (dry driver), a
// prover of the simulated hardware, the real CLI in this process.
package nodes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cli"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/test/simtrust"
	"github.com/confidential-cloud/phala/verify"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// noKMS is a KMS that nobody asks here.
type noKMS struct{}

func (noKMS) EnvKey(context.Context, cvm.AppID) (kmsapi.EnvKey, error) {
	return kmsapi.EnvKey{}, cvm.Errorf(cvm.Unavailable, "no KMS")
}

func (noKMS) Meta(context.Context) (kmsapi.Meta, error) {
	return kmsapi.Meta{}, cvm.Errorf(cvm.Unavailable, "no KMS")
}

// run starts what lives until the test ends.
func run(t *testing.T, fn func(context.Context) error) <-chan error {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- fn(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return done
}

func startVMM(t *testing.T, machines machine.Driver) (url, tokenFile string) {
	t.Helper()
	dir := t.TempDir()
	sockets, err := os.MkdirTemp("", "nodes") // short: sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	c := vmm.Default()
	c.Listen, c.TokenFile, c.Dir, c.RunDir, c.ImagesDir = "127.0.0.1:0", filepath.Join(dir, "token"), filepath.Join(dir, "vmm"), sockets, filepath.Join(dir, "images")
	c.Driver, c.Machines, c.Log = "dry", machines, slog.New(slog.DiscardHandler)
	c.Capacity = vmm.Capacity{VCPU: 4, MemoryMiB: 8192, DiskMiB: 100 << 10}
	m, err := vmm.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ended := run(t, m.Run)
	select {
	case <-m.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	return "http://" + m.Addr(), c.TokenFile
}

// cloud is a cloud of one node, with who operates it.
type cloud struct {
	t                        *testing.T
	url, key                 string
	vmmURL, tokenFile, trust string
}

func start(t *testing.T) *cloud {
	t.Helper()
	hw := hardware(t, 5)
	return startWith(t, hw, dry.New(dry.Config{Guest: simtrust.Prover(t, hw, nil)}), func(*verify.Profile) {})
}

func hardware(t *testing.T, seed byte) *simtee.Hardware {
	t.Helper()
	hw, err := simtee.New(simtee.Config{Seed: append([]byte{seed}, make([]byte, 31)...), SNP: true})
	if err != nil {
		t.Fatal(err)
	}
	return hw
}

// startWith is a cloud of one node with these machines, whose trust profile admits the
// hardware's TDX side and what admit adds.
func startWith(t *testing.T, hw *simtee.Hardware, machines machine.Driver, admit func(*verify.Profile)) *cloud {
	t.Helper()
	c := &cloud{t: t}
	c.vmmURL, c.tokenFile = startVMM(t, machines)
	cfg := api.DefaultConfig()
	c.trust = simtrust.Profile(t, hw, func(p *verify.Profile) { cfg.KMS.RootSPKI = p.KMS.RootSPKI; admit(p) })
	cfg.Dir, cfg.Log, cfg.Keys, cfg.TrustProfile = t.TempDir(), slog.New(slog.DiscardHandler), noKMS{}, c.trust
	cfg.Nodes = []api.NodeConfig{{URL: c.vmmURL, TokenFile: c.tokenFile}}
	cfg.Gateway = api.GatewayConfig{Domain: "dev.localhost", Port: 8443}
	s, err := api.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if c.key, err = s.NewAdminKey(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.url = "http://" + l.Addr().String() + cloudapi.Prefix
	run(t, func(ctx context.Context) error { return s.Serve(ctx, l) })
	return c
}

// phala runs the command, logged in unless key is "", and returns its JSON answer.
func (c *cloud) phala(code int, key string, args ...string) map[string]any {
	c.t.Helper()
	var out, errs bytes.Buffer
	env := map[string]string{"PHALA_CLOUD_DIR": c.t.TempDir(), "PHALA_CLOUD_API_PREFIX": c.url, "PHALA_CLOUD_API_KEY": key}
	got := cli.Run(c.t.Context(), cli.Config{Args: append(args, "--json"), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
		Getenv: func(k string) string { return env[k] }, Workdir: c.t.TempDir()})
	if got != code {
		c.t.Fatalf("phala %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out.String(), errs.String())
	}
	answer := map[string]any{}
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		c.t.Fatalf("phala %s: %v: %s", strings.Join(args, " "), err, out.String())
	}
	return answer
}

// TestNodeCommands: joined with the cloud's challenge, shown, checked again by somebody
// who trusts the same roots, refused by who does not, drained and put back by the cloud.
func TestNodeCommands(t *testing.T) {
	c := start(t)
	host := []string{"--vmm", c.vmmURL, "--vmm-token-file", c.tokenFile}
	join := append([]string{"node", "join", "--trust", c.trust}, host...)

	if r := c.phala(cli.ExitOK, c.key, append(join, "--cloud=false")...); r["cloud"] != nil || r["device_id"] == "" {
		t.Errorf("kept from the cloud: %v", r)
	}
	if n := c.phala(cli.ExitOK, c.key, "node", "show", "1"); n["proof"] != nil {
		t.Errorf("the cloud has what it was not given: %v", n["proof"])
	}
	c.phala(cli.ExitNotFound, c.key, append(join, "--node", "nobody")...)
	file := filepath.Join(t.TempDir(), "proof.json")
	r := c.phala(cli.ExitOK, c.key, append(join, "--out", file)...)
	kept, _ := r["cloud"].(map[string]any)
	if kept["device_id"] != r["device_id"] || kept["simulated"] != true || kept["profile"] != "test cloud" || r["simulated"] != true {
		t.Errorf("joined: %v, the cloud keeps %v", r["device_id"], kept)
	}
	n := c.phala(cli.ExitOK, c.key, "node", "show", "1")
	if n["confidence"] != "simulated" || len(n["events"].([]any)) != 1 {
		t.Errorf("%v", n)
	}
	for _, what := range [][]string{{"1"}, {"--file", file}} {
		if r := c.phala(cli.ExitOK, c.key, append([]string{"node", "check", "--trust", c.trust}, what...)...); r["verified"] != true || r["device_id"] != kept["device_id"] || r["simulated"] != true {
			t.Errorf("checked %v: %v", what, r)
		}
	}
	other := simtrust.Profile(t, hardware(t, 6), nil)
	if r := c.phala(cli.ExitDenied, c.key, "node", "check", "1", "--trust", other); r["reason"] != "platform-unproved" {
		t.Errorf("other roots: %v", r)
	}
	proof, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(t.TempDir(), "moved.json")
	if err := os.WriteFile(moved, bytes.Replace(proof, []byte(fmt.Sprint(r["device_id"])), []byte(strings.Repeat("0", 64)), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := c.phala(cli.ExitDenied, c.key, "node", "check", "--file", moved, "--trust", c.trust); r["reason"] != "device-differs" {
		t.Errorf("another device in the file: %v", r)
	}

	if r := c.phala(cli.ExitOK, c.key, "node", "drain", "--node", "1", "--reason", "new fans"); r["draining"] != true {
		t.Errorf("%v", r)
	}
	if r := c.phala(cli.ExitOK, "", append([]string{"node", "drain", "--status"}, host...)...); r["draining"] != true || r["reason"] != "new fans" {
		t.Errorf("the VMM does not know of it: %v", r)
	}
	if n := c.phala(cli.ExitOK, c.key, "node", "show", "1"); n["draining"] != true || !strings.Contains(fmt.Sprint(n["problem"]), "new fans") {
		t.Errorf("%v", n)
	}
	c.phala(cli.ExitInvalid, c.key, append([]string{"node", "drain", "--node", "1"}, host...)...)
	if r := c.phala(cli.ExitOK, c.key, "node", "undrain", "--node", "1", "--start"); r["draining"] != false {
		t.Errorf("%v", r)
	}
	c.phala(cli.ExitOK, c.key, "node", "leave", "1")
	if n := c.phala(cli.ExitOK, c.key, "node", "show", "1"); n["proof"] != nil {
		t.Errorf("left: %v", n)
	}
}
