// Command agent stands for the guest agent in the boot test: it says in which
// surroundings it was started, reads a file, and switches the machine off.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

func writable(dir string) bool {
	f, err := os.CreateTemp(dir, "try")
	if err == nil {
		f.Close()
	}
	return err == nil
}

func main() {
	fmt.Printf("\nAGENT pid=%d args=%s root=%v usr=%v etc=%v var=%v run=%v tmp=%v\n", os.Getpid(), strings.Join(os.Args[1:], ","),
		writable("/"), writable("/usr"), writable("/etc"), writable("/var"), writable("/run"), writable("/tmp"))
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		fmt.Println("MOUNT", strings.Join(strings.Fields(line)[1:3], " "))
	}
	f, err := os.Open("/usr/share/blob")
	if err == nil {
		_, err = io.Copy(io.Discard, f)
	}
	fmt.Printf("READ %v\n", err)
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}
