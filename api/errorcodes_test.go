package api_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// TestErrorCodes: each code of the catalogue that the API has is answered in a test.
func TestErrorCodes(t *testing.T) {
	w := newWorld(t, offChain)
	provision := func(mod func(*cloudapi.ProvisionRequest)) cloudapi.ProvisionRequest {
		r := cloudapi.ProvisionRequest{Name: "my-app", InstanceType: "tdx.small", ComposeFile: compose(nil)}
		mod(&r)
		return r
	}
	refused(w, 409, "ERR-02-002", "POST", "/cvms/provision", provision(func(r *cloudapi.ProvisionRequest) { r.DiskSize = 2048 }), nil)
	refused(w, 409, "ERR-02-002", "POST", "/cvms/provision", provision(func(r *cloudapi.ProvisionRequest) { r.MinConfidence = "genuine" }), nil)
	refused(w, 422, "ERR-02-008", "POST", "/cvms/provision", provision(func(*cloudapi.ProvisionRequest) {}), map[string]string{"Idempotency-Key": strings.Repeat("x", 256)})

	refused(w, 409, "ERR-02-004", "POST", "/cvms/provision", provision(func(r *cloudapi.ProvisionRequest) { r.InstanceType, r.VCPU, r.Memory = "", 1, 500<<10 }), nil)
	const card = "services:\n  web:\n    image: x\n    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}\n"
	refused(w, 422, "ERR-02-006", "POST", "/cvms/provision", provision(func(r *cloudapi.ProvisionRequest) { r.ComposeFile = map[string]any{"docker_compose_file": card} }), nil)

	w.vmm.mu.Lock()
	w.vmm.images = []vmmapi.Image{{Name: "phala-old", Hash: cvm.ImageHash{8}, Version: "0.9.0"}}
	w.vmm.mu.Unlock()
	images := func() int {
		l, err := w.c.OSImages(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return l.Total
	}
	w.until("the node has a second image", func() bool { return images() == 2 })
	p := call[cloudapi.Provisioned](w, 200, "POST", "/cvms/provision", provision(func(r *cloudapi.ProvisionRequest) { r.Image = "phala-old" }), nil)
	vm := call[cloudapi.VM](w, 200, "POST", "/cvms", map[string]any{"app_id": p.AppID, "compose_hash": p.ComposeHash}, nil)
	w.wait(*vm.VMUUID, vm.EventSeq)
	w.vmm.mu.Lock()
	w.vmm.images = nil
	w.vmm.mu.Unlock()
	w.until("the image is gone", func() bool { return images() == 1 })
	refused(w, 400, "ERR-03-006", "POST", "/cvms/"+*vm.VMUUID+"/replicas", map[string]any{}, nil)
	call[cloudapi.NodeDrain](w, 200, "POST", "/nodes/1/drain", cloudapi.NodeDrainRequest{Reason: "new fans"}, nil)
	refused(w, 409, "ERR-02-012", "POST", "/cvms/provision", provision(func(r *cloudapi.ProvisionRequest) { r.Name = "late-app" }), nil)

	code := regexp.MustCompile(`ERR-\d\d-\d\d\d`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var have, tested []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if found := code.FindAllString(string(b), -1); strings.HasSuffix(f, "_test.go") {
			tested = append(tested, found...)
		} else {
			have = append(have, found...)
		}
	}
	slices.Sort(have)
	if have = slices.Compact(have); len(have) < 20 {
		t.Errorf("codes %q", have)
	}
	for _, c := range have {
		if !slices.Contains(tested, c) {
			t.Errorf("%s is answered in no test", c)
		}
	}
}
