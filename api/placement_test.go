package api_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// newNodes is a world off the chain with further nodes.
func newNodes(t *testing.T, more ...func(*vmmapi.Node)) *world {
	return newWorld(t, func(c *api.Config) {
		offChain(c)
		for i, mod := range more {
			f := newVMM()
			f.node = func(n *vmmapi.Node) {
				n.Name, n.DeviceID = fmt.Sprint("node-", i+2), cvm.DeviceID{byte(i + 8)}
				if mod != nil {
					mod(n)
				}
			}
			hs := httptest.NewServer(f)
			t.Cleanup(hs.Close)
			c.Nodes = append(c.Nodes, api.NodeConfig{URL: hs.URL, TokenFile: c.Nodes[0].TokenFile})
		}
	})
}

func drained(n *vmmapi.Node) { n.Draining = true }

// Deploys at the same time never take more than the node has, and none that fits is
// refused: the room is held before the CVM is stored.
func TestConcurrentDeploysFit(t *testing.T) {
	w := newWorld(t, offChain)
	const n, fit = 12, 8 // of 1 vCPU
	ps := make([]cloudapi.Provisioned, n)
	for i := range ps {
		var err error
		if ps[i], err = w.c.Provision(t.Context(), cloudapi.ProvisionRequest{Name: fmt.Sprint("my-app-", i), InstanceType: "tdx.small", DiskSize: 20, ComposeFile: compose(map[string]any{"pre_launch_script": fmt.Sprint("echo ", i)})}); err != nil {
			t.Fatal(err)
		}
	}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i, p := range ps {
		wg.Go(func() {
			_, errs[i] = w.c.Commit(t.Context(), cloudapi.CommitRequest{AppID: *p.AppID, ComposeHash: p.ComposeHash})
		})
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else if cvm.CodeOf(err) != cvm.Exhausted {
			t.Error(err)
		}
	}
	if made != fit {
		t.Errorf("%d CVMs in the room of %d", made, fit)
	}
}

func TestReplicasGoToDifferentNodes(t *testing.T) {
	w := newNodes(t, nil, drained)
	p, err := w.c.Provision(t.Context(), cloudapi.ProvisionRequest{Name: "my-app", InstanceType: "tdx.small", ComposeFile: compose(nil)})
	if err != nil {
		t.Fatal(err)
	}
	vm, err := w.c.Commit(t.Context(), cloudapi.CommitRequest{AppID: *p.AppID, ComposeHash: p.ComposeHash})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]int{vm.TeepodID: 1}
	for range 3 {
		seen[call[cloudapi.VM](w, 200, "POST", "/cvms/"+*vm.VMUUID+"/replicas", map[string]any{}, nil).TeepodID]++
	}
	if len(seen) != 2 || seen[1] != 2 || seen[2] != 2 {
		t.Errorf("CVMs by node: %v, want two each on 1 and 2", seen)
	}
}

func TestWhyNotThatNode(t *testing.T) {
	w := newNodes(t, drained, func(n *vmmapi.Node) {
		n.Simulated, n.GPUs = false, []vmmapi.NodeGPU{{Product: "10de:2330"}, {Product: "10de:2330", HeldBy: "x"}}
	})
	list, err := w.c.Nodes(t.Context())
	if err != nil || len(list.Nodes) != 3 {
		t.Fatalf("%+v %v", list, err)
	}
	if n := list.Nodes[1]; !n.Draining || !strings.Contains(n.Problem, "drained") || n.Confidence != "simulated" {
		t.Errorf("%+v", n)
	}
	if n := list.Nodes[2]; n.Confidence != "unverified" || len(n.GPUs) != 1 {
		t.Errorf("%+v", n)
	}
	for path, want := range map[string]string{
		"2/explain?instance_type=tdx.small":                   `"draining"`,
		"1/explain?vcpu=9&memory=1&min_confidence=unverified": `[{"check":"confidence","reason":"confidence-too-low","message":"is simulated, unverified wanted: its VMs have no TEE"},{"check":"vcpu"`,
		"3/explain?min_confidence=genuine":                    "is unverified, genuine wanted",
		"3/explain?gpus=2&gpu=10de:2330":                      "has 1 GPU(s) 10de:2330 free, 2 needed",
		"3/explain?gpus=1&min_confidence=unverified":          `"fits":true,"problems":[]`,
	} {
		if status, text := w.raw("GET", "/nodes/"+path, nil, nil); status != 200 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s, want %s", path, status, text, want)
		}
	}
	refused(w, 404, "node-not-found", "GET", "/nodes/9/explain", nil, nil)
	refused(w, 422, "min_confidence", "GET", "/nodes/1/explain?min_confidence=sure", nil, nil)
	refused(w, 422, "ERR-02-001", "GET", "/nodes/1/explain?instance_type=none", nil, nil)
	body := map[string]any{"name": "my-app", "instance_type": "tdx.small", "compose_file": compose(nil), "min_confidence": "genuine"}
	refused(w, 409, `{"field":"node node-2","value":2,"message":"is being drained and takes no new CVMs; is simulated, genuine wanted: its VMs have no TEE"}`, "POST", "/cvms/provision", body, nil)
	body["min_confidence"] = "unverified"
	if p := call[cloudapi.Provisioned](w, 200, "POST", "/cvms/provision", body, nil); *p.NodeID != 3 {
		t.Errorf("placed on %d: %s", *p.NodeID, p.Placement)
	}
}
