// The guest of the driver's tests: a first process that loads the modules beside
// it, speaks the host link and does what it is told.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/guest-agent/vm"
	"github.com/confidential-cloud/phala/internal/hostlink"
	"github.com/confidential-cloud/phala/internal/hostshare"
)

const run = "/run"

func main() {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", run}} {
		_ = os.MkdirAll(m[1], 0o755)
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			fmt.Println("tiny guest: mount", m[1], err)
		}
	}
	for _, m := range []string{"virtio_blk", "button", "evdev", "vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"} {
		load("/modules/" + m + ".ko")
	}
	fmt.Println("tiny guest: up")
	go power()
	l, err := net.Listen("unix", filepath.Join(run, hostlink.GuestSock))
	if err != nil {
		fmt.Println("tiny guest:", err)
		off()
	}
	go func() { _ = http.Serve(l, routes()) }() //nolint:gosec // a test
	err = hostlink.NewGuest(hostlink.Config{RunDir: run, Open: vm.OpenLink}).Run(context.Background())
	fmt.Println("tiny guest: link:", err)
	off()
}

func load(path string) {
	f, err := os.Open(path)
	if err == nil {
		err = unix.FinitModule(int(f.Fd()), "", 0)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		fmt.Println("tiny guest: module", path, err)
	}
}

// power ends the guest when its power button is pressed.
func power() {
	names, _ := filepath.Glob("/dev/input/event*")
	for _, n := range names {
		go func() {
			f, err := os.Open(n)
			if err != nil {
				return
			}
			b := make([]byte, 24)
			for {
				if _, err := io.ReadFull(f, b); err != nil {
					return
				}
				if binary.NativeEndian.Uint16(b[16:]) == 1 && binary.NativeEndian.Uint16(b[18:]) == 116 {
					fmt.Println("tiny guest: power button")
					off()
				}
			}
		}()
	}
}

func off() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func routes() http.Handler {
	mux := http.NewServeMux()
	later := func(f func()) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			go func() { time.Sleep(100 * time.Millisecond); f() }() // after the answer
		}
	}
	mux.HandleFunc("/off", later(off))
	mux.HandleFunc("/reset", later(func() { _ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) }))
	mux.HandleFunc("/panic", later(func() { _ = os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0) }))
	mux.HandleFunc("/disks", disks)
	mux.HandleFunc("/shared", shared)
	mux.HandleFunc("/quote", func(w http.ResponseWriter, r *http.Request) {
		q, err := simtee.NewDevice(filepath.Join(run, hostlink.TEESock)).Quote(r.Context(), [64]byte{7})
		reply(w, q, err)
	})
	return mux
}

// disks says which disks there are: serial, read-only, size in sectors.
func disks(w http.ResponseWriter, _ *http.Request) {
	serials, _ := filepath.Glob("/sys/block/vd*/serial")
	for _, s := range serials {
		d := filepath.Dir(s)
		fmt.Fprintf(w, "%s ro=%s %s\n", read(s), read(filepath.Join(d, "ro")), read(filepath.Join(d, "size")))
	}
}

// shared unpacks the shared disk and returns the app-compose.
func shared(w http.ResponseWriter, _ *http.Request) {
	serials, _ := filepath.Glob("/sys/block/vd*/serial")
	for _, s := range serials {
		if read(s) != "phala-shared" {
			continue
		}
		f, err := os.Open("/dev/" + filepath.Base(filepath.Dir(s)))
		var b []byte
		if err == nil {
			dir := filepath.Join(run, "shared")
			if err = errors.Join(os.MkdirAll(dir, 0o700), hostshare.Unpack(f, dir)); err == nil {
				b, err = os.ReadFile(filepath.Join(dir, hostshare.AppCompose))
			}
		}
		reply(w, b, err)
	}
}

func read(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

func reply(w http.ResponseWriter, b []byte, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(b)
}
