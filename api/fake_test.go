package api_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

const (
	token    = "vmm-token-that-must-not-leak"
	rootSPKI = "3059301306072a8648ce3d020106082a8648ce3d03010703420004"
)

// fakeVMM speaks vmmapi over HTTP and remembers each call that changes something.
type fakeVMM struct {
	mu       sync.Mutex
	vms      map[string]*vmmapi.VM
	events   map[string][]vmmapi.Event
	calls    []string
	images   []vmmapi.Image // beside the first
	networks []vmmapi.NodeNetwork
	device   cvm.DeviceID // zero: 07
	evidence func(nonce []byte) (guestapi.Evidence, error)
	down     atomic.Bool
	// boot decides how a boot ends; nil runs at once. It may block.
	boot func(vm vmmapi.VM) *vmmapi.VMError
	// after runs when a call took effect and before its answer goes out.
	after func(call string)
	// updates: it knows POST update; refuse is its answer to one.
	updates bool
	refuse  error
	node    func(*vmmapi.Node) // changes what the node says of itself
	drain   vmmapi.DrainState
	wg      sync.WaitGroup
}

type plain string

func newVMM() *fakeVMM {
	return &fakeVMM{vms: map[string]*vmmapi.VM{}, events: map[string][]vmmapi.Event{}}
}

func (f *fakeVMM) count(prefix string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	return n
}

func (f *fakeVMM) knowsUpdates() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.updates = true
}

func (f *fakeVMM) setBoot(boot func(vmmapi.VM) *vmmapi.VMError) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.boot = boot
}

func (f *fakeVMM) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.down.Load() {
		panic(http.ErrAbortHandler)
	}
	if r.Header.Get("Authorization") != "Bearer "+token {
		rpc.WriteError(w, cvm.Errorf(cvm.Unauthenticated, "bad token"))
		return
	}
	v, err := f.route(w, r)
	f.mu.Lock()
	after := f.after
	f.mu.Unlock()
	if after != nil && r.Method != http.MethodGet {
		after(r.Method + " " + r.URL.Path)
	}
	if err != nil {
		rpc.WriteError(w, err)
		return
	}
	if s, ok := v.(plain); ok {
		_, _ = w.Write([]byte(s))
		return
	}
	rpc.WriteJSON(w, http.StatusOK, v)
}

func (f *fakeVMM) route(w http.ResponseWriter, r *http.Request) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r.URL.Path {
	case "/v1/node":
		n := vmmapi.Node{ID: "n", Name: "node-1", Driver: "dry", Simulated: true, DeviceID: cmp.Or(f.device, cvm.DeviceID{7}), Region: "here", Networks: f.networks,
			Capacity: vmmapi.Resources{VCPU: 8, MemoryMiB: 16384, DiskMiB: 500 << 10}}
		if f.drain.Draining {
			n.Draining, n.Maintenance = true, &vmmapi.Maintenance{Reason: f.drain.Reason, Since: f.drain.Since, StopAt: f.drain.StopAt}
		}
		if f.node != nil {
			f.node(&n)
		}
		return n, nil
	case "/v1/node/drain", "/v1/node/undrain":
		return f.drains(w, r)
	case "/v1/images":
		return append([]vmmapi.Image{{Name: "phala-1.0.0", Hash: cvm.ImageHash{9}, Version: "1.0.0"}}, f.images...), nil
	case "/v1/vms":
		out := []vmmapi.VM{}
		for _, v := range f.vms {
			out = append(out, *v)
		}
		return out, nil
	}
	id, action, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, vmmapi.PathVMs), "/")
	if r.Method != http.MethodGet {
		f.calls = append(f.calls, strings.TrimSuffix(r.Method+" "+action, " ")+r.URL.RawQuery)
	}
	if r.Method == http.MethodPut && action == "" {
		var s vmmapi.Spec
		if err := rpc.Decode(w, r, &s); err != nil {
			return nil, err
		}
		if f.vms[id] == nil {
			f.vms[id] = &vmmapi.VM{Spec: s, State: vmmapi.StateCreated, Desired: vmmapi.StateStopped}
		}
		return *f.vms[id], nil
	}
	vm := f.vms[id]
	if vm == nil {
		return nil, cvm.Errorf(cvm.NotFound, "no such VM")
	}
	return f.act(w, r, vm, action)
}

// drains does as the VMM: stop_after_seconds becomes a time.
func (f *fakeVMM) drains(w http.ResponseWriter, r *http.Request) (any, error) {
	if r.Method == http.MethodGet {
		return f.drain, nil
	}
	if strings.HasSuffix(r.URL.Path, "/undrain") {
		f.drain = vmmapi.DrainState{}
		return f.drain, nil
	}
	var q vmmapi.DrainRequest
	if err := rpc.Decode(w, r, &q); err != nil {
		return nil, err
	}
	f.drain = vmmapi.DrainState{Draining: true, Reason: q.Reason, Since: time.Now()}
	if q.StopAfterSeconds != nil {
		f.drain.StopAt = f.drain.Since.Add(time.Duration(*q.StopAfterSeconds) * time.Second)
	}
	return f.drain, nil
}

func (f *fakeVMM) act(w http.ResponseWriter, r *http.Request, vm *vmmapi.VM, action string) (any, error) {
	switch r.Method + " " + action {
	case "GET ":
	case "GET events":
		return append([]vmmapi.Event{}, f.events[vm.Spec.ID]...), nil
	case "PUT app":
		err := rpc.Decode(w, r, &vm.Spec.App)
		return *vm, err
	case "PUT resources":
		err := rpc.Decode(w, r, &vm.Spec.Resources)
		return *vm, err
	case "PUT image":
		var c vmmapi.ImageChoice
		err := rpc.Decode(w, r, &c)
		vm.Spec.Image = c.Image
		return *vm, err
	case "POST update":
		return f.update(w, r, vm)
	case "POST start", "POST restart":
		vm.State, vm.Desired, vm.Error = vmmapi.StateStarting, vmmapi.StateRunning, nil
		vm.Boots++
		f.wg.Add(1)
		go f.run(*vm)
	case "POST stop":
		vm.State, vm.Desired = vmmapi.StateStopped, vmmapi.StateStopped
	case "DELETE ":
		delete(f.vms, vm.Spec.ID)
		return struct{}{}, nil
	case "GET guest/containers":
		return json.RawMessage(`{"containers":[{"id":"c1","names":["/web"],"image":"x","image_id":"y","created":1,"state":"running","status":"Up"}],"images":[{"service":"web","image":"x","pinned":false}]}`), nil
	case "GET guest/info":
		return guestapi.AppInfo{TCBInfo: `{"mrtd":"00"}`}, nil
	case "GET guest/evidence":
		if f.evidence == nil {
			return nil, cvm.Errorf(cvm.NotFound, "no route")
		}
		nonce, _ := hex.DecodeString(r.URL.Query().Get("nonce"))
		return f.evidence(nonce)
	case "GET serial":
		switch q := r.URL.Query(); q.Get("channel") {
		case "", "serial":
			return plain("the console\n"), nil
		case "stderr":
			return plain("the hypervisor's words since " + q.Get("since") + " times " + q.Get("timestamps") + "\n"), nil
		default:
			return nil, cvm.Errorf(cvm.Unsupported, "this node has no such channel").WithReason("no-channel")
		}
	case "GET guest/logs/web":
		return plain("hello from web " + r.URL.Query().Get("tail") + "\n"), nil
	default:
		return nil, cvm.Errorf(cvm.NotFound, "no route")
	}
	return *vm, nil
}

// update boots the new version; one that fails is rolled back.
func (f *fakeVMM) update(w http.ResponseWriter, r *http.Request, vm *vmmapi.VM) (any, error) {
	var q vmmapi.UpdateRequest
	if err := rpc.Decode(w, r, &q); err != nil || !f.updates || f.refuse != nil {
		return nil, cmp.Or(err, f.refuse, error(cvm.Errorf(cvm.NotFound, "no route")))
	}
	old := vm.Spec
	if q.App != nil {
		vm.Spec.App = *q.App
	}
	if q.Resources != nil {
		vm.Spec.Resources = *q.Resources
	}
	vm.Spec.Image = cmp.Or(q.Image, vm.Spec.Image)
	vm.State, vm.Boots = vmmapi.StateStarting, vm.Boots+1
	vm.LastUpdate = &vmmapi.Update{Phase: vmmapi.UpdateBooting, RequestedAt: time.Now()}
	f.wg.Add(2)
	go func(now vmmapi.VM) {
		defer f.wg.Done()
		f.run(now)
		f.mu.Lock()
		defer f.mu.Unlock()
		done := *now.LastUpdate
		if vm.LastUpdate, done.Phase = &done, vmmapi.UpdateDone; vm.State == vmmapi.StateFailed {
			done.Phase, done.Error = vmmapi.UpdateRolledBack, vm.Error
			old.Resources.DiskMiB = vm.Spec.Resources.DiskMiB
			vm.Spec, vm.State, vm.Error = old, vmmapi.StateRunning, nil
			vm.Boots++
		}
	}(*vm)
	return *vm, nil
}

func (f *fakeVMM) run(vm vmmapi.VM) {
	defer f.wg.Done()
	var fail *vmmapi.VMError
	f.mu.Lock()
	defer f.mu.Unlock()
	if boot := f.boot; boot != nil {
		f.mu.Unlock()
		fail = boot(vm)
		f.mu.Lock()
	}
	now := f.vms[vm.Spec.ID]
	if now == nil || now.Boots != vm.Boots || now.Desired != vmmapi.StateRunning {
		return
	}
	now.StartedAt = time.Now()
	now.BootProgress = "4/10 requesting keys"
	f.events[vm.Spec.ID] = append(f.events[vm.Spec.ID], vmmapi.Event{Seq: int64(len(f.events[vm.Spec.ID]) + 1), Time: time.Now(), Kind: "boot.progress", Message: now.BootProgress})
	if now.Error = fail; fail != nil {
		now.State = vmmapi.StateFailed
		return
	}
	now.State, now.InstanceID = vmmapi.StateRunning, cvm.InstanceID{1}
}

// fakeKMS signs nothing: who uses the key checks, the API only passes it on.
type fakeKMS struct{}

func (fakeKMS) EnvKey(_ context.Context, app cvm.AppID) (kmsapi.EnvKey, error) {
	return kmsapi.EnvKey{PublicKey: append(make([]byte, 12), app[:]...), Signature: []byte{1}, SignatureV1: []byte{2}, Timestamp: 3}, nil
}

func (fakeKMS) Meta(context.Context) (kmsapi.Meta, error) {
	return kmsapi.Meta{RootSPKI: rootSPKI, K256PubKey: []byte{2}, Simulated: true}, nil
}

// fakeChain allows what a test says; any device, unless strict.
type fakeChain struct {
	mu      sync.Mutex
	allowed map[string]bool // compose hashes
	txs     map[string]string
	strict  bool
	down    bool
}

func (f *fakeChain) allow(hash string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.allowed[hash] = true
}

func (f *fakeChain) State(_ context.Context, _ cvm.AppID, h cvm.ComposeHash, devices ...cvm.DeviceID) (ethereum.AppState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return ethereum.AppState{}, cvm.Errorf(cvm.Unavailable, "no answer")
	}
	return ethereum.AppState{ComposeAllowed: f.allowed[h.String()], AnyDevice: !f.strict, Devices: make([]bool, len(devices))}, nil
}

func (f *fakeChain) ComposeAdded(_ context.Context, tx string, _ cvm.AppID, h cvm.ComposeHash) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.txs[tx] != h.String() {
		return cvm.Errorf(cvm.Precondition, "another transaction").WithReason(ethereum.ReasonTxOther)
	}
	return nil
}

// allowsAll is the chain of API processes that tests kill.
type allowsAll struct{}

func (allowsAll) State(_ context.Context, _ cvm.AppID, _ cvm.ComposeHash, devices ...cvm.DeviceID) (ethereum.AppState, error) {
	return ethereum.AppState{ComposeAllowed: true, AnyDevice: true, Devices: make([]bool, len(devices))}, nil
}

func (allowsAll) ComposeAdded(context.Context, string, cvm.AppID, cvm.ComposeHash) error { return nil }

// world is a cloud API on a directory, with its VMM.
type world struct {
	t    *testing.T
	cfg  api.Config
	vmm  *fakeVMM
	url  string
	key  string
	stop func() // kills the server; start makes a new one on the same state
	c    *cloudapi.Client
	srv  *api.Server
	logs *syncBuffer

	chain *fakeChain
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newWorld(t *testing.T, mod func(*api.Config)) *world {
	t.Helper()
	w := &world{t: t, vmm: newVMM(), logs: &syncBuffer{}, chain: &fakeChain{allowed: map[string]bool{}, txs: map[string]string{}}}
	hs := httptest.NewServer(w.vmm)
	t.Cleanup(hs.Close)
	hs.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	dir := t.TempDir()
	tokenFile := filepath.Join(dir, "token")
	if err := os.WriteFile(tokenFile, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.cfg = api.DefaultConfig()
	w.cfg.Dir, w.cfg.Log, w.cfg.Keys = dir, slog.New(slog.NewTextHandler(w.logs, nil)), fakeKMS{}
	w.cfg.KMS.RootSPKI = rootSPKI
	w.cfg.Nodes = []api.NodeConfig{{URL: hs.URL, TokenFile: tokenFile}}
	w.cfg.Gateway = api.GatewayConfig{Domain: "dev.localhost", Port: 8443}
	w.cfg.Chain = api.ChainConfig{ID: 31337, Name: "anvil", RPCURL: "http://127.0.0.1:8545", Contract: "0x1111111111111111111111111111111111111111"}
	w.cfg.Apps = w.chain
	w.cfg.Poll, w.cfg.Sync = 10*time.Millisecond, 50*time.Millisecond
	if mod != nil {
		mod(&w.cfg)
	}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) start() {
	w.t.Helper()
	s, err := api.New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.srv = s
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	if w.key == "" {
		if w.key, err = s.NewAdminKey(w.t.Context(), "test"); err != nil {
			w.t.Fatal(err)
		}
	}
	w.url = "http://" + l.Addr().String()
	w.c = &cloudapi.Client{Base: w.url + cloudapi.Prefix, Key: w.key}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.t.Errorf("server: %v", err)
			}
		})
	}
}

const composeYAML = "services:\n  web:\n    image: nginx:1.27\n    ports:\n      - \"8080:80\"\n"

func compose(mod map[string]any) map[string]any {
	m := map[string]any{"docker_compose_file": composeYAML}
	for k, v := range mod {
		m[k] = v
	}
	return m
}

func (w *world) app(b byte) string { return cvm.AppID{b, 0xaa}.String() }

// deploy provisions and commits, and waits until the CVM rests.
func (w *world) deploy(name string, b byte, mod map[string]any) (cloudapi.VM, cloudapi.Done) {
	w.t.Helper()
	vm := w.commit(name, b, mod)
	return vm, w.wait(*vm.VMUUID, vm.EventSeq)
}

func (w *world) commit(name string, b byte, mod map[string]any) cloudapi.VM {
	w.t.Helper()
	p, err := w.c.Provision(w.t.Context(), cloudapi.ProvisionRequest{Name: name, InstanceType: "tdx.small", ComposeFile: compose(mod)})
	if err != nil {
		w.t.Fatal(err)
	}
	vm, err := w.c.Commit(w.t.Context(), cloudapi.CommitRequest{AppID: w.app(b), ComposeHash: p.ComposeHash})
	if err != nil {
		w.t.Fatal(err)
	}
	return vm
}

func (w *world) wait(id string, after int64) cloudapi.Done {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	done, err := w.c.Progress(ctx, id, after, nil)
	if err != nil {
		w.t.Fatalf("progress of %s: %v\nlog:\n%s", id, err, w.logs)
	}
	return done
}

// until polls with a deadline.
func (w *world) until(what string, fn func() bool) {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !fn() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("waited 20 s for: %s\nlog:\n%s", what, w.logs)
		}
	}
}

// signer is a wallet and its encrypted environments.
type signer struct {
	key  keys.Secret
	addr string
}

func newSigner(t *testing.T) signer {
	t.Helper()
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	b[0] = 1 // below the curve's order
	s := signer{key: keys.NewSecret(b)}
	pub, err := keys.K256Public(s.key)
	if err != nil {
		t.Fatal(err)
	}
	if s.addr, err = keys.Address(pub); err != nil {
		t.Fatal(err)
	}
	return s
}
