package ledger

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/confidential-cloud/phala/cvm"
)

// Tree is the log itself: RFC 6962 hashing over the encoded leaves, all kept in
// memory. The zero Tree is empty. It is not safe for concurrent use.
type Tree struct {
	leaves [][]byte
	hashes []tlog.Hash // tlog's stored-hash order
}

// Size is the number of leaves.
func (t *Tree) Size() int64 { return int64(len(t.leaves)) }

// Append adds a leaf's bytes and returns its index.
func (t *Tree) Append(leaf []byte) (int64, error) {
	n := t.Size()
	h, err := tlog.StoredHashes(n, leaf, t)
	if err != nil {
		return 0, fmt.Errorf("appending leaf %d: %w", n, err)
	}
	t.hashes = append(t.hashes, h...)
	t.leaves = append(t.leaves, leaf)
	return n, nil
}

// ReadHashes implements tlog.HashReader.
func (t *Tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= int64(len(t.hashes)) {
			return nil, fmt.Errorf("stored hash %d is not there", x)
		}
		out[i] = t.hashes[x]
	}
	return out, nil
}

// Leaf returns the bytes of one leaf. Do not change them.
func (t *Tree) Leaf(index int64) ([]byte, error) {
	if index < 0 || index >= t.Size() {
		return nil, cvm.Errorf(cvm.NotFound, "ledger: there is no leaf %d (size %d)", index, t.Size())
	}
	return t.leaves[index], nil
}

// Leaves returns the leaves in [from, to). Do not change them.
func (t *Tree) Leaves(from, to int64) ([][]byte, error) {
	if from < 0 || to < from || to > t.Size() {
		return nil, cvm.Errorf(cvm.NotFound, "ledger: no leaves %d to %d (size %d)", from, to, t.Size())
	}
	return t.leaves[from:to], nil
}

// Root is the tree hash over the first size leaves (0: the RFC 6962 empty hash).
func (t *Tree) Root(size int64) ([32]byte, error) {
	if size < 0 || size > t.Size() {
		return [32]byte{}, cvm.Errorf(cvm.NotFound, "ledger: size %d is beyond %d", size, t.Size())
	}
	h, err := tlog.TreeHash(size, t)
	return h, err
}

// Inclusion proves that leaf index is in the tree of the given size.
func (t *Tree) Inclusion(index, size int64) ([][]byte, error) {
	if size > t.Size() || index < 0 || index >= size {
		return nil, cvm.Errorf(cvm.NotFound, "ledger: leaf %d is not in a tree of %d (size %d)", index, size, t.Size())
	}
	p, err := tlog.ProveRecord(size, index, t)
	return fromHashes(p), err
}

// Consistency proves that the tree of size to extends the tree of size from.
func (t *Tree) Consistency(from, to int64) ([][]byte, error) {
	if from < 1 || to < from || to > t.Size() {
		return nil, cvm.Errorf(cvm.NotFound, "ledger: no proof from %d to %d (size %d)", from, to, t.Size())
	}
	p, err := tlog.ProveTree(to, from, t)
	return fromHashes(p), err
}

func fromHashes(hs []tlog.Hash) [][]byte {
	out := make([][]byte, len(hs))
	for i := range hs {
		out[i] = append([]byte(nil), hs[i][:]...)
	}
	return out
}

func toHashes(p [][]byte) ([]tlog.Hash, error) {
	if len(p) > 2*64 {
		return nil, cvm.Errorf(cvm.Invalid, "ledger proof: %d hashes is not possible", len(p))
	}
	out := make([]tlog.Hash, len(p))
	for i, b := range p {
		if len(b) != tlog.HashSize {
			return nil, cvm.Errorf(cvm.Invalid, "ledger proof: a hash of %d bytes", len(b))
		}
		copy(out[i][:], b)
	}
	return out, nil
}

// CheckInclusion verifies that a leaf is at index of the tree with that size and root.
func CheckInclusion(leaf []byte, index, size int64, root [32]byte, proof [][]byte) error {
	p, err := toHashes(proof)
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(p, size, root, index, tlog.RecordHash(leaf)); err != nil {
		return cvm.Errorf(cvm.Denied, "ledger: the leaf is not in the tree of size %d: %w", size, err).WithReason("ledger-not-included")
	}
	return nil
}

// CheckConsistency verifies that the larger tree extends the smaller one.
func CheckConsistency(from int64, fromRoot [32]byte, to int64, toRoot [32]byte, proof [][]byte) error {
	p, err := toHashes(proof)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(p, to, toRoot, from, fromRoot); err != nil {
		return cvm.Errorf(cvm.Denied, "ledger: the tree of size %d does not extend the one of size %d: %w", to, from, err).WithReason("ledger-forked")
	}
	return nil
}

// tileHeight is the height of C2SP tlog-tiles.
const tileHeight = 8

// Tile serves C2SP tlog-tiles: path is "L/NNN[.p/W]" for hashes, or
// "entries/NNN[.p/W]" for bundles of 16-bit length-prefixed leaves.
func (t *Tree) Tile(path string) ([]byte, error) {
	rest, entries := strings.CutPrefix(path, "entries/")
	if entries {
		rest = "0/" + rest
	}
	tile, err := tlog.ParseTilePath(fmt.Sprintf("tile/%d/%s", tileHeight, rest))
	if err != nil || tile.L < 0 || tile.L > 5 || tile.N > 1<<48 { // larger ones overflow tlog's shifts
		return nil, cvm.Errorf(cvm.Invalid, "ledger: %q is not a tile path", path)
	}
	if !entries {
		b, err := tlog.ReadTileData(tile, t)
		if err != nil {
			return nil, cvm.Errorf(cvm.NotFound, "ledger: tile %s is not there (size %d)", path, t.Size())
		}
		return b, nil
	}
	from := tile.N << tileHeight
	leaves, err := t.Leaves(from, from+int64(tile.W))
	if err != nil {
		return nil, err
	}
	var b []byte
	for _, l := range leaves {
		b = binary.BigEndian.AppendUint16(b, uint16(len(l)))
		b = append(b, l...)
	}
	return b, nil
}
