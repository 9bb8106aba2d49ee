package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/accounts/abi/bind/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/devcloud/chain"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/governance/ethereum/contracts"
	"github.com/confidential-cloud/phala/internal/wallet"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/dry"
)

// governed is a cloud whose apps live on a development chain, and three people there.
type governed struct {
	t      *testing.T
	c      *cloudapi.Client
	chain  *chain.Chain
	kms    *ethereum.Owner // who makes apps' contracts
	people [3]*wallet.Wallet
}

func newGoverned(t *testing.T) *governed {
	t.Helper()
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	g := &governed{t: t}
	var err error
	if g.chain, err = chain.New(chain.Config{Dir: filepath.Join(dir, "chain"), Listen: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	p := begin(g.chain.Run)
	t.Cleanup(func() { p.stop(t) })
	for i := range g.people {
		if g.people[i], err = wallet.OpenDev(filepath.Join(dir, string(rune('a'+i))+".json")); err != nil {
			t.Fatal(err)
		}
		if err := g.chain.EnsureFunds(t.Context(), g.people[i].Address(), 1e9); err != nil {
			t.Fatal(err)
		}
	}
	con, err := g.chain.DeployContracts(t.Context(), g.people[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	g.kms, err = ethereum.NewOwner(t.Context(), ethereum.OwnerConfig{RPCURL: g.chain.Endpoint(), ChainID: g.chain.ChainID(), KMSContract: con.KMS.Hex(), Poll: 50 * time.Millisecond}, g.people[0])
	if err != nil {
		t.Fatal(err)
	}
	sock, err := os.MkdirTemp("", "api") // short: sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sock) })
	vc := vmm.Default()
	vc.Listen, vc.TokenFile, vc.Dir, vc.RunDir, vc.ImagesDir = freeAddr(t), filepath.Join(dir, "token"), filepath.Join(dir, "vmm"), sock, filepath.Join(dir, "images")
	vc.Driver, vc.Machines, vc.Log = "dry", dry.New(dry.Config{}), log
	vc.Capacity = vmm.Capacity{VCPU: 16, MemoryMiB: 65536, DiskMiB: 400 << 10}
	_, vp := startVMM(t, vc)
	t.Cleanup(func() { vp.stop(t) })
	ac := api.DefaultConfig()
	ac.Nodes = []api.NodeConfig{{URL: "http://" + vc.Listen, TokenFile: vc.TokenFile}}
	ac.Dir, ac.Log, ac.Keys, ac.KMS.RootSPKI = filepath.Join(dir, "api"), log, noKMS{}, "3059"
	ac.KMS.URLs, ac.KMS.GuestURLs = []string{"https://172.31.77.1:8701"}, []string{"https://172.31.77.1:8701"}
	ac.Gateway = api.GatewayConfig{Domain: "dev.localhost", Port: 8443, GuestURLs: []string{"https://172.31.77.1:8740"}}
	ac.Chain = api.ChainConfig{ID: g.chain.ChainID(), Name: "dev", RPCURL: g.chain.Endpoint(), Contract: con.KMS.Hex()}
	ac.Poll, ac.Sync = 20*time.Millisecond, 100*time.Millisecond
	s, err := api.New(ac)
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.NewAdminKey(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ap := begin(func(ctx context.Context) error { return s.Serve(ctx, l) })
	t.Cleanup(func() { ap.stop(t) })
	g.c = &cloudapi.Client{Base: "http://" + l.Addr().String() + cloudapi.Prefix, Key: key}
	return g
}

// contract is one of testdata/owners: solc's output for the sources beside it, with the
// compiler, its settings and OpenZeppelin of governance/ethereum/contracts.
type contract struct {
	abi  abi.ABI
	code []byte
	at   common.Address
}

func (g *governed) deploy(name string, args ...any) *contract {
	g.t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/owners", name+".json"))
	if err != nil {
		g.t.Fatal(err)
	}
	var raw struct {
		ABI json.RawMessage `json:"abi"`
		Bin string          `json:"bin"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		g.t.Fatal(err)
	}
	k := &contract{code: common.FromHex(raw.Bin)}
	if k.abi, err = abi.JSON(bytes.NewReader(raw.ABI)); err != nil {
		g.t.Fatal(err)
	}
	in, err := k.abi.Pack("", args...)
	if err != nil {
		g.t.Fatal(err)
	}
	var tx *types.Transaction
	if k.at, tx, err = bind.DeployContract(g.opts(0), k.code, g.chain.Client(), in); err != nil {
		g.t.Fatal(err)
	}
	g.mined(tx)
	return k
}

func (g *governed) opts(person int) *bind.TransactOpts {
	g.t.Helper()
	o, err := g.people[person].TransactOpts(g.chain.ChainID(), true)
	if err != nil {
		g.t.Fatal(err)
	}
	o.Context = g.t.Context()
	return o
}

// mined waits for a transaction, and returns its hash.
func (g *governed) mined(tx *types.Transaction) string {
	g.t.Helper()
	r, err := bind.WaitMined(g.t.Context(), g.chain.Client(), tx.Hash())
	if err != nil || r.Status != types.ReceiptStatusSuccessful {
		g.t.Fatalf("%s: %+v, %v", tx.Hash(), r, err)
	}
	return tx.Hash().Hex()
}

// send calls a contract as a person; err is why the contract refuses.
func (g *governed) send(person int, to common.Address, data []byte) (*types.Transaction, error) {
	return bind.Transact(bind.NewBoundContract(to, abi.ABI{}, g.chain.Client(), g.chain.Client(), g.chain.Client()), g.opts(person), data)
}

// call is send, and waits.
func (g *governed) call(person int, k *contract, method string, args ...any) string {
	g.t.Helper()
	data, err := k.abi.Pack(method, args...)
	if err != nil {
		g.t.Fatal(err)
	}
	tx, err := g.send(person, k.at, data)
	if err != nil {
		g.t.Fatalf("%s: %v", method, err)
	}
	return g.mined(tx)
}

// refuses fails the test unless a contract refuses the call.
func (g *governed) refuses(person int, to common.Address, data []byte) {
	g.t.Helper()
	if tx, err := g.send(person, to, data); err == nil {
		g.t.Errorf("%s was taken from person %d", tx.Hash(), person)
	}
}

// request is one without our client: with headers, or without a key.
func (g *governed) request(method, path, key string, header map[string]string, body any) (int, map[string]any) {
	g.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		g.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(g.t.Context(), method, g.c.Base+path, bytes.NewReader(b))
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	if key != "" {
		req.Header.Set("X-API-Key", key)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	out := map[string]any{}
	_ = json.Unmarshal(text, &out) // an error's shape is of no interest here
	return res.StatusCode, out
}

// TestOwners: whoever owns an app's contract (an account, two of three people, a
// timelock), an update is committed without an API key when they have allowed it, and
// not before. (Acceptance row S3.)
func TestOwners(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a chain")
	}
	g := newGoverned(t)
	a, b, c := g.people[0].Address(), g.people[1].Address(), g.people[2].Address()
	multisig := g.deploy("Multisig", [3]common.Address{a, b, c})
	const delay = 2 // seconds, and blocks of the chain
	timelock := g.deploy("TimelockController", big.NewInt(delay), []common.Address{b}, []common.Address{c}, common.Address{})
	for name, o := range map[string]struct {
		owner common.Address
		// allow makes the owner's transactions; early is called where the last one is missing.
		allow func(g governed, app common.Address, data []byte, early func()) string
	}{
		"account": {b, func(g governed, app common.Address, data []byte, _ func()) string {
			g.refuses(0, app, data)
			tx, err := g.send(1, app, data)
			if err != nil {
				g.t.Fatal(err)
			}
			return g.mined(tx)
		}},
		"multisig": {multisig.at, func(g governed, app common.Address, data []byte, early func()) string {
			g.refuses(1, app, data)
			g.call(1, multisig, "approve", app, data)
			early()
			return g.call(2, multisig, "approve", app, data)
		}},
		"timelock": {timelock.at, func(g governed, app common.Address, data []byte, early func()) string {
			var none [32]byte
			g.call(1, timelock, "schedule", app, new(big.Int), data, none, none, big.NewInt(delay))
			run, err := timelock.abi.Pack("execute", app, new(big.Int), data, none, none)
			if err != nil {
				g.t.Fatal(err)
			}
			g.chain.Pause() // time stands still: it is too early whatever this machine does
			early()
			g.refuses(2, timelock.at, run)
			g.chain.Resume()
			for {
				tx, err := g.send(2, timelock.at, run)
				if err == nil {
					return g.mined(tx)
				}
				select {
				case <-time.After(100 * time.Millisecond):
				case <-g.t.Context().Done():
					g.t.Fatal(err)
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := *g
			g.t = t
			g.update("app-"+name, o.owner, o.allow)
		})
	}
}

// update deploys an app with an owner, and updates it in two phases.
func (g governed) update(name string, owner common.Address, allow func(g governed, app common.Address, data []byte, early func()) string) {
	t, ctx := g.t, g.t.Context()
	yaml := func(tag string) string { return "services:\n  web:\n    image: nginx:" + tag + "\n" }
	p, err := g.c.Provision(ctx, cloudapi.ProvisionRequest{Name: name, InstanceType: "tdx.small", ComposeFile: map[string]any{"docker_compose_file": yaml("1.27")}})
	if err != nil {
		t.Fatal(err)
	}
	h, err := cvm.ParseComposeHash(p.ComposeHash)
	if err != nil {
		t.Fatal(err)
	}
	app, err := g.kms.DeployApp(ctx, ethereum.AppParams{Owner: owner, AllowAnyDevice: true, ComposeHash: h}, nil)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := g.c.Commit(ctx, cloudapi.CommitRequest{AppID: app.String(), ComposeHash: p.ComposeHash})
	if err != nil {
		t.Fatal(err)
	}
	if done, err := g.c.Progress(ctx, *vm.VMUUID, vm.EventSeq, nil); err != nil || done.Status != cloudapi.StatusRunning {
		t.Fatalf("%+v, %v", done, err)
	}
	prepare := func(tag string) (token, hash string) {
		t.Helper()
		status, out := g.request("PATCH", "/cvms/"+name, g.c.Key, map[string]string{"X-Prepare-Only": "true"}, map[string]any{"docker_compose_file": yaml(tag)})
		if status != 465 {
			t.Fatalf("prepare: %d %v", status, out)
		}
		for _, d := range out["detail"].(map[string]any)["details"].([]any) {
			switch d := d.(map[string]any); d["field"] {
			case "commit_token":
				token = d["value"].(string)
			case "compose_hash":
				hash = d["value"].(string)
			}
		}
		return token, hash
	}
	commit := func(want int, token, hash, tx string) (out map[string]any) {
		t.Helper()
		status, out := g.request("POST", "/cvms/"+*vm.VMUUID+"/commit-update", "", nil, map[string]any{"token": token, "compose_hash": hash, "transaction_hash": tx})
		if status != want {
			t.Errorf("commit with %.12s: %d, want %d: %v", tx, status, want, out)
		}
		return out
	}
	old, _ := prepare("1.28")
	token, hash := prepare("1.29")
	next, err := cvm.ParseComposeHash(strings.TrimPrefix(hash, "0x"))
	if err != nil {
		t.Fatal(err)
	}
	const done = "already-registered"
	commit(468, token, hash, done)
	tx := allow(g, common.Address(app), contracts.NewDstackApp().PackAddComposeHash(next), func() { commit(468, token, hash, done) })
	commit(466, old, "", done)
	commit(466, token, h.String(), done)
	out := commit(202, token, hash, tx)
	if t.Failed() {
		return
	}
	if done, err := g.c.Progress(ctx, *vm.VMUUID, int64(out["event_seq"].(float64)), nil); err != nil || done.Status != cloudapi.StatusRunning {
		t.Fatalf("%+v, %v", done, err)
	}
	if d, err := g.c.CVM(ctx, name); err != nil || d.ComposeHash == nil || *d.ComposeHash != next.String() {
		t.Errorf("runs %v, %v; want %s", d.ComposeHash, err, next)
	}
}
