package cloud

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/guest-agent/disk"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/guest-agent/initramfs"
	"github.com/confidential-cloud/phala/guest-agent/lease"
	"github.com/confidential-cloud/phala/internal/hostshare"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// TestMachineHost: a host that changes what a machine boots, reads or is measured by.
// Each attack is refused for its own reason, and the machine with its data comes back
// when the host is honest again.
func TestMachineHost(t *testing.T) {
	virtual(t)
	vm, url := machineApp(t)
	id := vm.Spec.ID
	halt(t, id)
	for _, a := range []attack{
		{"no root filesystem", func(t *testing.T, _ string) {
			theQEMU.does(t, "*,serial=phala-rootfs) a=${a%phala-rootfs}nothing;;")
		}, initramfs.ReasonMissing, nil},
		{"a truncated tar of host-shared files", func(t *testing.T, _ string) {
			theQEMU.does(t, "file=*/shared.img,*) f=${a#file=}; truncate -s 2048 \"${f%%,*}\";;")
		}, hostshare.Reason, nil},
		flippedRootfs(),
		{"a flipped byte of the hash tree", bootsInstead(func(*testing.T) edits {
			return edits{theCloud.Image().Meta.Rootfs: flipTree}
		}), "rootfs-hash-mismatch", nil},
		otherCmdline(),
		{"another initrd", bootsInstead(func(*testing.T) edits {
			return edits{theCloud.Image().Meta.Initrd: func(b []byte) []byte { return append(b, make([]byte, 512)...) }}
		}), kmsapi.ReasonEvidence, []string{"RTMR2"}},
		{"another kernel", bootsInstead(func(*testing.T) edits {
			return edits{theCloud.Image().Meta.Kernel: flipVersion}
		}), kmsapi.ReasonEvidence, []string{"RTMR1"}},
		{"other firmware", bootsInstead(func(*testing.T) edits {
			return edits{theCloud.Image().Meta.BIOS: flipPadding}
		}), kmsapi.ReasonEvidence, []string{"MRTD"}},
		{"another image claimed", inShared(hostshare.SysConfig, func() (string, string) {
			return theCloud.Image().Hash.String(), strings.Repeat("ab", 32)
		}), kmsapi.ReasonEvidence, []string{"os_image_hash"}},
		{"another TD's registers", otherTD, kmsapi.ReasonEvidence, []string{"MRTD"}},
		{"another app-compose", inShared(hostshare.AppCompose, func() (string, string) {
			return "phala-tests/kv:1", "phala-tests/kv:2"
		}), kmsapi.ReasonEvidence, []string{"td.mrconfigid"}},
		{"a disk with a null cipher", func(t *testing.T, id string) {
			editLUKS(t, dataDisk(id), func(doc map[string]any) {
				doc["segments"].(map[string]any)["0"].(map[string]any)["encryption"] = "cipher_null-ecb"
			})
		}, disk.ReasonHeader, nil},
		{"a disk with a second keyslot", func(t *testing.T, id string) {
			editLUKS(t, dataDisk(id), func(doc map[string]any) {
				slots := doc["keyslots"].(map[string]any)
				slots["1"] = slots["0"]
			})
		}, disk.ReasonHeader, nil},
	} {
		a.run(t, id)
	}
	t.Run("a false KMS", func(t *testing.T) { falseKMSInConfig(t, id) })
	t.Run("old data behind a new record", func(t *testing.T) { oldData(t, id) })
	if b := boots(t, id); b.Error != nil {
		t.Fatalf("with an honest host: %+v", b.Error)
	}
	hasValue(t, url, "after the attacks")
}

// TestMachineSwappedDisk: the disk of another machine, of another app. Neither runs
// containers: the disk is opened before any would start.
func TestMachineSwappedDisk(t *testing.T) {
	virtual(t)
	first := func(name string) string {
		id := define(t, name, "", func(d *appcompose.Document) { d.Runner, d.GatewayEnabled = appcompose.RunnerNone, false }).Spec.ID
		if b := boots(t, id); b.Error != nil {
			t.Fatalf("%s: %+v", name, b.Error)
		}
		halt(t, id)
		return id
	}
	victim, other := first("disk-victim"), first("disk-other")
	attack{"the disk of another app", func(t *testing.T, id string) {
		mine, theirs := dataDisk(id), dataDisk(other)
		mustRun(t, "mv", mine, mine+".kept")
		t.Cleanup(func() { mustRun(t, "mv", mine+".kept", mine) })
		mustRun(t, "cp", "--sparse=always", theirs, mine)
	}, disk.ReasonKey, nil}.run(t, victim)
	if b := boots(t, victim); b.Error != nil {
		t.Fatalf("with an honest host: %+v", b.Error)
	}
}

func mustRun(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// oldData puts the data of an earlier session behind the header of now.
func oldData(t *testing.T, id string) {
	now := dataDisk(id)
	old := now + ".old"
	mustRun(t, "cp", "--sparse=always", now, old)
	if b := boots(t, id); b.Error != nil {
		t.Fatalf("with an honest host: %+v", b.Error)
	}
	halt(t, id)
	mustRun(t, "mv", now, now+".kept")
	t.Cleanup(func() { mustRun(t, "mv", now+".kept", now) })
	mustRun(t, "mv", old, now)
	mustRun(t, "dd", "if="+now+".kept", "of="+now, "bs=1M", fmt.Sprintf("count=%d", diskHeader>>20), "conv=notrunc", "status=none")
	refusedBoot(t, id, disk.ReasonSwapped)
}

// inShared replaces text in a host-shared file, of the same length so that only what
// it says is wrong.
func inShared(file string, text func() (old, instead string)) func(*testing.T, string) {
	return func(t *testing.T, _ string) {
		old, instead := text()
		theHost.cheats(func(m *machine.Machine) error {
			path := filepath.Join(m.Shared, file)
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if !bytes.Contains(b, []byte(old)) {
				return fmt.Errorf("%s does not hold %q: nothing would be tested", file, old)
			}
			return os.WriteFile(path, bytes.ReplaceAll(b, []byte(old), []byte(instead)), 0o600)
		})
	}
}

func falseKMSInConfig(t *testing.T, id string) {
	impostor := newFalseKMS(t)
	attack{"a false KMS in .sys-config.json", func(t *testing.T, _ string) {
		theHost.cheats(func(m *machine.Machine) error {
			path := filepath.Join(m.Shared, hostshare.SysConfig)
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, u := range theCloud.KMSURLs() {
				b = bytes.ReplaceAll(b, []byte(u), []byte(impostor.url))
			}
			return os.WriteFile(path, b, 0o600)
		})
	}, lease.ReasonFalseKMS, nil}.run(t, id)
	if impostor.handshakes.Load() == 0 || impostor.requests.Load() != 0 {
		t.Errorf("the false KMS saw %d handshakes and %d requests", impostor.handshakes.Load(), impostor.requests.Load())
	}
}

// otherTD offers the guest a TEE device whose registers are of another launch.
func otherTD(t *testing.T, id string) {
	im := theCloud.Image()
	l := simtee.TDLaunch{Cmdline: im.Meta.Cmdline}
	for name, to := range map[string]*[]byte{im.Meta.BIOS: &l.Firmware, im.Meta.Kernel: &l.Kernel, im.Meta.Initrd: &l.Initrd} {
		b, err := os.ReadFile(filepath.Join(im.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		*to = b
	}
	hw := simtee.NewControl(filepath.Join(theCfg.RunDir, "simtee.sock"))
	name := "evil-" + id
	t.Cleanup(func() { _ = hw.DestroyTD(context.Background(), name) })
	theHost.cheatsAfter(func(m machine.Machine) error {
		l.VMConfig = m.VMConfig
		shape, err := simtee.MeasureLaunch(l)
		if err != nil {
			return err
		}
		shape.MRTD[0] ^= 1
		shape.MRConfigID = m.MRConfigID
		sock := filepath.Join(m.Run, filepath.Base(guestapi.TEESock))
		if err := os.Remove(sock); err != nil {
			return err
		}
		return hw.CreateTD(context.Background(), name, sock, shape)
	})
}

// flipTree changes the top of the hash tree, which follows the superblock.
func flipTree(b []byte) []byte {
	var size int
	for _, f := range strings.Fields(theCloud.Image().Meta.Cmdline) {
		_, _ = fmt.Sscanf(f, "dstack.rootfs_size=%d", &size)
	}
	return bit(size + 4096)(b)
}

// flipVersion changes the kernel's version text, which nothing but people reads.
func flipVersion(b []byte) []byte {
	return bit(int(binary.LittleEndian.Uint16(b[0x20e:])) + 0x200)(b)
}

// flipPadding changes the firmware where it has nothing: the middle of its longest
// run of erased bytes in the measured volume.
func flipPadding(b []byte) []byte {
	best, at, run := 0, 0, 0
	for i := len(b) / 4; i < len(b); i++ {
		if b[i] != 0xff {
			run = 0
			continue
		}
		if run++; run > best {
			best, at = run, i-run/2
		}
	}
	return bit(at)(b)
}
