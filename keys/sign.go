package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"

	"github.com/confidential-cloud/phala/cvm"
)

// SignatureSize is the length of a recoverable signature: r || s || recid (0 or 1).
const SignatureSize = 65

// Algorithms of GetKey, Sign and Verify as the reference names them. K256 is
// another name of Secp256k1.
const (
	Secp256k1          = "secp256k1"
	K256               = "k256"
	Ed25519            = "ed25519"
	Secp256k1Prehashed = "secp256k1_prehashed" // Sign and Verify only
)

// Keccak256 is the hash under every signature chain.
func Keccak256(parts ...[]byte) []byte {
	h := sha3.NewLegacyKeccak256()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// K256Public is the compressed public key (33 bytes) of a secp256k1 scalar.
func K256Public(s Secret) ([]byte, error) {
	k, err := scalar256k1(s)
	if err != nil {
		return nil, err
	}
	return k.PubKey().SerializeCompressed(), nil
}

func signKeccak(key Secret, msg []byte) ([]byte, error) {
	return SignDigest(key, Keccak256(msg))
}

// SignDigest makes a recoverable low-S signature over a 32-byte digest.
func SignDigest(key Secret, digest []byte) ([]byte, error) {
	k, err := scalar256k1(key)
	if err != nil {
		return nil, err
	}
	if len(digest) != Size {
		return nil, fmt.Errorf("want a 32-byte digest, got %d bytes", len(digest))
	}
	c := ecdsa.SignCompact(k, digest, true) // header (27 + 4 + recid) || r || s
	return append(bytes.Clone(c[1:]), c[0]-31), nil
}

// Recover finds the compressed public key that signed digest. It refuses the
// other (high-S) form of a signature, so that a signature has one encoding.
func Recover(digest, sig []byte) ([]byte, error) {
	if len(sig) != SignatureSize {
		return nil, cvm.Errorf(cvm.Invalid, "signature: want %d bytes, got %d", SignatureSize, len(sig))
	}
	if len(digest) != Size {
		return nil, cvm.Errorf(cvm.Invalid, "signature: want a 32-byte digest, got %d bytes", len(digest))
	}
	var s secp256k1.ModNScalar
	if s.SetByteSlice(sig[32:64]) || s.IsOverHalfOrder() || sig[64] > 1 {
		return nil, cvm.Errorf(cvm.Invalid, "signature: not in canonical form")
	}
	pub, _, err := ecdsa.RecoverCompact(append([]byte{sig[64] + 31}, sig[:64]...), digest)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "signature: no key recovers from it: %w", err)
	}
	return pub.SerializeCompressed(), nil
}

func issuedMessage(app cvm.AppID, pub []byte) []byte {
	return bytes.Join([][]byte{[]byte("dstack-kms-issued:"), app[:], pub}, nil)
}

func envKeyMessage(app cvm.AppID, at *uint64, pub []byte) []byte {
	m := append([]byte("dstack-env-encrypt-pubkey:"), app[:]...)
	if at != nil {
		m = binary.BigEndian.AppendUint64(m, *at)
	}
	return append(m, pub...)
}

// RecoverAppKeyIssuer finds the KMS root that vouched for an app's public key
// (33 bytes, compressed). Compare the result with a pinned key.
func RecoverAppKeyIssuer(app cvm.AppID, appPub, sig []byte) ([]byte, error) {
	return Recover(Keccak256(issuedMessage(app, appPub)), sig)
}

// KeyPath derives what GetKey(path) gives to an app. The algorithm does not enter
// the derivation: the reference gives the same bytes for both.
func KeyPath(appKey Secret, path string) (Secret, error) {
	return Derive(appKey.b, Size, []byte(path))
}

// PublicKey is the public key of a GetKey key: compressed secp256k1 (33 bytes) or
// ed25519 (32 bytes). "" means secp256k1.
func PublicKey(algorithm string, key Secret) ([]byte, error) {
	switch algorithm {
	case "", Secp256k1, K256, Secp256k1Prehashed:
		return K256Public(key)
	case Ed25519:
		if key.Len() != ed25519.SeedSize {
			return nil, cvm.Errorf(cvm.Invalid, "ed25519 key: want 32 bytes, got %d", key.Len())
		}
		return ed25519.NewKeyFromSeed(key.b).Public().(ed25519.PublicKey), nil
	}
	return nil, cvm.Errorf(cvm.Invalid, "Unsupported algorithm")
}

func purposeDigest(purpose string, pub []byte) []byte {
	return Keccak256([]byte(purpose + ":" + hex.EncodeToString(pub)))
}

// SignKey is signature_chain[0]: the app key's word that pub serves purpose.
func SignKey(appKey Secret, purpose string, pub []byte) ([]byte, error) {
	return SignDigest(appKey, purposeDigest(purpose, pub))
}

// VerifyKeyChain follows a GetKey signature chain from a public key to the KMS
// root and compares the root with the pinned one.
func VerifyKeyChain(app cvm.AppID, purpose string, pub []byte, chain [][]byte, root []byte) error {
	if len(chain) != 2 {
		return cvm.Errorf(cvm.Invalid, "signature chain: want 2 signatures, got %d", len(chain))
	}
	appPub, err := Recover(purposeDigest(purpose, pub), chain[0])
	if err != nil {
		return err
	}
	got, err := RecoverAppKeyIssuer(app, appPub, chain[1])
	if err != nil {
		return err
	}
	if len(root) == 0 || !bytes.Equal(got, root) {
		return cvm.Errorf(cvm.Denied, "signature chain ends in KMS key %x, not in the pinned %x", got, root)
	}
	return nil
}

// Sign signs data as dstack.sock's Sign does: ed25519 (64 bytes), secp256k1
// (r || s, low S, over sha256 of data), or over data itself when it is prehashed.
func Sign(algorithm string, key Secret, data []byte) ([]byte, error) {
	switch algorithm {
	case Ed25519:
		if key.Len() != ed25519.SeedSize {
			return nil, cvm.Errorf(cvm.Invalid, "ed25519 key: want 32 bytes, got %d", key.Len())
		}
		return ed25519.Sign(ed25519.NewKeyFromSeed(key.b), data), nil
	case Secp256k1, K256, Secp256k1Prehashed:
		d, err := messageDigest(algorithm, data)
		if err != nil {
			return nil, err
		}
		s, err := SignDigest(key, d)
		if err != nil {
			return nil, err
		}
		return s[:64], nil
	}
	return nil, cvm.Errorf(cvm.Invalid, "Unsupported algorithm")
}

func messageDigest(algorithm string, data []byte) ([]byte, error) {
	if algorithm != Secp256k1Prehashed {
		h := sha256.Sum256(data)
		return h[:], nil
	}
	if len(data) != Size {
		return nil, cvm.Errorf(cvm.Invalid, "Pre-hashed signing requires a 32-byte digest, but received %d bytes", len(data))
	}
	return data, nil
}

// VerifySignature checks what Sign made. A wrong signature is false; a malformed
// key or signature is an error.
func VerifySignature(algorithm string, pub, data, sig []byte) (bool, error) {
	switch algorithm {
	case Ed25519:
		if len(pub) != ed25519.PublicKeySize || len(sig) != ed25519.SignatureSize {
			return false, cvm.Errorf(cvm.Invalid, "ed25519: want a 32-byte key and a 64-byte signature, got %d and %d", len(pub), len(sig))
		}
		return ed25519.Verify(pub, data, sig), nil
	case Secp256k1, K256, Secp256k1Prehashed:
		d, err := messageDigest(algorithm, data)
		if err != nil {
			return false, err
		}
		if len(sig) == SignatureSize {
			sig = sig[:64]
		}
		if len(sig) != 64 {
			return false, cvm.Errorf(cvm.Invalid, "secp256k1: want a 64-byte signature, got %d", len(sig))
		}
		k, err := secp256k1.ParsePubKey(pub)
		if err != nil {
			return false, cvm.Errorf(cvm.Invalid, "secp256k1 public key: %w", err)
		}
		var r, s secp256k1.ModNScalar
		if r.SetByteSlice(sig[:32]) || s.SetByteSlice(sig[32:]) || s.IsOverHalfOrder() {
			return false, nil
		}
		return ecdsa.NewSignature(&r, &s).Verify(d, k), nil
	}
	return false, cvm.Errorf(cvm.Invalid, "Unsupported algorithm")
}
