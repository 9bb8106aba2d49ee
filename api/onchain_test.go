package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/devcloud/chain"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/internal/wallet"
)

// anonymous sends a request without a key.
func (w *world) anonymous(method, path string, body any) (int, string) {
	w.t.Helper()
	key := w.key
	w.key = ""
	defer func() { w.key = key }()
	return w.raw(method, path, body, nil)
}

func TestTwoPhases(t *testing.T) {
	w := newWorld(t, nil)
	vm, _ := w.deploy("my-app", 1, nil)
	gen := func() int { return call[cloudapi.CVMDetail](w, 200, "GET", "/cvms/my-app", nil, nil).Generation }
	first := prepared(w, "PATCH", "/cvms/my-app", map[string]any{"docker_compose_file": yaml("1.28")}, nil)
	if st, _ := first["onchain_status"].(map[string]any); st == nil || st["is_allowed"] != false || st["device_id_allowed"] != true {
		t.Errorf("onchain_status %v", first["onchain_status"])
	}
	if u := first.text("api_commit_url"); !strings.HasPrefix(u, w.url) || !strings.Contains(u, first.text("commit_token")) {
		t.Errorf("api_commit_url %s", u)
	}
	if gen() != 1 {
		t.Fatal("preparing began an operation")
	}
	confirm := func(hash, tx string) map[string]string {
		return map[string]string{"X-Compose-Hash": hash, "X-Transaction-Hash": tx}
	}
	hash := first.text("compose_hash")
	// Not allowed, wrong proof, unknown hash: refused, and nothing begins.
	refused(w, 468, "ERR-01-008", "PATCH", "/cvms/my-app", map[string]any{}, confirm(hash, "already-registered"))
	refused(w, 467, "ERR-01-007", "PATCH", "/cvms/my-app", map[string]any{}, confirm(hash, "0x"+strings.Repeat("1", 64)))
	refused(w, 466, "ERR-01-006", "PATCH", "/cvms/my-app", map[string]any{}, confirm(strings.Repeat("2", 64), "already-registered"))
	refused(w, 466, "ERR-01-006", "PATCH", "/cvms/my-app", map[string]any{"docker_compose_file": yaml("1.29")}, confirm(hash, "already-registered"))
	w.chain.allow(hash)
	w.chain.mu.Lock()
	w.chain.strict = true
	w.chain.mu.Unlock()
	refused(w, 468, "device-not-allowed", "PATCH", "/cvms/my-app", map[string]any{}, confirm(hash, ""))
	w.chain.mu.Lock()
	w.chain.strict, w.chain.down = false, true
	w.chain.mu.Unlock()
	refused(w, 503, "detail", "PATCH", "/cvms/my-app", map[string]any{}, confirm(hash, ""))
	if p := prepared(w, "PATCH", "/cvms/my-app", map[string]any{"docker_compose_file": yaml("1.28")}, nil); p["onchain_status"] != nil {
		t.Error("a status of a chain that cannot be read")
	}
	w.chain.mu.Lock()
	w.chain.down = false
	w.chain.txs["0xabc"] = hash
	w.chain.mu.Unlock()
	if gen() != 1 {
		t.Fatal("a refused commit began an operation")
	}
	a := call[cloudapi.Accepted](w, 202, "PATCH", "/cvms/my-app", map[string]any{}, confirm("0x"+strings.ToUpper(hash), "0xabc"))
	w.wait("my-app", a.EventSeq)
	if again := call[cloudapi.Accepted](w, 202, "PATCH", "/cvms/my-app", map[string]any{}, confirm(hash, "0xabc")); again.CorrelationID != a.CorrelationID || gen() != 2 {
		t.Errorf("committing twice: %+v, generation %d", again, gen())
	}
	if !strings.Contains(string(w.vmOf(*vm.VMUUID).Spec.App.AppCompose), "1.28") {
		t.Error("the VM runs the old app-compose")
	}
	// What the chain allows already needs no second phase; sizes never do.
	a = call[cloudapi.Accepted](w, 202, "PATCH", "/cvms/my-app", map[string]any{"docker_compose_file": yaml("1.28"), "vcpu": 2}, nil)
	w.wait("my-app", a.EventSeq)
}

func TestCommitTokens(t *testing.T) {
	w := newWorld(t, nil)
	vm, _ := w.deploy("my-app", 1, nil)
	w.deploy("other-app", 2, nil)
	only := map[string]string{"X-Prepare-Only": "true"}
	old := prepared(w, "PATCH", "/cvms/my-app", map[string]any{"docker_compose_file": yaml("1.28")}, only)
	now := prepared(w, "PATCH", "/cvms/my-app", map[string]any{"docker_compose_file": yaml("1.29")}, only)
	w.chain.allow(old.text("compose_hash"))
	w.chain.allow(now.text("compose_hash"))
	commit := "/cvms/" + *vm.VMUUID + "/commit-update"
	body := func(token, hash, tx string) map[string]any {
		return map[string]any{"token": token, "compose_hash": hash, "transaction_hash": tx}
	}
	for name, x := range map[string]struct {
		path string
		body any
		word string
	}{
		"superseded":    {commit, body(old.text("commit_token"), "", ""), "superseded"},
		"no token":      {commit, body("", "", ""), "not valid"},
		"unknown token": {commit, body("0b7d5f86-6c55-4b6a-9d0a-7a8f54c6d001", "", ""), "not valid"},
		"another CVM":   {"/cvms/other-app/commit-update", body(now.text("commit_token"), "", ""), "not valid"},
		"another hash":  {commit, body(now.text("commit_token"), old.text("compose_hash"), ""), "another compose hash"},
		"a replica":     {"/cvms/" + *vm.VMUUID + "/commit-replica", body(now.text("commit_token"), "", ""), "not valid"},
	} {
		if status, text := w.anonymous("POST", x.path, x.body); status != 466 || !strings.Contains(text, x.word) || !strings.Contains(text, "ERR-01-006") {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	status, text := w.anonymous("GET", commit+"?token="+now.text("commit_token"), nil)
	if status != 200 || !strings.Contains(text, `"status":"waiting"`) || !strings.Contains(text, `"is_allowed":true`) {
		t.Errorf("what the token commits: %d %s", status, text)
	}
	if status, _ := w.anonymous("GET", commit+"?token=x", nil); status != 466 {
		t.Errorf("an unknown token shows %d", status)
	}
	status, text = w.anonymous("POST", commit+"?token="+now.text("commit_token"), body("", "", "already-registered"))
	var a cloudapi.Accepted
	if err := json.Unmarshal([]byte(text), &a); err != nil || status != 202 || a.CorrelationID == "" || a.Status == "" {
		t.Fatalf("commit: %d %s", status, text)
	}
	w.wait("my-app", a.EventSeq)
	if !strings.Contains(string(w.vmOf(*vm.VMUUID).Spec.App.AppCompose), "1.29") {
		t.Error("the VM runs the old app-compose")
	}
	if o := call[cloudapi.Operations](w, 200, "GET", "/cvms/my-app/operations", nil, nil); o.Items[0].TriggeredByUsername == nil || *o.Items[0].TriggeredByUsername != "admin" {
		t.Errorf("who did it: %+v", o.Items[0])
	}
	if strings.Contains(w.logs.String(), now.text("commit_token")) {
		t.Error("a commit token is in the log")
	}
	// An update that went another way in between makes a prepared one stale.
	stale := prepared(w, "PATCH", "/cvms/my-app", map[string]any{"pre_launch_script": "echo"}, only)
	w.chain.allow(stale.text("compose_hash"))
	a = call[cloudapi.Accepted](w, 202, "PATCH", "/cvms/my-app", map[string]any{"docker_compose_file": yaml("1.28")}, nil)
	w.wait("my-app", a.EventSeq)
	if status, text := w.anonymous("POST", commit, body(stale.text("commit_token"), "", "")); status != 466 || !strings.Contains(text, "superseded") {
		t.Errorf("a stale change: %d %s", status, text)
	}
}

func TestTextUpdates(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy("my-app", 1, nil)
	send := func(path, kind, body string, header map[string]string) (int, string) {
		h := map[string]string{"Content-Type": kind}
		for k, v := range header {
			h[k] = v
		}
		return w.text("PATCH", path, body, h)
	}
	hashOf := func(text string) string {
		var e struct{ Detail cloudapi.ErrorDetail }
		if err := json.Unmarshal([]byte(text), &e); err != nil || len(e.Detail.Details) == 0 {
			t.Fatalf("%v in %s", err, text)
		}
		return fmt.Sprint(e.Detail.Details[0].Value)
	}
	for _, x := range []struct{ path, kind, body string }{
		{"/cvms/my-app/docker-compose", "text/yaml", yaml("1.28")},
		{"/cvms/my-app/pre-launch-script", "text/plain", "echo hi"},
		{"/cvms/my-app/docker-compose", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n" + yaml("1.29") + "\r\n--b--\r\n"},
	} {
		status, text := send(x.path, x.kind, x.body, nil)
		if status != 465 {
			t.Fatalf("%s: %d %s", x.path, status, text)
		}
		hash := hashOf(text)
		w.chain.allow(hash)
		status, text = send(x.path, x.kind, x.body, map[string]string{"X-Compose-Hash": hash, "X-Transaction-Hash": "already-registered"})
		var a cloudapi.Accepted
		if err := json.Unmarshal([]byte(text), &a); err != nil || status != 202 || a.Status != "in_progress" {
			t.Fatalf("%s: %d %s", x.path, status, text)
		}
		w.wait("my-app", a.EventSeq)
	}
	if status, text := w.raw("GET", "/cvms/my-app/docker-compose.yml", nil, nil); status != 200 || strings.TrimSpace(text) != strings.TrimSpace(yaml("1.29")) {
		t.Errorf("%d %q", status, text)
	}
	for body, want := range map[string]int{"services: [": 422, "\xff\xfe": 422, "": 400} {
		if status, text := send("/cvms/my-app/docker-compose", "text/yaml", body, nil); status != want {
			t.Errorf("%q: %d %s", body, status, text)
		}
	}
	if status, _ := send("/cvms/my-app/docker-compose", "multipart/form-data; boundary=b", "--b--", nil); status != 422 {
		t.Errorf("a form without a file: %d", status)
	}
}

func TestReplicas(t *testing.T) {
	w := newWorld(t, nil)
	vm, _ := w.deploy("my-app", 1, nil)
	path := "/cvms/" + *vm.VMUUID + "/replicas"
	one := prepared(w, "POST", path, nil, nil)
	w.chain.allow(one.text("compose_hash"))
	status, text := w.anonymous("POST", "/cvms/"+*vm.VMUUID+"/commit-replica", map[string]any{"token": one.text("commit_token"), "compose_hash": "", "transaction_hash": ""})
	var r cloudapi.VM
	if err := json.Unmarshal([]byte(text), &r); err != nil || status != 200 || r.AppID != vm.AppID || *r.VMUUID == *vm.VMUUID || r.Name != "my-app-2" {
		t.Fatalf("commit: %d %s", status, text)
	}
	w.wait(*r.VMUUID, r.EventSeq)
	if _, again := w.anonymous("POST", "/cvms/"+*vm.VMUUID+"/commit-replica", map[string]any{"token": one.text("commit_token")}); !strings.Contains(again, *r.VMUUID) {
		t.Errorf("committing twice: %s", again)
	}
	// Now that the chain allows it, a replica is made at once.
	v := call[cloudapi.VM](w, 200, "POST", path, map[string]any{"node_id": 1}, nil)
	w.wait(*v.VMUUID, v.EventSeq)
	if v.Name != "my-app-3" || string(w.vmOf(*v.VMUUID).Spec.App.AppCompose) != string(w.vmOf(*vm.VMUUID).Spec.App.AppCompose) {
		t.Errorf("replica %+v", v)
	}
	v = call[cloudapi.VM](w, 200, "POST", "/apps/"+vm.AppID+"/cvms/"+*vm.VMUUID+"/replicas", nil, nil)
	w.wait(*v.VMUUID, v.EventSeq)
	refused(w, 404, "ERR-03-008", "POST", path, map[string]any{"compose_hash": strings.Repeat("1", 64)}, nil)
	refused(w, 404, "node", "POST", path, map[string]any{"node_id": 77}, nil)
	refused(w, 422, "encrypted_env", "POST", path, map[string]any{"encrypted_env": "zz"}, nil)
	refused(w, 409, "ERR-03-010", "PATCH", "/cvms/app_"+vm.AppID, map[string]any{"vcpu": 1}, nil)
	// An instance with another app-compose; its 465 carries the chain.
	in := "/apps/" + vm.AppID + "/instances"
	p := prepared(w, "POST", in, map[string]any{"docker_compose_file": yaml("1.28")}, nil)
	if k, _ := p["kms_info"].(map[string]any); k["chain"] == nil {
		t.Errorf("kms_info without chain: %v", k)
	}
	refused(w, 468, "ERR-01-008", "POST", in, map[string]any{"token": p.text("commit_token"), "transaction_hash": "already-registered"}, nil)
	w.chain.allow(p.text("compose_hash"))
	v = call[cloudapi.VM](w, 200, "POST", in, map[string]any{"token": p.text("commit_token"), "compose_hash": p.text("compose_hash"), "transaction_hash": "already-registered"}, nil)
	w.wait(*v.VMUUID, v.EventSeq)
	if !strings.Contains(string(w.vmOf(*v.VMUUID).Spec.App.AppCompose), "1.28") {
		t.Error("the instance runs the source's app-compose")
	}
	refused(w, 400, "ERR-03-009", "POST", path, nil, nil)
	refused(w, 466, "ERR-01-006", "POST", in, map[string]any{"token": "x"}, nil)
	// Redeploy: the other revision on the first CVM.
	revs, err := w.c.Revisions(t.Context(), vm.AppID)
	if err != nil {
		t.Fatal(err)
	}
	a := call[cloudapi.Accepted](w, 202, "POST", "/cvms/"+*vm.VMUUID+"/revisions/"+revs.Revisions[0].RevisionID+"/redeploy", nil, nil)
	w.wait(*vm.VMUUID, a.EventSeq)
	if !strings.Contains(string(w.vmOf(*vm.VMUUID).Spec.App.AppCompose), "1.28") {
		t.Error("redeploy did not change the app-compose")
	}
	refused(w, 404, "revision-not-found", "POST", "/cvms/"+*vm.VMUUID+"/revisions/999/redeploy", nil, nil)
	refused(w, 400, "several-cvms", "POST", "/apps/"+vm.AppID+"/revisions/"+revs.Revisions[0].RevisionID+"/redeploy", nil, nil)
}

func TestIdempotencyKeys(t *testing.T) {
	w := newWorld(t, nil)
	vm, _ := w.deploy("my-app", 1, nil)
	key := func(k string) map[string]string { return map[string]string{"Idempotency-Key": k} }
	patch := map[string]any{"docker_compose_file": yaml("1.28")}
	one := prepared(w, "PATCH", "/cvms/my-app", patch, key("a"))
	two := prepared(w, "PATCH", "/cvms/my-app", patch, key("a"))
	if one.text("commit_token") != two.text("commit_token") {
		t.Error("the same key prepared twice")
	}
	if three := prepared(w, "PATCH", "/cvms/my-app", patch, key("b")); three.text("commit_token") == one.text("commit_token") {
		t.Error("another key got the same answer")
	}
	refused(w, 409, "idempotency-key-reused", "PATCH", "/cvms/my-app", map[string]any{"vcpu": 2}, key("a"))
	refused(w, 422, "Idempotency-Key", "PATCH", "/cvms/my-app", map[string]any{"vcpu": 2}, key(strings.Repeat("x", 256)))
	v := call[cloudapi.VM](w, 200, "POST", "/cvms/my-app/restart", map[string]any{"force": false}, key("r"))
	w.wait("my-app", v.EventSeq)
	if again := call[cloudapi.VM](w, 200, "POST", "/cvms/my-app/restart", map[string]any{"force": false}, key("r")); again.Generation != v.Generation {
		t.Errorf("restarted twice: generations %d, %d", v.Generation, again.Generation)
	}
	if b := w.vmOf(*vm.VMUUID).Boots; b != 2 {
		t.Errorf("%d boots", b)
	}
	// A key is the caller's own.
	w.key = w.srv.KeyOfNewWorkspace(t, "stranger")
	refused(w, 404, "CVM not found", "PATCH", "/cvms/my-app", patch, key("a"))
}

// The whole way with a real chain: its owner registers the hash, and whoever has the
// token commits with the transaction as proof.
func TestTwoPhasesOnAChain(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a chain")
	}
	ctx := t.Context()
	c, err := chain.New(chain.Config{Dir: filepath.Join(t.TempDir(), "chain"), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	run, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(run) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	me, err := wallet.OpenDev(filepath.Join(t.TempDir(), "owner.json"))
	if err != nil {
		t.Fatal(err)
	}
	contracts, err := c.DeployContracts(ctx, me, nil)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := ethereum.NewOwner(ctx, ethereum.OwnerConfig{RPCURL: c.Endpoint(), ChainID: c.ChainID(), KMSContract: contracts.KMS.Hex(), Poll: 50 * time.Millisecond}, me)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(cfg *api.Config) {
		cfg.Apps, cfg.Chain = nil, api.ChainConfig{ID: c.ChainID(), Name: "dev", RPCURL: c.Endpoint(), Contract: contracts.KMS.Hex()}
	})
	p, err := w.c.Provision(ctx, cloudapi.ProvisionRequest{Name: "my-app", InstanceType: "tdx.small", ComposeFile: compose(nil)})
	if err != nil {
		t.Fatal(err)
	}
	h, _ := cvm.ParseComposeHash(p.ComposeHash)
	device, _ := cvm.ParseDeviceID(*p.DeviceID)
	app, err := owner.DeployApp(ctx, ethereum.AppParams{Device: device, ComposeHash: h}, nil)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := w.c.Commit(ctx, cloudapi.CommitRequest{AppID: app.String(), ComposeHash: p.ComposeHash})
	if err != nil {
		t.Fatal(err)
	}
	w.wait("my-app", vm.EventSeq)
	ok := call[cloudapi.Allowed](w, 200, "POST", "/cvms/my-app/is-allowed", map[string]any{}, nil)
	if !ok.IsAllowed || ok.AllowAnyDevice || ok.DeviceIDAllowed == nil || !*ok.DeviceIDAllowed {
		t.Errorf("is-allowed: %+v", ok)
	}
	if l := call[cloudapi.DeviceAllowlist](w, 200, "GET", "/apps/"+vm.AppID+"/device-allowlist", nil, nil); !l.IsOnchainKMS || len(l.Devices) != 1 || l.Devices[0].Status != "allowed" {
		t.Errorf("device allowlist: %+v", l)
	}
	if all := call[cloudapi.AllowedAll](w, 200, "POST", "/apps/"+vm.AppID+"/cvms/is-allowed", map[string]any{}, nil); all.AllowedCount != 1 || all.Total != 1 {
		t.Errorf("all: %+v", all)
	}
	next := prepared(w, "PATCH", "/cvms/my-app", map[string]any{"docker_compose_file": yaml("1.28")}, map[string]string{"X-Prepare-Only": "true"})
	nextHash, _ := cvm.ParseComposeHash(next.text("compose_hash"))
	if no := call[cloudapi.Allowed](w, 200, "POST", "/apps/"+vm.AppID+"/is-allowed", map[string]any{"compose_hash": nextHash.String(), "node_id": vm.TeepodID}, nil); no.IsAllowed || no.ComposeHashAllowed {
		t.Errorf("before it was registered: %+v", no)
	}
	var tx, other string
	note := func(into *string) func(ethereum.Progress) {
		return func(p ethereum.Progress) {
			if p.TxHash != "" {
				*into = p.TxHash
			}
		}
	}
	commit := "/cvms/" + *vm.VMUUID + "/commit-update"
	body := map[string]any{"token": next.text("commit_token"), "transaction_hash": "already-registered"}
	if status, text := w.anonymous("POST", commit, body); status != 468 {
		t.Errorf("not registered: %d %s", status, text)
	}
	if err := owner.Apply(ctx, note(&other), ethereum.AllowCompose(app, cvm.ComposeHash{9})); err != nil {
		t.Fatal(err)
	}
	if err := owner.Apply(ctx, note(&tx), ethereum.AllowCompose(app, nextHash)); err != nil {
		t.Fatal(err)
	}
	body["transaction_hash"] = other
	if status, text := w.anonymous("POST", commit, body); status != 467 {
		t.Errorf("another transaction: %d %s", status, text)
	}
	body["transaction_hash"] = tx
	status, text := w.anonymous("POST", commit, body)
	var a cloudapi.Accepted
	if err := json.Unmarshal([]byte(text), &a); err != nil || status != 202 {
		t.Fatalf("commit: %d %s", status, text)
	}
	w.wait("my-app", a.EventSeq)
	if d := call[cloudapi.CVMDetail](w, 200, "GET", "/cvms/my-app", nil, nil); *d.ComposeHash != nextHash.String() {
		t.Errorf("runs %s", *d.ComposeHash)
	}
}
