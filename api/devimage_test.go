package api_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

func TestPreferDev(t *testing.T) {
	w := newWorld(t, func(c *api.Config) {
		offChain(c)
		c.Image = "phala-1.0.0"
	})
	dev := map[string]any{"prefer_dev": true}
	status, text := w.raw("POST", "/cvms/provision", cliDevDeploy("dev-none", dev), cliHeader)
	if status != 404 || !strings.Contains(text, "no-dev-image") || !strings.Contains(text, "--dev-os") {
		t.Errorf("without a development image: %d %s", status, text)
	}
	if status, text := w.raw("GET", "/cvms/dev-none", nil, nil); status != 404 {
		t.Errorf("and yet: %d %s", status, text)
	}

	images := func(all ...vmmapi.Image) {
		w.vmm.mu.Lock()
		w.vmm.images = all
		w.vmm.mu.Unlock()
		w.until("the images are known", func() bool {
			known := call[cloudapi.Page[cloudapi.OSImage]](w, 200, "GET", "/os-images", nil, nil).Items
			return !slices.ContainsFunc(all, func(i vmmapi.Image) bool {
				return !slices.ContainsFunc(known, func(k cloudapi.OSImage) bool { return k.Name == i.Name })
			})
		})
	}
	image := func(name, version string, dev bool) vmmapi.Image {
		return vmmapi.Image{Name: name, Version: version, IsDev: dev, Hash: cvm.ImageHash{byte(len(name)), name[len(name)-1]}}
	}
	runs := func(name, want string, mod map[string]any) {
		t.Helper()
		p := call[cloudapi.Provisioned](w, 200, "POST", "/cvms/provision", cliDevDeploy(name, mod), cliHeader)
		vm := call[cloudapi.VM](w, 200, "POST", "/cvms", map[string]any{"app_id": p.AppID, "compose_hash": p.ComposeHash}, cliHeader)
		w.wait(*vm.VMUUID, vm.EventSeq)
		if got := w.vmOf(*vm.VMUUID).Spec.Image; got != want {
			t.Errorf("%s %v runs %s, want %s", name, mod, got, want)
		}
		if err := w.c.Delete(t.Context(), name, "delete"); err != nil {
			t.Fatal(err)
		}
	}
	images(image("dev-9", "0.9.0", true), image("dev-10", "0.10.0", true), image("newer", "2.0.0", false))
	runs("dev-newest", "dev-10", dev)
	runs("dev-named", "newer", map[string]any{"prefer_dev": true, "image": "newer"})
	runs("dev-refused", "phala-1.0.0", map[string]any{"prefer_dev": false})
	runs("dev-unsaid", "phala-1.0.0", nil)
	images(image("dev-9", "0.9.0", true), image("dev-11", "1.1.0", true), image("dev-same", "1.0.0", true))
	runs("dev-version", "dev-same", dev)
	refused(w, 404, "ERR-02-010", "POST", "/cvms/provision", cliDevDeploy("dev-region", map[string]any{"prefer_dev": true, "region": "mars"}), cliHeader)
}

func cliDevDeploy(name string, mod map[string]any) map[string]any {
	r := cliDeploy(name, "nginx:1.27", nil)
	for k, v := range mod {
		r[k] = v
	}
	return r
}
