package ledger

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
)

// LeafVersion is the only version of leaves there is.
const LeafVersion = 1

// MaxLeaf bounds an encoded leaf, in bytes: tlog-tiles entry bundles carry a
// 16-bit length.
const MaxLeaf = 1<<16 - 1

// Encode gives the leaf's canonical bytes, which the tree hashes: JSON with the
// fields in the order of the type, absent ones left out, embedded JSON in
// canonical form (RFC 8785), times in UTC and whole seconds.
func (l Leaf) Encode() ([]byte, error) {
	if l.Version != LeafVersion {
		return nil, cvm.Errorf(cvm.Invalid, "ledger leaf: version %d, want %d", l.Version, LeafVersion)
	}
	if !slices.Contains(Kinds(), l.Kind) {
		return nil, cvm.Errorf(cvm.Invalid, "ledger leaf: unknown kind %q", l.Kind)
	}
	l.Time = l.Time.UTC().Truncate(time.Second)
	if y := l.Time.Year(); y < 1970 || y > 9999 {
		return nil, cvm.Errorf(cvm.Invalid, "ledger leaf: year %d is not possible", y)
	}
	l.Reason, l.Detail = clip(l.Reason, 256), clip(l.Detail, 4096)
	for _, raw := range []*json.RawMessage{&l.Governance, &l.Note} {
		if len(*raw) == 0 {
			continue
		}
		c, err := appcompose.Canonical(*raw)
		if err != nil {
			return nil, cvm.Errorf(cvm.Invalid, "ledger leaf: embedded JSON: %w", err)
		}
		*raw = c
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(l); err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "ledger leaf: %w", err)
	}
	out := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(out) > MaxLeaf {
		return nil, cvm.Errorf(cvm.Invalid, "ledger leaf: %d bytes, the limit is %d", len(out), MaxLeaf)
	}
	return out, nil
}

// clip bounds a text and makes it valid UTF-8, so that encoding it twice gives
// the same bytes.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "?")
}

// Kinds are all kinds of leaves, in the order in which people read about them: the
// cluster, its decisions, what became of keys and disks.
func Kinds() []string {
	return []string{KindBootstrap, KindJoin, KindRemove, KindAllow, KindDeny, KindSummary, KindEpoch, KindRevocation, KindGeneration}
}

// ParseLeaf reads a leaf. Only canonical bytes are accepted: what parses encodes
// to the same bytes.
func ParseLeaf(b []byte) (Leaf, error) {
	var l Leaf
	if len(b) > MaxLeaf {
		return l, cvm.Errorf(cvm.Invalid, "ledger leaf: %d bytes, the limit is %d", len(b), MaxLeaf)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return Leaf{}, cvm.Errorf(cvm.Invalid, "ledger leaf: %w", err)
	}
	again, err := l.Encode()
	if err != nil {
		return Leaf{}, err
	}
	if !bytes.Equal(again, b) {
		return Leaf{}, cvm.Errorf(cvm.Invalid, "ledger leaf: not in canonical form")
	}
	return l, nil
}
