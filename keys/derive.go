package keys

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// Size of every symmetric key and private scalar here, in bytes.
const Size = 32

// salt is the reference's fixed HKDF salt (dstack 0.6).
const salt = "RATLS"

// Derive is the reference's one derivation: HKDF-SHA256 with salt "RATLS" and, as
// info, the plain concatenation of the context items. It puts no lengths between
// them: callers make sure that their items cannot run into each other.
func Derive(ikm []byte, n int, context ...[]byte) (Secret, error) {
	var info strings.Builder
	for _, c := range context {
		info.Write(c)
	}
	b, err := hkdf.Key(sha256.New, ikm, []byte(salt), info.String(), n)
	if err != nil {
		return Secret{}, fmt.Errorf("deriving a key: %w", err)
	}
	return Secret{b}, nil
}

// DeriveP256 derives a P-256 key from a parent scalar (32 bytes). It fails, with
// a probability of about 2^-32, when the derived bytes are no valid scalar.
func DeriveP256(parent Secret, context ...[]byte) (*ecdsa.PrivateKey, error) {
	s, err := Derive(parent.b, Size, context...)
	if err != nil {
		return nil, err
	}
	return p256(s)
}

func p256(scalar Secret) (*ecdsa.PrivateKey, error) {
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar.b)
	if err != nil {
		return nil, fmt.Errorf("derived bytes are no P-256 scalar") // the cause would show nothing but could
	}
	return k, nil
}

// DeriveDH is the reference's symmetric key of a derived P-256 key: sha256 over
// its PKCS#8 DER form, which includes the public key (138 bytes).
func DeriveDH(parent Secret, context ...[]byte) (Secret, error) {
	k, err := DeriveP256(parent, context...)
	if err != nil {
		return Secret{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return Secret{}, fmt.Errorf("encoding a derived key: %w", err)
	}
	h := sha256.Sum256(der)
	return Secret{h[:]}, nil
}

// Purpose names what a service key of the KMS itself is for. Keys of different
// purposes and epochs are independent.
type Purpose string

// The purposes of service keys.
const (
	PurposeTicket Purpose = "route-ticket"
	PurposeNonce  Purpose = "nonce"
)

// epochContext is appended to every derivation of an epoch after 0. Epoch 0 has
// none, which makes it the reference bit for bit.
func epochContext(epoch uint32) []byte {
	if epoch == 0 {
		return nil
	}
	return binary.BigEndian.AppendUint32([]byte("phala-epoch:"), epoch)
}

// scalar256k1 parses 32 bytes as a secp256k1 private key.
func scalar256k1(s Secret) (*secp256k1.PrivateKey, error) {
	if len(s.b) != Size {
		return nil, fmt.Errorf("secp256k1 key: want %d bytes, got %d", Size, len(s.b))
	}
	var m secp256k1.ModNScalar
	if overflow := m.SetByteSlice(s.b); overflow || m.IsZero() {
		return nil, fmt.Errorf("secp256k1 key: not a valid scalar")
	}
	return secp256k1.NewPrivateKey(&m), nil
}
