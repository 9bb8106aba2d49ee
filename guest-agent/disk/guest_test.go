package disk

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

func inMachine(t *testing.T) context.Context {
	t.Helper()
	if os.Getpid() != 1 {
		t.Skip("SKIPPED: runs as init of the test machine (TestOnRealDisks)")
	}
	return t.Context()
}

func testKey(n byte) keys.Secret { return keys.NewSecret(bytes.Repeat([]byte{n}, keys.Size)) }

// loopDisk is a sparse file on a tmpfs, and a loop device over it: the test is the
// host, which can do what it likes with the file.
type loopDisk struct {
	t    *testing.T
	path string
	dev  string
	loop *os.File
	back *os.File
}

func newLoop(t *testing.T, size int64) *loopDisk {
	t.Helper()
	d := &loopDisk{t: t, path: filepath.Join(t.TempDir(), "disk")}
	must(t, os.WriteFile(d.path, nil, 0o600))
	must(t, os.Truncate(d.path, size))
	var err error
	d.back, err = os.OpenFile(d.path, os.O_RDWR, 0)
	must(t, err)
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	must(t, err)
	n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
	must(t, err)
	must(t, ctl.Close())
	d.dev = fmt.Sprintf("/dev/loop%d", n)
	d.loop, err = os.OpenFile(d.dev, os.O_RDWR, 0)
	must(t, err)
	must(t, unix.IoctlSetInt(int(d.loop.Fd()), unix.LOOP_SET_FD, int(d.back.Fd())))
	t.Cleanup(func() {
		_ = unix.IoctlSetInt(int(d.loop.Fd()), unix.LOOP_CLR_FD, 0)
		_, _ = d.loop.Close(), d.back.Close()
	})
	return d
}

func (d *loopDisk) grow(size int64) {
	must(d.t, os.Truncate(d.path, size))
	must(d.t, unix.IoctlSetInt(int(d.loop.Fd()), unix.LOOP_SET_CAPACITY, 0))
}

// save copies a range of the disk, holes left out.
func (d *loopDisk) save(from, to int64) map[int64][]byte {
	out := map[int64][]byte{}
	for at := from; at < to; at += 1 << 16 {
		b := make([]byte, min(1<<16, to-at))
		_, err := d.back.ReadAt(b, at)
		must(d.t, err)
		if !zero(b) {
			out[at] = b
		}
	}
	return out
}

// restore puts a saved range back.
func (d *loopDisk) restore(saved map[int64][]byte, from, to int64) {
	for at := from; at < to; at += 1 << 16 {
		b := saved[at]
		if b == nil {
			b = make([]byte, min(1<<16, to-at))
		}
		_, err := d.back.WriteAt(b, at)
		must(d.t, err)
	}
	d.drop()
}

// drop forgets what the guest's kernel has cached of the disk.
func (d *loopDisk) drop() {
	unix.Sync()
	must(d.t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (d *loopDisk) config(p Profile) Config {
	gen, err := ReadGeneration(d.dev)
	must(d.t, err)
	at := filepath.Join("/run", filepath.Base(d.dev))
	must(d.t, os.MkdirAll(at, 0o755))
	return Config{Device: d.dev, MountPoint: at, Name: "t-" + filepath.Base(d.dev), Key: testKey(7), Profile: p, Reported: gen}
}

func (d *loopDisk) open(ctx context.Context, p Profile) *Opened {
	d.t.Helper()
	o, err := Open(ctx, d.config(p))
	must(d.t, err)
	return o
}

// refused opens and wants a refusal with this reason, which writes nothing.
func (d *loopDisk) refused(ctx context.Context, what, reason string, c Config) {
	d.t.Helper()
	before := d.save(0, HeaderSize)
	o, err := Open(ctx, c)
	if err == nil {
		d.t.Errorf("%s: opened", what)
		must(d.t, o.Close(ctx))
		return
	}
	if got := cvm.ReasonOf(err); got != reason {
		d.t.Errorf("%s: reason %q, want %q: %v", what, got, reason, err)
	}
	d.drop()
	for at, b := range d.save(0, HeaderSize) {
		if !bytes.Equal(before[at], b) {
			d.t.Errorf("%s: the refusal changed the disk at %d", what, at)
		}
	}
}

// crash drops the disk as a power cut does: unmounted, but the generation not moved.
func crash(ctx context.Context, t *testing.T, o *Opened) {
	t.Helper()
	must(t, unix.Unmount(o.cfg.MountPoint, 0))
	must(t, luksClose(ctx, o.cfg.Name))
	must(t, o.dev.Close())
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>12) ^ byte(i*7)
	}
	return b
}

const mib = 1 << 20

func TestMachineLife(t *testing.T) {
	ctx := inMachine(t)
	for _, tc := range []struct {
		p  Profile
		fs string
	}{{ProfileIntegrity, FSExt4}, {ProfileReference, FSExt4}, {ProfileIntegrity, FSBtrfs}} {
		t.Run(string(tc.p)+"-"+tc.fs, func(t *testing.T) { life(ctx, t, tc.p, tc.fs) })
	}
}

func life(ctx context.Context, t *testing.T, p Profile, fs string) {
	d := newLoop(t, 320*mib)
	c := d.config(p)
	c.FS = fs
	o, err := Open(ctx, c)
	must(t, err)
	if !o.Fresh || o.Generation != 1 || o.FS != fs || o.Profile != p {
		t.Errorf("new disk: %+v", o)
	}
	file := filepath.Join(c.MountPoint, "data")
	want := pattern(16 * mib)
	must(t, os.WriteFile(file, want, 0o600))
	must(t, o.Close(ctx))
	if gen, err := ReadGeneration(d.dev); err != nil || gen != 2 {
		t.Errorf("generation %d after a clean end: %v", gen, err)
	}
	d.drop()
	o = d.open(ctx, p)
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) || o.Fresh || o.Generation != 3 {
		t.Errorf("reopened: %v, generation %d, fresh %v", err, o.Generation, o.Fresh)
	}
	crash(ctx, t, o)
	o = d.open(ctx, p)
	if o.Generation != 4 {
		t.Errorf("after a crash: generation %d", o.Generation)
	}
	before, _, err := Usage(c.MountPoint)
	must(t, err)
	must(t, o.Close(ctx))

	d.grow(520 * mib)
	o = d.open(ctx, p)
	after, _, err := Usage(c.MountPoint)
	must(t, err)
	if after < before+150*mib {
		t.Errorf("grown disk: %d MiB, was %d MiB", after/mib, before/mib)
	}
	// The new room is usable, and the background work of the file system reads nothing
	// that was never written.
	must(t, os.WriteFile(filepath.Join(c.MountPoint, "more"), pattern(100*mib), 0o600))
	must(t, o.Close(ctx))
	o = d.open(ctx, p)
	got, err = os.ReadFile(filepath.Join(c.MountPoint, "more"))
	if err != nil || !bytes.Equal(got, pattern(100*mib)) {
		t.Errorf("in the grown part: %v", err)
	}
	must(t, o.Close(ctx))
}

// A large disk's journal is small, and everything else is as on any disk.
func TestMachineSmallJournal(t *testing.T) {
	ctx := inMachine(t)
	d := newLoop(t, 10<<30)
	o := d.open(ctx, ProfileIntegrity)
	b, err := o.dev.read(HeaderSize, recordSlot)
	must(t, err)
	if n := binary.LittleEndian.Uint32(b[12:]); n != journalSections {
		t.Errorf("a journal of %d sections", n)
	}
	size, _, err := Usage(o.cfg.MountPoint)
	must(t, err)
	there, err := integritySize(o.dev)
	must(t, err)
	if mapped := volumeSectors(t, o); mapped != there || size < 9<<30 {
		t.Errorf("%d sectors are mapped of %d, the file system has %d MiB", mapped, there, size/mib)
	}
	file := filepath.Join(o.cfg.MountPoint, "data")
	must(t, os.WriteFile(file, pattern(100*mib), 0o600))
	unix.Sync()
	crash(ctx, t, o)
	d.drop()
	o = d.open(ctx, ProfileIntegrity)
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, pattern(100*mib)) {
		t.Errorf("after a crash: %v", err)
	}
	must(t, o.Close(ctx))
}

func volumeSectors(t *testing.T, o *Opened) uint64 {
	vol, err := openDevice(o.cfg.mapped())
	must(t, err)
	must(t, vol.Close())
	return uint64(vol.size) / 512
}

func TestMachineRefusals(t *testing.T) {
	ctx := inMachine(t)
	for _, p := range []Profile{ProfileIntegrity, ProfileReference} {
		t.Run(string(p), func(t *testing.T) { refusals(ctx, t, p) })
	}
}

func refusals(ctx context.Context, t *testing.T, p Profile) {
	d, other := newLoop(t, 300*mib), newLoop(t, 300*mib)
	must(t, other.open(ctx, p).Close(ctx))
	o := d.open(ctx, p)
	must(t, os.WriteFile(filepath.Join(o.cfg.MountPoint, "old"), nil, 0o600))
	must(t, o.Close(ctx))
	whole := d.save(0, 300*mib)

	c := d.config(p)
	c.Key = testKey(8)
	d.refused(ctx, "another key", ReasonKey, c)
	c = d.config(p)
	c.Reported++
	d.refused(ctx, "another generation than reported", ReasonSwapped, c)
	c = d.config(map[Profile]Profile{ProfileIntegrity: ProfileReference, ProfileReference: ProfileIntegrity}[p])
	d.refused(ctx, "a profile that is not admitted", ReasonHeader, c)

	// The header of another disk of the same app, over this disk's data: another volume
	// key, with this disk's own records and with the other's.
	d.restore(other.save(0, recordStart), 0, recordStart)
	d.refused(ctx, "another disk's header", ReasonSwapped, d.config(p))
	d.restore(other.save(0, HeaderSize), 0, HeaderSize)
	d.refused(ctx, "another disk's header and records", ReasonSwapped, d.config(p))
	d.restore(whole, 0, 300*mib)

	// One bit of the header, and an emptied one: neither opens, neither is formatted.
	d.restore(map[int64][]byte{}, 0, 4096)
	d.refused(ctx, "a header without its first block", ReasonHeader, d.config(p))
	d.restore(whole, 0, 300*mib)
	empty := d.config(p)
	d.restore(map[int64][]byte{}, 0, HeaderSize)
	d.refused(ctx, "an emptied disk whose generation was reported", ReasonSwapped, empty)
	d.restore(whole, 0, 300*mib)

	// Another session; then the old data behind the new records.
	must(t, d.open(ctx, p).Close(ctx))
	records := d.save(recordStart, HeaderSize)
	newer, err := ReadGeneration(d.dev)
	must(t, err)
	d.restore(whole, HeaderSize, 300*mib)
	d.refused(ctx, "old data behind a new record", ReasonSwapped, d.config(p))
	// The whole disk of before: nothing on it says so, but the number, which the KMS knows.
	d.restore(whole, 0, 300*mib)
	if gen, err := ReadGeneration(d.dev); err != nil || gen >= newer {
		t.Errorf("a disk rolled back reports generation %d, the newest was %d: %v", gen, newer, err)
	}
	d.restore(map[int64][]byte{recordStart: records[recordStart]}, recordStart, HeaderSize)
	d.restore(map[int64][]byte{}, recordStart, HeaderSize)
	d.refused(ctx, "records erased", ReasonSwapped, d.config(p))
}

// A host that changes one byte of each MiB of the data: with integrity reading fails,
// without it the app gets other bytes and no error.
func TestMachineFlippedByte(t *testing.T) {
	ctx := inMachine(t)
	for _, p := range []Profile{ProfileIntegrity, ProfileReference} {
		t.Run(string(p), func(t *testing.T) {
			d := newLoop(t, 320*mib)
			o := d.open(ctx, p)
			file := filepath.Join(o.cfg.MountPoint, "data")
			want := pattern(32 * mib)
			must(t, os.WriteFile(file, want, 0o600))
			must(t, o.Close(ctx))
			var flipped int64
			var b [1]byte
			for at := int64(40 * mib); at < 318*mib; at += mib / 4 {
				_, err := d.back.ReadAt(b[:], at+777)
				must(t, err)
				if b[0] == 0 {
					continue // most likely never written
				}
				b[0] ^= 1
				_, err = d.back.WriteAt(b[:], at+777)
				must(t, err)
				flipped++
			}
			d.drop()
			o = d.open(ctx, p)
			got, err := os.ReadFile(file)
			t.Logf("%d bytes flipped: %v", flipped, err)
			switch {
			case p == ProfileIntegrity && err == nil:
				t.Error("a changed sector was read without an error")
			case p == ProfileReference && (err != nil || bytes.Equal(got, want)):
				t.Errorf("without integrity: %v, same bytes %v", err, bytes.Equal(got, want))
			}
			must(t, o.Close(ctx))
		})
	}
}

// A disk that the reference made (cryptsetup and mke2fs alone) opens where its
// profile is admitted, and has a generation from then on.
func TestMachineOldDisk(t *testing.T) {
	ctx := inMachine(t)
	d := newLoop(t, 300*mib)
	pass := passphrase(testKey(7))
	must(t, tool(ctx, nil, pass, "cryptsetup", "luksFormat", "--type", "luks2", "--cipher", cipher, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		"--hash", "sha256", "--offset", "32768", "--sector-size", "512", "--batch-mode", "--key-file", "-", d.dev))
	must(t, tool(ctx, nil, pass, "cryptsetup", "open", "--key-file", "-", d.dev, "old"))
	must(t, tool(ctx, nil, nil, "mke2fs", "-q", "-F", "-t", "ext4", "/dev/mapper/old"))
	must(t, luksClose(ctx, "old"))
	d.refused(ctx, "profile not admitted", ReasonHeader, d.config(ProfileIntegrity))
	for want := range uint64(2) {
		c := d.config(ProfileIntegrity)
		c.Also = []Profile{ProfileReference}
		o, err := Open(ctx, c)
		must(t, err)
		if o.Profile != ProfileReference || o.Fresh || o.Generation != 2*want+1 {
			t.Errorf("%+v", o)
		}
		must(t, o.Close(ctx))
	}
}

// What formatting leaves when it is cut short is formatted again.
func TestMachineFormatCutShort(t *testing.T) {
	ctx := inMachine(t)
	d := newLoop(t, 300*mib)
	must(t, d.open(ctx, ProfileIntegrity).Close(ctx))
	_, err := d.back.WriteAt(marker(), recordStart)
	must(t, err)
	_, err = d.back.WriteAt(make([]byte, recordSlot), recordStart+recordSlot)
	must(t, err)
	d.drop()
	o := d.open(ctx, ProfileIntegrity)
	if !o.Fresh || o.Generation != 1 {
		t.Errorf("%+v", o)
	}
	must(t, o.Close(ctx))
}

// Throughput of the raw disk, of both profiles and of what else was considered.
func TestMachineSpeed(t *testing.T) {
	ctx := inMachine(t)
	const dev, bytes = "/dev/vda", 32 * mib
	report := func(name, path string) {
		w, r := throughput(t, path, bytes)
		fmt.Printf("SPEED %-12s write %6.1f MB/s, read %6.1f MB/s\n", name, w, r)
	}
	report("plain", dev)
	for name, args := range map[string][]string{
		"xts-512":    ProfileReference.formatArgs(dev),
		"xts-4096":   append(ProfileReference.formatArgs(dev), "--sector-size", "4096"),
		"xts-hmac":   ProfileIntegrity.formatArgs(dev),
		"aegis128":   append(ProfileIntegrity.formatArgs(dev), "--cipher", "aegis128-random", "--integrity", "aead", "--key-size", "128"),
		"aes-gcm":    append(ProfileIntegrity.formatArgs(dev), "--cipher", "aes-gcm-random", "--integrity", "aead", "--key-size", "256"),
		"xts-nojrnl": ProfileIntegrity.formatArgs(dev),
	} {
		pass := passphrase(testKey(1))
		if err := tool(ctx, nil, pass, "cryptsetup", append(args, "--batch-mode", "--key-file", "-")...); err != nil {
			fmt.Println("SPEED", name, err)
			continue
		}
		open := []string{"open", "--key-file", "-", dev, "speed"}
		if name == "xts-nojrnl" {
			open = append(open, "--integrity-no-journal")
		}
		must(t, tool(ctx, nil, pass, "cryptsetup", open...))
		report(name, "/dev/mapper/speed")
		must(t, luksClose(ctx, "speed"))
	}
}

func throughput(t *testing.T, path string, size int) (write, read float64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	must(t, err)
	defer f.Close()
	b := aligned(mib)
	copy(b, pattern(mib))
	measure := func(op func() (int, error)) float64 {
		_, err := f.Seek(0, io.SeekStart)
		must(t, err)
		var from, to unix.Timespec
		must(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &from))
		for range size / mib {
			_, err := op()
			must(t, err)
		}
		must(t, f.Sync())
		must(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &to))
		return float64(size) / 1e6 / (float64(to.Nano()-from.Nano()) / 1e9)
	}
	write = measure(func() (int, error) { return f.Write(b) })
	return write, measure(func() (int, error) { return io.ReadFull(f, b) })
}

// TestMachineRecord prints the header that the image's cryptsetup makes for profile
// integrity: testdata/integrity.header.gz is made of it.
func TestMachineRecord(t *testing.T) {
	ctx := inMachine(t)
	d := newLoop(t, 300*mib)
	must(t, d.open(ctx, ProfileIntegrity).Close(ctx))
	head := make([]byte, 36<<10) // both copies; the keyslot's material says nothing here
	_, err := d.back.ReadAt(head, 0)
	must(t, err)
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, err = w.Write(head[:32<<10])
	must(t, err)
	must(t, w.Close())
	fmt.Printf("RECORD %s\n", base64.StdEncoding.EncodeToString(z.Bytes()))
}
