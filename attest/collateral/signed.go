package collateral

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// Signed is a JSON object and the vendor's signature over its exact bytes.
type Signed struct {
	Bytes     []byte // what was signed
	Signature []byte // r || s, 64 bytes
}

// Verify checks the signature (ECDSA P-256 over SHA-256 of Bytes).
func (s Signed) Verify(pub *ecdsa.PublicKey) error {
	if !VerifyRaw(pub, s.Bytes, s.Signature) {
		return cvm.Errorf(cvm.Invalid, "the signature does not match")
	}
	return nil
}

// VerifyRaw checks an ECDSA signature of 256 bits in the form r || s over SHA-256
// of msg.
func VerifyRaw(pub *ecdsa.PublicKey, msg, sig []byte) bool {
	if pub == nil || len(sig) != 64 {
		return false
	}
	h := sha256.Sum256(msg)
	var buf [72]byte
	return ecdsa.VerifyASN1(pub, h[:], appendDER(buf[:0], sig))
}

// appendDER writes r || s (64 bytes) as the SEQUENCE of two INTEGERs that
// ecdsa.VerifyASN1 reads: at most 72 bytes.
func appendDER(dst, sig []byte) []byte {
	r, s := minimal(sig[:32]), minimal(sig[32:])
	dst = append(dst, 0x30, byte(4+len(r)+int(r[0]>>7)+len(s)+int(s[0]>>7))) //nolint:gosec // at most 70
	for _, n := range [2][]byte{r, s} {
		dst = append(dst, 0x02, byte(len(n)+int(n[0]>>7))) //nolint:gosec // at most 33
		if n[0]>>7 == 1 {
			dst = append(dst, 0) // else it would be negative
		}
		dst = append(dst, n...)
	}
	return dst
}

// minimal cuts leading zeros, but not the last byte.
func minimal(b []byte) []byte {
	for len(b) > 1 && b[0] == 0 {
		b = b[1:]
	}
	return b
}

// ParseSigned splits a body {"<name>":{...},"signature":"<128 hex>"} without
// decoding the signed object. It refuses any other, repeated or case-variant key
// at any depth: lenient decoders would let such a key override signed content.
func ParseSigned(body []byte, name string) (Signed, error) {
	if len(body) > MaxBody {
		return Signed{}, cvm.Errorf(cvm.Invalid, "%s: %d bytes, at most %d", name, len(body), MaxBody)
	}
	if len(body) == 0 {
		return Signed{}, cvm.Errorf(cvm.Invalid, "%s is missing", name)
	}
	ms, err := members(body)
	if err != nil {
		return Signed{}, cvm.Errorf(cvm.Invalid, "%s: %w", name, err)
	}
	m := map[string][]byte{}
	for _, x := range ms {
		m[x.key] = x.value
	}
	raw, sigJSON := m[name], m["signature"]
	if len(m) != 2 || len(raw) == 0 || raw[0] != '{' || len(sigJSON) == 0 {
		return Signed{}, cvm.Errorf(cvm.Invalid, "%s: want exactly the members %s and signature", name, name)
	}
	var sigHex string
	if err := json.Unmarshal(sigJSON, &sigHex); err != nil {
		return Signed{}, cvm.Errorf(cvm.Invalid, "%s: signature is not a string", name)
	}
	sig, err := hex.DecodeString(sigHex)
	if err != nil || len(sig) != 64 {
		return Signed{}, cvm.Errorf(cvm.Invalid, "%s: signature is not 64 bytes of hex", name)
	}
	return Signed{Bytes: bytes.Clone(raw), Signature: sig}, nil
}

// Window is the period in which signed collateral may be used.
type Window struct{ From, Until time.Time }

// Check refuses a time outside the window.
func (w Window) Check(at time.Time) error {
	if at.Before(w.From) {
		return cvm.Errorf(cvm.Invalid, "issued in the future: valid from %s", w.From.UTC().Format(time.RFC3339))
	}
	if !at.Before(w.Until) {
		return cvm.Errorf(cvm.Invalid, "expired %s", w.Until.UTC().Format(time.RFC3339))
	}
	return nil
}

const timeLayout = "2006-01-02T15:04:05Z"

func window(what, from, until string) (Window, error) {
	f, err1 := time.Parse(timeLayout, from)
	u, err2 := time.Parse(timeLayout, until)
	if err1 != nil || err2 != nil || !f.Before(u) {
		return Window{}, cvm.Errorf(cvm.Invalid, "%s: issueDate %q, nextUpdate %q: want two times in order", what, from, until)
	}
	return Window{f, u}, nil
}
