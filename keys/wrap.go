package keys

import (
	"crypto/ecdh"
	"crypto/hpke"
	"fmt"
)

// wrapSuite: RFC 9180 DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305.

// Wrap encrypts a secret to a member's X25519 public key (32 bytes). info binds
// the ciphertext to what it is for and must be given to Unwrap again.
func Wrap(pub []byte, info string, s Secret) ([]byte, error) {
	k, err := ecdh.X25519().NewPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("wrapping key: %w", err)
	}
	pk, err := hpke.NewDHKEMPublicKey(k)
	if err != nil {
		return nil, fmt.Errorf("wrapping key: %w", err)
	}
	c, err := hpke.Seal(pk, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(info), s.b)
	if err != nil {
		return nil, fmt.Errorf("wrapping a secret: %w", err)
	}
	return c, nil
}

// Unwrap opens what Wrap made.
func Unwrap(priv Secret, info string, ciphertext []byte) (Secret, error) {
	k, err := ecdh.X25519().NewPrivateKey(priv.b)
	if err != nil {
		return Secret{}, fmt.Errorf("unwrapping key: not 32 bytes")
	}
	sk, err := hpke.NewDHKEMPrivateKey(k)
	if err != nil {
		return Secret{}, fmt.Errorf("unwrapping key: %w", err)
	}
	b, err := hpke.Open(sk, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(info), ciphertext)
	if err != nil {
		return Secret{}, fmt.Errorf("unwrapping a secret: it is not for this key or was changed")
	}
	return Secret{b}, nil
}

// WrapPublicKey is the public half of an unwrapping key.
func WrapPublicKey(priv Secret) ([]byte, error) { return EnvPublicKey(priv) }
