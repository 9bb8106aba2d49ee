// Command imagediff compares two directories of images byte by byte. It names the
// first file that differs and, in an archive (tar, cpio.gz, squashfs), the first member.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: imagediff DIR DIR")
		os.Exit(2)
	}
	n, err := compare(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "repro:", err)
		os.Exit(1)
	}
	fmt.Printf("repro: %d files are the same, byte by byte\n", n)
}
