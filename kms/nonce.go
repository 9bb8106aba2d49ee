package kms

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

// A nonce is time (unix seconds, u64 BE) || 16 random bytes || HMAC-SHA256 over
// both and the client's key. It needs no memory: any member checks what any
// member gave. That it redeems once is the replicated state's work.
const nonceSize = 8 + 16 + 32

func nonceMAC(key keys.Secret, head, spki []byte) []byte {
	h := hmac.New(sha256.New, key.Reveal())
	h.Write([]byte("phala-kms-nonce:v1:"))
	h.Write(head)
	k := sha256.Sum256(spki)
	h.Write(k[:])
	return h.Sum(nil)
}

func newNonce(key keys.Secret, spki []byte, at time.Time) kmsapi.Nonce {
	b := binary.BigEndian.AppendUint64(nil, uint64(at.Unix()))
	r := make([]byte, 16)
	_, _ = rand.Read(r) // crypto/rand does not fail
	b = append(b, r...)
	return kmsapi.Nonce{Nonce: append(b, nonceMAC(key, b, spki)...), Expires: at.Add(kmsapi.NonceMaxAge)}
}

// nonceSkew is how far another member's clock may be ahead of ours.
const nonceSkew = 10 * time.Second

// checkNonce verifies a nonce for a client key and returns its end.
func checkNonce(key keys.Secret, nonce, spki []byte, at time.Time) (time.Time, error) {
	if len(nonce) != nonceSize {
		return time.Time{}, cvm.Errorf(cvm.Invalid, "nonce: want %d bytes, got %d", nonceSize, len(nonce)).WithReason(kmsapi.ReasonBinding)
	}
	if subtle.ConstantTimeCompare(nonceMAC(key, nonce[:24], spki), nonce[24:]) != 1 {
		return time.Time{}, cvm.Errorf(cvm.Denied, "the nonce was not given by this KMS to this TLS client key").
			WithReason(kmsapi.ReasonBinding).WithFix("ask /v1/nonce over the same client certificate")
	}
	made := time.Unix(int64(binary.BigEndian.Uint64(nonce)), 0)
	if at.Sub(made) > kmsapi.NonceMaxAge || made.Sub(at) > nonceSkew {
		return time.Time{}, cvm.Errorf(cvm.Denied, "the nonce is of %s, its time is %s", made.UTC().Format(time.RFC3339), kmsapi.NonceMaxAge).
			WithReason(kmsapi.ReasonNonceExpired).WithFix("ask for a new nonce and make new evidence")
	}
	return made.Add(kmsapi.NonceMaxAge), nil
}

func hashHex(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
