package check

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/cvm"
)

// fields is a JSON object by its exact keys. Go's decoder would take a key in any
// case and the last of two: both let one document say two things to two readers.
type fields struct {
	what string
	m    map[string]json.RawMessage
	err  error // the first thing that was wrong
}

// object reads one strict JSON object: nothing after it, no key twice or in two
// cases at any depth.
func object(what string, raw []byte) *fields {
	f := &fields{what: what}
	if err := collateral.StrictKeys(raw); err != nil {
		f.fail("%w", err)
	} else if err := json.Unmarshal(raw, &f.m); err != nil || f.m == nil {
		f.fail("not a JSON object")
	}
	return f
}

func (f *fields) fail(format string, args ...any) {
	if f.err == nil {
		f.err = cvm.Errorf(cvm.Invalid, "%s: %w", f.what, fmt.Errorf(format, args...)).WithReason("evidence-input")
	}
}

// only refuses keys that are not listed.
func (f *fields) only(known ...string) {
	var odd []string
	for k := range f.m {
		if !slices.Contains(known, k) {
			odd = append(odd, k)
		}
	}
	if odd != nil {
		slices.Sort(odd)
		f.fail("unknown key %.80q (known: %s)", odd[0], strings.Join(known, ", "))
	}
}

// has reports whether a key is there with a value other than null.
func (f *fields) has(key string) bool {
	v, ok := f.m[key]
	return ok && !bytes.Equal(v, []byte("null"))
}

// text reads a string; "" when the key is not there.
func (f *fields) text(key string) (s string) {
	if f.has(key) {
		if err := json.Unmarshal(f.m[key], &s); err != nil {
			f.fail("%s is not a string", key)
		}
	}
	return s
}

// hex reads bytes in hex, perhaps after 0x; nil when the key is not there.
func (f *fields) hex(key string) []byte {
	b, err := hex.DecodeString(strings.TrimPrefix(f.text(key), "0x"))
	if err != nil {
		f.fail("%s is not hex", key)
	}
	return b
}

// maxList bounds a list of byte strings.
const maxList = 16

// hexList reads a list of byte strings in hex; nil when the key is not there.
func (f *fields) hexList(key string) (out [][]byte) {
	var list []string
	if !f.has(key) {
		return nil
	}
	if err := json.Unmarshal(f.m[key], &list); err != nil || len(list) > maxList {
		f.fail("%s is not a list of at most %d strings", key, maxList)
		return nil
	}
	for _, s := range list {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.fail("%s is not hex", key)
		}
		out = append(out, b)
	}
	return out
}

// unix reads whole seconds since 1970; ok is false when the key is not there.
func (f *fields) unix(key string) (sec int64, ok bool) {
	if !f.has(key) {
		return 0, false
	}
	if err := json.Unmarshal(f.m[key], &sec); err != nil || sec <= 0 || sec > maxUnix {
		f.fail("%s is not a time in unix seconds", key)
	}
	return sec, true
}

// maxUnix is the end of the year 9999, the last that certificates can name.
const maxUnix = 253402300799
