package api_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

func TestDeployAndPower(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	vm, done := w.deploy("my-app", 1, nil)
	if done.Status != cloudapi.StatusRunning || vm.Status != cloudapi.StatusCreating {
		t.Fatalf("commit said %q, deploy ended %+v", vm.Status, done)
	}
	d, err := w.c.CVM(ctx, "my-app")
	if err != nil {
		t.Fatal(err)
	}
	if *d.InstanceID != "0100000000000000000000000000000000000000" || *d.AppID != w.app(1) || !d.Simulated || d.Error != nil {
		t.Errorf("detail: %+v", d.CVMInfo)
	}
	if len(d.Endpoints) != 1 || d.Endpoints[0].App != "https://"+w.app(1)+"-8080.dev.localhost:8443" {
		t.Errorf("endpoints: %+v", d.Endpoints)
	}
	for _, ref := range []string{*vm.VMUUID, strings.ReplaceAll(*vm.VMUUID, "-", ""), d.ID, w.app(1), "0x" + w.app(1), "app_" + w.app(1), "app_" + *d.InstanceID, "instance_" + *d.InstanceID, "1"} {
		if got, err := w.c.CVM(ctx, ref); err != nil || got.Name != "my-app" {
			t.Errorf("by %s: %v", ref, err)
		}
	}
	steps := []struct {
		do   func() (cloudapi.VM, error)
		want string
	}{
		{func() (cloudapi.VM, error) { return w.c.Stop(ctx, "my-app") }, cloudapi.StatusStopped},
		{func() (cloudapi.VM, error) { return w.c.Start(ctx, "my-app") }, cloudapi.StatusRunning},
		{func() (cloudapi.VM, error) { return w.c.Restart(ctx, "my-app") }, cloudapi.StatusRunning},
		{func() (cloudapi.VM, error) { return w.c.Start(ctx, "my-app") }, cloudapi.StatusRunning},
		{func() (cloudapi.VM, error) { return w.c.Shutdown(ctx, "my-app") }, cloudapi.StatusStopped},
	}
	for i, s := range steps {
		v, err := s.do()
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if done := w.wait("my-app", v.EventSeq); done.Status != s.want {
			t.Fatalf("step %d ended %+v, want %s", i, done, s.want)
		}
	}
	// deploy, start, restart; the start of what ran already did nothing.
	if a, b := w.vmm.count("POST start"), w.vmm.count("POST restart"); a != 2 || b != 1 {
		t.Errorf("VMM saw %d starts and %d restarts, want 2 and 1", a, b)
	}
	if err := w.c.Delete(ctx, "my-app", "keep"); err != nil {
		t.Fatal(err)
	}
	if done := w.wait(*vm.VMUUID, 0); done.Status != cloudapi.StatusDeleted {
		t.Fatalf("delete ended %+v", done)
	}
	if w.vmm.count("DELETEvolumes=keep") != 1 {
		t.Errorf("VMM calls: %v", w.vmm.calls)
	}
	if _, err := w.c.CVM(ctx, "my-app"); cvm.CodeOf(err) != cvm.NotFound {
		t.Errorf("after delete: %v", err)
	}
	events, err := w.c.Events(ctx, *vm.VMUUID, 0)
	if err != nil {
		t.Fatal(err)
	}
	var story []string
	for _, e := range events {
		if e.Kind == cloudapi.EventStatus {
			story = append(story, e.Status)
		}
	}
	want := "starting running stopping stopped starting running restarting running starting running stopping stopped deleting deleted"
	if got := strings.Join(story, " "); got != want {
		t.Errorf("statuses\n got %s\nwant %s", got, want)
	}
	// The name is free again.
	if _, done := w.deploy("my-app", 2, nil); done.Status != cloudapi.StatusRunning {
		t.Errorf("second life: %+v", done)
	}
}

func TestProvisionBytes(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	whole := &appcompose.Document{ManifestVersion: 2, Name: "my-app", Runner: "docker-compose", DockerComposeFile: composeYAML, KMSEnabled: true,
		KeyProviderID: rootSPKI, AllowedEnvs: []string{}, GatewayEnabled: true}
	b, err := appcompose.Encode(whole)
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.c.Provision(ctx, cloudapi.ProvisionRequest{Name: "my-app", ComposeFile: json.RawMessage(b)})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	if p.AppCompose != string(b) || p.ComposeHash != hex.EncodeToString(sum[:]) {
		t.Errorf("a whole document came back changed:\n%s\n%s", b, p.AppCompose)
	}
	if p.AppID != nil || p.KMSInfo == nil || *p.KMSInfo.ChainID != 31337 || p.DeviceID == nil || p.OSImageHash == nil {
		t.Errorf("on-chain answer: %+v", p)
	}
	// Without manifest_version: the contract's defaults. Frozen bytes: DO NOT CHANGE.
	const want = `{"allowed_envs":["A"],"docker_compose_file":"services:\n  web:\n    image: nginx:1.27\n    ports:\n      - \"8080:80\"\n","features":["kms","tproxy-net"],"gateway_enabled":true,"future":1.50,"key_provider_id":"` + rootSPKI + `","kms_enabled":true,"local_key_provider_enabled":false,"manifest_version":2,"name":"my-app","no_instance_id":false,"public_logs":false,"public_sysinfo":true,"public_tcbinfo":true,"runner":"docker-compose","secure_time":false,"storage_fs":"ext4","tproxy_enabled":true}`
	req := cloudapi.ProvisionRequest{Name: "my-app", ComposeFile: json.RawMessage(`{"name":"","docker_compose_file":` + quote(composeYAML) + `,"allowed_envs":["A"],"public_logs":false,"pre_launch_script":"","bash_script":null,"future":1.50}`)}
	p, err = w.c.Provision(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Replace(p.AppCompose, `"future":1.50,"gateway_enabled":true`, `"gateway_enabled":true,"future":1.50`, 1); got != want {
		t.Errorf("defaults:\n got %s\nwant %s", got, want)
	}
	q, err := w.c.Provision(ctx, req)
	if err != nil || q.ComposeHash != p.ComposeHash {
		t.Errorf("the same request gave %s, then %s (%v)", p.ComposeHash, q.ComposeHash, err)
	}
	if all, err := w.c.CVMs(ctx); err != nil || len(all) != 0 {
		t.Errorf("provision made %d CVMs, %v", len(all), err)
	}
}

func quote(s string) string { b, _ := json.Marshal(s); return string(b) }

func TestRefusals(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy("taken-name", 1, nil)
	ok := func(mod func(*cloudapi.ProvisionRequest)) any {
		r := cloudapi.ProvisionRequest{Name: "my-app", InstanceType: "tdx.small", ComposeFile: compose(nil)}
		mod(&r)
		return r
	}
	yaml := func(s string) any {
		return ok(func(r *cloudapi.ProvisionRequest) { r.ComposeFile = map[string]any{"docker_compose_file": s} })
	}
	tests := []struct {
		name   string
		body   any
		status int
		text   []string // all in the body
	}{
		{"name too short", ok(func(r *cloudapi.ProvisionRequest) { r.Name = "ab" }), 422, []string{`["body","name"]`, "too short: want 5 to 63 characters, got 2"}},
		{"name starts with a digit", ok(func(r *cloudapi.ProvisionRequest) { r.Name = "1abcd" }), 422, []string{`["body","name"]`, "want a letter"}},
		{"name with underscore", ok(func(r *cloudapi.ProvisionRequest) { r.Name = "a_bcde" }), 422, []string{"want a letter"}},
		{"name with two dashes", ok(func(r *cloudapi.ProvisionRequest) { r.Name = "ab--cd" }), 422, []string{"single dashes"}},
		{"name ends with a dash", ok(func(r *cloudapi.ProvisionRequest) { r.Name = "abcde-" }), 422, []string{"no dash at the end"}},
		{"name too long", ok(func(r *cloudapi.ProvisionRequest) { r.Name = strings.Repeat("a", 64) }), 422, []string{"got 64"}},
		{"name taken", ok(func(r *cloudapi.ProvisionRequest) { r.Name = "taken-name" }), 409, []string{"ERR-01-004"}},
		{"disk below minimum", ok(func(r *cloudapi.ProvisionRequest) { r.DiskSize = 19 }), 422, []string{`["body","disk_size"]`, "19 GB is outside 20..2048", "use at least 20 GB"}},
		{"several problems at once", ok(func(r *cloudapi.ProvisionRequest) { r.Name, r.DiskSize = "ab", 1 }), 422, []string{`"name"`, `"disk_size"`}},
		{"unknown instance type", ok(func(r *cloudapi.ProvisionRequest) { r.InstanceType = "tdx.huge" }), 422, []string{"ERR-02-001", "tdx.huge", "choose one of tdx.small"}},
		{"too many vcpu", ok(func(r *cloudapi.ProvisionRequest) { r.InstanceType, r.VCPU, r.Memory = "", 64, 2048 }), 409, []string{"ERR-02-003", "64 needed", `"message":"has 7 vCPU free, 64 needed"`}},
		{"unknown image", ok(func(r *cloudapi.ProvisionRequest) { r.Image = "nope" }), 404, []string{"ERR-02-010", "it has: phala-1.0.0"}},
		{"unknown node", ok(func(r *cloudapi.ProvisionRequest) { r.NodeID = 9 }), 404, []string{"ERR-01-001"}},
		{"unknown kms", ok(func(r *cloudapi.ProvisionRequest) { r.KMSID = "other" }), 404, []string{"ERR-02-011"}},
		{"no compose", ok(func(r *cloudapi.ProvisionRequest) { r.ComposeFile = nil }), 422, []string{"compose_file"}},
		{"empty compose", yaml(" "), 422, []string{"ERR-01-002"}},
		{"broken yaml", yaml("services:\n  web:\n    image: [x\n"), 422, []string{"ERR-01-003", "line"}},
		{"no services", yaml("volumes: {}\n"), 422, []string{"ERR-01-003", "services"}},
		{"port 70000", yaml("services:\n  web:\n    image: x\n    ports: [\"70000:80\"]\n"), 422, []string{"ERR-01-003", "70000", "line"}},
		{"compose too large", yaml(composeYAML + "# " + strings.Repeat("x", 200<<10)), 422, []string{"limit is 204800"}},
		{"another KMS", ok(func(r *cloudapi.ProvisionRequest) {
			r.ComposeFile = compose(map[string]any{"key_provider_id": "abcd"})
		}), 422, []string{"key_provider_id", "another KMS"}},
		{"bad env name", ok(func(r *cloudapi.ProvisionRequest) {
			r.ComposeFile = compose(map[string]any{"allowed_envs": []string{"A-B"}})
		}), 422, []string{"allowed_envs"}},
		{"name missing", map[string]any{"compose_file": compose(nil)}, 422, []string{"name"}},
		{"wrong type", map[string]any{"name": 5, "compose_file": compose(nil)}, 422, []string{`["body","name"]`}},
		{"not JSON", json.RawMessage(`7`), 422, []string{`"detail"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, body := w.raw("POST", "/cvms/provision", tt.body, nil)
			if status != tt.status {
				t.Errorf("status %d, want %d: %s", status, tt.status, body)
			}
			for _, s := range tt.text {
				if !strings.Contains(body, s) {
					t.Errorf("%q is not in %s", s, body)
				}
			}
			if err := cloudapi.ParseError(status, []byte(body)); cvm.CodeOf(err) == cvm.Internal || err.Error() == "" {
				t.Errorf("client reads %v", err)
			}
		})
	}
}

// raw calls with the world's key and returns status and body.
func (w *world) raw(method, path string, body any, header map[string]string) (int, string) {
	w.t.Helper()
	var rd io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		rd = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+cloudapi.Prefix+path, rd)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("X-API-Key", w.key)
	r.Header.Set("Content-Type", "application/json") // as the JS clients do, always
	for k, v := range header {
		r.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestCommitRefusals(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	_, err := w.c.Commit(ctx, cloudapi.CommitRequest{AppID: w.app(1), ComposeHash: strings.Repeat("0", 64)})
	if cvm.ReasonOf(err) != "compose-hash-unknown" {
		t.Errorf("unknown hash: %v", err)
	}
	p, err := w.c.Provision(ctx, cloudapi.ProvisionRequest{Name: "my-app", ComposeFile: compose(nil)})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, text string
		mod        func(*cloudapi.CommitRequest)
	}{
		{"bad app id", "app_id: app id: want 40 hex digits", func(r *cloudapi.CommitRequest) { r.AppID = "12" }},
		{"env not hex", "encrypted_env", func(r *cloudapi.CommitRequest) { r.EncryptedEnv = "zz" }},
		{"env too short", "at least 60 bytes", func(r *cloudapi.CommitRequest) { r.EncryptedEnv = strings.Repeat("00", 59) }},
		{"env over the limit", "the limit is", func(r *cloudapi.CommitRequest) { r.EncryptedEnv = strings.Repeat("00", 1<<20+256<<10+1) }},
		{"signature nobody checks", "names no env_signers", func(r *cloudapi.CommitRequest) {
			r.EncryptedEnv = strings.Repeat("00", 60)
			r.EnvSignature = &cloudapi.EnvSignature{Counter: 1, Signer: "0x" + w.app(1), Signature: strings.Repeat("00", 65)}
		}},
	}
	for _, tt := range tests {
		r := cloudapi.CommitRequest{AppID: w.app(1), ComposeHash: p.ComposeHash}
		tt.mod(&r)
		if _, err := w.c.Commit(ctx, r); err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if all, err := w.c.CVMs(ctx); err != nil || len(all) != 0 {
		t.Fatalf("refused commits left %d CVMs, %v", len(all), err)
	}
	// The same commit twice is one CVM.
	r := cloudapi.CommitRequest{AppID: w.app(1), ComposeHash: p.ComposeHash}
	a, err := w.c.Commit(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := w.c.Commit(ctx, r)
	if err != nil || a.ID != b.ID {
		t.Errorf("second commit: %d and %d, %v", a.ID, b.ID, err)
	}
	r.AppID = w.app(2)
	if _, err := w.c.Commit(ctx, r); cvm.CodeOf(err) != cvm.Conflict {
		t.Errorf("same name under another app: %v", err)
	}
	w.wait("my-app", 0)
}

// sealed makes an environment with its signature, as the CLI does.
func (s signer) sealed(t *testing.T, app string, counter uint64) (string, *cloudapi.EnvSignature) {
	t.Helper()
	blob := bytes.Repeat([]byte{byte(counter), 0x55}, 40)
	id, err := cvm.ParseAppID(app)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := keys.SignEnv(s.key, id, counter, sha256.Sum256(blob))
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(blob), &cloudapi.EnvSignature{Counter: counter, Signer: s.addr, Signature: hex.EncodeToString(sig)}
}

func TestSignedEnvironment(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	me, other := newSigner(t), newSigner(t)
	p, err := w.c.Provision(ctx, cloudapi.ProvisionRequest{Name: "my-app", ComposeFile: compose(map[string]any{"env_signers": []string{me.addr}, "allowed_envs": []string{"A"}})})
	if err != nil {
		t.Fatal(err)
	}
	blob, sig := me.sealed(t, w.app(1), 5)
	commit := func(blob string, sig *cloudapi.EnvSignature) (cloudapi.VM, error) {
		return w.c.Commit(ctx, cloudapi.CommitRequest{AppID: w.app(1), ComposeHash: p.ComposeHash, EncryptedEnv: blob, EnvSignature: sig})
	}
	_, foreign := other.sealed(t, w.app(1), 5)
	_, app2 := me.sealed(t, w.app(2), 5)
	lying := *foreign
	lying.Signer = me.addr
	for name, c := range map[string]struct {
		sig  *cloudapi.EnvSignature
		text string
	}{
		"unsigned": {nil, "must be signed"}, "another signer": {foreign, "not among"}, "another app's": {app2, "the signature is not"}, "lying about the signer": {&lying, "the signature is not"},
	} {
		if _, err := commit(blob, c.sig); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := commit(blob, sig); err != nil {
		t.Fatal(err)
	}
	w.wait("my-app", 0)
	w.vmm.mu.Lock()
	for _, v := range w.vmm.vms {
		if hex.EncodeToString(v.Spec.App.EncryptedEnv) != blob || v.Spec.App.EnvSignature == nil || v.Spec.App.EnvSignature.Counter != 5 {
			t.Errorf("VMM got %+v", v.Spec.App)
		}
	}
	w.vmm.mu.Unlock()
	old, oldSig := me.sealed(t, w.app(1), 5)
	if _, err := w.c.UpdateEnvs(ctx, "my-app", cloudapi.EnvsUpdate{EncryptedEnv: old, EnvSignature: oldSig}); err == nil || !strings.Contains(err.Error(), "counter 5 does not grow") {
		t.Errorf("rolled back counter: %v", err)
	}
	next, nextSig := me.sealed(t, w.app(1), 6)
	a, err := w.c.UpdateEnvs(ctx, "my-app", cloudapi.EnvsUpdate{EncryptedEnv: next, EnvSignature: nextSig, EnvKeys: []string{"A"}})
	if err != nil || a.AllowedEnvsChanged || a.CorrelationID == "" {
		t.Fatalf("update: %+v, %v", a, err)
	}
	if done := w.wait("my-app", a.EventSeq); done.Status != cloudapi.StatusRunning {
		t.Fatalf("update ended %+v", done)
	}
	d, err := w.c.CVM(ctx, "my-app")
	if err != nil || d.EnvCounter != 6 || !d.EnvSigned || *d.ComposeHash != p.ComposeHash {
		t.Errorf("after update: %+v, %v", d.CVMInfo, err)
	}
	if n := w.vmm.count("POST restart"); n != 1 {
		t.Errorf("%d restarts for one update", n)
	}
	// Another set of names is another app-compose, which the chain must know first.
	again, againSig := me.sealed(t, w.app(1), 7)
	status, body := w.raw("PATCH", "/cvms/my-app/envs", cloudapi.EnvsUpdate{EncryptedEnv: again, EnvSignature: againSig, EnvKeys: []string{"A", "B"}}, nil)
	if status != 465 || !strings.Contains(body, "ERR-01-005") || !strings.Contains(body, `"field":"compose_hash"`) {
		t.Fatalf("changed names: %d %s", status, body)
	}
	var e struct{ Detail cloudapi.ErrorDetail }
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatal(err)
	}
	hash, _ := e.Detail.Details[0].Value.(string)
	w.chain.allow(hash)
	a, err = w.c.UpdateEnvs(ctx, "my-app", cloudapi.EnvsUpdate{EncryptedEnv: again, EnvSignature: againSig, EnvKeys: []string{"A", "B"}, ComposeHash: hash})
	if err != nil {
		t.Fatal(err)
	}
	w.wait("my-app", a.EventSeq)
	if d, err = w.c.CVM(ctx, "my-app"); err != nil || *d.ComposeHash != hash || d.EnvCounter != 7 {
		t.Errorf("after the second update: %+v, %v", d.CVMInfo, err)
	}
}

func TestComposeUpdate(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	vm, _ := w.deploy("my-app", 1, nil)
	next := strings.Replace(composeYAML, "1.27", "1.28", 1)
	p, err := w.c.ProvisionCompose(ctx, "my-app", map[string]any{"docker_compose_file": next})
	if err != nil || !p.Changed || !strings.Contains(p.AppCompose, "1.28") || !strings.Contains(p.AppCompose, rootSPKI) {
		t.Fatalf("provision: %+v, %v", p, err)
	}
	d, err := w.c.CVM(ctx, "my-app")
	if err != nil || *d.ComposeHash == p.ComposeHash {
		t.Fatalf("provision changed the CVM: %v", err)
	}
	if _, err := w.c.UpdateCompose(ctx, "my-app", cloudapi.ComposeUpdate{ComposeHash: strings.Repeat("1", 64)}); cvm.ReasonOf(err) != "compose-hash-unknown" {
		t.Errorf("unprepared hash: %v", err)
	}
	if _, err := w.c.UpdateCompose(ctx, "my-app", cloudapi.ComposeUpdate{ComposeHash: p.ComposeHash}); cvm.ReasonOf(err) != "needs-on-chain" || w.vmm.count("PUT app") != 0 {
		t.Errorf("a hash that the chain does not allow: %v", err)
	}
	w.chain.allow(p.ComposeHash)
	a, err := w.c.UpdateCompose(ctx, "my-app", cloudapi.ComposeUpdate{ComposeHash: p.ComposeHash})
	if err != nil {
		t.Fatal(err)
	}
	if done := w.wait("my-app", a.EventSeq); done.Status != cloudapi.StatusRunning {
		t.Fatalf("update ended %+v", done)
	}
	if d, err = w.c.CVM(ctx, "my-app"); err != nil || *d.ComposeHash != p.ComposeHash || *d.VMUUID != *vm.VMUUID {
		t.Errorf("after update: %+v, %v", d.CVMInfo, err)
	}
	w.vmm.mu.Lock()
	if v := w.vmm.vms[*vm.VMUUID]; string(v.Spec.App.AppCompose) != p.AppCompose {
		t.Error("the VMM has other bytes than were provisioned")
	}
	w.vmm.mu.Unlock()
	r, err := w.c.Revisions(ctx, w.app(1))
	if err != nil || r.Total != 2 || r.Revisions[0].ComposeHash != p.ComposeHash {
		t.Errorf("revisions: %+v, %v", r, err)
	}
}

func TestBootErrorIsShown(t *testing.T) {
	w := newWorld(t, nil)
	w.vmm.setBoot(func(vmmapi.VM) *vmmapi.VMError {
		return &vmmapi.VMError{Reason: "governance-denied", Message: "compose hash not allowed", Stage: "4 keys", Fix: "register it"}
	})
	vm, done := w.deploy("my-app", 1, nil)
	if done.Status != cloudapi.StatusFailed || done.Error == nil || done.Error.Reason != "governance-denied" || done.Error.Stage != "4 keys" || done.Error.Fix != "register it" {
		t.Fatalf("done: %+v", done)
	}
	d, err := w.c.CVM(t.Context(), *vm.VMUUID)
	if err != nil || d.Status != cloudapi.StatusFailed || d.Error == nil || d.Error.Message != "compose hash not allowed" {
		t.Errorf("detail: %+v, %v", d.Error, err)
	}
	// Starting it again clears the error.
	w.vmm.setBoot(nil)
	v, err := w.c.Start(t.Context(), "my-app")
	if err != nil {
		t.Fatal(err)
	}
	if done := w.wait("my-app", v.EventSeq); done.Status != cloudapi.StatusRunning || done.Error != nil {
		t.Errorf("second start: %+v", done)
	}
}

func TestAuth(t *testing.T) {
	w := newWorld(t, nil)
	for name, c := range map[string]struct {
		header map[string]string
		status int
	}{
		"good key":        {nil, 200},
		"bearer":          {map[string]string{"X-API-Key": "", "Authorization": "Bearer " + w.key}, 200},
		"no key":          {map[string]string{"X-API-Key": ""}, 401},
		"wrong key":       {map[string]string{"X-API-Key": "phak_" + strings.Repeat("A", 43)}, 401},
		"other workspace": {map[string]string{"X-Workspace-Id": "other"}, 403},
	} {
		status, body := w.raw("GET", "/auth/me", nil, c.header)
		if status != c.status || status != 200 && !strings.Contains(body, `{"detail":"`) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	_, v1 := w.raw("GET", "/auth/me", nil, map[string]string{"X-Phala-Version": cloudapi.VersionLegacy})
	if !strings.Contains(v1, `"team_name":"default"`) {
		t.Errorf("legacy shape: %s", v1)
	}
	if me, err := w.c.Me(t.Context()); err != nil || me.Workspace.Slug == nil || *me.Workspace.Slug != "default" || me.User.Role != "admin" {
		t.Errorf("me: %+v, %v", me, err)
	}
	db, err := os.ReadFile(w.cfg.Database().Path)
	if err != nil {
		t.Fatal(err)
	}
	wal, _ := os.ReadFile(w.cfg.Database().Path + "-wal")
	for what, secret := range map[string]string{"API key": w.key, "VMM token": token} {
		if bytes.Contains(append(db, wal...), []byte(secret)) || strings.Contains(w.logs.String(), secret) {
			t.Errorf("the %s is in the database or the log", what)
		}
	}
}

func TestMissingAndForeignLookTheSame(t *testing.T) {
	w := newWorld(t, nil)
	vm, _ := w.deploy("my-app", 1, nil)
	mine := w.key
	w.key = w.srv.KeyOfNewWorkspace(t, "stranger")
	paths := []struct{ method, path string }{
		{"GET", ""}, {"DELETE", ""}, {"POST", "/start"}, {"POST", "/stop"}, {"POST", "/shutdown"}, {"POST", "/restart"}, {"GET", "/state"}, {"GET", "/stats"},
		{"GET", "/network"}, {"GET", "/composition"}, {"GET", "/containers"}, {"GET", "/attestation"}, {"GET", "/logs"}, {"GET", "/serial-logs"}, {"GET", "/events"},
		{"GET", "/progress"}, {"GET", "/compose_file"}, {"POST", "/compose_file/provision"}, {"PATCH", "/compose_file"}, {"PATCH", "/envs"},
	}
	for _, p := range paths {
		var body any
		if p.method == "PATCH" || strings.HasSuffix(p.path, "provision") {
			body = map[string]any{"compose_hash": "00", "encrypted_env": "00"}
		}
		for _, id := range []string{"my-app", *vm.VMUUID, w.app(1), "1"} {
			s1, b1 := w.raw(p.method, "/cvms/"+id+p.path, body, nil)
			s2, b2 := w.raw(p.method, "/cvms/no-such-cvm"+p.path, body, nil)
			if s1 != 404 || s1 != s2 || b1 != b2 || !strings.Contains(b1, "ERR-03-001") {
				t.Errorf("%s %s of %s: foreign %d %s, missing %d %s", p.method, p.path, id, s1, b1, s2, b2)
			}
		}
	}
	if s, b := w.raw("GET", "/apps/"+w.app(1), nil, nil); s != 404 || !strings.Contains(b, "App not found") {
		t.Errorf("foreign app: %d %s", s, b)
	}
	if _, b := w.raw("GET", "/cvms", nil, nil); strings.TrimSpace(b) != "[]" {
		t.Errorf("foreign list: %s", b)
	}
	if _, b := w.raw("POST", "/status/batch", map[string]any{"vm_uuids": []string{*vm.VMUUID}}, nil); strings.TrimSpace(b) != "{}" {
		t.Errorf("foreign batch: %s", b)
	}
	p, err := (&cloudapi.Client{Base: w.c.Base, Key: w.key}).Provision(t.Context(), cloudapi.ProvisionRequest{Name: "my-app", ComposeFile: compose(nil)})
	if err != nil {
		t.Fatalf("the same name in another workspace: %v", err)
	}
	if s, b := w.raw("POST", "/cvms", cloudapi.CommitRequest{AppID: w.app(1), ComposeHash: p.ComposeHash}, nil); s != 409 || !strings.Contains(b, "ERR-03-007") {
		t.Errorf("somebody else's app id: %d %s", s, b)
	}
	w.key = mine
	if s, b := w.raw("GET", "/cvms/my-app", nil, nil); s != 200 {
		t.Errorf("the owner sees %d %s", s, b)
	}
}

func TestGuestReads(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	w.deploy("my-app", 1, nil)
	w.deploy("private-app", 2, map[string]any{"public_logs": false, "name": "private-app"})
	comp, err := w.c.Containers(ctx, "my-app")
	if err != nil || !comp.IsOnline || len(comp.Containers) != 1 || *comp.Containers[0].LogEndpoint != "https://"+w.app(1)+"-8090.dev.localhost:8443/logs/web" {
		t.Fatalf("composition: %+v, %v", comp, err)
	}
	if len(comp.Images) != 1 || comp.Images[0] != (cloudapi.ImageUse{Service: "web", Image: "x"}) {
		t.Errorf("images: %+v", comp.Images)
	}
	body, err := w.c.Logs(ctx, "my-app", "", url.Values{"tail": {"7"}})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(body)
	_ = body.Close()
	if string(b) != "hello from web 7\n" {
		t.Errorf("logs: %q", b)
	}
	body, err = w.c.SerialLogs(ctx, "my-app", url.Values{"ch": {"stderr"}, "since": {"5"}})
	if err != nil {
		t.Fatal(err)
	}
	b, _ = io.ReadAll(body)
	_ = body.Close()
	if !strings.HasPrefix(string(b), "the hypervisor's words since 5 ") {
		t.Errorf("the hypervisor's: %q", b)
	}
	if _, err := w.c.Logs(ctx, "private-app", "", nil); cvm.CodeOf(err) != cvm.Denied {
		t.Errorf("private logs: %v", err)
	}
	v, err := w.c.Stop(ctx, "my-app")
	if err != nil {
		t.Fatal(err)
	}
	w.wait("my-app", v.EventSeq)
	if a, err := w.c.Attestation(ctx, "my-app", ""); err != nil || a.IsOnline || a.Error == nil {
		t.Errorf("attestation of a stopped CVM: %+v, %v", a, err)
	}
	k, err := w.c.EnvKey(ctx, "kms", "0x"+w.app(1))
	if err != nil || len(k.PublicKey) != 64 || k.Timestamp != 3 {
		t.Errorf("env key: %+v, %v", k, err)
	}
	if _, strict := w.raw("GET", "/kms/base/pubkey/"+w.app(1), nil, nil); strings.Contains(strict, "timestamp") || strings.Contains(strict, "v1") {
		t.Errorf("strict clients refuse %s", strict)
	}
	n, err := w.c.Nodes(ctx)
	if err != nil || len(n.Nodes) != 1 || !n.Nodes[0].Online || n.Nodes[0].RemainingVCPU != 7 {
		t.Errorf("nodes: %+v, %v", n, err)
	}
	if l, err := w.c.OSImages(ctx); err != nil || l.Total != 1 || l.Items[0].Name != "phala-1.0.0" {
		t.Errorf("images: %+v, %v", l, err)
	}
	if it, err := w.c.InstanceTypes(ctx); err != nil || it.Result[0].Items[0].ID != "tdx.small" {
		t.Errorf("instance types: %+v, %v", it, err)
	}
	if o, err := w.c.OnChain(ctx, "anvil"); err != nil || o.ChainID != 31337 || o.Contracts[0].ContractAddress == "" {
		t.Errorf("on chain: %+v, %v", o, err)
	}
	if a, err := w.c.Apps(ctx); err != nil || a.Total != 2 {
		t.Errorf("apps: %+v, %v", a, err)
	}
	for _, page := range []string{"/cvms/paginated?page=0", "/cvms/paginated?page_size=101", "/cvms/my-app/state?target=running&interval=3", "/cvms/my-app/state?target=running&timeout=9"} {
		if s, b := w.raw("GET", page, nil, nil); s != 422 || !strings.Contains(b, `"loc":["query",`) {
			t.Errorf("%s: %d %s", page, s, b)
		}
	}
	if s, b := w.raw("GET", "/cvms/private-app/state?target=running", nil, nil); s != 200 || !strings.Contains(b, "event: complete\n") || !strings.Contains(b, "event: state\n") {
		t.Errorf("state stream: %d %s", s, b)
	}
	for _, version := range []string{cloudapi.VersionLegacy, cloudapi.VersionCurrent} {
		for _, p := range []string{"/cvms", "/cvms/paginated", "/cvms/my-app", "/apps/" + w.app(1) + "/cvms"} {
			s, b := w.raw("GET", p, nil, map[string]string{"X-Phala-Version": version})
			if legacy := strings.Contains(b, `"gateway_domain"`); s != 200 || legacy != (version == cloudapi.VersionLegacy) {
				t.Errorf("%s @%s: %d %s", p, version, s, b)
			}
		}
	}
}

func TestTrustProfile(t *testing.T) {
	path := t.TempDir() + "/trust.toml"
	w := newWorld(t, func(c *api.Config) { c.TrustProfile = path })
	if _, err := w.c.TrustProfile(t.Context()); cvm.CodeOf(err) != cvm.NotFound {
		t.Errorf("before it exists: %v", err)
	}
	if err := os.WriteFile(path, []byte("chain_id = 31337\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := (&cloudapi.Client{Base: w.c.Base}).TrustProfile(t.Context()); err != nil || string(b) != "chain_id = 31337\n" {
		t.Errorf("%s, %v", b, err)
	}
}

var update = flag.Bool("update", false, "write api/openapi.yaml anew")

func TestOpenAPIIsGolden(t *testing.T) {
	w := newWorld(t, nil)
	res, err := http.Get(w.url + cloudapi.Prefix + "/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%d %v", res.StatusCode, err)
	}
	if *update {
		if err := os.WriteFile("openapi.yaml", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("openapi.yaml")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the API changed its shape: look at the difference, then go test ./api -run OpenAPI -update (%v)", err)
	}
}
