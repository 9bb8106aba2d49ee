package disk

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"strings"
)

// maxDepth bounds the nesting of the JSON area; what cryptsetup writes has 4 levels.
const maxDepth = 8

// node is one value of the JSON area and where it stands.
type node struct {
	path string
	v    any // map[string]any, []any, string, json.Number, bool, nil
}

// parseJSON reads the JSON area. cryptsetup reads the same bytes with another
// parser, so what the two might understand differently is refused: repeated
// members, escapes (but \/, which json-c may write), bytes that are not printable.
func parseJSON(text []byte) (node, error) {
	for i, c := range text {
		if c < ' ' || c > '~' {
			return node{}, refuse("JSON: byte %#x at %d", c, i)
		}
		if c == '\\' && (i+1 >= len(text) || text[i+1] != '/') {
			return node{}, refuse("JSON: an escape at %d", i)
		}
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	v, err := value(d, "", 0)
	if err != nil {
		return node{}, err
	}
	if _, err := d.Token(); err != io.EOF {
		return node{}, refuse("JSON: data behind the object")
	}
	return node{v: v}, nil
}

func value(d *json.Decoder, path string, depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, refuse("JSON: %v", err)
	}
	delim, ok := t.(json.Delim)
	if !ok {
		return t, nil
	}
	if depth == maxDepth {
		return nil, refuse("JSON: nested deeper than %d", maxDepth)
	}
	if delim == '[' {
		out := []any{}
		for d.More() {
			v, err := value(d, path+"[]", depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		_, err := d.Token()
		return out, wrap(err)
	}
	return members(d, path, depth)
}

func members(d *json.Decoder, path string, depth int) (any, error) {
	out := map[string]any{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, wrap(err)
		}
		k, _ := t.(string)
		if _, twice := out[k]; twice {
			return nil, refuse("JSON: %s appears twice", join(path, k))
		}
		if out[k], err = value(d, join(path, k), depth+1); err != nil {
			return nil, err
		}
	}
	_, err := d.Token()
	return out, wrap(err)
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return refuse("JSON: %v", err)
}

func join(path, k string) string {
	if len(k) > 40 {
		k = k[:40] + "..."
	}
	return strings.TrimPrefix(path+"."+k, ".")
}

// members returns the values of exactly these members, in their order; a missing
// or further one is refused.
func (n node) members(names ...string) ([]node, error) {
	m, ok := n.v.(map[string]any)
	if !ok {
		return nil, refuse("%s is not an object", n.path)
	}
	for _, k := range sortedKeys(m) {
		if !slices.Contains(names, k) {
			return nil, refuse("%s is not expected", join(n.path, k))
		}
	}
	var out []node
	for _, k := range names {
		v, ok := m[k]
		if !ok {
			return nil, refuse("%s is missing", join(n.path, k))
		}
		out = append(out, node{join(n.path, k), v})
	}
	return out, nil
}

// only returns the single member "0" of a numbered object.
func (n node) only() (node, error) {
	m, ok := n.v.(map[string]any)
	if !ok {
		return node{}, refuse("%s is not an object", n.path)
	}
	if len(m) != 1 {
		return node{}, refuse("%d %s, want 1", len(m), n.path)
	}
	out, err := n.members("0")
	if err != nil {
		return node{}, err
	}
	return out[0], nil
}

func sortedKeys(m map[string]any) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// is refuses any other value than this text.
func (n node) is(want string) error {
	if s, ok := n.v.(string); !ok || s != want {
		return refuse("%s is %s, want %q", n.path, n.short(), want)
	}
	return nil
}

// isNumber refuses any other value than this JSON number.
func (n node) isNumber(want uint64) error {
	v, err := n.number()
	if err == nil && v != want {
		err = refuse("%s is %d, want %d", n.path, v, want)
	}
	return err
}

// number is a JSON number, written as an unsigned decimal.
func (n node) number() (uint64, error) {
	s, ok := n.v.(json.Number)
	if !ok {
		return 0, refuse("%s is %s, want a number", n.path, n.short())
	}
	return n.decimal(string(s))
}

// size is a number written as a text, which LUKS2 does with 64-bit values.
func (n node) size() (uint64, error) {
	s, ok := n.v.(string)
	if !ok {
		return 0, refuse("%s is %s, want a number in quotes", n.path, n.short())
	}
	return n.decimal(s)
}

func (n node) decimal(s string) (uint64, error) {
	v, err := strconv.ParseUint(s, 10, 63)
	if err != nil || strconv.FormatUint(v, 10) != s {
		return 0, refuse("%s is %.40q, want a decimal number below 2^63", n.path, s)
	}
	return v, nil
}

// base64Of refuses what is not canonical base64 of this many bytes.
func (n node) base64Of(size int) error {
	s, ok := n.v.(string)
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if !ok || err != nil || len(b) != size {
		return refuse("%s is not base64 of %d bytes", n.path, size)
	}
	return nil
}

func (n node) short() string {
	b, err := json.Marshal(n.v)
	if err != nil || len(b) > 60 {
		return "something long"
	}
	return string(b)
}
