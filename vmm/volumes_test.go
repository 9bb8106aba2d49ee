package vmm

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// withVolumes is an app that measures volumes of these files.
func withVolumes(names ...string) vmmapi.App {
	var list []string
	for i, n := range names {
		list = append(list, `{"source":"`+n+`","verity_root":"`+strings.Repeat("ab", 32)+`","target":"/run/volumes/`+string(rune('a'+i))+`"}`)
	}
	return vmmapi.App{AppCompose: []byte(strings.TrimSuffix(composeDoc, "}") + `,"verity_volumes":[` + strings.Join(list, ",") + `]}`)}
}

// A VM gets the volumes that its app measures, in the app's order, and an app whose
// files the node has not is refused before anything changes.
func TestVolumesOfTheApp(t *testing.T) {
	vols := t.TempDir()
	for _, n := range []string{"web.img", "model.img", "other-name"} {
		if err := os.WriteFile(filepath.Join(vols, n), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var seen machine.Machine
	d := dry.New(dry.Config{Script: func(m machine.Machine) []guestapi.Notify {
		mu.Lock()
		defer mu.Unlock()
		seen = m
		return dry.DefaultScript(m)
	}})
	n := newNode(t, d, func(c *Config) { c.VolumesDir = vols })
	attached := func() (names []string) {
		mu.Lock()
		defer mu.Unlock()
		for _, v := range seen.Volumes {
			names = append(names, filepath.Base(v.Path))
		}
		return names
	}
	ctx := t.Context()
	s := spec()
	s.App = withVolumes("web.img", "absent.img")
	if _, err := n.c.Put(ctx, s); cvm.CodeOf(err) != cvm.Invalid || !strings.Contains(err.Error(), "absent.img") {
		t.Errorf("an app whose volume is not there: %v", err)
	}
	s.App = withVolumes("web.img", "model.img")
	s.Volumes = []string{"web.img"}
	if _, err := n.c.Put(ctx, s); cvm.CodeOf(err) != cvm.Invalid || !strings.Contains(err.Error(), "the app measures 2") {
		t.Errorf("fewer files than the app measures: %v", err)
	}
	s.Volumes = nil
	n.must(n.c.Put(ctx, s))
	n.must(n.c.Start(ctx, vmID))
	n.waitState(vmmapi.StateRunning)
	if got := strings.Join(attached(), " "); got != "web.img model.img" {
		t.Errorf("attached: %s", got)
	}
	if _, err := n.c.PutApp(ctx, vmID, withVolumes("absent.img")); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("PUT app: %v", err)
	}
	app := withVolumes("absent.img")
	if _, err := n.c.Update(ctx, vmID, vmmapi.UpdateRequest{App: &app}); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("update: %v", err)
	}
	if vm, err := n.c.Get(ctx, vmID); err != nil || string(vm.Spec.App.AppCompose) != string(s.App.AppCompose) {
		t.Errorf("a refused app is there: %v %v", vm.Spec, err)
	}
	if err := n.c.Delete(ctx, vmID, false); err != nil {
		t.Fatal(err)
	}
	n.waitGone()
	s.Volumes = []string{"other-name", "model.img"}
	n.must(n.c.Put(ctx, s))
	n.must(n.c.Start(ctx, vmID))
	n.waitState(vmmapi.StateRunning)
	if got := strings.Join(attached(), " "); got != "other-name model.img" {
		t.Errorf("attached, files named by the spec: %s", got)
	}

	c := goodConfig()
	c.Driver = "container"
	s = spec()
	s.App = withVolumes("web.img")
	if err := c.checkSpec(&s); err == nil || !strings.Contains(err.Error(), "need real machines") {
		t.Errorf("containers: %v", err)
	}
}
