package keys

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
)

// Secret is key material. It prints as [redacted] everywhere; Reveal is the only
// way to its bytes, and JSON (for the pinned channel that carries it) the only
// encoding.
type Secret struct{ b []byte }

// NewSecret takes ownership of b.
func NewSecret(b []byte) Secret { return Secret{b: b} }

// Reveal returns the bytes. Do not log them, do not keep a copy.
func (s Secret) Reveal() []byte { return s.b }

// Len is the number of bytes.
func (s Secret) Len() int { return len(s.b) }

const redacted = "[redacted]"

func (s Secret) String() string             { return redacted }
func (s Secret) GoString() string           { return redacted }
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }
func (s Secret) LogValue() slog.Value       { return slog.StringValue(redacted) }

// MarshalJSON writes base64: only ever call it on a channel that may carry keys.
func (s Secret) MarshalJSON() ([]byte, error) {
	return json.Marshal(base64.StdEncoding.EncodeToString(s.b))
}

// UnmarshalJSON reads base64.
func (s *Secret) UnmarshalJSON(b []byte) error {
	var t string
	if err := json.Unmarshal(b, &t); err != nil {
		return fmt.Errorf("secret: not a string")
	}
	v, err := base64.StdEncoding.DecodeString(t)
	if err != nil {
		return fmt.Errorf("secret: not base64")
	}
	s.b = v
	return nil
}
