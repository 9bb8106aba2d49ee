package wallet

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/config"
)

// PassphraseFile reads a passphrase (the first line) from a file that only its
// owner can read.
func PassphraseFile(path string) ([]byte, error) {
	b, err := config.ReadSecret(path)
	if err != nil {
		return nil, fmt.Errorf("passphrase file: %w", err)
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return nil, cvm.Errorf(cvm.Invalid, "passphrase file %s is empty", path)
	}
	return line, nil
}

// OpenDev opens the development cloud's wallet, making it (and a random
// passphrase beside it, path + ".pass", mode 0600) when there is none.
func OpenDev(path string) (*Wallet, error) {
	passPath := path + ".pass"
	pass, err := PassphraseFile(passPath)
	if cvm.CodeOf(err) == cvm.NotFound {
		if _, werr := os.Stat(path); werr == nil {
			return nil, cvm.Errorf(cvm.Precondition, "wallet %s is there but its passphrase file %s is not", path, passPath).
				WithFix("put the passphrase file back, or forget this state (make clean-state)")
		}
		pass, err = newPassphrase(passPath)
	}
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return Create(path, Dev, pass)
	}
	w, err := Load(path, pass)
	if err == nil && w.info.Network != Dev {
		return nil, cvm.Errorf(cvm.Denied, "wallet %s was made for chain %s, not for development", path, w.info.Network)
	}
	return w, err
}

func newPassphrase(path string) ([]byte, error) {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	p := []byte(hex.EncodeToString(b[:]))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return p, writeNew(path, append(p, '\n'))
}
