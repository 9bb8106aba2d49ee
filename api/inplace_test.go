package api_test

import (
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// inPlace is a world whose node updates VMs, with one CVM that runs.
func inPlace(t *testing.T) (*world, string) {
	w := newWorld(t, offChain)
	w.vmm.updates = true
	p, err := w.c.Provision(t.Context(), cloudapi.ProvisionRequest{Name: "my-app", InstanceType: "tdx.small", DiskSize: 40, ComposeFile: compose(nil)})
	if err != nil {
		t.Fatal(err)
	}
	vm, err := w.c.Commit(t.Context(), cloudapi.CommitRequest{AppID: *p.AppID, ComposeHash: p.ComposeHash})
	if err != nil {
		t.Fatal(err)
	}
	w.wait("my-app", vm.EventSeq)
	return w, *vm.VMUUID
}

func (w *world) patch(body map[string]any) (cloudapi.Accepted, cloudapi.Done) {
	w.t.Helper()
	a := call[cloudapi.Accepted](w, 202, "PATCH", "/cvms/my-app", body, nil)
	return a, w.wait("my-app", a.EventSeq)
}

func TestUpdateInPlace(t *testing.T) {
	w, id := inPlace(t)
	_, done := w.patch(map[string]any{"docker_compose_file": yaml("1.28"), "vcpu": 2, "memory": 4096})
	if done.Status != cloudapi.StatusRunning || done.Error != nil {
		t.Fatalf("%+v", done)
	}
	v := w.vmOf(id)
	if !strings.Contains(string(v.Spec.App.AppCompose), "1.28") || v.Spec.Resources.VCPU != 2 {
		t.Errorf("the VM has %+v", v.Spec)
	}
	if w.vmm.count("PUT app")+w.vmm.count("POST restart") != 0 || w.vmm.count("POST update") != 1 {
		t.Errorf("calls %v", w.vmm.calls)
	}
	if err := w.stopped(); err != nil {
		t.Fatal(err)
	}
	// One that does not run is changed as before, and started.
	if _, done = w.patch(map[string]any{"docker_compose_file": yaml("1.29")}); done.Status != cloudapi.StatusRunning || w.vmm.count("POST update") != 1 {
		t.Errorf("%+v %v", done, w.vmm.calls)
	}
}

func (w *world) stopped() error {
	v, err := w.c.Stop(w.t.Context(), "my-app")
	if err == nil {
		w.wait("my-app", v.EventSeq)
	}
	return err
}

func TestUpdateRollsBack(t *testing.T) {
	w, id := inPlace(t)
	before := call[cloudapi.CVMDetail](w, 200, "GET", "/cvms/my-app", nil, nil)
	why := &vmmapi.VMError{Reason: "governance-denied", Message: "compose hash not allowed", Stage: "4 keys"}
	w.vmm.setBoot(func(vmmapi.VM) *vmmapi.VMError { return why })
	a, done := w.patch(map[string]any{"docker_compose_file": yaml("1.28"), "vcpu": 2, "memory": 4096, "disk_size": 50, "user_config": "x"})
	if done.Status != cloudapi.StatusRunning || done.Error == nil || done.Error.Reason != "governance-denied" {
		t.Fatalf("%+v", done)
	}
	after := call[cloudapi.CVMDetail](w, 200, "GET", "/cvms/my-app", nil, nil)
	if *after.ComposeHash != *before.ComposeHash || *after.Resource.VCPU != 1 || *after.Resource.DiskInGB != 50 || after.Status != cloudapi.StatusRunning {
		t.Errorf("the CVM is not the old one with its grown disk: %+v %+v", after.CVMInfo, after.Resource)
	}
	if u := call[cloudapi.UserConfig](w, 200, "GET", "/cvms/my-app/user_config", nil, nil); u.Hostname != nil {
		t.Errorf("user config %+v", u)
	}
	ops := call[cloudapi.Operations](w, 200, "GET", "/cvms/my-app/operations", nil, nil)
	o := ops.Items[0]
	if o.CorrelationID != a.CorrelationID || o.Status != "failed" || o.ErrorMessage == nil || *o.ErrorMessage != why.Message || !strings.Contains(toJSON(o.Events), "the version before it is kept") {
		t.Errorf("operation %+v", o)
	}
	w.vmm.setBoot(nil)
	if _, done = w.patch(map[string]any{"docker_compose_file": yaml("1.28")}); done.Status != cloudapi.StatusRunning || done.Error != nil {
		t.Errorf("the next one: %+v", done)
	}
	if v := w.vmOf(id); !strings.Contains(string(v.Spec.App.AppCompose), "1.28") {
		t.Error("the next one did not arrive")
	}
}

// What a node refuses to begin leaves the CVM as it is, running.
func TestUpdateRefused(t *testing.T) {
	w, id := inPlace(t)
	before := w.vmOf(id)
	w.vmm.mu.Lock()
	w.vmm.refuse = cvm.Errorf(cvm.Exhausted, "no room for both versions").WithReason("no-capacity")
	w.vmm.mu.Unlock()
	_, done := w.patch(map[string]any{"docker_compose_file": yaml("1.28")})
	if done.Status != cloudapi.StatusRunning || done.Error == nil || done.Error.Reason != "no-capacity" {
		t.Fatalf("%+v", done)
	}
	after := call[cloudapi.CVMDetail](w, 200, "GET", "/cvms/my-app", nil, nil)
	if v := w.vmOf(id); v.Boots != before.Boots || strings.Contains(toJSON(after.ComposeFile), "1.28") {
		t.Errorf("%+v %v", v, after.ComposeFile)
	}
}
