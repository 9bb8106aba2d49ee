package cloud

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/devcloud"
	"github.com/confidential-cloud/phala/guest-agent/boot"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/kms"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// anotherCloud runs beside the one of this test binary, and is the one until the test
// ends.
func anotherCloud(t *testing.T, change func(*devcloud.Config)) *devcloud.Cloud {
	t.Helper()
	cloud(t)
	if theCfg.Driver != devcloud.DriverContainer {
		t.Skip("SKIPPED: it is about the container driver")
	}
	before, beforeCfg, beforeHost := theCloud, theCfg, theHost
	cfg, dir := theCfg, t.TempDir()
	cfg.StateDir, cfg.RunDir, cfg.CLIDir = filepath.Join(dir, "state"), "/run/phala-test2", filepath.Join(dir, "cli")
	cfg.Network, cfg.Subnet, cfg.Ports = "phala-test2", "172.31.80.0/24", devcloud.PortsFrom(portBase+100)
	cfg.Members = 1
	theHost = &hostileDriver{}
	change(&cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c, err := devcloud.Start(ctx, cfg)
	if err != nil {
		theHost = beforeHost
		t.Fatal(err)
	}
	theCloud, theCfg = c, cfg
	t.Cleanup(func() {
		theCloud, theCfg, theHost = before, beforeCfg, beforeHost
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			dumpLogs(dir)
		}
		if err := devcloud.Clean(context.Background(), cfg); err != nil {
			t.Error(err)
		}
	})
	return c
}

// TestSNP: the main job on SEV-SNP guests (simulated), and what a host and a KMS make of
// them that should not be.
func TestSNP(t *testing.T) {
	admit := true
	c := anotherCloud(t, func(cfg *devcloud.Config) {
		cfg.Simulate = vmm.SimulateSNP
		cfg.KMS = func(k *kms.Config) {
			if !admit {
				k.Attestation.SNP = nil
			}
		}
	})
	if err := c.PrepareHello(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := deploy(t, c.HelloCompose(), "hello", "-e", "GREETING=Good day")
	if page := getOK(t, appURL(d.AppID, 0)); !strings.Contains(page, "Good day") {
		t.Errorf("the page:\n%s", page)
	}
	t.Run("verified", func(t *testing.T) { snpVerified(t, d.AppID) })
	t.Run("evidence", snpEvidence)
	t.Run("another app in the same launch", snpStolen)
	t.Run("a host that changes the app-compose", snpHost)
	t.Run("a KMS that does not admit SEV-SNP", func(t *testing.T) {
		from := ledgerSize(t)
		admit = false
		if err := c.StopMember("kms-1"); err != nil {
			t.Fatal(err)
		}
		if err := c.StartMember(t.Context(), "kms-1"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the KMS is back", 60*time.Second, func() error { _, err := kmsClient(t).Status(t.Context()); return err })
		phala(t, "cvms", "restart", "hello").says(t, exitState, kmsapi.ReasonPhase)
		denied(t, from, d.AppID, kmsapi.ReasonPhase, "does not admit SEV-SNP")
	})
}

// snpVerified: the whole chain from the address, and what the report says of the TEE.
func snpVerified(t *testing.T, app string) {
	r := must(t, "verify", appURL(app, 0))
	for _, want := range []string{"VERIFIED", "SIMULATED", "UNPROVEN PHASE"} {
		if !strings.Contains(r.out+r.err, want) {
			t.Errorf("the report does not say %q", want)
		}
	}
	var rep struct {
		Verified bool `json:"verified"`
		App      struct {
			Claims struct {
				Variant string          `json:"tee_variant"`
				Phase   string          `json:"phase"`
				SNP     json.RawMessage `json:"snp"`
			} `json:"claims"`
			Leaf ledger.Leaf `json:"leaf"`
		} `json:"app"`
	}
	lastJSON(t, must(t, "verify", app, "--json").out, &rep)
	if c := rep.App.Claims; !rep.Verified || c.Variant != cvm.VariantSNP || c.Phase != "unproven" || len(c.SNP) == 0 || !strings.Contains(string(rep.App.Leaf.Note), `"unproven"`) {
		t.Errorf("report %+v", rep)
	}
	wrong := filepath.Join(t.TempDir(), "trust.toml")
	b, err := os.ReadFile(theCloud.TrustPath())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(wrong, bytes.Replace(b, []byte("admit = true"), []byte("admit = false"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := phala(t, "verify", app, "--trust", wrong); r.code == 0 || !strings.Contains(r.out+r.err, "does not admit SEV-SNP") {
		t.Errorf("a profile that does not admit SEV-SNP: %d", r.code)
	}
}

// snpEvidence: what a container of the app gets by its socket.
func snpEvidence(t *testing.T) {
	g := running(t, "hello")
	if _, err := g.dstack.GetQuote(t.Context(), []byte{1}); err == nil || !strings.Contains(err.Error(), "SEV-SNP") {
		t.Errorf("GetQuote: %v", err)
	}
	ev, err := g.dstack.Attest(t.Context(), [64]byte{1})
	if err != nil || ev.Variant != cvm.VariantSNP || ev.ReportData != [64]byte{1} || len(ev.CertChain) != 3 {
		t.Fatalf("%+v %v", ev, err)
	}
	m, err := attest.ParseMRConfig(ev.MRConfig)
	if vm := vmOf(t, "hello"); err != nil || m.AppID != vm.Spec.AppID.String() || m.InstanceID != vm.InstanceID.String() {
		t.Errorf("document %+v: %v", m, err)
	}
}

// snpStolen: whatever runs in the guest can have any data reported, and still gets no
// keys: the launch has had its own.
func snpStolen(t *testing.T) {
	vm := vmOf(t, "hello")
	a, from := newAttacker(t, vm.Spec.AppID, vm.Spec.App.AppCompose), ledgerSize(t)
	a.refused(a.request(func(rd [64]byte) (attest.Evidence, error) {
		return running(t, "hello").dstack.Attest(t.Context(), rd)
	}), kmsapi.ReasonLaunchRedeemed, "released to this launch")
	denied(t, from, vm.Spec.AppID.String(), kmsapi.ReasonLaunchRedeemed, "")
}

// snpHost: the files change after the launch was decided, with the document and without.
func snpHost(t *testing.T) {
	vm := vmOf(t, "hello")
	theHost.against(vm.Spec.ID)
	defer theHost.against("")
	edit := func(m *machine.Machine, name string, change func([]byte) []byte) error {
		path := filepath.Join(m.Shared, name)
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, change(b), 0o600)
	}
	other := func(b []byte) []byte { return bytes.Replace(b, []byte("GREETING"), []byte("GREETINg"), 1) }
	for _, tc := range []struct {
		name, words string
		cheat       func(*machine.Machine) error
	}{
		{"the app-compose alone", "compose hash", func(m *machine.Machine) error { return edit(m, "app-compose.json", other) }},
		{"the document as well", "HOST_DATA", func(m *machine.Machine) error {
			err := edit(m, "app-compose.json", other)
			if err != nil {
				return err
			}
			return edit(m, ".sys-config.json", func(b []byte) []byte {
				var sys guestapi.SysConfig
				if json.Unmarshal(b, &sys) != nil {
					return nil
				}
				sys.MRConfig = strings.Replace(sys.MRConfig.(string), `"version":3`, `"version":3 `, 1)
				out, _ := json.Marshal(sys)
				return out
			})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			theHost.cheats(tc.cheat)
			phala(t, "cvms", "restart", "hello").says(t, exitState, tc.words)
			shows(t, "hello", "failed", boot.ReasonLaunch)
		})
	}
	theHost.cheats(nil)
	must(t, "cvms", "restart", "hello")
	getOK(t, appURL(vm.Spec.AppID.String(), 0))
}
