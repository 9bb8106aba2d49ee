package ledger

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/confidential-cloud/phala/cvm"
)

// Checkpoint is the state of the log: C2SP tlog-checkpoint.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   [32]byte
}

// maxNote bounds a signed checkpoint, in bytes.
const maxNote = 64 << 10

// Text is the note text: origin, size, base64 root, each with a newline.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

func parseCheckpoint(text string) (Checkpoint, error) {
	var c Checkpoint
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[0] == "" {
		return c, cvm.Errorf(cvm.Invalid, "ledger checkpoint: want three lines")
	}
	n, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || n < 0 {
		return c, cvm.Errorf(cvm.Invalid, "ledger checkpoint: bad size %q", lines[1])
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != 32 {
		return c, cvm.Errorf(cvm.Invalid, "ledger checkpoint: bad root hash")
	}
	c = Checkpoint{Origin: lines[0], Size: n, Root: [32]byte(root)}
	if c.Text() != text {
		return Checkpoint{}, cvm.Errorf(cvm.Invalid, "ledger checkpoint: not in canonical form")
	}
	return c, nil
}

// MemberKeyName is the signed-note key name of a member.
func MemberKeyName(origin, member string) string { return origin + "/" + member }

// VerifierKey is the C2SP signed-note verifier key of a member.
func VerifierKey(name string, pub ed25519.PublicKey) (string, error) {
	return note.NewEd25519VerifierKey(name, pub)
}

// signer is a note.Signer over a key we hold as bytes.
type signer struct {
	name string
	hash uint32
	key  ed25519.PrivateKey
}

func (s *signer) Name() string                    { return s.name }
func (s *signer) KeyHash() uint32                 { return s.hash }
func (s *signer) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

// SignCheckpoint signs a checkpoint as the named key.
func SignCheckpoint(c Checkpoint, name string, key ed25519.PrivateKey) ([]byte, error) {
	vk, err := VerifierKey(name, key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, fmt.Errorf("signing a checkpoint: %w", err)
	}
	v, err := note.NewVerifier(vk)
	if err != nil {
		return nil, fmt.Errorf("signing a checkpoint: %w", err)
	}
	return note.Sign(&note.Note{Text: c.Text()}, &signer{name, v.KeyHash(), key})
}

// MergeCheckpoints joins the signatures of notes over the same text. Notes over
// another text, or without a valid signature of one of the keys, are refused.
func MergeCheckpoints(keys []string, notes ...[]byte) ([]byte, error) {
	vs, err := verifiers(keys)
	if err != nil {
		return nil, err
	}
	var all *note.Note
	seen := map[string]bool{}
	for _, b := range notes {
		n, err := openNote(b, vs)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = &note.Note{Text: n.Text}
		}
		if n.Text != all.Text {
			return nil, cvm.Errorf(cvm.Denied, "ledger: members sign different checkpoints").WithReason("ledger-forked")
		}
		for _, s := range n.Sigs {
			if k := fmt.Sprint(s.Name, s.Hash); !seen[k] {
				seen[k] = true
				all.Sigs = append(all.Sigs, s)
			}
		}
	}
	if all == nil {
		return nil, cvm.Errorf(cvm.Invalid, "ledger: no checkpoint to merge")
	}
	return note.Sign(all)
}

func verifiers(keys []string) (note.Verifiers, error) {
	var vs []note.Verifier
	seen := map[string]bool{}
	for _, k := range keys {
		v, err := note.NewVerifier(k)
		if err != nil {
			return nil, cvm.Errorf(cvm.Invalid, "ledger: checkpoint key %q: %w", k, err)
		}
		parts := strings.SplitN(k, "+", 3) // name, hash, key
		if seen[parts[2]] {
			return nil, cvm.Errorf(cvm.Invalid, "ledger: the checkpoint key of %s is listed twice", v.Name())
		}
		seen[parts[2]] = true
		vs = append(vs, v)
	}
	return note.VerifierList(vs...), nil
}

func openNote(b []byte, vs note.Verifiers) (*note.Note, error) {
	if len(b) > maxNote {
		return nil, cvm.Errorf(cvm.Invalid, "ledger checkpoint: %d bytes, the limit is %d", len(b), maxNote)
	}
	n, err := note.Open(b, vs)
	if err != nil {
		return nil, cvm.Errorf(cvm.Denied, "ledger checkpoint: %w", err).WithReason("ledger-checkpoint-invalid")
	}
	return n, nil
}

// Keys says whose signatures make a checkpoint: a trust profile holds it.
// The zero Keys accepts nothing.
type Keys struct {
	Origin    string   `json:"origin" toml:"origin"`
	Keys      []string `json:"keys" toml:"keys"`           // note verifier keys of the members
	Threshold int      `json:"threshold" toml:"threshold"` // at least a majority of Keys
}

// Majority makes Keys with the smallest threshold that two disjoint groups of
// members cannot both reach.
func Majority(origin string, keys []string) Keys {
	return Keys{Origin: origin, Keys: keys, Threshold: len(keys)/2 + 1}
}

// Validate refuses thresholds below a majority: two forks could both reach them.
func (k Keys) Validate() error {
	switch {
	case k.Origin == "":
		return cvm.Errorf(cvm.Invalid, "ledger keys: origin is missing")
	case len(k.Keys) == 0:
		return cvm.Errorf(cvm.Invalid, "ledger keys: no keys")
	case 2*k.Threshold <= len(k.Keys) || k.Threshold > len(k.Keys):
		return cvm.Errorf(cvm.Invalid, "ledger keys: threshold %d of %d is no majority", k.Threshold, len(k.Keys))
	}
	_, err := verifiers(k.Keys)
	return err
}

// Open verifies a signed checkpoint: origin, and signatures of enough members.
func (k Keys) Open(b []byte) (Checkpoint, error) {
	if err := k.Validate(); err != nil {
		return Checkpoint{}, err
	}
	vs, err := verifiers(k.Keys)
	if err != nil {
		return Checkpoint{}, err
	}
	n, err := openNote(b, vs)
	if err != nil {
		return Checkpoint{}, err
	}
	c, err := parseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != k.Origin {
		return Checkpoint{}, cvm.Errorf(cvm.Denied, "ledger checkpoint is of %q, want %q", c.Origin, k.Origin).WithReason("ledger-wrong-origin")
	}
	if len(n.Sigs) < k.Threshold { // note.Open keeps one verified signature per key
		return Checkpoint{}, cvm.Errorf(cvm.Denied, "ledger checkpoint has %d of %d needed signatures", len(n.Sigs), k.Threshold).
			WithReason("ledger-too-few-signatures")
	}
	return c, nil
}

// Verify checks that the receipt's leaf is in the log that enough members signed.
func (r Receipt) Verify(k Keys) (Leaf, error) {
	c, err := k.Open(r.Checkpoint)
	if err != nil {
		return Leaf{}, err
	}
	if c.Size != r.TreeSize {
		return Leaf{}, cvm.Errorf(cvm.Denied, "receipt: proof for size %d, checkpoint of size %d", r.TreeSize, c.Size).WithReason("ledger-not-included")
	}
	if err := CheckInclusion(r.Leaf, r.Index, c.Size, c.Root, r.Proof); err != nil {
		return Leaf{}, err
	}
	return ParseLeaf(r.Leaf)
}
