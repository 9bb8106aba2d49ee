package chain

import (
	"bufio"
	"context"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	goethereum "github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/internal/wallet"
)

func start(t *testing.T, cfg Config) (*Chain, func()) {
	t.Helper()
	cfg.Listen = "127.0.0.1:0"
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return c, stop
}

func owner(t *testing.T, dir string) *wallet.Wallet {
	t.Helper()
	w, err := wallet.OpenDev(filepath.Join(dir, "owner.json"))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func headers(t *testing.T, cl *ethclient.Client) (head, final *types.Header) {
	t.Helper()
	head, err := cl.HeaderByNumber(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	final, err = cl.HeaderByNumber(t.Context(), big.NewInt(int64(rpc.FinalizedBlockNumber)))
	if err != nil {
		t.Fatal(err)
	}
	return head, final
}

// The whole life of a dev chain: deploy, decide, stop, reopen, decide about the past.
func TestContinuesAcrossRestart(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	w := owner(t, dir)
	cfg := Config{Dir: filepath.Join(dir, "chain"), ChainID: 31337}

	c, stop := start(t, cfg)
	con, err := c.DeployContracts(ctx, w, nil)
	if err != nil {
		t.Fatal(err)
	}
	o, err := ethereum.NewOwner(ctx, ethereum.OwnerConfig{RPCURL: c.Endpoint(), ChainID: 31337, KMSContract: con.KMS.Hex()}, w)
	if err != nil {
		t.Fatal(err)
	}
	image, compose := cvm.ImageHash{7}, cvm.ComposeHash{8}
	sentAt := time.Now()
	if err := o.Apply(ctx, nil, ethereum.AllowOSImage(image)); err != nil {
		t.Fatal(err)
	}
	t.Logf("one change was final after %s", time.Since(sentAt).Round(time.Millisecond))
	app, err := o.DeployApp(ctx, ethereum.AppParams{AllowAnyDevice: true, ComposeHash: compose}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rc := ethereum.Config{RPCURLs: []string{c.Endpoint()}, ChainID: 31337, KMSContract: con.KMS.Hex()}
	r, err := ethereum.New(ctx, rc)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	req := governance.BootRequest{AppID: app, ComposeHash: compose, OSImageHash: image, TCBStatus: "UpToDate"}
	d, err := r.AuthorizeApp(ctx, req)
	if err != nil || !d.Allowed {
		t.Fatalf("AuthorizeApp: %+v, %v", d, err)
	}
	head1, final1 := headers(t, c.Client())
	high := r.HighWater()
	stop()

	c, _ = start(t, cfg)
	head2, final2 := headers(t, c.Client())
	if head2.Number.Cmp(head1.Number) < 0 || final2.Number.Cmp(final1.Number) < 0 {
		t.Fatalf("after the restart: head %s (was %s), final %s (was %s)", head2.Number, head1.Number, final2.Number, final1.Number)
	}
	again, err := c.DeployContracts(ctx, w, nil)
	if err != nil || again != con {
		t.Fatalf("contracts after the restart: %+v, %v", again, err)
	}
	if logs, err := c.Client().FilterLogs(ctx, goethereum.FilterQuery{Addresses: []common.Address{con.KMS}}); err != nil || len(logs) == 0 {
		t.Errorf("the contract's logs: %d, %v", len(logs), err)
	}
	rc.RPCURLs = []string{c.Endpoint()}
	r2, err := ethereum.New(ctx, rc)
	if err != nil {
		t.Fatal(err)
	}
	defer r2.Close()
	r2.Raise(high)
	if d2, err := r2.AuthorizeApp(ctx, req); err != nil || !d2.Allowed {
		t.Fatalf("AuthorizeApp after the restart: %+v, %v", d2, err)
	}
	// The past: allowed at the decision's block, not before the app was there.
	if ok, _, err := r2.DecisionAt(ctx, req, false, d.View.Head); err != nil || !ok {
		t.Fatalf("DecisionAt(head of then): %v, %v", ok, err)
	}
	old, err := c.Client().HeaderByNumber(ctx, new(big.Int).SetUint64(d.View.Head.Number-6))
	if err != nil {
		t.Fatal(err)
	}
	ok, reason, err := r2.DecisionAt(ctx, req, false, governance.BlockRef{Number: old.Number.Uint64(), Hash: old.Hash().Hex()})
	if err == nil && ok {
		t.Fatalf("the app was allowed at block %d already (%s)", old.Number, reason)
	}
}

const crashEnv = "PHALA_TEST_CHAIN_DIR"

// TestCrashChild is the process that TestSurvivesKill kills.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashEnv)
	if dir == "" {
		t.Skip("run by TestSurvivesKill")
	}
	c, _ := start(t, Config{Dir: filepath.Join(dir, "chain")})
	con, err := c.DeployContracts(t.Context(), owner(t, dir), nil)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("READY %s\n", con.KMS)
	for t.Context().Err() == nil {
		head, final := headers(t, c.Client())
		fmt.Printf("SEEN %d %d\n", head.Number, final.Number)
	}
}

func TestSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashChild$", "-test.v")
	cmd.Env = append(os.Environ(), crashEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var kms string
	var head, final uint64
	for s := bufio.NewScanner(out); s.Scan(); {
		if n, _ := fmt.Sscanf(s.Text(), "READY %s", &kms); n == 1 {
			// SIGKILL at any moment of a block: nothing is flushed.
			time.AfterFunc(time.Second+rand.N(time.Second), func() { _ = cmd.Process.Kill() })
		}
		// Lines that were written count, read before the kill or after it.
		_, _ = fmt.Sscanf(s.Text(), "SEEN %d %d", &head, &final)
	}
	_ = cmd.Wait()
	if kms == "" || final == 0 {
		t.Fatal("the child never was ready")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c, _ := start(t, Config{Dir: filepath.Join(dir, "chain")})
	h, f := headers(t, c.Client())
	if h.Number.Uint64() < head || f.Number.Uint64() < final {
		t.Fatalf("after the crash: head %s (was %d), final %s (was %d)", h.Number, head, f.Number, final)
	}
	con, err := c.DeployContracts(ctx, owner(t, dir), nil)
	if err != nil {
		t.Fatal(err)
	}
	if con.KMS != common.HexToAddress(kms) {
		t.Fatalf("the contracts were deployed again: %s, want %s", con.KMS, kms)
	}
	// And it goes on making final blocks.
	o, err := ethereum.NewOwner(ctx, ethereum.OwnerConfig{RPCURL: c.Endpoint(), ChainID: 31337, KMSContract: kms}, owner(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Apply(ctx, nil, ethereum.AllowOSImage(cvm.ImageHash{1})); err != nil {
		t.Fatal(err)
	}
}

func TestMulticallAndChainID(t *testing.T) {
	cfg := Config{Dir: filepath.Join(t.TempDir(), "chain"), ChainID: 8453, Multicall3: true}
	c, stop := start(t, cfg)
	code, err := c.Client().CodeAt(t.Context(), common.HexToAddress("0xcA11bde05977b3631167028862bE2a173976CA11"), nil)
	if err != nil || len(code) == 0 {
		t.Fatalf("Multicall3: %d bytes of code, %v", len(code), err)
	}
	if id, dev, err := ethereum.Detect(t.Context(), c.Client()); err != nil || id != 8453 || !dev {
		t.Fatalf("Detect: %d, dev %t, %v", id, dev, err)
	}
	stop()
	cfg.ChainID = 31337
	if _, err := New(cfg); cvm.CodeOf(err) != cvm.Conflict {
		t.Fatalf("another chain id on the same directory: %v", err)
	}
}

func TestConfigRefusals(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no dir":         {},
		"short period":   {Dir: t.TempDir(), Period: config.Duration(time.Millisecond)},
		"open to others": {Dir: t.TempDir(), Listen: "0.0.0.0:0"},
		"bad port":       {Dir: t.TempDir(), Listen: "127.0.0.1:x"},
	} {
		if c, err := New(cfg); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
			if c != nil {
				_ = c.Close()
			}
		}
	}
}
