package kms

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"

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

const (
	identityFile = "member.sealed"
	membersFile  = "members.sealed"
)

// loadIdentity opens the sealed keys in dir, or makes and seals new ones.
func loadIdentity(box *sealBox) (*identity, error) {
	plain, err := box.read(identityFile)
	if errors.Is(err, os.ErrNotExist) {
		return makeIdentity(box)
	}
	if err != nil {
		return nil, err
	}
	var st storedIdentity
	if err := json.Unmarshal(plain, &st); err != nil {
		return nil, errors.New("the sealed member key does not parse")
	}
	return newIdentity(st)
}

func makeIdentity(box *sealBox) (*identity, error) {
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
	if err := box.write(identityFile, plain); err != nil {
		return nil, err
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
