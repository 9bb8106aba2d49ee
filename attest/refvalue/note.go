package refvalue

import (
	"crypto/sha256"
	"errors"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/confidential-cloud/phala/cvm"
)

// Mark remembers one version of a feed, so that no older and no other one of the
// same number is taken after it. The zero Mark remembers nothing.
type Mark struct {
	Version uint64   `json:"version"`
	SHA256  [32]byte `json:"sha256"` // of the signed text
}

// Reasons of refusals, as cvm.ReasonOf finds them.
const (
	ReasonSignature = "reference-values-signature"
	ReasonOlder     = "reference-values-older"
	ReasonForked    = "reference-values-forked"
	ReasonExpired   = "reference-values-expired"
)

// Open verifies a signed feed and reads it. keys are verifier keys in the form of
// signed notes (name+hash+key); one of them must have signed. at must lie in the
// feed's period, and the version must not be lower than floor's, nor the same with
// other contents. It returns the mark that the next call must take.
func Open(msg []byte, keys []string, floor Mark, at time.Time) (Values, Mark, error) {
	v, mark, err := Read(msg, keys)
	if err == nil {
		err = floor.check(mark)
	}
	if err == nil {
		err = v.Current(at)
	}
	if err != nil {
		return Values{}, Mark{}, err
	}
	return v, mark, nil
}

// Read is Open without version and time: for showing a feed, and for remembering
// the mark of one that has expired meanwhile.
func Read(msg []byte, keys []string) (Values, Mark, error) {
	text, err := openNote(msg, keys)
	if err != nil {
		return Values{}, Mark{}, err
	}
	v, err := Parse([]byte(text))
	if err != nil {
		return Values{}, Mark{}, err
	}
	return v, Mark{v.Version, sha256.Sum256([]byte(text))}, nil
}

func (floor Mark) check(m Mark) error {
	switch {
	case m.Version < floor.Version:
		return cvm.Errorf(cvm.Denied, "reference values: version %d is older than version %d, which was seen before", m.Version, floor.Version).
			WithReason(ReasonOlder).WithFix("get the newest feed; whoever serves this one may be replaying it")
	case m.Version == floor.Version && m != floor:
		return cvm.Errorf(cvm.Denied, "reference values: version %d was seen before with other contents", m.Version).
			WithReason(ReasonForked).WithFix("ask the signer: two feeds carry the same version")
	}
	return nil
}

// Current refuses values outside their period.
func (v Values) Current(at time.Time) error {
	if at.Before(v.Issued) || !at.Before(v.Expires) {
		return cvm.Errorf(cvm.Denied, "reference values: version %d holds from %s to %s, it is %s", v.Version,
			v.Issued.Format(time.RFC3339), v.Expires.Format(time.RFC3339), at.UTC().Format(time.RFC3339)).
			WithReason(ReasonExpired).WithFix("get a newer feed, and check this machine's clock")
	}
	return nil
}

func openNote(msg []byte, keys []string) (string, error) {
	if len(msg) > MaxFeed {
		return "", invalid("%d bytes, at most %d", len(msg), MaxFeed)
	}
	if len(keys) == 0 {
		return "", cvm.Errorf(cvm.Invalid, "reference values: no key is pinned")
	}
	var vs []note.Verifier
	for _, k := range keys {
		v, err := note.NewVerifier(k)
		if err != nil {
			return "", cvm.Errorf(cvm.Invalid, "reference values: key %q: %w", k, err).
				WithFix("the key is one line of the form name+hash+base64, as `phala measure feed key` prints it")
		}
		vs = append(vs, v)
	}
	n, err := note.Open(msg, note.VerifierList(vs...))
	var unverified *note.UnverifiedNoteError
	switch {
	case errors.As(err, &unverified):
		return "", cvm.Errorf(cvm.Denied, "reference values: not signed by a pinned key").WithReason(ReasonSignature)
	case err != nil:
		return "", cvm.Errorf(cvm.Denied, "reference values: %w", err).WithReason(ReasonSignature)
	}
	return n.Text, nil
}

// Sign writes the feed: the canonical text and one signature. key is a signer key
// in the form of signed notes (PRIVATE+KEY+...): a secret.
func Sign(v Values, key string) ([]byte, error) {
	text, err := v.Marshal()
	if err != nil {
		return nil, err
	}
	s, err := note.NewSigner(key)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "reference values: the key file does not hold a signer key of signed notes")
	}
	return note.Sign(&note.Note{Text: string(text)}, s)
}
