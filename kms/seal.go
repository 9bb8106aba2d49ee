package kms

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// sealBox reads and writes files that only this member's measured code on this
// machine can open: AES-256-GCM under the TD's seal key, the member's id and the
// file's name authenticated with it.
type sealBox struct {
	aead  cipher.AEAD
	dir   string
	label string
}

type sealedFile struct {
	Version    int    `json:"v"`
	Nonce      []byte `json:"nonce"`
	Ciphertext []byte `json:"ciphertext"`
}

func newSealBox(ctx context.Context, s Sealer, dir, id string) (*sealBox, error) {
	label := "phala-kms-member:v1:" + id
	k, err := s.SealKey(ctx, []byte(label))
	if err != nil {
		return nil, fmt.Errorf("the TEE's seal key: %w", err)
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, fmt.Errorf("seal cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	return &sealBox{aead: aead, dir: dir, label: label}, err
}

// read opens a file. A missing one is os.ErrNotExist.
func (b *sealBox) read(name string) ([]byte, error) {
	path := filepath.Join(b.dir, name)
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading a sealed file: %w", err)
	}
	var f sealedFile
	if err := json.Unmarshal(raw, &f); err != nil || f.Version != 1 || len(f.Nonce) != b.aead.NonceSize() {
		return nil, fmt.Errorf("%s is not a sealed file of this version", path)
	}
	plain, err := b.aead.Open(nil, f.Nonce, f.Ciphertext, []byte(b.label+"/"+name))
	if err != nil {
		return nil, fmt.Errorf("%s was sealed by another machine, image or member, or was changed: remove the member's directory and join under a new id", path)
	}
	return plain, nil
}

func (b *sealBox) write(name string, plain []byte) error {
	f := sealedFile{Version: 1, Nonce: make([]byte, b.aead.NonceSize())}
	_, _ = rand.Read(f.Nonce) // crypto/rand does not fail
	f.Ciphertext = b.aead.Seal(nil, f.Nonce, plain, []byte(b.label+"/"+name))
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	path := filepath.Join(b.dir, name)
	if err := writeSync(path+".new", raw); err != nil {
		return fmt.Errorf("writing a sealed file: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("writing a sealed file: %w", err)
	}
	return nil
}

func writeSync(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
