package main

import (
	"path"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/internal/cpio"
)

// initramfs is the archive of one program and the modules that it loads.
func initramfs(program []byte, early []module, at time.Time) ([]byte, error) {
	w := cpio.Archive{Time: at.Unix()}
	var list strings.Builder
	for _, d := range []string{"dev", "layers", "modules", "newroot", "proc", "sys"} {
		w.Add(d, cpio.Dir|0o755, 0, 0, nil)
	}
	w.Add("dev/console", cpio.Char|0o600, 5, 1, nil)
	w.Add("init", cpio.File|0o755, 0, 0, program)
	for _, m := range early {
		w.Add("modules/"+path.Base(m.path), cpio.File|0o644, 0, 0, m.content)
		list.WriteString(path.Base(m.path) + "\n")
	}
	w.Add("modules/list", cpio.File|0o644, 0, 0, []byte(list.String()))
	return w.Gzip()
}
