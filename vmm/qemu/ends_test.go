package qemu

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// The ends that take a boot each: a panic, a restart, a SIGTERM of the host.
func TestEnds(t *testing.T) {
	if os.Getenv("PHALA_VM") != "1" {
		t.Skip("SKIPPED: three boots (PHALA_VM=1)")
	}
	n := newNode(t)
	d := n.driver()
	for _, c := range []struct {
		how, detail string
		code        int
	}{{"/panic", "panicked", codePanic}, {"/reset", "restarted itself", codeReset}} {
		i := n.launch(d)
		w := wait(t, i)
		ask(t, i, c.how)
		if e := w.end(t); e.Code != c.code || e.Requested || !strings.Contains(e.Detail, c.detail) {
			t.Errorf("%s: %+v", c.how, e)
		}
	}
	i := n.launch(d)
	w := wait(t, i)
	ask(t, i, "/disks")
	if err := unix.Kill(i.(*instance).rec.Process.PID, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := w.end(t); e.Code != 143 || e.Requested {
		t.Errorf("a SIGTERM of the host: %+v", e)
	}
}

// vsockOnly: a node that wants vsock and nothing else starts nothing without it.
func (n *node) vsockOnly() {
	t := n.t
	t.Helper()
	only := *n
	only.cfg.HostLink = LinkVSock
	d := only.driver()
	for want, vsock := range map[string]func(uint32) (*os.File, error){
		"load vhost_vsock":         func(uint32) (*os.File, error) { return nil, os.ErrNotExist },
		"stop the VM and start it": func(uint32) (*os.File, error) { return nil, unix.EADDRINUSE },
	} {
		d.vsock = vsock
		i, err := d.Launch(t.Context(), only.m)
		var coded *cvm.Error
		if i != nil || cvm.ReasonOf(err) != "vsock" || !errors.As(err, &coded) || !strings.Contains(coded.Fix, want) {
			t.Errorf("%s: %v, %v", want, i, err)
		}
	}
}

// refused: a launch that is wrong starts nothing and leaves nothing.
func (n *node) refused(d *Driver) {
	t := n.t
	t.Helper()
	n.vsockOnly()
	initrd := filepath.Join(n.im.Dir, "initramfs.cpio.gz")
	good := readFile(t, initrd)
	for want, edit := range map[string]func(*machine.Machine){
		"has sha256": func(*machine.Machine) { // a byte of the image's
			bad := bytes.Clone(good)
			bad[len(bad)/2] ^= 1
			writeFile(t, initrd, bad)
		},
		"and was":                    func(m *machine.Machine) { m.Image.Hash = cvm.ImageHash{1} },
		"want a lowercase UUID":      func(m *machine.Machine) { m.ID = "../x" },
		"too long for a unix socket": func(m *machine.Machine) { m.Run = "/" + strings.Repeat("r", 120) },
		"its size differs":           func(m *machine.Machine) { m.Size.VCPU = 2 },
		"its network cards differs":  func(m *machine.Machine) { m.NICs = append(m.NICs, userNIC(2)) },
		"not an interface name":      func(m *machine.Machine) { m.NICs = []machine.NIC{{Mode: machine.NICTap, MAC: mac(1), Tap: "a b"}} },
		"no guest reads": func(m *machine.Machine) {
			m.Shared = t.TempDir()
			writeFile(t, filepath.Join(m.Shared, "extra"), []byte("x"))
		},
	} {
		m := n.m
		edit(&m)
		i, err := d.Launch(t.Context(), m)
		if err == nil || !strings.Contains(err.Error(), want) || cvm.CodeOf(err) == cvm.Internal {
			t.Errorf("%s: %v (%s)", want, err, cvm.CodeOf(err))
		}
		if i != nil {
			t.Errorf("%s: an instance", want)
		}
		writeFile(t, initrd, good)
		if _, _, err := d.Adopt(t.Context(), vmID); cvm.CodeOf(err) != cvm.NotFound {
			t.Errorf("%s: something was started: %v", want, err)
		}
		if left, _ := filepath.Glob(filepath.Join(n.m.Run, "*")); len(left) != 0 {
			t.Errorf("%s: left over: %q", want, left)
		}
	}
	if b := readFile(t, initrd); !bytes.Equal(b, good) {
		t.Error("the test did not mend the image")
	}
}
