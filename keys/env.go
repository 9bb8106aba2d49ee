package keys

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/confidential-cloud/phala/cvm"
)

// EnvVar is one environment variable.
type EnvVar struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// String keeps values out of logs.
func (v EnvVar) String() string { return v.Key + "=" + redacted }

// Format keeps %+v and %#v from showing the value.
func (v EnvVar) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, v.String()) }

type envDocument struct {
	Env []EnvVar `json:"env"`
}

// Limits of an encrypted environment (the reference's; sizes in bytes).
const (
	MaxEnvItems = 1024
	MaxEnvKey   = 255
	MaxEnvValue = 128 << 10
	MaxEnvTotal = 1 << 20
	maxEnvBlob  = 8 << 20 // JSON may escape one byte as six
)

// CheckEnv applies the limits that the guest will apply.
func CheckEnv(env []EnvVar) error {
	if len(env) > MaxEnvItems {
		return cvm.Errorf(cvm.Invalid, "environment: %d variables, the limit is %d", len(env), MaxEnvItems)
	}
	total := 0
	for _, v := range env {
		if len(v.Key) > MaxEnvKey {
			return cvm.Errorf(cvm.Invalid, "environment: a name of %d bytes, the limit is %d", len(v.Key), MaxEnvKey)
		}
		if len(v.Value) > MaxEnvValue {
			return cvm.Errorf(cvm.Invalid, "environment: %s has %d bytes, the limit is %d", v.Key, len(v.Value), MaxEnvValue)
		}
		total += len(v.Key) + len(v.Value)
	}
	if total > MaxEnvTotal {
		return cvm.Errorf(cvm.Invalid, "environment: %d bytes in total, the limit is %d", total, MaxEnvTotal)
	}
	return nil
}

// EncryptEnv encrypts variables to an app's environment key (X25519, 32 bytes).
// Format: ephemeral public key (32) || IV (12) || AES-256-GCM ciphertext and tag,
// under the X25519 shared secret itself.
func EncryptEnv(rand io.Reader, pub []byte, env []EnvVar) ([]byte, error) {
	if err := CheckEnv(env); err != nil {
		return nil, err
	}
	if env == nil {
		env = []EnvVar{}
	}
	plain, err := json.Marshal(envDocument{env})
	if err != nil {
		return nil, fmt.Errorf("encoding the environment: %w", err)
	}
	peer, err := ecdh.X25519().NewPublicKey(pub)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "environment key: %w", err)
	}
	seed := make([]byte, 32+12)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return nil, fmt.Errorf("drawing an ephemeral key: %w", err)
	}
	eph, err := ecdh.X25519().NewPrivateKey(seed[:32])
	if err != nil {
		return nil, fmt.Errorf("ephemeral key: %w", err)
	}
	aead, err := envCipher(eph, peer)
	if err != nil {
		return nil, err
	}
	out := append(eph.PublicKey().Bytes(), seed[32:]...)
	return aead.Seal(out, seed[32:], plain, nil), nil
}

func envCipher(priv *ecdh.PrivateKey, pub *ecdh.PublicKey) (cipher.AEAD, error) {
	shared, err := priv.ECDH(pub) // refuses the all-zero result
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "environment key: %w", err)
	}
	block, err := aes.NewCipher(shared)
	if err != nil {
		return nil, fmt.Errorf("environment cipher: %w", err)
	}
	return cipher.NewGCM(block)
}

// DecryptEnv opens what EncryptEnv made. It keeps every variable: the guest
// filters by name and by allowed_envs.
func DecryptEnv(priv Secret, blob []byte) ([]EnvVar, error) {
	if len(blob) < 32+12+16 || len(blob) > maxEnvBlob {
		return nil, cvm.Errorf(cvm.Invalid, "encrypted environment: %d bytes is not a possible length", len(blob))
	}
	k, err := ecdh.X25519().NewPrivateKey(priv.b)
	if err != nil {
		return nil, fmt.Errorf("environment key: not 32 bytes")
	}
	eph, err := ecdh.X25519().NewPublicKey(blob[:32])
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "encrypted environment: %w", err)
	}
	aead, err := envCipher(k, eph)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, blob[32:44], blob[44:], nil)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "encrypted environment: it was not encrypted to this app's key, or it was changed")
	}
	var d envDocument
	target := any(&d)
	if bytes.HasPrefix(plain, []byte("[")) { // a bare list, as in the reference's own vector
		target = &d.Env
	}
	if err := json.Unmarshal(plain, target); err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "encrypted environment: its content is not the expected JSON") // no cause: it may quote a value
	}
	if err := CheckEnv(d.Env); err != nil {
		return nil, err
	}
	return d.Env, nil
}

// EnvPublicKey is the public half (32 bytes) of an app's environment key.
func EnvPublicKey(priv Secret) ([]byte, error) {
	k, err := ecdh.X25519().NewPrivateKey(priv.b)
	if err != nil {
		return nil, fmt.Errorf("environment key: not 32 bytes")
	}
	return k.PublicKey().Bytes(), nil
}

// How old, and how far ahead, a signed environment key may be.
const (
	EnvKeyMaxAge  = 300 * time.Second
	EnvKeyMaxSkew = 60 * time.Second
)

// RecoverEnvKeySigner finds who signed an app's environment key: with a time
// (unix seconds) the v1 message, without one (nil) the legacy message. It returns
// the compressed key; compare it with the pinned KMS key.
func RecoverEnvKeySigner(app cvm.AppID, pub []byte, at *uint64, sig []byte) ([]byte, error) {
	return Recover(Keccak256(envKeyMessage(app, at, pub)), sig)
}

// VerifyEnvKey checks that the pinned KMS root key (33 bytes) signed the app's
// environment key, recently. The legacy signature, which has no time, does not count.
func VerifyEnvKey(app cvm.AppID, pub []byte, timestamp uint64, sigV1, root []byte, at time.Time) error {
	if len(pub) != 32 {
		return cvm.Errorf(cvm.Invalid, "environment key: want 32 bytes, got %d", len(pub))
	}
	got, err := RecoverEnvKeySigner(app, pub, &timestamp, sigV1)
	if err != nil {
		return err
	}
	if len(root) == 0 || !bytes.Equal(got, root) {
		return cvm.Errorf(cvm.Denied, "environment key is signed by %x, not by the pinned KMS key %x", got, root).
			WithReason("env-key-wrong-signer").WithFix("check that the profile's KMS is the one you mean")
	}
	if timestamp > 1<<62 {
		return cvm.Errorf(cvm.Denied, "environment key: its time is not possible").WithReason("env-key-stale")
	}
	signed := time.Unix(int64(timestamp), 0)
	if at.Sub(signed) > EnvKeyMaxAge || signed.Sub(at) > EnvKeyMaxSkew {
		return cvm.Errorf(cvm.Denied, "environment key was signed at %s, which is not recent", signed.UTC().Format(time.RFC3339)).
			WithReason("env-key-stale").WithFix("check this machine's clock and try again")
	}
	return nil
}

// EnvText is what the owner's wallet signs to vouch for an encrypted environment
// (T11), before the EIP-191 wrapping: a wallet's personal_sign takes this.
func EnvText(app cvm.AppID, counter uint64, blobSHA256 [32]byte) string {
	return fmt.Sprintf("phala-env:v1:%s:%d:%x", app, counter, blobSHA256)
}

// EnvMessage is EnvText as an EIP-191 personal message; its keccak256 is signed.
func EnvMessage(app cvm.AppID, counter uint64, blobSHA256 [32]byte) []byte {
	t := EnvText(app, counter, blobSHA256)
	return fmt.Appendf(nil, "\x19Ethereum Signed Message:\n%d%s", len(t), t)
}

// SignEnv signs EnvMessage as a wallet does: r || s || v with v 27 or 28.
func SignEnv(key Secret, app cvm.AppID, counter uint64, blobSHA256 [32]byte) ([]byte, error) {
	s, err := signKeccak(key, EnvMessage(app, counter, blobSHA256))
	if err != nil {
		return nil, err
	}
	s[64] += 27
	return s, nil
}

// RecoverEnvSigner finds the address (0x, lowercase hex) that signed EnvMessage.
// v may be 0, 1, 27 or 28.
func RecoverEnvSigner(sig []byte, app cvm.AppID, counter uint64, blobSHA256 [32]byte) (string, error) {
	if len(sig) != SignatureSize {
		return "", cvm.Errorf(cvm.Invalid, "environment signature: want %d bytes, got %d", SignatureSize, len(sig))
	}
	s := bytes.Clone(sig)
	if s[64] == 27 || s[64] == 28 {
		s[64] -= 27
	}
	pub, err := Recover(Keccak256(EnvMessage(app, counter, blobSHA256)), s)
	if err != nil {
		return "", err
	}
	return Address(pub)
}

// Address is the Ethereum address of a secp256k1 public key, 0x and lowercase.
func Address(pub []byte) (string, error) {
	k, err := secp256k1.ParsePubKey(pub)
	if err != nil {
		return "", cvm.Errorf(cvm.Invalid, "secp256k1 public key: %w", err)
	}
	return "0x" + hex.EncodeToString(Keccak256(k.SerializeUncompressed()[1:])[12:]), nil
}

// SameAddress compares two addresses, ignoring case and a missing 0x.
func SameAddress(a, b string) bool {
	norm := func(s string) string { return strings.TrimPrefix(strings.ToLower(s), "0x") }
	return len(norm(a)) == 40 && norm(a) == norm(b)
}
