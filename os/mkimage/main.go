// Command mkimage makes the files of a virtual machine's image that no Debian tool
// makes: the initramfs, the tar that becomes the squashfs, its hash tree, the
// metadata, the measurement documents and the bill of materials. os/build.sh runs
// it; equal inputs give equal bytes.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	var c config
	flag.StringVar(&c.base, "base", "", "the Debian root filesystem, a tar")
	flag.StringVar(&c.agent, "agent", "", "the guest agent, static")
	flag.StringVar(&c.initProgram, "init", "", "the initramfs's program, static")
	flag.StringVar(&c.boot, "boot", "", "directory into which the kernel's and the firmware's packages are unpacked")
	flag.StringVar(&c.snpFirmware, "snp-firmware", "", "firmware for SEV-SNP machines, with a page for the kernel's hashes (default: none)")
	flag.StringVar(&c.modules, "modules", "", "the list of kernel modules")
	flag.StringVar(&c.lock, "lock", "", "the lock file that the packages came from")
	flag.StringVar(&c.version, "version", "", "version of the image")
	flag.BoolVar(&c.dev, "dev", false, "the dev flavour")
	flag.BoolVar(&c.unlocked, "unlocked", false, "the lock file is not the released one")
	flag.Int64Var(&c.epoch, "epoch", 0, "modification time of everything, Unix seconds")
	flag.IntVar(&c.level, "level", 15, "compression of the root filesystem, 1 (fast) to 22")
	flag.StringVar(&c.out, "out", "", "directory for the files; must exist")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := c.build(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}
