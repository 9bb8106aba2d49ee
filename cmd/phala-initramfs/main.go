// Command phala-initramfs is /init of the guest image's initramfs. It takes no
// arguments and is of no use outside a virtual machine that is starting.
package main

import "github.com/confidential-cloud/phala/guest-agent/initramfs"

func main() { initramfs.Run() }
