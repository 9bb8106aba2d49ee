// Command init is the empty init of the bench: it says a word and powers off.
package main

import (
	"fmt"
	"syscall"
)

func main() {
	fmt.Println("bench: the kernel has come to its init")
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}
