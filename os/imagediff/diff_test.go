package main

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func archive(t *testing.T, mode int64, content string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct {
		name, content string
		mode          int64
	}{{"etc/a", "same", 0o644}, {"etc/b", content, mode}} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content)), ModTime: time.Unix(1, 0)}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCompare(t *testing.T) {
	base := map[string]string{"x/digest.txt": "1\n", "x/rootfs.tar": archive(t, 0o644, "b")}
	for _, c := range []struct {
		name   string
		change map[string]string
		want   string // "": equal
	}{
		{"same", nil, ""},
		{"a file", map[string]string{"x/digest.txt": "2\n"}, "x/digest.txt differs at byte 0"},
		{"longer", map[string]string{"x/digest.txt": "1\n\n"}, "x/digest.txt differs at byte 2"},
		{"one more", map[string]string{"x/more": ""}, "x/more is in one of the builds only"},
		{"a member's content", map[string]string{"x/rootfs.tar": archive(t, 0o644, "c")}, "member etc/b"},
		{"a member's mode", map[string]string{"x/rootfs.tar": archive(t, 0o600, "b")}, "member etc/b"},
		{"trailing bytes", map[string]string{"x/rootfs.tar": base["x/rootfs.tar"] + "\x00"}, "its members are the same"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := t.TempDir(), t.TempDir()
			for name, content := range base {
				write(t, a, name, content)
				write(t, b, name, content)
			}
			for name, content := range c.change {
				write(t, b, name, content)
			}
			n, err := compare(a, b)
			if c.want == "" && (err != nil || n != len(base)) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%d, %v: want %q", n, err, c.want)
			}
		})
	}
	if _, err := compare(t.TempDir(), t.TempDir()); err == nil {
		t.Error("nothing equals nothing")
	}
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
