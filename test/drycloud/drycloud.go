// Package drycloud starts a cloud for tests of what stands in front of the API: the
// real API and VMM on the dry driver (states move, no machine runs), a KMS root, and
// on request a chain with the contracts and an owner who trusts this cloud.
package drycloud

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// Image, which is the default, and DevImage are the OS images that there are, Region is
// the one region.
const (
	Image    = "dstack-0.5.5"
	DevImage = "dstack-dev-0.5.5"
	Region   = "us-test"
)

// Domain is the base domain of the apps.
const Domain = "dev.localhost"

// Options are what a test has otherwise; the zero value is a cloud without a chain,
// whose machines are all well and whose apps say under which name they were asked.
type Options struct {
	Chain *Chain       // the chain that apps are on; nil: none
	Dry   dry.Config   // the machines
	Edge  http.Handler // answers under every app's name, as the gateway would
}

// Chain is a development chain.
type Chain struct {
	ID   uint64 // 0: the development chains' own
	Name string
}

// Cloud is a cloud that runs until the test ends.
type Cloud struct {
	Client *cloudapi.Client
	Key    string // an administrator's API key
	Domain string // base domain of apps, with the port of the edge
	CA     []byte // root of the edge's certificate, PEM
	RPC    string // of the chain; "" without one

	// Driver has the machines; Root is the KMS's.
	Driver *dry.Driver
	Root   *keys.Root

	edge  *edge
	chain *onChain
}

// Prefix is what PHALA_CLOUD_API_PREFIX says.
func (c *Cloud) Prefix() string { return c.Client.Base }

// rootKMS stands in for the KMS service: real keys of a real root, without the
// attested servers in front of it.
type rootKMS struct{ root *keys.Root }

func (k rootKMS) EnvKey(_ context.Context, app cvm.AppID) (v kmsapi.EnvKey, err error) {
	priv, err := k.root.EnvKey(app)
	if err != nil {
		return v, err
	}
	if v.PublicKey, err = keys.EnvPublicKey(priv); err != nil {
		return v, err
	}
	v.Timestamp = uint64(time.Now().Unix())
	v.Signature, v.SignatureV1, err = k.root.SignEnvKey(app, v.PublicKey, v.Timestamp)
	return v, err
}

func (k rootKMS) Meta(context.Context) (kmsapi.Meta, error) {
	spki, err := k.root.CASPKI()
	return kmsapi.Meta{RootSPKI: hex.EncodeToString(spki), K256PubKey: k.root.K256Public(), Simulated: true}, err
}

// Start starts a cloud whose apps are on no chain.
func Start(t testing.TB) *Cloud { return New(t, Options{}) }

// StartOnChain starts one with a development chain, and an owner for Login.
func StartOnChain(t testing.TB) *Cloud { return New(t, Options{Chain: &Chain{Name: "anvil"}}) }

// New starts a cloud.
func New(t testing.TB, o Options) *Cloud {
	t.Helper()
	dir := t.TempDir()
	root, err := keys.NewRoot(rand.Reader, 1)
	if err != nil {
		t.Fatal(err)
	}
	if o.Dry.LogDir == "" {
		o.Dry.LogDir = filepath.Join(dir, "logs")
		if err := os.Mkdir(o.Dry.LogDir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	c := &Cloud{Root: root, Driver: dry.New(o.Dry), edge: newEdge(t, o.Edge)}
	c.CA, c.Domain = c.edge.root, net.JoinHostPort(Domain, fmt.Sprint(c.edge.port()))
	if o.Chain != nil {
		c.chain = newChain(t, *o.Chain)
		c.RPC = c.chain.chain.Endpoint()
	}
	srv, err := api.New(c.config(t, dir, startVMM(t, dir, c.Driver)))
	if err != nil {
		t.Fatal(err)
	}
	if c.Key, err = srv.NewAdminKey(t.Context(), "drycloud"); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	live(t, func(ctx context.Context) error { return srv.Serve(ctx, l) })
	c.Client = &cloudapi.Client{Base: "http://" + l.Addr().String() + cloudapi.Prefix, Key: c.Key}
	return c
}

// config is the API's.
func (c *Cloud) config(t testing.TB, dir string, v vmm.Config) api.Config {
	t.Helper()
	spki, err := c.Root.CASPKI()
	if err != nil {
		t.Fatal(err)
	}
	cfg := api.DefaultConfig()
	cfg.Dir, cfg.Log = filepath.Join(dir, "api"), slog.New(slog.NewTextHandler(errorsOf{t}, &slog.HandlerOptions{Level: slog.LevelError}))
	cfg.Keys, cfg.KMS.RootSPKI = rootKMS{c.Root}, hex.EncodeToString(spki)
	cfg.KMS.ID, cfg.KMS.URLs, cfg.KMS.GuestURLs = "kms-test", []string{"https://kms.apps.test:8701"}, []string{"https://172.31.77.1:8701"}
	cfg.Nodes = []api.NodeConfig{{URL: "http://" + v.Listen, TokenFile: v.TokenFile, Region: Region}}
	cfg.Gateway = api.GatewayConfig{Domain: Domain, Port: c.edge.port(), GuestURLs: []string{"https://172.31.77.1:8740"}}
	cfg.Poll, cfg.Sync, cfg.Image = 20*time.Millisecond, 100*time.Millisecond, Image
	if c.chain != nil {
		cfg.Chain = api.ChainConfig{ID: c.chain.chain.ChainID(), Name: c.chain.name, RPCURL: c.RPC, Contract: c.chain.contract}
	}
	return cfg
}

// errorsOf fails the test when the API logs an error: a failure of its own is one of ours.
type errorsOf struct{ t testing.TB }

func (e errorsOf) Write(b []byte) (int, error) {
	e.t.Errorf("the API logged: %s", b)
	return len(b), nil
}

// onDevice is the dry driver on hardware with an identity: contracts know no zero.
type onDevice struct{ *dry.Driver }

func (d onDevice) Describe(ctx context.Context) (machine.Description, error) {
	out, err := d.Driver.Describe(ctx)
	out.DeviceID = cvm.DeviceID{7}
	return out, err
}

func startVMM(t testing.TB, dir string, driver *dry.Driver) vmm.Config {
	t.Helper()
	sock, err := os.MkdirTemp("", "dry") // short: sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sock) })
	c := vmm.Default()
	c.Listen, c.TokenFile, c.Dir, c.RunDir, c.ImagesDir = freeAddr(t), filepath.Join(dir, "token"), filepath.Join(dir, "vmm"), sock, filepath.Join(dir, "images")
	c.Driver, c.Machines, c.Log = "dry", onDevice{driver}, slog.New(slog.DiscardHandler)
	c.Capacity = vmm.Capacity{VCPU: 256, MemoryMiB: 512 << 10, DiskMiB: 8000 << 10}
	writeImage(t, filepath.Join(c.ImagesDir, Image), false)
	writeImage(t, filepath.Join(c.ImagesDir, DevImage), true)
	m, err := vmm.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ended := live(t, m.Run)
	select {
	case <-m.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	return c
}

func writeImage(t testing.TB, dir string, dev bool) {
	t.Helper()
	meta, err := json.Marshal(map[string]any{"version": "0.5.5", "is_dev": dev, "cmdline": dir})
	if err != nil {
		t.Fatal(err)
	}
	sums := fmt.Sprintf("%x  metadata.json\n", sha256.Sum256(meta))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"metadata.json": string(meta), "sha256sum.txt": sums, "digest.txt": fmt.Sprintf("%x\n", sha256.Sum256([]byte(sums)))} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// live runs a part until the test ends.
func live(t testing.TB, run func(context.Context) error) <-chan error {
	ctx, cancel := context.WithCancel(context.Background())
	done, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		err := run(ctx)
		done <- err
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return ended
}
