package api

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// sealer seals what the database must not hold in clear. For what it is meant (a
// kind and an id) is sealed with it, so that a value cannot be moved to another row.
type sealer struct{ aead cipher.AEAD }

func openSealer(c Config) (sealer, error) {
	path := c.SecretsKeyFile
	if path == "" {
		path = filepath.Join(c.Dir, "secrets.key")
	}
	key, err := readSecretsKey(path)
	if errors.Is(err, os.ErrNotExist) && c.SecretsKeyFile == "" {
		key = make([]byte, chacha20poly1305.KeySize)
		_, _ = rand.Read(key) // never fails
		err = writeSecretsKey(path, key)
	}
	if err != nil {
		return sealer{}, fmt.Errorf("secrets key: %w", err)
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return sealer{}, fmt.Errorf("secrets key: %w", err)
	}
	return sealer{aead}, nil
}

func readSecretsKey(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != chacha20poly1305.KeySize {
		return nil, fmt.Errorf("%s does not hold %d hex digits", path, 2*chacha20poly1305.KeySize)
	}
	return key, nil
}

// writeSecretsKey never replaces a key: what it sealed would be lost.
func writeSecretsKey(path string, key []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(hex.EncodeToString(key) + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}

func (s sealer) seal(use string, id int64, plain []byte) []byte {
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	_, _ = rand.Read(nonce) // never fails
	return s.aead.Seal(nonce, nonce, plain, fmt.Appendf(nil, "%s %d", use, id))
}

func (s sealer) open(use string, id int64, sealed []byte) ([]byte, error) {
	if len(sealed) < chacha20poly1305.NonceSizeX {
		return nil, errors.New("sealed value is too short")
	}
	n := chacha20poly1305.NonceSizeX
	plain, err := s.aead.Open(nil, sealed[:n], sealed[n:], fmt.Appendf(nil, "%s %d", use, id))
	if err != nil {
		return nil, errors.New("sealed with another secrets key, or for something else")
	}
	return plain, nil
}
