package kms

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

const testVMConfig = `{"os_image_hash":"0100000000000000000000000000000000000000000000000000000000000000","cpu_count":1,"memory_size":1073741824,"tdx_attestation_variant":"container"}`

// chain is an authority in memory with a chain's view.
type chain struct {
	mu       sync.Mutex
	apps     map[cvm.ComposeHash]bool
	kms      map[[32]byte]bool
	err      error
	head     uint64
	lag      time.Duration // how old the view says it is
	appCalls int
}

func (c *chain) set(fn func(c *chain)) { c.mu.Lock(); defer c.mu.Unlock(); fn(c) }

func (c *chain) view() governance.View {
	c.head++
	at := time.Now().Add(-c.lag)
	return governance.View{Source: "ethereum", ChainID: 31337, Contract: "0x1", SeenAt: at,
		Final: governance.BlockRef{Number: c.head, Hash: "0x1", Time: at}, Head: governance.BlockRef{Number: c.head + 2, Hash: "0x2", Time: at}}
}

func (c *chain) AuthorizeApp(_ context.Context, r governance.BootRequest) (governance.Decision, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.appCalls++
	if c.err != nil {
		return governance.Decision{}, c.err
	}
	d := governance.Decision{Allowed: c.apps[r.ComposeHash], GatewayAppID: "0x" + cvm.AppID{0xaa}.String(), View: c.view()}
	if !d.Allowed {
		d.Reason = "Compose hash not allowed"
	}
	return d, nil
}

func (c *chain) AuthorizeKMS(_ context.Context, r governance.BootRequest) (governance.Decision, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := governance.Decision{Allowed: c.kms[r.MRAggregated], View: c.view()}
	if !d.Allowed {
		d.Reason = "Aggregated MR not allowed"
	}
	return d, nil
}

func (c *chain) Info(context.Context) (governance.Info, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return governance.Info{Source: "ethereum", ChainID: 31337, Contract: "0x1", View: c.view()}, c.err
}

// vendor hands out the simulated vendors' collateral without HTTP.
type vendor struct{ machines []*simtee.Hardware }

func (v vendor) For(context.Context, attest.Evidence) (collateral.Set, error) {
	return v.machines[0].Collateral(time.Now())
}

type node struct {
	*Member
	cfg  Config
	stop context.CancelFunc
	done chan error
}

type cluster struct {
	t     testing.TB
	hw    *simtee.Hardware
	chain *chain
	nodes []*node
}

func freePort(t testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func testLog(t testing.TB) *slog.Logger {
	if os.Getenv("KMS_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func newHardware(t testing.TB, seed byte) *simtee.Hardware {
	s := sha256.Sum256([]byte{seed})
	hw, err := simtee.New(simtee.Config{Seed: s[:]})
	if err != nil {
		t.Fatal(err)
	}
	return hw
}

func newCluster(t testing.TB, n int) *cluster {
	c := &cluster{t: t, hw: newHardware(t, 1), chain: &chain{apps: map[cvm.ComposeHash]bool{}, kms: map[[32]byte]bool{}, head: 100}}
	mr, err := ExpectedMR(testVMConfig)
	if err != nil {
		t.Fatal(err)
	}
	c.chain.kms[mr] = true
	root := c.hw.RootSPKI()
	for i := range n {
		cfg := Default()
		cfg.ID, cfg.Dir = fmt.Sprintf("kms-%d", i+1), filepath.Join(t.TempDir(), fmt.Sprint(i+1))
		rpcAddr := freePort(t)
		cfg.RPC, cfg.URLs, cfg.Raft = []string{rpcAddr}, []string{"https://" + rpcAddr}, freePort(t)
		if cfg.Bootstrap = i == 0; i > 0 {
			cfg.Peers = []string{c.nodes[0].cfg.Raft}
		}
		cfg.VMConfig, cfg.SimTEE = testVMConfig, "unused"
		cfg.Attestation.SimulatedRoots = []string{hex.EncodeToString(root[:])}
		cfg.Attestation.Variants = []string{measure.VariantContainer}
		cfg.Authority, cfg.Collateral, cfg.Log = c.chain, vendor{[]*simtee.Hardware{c.hw}}, testLog(t)
		c.nodes = append(c.nodes, &node{cfg: cfg})
	}
	for i := range c.nodes {
		c.start(i)
	}
	for i := range c.nodes {
		c.await(i)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.halt(i)
		}
	})
	return c
}

func (c *cluster) start(i int) {
	c.t.Helper()
	n := c.nodes[i]
	shape, err := Shape(testVMConfig)
	if err != nil {
		c.t.Fatal(err)
	}
	_ = c.hw.DestroyTD(n.cfg.ID)
	if n.cfg.TEE, err = c.hw.NewTD(n.cfg.ID, shape); err != nil {
		c.t.Fatal(err)
	}
	if n.Member, err = New(n.cfg); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.stop, n.done = cancel, make(chan error, 1)
	go func(m *Member, done chan error) { done <- m.Run(ctx) }(n.Member, n.done)
}

func (c *cluster) await(i int) {
	c.t.Helper()
	select {
	case <-c.nodes[i].Ready():
	case err := <-c.nodes[i].done:
		c.t.Fatalf("%s ended: %v", c.nodes[i].cfg.ID, err)
	case <-time.After(60 * time.Second):
		c.t.Fatalf("%s is not ready", c.nodes[i].cfg.ID)
	}
}

func (c *cluster) halt(i int) {
	n := c.nodes[i]
	if n.stop == nil {
		return
	}
	n.stop()
	select {
	case <-n.done:
	case <-time.After(30 * time.Second):
		c.t.Errorf("%s does not stop", n.cfg.ID)
	}
	n.stop = nil
}

// eventually polls until ok, or fails.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(45 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s: not in time", what)
		case <-tick.C:
		}
	}
}

func (c *cluster) leader() int {
	out := -1
	eventually(c.t, "a leader", func() bool {
		for i, n := range c.nodes {
			if n.stop != nil && n.replica.IsLeader() {
				out = i
				return true
			}
		}
		return false
	})
	return out
}

func (c *cluster) urls() (out []string) {
	for _, n := range c.nodes {
		out = append(out, n.cfg.URLs[0])
	}
	return out
}

// guest is a booted simulated guest with a client of the KMS.
type guest struct {
	t       testing.TB
	client  *kmsapi.Client
	spki    []byte
	boot    *simtee.Guest
	app     cvm.AppID
	compose []byte
	ctx     kmsapi.EvidenceContext
}

func clientCert(t testing.TB) (*tls.Certificate, []byte) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := spkiOf(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}, spki
}

func (c *cluster) client(cert *tls.Certificate, urls ...string) *kmsapi.Client {
	if len(urls) == 0 {
		urls = c.urls()
	}
	var pin []byte
	for _, n := range c.nodes { // any member that ever served knows the root
		if n.root != nil {
			pin = n.root.Cert.RawSubjectPublicKeyInfo
		}
	}
	k, err := kmsapi.New(kmsapi.Config{URLs: urls, RootSPKI: hex.EncodeToString(pin), Certificate: cert, Timeout: 40 * time.Second})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(k.Close)
	return k
}

var guestNumber struct {
	sync.Mutex
	n int
}

func composeOf(t testing.TB, d appcompose.Document) []byte {
	d.ManifestVersion, d.Runner, d.KMSEnabled, d.AllowedEnvs = 2, appcompose.RunnerDockerCompose, true, []string{}
	b, err := appcompose.Encode(&d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (c *cluster) guestOn(hw *simtee.Hardware, compose []byte, app cvm.AppID, inst cvm.InstanceID, phase claim.Phase) *guest {
	guestNumber.Lock()
	guestNumber.n++
	name := fmt.Sprintf("guest-%d", guestNumber.n)
	guestNumber.Unlock()
	b, err := hw.Boot(context.Background(), simtee.Boot{
		Name: name, AppID: app, ComposeHash: sha256.Sum256(compose), InstanceID: inst, Phase: phase,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	cert, spki := clientCert(c.t)
	return &guest{t: c.t, client: c.client(cert), spki: spki, boot: b, app: app, compose: compose}
}

// guest boots an allowed app.
func (c *cluster) guest(compose []byte) *guest {
	c.chain.set(func(ch *chain) { ch.apps[sha256.Sum256(compose)] = true })
	return c.guestOn(c.hw, compose, cvm.AppID{1}, cvm.InstanceID{2}, claim.PhaseRelease)
}

// request makes a release request; change may spoil it before it is sealed.
func (g *guest) request(nonce []byte) kmsapi.ReleaseRequest {
	g.t.Helper()
	if nonce == nil {
		n, err := g.client.Nonce(context.Background())
		if err != nil {
			g.t.Fatal(err)
		}
		nonce = n.Nonce
	}
	doc, _ := json.Marshal(g.ctx)
	ev, err := g.boot.Evidence(context.Background(), kmsapi.ReportDataRelease(nonce, g.spki, doc))
	if err != nil {
		g.t.Fatal(err)
	}
	raw, err := ev.Marshal()
	if err != nil {
		g.t.Fatal(err)
	}
	return kmsapi.ReleaseRequest{Nonce: nonce, Attestation: raw, Context: doc, AppCompose: g.compose}
}

func (g *guest) release() (kmsapi.Release, error) {
	g.t.Helper()
	return g.client.Release(context.Background(), g.request(nil))
}

// run measures the events that follow the keys.
func (g *guest) run() {
	g.t.Helper()
	for _, e := range []eventlog.Runtime{
		{Name: eventlog.KeyProvider, Payload: []byte(`{"name":"kms","id":"00"}`)},
		{Name: eventlog.StorageFS, Payload: []byte("ext4")}, {Name: eventlog.SystemReady},
	} {
		if err := g.boot.Extend(context.Background(), e); err != nil {
			g.t.Fatal(err)
		}
	}
}

func (g *guest) renew(lease string) (kmsapi.Renewal, error) {
	g.t.Helper()
	n, err := g.client.Nonce(context.Background())
	if err != nil {
		return kmsapi.Renewal{}, err
	}
	ev, err := g.boot.Evidence(context.Background(), kmsapi.ReportDataRenew(n.Nonce, g.spki, lease))
	if err != nil {
		g.t.Fatal(err)
	}
	raw, _ := ev.Marshal()
	return g.client.Renew(context.Background(), kmsapi.RenewRequest{LeaseID: lease, Nonce: n.Nonce, Attestation: raw})
}
