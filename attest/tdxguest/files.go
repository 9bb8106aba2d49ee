package tdxguest

import (
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/google/go-configfs-tsm/configfs/configfsi"

	"github.com/confidential-cloud/phala/cvm"
)

// client is configfs-tsm in another place: the library names files below its own
// fixed prefix.
type client struct{ reports string }

var _ configfsi.Client = client{}

// Files is configfs-tsm whose directory of report entries is at a path. What it
// removes is removed as configfs does it: an entry whole.
func Files(reports string) configfsi.Client { return client{reports} }

const prefix = configfsi.TsmPrefix + "/report"

// real is where a file of the library's is, virtual what the library calls an entry.
func (c client) real(name string) string {
	return filepath.Join(c.reports, strings.TrimPrefix(name, prefix))
}
func (client) virtual(entry string) string { return path.Join(prefix, entry) }

func (c client) MkdirTemp(dir, pattern string) (string, error) {
	d, err := os.MkdirTemp(c.real(dir), pattern)
	return c.virtual(filepath.Base(d)), err
}
func (c client) ReadFile(name string) ([]byte, error)       { return read(c.real(name)) }
func (c client) ReadDir(name string) ([]os.DirEntry, error) { return os.ReadDir(c.real(name)) }
func (c client) WriteFile(name string, b []byte) error      { return write(c.real(name), b) }

// RemoveAll is rmdir: configfs removes an entry whole.
func (c client) RemoveAll(name string) error { return os.Remove(c.real(name)) }

// maxOut bounds what the kernel may give us, in bytes.
const maxOut = 1 << 20

func read(name string) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // the kernel's file
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxOut+1))
	if err == nil && len(b) > maxOut {
		err = cvm.Errorf(cvm.Invalid, "%s: more than %d bytes", name, maxOut)
	}
	return b, err
}

// write is one write(2): attributes take a value whole. It never makes a file, so
// that a missing kernel feature is an error and not a file.
func write(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0) //nolint:gosec // the kernel's file
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
