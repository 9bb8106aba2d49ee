package hostshare

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for n, s := range files {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func pack(t *testing.T, files map[string]string) []byte {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, files)
	var b bytes.Buffer
	if err := Pack(&b, dir); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sample() map[string]string {
	return map[string]string{AppCompose: `{"manifest_version":2}`, SysConfig: strings.Repeat("x", 512), UserConfig: "", InstanceInfo: "{}"}
}

func TestFilesArriveAndTheArchiveIsCanonical(t *testing.T) {
	a := pack(t, sample())
	if len(a)%block != 0 {
		t.Fatalf("%d bytes is not a whole number of sectors", len(a))
	}
	if !bytes.Equal(a, pack(t, sample())) {
		t.Fatal("two archives of the same files differ")
	}
	dir := filepath.Join(t.TempDir(), "in")
	if err := Unpack(bytes.NewReader(a), dir); err != nil {
		t.Fatal(err)
	}
	for n, want := range sample() {
		b, err := os.ReadFile(filepath.Join(dir, n))
		if err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", n, b, err)
		}
		st, _ := os.Stat(filepath.Join(dir, n))
		if st.Mode() != 0o600 {
			t.Errorf("%s has mode %v", n, st.Mode())
		}
	}
	if st, _ := os.Stat(dir); st.Mode().Perm() != 0o700 {
		t.Errorf("directory has mode %v", st.Mode())
	}
	if err := Unpack(bytes.NewReader(a), dir); cvm.ReasonOf(err) != Reason {
		t.Errorf("a directory with files was accepted: %v", err)
	}
}

// entry makes an archive by hand.
func entry(t *testing.T, h *tar.Header, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h.Size = int64(len(content))
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte(content))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func edit(b []byte, f func([]byte)) []byte {
	b = bytes.Clone(b)
	f(b)
	return b
}

func TestRefusedArchives(t *testing.T) {
	good := pack(t, map[string]string{AppCompose: "{}", SysConfig: "[]"})
	one := func(name string) *tar.Header { return header(name, 0) }
	with := func(f func(*tar.Header)) []byte {
		h := one(SysConfig)
		f(h)
		if h.Typeflag != tar.TypeReg {
			return entry(t, h, "")
		}
		return entry(t, h, "{}")
	}
	twice := append(bytes.Clone(good[:1024]), good...)
	for name, c := range map[string]struct {
		archive []byte
		want    string
	}{
		"empty":              {nil, "end mark"},
		"cut header":         {good[:100], "end mark"},
		"cut content":        {good[:513], "cut short"},
		"no end mark":        {good[:2048], "end mark"},
		"half an end mark":   {good[:2048+512], "end mark is one block"},
		"bytes after it":     {append(bytes.Clone(good), 0), "after the end"},
		"a name not known":   {entry(t, one("id_rsa"), "{}"), "no guest reads"},
		"a path":             {entry(t, one("../app-compose.json"), "{}"), "no guest reads"},
		"an absolute path":   {entry(t, one("/app-compose.json"), "{}"), "no guest reads"},
		"a symbolic link":    {with(func(h *tar.Header) { h.Typeflag, h.Linkname = tar.TypeSymlink, "/etc/shadow" }), "one form"},
		"a hard link":        {with(func(h *tar.Header) { h.Typeflag, h.Linkname = tar.TypeLink, "/etc/shadow" }), "one form"},
		"a directory":        {with(func(h *tar.Header) { h.Typeflag = tar.TypeDir }), "one form"},
		"a device":           {with(func(h *tar.Header) { h.Typeflag = tar.TypeBlock }), "one form"},
		"another mode":       {with(func(h *tar.Header) { h.Mode = 0o4755 }), "one form"},
		"an owner":           {with(func(h *tar.Header) { h.Uid = 1 }), "one form"},
		"extended header":    {with(func(h *tar.Header) { h.Format = tar.FormatPAX; h.PAXRecords = map[string]string{"a.b": "c"} }), "no guest reads"},
		"twice":              {twice, "twice"},
		"out of order":       {append(bytes.Clone(good[1024:2048]), good...), "out of order"},
		"dirty padding":      {edit(good, func(b []byte) { b[512+100] = 1 }), "after its end"},
		"a wrong checksum":   {edit(good, func(b []byte) { b[150]++ }), "one form"},
		"bytes in the name":  {edit(good, func(b []byte) { b[60] = 'x' }), "one form"},
		"no size":            {edit(good, func(b []byte) { copy(b[124:], "zzzzzzzzzzz") }), "no size"},
		"a negative size":    {edit(good, func(b []byte) { copy(b[124:], "-0000000002") }), "no size"},
		"a size over 32 KiB": {entry(t, one(SysConfig), strings.Repeat(" ", 32<<10+1)), "the limit is"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			err := Unpack(bytes.NewReader(c.archive), dir)
			if err == nil || !strings.Contains(err.Error(), c.want) || cvm.ReasonOf(err) != Reason {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Fatalf("left behind: %v", left)
			}
		})
	}
}

func TestPackRefusesWhatNoGuestReads(t *testing.T) {
	for name, prepare := range map[string]func(dir string) error{
		"unknown name": func(d string) error { return os.WriteFile(filepath.Join(d, "notes"), nil, 0o600) },
		"symbolic link": func(d string) error {
			return os.Symlink("/etc/hostname", filepath.Join(d, SysConfig))
		},
		"fifo":      func(d string) error { return unix.Mkfifo(filepath.Join(d, SysConfig), 0o600) },
		"directory": func(d string) error { return os.Mkdir(filepath.Join(d, SysConfig), 0o700) },
		"too long": func(d string) error {
			return os.WriteFile(filepath.Join(d, SysConfig), make([]byte, 32<<10+1), 0o600)
		},
	} {
		dir := t.TempDir()
		if err := prepare(dir); err != nil {
			t.Fatal(err)
		}
		if err := Pack(&bytes.Buffer{}, dir); cvm.ReasonOf(err) != Reason {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzUnpack: what is accepted packs to the same bytes again.
func FuzzUnpack(f *testing.F) {
	dir := f.TempDir()
	for n, s := range sample() {
		_ = os.WriteFile(filepath.Join(dir, n), []byte(s), 0o600)
	}
	var b bytes.Buffer
	if err := Pack(&b, dir); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(make([]byte, 1024))
	f.Fuzz(func(t *testing.T, in []byte) {
		dir := t.TempDir()
		if Unpack(bytes.NewReader(in), dir) != nil {
			return
		}
		var out bytes.Buffer
		if err := Pack(&out, dir); err != nil || !bytes.Equal(in, out.Bytes()) {
			t.Fatalf("accepted, and packs differently (%v)", err)
		}
	})
}
