// The init of an emulated machine whose clock is in question: it says how the clock was
// when the machine began and after it was checked, and powers off.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/guest-agent/vm"
)

func main() {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		_ = os.MkdirAll(m[1], 0o755)
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			fmt.Println("CLOCK mount", m[1], err)
		}
	}
	settled := vm.CheckClock(context.Background(), slog.New(slog.NewTextHandler(os.Stdout, nil)))
	if err := settled(context.Background()); err != nil {
		fmt.Println("CLOCK", err)
	}
	source, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	fmt.Printf("CLOCK source=%s %v\n", strings.TrimSpace(string(source)), err)
	// The host reads its own clock when it reads these.
	for range 2 {
		fmt.Printf("CLOCK time=%d\n", time.Now().UnixNano())
		time.Sleep(4 * time.Second)
	}
	fmt.Println("CLOCK end")
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}
