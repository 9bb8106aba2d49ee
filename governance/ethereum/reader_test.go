package ethereum

import (
	"context"
	"errors"
	"math/big"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient/simulated"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/governance/ethereum/contracts"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/internal/wallet"
)

// cloud is a simulated chain with DstackKms and one app, whose blocks are made by
// the test. Finality is "head-2".
type cloud struct {
	t     *testing.T
	b     *simulated.Backend
	owner *Owner
	app   cvm.AppID
	clock func() time.Time

	stranger *wallet.Wallet // rich, and owner of nothing
}

const testFinal = "head-2"

func newCloud(t *testing.T) *cloud {
	t.Helper()
	w, err := wallet.OpenDev(filepath.Join(t.TempDir(), "w.json"))
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := wallet.OpenDev(filepath.Join(t.TempDir(), "s.json"))
	if err != nil {
		t.Fatal(err)
	}
	rich := types.Account{Balance: new(big.Int).Lsh(big.NewInt(1), 100)}
	c := &cloud{t: t, b: simulated.NewBackend(types.GenesisAlloc{w.Address(): rich, stranger.Address(): rich}), stranger: stranger}
	t.Cleanup(func() { _ = c.b.Close() })
	c.clock = func() time.Time {
		h, err := c.rpc().HeaderByNumber(context.Background(), nil)
		if err != nil {
			t.Error(err)
		}
		return time.Unix(int64(h.Time)+1, 0)
	}
	c.mining(func() {
		c.owner, err = NewOwnerWith(t.Context(), OwnerConfig{ChainID: 1337, Final: testFinal, Poll: 5 * time.Millisecond}, marked{c.rpc()}, w)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.owner.DeployKMS(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if err := c.owner.Apply(t.Context(), nil, AllowOSImage(testImage), SetGateway(cvm.AppID{9})); err != nil {
			t.Fatal(err)
		}
		if c.app, err = c.owner.DeployApp(t.Context(), AppParams{AllowAnyDevice: true, ComposeHash: testCompose}, nil); err != nil {
			t.Fatal(err)
		}
	})
	return c
}

var (
	testImage   = cvm.ImageHash{1}
	testCompose = cvm.ComposeHash{2}
)

// rpc is the backend's client, which has more methods than its type says.
func (c *cloud) rpc() Client { return c.b.Client().(Client) }

// mining makes blocks while fn runs.
func (c *cloud) mining(fn func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				c.b.Commit()
			}
		}
	})
	defer wg.Wait()
	defer close(done)
	fn()
}

func (c *cloud) request() governance.BootRequest {
	return governance.BootRequest{AppID: c.app, ComposeHash: testCompose, OSImageHash: testImage, TCBStatus: "UpToDate"}
}

func (c *cloud) config() Config {
	return Config{ChainID: 1337, KMSContract: c.owner.KMSContract().Hex(), Final: testFinal, Now: c.clock}
}

func (c *cloud) reader(e ...Endpoint) *Reader {
	c.t.Helper()
	if len(e) == 0 {
		e = []Endpoint{c.rpc(), c.rpc()}
	}
	r, err := NewWith(c.config(), e...)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// marked makes the simulated chain look like a development chain.
type marked struct{ Client }

func (m marked) HeaderByNumber(ctx context.Context, n *big.Int) (*types.Header, error) {
	h, err := m.Client.HeaderByNumber(ctx, n)
	if err == nil && n != nil && n.Sign() == 0 {
		h.Extra = []byte(DevMark)
	}
	return h, err
}

// liar changes what an endpoint says.
type liar struct {
	Endpoint
	chain  *big.Int
	header func(n *big.Int, h *types.Header) (*types.Header, error)
	call   func([]byte) ([]byte, error)
}

func (l liar) ChainID(ctx context.Context) (*big.Int, error) {
	if l.chain != nil {
		return l.chain, nil
	}
	return l.Endpoint.ChainID(ctx)
}

func (l liar) HeaderByNumber(ctx context.Context, n *big.Int) (*types.Header, error) {
	h, err := l.Endpoint.HeaderByNumber(ctx, n)
	if err == nil && l.header != nil {
		return l.header(n, h)
	}
	return h, err
}

func (l liar) CallContractAtHash(ctx context.Context, m ethereum.CallMsg, b common.Hash) ([]byte, error) {
	out, err := l.Endpoint.CallContractAtHash(ctx, m, b)
	if err == nil && l.call != nil {
		return l.call(out)
	}
	return out, err
}

func TestAllowLateDenyEarly(t *testing.T) {
	c := newCloud(t)
	r := c.reader()
	ctx := t.Context()
	decide := func(b governance.BootRequest) governance.Decision {
		t.Helper()
		d, err := r.AuthorizeApp(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := decide(c.request())
	if !d.Allowed || d.GatewayAppID != (cvm.AppID{9}).String() || d.View.Head.Number != d.View.Final.Number+2 || d.View.ChainID != 1337 {
		t.Fatalf("%+v", d)
	}
	next := c.request()
	next.ComposeHash = cvm.ComposeHash{3}
	if d := decide(next); d.Allowed || d.Reason != "Compose hash not allowed" {
		t.Fatalf("an unknown compose hash: %+v", d)
	}
	// Allow late: at the head only, then final.
	op := AllowCompose(c.app, next.ComposeHash)
	if _, err := c.owner.send(ctx, op.Name, c.owner.target(op), op.data); err != nil {
		t.Fatal(err)
	}
	c.b.Commit()
	if d := decide(next); d.Allowed || !strings.Contains(d.Reason, "Compose hash not allowed (allowed at the head, not final yet") {
		t.Fatalf("allowed at the head only: %+v", d)
	}
	c.b.Commit()
	c.b.Commit()
	if d := decide(next); !d.Allowed {
		t.Fatalf("allowed at the final block: %+v", d)
	}
	// Deny early: the head is enough.
	op = DenyCompose(c.app, next.ComposeHash)
	if _, err := c.owner.send(ctx, op.Name, c.owner.target(op), op.data); err != nil {
		t.Fatal(err)
	}
	c.b.Commit()
	if d := decide(next); d.Allowed || d.Reason != "Compose hash not allowed" {
		t.Fatalf("denied at the head: %+v", d)
	}
	// A gateway that was just replaced is not named any more.
	op = SetGateway(cvm.AppID{10})
	if _, err := c.owner.send(ctx, op.Name, c.owner.target(op), op.data); err != nil {
		t.Fatal(err)
	}
	c.b.Commit()
	if d := decide(c.request()); !d.Allowed || d.GatewayAppID != "" {
		t.Fatalf("while the gateway changes: %+v", d)
	}
	c.b.Commit()
	c.b.Commit()
	if d := decide(c.request()); d.GatewayAppID != (cvm.AppID{10}).String() {
		t.Fatalf("after the gateway changed: %+v", d)
	}
	if d, err := r.AuthorizeKMS(ctx, c.request()); err != nil || d.Allowed || d.Reason != "Aggregated MR not allowed" {
		t.Fatalf("AuthorizeKMS: %+v, %v", d, err)
	}
}

func TestRefusesTornViews(t *testing.T) {
	c := newCloud(t)
	for range 12 {
		c.b.Commit()
	}
	good := c.rpc()
	change := func(only func(n *big.Int) bool, f func(*types.Header)) liar {
		return liar{Endpoint: good, header: func(n *big.Int, h *types.Header) (*types.Header, error) {
			if only(n) {
				h = types.CopyHeader(h)
				f(h)
			}
			return h, nil
		}}
	}
	head := func(n *big.Int) bool { return n == nil }
	any := func(*big.Int) bool { return true }
	at := c.clock()
	cases := map[string]struct {
		e    []Endpoint
		now  time.Time
		want string
	}{
		"another chain":             {e: []Endpoint{good, liar{Endpoint: good, chain: big.NewInt(1)}}, want: ReasonDisagrees},
		"another chain alone":       {e: []Endpoint{liar{Endpoint: good, chain: big.NewInt(1)}}, want: ReasonDisagrees},
		"another head":              {e: []Endpoint{good, change(head, func(h *types.Header) { h.Extra = []byte("fork") })}, want: ReasonDisagrees},
		"another final block":       {e: []Endpoint{good, change(func(n *big.Int) bool { return n != nil }, func(h *types.Header) { h.Extra = []byte("fork") })}, want: ReasonDisagrees},
		"heads far apart":           {e: []Endpoint{good, change(head, func(h *types.Header) { h.Number = new(big.Int).Add(h.Number, big.NewInt(20)) })}, want: ReasonDisagrees},
		"wrong block for a number":  {e: []Endpoint{change(func(n *big.Int) bool { return n != nil }, func(h *types.Header) { h.Number = big.NewInt(1) })}, want: ReasonDisagrees},
		"different answers":         {e: []Endpoint{good, liar{Endpoint: good, call: func(b []byte) ([]byte, error) { return append([]byte{1}, b[1:]...), nil }}}, want: ReasonDisagrees},
		"no contract":               {e: []Endpoint{liar{Endpoint: good, call: func([]byte) ([]byte, error) { return nil, nil }}}, want: ReasonUnreachable},
		"nonsense answer":           {e: []Endpoint{liar{Endpoint: good, call: func([]byte) ([]byte, error) { return []byte{1, 2, 3}, nil }}}, want: ReasonUnreachable},
		"one is down":               {e: []Endpoint{good, liar{Endpoint: good, header: func(*big.Int, *types.Header) (*types.Header, error) { return nil, errors.New("refused") }}}, want: ReasonUnreachable},
		"old head":                  {e: []Endpoint{good}, now: at.Add(61 * time.Second), want: ReasonStale},
		"head from the future":      {e: []Endpoint{good}, now: at.Add(-20 * time.Second), want: ReasonDisagrees},
		"all say a wrong head time": {e: []Endpoint{change(any, func(h *types.Header) { h.Time += 1000 })}, want: ReasonDisagrees},
	}
	for name, x := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := c.config()
			if !x.now.IsZero() {
				cfg.Now = func() time.Time { return x.now }
			}
			r, err := NewWith(cfg, x.e...)
			if err != nil {
				t.Fatal(err)
			}
			d, err := r.AuthorizeApp(t.Context(), c.request())
			if d.Allowed || cvm.CodeOf(err) != cvm.Unavailable || cvm.ReasonOf(err) != x.want {
				t.Fatalf("%+v, %v (reason %q, want %q)", d, err, cvm.ReasonOf(err), x.want)
			}
		})
	}
	// Just inside the limits it is an answer.
	for _, now := range []time.Time{at.Add(58 * time.Second), at.Add(-14 * time.Second)} {
		cfg := c.config()
		cfg.Now = func() time.Time { return now }
		r, err := NewWith(cfg, good)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := r.AuthorizeApp(t.Context(), c.request()); err != nil || !d.Allowed {
			t.Fatalf("at %s: %+v, %v", now.Sub(at), d, err)
		}
	}
}

// A slow endpoint makes the view old even when its block time is fresh.
func TestStaleByLocalTime(t *testing.T) {
	c := newCloud(t)
	now := c.clock()
	fresh := uint64(now.Add(93 * time.Second).Unix()) // three answers later
	cfg := c.config()
	cfg.Now = func() time.Time { return now }
	slow := liar{Endpoint: c.rpc(), header: func(_ *big.Int, h *types.Header) (*types.Header, error) {
		now = now.Add(31 * time.Second)
		h = types.CopyHeader(h)
		h.Time = fresh
		return h, nil
	}}
	r, err := NewWith(cfg, slow)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.View(t.Context()); cvm.ReasonOf(err) != ReasonStale {
		t.Fatalf("%v", err)
	}
}

func TestHeightsNeverGoBack(t *testing.T) {
	c := newCloud(t)
	for range 20 {
		c.b.Commit()
	}
	v, err := c.reader().View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, high := range map[string]HighWater{
		"final ahead":         {Final: governance.BlockRef{Number: v.Final.Number + 1}},
		"head far ahead":      {Head: governance.BlockRef{Number: v.Head.Number + DefaultHeadSlack + 1}},
		"same final, forked":  {Final: governance.BlockRef{Number: v.Final.Number, Hash: "0xabc"}},
		"older final, forked": {Final: governance.BlockRef{Number: v.Final.Number - 3, Hash: "0xabc"}},
	} {
		r := c.reader()
		r.Raise(high)
		if _, err := r.View(t.Context()); cvm.ReasonOf(err) != ReasonWentBack {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := c.reader()
	r.Raise(HighWater{Final: v.Final, Head: v.Head})
	c.b.Commit()
	if _, err := r.View(t.Context()); err != nil {
		t.Errorf("one block later: %v", err)
	}
	if got := r.HighWater(); got.Head.Number != v.Head.Number+1 || got.Final.Number != v.Final.Number+1 {
		t.Errorf("the mark did not rise: %+v", got)
	}
	r.Raise(HighWater{})
	if got := r.HighWater(); got.Head.Number != v.Head.Number+1 {
		t.Error("Raise lowered the mark")
	}
}

// Decisions that are read at the same time, while the chain moves, do not take
// each other's newer view for a chain that went back.
func TestConcurrentDecisions(t *testing.T) {
	c := newCloud(t)
	cfg := c.config()
	cfg.Now = time.Now
	cfg.MaxStaleness = config.Duration(time.Hour)
	r, err := NewWith(cfg, c.rpc(), c.rpc())
	if err != nil {
		t.Fatal(err)
	}
	// The simulated chain's clock runs ahead of ours, a second per block.
	h, err := c.rpc().HeaderByNumber(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.now = func() time.Time { return time.Unix(int64(h.Time), 0).Add(10 * time.Minute) }
	for range 10 {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 3 {
					if d, err := r.AuthorizeApp(t.Context(), c.request()); err != nil || !d.Allowed {
						t.Errorf("%+v, %v", d, err)
						return
					}
				}
			})
		}
		wg.Go(func() { // not more blocks than endpoints may be apart: who waits for a processor sees all of them pass
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for range DefaultHeadSlack {
				<-tick.C
				c.b.Commit()
			}
		})
		wg.Wait()
	}
}

func TestDecisionAt(t *testing.T) {
	c := newCloud(t)
	r := c.reader()
	d, err := r.AuthorizeApp(t.Context(), c.request())
	if err != nil {
		t.Fatal(err)
	}
	c.mining(func() {
		if err := c.owner.Apply(t.Context(), nil, DenyCompose(c.app, testCompose)); err != nil {
			t.Fatal(err)
		}
	})
	if now, err := r.AuthorizeApp(t.Context(), c.request()); err != nil || now.Allowed {
		t.Fatalf("now: %+v, %v", now, err)
	}
	if ok, why, err := r.DecisionAt(t.Context(), c.request(), false, d.View.Head); err != nil || !ok {
		t.Fatalf("then: %t %q %v", ok, why, err)
	}
	wrong := d.View.Head
	wrong.Hash = "0x" + strings.Repeat("ab", 32)
	if ok, _, err := r.DecisionAt(t.Context(), c.request(), false, wrong); ok || cvm.ReasonOf(err) != ReasonDisagrees {
		t.Fatalf("a block that is not on the chain: %t %v", ok, err)
	}
}

func TestOwnerIsIdempotentAndRefused(t *testing.T) {
	c := newCloud(t)
	var stages []string
	c.mining(func() {
		err := c.owner.Apply(t.Context(), func(p Progress) { stages = append(stages, p.Stage) },
			AllowOSImage(testImage), SetGateway(cvm.AppID{9}), AllowKMS([32]byte{5}), AllowKMSDevice(cvm.DeviceID{6}))
		if err != nil {
			t.Fatal(err)
		}
	})
	if got := strings.Join(stages, " "); !strings.HasPrefix(got, "in-force in-force sent sent included included") || !strings.HasSuffix(got, "final final") {
		t.Errorf("stages: %s", got)
	}
	poor, err := wallet.OpenDev(filepath.Join(t.TempDir(), "p.json"))
	if err != nil {
		t.Fatal(err)
	}
	stranger := c.stranger
	cfg := OwnerConfig{ChainID: 1337, KMSContract: c.owner.KMSContract().Hex(), Final: testFinal}
	s, err := NewOwnerWith(t.Context(), cfg, marked{c.rpc()}, stranger)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Apply(t.Context(), nil, AllowOSImage(cvm.ImageHash{77}))
	if cvm.CodeOf(err) != cvm.Denied || !strings.Contains(err.Error(), "is not its owner") {
		t.Errorf("a stranger's change: %v", err)
	}
	p, err := NewOwnerWith(t.Context(), cfg, marked{c.rpc()}, poor)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(t.Context(), nil, RegisterApp(cvm.AppID{7})); cvm.ReasonOf(err) != "insufficient-funds" {
		t.Errorf("a poor wallet's change: %v", err)
	}
	// A development key on a chain that is not one, and the wrong chain id.
	if _, err := NewOwnerWith(t.Context(), cfg, c.rpc(), stranger); cvm.ReasonOf(err) != "wallet-wrong-network" {
		t.Errorf("a development key on another chain: %v", err)
	}
	cfg.ChainID = 1
	if _, err := NewOwnerWith(t.Context(), cfg, marked{c.rpc()}, stranger); cvm.CodeOf(err) != cvm.Precondition {
		t.Errorf("another chain id: %v", err)
	}
}

func TestConfigSaysAllProblems(t *testing.T) {
	_, err := New(t.Context(), Config{Final: "later", MaxStaleness: -1})
	for _, want := range []string{"rpc_urls", "chain_id", "kms_contract", "final", "max_staleness"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	if got := hostOf("https://user:key@rpc.example/v2/secret"); got != "rpc.example" {
		t.Errorf("hostOf shows %q", got)
	}
}

func FuzzUnpackDecision(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 96))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, kms := range []bool{true, false} {
			ok, reason, err := unpackDecision(kmsABI(), kms, b)
			if err != nil && ok {
				t.Fatal("allowed with an error")
			}
			if err == nil && !ok && reason == "" {
				t.Fatal("denied without a reason")
			}
		}
	})
}

func kmsABI() *contracts.DstackKms { return contracts.NewDstackKms() }
