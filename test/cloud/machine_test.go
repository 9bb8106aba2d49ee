package cloud

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/devcloud"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/guest-agent/initramfs"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// virtual skips unless guests are virtual machines, and stops those that other tests
// left running: an emulated one takes a processor of its own.
func virtual(t *testing.T) *devcloud.Cloud {
	t.Helper()
	c := cloud(t)
	if theCfg.Driver != devcloud.DriverQEMU {
		t.Skipf("SKIPPED: needs virtual machines (%s=%s)", envDriver, devcloud.DriverQEMU)
	}
	vms, err := theVMM(t).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, vm := range vms {
		if vm.State == vmmapi.StateRunning {
			halt(t, vm.Spec.ID)
		}
	}
	return c
}

// oneService is a compose app with a volume that starts fast: containers, health checks
// and Compose itself are what an emulated machine takes longest for.
func oneService(t *testing.T) string {
	t.Helper()
	return filepath.Join(repoRoot(t), "test", "apps", "kv", "one.yml")
}

// machineApp is that app in a virtual machine, holding a value; the tests share it. The
// url shows the value.
func machineApp(t *testing.T) (vm vmmapi.VM, url string) {
	t.Helper()
	const name = "machine-app"
	if _, ok := findVM(t, name); !ok {
		push(t, "phala-tests/kv", "1", kvImage(t))
		d := deploy(t, oneService(t), name, "--disk-size", "20G")
		url = appURL(d.AppID, 9000) + "value"
		getOK(t, url)
		put(t, url, "value=written once")
	}
	vm = vmOf(t, name)
	return vm, appURL(vm.Spec.AppID.String(), 9000) + "value"
}

// halt stops a machine past the cloud API.
func halt(t *testing.T, id string) {
	t.Helper()
	if _, err := theVMM(t).Stop(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the machine is stopped", 60*time.Second, func() error {
		vm, err := theVMM(t).Get(t.Context(), id)
		if err == nil && vm.State != vmmapi.StateStopped {
			err = fmt.Errorf("it is %s", vm.State)
		}
		return err
	})
}

// boots starts a stopped machine and waits for the end of its boot.
func boots(t *testing.T, id string) vmmapi.Boot {
	t.Helper()
	before := len(bootsOf(t, id))
	started := time.Now()
	if _, err := theVMM(t).Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	var b vmmapi.Boot
	eventually(t, "the machine's boot", 60*time.Second, func() error {
		all := bootsOf(t, id)
		if len(all) <= before {
			return fmt.Errorf("%d boots", len(all))
		}
		b = all[before]
		if b.Error == nil && b.ReadyAt.IsZero() {
			return fmt.Errorf("it goes on: %d stages", len(b.Stages))
		}
		return nil
	})
	t.Logf("the boot took %s", time.Since(started).Round(100*time.Millisecond))
	return b
}

func bootsOf(t *testing.T, id string) []vmmapi.Boot {
	t.Helper()
	all, err := theVMM(t).Boots(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// refusedBoot boots a stopped machine, which must fail for the reason and say words.
func refusedBoot(t *testing.T, id, reason string, words ...string) {
	t.Helper()
	b := boots(t, id)
	halt(t, id)
	if b.Error == nil || b.Error.Reason != reason {
		t.Fatalf("the boot ended with %+v, want %q", b.Error, reason)
	}
	for _, w := range words {
		if !strings.Contains(b.Error.Message, w) {
			t.Errorf("refused with %q, want %q", b.Error.Message, w)
		}
	}
	t.Logf("refused: %s: %s", b.Error.Reason, b.Error.Message)
}

// attack is what a host does to a machine, and how the boot is refused.
type attack struct {
	name   string
	host   func(t *testing.T, id string)
	reason string
	words  []string
}

func (a attack) run(t *testing.T, id string) {
	t.Run(a.name, func(t *testing.T) {
		theHost.against(id)
		t.Cleanup(func() { theHost.against("") })
		a.host(t, id)
		refusedBoot(t, id, a.reason, a.words...)
	})
}

// boots another image than the one that the guest is told of.
func bootsInstead(change func(t *testing.T) edits) func(*testing.T, string) {
	return func(t *testing.T, _ string) {
		genuine, bad := theCloud.Image(), imageLike(t, filepath.Join(t.TempDir(), "phala-bad"), change(t))
		theHost.cheats(func(m *machine.Machine) error {
			// What the driver checks and what the hardware measures are about the image that
			// is booted; .sys-config.json, which is written already, is about the true one.
			m.VMConfig = strings.ReplaceAll(m.VMConfig, genuine.Hash.String(), bad.Hash.String())
			m.Image.Dir, m.Image.Hash = bad.Dir, bad.Hash
			return nil
		})
	}
}

func flippedRootfs() attack {
	return attack{"a flipped byte of the root filesystem", bootsInstead(func(*testing.T) edits {
		return edits{theCloud.Image().Meta.Rootfs: bit(100)}
	}), initramfs.ReasonCorrupt, nil}
}

func otherCmdline() attack {
	return attack{"another command line", bootsInstead(func(t *testing.T) edits {
		meta := theCloud.Image().Meta
		return edits{"metadata.json": withCmdline(t, meta.Cmdline+" init=/bin/sh")}
	}), kmsapi.ReasonEvidence, []string{"RTMR2"}}
}

// TestMachine is the everyday test on virtual machines: a compose app over the gateway,
// verified; its data after a restart; and, on another machine meanwhile (each has one
// processor), a host that cheats is refused.
func TestMachine(t *testing.T) {
	c := virtual(t)
	t.Run("meanwhile", func(t *testing.T) {
		t.Run("an app", func(t *testing.T) {
			t.Parallel()
			vm, url := machineApp(t)
			must(t, "verify", vm.Spec.Name)
			measuresImage(t, c.Image().Dir, vm.Spec.ID)
			halt(t, vm.Spec.ID)
			if b := boots(t, vm.Spec.ID); b.Error != nil {
				t.Fatalf("its second boot: %+v", b.Error)
			}
			hasValue(t, url, "after a restart")
		})
		t.Run("a host that cheats", func(t *testing.T) {
			t.Parallel()
			id := define(t, "machine-cheated", "services:\n  never:\n    image: phala-tests/kv:1\n", nil).Spec.ID
			flippedRootfs().run(t, id)
			otherCmdline().run(t, id)
		})
	})
}

// measuresImage: the registers in the evidence of the running machine are those that
// `phala measure` computes from the files of the image.
func measuresImage(t *testing.T, dir, id string) {
	t.Helper()
	ev, err := theVMM(t).GuestEvidence(t.Context(), id, []byte("thirty-two bytes of a fresh nonce"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]string{"attestation": hex.EncodeToString(ev.Attestation)})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "evidence.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	phala(t, "measure", dir, "--explain", file).says(t, 0, "are what image")
}

// TestMachineUpgrade: the next version of the image boots once the chain allows it,
// and opens the same disk.
func TestMachineUpgrade(t *testing.T) {
	virtual(t)
	vm, url := machineApp(t)
	next := nextVersion(t)
	halt(t, vm.Spec.ID)
	node := theVMM(t)
	if _, err := node.PutImage(t.Context(), vm.Spec.ID, next.Name); err != nil {
		t.Fatal(err)
	}
	defer func() { // for the tests after this one, also when this one fails
		halt(t, vm.Spec.ID)
		if _, err := node.PutImage(t.Context(), vm.Spec.ID, theCloud.Image().Name); err != nil {
			t.Error(err)
		}
	}()
	refusedBoot(t, vm.Spec.ID, kmsapi.ReasonGovernance, "OS image is not allowed")
	change(t, ethereum.AllowOSImage(next.Hash))
	if b := boots(t, vm.Spec.ID); b.Error != nil || b.Image != next.Name {
		t.Fatalf("the next version: %+v", b)
	}
	hasValue(t, url, "after the upgrade")
	measuresImage(t, next.Dir, vm.Spec.ID)
}
