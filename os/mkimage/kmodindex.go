package main

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
)

// kmod reads its indices in a binary form only: a trie, big endian, whose nodes are
// (flags in the offset's top bits) a prefix, a range of children, and values.
const (
	indexMagic   = 0xB007F457
	indexVersion = 0x00020001
	nodePrefix   = 0x80000000
	nodeValues   = 0x40000000
	nodeChildren = 0x20000000
)

// keyed is a key of an index with one value; the order of equal keys is their priority.
type keyed struct{ key, value string }

// kmodIndex is modules.<name>.bin of these entries.
func kmodIndex(entries []keyed) []byte {
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, func(a, b keyed) int { return strings.Compare(a.key, b.key) })
	var b bytes.Buffer
	b.Write(make([]byte, 12))
	root := writeNode(&b, entries, 0)
	out := b.Bytes()
	binary.BigEndian.PutUint32(out, indexMagic)
	binary.BigEndian.PutUint32(out[4:], indexVersion)
	binary.BigEndian.PutUint32(out[8:], root)
	return out
}

// writeNode writes the node of sorted entries that agree in their first depth bytes,
// after its children, and returns its offset with the flags.
func writeNode(b *bytes.Buffer, entries []keyed, depth int) uint32 {
	if len(entries) == 0 {
		return 0
	}
	first, last := entries[0].key[depth:], entries[len(entries)-1].key[depth:]
	same := 0
	for same < min(len(first), len(last)) && first[same] == last[same] {
		same++
	}
	prefix := first[:same]
	depth += same
	var values []keyed
	for len(entries) > 0 && len(entries[0].key) == depth {
		values, entries = append(values, entries[0]), entries[1:]
	}
	var node bytes.Buffer
	var flags uint32
	if prefix != "" {
		flags |= nodePrefix
		node.WriteString(prefix + "\x00")
	}
	if len(entries) > 0 {
		flags |= nodeChildren
		lo, hi := entries[0].key[depth], entries[len(entries)-1].key[depth]
		node.Write([]byte{lo, hi})
		for c := int(lo); c <= int(hi); c++ {
			n := 0
			for n < len(entries) && int(entries[n].key[depth]) == c {
				n++
			}
			_ = binary.Write(&node, binary.BigEndian, writeNode(b, entries[:n], depth+1))
			entries = entries[n:]
		}
	}
	if len(values) > 0 {
		flags |= nodeValues
		_ = binary.Write(&node, binary.BigEndian, uint32(len(values))) //nolint:gosec // a few
		for i, v := range values {
			_ = binary.Write(&node, binary.BigEndian, uint32(i)) //nolint:gosec // a few
			node.WriteString(v.value + "\x00")
		}
	}
	at := uint32(b.Len()) //nolint:gosec // some hundred kilobytes
	b.Write(node.Bytes())
	return at | flags
}

// moduleName is a module's name, or an alias, as kmod compares them: "-" is "_", but
// not inside brackets.
func moduleName(s string) string {
	var b strings.Builder
	in := false
	for _, r := range s {
		switch {
		case r == '[':
			in = true
		case r == ']':
			in = false
		case r == '-' && !in:
			r = '_'
		}
		b.WriteRune(r)
	}
	return b.String()
}
