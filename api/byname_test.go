package api_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/appcompose"
)

// cliDeploy is what the public CLI provisions for `deploy -n NAME`, mod laid over its
// compose_file.
func cliDeploy(name, image string, mod map[string]any) map[string]any {
	file := map[string]any{"name": "", "docker_compose_file": "services:\n  web:\n    image: " + image + "\n", "allowed_envs": []string{}, "public_logs": true, "public_sysinfo": true}
	for k, v := range mod {
		file[k] = v
	}
	return map[string]any{"name": name, "instance_type": "tdx.small", "kms": "PHALA", "listed": false, "compose_file": file}
}

var cliHeader = map[string]string{"X-Phala-Version": cloudapi.VersionLegacy}

func (w *world) cliCommit(body map[string]any, env string) cloudapi.VM {
	w.t.Helper()
	p := call[cloudapi.Provisioned](w, 200, "POST", "/cvms/provision", body, cliHeader)
	vm := call[cloudapi.VM](w, 200, "POST", "/cvms", map[string]any{"app_id": p.AppID, "compose_hash": p.ComposeHash, "encrypted_env": env}, cliHeader)
	w.wait(*vm.VMUUID, vm.EventSeq)
	return vm
}

func (w *world) file(id string) *appcompose.Document {
	w.t.Helper()
	status, text := w.raw("GET", "/cvms/"+id+"/compose_file", nil, nil)
	doc, err := appcompose.Parse([]byte(text))
	if status != 200 || err != nil {
		w.t.Fatalf("compose file: %d %v", status, err)
	}
	return doc
}

func TestDeployAgainByName(t *testing.T) {
	w := newWorld(t, offChain)
	env := strings.Repeat("ab", 80)
	first := w.cliCommit(cliDeploy("my-app", "nginx:1.27", map[string]any{"allowed_envs": []string{"SECRET"}}), env)
	boots := w.vmOf(*first.VMUUID).Boots

	next := cliDeploy("my-app", "nginx:1.28", nil)
	next["instance_type"] = "tdx.large"
	p := call[cloudapi.Provisioned](w, 200, "POST", "/cvms/provision", next, cliHeader)
	if !slices.ContainsFunc(p.Warnings, func(s string) bool { return strings.Contains(s, "the size stays tdx.small (") }) {
		t.Errorf("another size, and nobody says that it stays: %q", p.Warnings)
	}
	if *p.AppID != first.AppID || strings.Contains(w.file("my-app").DockerComposeFile, "1.28") {
		t.Fatalf("provisioning again: %+v", p)
	}
	again := w.cliCommit(next, "")
	if *again.VMUUID != *first.VMUUID || again.ID != first.ID || again.VCPU != first.VCPU || again.Generation == first.Generation {
		t.Errorf("the same name again: %+v, first %+v", again, first)
	}
	doc := w.file("my-app")
	if !strings.Contains(doc.DockerComposeFile, "1.28") || !slices.Equal(doc.AllowedEnvs, []string{"SECRET"}) || doc.Name != "my-app" {
		t.Errorf("the app-compose afterwards: %+v", doc)
	}
	machine := w.vmOf(*first.VMUUID)
	if machine.Boots != boots+1 {
		t.Errorf("%d boots, first %d", machine.Boots, boots)
	}

	// A run that changes nothing, and a commit whose answer was lost, do nothing more.
	for range 2 {
		if v := w.cliCommit(next, ""); *v.VMUUID != *first.VMUUID || w.vmOf(*first.VMUUID).Boots != boots+1 {
			t.Errorf("nothing new: %+v", v)
		}
	}
	// Another environment is a change, and so is the same compose file for what is stopped.
	if w.cliCommit(next, strings.Repeat("cd", 80)); w.vmOf(*first.VMUUID).Boots != boots+2 {
		t.Error("another environment was not taken")
	}
	v, err := w.c.Stop(t.Context(), "my-app")
	if err != nil {
		t.Fatal(err)
	}
	w.wait("my-app", v.EventSeq)
	w.cliCommit(next, "")
	if d := call[map[string]any](w, 200, "GET", "/cvms/my-app", nil, nil); d["status"] != cloudapi.StatusRunning {
		t.Errorf("a stopped one deployed again is %v", d["status"])
	}
}

// Only the public CLI's own request updates what exists; a chain decides otherwise.
func TestNameIsTaken(t *testing.T) {
	w := newWorld(t, offChain)
	w.cliCommit(cliDeploy("my-app", "nginx:1.27", nil), "")
	other := cliDeploy("my-app", "nginx:1.28", nil)
	refused(w, 409, "ERR-01-004", "POST", "/cvms/provision", other, nil)
	refused(w, 409, "ERR-01-004", "POST", "/cvms/provision", cliDeploy("my-app", "nginx:1.28", map[string]any{"name": "my-app"}), cliHeader)
	whole := map[string]any{"manifest_version": 2, "runner": "docker-compose"}
	refused(w, 409, "ERR-01-004", "POST", "/cvms/provision", cliDeploy("my-app", "nginx:1.28", whole), cliHeader)
	refused(w, 422, "", "POST", "/cvms/provision", cliDeploy("my-app", "nginx:1.28", map[string]any{"docker_compose_file": "services: []"}), cliHeader)

	chain := newWorld(t, nil)
	chain.deploy("my-app", 1, nil)
	refused(chain, 409, "ERR-01-004", "POST", "/cvms/provision", map[string]any{"name": "my-app", "compose_file": other["compose_file"]}, cliHeader)
}
