package certs

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io/fs"

	"github.com/caddyserver/certmagic"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

// sealed is certmagic's file storage with every value encrypted by AES-256-GCM.
// The name of a value is authenticated with it, so that the host cannot serve one
// name's key for another's. Names themselves (domains) are readable.
//
// File: 1 byte version (1) || 12 bytes nonce || ciphertext and tag.
type sealed struct {
	*certmagic.FileStorage
	aead cipher.AEAD
}

const (
	sealVersion = 1
	sealInfo    = "phala-gateway-storage:v1"
	nonceSize   = 12
)

func newSealed(dir string, key keys.Secret) (*sealed, error) {
	if key.Len() < 32 {
		return nil, cvm.Errorf(cvm.Invalid, "storage key: want at least 32 bytes, got %d", key.Len())
	}
	k, err := hkdf.Key(sha256.New, key.Reveal(), nil, sealInfo, 32)
	if err != nil {
		return nil, fmt.Errorf("storage key: %w", err)
	}
	b, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	a, err := cipher.NewGCM(b)
	if err != nil {
		return nil, err
	}
	return &sealed{FileStorage: &certmagic.FileStorage{Path: dir}, aead: a}, nil
}

// Store implements certmagic.Storage.
func (s *sealed) Store(ctx context.Context, name string, value []byte) error {
	out := make([]byte, 1+nonceSize, 1+nonceSize+len(value)+s.aead.Overhead())
	out[0] = sealVersion
	if _, err := rand.Read(out[1:]); err != nil {
		return err
	}
	return s.FileStorage.Store(ctx, name, s.aead.Seal(out, out[1:], value, aad(name)))
}

// Load implements certmagic.Storage.
func (s *sealed) Load(ctx context.Context, name string) ([]byte, error) {
	b, err := s.FileStorage.Load(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(b) < 1+nonceSize || b[0] != sealVersion {
		return nil, cvm.Errorf(cvm.Precondition, "certificate store: %s is not encrypted by this gateway", name)
	}
	v, err := s.aead.Open(nil, b[1:1+nonceSize], b[1+nonceSize:], aad(name))
	if err != nil {
		return nil, cvm.Errorf(cvm.Precondition, "certificate store: %s does not open with this app's key", name).
			WithFix("the store belongs to another gateway app or was changed; remove its directory to begin anew")
	}
	return v, nil
}

// Stat implements certmagic.Storage; Size is that of the plain value.
func (s *sealed) Stat(ctx context.Context, name string) (certmagic.KeyInfo, error) {
	i, err := s.FileStorage.Stat(ctx, name)
	if err == nil && i.IsTerminal {
		i.Size = max(0, i.Size-int64(1+nonceSize+s.aead.Overhead()))
	}
	return i, err
}

func aad(name string) []byte { return []byte(sealInfo + ":" + name) }

var (
	_ certmagic.Storage = (*sealed)(nil)
	_ error             = fs.ErrNotExist // what Load and Stat return for a missing name
)
