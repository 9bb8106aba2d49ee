package teefs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/simtee/teefs"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

// tree is a mounted TD.
type tree struct {
	*testing.T
	root, report, registers string
}

func newTree(t *testing.T, change func(*simtee.TD) teefs.Device) tree {
	t.Helper()
	h, err := simtee.New(simtee.Config{Seed: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	td, err := h.NewTD("a", simtee.Shape{MRTD: cvm.Measurement{1}, MRConfigID: cvm.Measurement{2}, RTMR: [3]cvm.Measurement{{3}, {4}, {5}}, CCEL: []byte("the log")})
	if err != nil {
		t.Fatal(err)
	}
	d := teefs.Device(td)
	if change != nil {
		d = change(td)
	}
	dir := t.TempDir()
	f, err := teefs.Mount(dir, d)
	if err != nil {
		if _, serr := os.Stat("/dev/fuse"); serr != nil || os.Geteuid() != 0 {
			t.Skipf("SKIPPED: no FUSE here: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(f.Close(), f.Close()); err != nil {
			t.Error(err)
		}
	})
	return tree{t, dir, filepath.Join(dir, teefs.ConfigFS, "tsm/report"), filepath.Join(dir, "sys/devices/virtual/misc/tdx_guest/measurements")}
}

func (t tree) entry(name string) string {
	t.Helper()
	p := filepath.Join(t.report, name)
	if err := os.Mkdir(p, 0o700); err != nil {
		t.Fatal(err)
	}
	return p
}

func put(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

func (t tree) generation(entry string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(entry, "generation"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func want(t *testing.T, what string, err error, e syscall.Errno) {
	t.Helper()
	if !errors.Is(err, e) {
		t.Errorf("%s: %v, want %v", what, err, e)
	}
}

func get(path string) error { _, err := os.ReadFile(path); return err }

func TestReportEntry(t *testing.T) {
	tr := newTree(t, nil)
	e := tr.entry("e")
	in, out := filepath.Join(e, "inblob"), filepath.Join(e, "outblob")
	if g := tr.generation(e); g != "0\n" {
		t.Errorf("generation of a new entry %q", g)
	}
	if b, err := os.ReadFile(filepath.Join(e, "provider")); err != nil || string(b) != "tdx_guest\n" {
		t.Errorf("provider %q %v", b, err)
	}
	want(t, "a report of nothing", get(out), syscall.EINVAL)
	if err := put(in, bytes.Repeat([]byte{7}, 64)); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	q, err := tdx.ParseQuote(first)
	if err != nil || q.Body.ReportData != [64]byte(bytes.Repeat([]byte{7}, 64)) {
		t.Errorf("%v", err)
	}
	if again, err := os.ReadFile(out); err != nil || !bytes.Equal(first, again) || tr.generation(e) != "1\n" {
		t.Error("reading changed the report")
	}
	if err := put(in, make([]byte, 64)); err != nil || tr.generation(e) != "2\n" {
		t.Errorf("second generation %q: %v", tr.generation(e), err)
	}
	if second, err := os.ReadFile(out); err != nil || bytes.Equal(first, second) {
		t.Errorf("the old report for a new input: %v", err)
	}
	want(t, "input too long", put(in, make([]byte, 65)), syscall.EFBIG)
	if err := put(in, make([]byte, 63)); err != nil { // Linux takes it, the TDX provider refuses
		t.Error(err)
	}
	want(t, "a report of 63 bytes", get(out), syscall.EINVAL)
	names, err := os.ReadDir(e)
	if err != nil || len(names) != 4 { // a TDX guest has no privilege levels
		t.Errorf("%v %v", names, err)
	}
	if err := os.Remove(e); err != nil {
		t.Error(err)
	}
	want(t, "a removed entry", put(in, make([]byte, 64)), syscall.ENOENT)
}

// An open file of a removed entry is dead: its name may be somebody else's now.
func TestRemovedEntry(t *testing.T) {
	tr := newTree(t, nil)
	e := tr.entry("e")
	if err := put(filepath.Join(e, "inblob"), make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(e, "outblob"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(e); err != nil {
		t.Fatal(err)
	}
	tr.entry("e")
	_, err = f.Read(make([]byte, 10))
	want(t, "read", err, syscall.ENOENT)
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestRefusedByMode(t *testing.T) {
	tr := newTree(t, nil)
	e := tr.entry("e")
	for _, f := range []string{"outblob", "generation", "provider"} {
		want(t, "writing "+f, put(filepath.Join(e, f), []byte("1")), syscall.EACCES)
	}
	want(t, "reading inblob", get(filepath.Join(e, "inblob")), syscall.EACCES)
	want(t, "a file of one's own", os.WriteFile(filepath.Join(e, "x"), nil, 0o600), syscall.EACCES)
	want(t, "a file beside the entries", os.WriteFile(filepath.Join(tr.report, "x"), nil, 0o600), syscall.EACCES)
	want(t, "removing an attribute", os.Remove(filepath.Join(e, "inblob")), syscall.EPERM)
	want(t, "a directory in an entry", os.Mkdir(filepath.Join(e, "x"), 0o700), syscall.EPERM)
	want(t, "removing the subsystem", syscall.Rmdir(tr.report), syscall.EPERM)
	want(t, "chmod", os.Chmod(filepath.Join(e, "outblob"), 0o666), syscall.EPERM)
	want(t, "the same entry twice", os.Mkdir(e, 0o700), syscall.EEXIST)
}

func TestRegisters(t *testing.T) {
	tr := newTree(t, nil)
	reg := func(name string) cvm.Measurement {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(tr.registers, name))
		if err != nil || len(b) != 48 {
			t.Fatalf("%s: %d bytes, %v", name, len(b), err)
		}
		return cvm.Measurement(b)
	}
	for name, want := range map[string]cvm.Measurement{
		"mrtd:sha384": {1}, "mrconfigid": {2}, "mrowner": {}, "mrownerconfig": {},
		"rtmr0:sha384": {3}, "rtmr1:sha384": {4}, "rtmr2:sha384": {5}, "rtmr3:sha384": {},
	} {
		if got := reg(name); got != want {
			t.Errorf("%s %s", name, got)
		}
	}
	d := bytes.Repeat([]byte{0xab}, 48)
	for _, r := range []string{"mrtd:sha384", "mrconfigid", "rtmr0:sha384", "rtmr1:sha384"} {
		want(t, "writing "+r, put(filepath.Join(tr.registers, r), d), syscall.EACCES)
	}
	r3 := filepath.Join(tr.root, "sys/class/misc/tdx_guest/measurements/rtmr3:sha384") // the other way to it
	for range 2 {
		if err := put(r3, d); err != nil {
			t.Fatal(err)
		}
	}
	twice := eventlog.Extend(eventlog.Extend(cvm.Measurement{}, cvm.Measurement(d)), cvm.Measurement(d))
	if got := reg("rtmr3:sha384"); got != twice {
		t.Errorf("RTMR3 %s, want %s", got, twice)
	}
	for _, n := range []int{1, 47, 49, 96} {
		want(t, fmt.Sprintf("%d bytes", n), put(r3, make([]byte, n)), syscall.EINVAL)
	}
	f, err := os.OpenFile(r3, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(d, 1)
	want(t, "an offset", err, syscall.EINVAL)
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if got := reg("rtmr3:sha384"); got != twice {
		t.Error("a refused write changed RTMR3")
	}
}

func TestEventLog(t *testing.T) {
	tr := newTree(t, nil)
	acpi := filepath.Join(tr.root, "sys/firmware/acpi/tables")
	if b, err := os.ReadFile(filepath.Join(acpi, "data/CCEL")); err != nil || string(b) != "the log" {
		t.Errorf("%q %v", b, err)
	}
	table, err := os.ReadFile(filepath.Join(acpi, "CCEL"))
	if err != nil || len(table) != 56 || !bytes.HasPrefix(table, []byte("CCEL8")) || table[36] != 2 || table[40] != 7 {
		t.Fatalf("%x %v", table, err)
	}
	var sum byte
	for _, v := range table {
		sum += v
	}
	if sum != 0 {
		t.Errorf("checksum %d", sum)
	}
}

// Writers of one entry cannot hide from each other: each write is a generation, and
// a reader gets the report of the newest.
func TestConcurrentWriters(t *testing.T) {
	tr := newTree(t, nil)
	e := tr.entry("e")
	const writers = 16
	var wg sync.WaitGroup
	for i := range byte(writers) {
		wg.Go(func() {
			if err := put(filepath.Join(e, "inblob"), bytes.Repeat([]byte{i}, 64)); err != nil {
				t.Error(err)
			}
			b, err := os.ReadFile(filepath.Join(e, "outblob"))
			if err != nil {
				t.Error(err)
				return
			}
			if q, err := tdx.ParseQuote(b); err != nil || strings.Trim(string(q.Body.ReportData[:]), string(q.Body.ReportData[:1])) != "" {
				t.Errorf("a mixed report: %v", err)
			}
		})
	}
	wg.Wait()
	if g := tr.generation(e); g != fmt.Sprintf("%d\n", writers) {
		t.Errorf("generation %q after %d writes", g, writers)
	}
}

func TestEntriesAreBounded(t *testing.T) {
	tr := newTree(t, nil)
	var err error
	n := 0
	for ; n < 5000 && err == nil; n++ {
		err = os.Mkdir(filepath.Join(tr.report, fmt.Sprint(n)), 0o700)
	}
	if !errors.Is(err, syscall.ENOSPC) || n != 1025 {
		t.Errorf("%d entries: %v", n, err)
	}
}

// leveled has what SEV-SNP has.
type leveled struct{ *simtee.TD }

func (leveled) Provider() string { return "sev_guest" }
func (leveled) Report(_ context.Context, rd [64]byte, level uint) (out, aux []byte, err error) {
	return []byte{rd[0], byte(level)}, []byte("certs"), nil
}

func TestLevels(t *testing.T) {
	tr := newTree(t, func(td *simtee.TD) teefs.Device { return leveled{td} })
	e := tr.entry("e")
	level := filepath.Join(e, "privlevel")
	for _, bad := range []string{"4", "-1", "x", ""} {
		if bad != "" { // an empty write never reaches the file
			want(t, "level "+bad, put(level, []byte(bad)), syscall.EINVAL)
		}
	}
	if err := errors.Join(put(level, []byte("3\n")), put(filepath.Join(e, "inblob"), bytes.Repeat([]byte{9}, 64))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"provider": "sev_guest\n", "privlevel_floor": "0\n", "outblob": "\x09\x03", "auxblob": "certs", "generation": "2\n"} {
		if b, err := os.ReadFile(filepath.Join(e, name)); err != nil || string(b) != want {
			t.Errorf("%s %q %v", name, b, err)
		}
	}
}

// A TD that is gone takes its files' meaning with it, not the reader.
func TestDeadDevice(t *testing.T) {
	h, err := simtee.New(simtee.Config{Seed: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	tr := newTree(t, func(*simtee.TD) teefs.Device {
		td, err := h.NewTD("b", simtee.Shape{})
		if err != nil {
			t.Fatal(err)
		}
		return td
	})
	if err := h.DestroyTD("b"); err != nil {
		t.Fatal(err)
	}
	e := tr.entry("e")
	if err := put(filepath.Join(e, "inblob"), make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	want(t, "report", get(filepath.Join(e, "outblob")), syscall.ENXIO)
	want(t, "register", put(filepath.Join(tr.registers, "rtmr3:sha384"), make([]byte, 48)), syscall.ENXIO)
}
