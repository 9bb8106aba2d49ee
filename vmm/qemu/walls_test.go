package qemu

import (
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// ownDriver has a directory that a machine's user can reach, with the files of one
// machine in it.
func ownDriver(t *testing.T, format string) (*Driver, machine.Machine, paths) {
	t.Helper()
	dir, err := os.MkdirTemp("", "phala-walls-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	o := DefaultOptions()
	o.DiskFormat = format
	d, err := New(Config{Options: o, Dir: filepath.Join(dir, "machines"), Confine: walls(t)})
	if err != nil {
		t.Fatal(err)
	}
	shared := t.TempDir()
	writeFile(t, filepath.Join(shared, "app-compose.json"), []byte(`{}`))
	m := machine.Machine{ID: vmID, UID: testUID + 1, Size: machine.Size{VCPU: 1, MemoryMiB: 64, DiskMiB: 1}, Shared: shared}
	return d, m, d.paths(vmID)
}

// A hypervisor that was taken over writes to its disk and its console, and chooses
// no file of the host for the VMM, which is root, to read or write.
func TestHypervisorCannotChangeItsDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: user ids need root")
	}
	d, m, p := ownDriver(t, FormatRaw)
	if err := d.prepareFiles(t.Context(), m, p); err != nil {
		t.Fatal(err)
	}
	cage, err := d.cfg.Confine.Prepare(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := wall(cage, p); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(p.launch, runRecord{Run: "/secret"}); err != nil {
		t.Fatal(err)
	}
	try := func(script string) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", "cd "+p.dir+" && "+script)
		cage.Command(cmd)
		return cmd.Run()
	}
	for _, script := range []string{"echo x >> data.img", "echo x >> serial.log", "echo 1 > qemu.pid", "cat shared.img > /dev/null"} {
		if err := try(script); err != nil {
			t.Errorf("%s: %v", script, err)
		}
	}
	for _, script := range []string{"ln -s /etc/passwd x", "mv data.img y", "rm -f serial.log && ! test -e serial.log", "echo x >> shared.img", "chmod 666 shared.img",
		"echo x > launch.json", "cat launch.json", "echo x > launch.json.new", "chmod 777 ."} {
		if try(script) == nil {
			t.Errorf("%s: a hypervisor may do that", script)
		}
	}
}

// What an older VMM left to its hypervisors may be full of links.
func TestLinksInAMachinesDirectoryAreNotFollowed(t *testing.T) {
	for _, name := range []string{"shared.img", "serial.log", "qemu.pid", "data.img"} {
		d, m, p := ownDriver(t, FormatRaw)
		victim := filepath.Join(t.TempDir(), "victim")
		writeFile(t, victim, []byte("precious"))
		if err := os.MkdirAll(p.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(victim, filepath.Join(p.dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := d.prepareFiles(t.Context(), m, p); err == nil {
			t.Errorf("%s: a link was followed", name)
		}
		if b := readFile(t, victim); string(b) != "precious" {
			t.Errorf("%s: the file behind it is now %d bytes", name, len(b))
		}
	}
}

// qemu-img works as the VMM's user on a header that the hypervisor can write.
func TestADiskThatNamesAnotherFileIsRefused(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("SKIPPED: no qemu-img")
	}
	for what, change := range map[string]func([]byte){
		"backing file": func(h []byte) { binary.BigEndian.PutUint64(h[8:], 512) },
		"data file":    func(h []byte) { h[79] |= qcow2Foreign },
	} {
		d, m, p := ownDriver(t, FormatQCOW2)
		if err := d.prepareFiles(t.Context(), m, p); err != nil {
			t.Fatal(err)
		}
		b := readFile(t, p.data)
		change(b)
		writeFile(t, p.data, b)
		m.Size.DiskMiB = 2
		if err := d.ensureDisk(t.Context(), p, m.Size); cvm.ReasonOf(err) != "disk-foreign" || !strings.Contains(err.Error(), "another file") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
