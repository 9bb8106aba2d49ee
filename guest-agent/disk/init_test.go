package disk

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain is also the init of the test machine (machine_test.go): there it prepares
// what a kernel leaves to init, runs the tests that its command line names, and
// powers off.
func TestMain(m *testing.M) {
	if os.Getpid() != 1 {
		os.Exit(m.Run())
	}
	if err := prepareMachine(); err != nil {
		fmt.Println("MACHINE:", err)
	}
	fmt.Printf("MACHINE: exit %d\n", m.Run())
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("MACHINE: power off:", err)
	}
	select {}
}

func prepareMachine() error {
	if err := os.Setenv("PATH", "/usr/sbin:/usr/bin"); err != nil {
		return err
	}
	for _, m := range [][3]string{{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"devtmpfs", "/dev", ""}, {"tmpfs", "/run", "mode=755"}, {"tmpfs", "/tmp", "size=1500m"}} {
		if err := os.MkdirAll(m[1], 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m[0], m[1], m[0], 0, m[2]); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	for _, name := range machineModules() {
		if out, err := exec.Command("modprobe", name).CombinedOutput(); err != nil {
			return fmt.Errorf("modprobe %s: %w: %s", name, err, out)
		}
	}
	return nil
}

// machineModules is what a guest's kernel needs for its data disk, loop and the
// virtio disk being the test's.
func machineModules() []string {
	return []string{"loop", "virtio_pci", "virtio_blk", "dm-mod", "dm-crypt", "dm-integrity", "algif_skcipher", "algif_aead", "authenc", "xts", "hmac", "sha256", "aes", "btrfs", "aegis128", "aegis128-aesni", "gcm"}
}
