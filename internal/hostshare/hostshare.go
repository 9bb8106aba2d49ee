// Package hostshare carries the host-shared files into a VM: an uncompressed tar on
// a read-only disk, in one canonical form, so that no file system that a host wrote
// is ever mounted by a guest's kernel.
//
// The VMM calls Pack, the guest agent Unpack. Unpack takes exactly what Pack writes:
// every header must be byte for byte the one that its name and size give. Nothing in
// the files is believed by being unpacked.
package hostshare

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
)

// Reason of every refusal.
const Reason = "host-shared-invalid"

// The host-shared files (dstack-core A.7).
const (
	AppCompose   = "app-compose.json"
	EncryptedEnv = ".encrypted-env"
	EnvSignature = ".env-signature.json"
	InstanceInfo = ".instance_info"
	SysConfig    = ".sys-config.json"
	UserConfig   = ".user-config"
)

// MaxSize bounds the whole archive, in bytes.
const MaxSize = 60 << 20

// File is one of the host-shared files.
type File struct {
	Name string
	Max  int64 // bytes
}

// Files are the names that exist, in the order of the archive.
func Files() []File {
	return []File{
		{EncryptedEnv, 256 << 10},
		{EnvSignature, 4 << 10},
		{InstanceInfo, 10 << 10},
		{SysConfig, 32 << 10},
		{UserConfig, 50 << 20},
		{AppCompose, appcompose.MaxSize},
	}
}

// Limit is the most bytes that a file may have; 0: there is no such file.
func Limit(name string) int64 {
	for _, f := range Files() {
		if f.Name == name {
			return f.Max
		}
	}
	return 0
}

const block = 512

func bad(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, "host-shared files: "+format, args...).WithReason(Reason)
}

// Pack writes the files of dir to w. A file that is missing is left out; a name that
// is not known, anything but a regular file, and a file over its limit are errors.
func Pack(w io.Writer, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return bad("%w", err)
	}
	for _, e := range entries {
		if Limit(e.Name()) == 0 {
			return bad("%s has a file %q, which no guest reads", dir, e.Name())
		}
	}
	tw := tar.NewWriter(w)
	for _, f := range Files() {
		if !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == f.Name }) {
			continue
		}
		b, err := ReadFile(dir, f.Name)
		if err != nil {
			return err
		}
		if err := tw.WriteHeader(header(f.Name, int64(len(b)))); err != nil {
			return bad("%w", err)
		}
		if _, err := tw.Write(b); err != nil {
			return bad("writing %s: %w", f.Name, err)
		}
	}
	if err := tw.Close(); err != nil {
		return bad("%w", err)
	}
	return nil
}

// ReadFile reads one known file of dir, nil when it is absent. A symbolic link, a
// special file or a file over its limit is refused: the other side may point at
// anything.
func ReadFile(dir, name string) ([]byte, error) {
	limit := Limit(name)
	if limit == 0 {
		return nil, bad("there is no file %q", name)
	}
	// O_NONBLOCK: opening a FIFO must not wait for a writer that never comes.
	fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, nil
	case errors.Is(err, unix.ELOOP):
		return nil, bad("%s is a symbolic link", name)
	case err != nil:
		return nil, bad("%s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, bad("%s: %w", name, err)
	}
	if !st.Mode().IsRegular() {
		return nil, bad("%s is not a regular file", name)
	}
	// The size may change while it is read: the limit is kept on what arrives.
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, bad("%s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, bad("%s has more than %d bytes", name, limit)
	}
	return b, nil
}

// header is the one form of a header.
func header(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, Format: tar.FormatUSTAR}
}

// Unpack reads an archive into dir, which it makes (0700) and which must be empty.
// Files get mode 0600. After an error dir holds nothing.
func Unpack(r io.Reader, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return bad("%w", err)
	}
	old, err := os.ReadDir(dir)
	if err != nil {
		return bad("%w", err)
	}
	if len(old) > 0 {
		return bad("%s is not empty", dir)
	}
	var made []string
	defer func() {
		if err != nil {
			for _, name := range made {
				_ = os.Remove(name)
			}
		}
	}()
	return each(r, func(name string, content io.Reader) error {
		path := filepath.Join(dir, name) // one of Files
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return bad("%w", err)
		}
		made = append(made, path)
		if _, err := io.Copy(f, content); err != nil {
			_ = f.Close()
			return bad("%s: %w", name, err)
		}
		if err := f.Close(); err != nil {
			return bad("%s: %w", name, err)
		}
		return nil
	})
}

// each walks a canonical archive.
func each(r io.Reader, file func(name string, content io.Reader) error) error {
	r = io.LimitReader(r, MaxSize+1)
	last := -1
	var b [block]byte
	for {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return bad("the archive ends before its end mark: %w", err)
		}
		if b == [block]byte{} {
			return atEnd(r)
		}
		name, size, at, err := parse(&b)
		if err != nil {
			return err
		}
		if at <= last {
			return bad("%s is out of order or there twice", name)
		}
		last = at
		content := io.LimitReader(r, size)
		if err := file(name, content); err != nil {
			return err
		}
		if err := padding(r, name, size); err != nil {
			return err
		}
	}
}

// parse takes name and size from a header and checks that nothing else is in it.
func parse(b *[block]byte) (name string, size int64, at int, err error) {
	name, _, _ = strings.Cut(string(b[:100]), "\x00")
	at = slices.IndexFunc(Files(), func(f File) bool { return f.Name == name })
	if at < 0 {
		return "", 0, 0, bad("the archive has a file %.40q, which no guest reads", name)
	}
	size, err = strconv.ParseInt(strings.TrimRight(string(b[124:136]), "\x00"), 8, 64)
	if err != nil || size < 0 {
		return "", 0, 0, bad("%s: its header has no size", name)
	}
	if limit := Files()[at].Max; size > limit {
		return "", 0, 0, bad("%s has %d bytes, the limit is %d", name, size, limit)
	}
	var want bytes.Buffer
	if err := tar.NewWriter(&want).WriteHeader(header(name, size)); err != nil {
		return "", 0, 0, bad("%s: %w", name, err)
	}
	if !bytes.Equal(want.Bytes(), b[:]) {
		return "", 0, 0, bad("%s: its header is not in the one form that there is (mode 0600, no owner, no time)", name)
	}
	return name, size, at, nil
}

// padding reads the zeros that fill a file's last block. A file that was cut short
// shows here.
func padding(r io.Reader, name string, size int64) error {
	n := (block - size%block) % block
	var b [block]byte
	if _, err := io.ReadFull(r, b[:n]); err != nil {
		return bad("%s is cut short: %w", name, err)
	}
	if b != [block]byte{} {
		return bad("%s: bytes after its end", name)
	}
	return nil
}

// atEnd wants the second empty block and nothing after it.
func atEnd(r io.Reader) error {
	var b [block]byte
	if _, err := io.ReadFull(r, b[:]); err != nil || b != [block]byte{} {
		return bad("the archive's end mark is one block, want two")
	}
	if n, err := io.ReadFull(r, b[:1]); n != 0 || err != io.EOF {
		return bad("bytes after the end of the archive")
	}
	return nil
}
