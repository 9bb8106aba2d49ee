package config

import (
	"io"
	"os"
	"syscall"

	"github.com/confidential-cloud/phala/cvm"
)

// maxSecret bounds a file with a secret, in bytes.
const maxSecret = 1 << 20

// ReadSecret reads a file that only its owner may read or change, the owner being
// this process's user or root. Code denied for another file, not_found when there is
// none; no error quotes its content.
func ReadSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil, cvm.Errorf(cvm.NotFound, "no file at %s", path)
	}
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "%w", err)
	}
	defer f.Close()
	st, err := f.Stat() // of what was opened, not of what the name may lead to later
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "%w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, cvm.Errorf(cvm.Denied, "%s is not a regular file", path)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, cvm.Errorf(cvm.Denied, "%s can be read by others (mode %04o)", path, st.Mode().Perm()).WithFix("chmod 600 " + path)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return nil, cvm.Errorf(cvm.Denied, "%s belongs to user %d, not to this process's (%d) or root", path, sys.Uid, os.Geteuid()).WithFix("chown it, or make it anew")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "reading %s: %w", path, err)
	}
	if len(b) > maxSecret {
		return nil, cvm.Errorf(cvm.Invalid, "%s is over %d bytes", path, maxSecret)
	}
	return b, nil
}
