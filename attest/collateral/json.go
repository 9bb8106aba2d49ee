package collateral

import (
	"bytes"
	"encoding/json"
	"fmt"
)

const (
	maxDepth = 16
	// maxKeys bounds one object: a member is written in five bytes and takes hundreds
	// in memory. The largest here are floors, of about 8000 members.
	maxKeys = 1 << 14
)

// member is a member of the outermost object: its value in the exact bytes.
type member struct {
	key   string
	value []byte
}

// checkKeys refuses a document in which lenient readers could see different things:
// keys of one object are printable ASCII without escapes and differ in more than
// case; objects have at most 16,384 members; objects and lists nest at most 16 deep;
// nothing follows the value.
func checkKeys(b []byte) error {
	_, err := members(b)
	return err
}

// members is checkKeys, and what the outermost object holds, uncopied.
func members(b []byte) ([]member, error) {
	if !json.Valid(b) {
		if err := json.Unmarshal(b, new(json.RawMessage)); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("not one JSON value")
	}
	s := &scanner{b: b}
	err := s.value(0)
	return s.top, err
}

// scanner walks a document that json.Valid has accepted, so that no index can
// leave it.
type scanner struct {
	b   []byte
	i   int
	top []member
}

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\n' || s.b[s.i] == '\t' || s.b[s.i] == '\r') {
		s.i++
	}
}

func (s *scanner) value(depth int) error {
	s.space()
	switch s.b[s.i] {
	case '{', '[':
		if depth == maxDepth {
			return fmt.Errorf("nested deeper than %d", maxDepth)
		}
		return s.container(depth)
	case '"':
		s.text()
	default: // a number, true, false, null
		for s.i < len(s.b) && !bytes.ContainsRune([]byte(" \n\t\r,]}"), rune(s.b[s.i])) {
			s.i++
		}
	}
	return nil
}

// container walks an object or a list.
func (s *scanner) container(depth int) error {
	object := s.b[s.i] == '{'
	var keys keySet
	for s.i++; ; {
		s.space()
		switch s.b[s.i] {
		case '}', ']':
			s.i++
			return nil
		case ',':
			s.i++
			s.space()
		}
		var key []byte
		if object {
			key = s.text()
			if err := keys.add(key); err != nil {
				return err
			}
			s.space()
			s.i++ // the colon
			s.space()
		}
		from := s.i
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if object && depth == 0 {
			s.top = append(s.top, member{string(key), s.b[from:s.i]})
		}
	}
}

// text returns what stands between quotes, undecoded.
func (s *scanner) text() []byte {
	s.i++
	from := s.i
	for s.b[s.i] != '"' {
		if s.b[s.i] == '\\' {
			s.i++
		}
		s.i++
	}
	s.i++
	return s.b[from : s.i-1]
}

// keySet holds the keys of one object. Most have a handful, which are compared one
// by one; many go into a map, so that a hostile document costs no square.
type keySet struct {
	few  [16][]byte
	n    int
	many map[string]bool
}

func (k *keySet) add(key []byte) error {
	for _, c := range key {
		if c < 0x20 || c > 0x7e || c == '\\' {
			return fmt.Errorf("key %.80q is not ASCII, or holds escapes", key)
		}
	}
	if k.n < len(k.few) {
		for _, old := range k.few[:k.n] {
			if bytes.EqualFold(old, key) {
				return fmt.Errorf("key %.80q is repeated or differs only in case", key)
			}
		}
		k.few[k.n] = key
		k.n++
		return nil
	}
	if k.many == nil {
		k.many = map[string]bool{}
		for _, old := range k.few {
			k.many[string(bytes.ToLower(old))] = true
		}
	}
	if len(k.many) == maxKeys {
		return fmt.Errorf("more than %d keys in one object", maxKeys)
	}
	f := string(bytes.ToLower(key))
	if k.many[f] {
		return fmt.Errorf("key %.80q is repeated or differs only in case", key)
	}
	k.many[f] = true
	return nil
}
