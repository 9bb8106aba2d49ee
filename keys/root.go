package keys

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/confidential-cloud/phala/cvm"
)

// Root is one epoch's pair of root secrets: the P-256 root CA key and the
// secp256k1 key that signs for apps. It exists only in the memory of attested KMS
// members (T3); Marshal is for sealing it to one.
type Root struct {
	epoch uint32
	ca    *ecdsa.PrivateKey
	raw   Secret // the CA key's scalar
	k256  Secret
}

// NewRoot draws fresh roots.
func NewRoot(rand io.Reader, epoch uint32) (*Root, error) {
	for range 8 { // a draw is no valid scalar about once in 2^32
		b := make([]byte, 2*Size)
		if _, err := io.ReadFull(rand, b); err != nil {
			return nil, fmt.Errorf("drawing root keys: %w", err)
		}
		if r, err := newRoot(epoch, Secret{b[:Size]}, Secret{b[Size:]}); err == nil {
			return r, nil
		}
	}
	return nil, fmt.Errorf("drawing root keys: the random source gives no valid scalar")
}

// ImportRoot takes an existing root of the reference: the CA key's 32-byte P-256
// scalar and the 32-byte secp256k1 key.
func ImportRoot(epoch uint32, caScalar, k256 Secret) (*Root, error) {
	return newRoot(epoch, caScalar, k256)
}

func newRoot(epoch uint32, ca, k256 Secret) (*Root, error) {
	if ca.Len() != Size {
		return nil, fmt.Errorf("root CA key: want %d bytes, got %d", Size, ca.Len())
	}
	k, err := p256(ca)
	if err != nil {
		return nil, fmt.Errorf("root CA key: %w", err)
	}
	if _, err := scalar256k1(k256); err != nil {
		return nil, fmt.Errorf("root k256 key: %w", err)
	}
	return &Root{epoch: epoch, ca: k, raw: ca, k256: k256}, nil
}

// rootSize is epoch (u32 BE), CA scalar, k256 scalar.
const rootSize = 4 + 2*Size

// Marshal is the root as 68 bytes: epoch (u32 big endian), CA scalar, k256 scalar.
func (r *Root) Marshal() Secret {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, rootSize), r.epoch)
	b = append(b, r.raw.b...)
	return Secret{append(b, r.k256.b...)}
}

// ParseRoot reads what Marshal wrote.
func ParseRoot(s Secret) (*Root, error) {
	if s.Len() != rootSize {
		return nil, fmt.Errorf("root: want %d bytes, got %d", rootSize, s.Len())
	}
	b := append([]byte(nil), s.b...)
	return newRoot(binary.BigEndian.Uint32(b), Secret{b[4 : 4+Size]}, Secret{b[4+Size:]})
}

// String never shows a key.
func (r *Root) String() string { return fmt.Sprintf("root keys of epoch %d %s", r.epoch, redacted) }

// Format keeps %+v and %#v from walking into the struct.
func (r *Root) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.String()) }

// Epoch is the number of this root.
func (r *Root) Epoch() uint32 { return r.epoch }

// CA is the root CA's key.
func (r *Root) CA() *ecdsa.PrivateKey { return r.ca }

// CASPKI is the DER SubjectPublicKeyInfo of the root CA: the identity that
// app-compose's key_provider_id pins.
func (r *Root) CASPKI() ([]byte, error) { return x509.MarshalPKIXPublicKey(&r.ca.PublicKey) }

// K256Public is the compressed public key (33 bytes) that apps' keys chain to.
func (r *Root) K256Public() []byte {
	k, err := scalar256k1(r.k256)
	if err != nil {
		return nil // newRoot has checked it
	}
	return k.PubKey().SerializeCompressed()
}

func (r *Root) context(items ...[]byte) [][]byte { return append(items, epochContext(r.epoch)) }

// DiskKey is disk_crypt_key. All instances of an app without instance ids share one.
func (r *Root) DiskKey(app cvm.AppID, inst cvm.InstanceID) (Secret, error) {
	var id []byte
	if !inst.IsZero() {
		id = inst[:]
	}
	return DeriveDH(r.raw, r.context(app[:], id, []byte("app-disk-crypt-key"))...)
}

// EnvKey is env_crypt_key: the X25519 private key of the app's environment.
func (r *Root) EnvKey(app cvm.AppID) (Secret, error) {
	return DeriveDH(r.raw, r.context(app[:], []byte("env-encrypt-key"))...)
}

// AppCA is the key of the app's intermediate CA.
func (r *Root) AppCA(app cvm.AppID) (*ecdsa.PrivateKey, error) {
	return DeriveP256(r.raw, r.context(app[:], []byte("app-ca"))...)
}

// AppKey is k256_key, from which the guest derives everything it hands to apps.
func (r *Root) AppKey(app cvm.AppID) (Secret, error) {
	return Derive(r.k256.b, Size, r.context(app[:], []byte("app-key"))...)
}

// AppKeySignature is k256_signature: the root's word that the app key is the app's.
func (r *Root) AppKeySignature(app cvm.AppID) ([]byte, error) {
	k, err := r.AppKey(app)
	if err != nil {
		return nil, err
	}
	pub, err := K256Public(k)
	if err != nil {
		return nil, err
	}
	return signKeccak(r.k256, issuedMessage(app, pub))
}

// SignEnvKey signs an app's environment public key in both forms of the
// reference: without a time, and with one (unix seconds).
func (r *Root) SignEnvKey(app cvm.AppID, pub []byte, at uint64) (v0, v1 []byte, err error) {
	if v0, err = signKeccak(r.k256, envKeyMessage(app, nil, pub)); err != nil {
		return nil, nil, err
	}
	v1, err = signKeccak(r.k256, envKeyMessage(app, &at, pub))
	return v0, v1, err
}

// ServiceKey derives 32 bytes for the KMS's own use. The leading byte string
// cannot start an app's context: those start with a 20-byte app id.
func (r *Root) ServiceKey(p Purpose) (Secret, error) {
	return Derive(r.k256.b, Size, r.context([]byte("phala-kms-service-key:"), []byte(p))...)
}

// TicketKey signs route tickets.
func (r *Root) TicketKey() (ed25519.PrivateKey, error) {
	s, err := r.ServiceKey(PurposeTicket)
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(s.b), nil
}

// Scalar is a P-256 key as its 32 bytes, for use as a parent of derivations.
func Scalar(k *ecdsa.PrivateKey) (Secret, error) {
	if k.Curve != elliptic.P256() {
		return Secret{}, fmt.Errorf("want a P-256 key")
	}
	b, err := k.Bytes()
	if err != nil {
		return Secret{}, fmt.Errorf("encoding a P-256 key: %w", err)
	}
	return Secret{b}, nil
}
