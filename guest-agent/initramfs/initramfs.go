// Package initramfs is the first program of a virtual machine: it finds the disk that
// holds the root filesystem, opens it through dm-verity with the root hash of the
// measured command line, and hands over to the guest agent in it.
//
// It trusts the kernel, its own files and the command line, which are measured, and
// nothing of a disk before the hash tree has been checked. Run does not return: it
// ends in the agent or with one line on the console and the power switched off.
package initramfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/verity"
)

// Agent is the program in the root filesystem that takes over, as PID 1.
const Agent = "/usr/bin/phala-guest-agent"

const (
	// Serial is the serial number by which the host marks the disk of the root filesystem.
	Serial   = "phala-rootfs"
	diskWait = 10 * time.Second
	newRoot  = "/newroot"
)

// Reasons of a refusal, beside those of internal/verity (cmdline, rootfs-superblock,
// rootfs-hash-mismatch, rootfs-corrupt).
const (
	ReasonMissing = "rootfs-missing"
	ReasonCorrupt = "rootfs-corrupt"
	ReasonInit    = "init" // the machine or this program itself
)

// Run is PID 1's work, all of it.
func Run() {
	err := guarded(boot)
	// The line is what the operator and the tests see: one, with the reason first.
	fmt.Printf("\nphala-initramfs: %s\n", Line(err))
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // PID 1 must not end: that would be a kernel panic, with another reason
}

// Line is "<reason>: <text>" of a refusal.
func Line(err error) string {
	reason := cvm.ReasonOf(err)
	if reason == "" {
		reason = ReasonInit
	}
	return reason + ": " + strings.ReplaceAll(err.Error(), "\n", " ")
}

// guarded turns a panic into an error.
func guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

func boot() error {
	if os.Getpid() != 1 {
		return errors.New("this is the first program of a virtual machine, not for use anywhere else")
	}
	if err := mountKernel(); err != nil {
		return err
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	root, err := verity.ParseCmdline(string(cmdline))
	if err != nil {
		return err
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	disk, err := findDisk("/sys/block", Serial, diskWait)
	if err != nil {
		return err
	}
	v, err := openVerity(disk, root)
	if err != nil {
		return err
	}
	if err := mountRoot(v.path()); err != nil {
		return err
	}
	if err := readAll(newRoot + Agent); err != nil {
		return cvm.Errorf(cvm.Invalid, "reading %s from the root filesystem: %w", Agent, err).WithReason(ReasonCorrupt)
	}
	// From here on damage stops the machine at once: a program that gets an error
	// where the host chose to corrupt a block would be an attack surface.
	if err := v.panicOnCorruption(); err != nil {
		return err
	}
	return handOver()
}

// readAll reads a file to its end, so that a damaged block is found while it can
// still be named.
func readAll(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}
