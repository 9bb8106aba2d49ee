package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"path"
	"strings"
	"time"
)

// cpioWriter writes the "newc" format that the kernel unpacks. Inode numbers count up,
// owner is root, there are no links: the same entries give the same bytes.
type cpioWriter struct {
	b    bytes.Buffer
	ino  int
	time int64
}

const (
	cpioDir  = 0o040000
	cpioFile = 0o100000
	cpioChar = 0o020000
)

func (w *cpioWriter) add(name string, mode int, major, minor int, content []byte) {
	w.ino++
	fmt.Fprintf(&w.b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", w.ino, mode, 0, 0, 1, w.time, len(content),
		0, 0, major, minor, len(name)+1, 0)
	w.b.WriteString(name + "\x00")
	w.pad()
	w.b.Write(content)
	w.pad()
}

func (w *cpioWriter) pad() {
	for w.b.Len()%4 != 0 {
		w.b.WriteByte(0)
	}
}

func (w *cpioWriter) trailer() []byte {
	w.ino, w.time = -1, 0
	w.add("TRAILER!!!", 0, 0, 0, nil)
	for w.b.Len()%512 != 0 {
		w.b.WriteByte(0)
	}
	return w.b.Bytes()
}

// initramfs is the archive of one program and the modules that it loads.
func initramfs(program []byte, early []module, at time.Time) ([]byte, error) {
	w := cpioWriter{time: at.Unix()}
	var list strings.Builder
	for _, d := range []string{"dev", "layers", "modules", "newroot", "proc", "sys"} {
		w.add(d, cpioDir|0o755, 0, 0, nil)
	}
	w.add("dev/console", cpioChar|0o600, 5, 1, nil)
	w.add("init", cpioFile|0o755, 0, 0, program)
	for _, m := range early {
		w.add("modules/"+path.Base(m.path), cpioFile|0o644, 0, 0, m.content)
		list.WriteString(path.Base(m.path) + "\n")
	}
	w.add("modules/list", cpioFile|0o644, 0, 0, []byte(list.String()))
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression) // no name, no time
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(w.trailer()); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
