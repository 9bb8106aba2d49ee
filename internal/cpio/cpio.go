// Package cpio writes initramfs archives: the "newc" format that the Linux kernel
// unpacks (Documentation/driver-api/early-userspace/buffer-format.rst), compressed with
// gzip. The same entries give the same bytes.
package cpio

import (
	"bytes"
	"compress/gzip"
	"fmt"
)

// Kinds of files, to be combined with permissions into a mode.
const (
	Dir  = 0o040000
	File = 0o100000
	Char = 0o020000
	Link = 0o120000 // symbolic; its content is its target
)

// Archive is what was added so far; the zero value is empty. Inode numbers count up,
// owner is root, there are no hard links.
type Archive struct {
	Time int64 // of modification of what is added from now on, Unix seconds
	b    bytes.Buffer
	ino  int
}

// Add appends a directory, a file, a symbolic link, or the device major:minor. Directories come before
// what is in them.
func (a *Archive) Add(name string, mode, major, minor int, content []byte) {
	a.ino++
	fmt.Fprintf(&a.b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", a.ino, mode, 0, 0, 1, a.Time, len(content),
		0, 0, major, minor, len(name)+1, 0)
	a.b.WriteString(name + "\x00")
	a.pad(4)
	a.b.Write(content)
	a.pad(4)
}

func (a *Archive) pad(n int) {
	for a.b.Len()%n != 0 {
		a.b.WriteByte(0)
	}
}

// Gzip ends the archive and compresses it. Nothing may be added afterwards.
func (a *Archive) Gzip() ([]byte, error) {
	a.ino, a.Time = -1, 0
	a.Add("TRAILER!!!", 0, 0, 0, nil)
	a.pad(512)
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression) // no name, no time
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(a.b.Bytes()); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
