package initramfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
)

type mount struct {
	source, target, fs, data string
	flags                    uintptr
}

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.fs, m.flags, m.data); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", m.fs, m.target, err)
	}
	return nil
}

const hardened = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// mountKernel mounts what the kernel offers; handOver moves it.
func mountKernel() error {
	for _, m := range []mount{
		{"proc", "/proc", "proc", "", hardened},
		{"sysfs", "/sys", "sysfs", "", hardened},
		{"devtmpfs", "/dev", "devtmpfs", "mode=0755", unix.MS_NOSUID},
	} {
		if err := m.do(); err != nil && !errors.Is(err, unix.EBUSY) { // the kernel may have mounted /dev itself
			return err
		}
	}
	return nil
}

// loadModules loads the kernel modules that dir/list names, one file name per line, in
// that order. A missing or refused one is an error: the list was made for this kernel.
func loadModules(dir string) error {
	list, err := os.ReadFile(filepath.Join(dir, "list"))
	if err != nil {
		return err
	}
	for sc := bufio.NewScanner(bytes.NewReader(list)); sc.Scan(); {
		f, err := os.Open(filepath.Join(dir, filepath.Base(sc.Text())))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("loading the kernel module %s: %w", sc.Text(), err)
		}
	}
	return nil
}

// volatileDirs are the writable parts of the root; what is written there is gone at the
// next boot.
var volatileDirs = [...]string{"etc", "var"} //nolint:gochecknoglobals // constant

// mountRoot mounts the verified device with its writable layers on newRoot.
func mountRoot(device string) error {
	if err := (mount{device, newRoot, "squashfs", "", unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID}).do(); err != nil {
		return cvm.Errorf(cvm.Invalid, "%w", err).WithReason(ReasonCorrupt)
	}
	const layers = "/layers"
	mounts := []mount{{"tmpfs", layers, "tmpfs", "mode=0700", unix.MS_NODEV | unix.MS_NOSUID}}
	for _, d := range volatileDirs {
		lower, upper, work := newRoot+"/"+d, layers+"/"+d, layers+"/."+d
		mounts = append(mounts, mount{"overlay", lower, "overlay", "lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + work, unix.MS_NODEV | unix.MS_NOSUID})
	}
	mounts = append(mounts,
		mount{"tmpfs", newRoot + "/run", "tmpfs", "mode=0755", unix.MS_NODEV | unix.MS_NOSUID},
		mount{"tmpfs", newRoot + "/tmp", "tmpfs", "mode=1777", unix.MS_NODEV | unix.MS_NOSUID},
		mount{"tmpfs", newRoot + "/root", "tmpfs", "mode=0700", unix.MS_NODEV | unix.MS_NOSUID})
	for i, m := range mounts {
		if err := m.do(); err != nil {
			return cvm.Errorf(cvm.Invalid, "%w", err).WithReason(ReasonCorrupt)
		}
		if i > 0 {
			continue
		}
		for _, d := range volatileDirs { // on the tmpfs that is now there
			if err := errors.Join(os.Mkdir(layers+"/"+d, 0o755), os.Mkdir(layers+"/."+d, 0o700)); err != nil {
				return err
			}
		}
	}
	// The layers stay alive through the overlays; nobody needs their other name.
	return unix.Unmount(layers, unix.MNT_DETACH)
}

// handOver makes newRoot the root and becomes the agent. It returns only an error.
func handOver() error {
	for _, d := range []string{"/dev", "/sys", "/proc"} {
		if err := unix.Mount(d, newRoot+d, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("moving %s: %w", d, err)
		}
	}
	// The initramfs is memory: its files go before they can no longer be named.
	for _, f := range []string{"/modules", "/init"} {
		if err := os.RemoveAll(f); err != nil {
			return err
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the root: %w", err)
	}
	if err := errors.Join(unix.Chroot("."), os.Chdir("/")); err != nil {
		return err
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=linux"}
	err := unix.Exec(Agent, []string{Agent, "init"}, env)
	return cvm.Errorf(cvm.Invalid, "starting %s: %w", Agent, err).WithReason(ReasonCorrupt)
}
