package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// compare returns the number of equal files, or the first difference.
func compare(a, b string) (n int, err error) {
	as, err := files(a)
	if err != nil {
		return 0, err
	}
	bs, err := files(b)
	if err != nil {
		return 0, err
	}
	if len(as) == 0 {
		return 0, fmt.Errorf("%s holds no files", a)
	}
	if only := difference(as, bs); only != "" {
		return 0, fmt.Errorf("%s is in one of the builds only", only)
	}
	for _, name := range as {
		x, y := filepath.Join(a, name), filepath.Join(b, name)
		at, err := firstByte(x, y)
		if err != nil {
			return n, err
		}
		if at >= 0 {
			return n, fmt.Errorf("%s differs at byte %d%s", name, at, inside(x, y))
		}
		n++
	}
	return n, nil
}

func difference(a, b []string) string {
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			return b[i]
		case i >= len(b):
			return a[i]
		case a[i] != b[i]:
			return min(a[i], b[i])
		}
	}
	return ""
}

func files(dir string) (names []string, err error) {
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(dir, p)
			names = append(names, rel)
		}
		return err
	})
	// What describes the others comes last: the first difference is then the cause.
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	return names, err
}

func rank(name string) int {
	return slices.Index([]string{"metadata.json", "measurement.tdx.cbor", "measurement.snp.cbor", "sha256sum.txt", "digest.txt"}, filepath.Base(name))
}

// firstByte is the offset of the first difference, -1 when there is none.
func firstByte(a, b string) (int64, error) {
	x, err := os.Open(a)
	if err != nil {
		return 0, err
	}
	defer x.Close()
	y, err := os.Open(b)
	if err != nil {
		return 0, err
	}
	defer y.Close()
	rx, ry := bufio.NewReaderSize(x, 1<<20), bufio.NewReaderSize(y, 1<<20)
	for at := int64(0); ; at++ {
		p, errp := rx.ReadByte()
		q, errq := ry.ReadByte()
		if errp == io.EOF && errq == io.EOF {
			return -1, nil
		}
		if p != q || (errp == io.EOF) != (errq == io.EOF) {
			return at, nil
		}
		if errp != nil && errp != io.EOF {
			return at, errp
		}
	}
}

// inside names the first member of an archive that differs; "" for other files.
func inside(a, b string) string {
	read := members(a)
	if read == nil {
		return ""
	}
	x, errx := read(a)
	y, erry := read(b)
	if err := errors.Join(errx, erry); err != nil {
		return fmt.Sprintf(" (its members cannot be compared: %v)", err)
	}
	names := maps.Clone(x)
	maps.Copy(names, y)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if x[name] != y[name] {
			return fmt.Sprintf(": member %s: %s, %s", name, or(x[name]), or(y[name]))
		}
	}
	return ": its members are the same, their order or the container around them is not"
}

func or(s string) string {
	if s == "" {
		return "absent"
	}
	return s
}

func members(name string) func(string) (map[string]string, error) {
	switch {
	case strings.HasSuffix(name, ".tar"):
		return tarMembers
	case strings.HasSuffix(name, ".cpio.gz"):
		return cpioMembers
	case strings.HasSuffix(name, ".img"):
		return squashMembers
	}
	return nil
}

func tarMembers(name string) (map[string]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]string{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		d := sha256.New()
		if _, err := io.Copy(d, r); err != nil {
			return nil, err
		}
		out[h.Name] = fmt.Sprintf("type %c mode %o owner %d:%d time %d link %q sha256 %x", h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime.Unix(), h.Linkname, d.Sum(nil)[:8])
	}
}

func cpioMembers(name string) (map[string]string, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	if b, err = io.ReadAll(z); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for len(b) >= 110 {
		size, err1 := strconv.ParseUint(string(b[54:62]), 16, 31)
		length, err2 := strconv.ParseUint(string(b[94:102]), 16, 31)
		start := (110 + int(length) + 3) &^ 3
		end := start + (int(size)+3)&^3
		if errors.Join(err1, err2) != nil || length == 0 || end > len(b) {
			return nil, errors.New("not a newc archive")
		}
		member := string(b[110 : 110+length-1])
		if member == "TRAILER!!!" {
			break
		}
		out[member] = fmt.Sprintf("header %s sha256 %x", b[6:54], sha256.Sum256(b[start:start+int(size)]))
		b = b[end:]
	}
	return out, nil
}

// squashMembers asks unsquashfs for the listing; contents that differ show as sizes
// and, where those are equal, not at all.
func squashMembers(name string) (map[string]string, error) {
	text, err := exec.CommandContext(context.Background(), "unsquashfs", "-lln", name).Output()
	if err != nil {
		return nil, fmt.Errorf("unsquashfs -lln: %w", err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if meta, member, ok := strings.Cut(strings.TrimSpace(line), "squashfs-root"); ok {
			out["/"+strings.TrimPrefix(member, "/")] = strings.Join(strings.Fields(meta), " ")
		}
	}
	return out, nil
}
