package vmm

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// snpHost is a driver on SEV-SNP hardware that starts nothing.
type snpHost struct {
	machine.Driver
	mu       sync.Mutex
	launched []machine.Machine
}

func (h *snpHost) Describe(ctx context.Context) (machine.Description, error) {
	d, err := h.Driver.Describe(ctx)
	d.Accel = "snp"
	return d, err
}

func (h *snpHost) Launch(ctx context.Context, m machine.Machine) (machine.Instance, error) {
	h.mu.Lock()
	h.launched = append(h.launched, m)
	h.mu.Unlock()
	return h.Driver.Launch(ctx, m)
}

func (h *snpHost) last() machine.Machine {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.launched[len(h.launched)-1]
}

// On SEV-SNP the host draws the instance before the first launch and keeps it; the
// document that it binds is the one that it hands over.
func TestSNPInstanceIsSettledBeforeTheLaunch(t *testing.T) {
	d := dry.New(dry.Config{Script: func(machine.Machine) []guestapi.Notify { return []guestapi.Notify{{Event: "ready"}} }})
	h := &snpHost{Driver: d}
	n := newNode(t, d, func(c *Config) { c.Wrap = func(machine.Driver) machine.Driver { return h } })
	ctx := t.Context()
	n.must(n.c.Put(ctx, spec()))
	n.must(n.c.Start(ctx, vmID))
	first := n.waitState(vmmapi.StateRunning).InstanceID
	check := func(what string) {
		t.Helper()
		m := h.last()
		var sys guestapi.SysConfig
		var inst guestapi.InstanceInfo
		for name, v := range map[string]any{".sys-config.json": &sys, ".instance_info": &inst} {
			b, err := os.ReadFile(filepath.Join(m.Shared, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, v); err != nil {
				t.Fatal(err)
			}
		}
		doc, _ := sys.MRConfig.(string)
		config, err := attest.ParseMRConfig(doc)
		if err != nil {
			t.Fatalf("%s: %v in %q", what, err, doc)
		}
		hash := attest.HostData(doc)
		if m.MRConfigID[0] != 3 || !bytes.Equal(m.MRConfigID[1:33], hash[:]) || m.MRConfig != doc {
			t.Errorf("%s: bound to %s, handed over %x", what, m.MRConfigID, hash)
		}
		if first.IsZero() || config.InstanceID != first.String() || inst.InstanceID != first.String() || len(inst.Seed) != 40 || config.AppID != spec().AppID.String() {
			t.Errorf("%s: instance %s, document %+v, handed over %+v", what, first, config, inst)
		}
	}
	check("first boot")
	n.stop()
	n.start()
	vm := n.waitState(vmmapi.StateRunning)
	n.must(n.c.Restart(ctx, vmID))
	n.wait("restarted", func(v vmmapi.VM) bool { return v.State == vmmapi.StateRunning && v.Boots > vm.Boots })
	check("after a restart of VMM and machine")
}

// A seed whose instance id the guest told wrongly counts, not the id.
func TestSNPInstanceFollowsTheSeed(t *testing.T) {
	n := newNode(t, dry.New(dry.Config{}), nil)
	n.must(n.c.Put(t.Context(), spec()))
	v, err := n.vmm.find(vmID)
	if err != nil {
		t.Fatal(err)
	}
	r := v.rec
	r.Instance, r.VM.InstanceID = instanceInfo(), cvm.InstanceID{9}
	doc := mustDoc(t)
	if err := v.settleInstance(&r, doc); err != nil || r.VM.InstanceID != cvm.NewInstanceID(make([]byte, 20), spec().AppID) {
		t.Errorf("%s %v", r.VM.InstanceID, err)
	}
	r.Instance = `{"instance_id_seed":"zz"}`
	if err := v.settleInstance(&r, doc); err == nil {
		t.Error("a seed that is not hex")
	}
}

// The document is canonical where an app-compose may be written in capitals.
func TestSNPDocumentIsInSmallLetters(t *testing.T) {
	doc := mustDoc(t)
	doc.KeyProvider, doc.KeyProviderID = appcompose.ProviderKMS, "30593013AB"
	text, err := launchDocument(&machine.Machine{}, doc, spec().AppID, cvm.InstanceID{})
	if err != nil {
		t.Fatal(err)
	}
	if config, err := attest.ParseMRConfig(text); err != nil || config.KeyProviderID != "30593013ab" {
		t.Errorf("%+v, %v", config, err)
	}
}

func mustDoc(t *testing.T) *appcompose.Document {
	t.Helper()
	d, err := appcompose.Parse([]byte(composeDoc))
	if err != nil {
		t.Fatal(err)
	}
	return d
}
