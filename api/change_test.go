package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

func offChain(c *api.Config) { c.Chain, c.Apps = api.ChainConfig{}, nil }

// call sends a request, checks its status, and decodes the answer.
func call[T any](w *world, status int, method, path string, body any, header map[string]string) (out T) {
	w.t.Helper()
	got, text := w.raw(method, path, body, header)
	if got != status {
		w.t.Fatalf("%s %s: %d %s, want %d", method, path, got, text, status)
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil && text != "" {
		w.t.Fatalf("%s %s: %v in %s", method, path, err, text)
	}
	return out
}

// refused checks the status of an error and that its body has the documented shape.
func refused(w *world, status int, word, method, path string, body any, header map[string]string) {
	w.t.Helper()
	got, text := w.raw(method, path, body, header)
	if got != status || !strings.Contains(text, word) || !strings.Contains(text, `"detail":`) {
		w.t.Errorf("%s %s %v: %d %s, want %d with %q", method, path, body, got, text, status, word)
	}
}

// text sends a body as it is.
func (w *world) text(method, path, body string, header map[string]string) (int, string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+cloudapi.Prefix+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("X-API-Key", w.key)
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

type facts map[string]any

// prepared reads the details of a 465.
func prepared(w *world, method, path string, body any, header map[string]string) facts {
	w.t.Helper()
	e := call[struct{ Detail cloudapi.ErrorDetail }](w, 465, method, path, body, header)
	if e.Detail.ErrorCode != "ERR-01-005" {
		w.t.Fatalf("465 with %+v", e)
	}
	out := facts{}
	for _, d := range e.Detail.Details {
		out[d.Field] = d.Value
	}
	for _, f := range []string{"compose_hash", "app_id", "device_id", "kms_info", "commit_token", "commit_url", "api_commit_url"} {
		if out[f] == nil || out[f] == "" {
			w.t.Errorf("465 without %s", f)
		}
	}
	return out
}

func (f facts) text(k string) string { s, _ := f[k].(string); return s }

func (w *world) vmOf(uuid string) vmmapi.VM {
	w.vmm.mu.Lock()
	defer w.vmm.mu.Unlock()
	return *w.vmm.vms[uuid]
}

// moreImages gives the node newer images, and waits until the API knows.
func (w *world) moreImages(id string) {
	w.t.Helper()
	w.vmm.mu.Lock()
	w.vmm.images = []vmmapi.Image{{Name: "phala-1.1.0", Hash: cvm.ImageHash{8}, Version: "1.1.0"}, {Name: "phala-dev-1.1.0", Hash: cvm.ImageHash{7}, Version: "1.1.0", IsDev: true}}
	w.vmm.mu.Unlock()
	w.until("the images are known", func() bool {
		return len(call[[]cloudapi.AvailableImage](w, 200, "GET", "/cvms/"+id+"/available-os-images", nil, nil)) == 2
	})
}

func yaml(tag string) string { return strings.Replace(composeYAML, "1.27", tag, 1) }

func TestPatchOffChain(t *testing.T) {
	w := newWorld(t, offChain)
	p, err := w.c.Provision(t.Context(), cloudapi.ProvisionRequest{Name: "my-app", InstanceType: "tdx.small", DiskSize: 40, ComposeFile: compose(nil)})
	if err != nil {
		t.Fatal(err)
	}
	vm, err := w.c.Commit(t.Context(), cloudapi.CommitRequest{AppID: *p.AppID, ComposeHash: p.ComposeHash})
	if err != nil {
		t.Fatal(err)
	}
	w.wait("my-app", vm.EventSeq)
	w.moreImages("my-app")
	a := call[cloudapi.Accepted](w, 202, "PATCH", "/cvms/my-app", map[string]any{
		"docker_compose_file": yaml("1.28"), "pre_launch_script": "echo hi", "allowed_envs": []string{"A"}, "public_logs": false, "public_tcbinfo": nil,
		"vcpu": 2, "memory": 4096, "disk_size": 50, "image": "phala-1.1.0", "user_config": `{"hostname":"h"}`, "encrypted_env": strings.Repeat("ab", 64),
		"shutdown_timeout": 60, "allow_force_stop": true, "gpus": map[string]any{"gpus": []any{}},
	}, nil)
	if done := w.wait("my-app", a.EventSeq); done.Status != cloudapi.StatusRunning || a.CorrelationID == "" {
		t.Fatalf("%+v %+v", a, done)
	}
	got := w.vmOf(*vm.VMUUID).Spec
	if got.Resources != (vmmapi.Resources{VCPU: 2, MemoryMiB: 4096, DiskMiB: 50 << 10}) || got.Image != "phala-1.1.0" || string(got.App.UserConfig) != `{"hostname":"h"}` ||
		len(got.App.EncryptedEnv) != 64 || !strings.Contains(string(got.App.AppCompose), `"allowed_envs":["A"]`) {
		t.Errorf("the VM has %+v", got)
	}
	if n := w.vmm.count("POST restart"); n != 1 {
		t.Errorf("%d restarts for one update", n)
	}
	for path, want := range map[string]string{"docker-compose.yml": yaml("1.28"), "pre-launch-script": "echo hi"} {
		if status, text := w.raw("GET", "/cvms/my-app/"+path, nil, nil); status != 200 || text != want {
			t.Errorf("%s: %d %q", path, status, text)
		}
	}
	if u := call[cloudapi.UserConfig](w, 200, "GET", "/cvms/my-app/user_config", nil, nil); u.Hostname == nil || *u.Hostname != "h" || u.SSHAuthorizedKeys == nil {
		t.Errorf("user config %+v", u)
	}
	// The same again changes nothing but restarts; removing the script removes the key.
	before := call[cloudapi.CVMDetail](w, 200, "GET", "/cvms/my-app", nil, nil)
	a = call[cloudapi.Accepted](w, 202, "PATCH", "/cvms/my-app", map[string]any{"docker_compose_file": yaml("1.28")}, nil)
	w.wait("my-app", a.EventSeq)
	if d := call[cloudapi.CVMDetail](w, 200, "GET", "/cvms/my-app", nil, nil); *d.ComposeHash != *before.ComposeHash {
		t.Error("the same text made another hash")
	}
	a = call[cloudapi.Accepted](w, 202, "PATCH", "/cvms/my-app", map[string]any{"pre_launch_script": ""}, nil)
	w.wait("my-app", a.EventSeq)
	if s := string(w.vmOf(*vm.VMUUID).Spec.App.AppCompose); strings.Contains(s, "pre_launch_script") {
		t.Errorf("an empty script stayed in %s", s)
	}
}

func TestPatchRefusals(t *testing.T) {
	w := newWorld(t, offChain)
	vm := w.offChainApp("my-app", nil)
	before := w.vmOf(*vm.VMUUID)
	for _, x := range []struct {
		status     int
		word, path string
		body       any
	}{
		{422, "nothing to change", "", map[string]any{}},
		{422, "nothing to change", "", map[string]any{"vcpu": nil}},
		{422, "vcpu", "", map[string]any{"vcpu": 0}},
		{422, "memory", "", map[string]any{"memory": 1}},
		{422, "disk_size", "", map[string]any{"disk_size": 3000}},
		{422, "does not shrink", "", map[string]any{"disk_size": 20}},
		{422, "ERR-02-001", "", map[string]any{"instance_type": "tdx.huge"}},
		{409, "ERR-02-014", "", map[string]any{"vcpu": 64}},
		{400, "ERR-02-010", "", map[string]any{"image": "other"}},
		{422, "gpus", "", map[string]any{"gpus": map[string]any{"gpus": []any{map[string]any{"slot": "1"}}}}},
		{422, "shutdown_timeout", "", map[string]any{"vcpu": 1, "shutdown_timeout": 5}},
		{422, "ERR-01-002", "", map[string]any{"docker_compose_file": ""}},
		{422, "", "", map[string]any{"docker_compose_file": "services: ["}},
		{422, "encrypted_env", "", map[string]any{"encrypted_env": "zz"}},
		{422, "env_signers", "", map[string]any{"encrypted_env": strings.Repeat("ab", 64), "env_signature": cloudapi.EnvSignature{Counter: 1, Signer: "0x" + strings.Repeat("1", 40), Signature: strings.Repeat("1", 130)}}},
		{422, "no size", "/resources", map[string]any{"allow_restart": 1}},
		{422, "allow_restart", "/resources", map[string]any{"vcpu": 2, "allow_restart": "perhaps"}},
		{422, "needs-restart", "/resources", map[string]any{"vcpu": 2, "allow_restart": 0}},
		{422, "needs-restart", "/resources", map[string]any{"vcpu": 2, "allow_restart": false}},
		{400, "ERR-02-010", "/os-image", map[string]any{"os_image_name": "x"}},
		{422, "", "/os-image", map[string]any{}},
		{422, "name", "/name", map[string]any{"name": "a"}},
		{422, "past", "/scheduled-delete", map[string]any{"scheduled_delete_at": "2001-01-01T00:00:00Z"}},
		{422, "no time", "/scheduled-delete", map[string]any{"scheduled_delete_at": "soon"}},
		{422, "nothing to change", "/visibility", map[string]any{}},
	} {
		refused(w, x.status, x.word, "PATCH", "/cvms/my-app"+x.path, x.body, nil)
	}
	refused(w, 422, "not-on-chain", "PATCH", "/cvms/my-app", map[string]any{"public_logs": false}, map[string]string{"X-Prepare-Only": "true"})
	refused(w, 400, "compose-hash-mismatch", "POST", "/cvms/my-app/compose_file", map[string]any{"compose_file": compose(nil), "compose_hash": strings.Repeat("1", 64)}, nil)
	refused(w, 404, "not-on-chain", "POST", "/cvms/my-app/is-allowed", map[string]any{}, nil)
	if now := w.vmOf(*vm.VMUUID); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("a refused request changed the VM: %+v", now)
	}
	if d := call[cloudapi.CVMDetail](w, 200, "GET", "/cvms/my-app", nil, nil); d.Generation != 1 {
		t.Errorf("a refused request began an operation: generation %d", d.Generation)
	}
}

func (w *world) offChainApp(name string, mod map[string]any) cloudapi.VM {
	w.t.Helper()
	p, err := w.c.Provision(w.t.Context(), cloudapi.ProvisionRequest{Name: name, InstanceType: "tdx.small", DiskSize: 40, ComposeFile: compose(mod)})
	if err != nil {
		w.t.Fatal(err)
	}
	vm, err := w.c.Commit(w.t.Context(), cloudapi.CommitRequest{AppID: *p.AppID, ComposeHash: p.ComposeHash})
	if err != nil {
		w.t.Fatal(err)
	}
	if done := w.wait(name, vm.EventSeq); done.Status != cloudapi.StatusRunning {
		w.t.Fatalf("deploy ended %+v", done)
	}
	return vm
}

// Everything that changes a CVM says the same of a missing one and of somebody else's.
func TestChangesOfOthersAreMissing(t *testing.T) {
	w := newWorld(t, nil)
	vm, _ := w.deploy("my-app", 1, nil)
	mine := w.key
	w.key = w.srv.KeyOfNewWorkspace(t, "stranger")
	for _, x := range []struct {
		method, path string
		body         any
	}{
		{"PATCH", "", map[string]any{"public_logs": false}}, {"PATCH", "/resources", map[string]any{"vcpu": 1}}, {"PATCH", "/visibility", map[string]any{"public_logs": true}},
		{"PATCH", "/os-image", map[string]any{"os_image_name": "x"}}, {"PATCH", "/name", map[string]any{"name": "other"}}, {"PATCH", "/listed", map[string]any{"listed": true}},
		{"PATCH", "/scheduled-delete", map[string]any{"scheduled_delete_at": nil}}, {"PATCH", "/instance-id", map[string]any{}}, {"PATCH", "/docker-compose", "x"},
		{"PATCH", "/pre-launch-script", "x"}, {"POST", "/compose_file", map[string]any{"compose_file": compose(nil), "compose_hash": "x"}}, {"GET", "/operations", nil},
		{"GET", "/operation-status", nil}, {"POST", "/operations/cancel", nil}, {"POST", "/replicas", map[string]any{}}, {"POST", "/revisions/1/redeploy", nil},
		{"POST", "/is-allowed", map[string]any{}}, {"GET", "/user_config", nil}, {"GET", "/available-os-images", nil}, {"GET", "/docker-compose.yml", nil}, {"GET", "/pre-launch-script", nil},
	} {
		s1, other := w.raw(x.method, "/cvms/"+*vm.VMUUID+x.path, x.body, nil)
		s2, none := w.raw(x.method, "/cvms/0b7d5f86-6c55-4b6a-9d0a-7a8f54c6d001"+x.path, x.body, nil)
		if s1 != 404 || s1 != s2 || other != none {
			t.Errorf("%s %s: somebody else's %d %s, none %d %s", x.method, x.path, s1, other, s2, none)
		}
	}
	for _, p := range []string{"/instances", "/is-allowed", "/cvms/is-allowed", "/revisions/1/redeploy", "/cvms/" + *vm.VMUUID + "/replicas"} {
		s1, other := w.raw("POST", "/apps/"+w.app(1)+p, map[string]any{}, nil)
		s2, none := w.raw("POST", "/apps/"+w.app(9)+p, map[string]any{}, nil)
		if s1 != 404 || s1 != s2 || other != none {
			t.Errorf("app%s: %d %s, none %d %s", p, s1, other, s2, none)
		}
	}
	b := call[cloudapi.BatchStopped](w, 200, "POST", "/cvms/batch-stop", map[string]any{"cvm_ids": []string{*vm.VMUUID}}, nil)
	if b.Stopped != 0 || len(b.Errors) != 1 || b.Errors[0].Error != "CVM not found" {
		t.Errorf("batch stop of somebody else's: %+v", b)
	}
	w.key = mine
	if d := call[cloudapi.CVMDetail](w, 200, "GET", "/cvms/my-app", nil, nil); d.Generation != 1 {
		t.Errorf("a stranger began an operation: generation %d", d.Generation)
	}
}

func TestResize(t *testing.T) {
	w := newWorld(t, offChain)
	vm := w.offChainApp("my-app", nil)
	w.moreImages("my-app")
	a := call[cloudapi.Accepted](w, 202, "PATCH", "/cvms/app_"+vm.AppID+"/resources", map[string]any{"instance_type": "tdx.medium", "allow_restart": 1, "id": "x"}, nil)
	if done := w.wait("my-app", a.EventSeq); done.Status != cloudapi.StatusRunning {
		t.Fatal(done)
	}
	if r := w.vmOf(*vm.VMUUID); r.Spec.Resources.VCPU != 2 || r.Boots != 2 {
		t.Errorf("after resizing: %+v", r)
	}
	v, err := w.c.Stop(t.Context(), "my-app")
	if err != nil {
		t.Fatal(err)
	}
	w.wait("my-app", v.EventSeq)
	a = call[cloudapi.Accepted](w, 202, "PATCH", "/cvms/my-app/resources", map[string]any{"disk_size": 60, "allow_restart": false}, nil)
	if done := w.wait("my-app", a.EventSeq); done.Status != cloudapi.StatusStopped {
		t.Errorf("a stopped CVM was %s by resizing", done.Status)
	}
	if r := w.vmOf(*vm.VMUUID); r.Spec.Resources.DiskMiB != 60<<10 || r.Boots != 2 {
		t.Errorf("after resizing a stopped one: %+v", r)
	}
	a = call[cloudapi.Accepted](w, 202, "PATCH", "/cvms/my-app/os-image", map[string]any{"os_image_name": "phala-1.1.0"}, nil)
	w.wait("my-app", a.EventSeq)
	if r := w.vmOf(*vm.VMUUID); r.Spec.Image != "phala-1.1.0" || r.Boots != 2 {
		t.Errorf("after the image: %+v", r)
	}
	images := call[[]cloudapi.AvailableImage](w, 200, "GET", "/cvms/my-app/available-os-images", nil, nil)
	if len(images) != 2 || images[0].Version[1] != 1 || !images[0].Prod.IsCurrent || images[0].Dev == nil || images[0].Dev.IsCurrent || images[1].Dev != nil {
		t.Errorf("available images: %+v", images)
	}
}

func TestSettings(t *testing.T) {
	w := newWorld(t, offChain)
	vm := w.offChainApp("my-app", nil)
	w.offChainApp("other-app", map[string]any{"allowed_envs": []string{"X"}})
	if status, text := w.raw("PATCH", "/cvms/my-app/name", map[string]any{"name": "new-name"}, nil); status != 204 || text != "" {
		t.Errorf("rename: %d %s", status, text)
	}
	refused(w, 409, "ERR-01-004", "PATCH", "/cvms/new-name/name", map[string]any{"name": "other-app"}, nil)
	if v := call[cloudapi.VM](w, 200, "PATCH", "/cvms/new-name/listed", map[string]any{"listed": true}, nil); v.Name != "new-name" {
		t.Errorf("listed: %+v", v)
	}
	legacy := map[string]string{"X-Phala-Version": "2025-10-28"}
	if d := call[map[string]any](w, 200, "GET", "/cvms/new-name", nil, legacy); d["listed"] != true || d["scheduled_delete_at"] != nil {
		t.Errorf("detail: %v", d)
	}
	// Visibility answers in the older shape, and is in the measured app-compose.
	d := call[map[string]any](w, 200, "PATCH", "/cvms/new-name/visibility", map[string]any{"public_logs": false, "public_sysinfo": true}, nil)
	if d["public_logs"] != false || d["public_sysinfo"] != true || d["base_image"] == nil && d["vm_uuid"] != *vm.VMUUID || d["in_progress"] != true {
		t.Errorf("visibility: %v", d)
	}
	w.until("the visibility update ends", func() bool {
		return !call[cloudapi.OperationStatus](w, 200, "GET", "/cvms/new-name/operation-status", nil, nil).InProgress
	})
	r := call[cloudapi.InstanceIDResult](w, 200, "PATCH", "/cvms/new-name/instance-id", map[string]any{}, nil)
	if r.Status != "unchanged" || r.Source != "teepod_state" || r.NewInstanceID == nil {
		t.Errorf("instance id: %+v", r)
	}
	all := call[cloudapi.InstanceIDsResult](w, 200, "PATCH", "/cvms/instance-ids", map[string]any{"missing_only": false, "limit": 1}, nil)
	if all.Total != 2 || all.Scanned != 1 || all.Unchanged != 1 {
		t.Errorf("instance ids: %+v", all)
	}
	refused(w, 422, "limit", "PATCH", "/cvms/instance-ids", map[string]any{"limit": 501}, nil)
}

func TestScheduledDelete(t *testing.T) {
	w := newWorld(t, offChain)
	vm := w.offChainApp("my-app", nil)
	when := time.Now().Add(time.Hour)
	call[cloudapi.VM](w, 200, "PATCH", "/cvms/my-app/scheduled-delete", map[string]any{"scheduled_delete_at": when.Format(time.RFC3339)}, nil)
	d := call[map[string]any](w, 200, "GET", "/cvms/my-app", nil, map[string]string{"X-Phala-Version": "2025-10-28"})
	if at, _ := d["scheduled_delete_at"].(string); !strings.HasPrefix(at, when.UTC().Format("2006-01-02T15:04:05")) {
		t.Errorf("scheduled for %v", d["scheduled_delete_at"])
	}
	call[cloudapi.VM](w, 200, "PATCH", "/cvms/my-app/scheduled-delete", map[string]any{"scheduled_delete_at": nil}, nil)
	soon := time.Now().Add(300 * time.Millisecond).UTC().Format("2006-01-02T15:04:05.000") // no zone: UTC
	call[cloudapi.VM](w, 200, "PATCH", "/cvms/my-app/scheduled-delete", map[string]any{"scheduled_delete_at": soon}, nil)
	if done := w.wait(*vm.VMUUID, w.lastSeq(*vm.VMUUID)); done.Status != cloudapi.StatusRunning {
		t.Errorf("before its time: %+v", done)
	}
	w.until("the CVM is deleted", func() bool {
		status, _ := w.raw("GET", "/cvms/my-app", nil, nil)
		return status == http.StatusNotFound
	})
	if n := w.vmm.count("DELETE"); n != 1 {
		t.Errorf("%d deletions", n)
	}
}

func (w *world) lastSeq(id string) (seq int64) {
	events, err := w.c.Events(w.t.Context(), id, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range events {
		seq = e.Seq
	}
	return seq
}

func TestOperations(t *testing.T) {
	w := newWorld(t, offChain)
	w.offChainApp("my-app", nil)
	v, err := w.c.Restart(t.Context(), "my-app")
	if err != nil {
		t.Fatal(err)
	}
	w.wait("my-app", v.EventSeq)
	all := call[cloudapi.Operations](w, 200, "GET", "/cvms/my-app/operations", nil, nil)
	if all.Total != 2 || len(all.Items) != 2 || all.NextCursor != nil || all.Items[0].OperationType != "restart" || all.Items[0].Status != "completed" ||
		all.Items[0].TriggeredBy == 0 || all.Items[0].CompletedAt == nil || len(all.Items[0].Events) == 0 || all.Items[0].ComposeHash == nil {
		t.Errorf("operations: %+v", all)
	}
	page := call[cloudapi.Operations](w, 200, "GET", "/cvms/my-app/operations?limit=1", nil, nil)
	if len(page.Items) != 1 || page.NextCursor == nil {
		t.Fatalf("first page: %+v", page)
	}
	page = call[cloudapi.Operations](w, 200, "GET", "/cvms/my-app/operations?limit=1&cursor="+*page.NextCursor, nil, nil)
	if len(page.Items) != 1 || page.Items[0].OperationType != "deploy" || page.NextCursor != nil {
		t.Errorf("second page: %+v", page)
	}
	if only := call[cloudapi.Operations](w, 200, "GET", "/cvms/my-app/operations?operation_types=deploy&operation_types=stop", nil, nil); only.Total != 1 {
		t.Errorf("by type: %+v", only)
	}
	for _, q := range []string{"cursor=x", "cursor=-1", "start_time=x", "limit=0", "limit=501"} {
		refused(w, 422, "query", "GET", "/cvms/my-app/operations?"+q, nil, nil)
	}
}

func TestCancelAndBatchStop(t *testing.T) {
	w := newWorld(t, offChain)
	vm := w.offChainApp("my-app", nil)
	if c := call[cloudapi.Cancelled](w, 200, "POST", "/cvms/my-app/operations/cancel", nil, nil); c.Cancelled {
		t.Errorf("nothing to cancel: %+v", c)
	}
	hold := make(chan struct{})
	w.vmm.setBoot(func(vmmapi.VM) *vmmapi.VMError { <-hold; return nil })
	if _, err := w.c.Restart(t.Context(), "my-app"); err != nil {
		t.Fatal(err)
	}
	refused(w, 409, "busy", "PATCH", "/cvms/my-app/resources", map[string]any{"vcpu": 2}, nil)
	st := call[cloudapi.OperationStatus](w, 200, "GET", "/cvms/my-app/operation-status", nil, nil)
	c := call[cloudapi.Cancelled](w, 200, "POST", "/cvms/my-app/operations/cancel", nil, nil)
	if !c.Cancelled || c.CorrelationID == nil || *c.CorrelationID != *st.CorrelationID {
		t.Errorf("cancelled %+v, was %+v", c, st)
	}
	close(hold)
	w.until("the status follows the VM", func() bool {
		return call[cloudapi.CVMDetail](w, 200, "GET", "/cvms/my-app", nil, nil).Status == cloudapi.StatusRunning
	})
	if o := call[cloudapi.Operations](w, 200, "GET", "/cvms/my-app/operations", nil, nil); o.Items[0].Status != "cancelled" {
		t.Errorf("the cancelled operation: %+v", o.Items[0])
	}
	b := call[cloudapi.BatchStopped](w, 200, "POST", "/cvms/batch-stop", map[string]any{"cvm_ids": []string{"my-app", "nobody"}}, nil)
	if b.Total != 2 || b.Stopped != 1 || len(b.Errors) != 1 {
		t.Errorf("batch stop: %+v", b)
	}
	w.until("it stopped", func() bool { return w.vmOf(*vm.VMUUID).State == vmmapi.StateStopped })
	w.until("the CVM rests", func() bool {
		return call[cloudapi.CVMDetail](w, 200, "GET", "/cvms/my-app", nil, nil).Status == cloudapi.StatusStopped
	})
	if b = call[cloudapi.BatchStopped](w, 200, "POST", "/cvms/batch-stop", map[string]any{"cvm_ids": []string{"my-app"}}, nil); b.Skipped != 1 {
		t.Errorf("batch stop again: %+v", b)
	}
	refused(w, 422, "cvm_ids", "POST", "/cvms/batch-stop", map[string]any{"cvm_ids": make([]string, 51)}, nil)
}
