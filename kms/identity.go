package kms

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/confidential-cloud/phala/keys"
)

// identity is a member's own keys: the RA-TLS key that others know it by, the note
// key that signs checkpoints, and the key that root secrets are encrypted to.
type identity struct {
	tls  *ecdsa.PrivateKey
	spki []byte
	note ed25519.PrivateKey
	wrap keys.Secret
}

// storedIdentity is the plaintext of the sealed file.
type storedIdentity struct {
	TLS  keys.Secret `json:"tls"`  // P-256 scalar
	Note keys.Secret `json:"note"` // ed25519 seed
	Wrap keys.Secret `json:"wrap"` // X25519
}

// sealedFile is what lies on disk: AES-256-GCM under the TD's seal key.
type sealedFile struct {
	Version    int    `json:"v"`
	Nonce      []byte `json:"nonce"`
	Ciphertext []byte `json:"ciphertext"`
}

const identityFile = "member.sealed"

// loadIdentity opens the sealed keys in dir, or makes and seals new ones.
func loadIdentity(ctx context.Context, s Sealer, dir, id string) (*identity, error) {
	label := []byte("phala-kms-member:v1:" + id)
	k, err := s.SealKey(ctx, label)
	if err != nil {
		return nil, fmt.Errorf("the TEE's seal key: %w", err)
	}
	aead, err := sealCipher(k)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, identityFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return makeIdentity(aead, label, path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the sealed member key: %w", err)
	}
	var f sealedFile
	if err := json.Unmarshal(b, &f); err != nil || f.Version != 1 || len(f.Nonce) != aead.NonceSize() {
		return nil, fmt.Errorf("%s is not a sealed member key of this version", path)
	}
	plain, err := aead.Open(nil, f.Nonce, f.Ciphertext, label)
	if err != nil {
		return nil, fmt.Errorf("%s was sealed by another machine, image or member: remove the member's directory and join under a new id", path)
	}
	var st storedIdentity
	if err := json.Unmarshal(plain, &st); err != nil {
		return nil, errors.New("the sealed member key does not parse")
	}
	return newIdentity(st)
}

func sealCipher(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("seal cipher: %w", err)
	}
	return cipher.NewGCM(block)
}

func makeIdentity(aead cipher.AEAD, label []byte, path string) (*identity, error) {
	t, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	scalar, err := keys.Scalar(t)
	if err != nil {
		return nil, err
	}
	draw := make([]byte, 64)
	_, _ = rand.Read(draw) // crypto/rand does not fail
	st := storedIdentity{TLS: scalar, Note: keys.NewSecret(draw[:32]), Wrap: keys.NewSecret(draw[32:])}
	plain, err := json.Marshal(st)
	if err != nil {
		return nil, err
	}
	f := sealedFile{Version: 1, Nonce: make([]byte, aead.NonceSize())}
	_, _ = rand.Read(f.Nonce)
	f.Ciphertext = aead.Seal(nil, f.Nonce, plain, label)
	b, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return nil, fmt.Errorf("writing the sealed member key: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return nil, fmt.Errorf("writing the sealed member key: %w", err)
	}
	return newIdentity(st)
}

func newIdentity(st storedIdentity) (*identity, error) {
	t, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), st.TLS.Reveal())
	if err != nil {
		return nil, errors.New("the sealed TLS key is no P-256 key")
	}
	if st.Note.Len() != ed25519.SeedSize || st.Wrap.Len() != 32 {
		return nil, errors.New("the sealed member keys have wrong lengths")
	}
	spki, err := spkiOf(&t.PublicKey)
	if err != nil {
		return nil, err
	}
	return &identity{tls: t, spki: spki, note: ed25519.NewKeyFromSeed(st.Note.Reveal()), wrap: st.Wrap}, nil
}
