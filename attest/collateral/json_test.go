package collateral_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest/collateral"
)

// tokens is a second opinion on keys, by the standard library's tokens.
func tokens(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var walk func(depth int) error
	walk = func(depth int) error {
		t, err := d.Token()
		if err != nil {
			return err
		}
		open, ok := t.(json.Delim)
		if !ok {
			return nil
		}
		if depth == 16 {
			return errors.New("too deep")
		}
		seen := map[string]bool{}
		for d.More() {
			if open == '{' {
				k, err := d.Token()
				if err != nil {
					return err
				}
				f := strings.ToLower(k.(string))
				if seen[f] || strings.ContainsFunc(f, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
					return errors.New("key")
				}
				seen[f] = true
			}
			if err := walk(depth + 1); err != nil {
				return err
			}
		}
		_, err = d.Token()
		return err
	}
	if err := walk(0); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more")
	}
	return nil
}

func strictCases() map[string]bool {
	deep := strings.Repeat("[", 16) + strings.Repeat("]", 16)
	var many strings.Builder
	for i := range 40 {
		many.WriteString(`"k` + strings.Repeat("x", i) + `":1,`)
	}
	return map[string]bool{
		``: false, ` `: false, `{}`: true, ` {} `: true, `[]`: true, `1`: true, ` "a" `: true, `null`: true, `{"a":1}`: true, `{} {}`: false, `{"a":1}x`: false,
		`{"a":1,"a":2}`: false, `{"a":1,"A":2}`: false, `{"a":{"b":1},"c":{"b":1}}`: true, `[{"a":1},{"a":1}]`: true, `[{"a":[{"b":1,"B":2}]}]`: false,
		`{"\u0061":1}`: false, `{"a\"":1}`: false, `{"é":1}`: false, `{"a":"é\"}{\\","b":"\\"}`: true, `{"":1}`: true, `{"":1,"":2}`: false,
		deep: true, `[` + deep + `]`: false, `{"x":` + deep[:30] + `}`: false, "{\"a\"\t:\r\n[1 , 2.5e-3,true ,null] , \"b\" : {} }": true,
		`{` + many.String() + `"z":1}`: true, `{` + many.String() + `"K":1}`: false, `{` + many.String() + `"kxxxxxxxxxxxxxxxxxxxxxxxxX":1}`: false, `{"a":}`: false, `{"a"}`: false,
	}
}

func TestStrictKeys(t *testing.T) {
	for doc, want := range strictCases() {
		if err := collateral.StrictKeys([]byte(doc)); (err == nil) != want {
			t.Errorf("%s: %v", doc, err)
		}
	}
}

// Ours is never the laxer reader, and stricter on escapes only.
func FuzzStrictKeys(f *testing.F) {
	for doc := range strictCases() {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := collateral.StrictKeys(b), tokens(b)
		if ours == nil && theirs != nil {
			t.Fatalf("%q: %v", b, theirs)
		}
		if ours != nil && theirs == nil && json.Valid(b) && !bytes.ContainsRune(b, '\\') {
			t.Fatalf("%q: %v", b, ours)
		}
	})
}

// A stranger's document of many keys costs no square of them, and no more memory
// than the keys that an object may have; a list of as many values costs none.
func TestManyKeys(t *testing.T) {
	object := func(n int) []byte {
		var b strings.Builder
		for i := range n {
			b.WriteString(`,"k` + strconv.Itoa(i) + `":1`)
		}
		return []byte("{" + b.String()[1:] + "}")
	}
	if err := collateral.StrictKeys(object(1 << 14)); err != nil {
		t.Error(err)
	}
	if err := collateral.StrictKeys(object(1<<14 + 1)); err == nil {
		t.Error("16,385 keys pass")
	}
	for name, doc := range map[string][]byte{"object": object(500_000), "list": []byte("[" + strings.Repeat("1,", 2<<20) + "1]")} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_ = collateral.StrictKeys(doc)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
			t.Errorf("%s: %d bytes were allocated for %d", name, n, len(doc))
		}
	}
}
