package cloud

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// hypervisor stands before the real QEMU on PATH: a host that starts the machine with
// other disks than its VMM said. What it runs first is a file, if that is there.
type hypervisor struct{ dir string }

var theQEMU hypervisor

// install puts the wrapper into dir and dir before everything else on PATH.
func (h *hypervisor) install(dir string) error {
	const name = "qemu-system-x86_64"
	program, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	h.dir = dir
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	script := fmt.Sprintf("#!/bin/sh\n[ ! -e %s ] || . %s\nexec %s \"$@\"\n", h.hook(), h.hook(), program)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
		return err
	}
	return os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func (h *hypervisor) hook() string { return filepath.Join(h.dir, "hook") }

// does makes each machine start with a shell fragment over QEMU's arguments, until
// the test has ended.
func (h *hypervisor) does(t *testing.T, eachArgument string) {
	t.Helper()
	text := "for a; do\n shift\n case $a in\n " + eachArgument + "\n esac\n set -- \"$@\" \"$a\"\ndone\n"
	if err := os.WriteFile(h.hook(), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(h.hook()) })
}
