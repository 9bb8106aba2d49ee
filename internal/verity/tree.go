package verity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"hash"
	"io"

	"github.com/confidential-cloud/phala/cvm"
)

// tree folds data blocks into hash blocks; it holds one block per level.
type tree struct {
	s      Superblock
	h      hash.Hash
	bufs   [][]byte
	starts []int64 // of each level, in blocks after the superblock's
	done   []int64 // blocks finished per level
	top    [32]byte
	// out gets each finished hash block and its byte offset after the data.
	out func(block []byte, at int64) error
}

func newTree(s Superblock, out func([]byte, int64) error) *tree {
	counts := s.levels()
	t := &tree{s: s, h: sha256.New(), out: out, starts: make([]int64, len(counts)), done: make([]int64, len(counts))}
	at := int64(1)
	for i := len(counts) - 1; i >= 0; i-- {
		t.starts[i] = at
		at += int64(counts[i]) //nolint:gosec // bounded by Parse
	}
	for range counts {
		t.bufs = append(t.bufs, make([]byte, 0, BlockSize))
	}
	return t
}

func (t *tree) digest(block []byte) (d [32]byte) {
	t.h.Reset()
	t.h.Write(t.s.Salt)
	t.h.Write(block)
	t.h.Sum(d[:0])
	return d
}

// add puts a digest into a level, and a full block's own into the one above.
func (t *tree) add(level int, d [32]byte) error {
	t.bufs[level] = append(t.bufs[level], d[:]...)
	if len(t.bufs[level]) < BlockSize {
		return nil
	}
	return t.flush(level)
}

// flush ends a level's block, padded with zeros.
func (t *tree) flush(level int) error {
	block := t.bufs[level][:BlockSize]
	clear(block[len(t.bufs[level]):])
	d := t.digest(block)
	if err := t.out(block, (t.starts[level]+t.done[level])*BlockSize); err != nil {
		return err
	}
	t.done[level]++
	t.bufs[level] = t.bufs[level][:0]
	if level+1 < len(t.bufs) {
		return t.add(level+1, d)
	}
	t.top = d
	return nil
}

// root reads all data, finishes every level and returns the hash of the top block.
func (t *tree) root(ctx context.Context, data io.ReaderAt) (root [32]byte, err error) {
	buf := make([]byte, 256*BlockSize)
	total := int64(t.s.DataBlocks) * BlockSize //nolint:gosec // bounded by Parse
	for at := int64(0); at < total; at += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return root, err
		}
		b := buf[:min(int64(len(buf)), total-at)]
		if n, err := data.ReadAt(b, at); n < len(b) {
			return root, cvm.Errorf(cvm.Invalid, "the root filesystem at byte %d: %w", at+int64(n), err).WithReason("rootfs-corrupt")
		}
		for i := 0; i < len(b); i += BlockSize {
			d := t.digest(b[i : i+BlockSize])
			if len(t.bufs) == 0 {
				return d, nil // a single block: its hash is the root
			}
			if err := t.add(0, d); err != nil {
				return root, err
			}
		}
	}
	for level := range t.bufs {
		if len(t.bufs[level]) > 0 {
			if err := t.flush(level); err != nil {
				return root, err
			}
		}
	}
	return t.top, nil
}

// Verify recomputes the tree of size bytes of r from the data and compares it, block
// by block, with the stored one and with the command line's root hash.
// Reasons: rootfs-superblock, rootfs-corrupt, rootfs-hash-mismatch.
func Verify(ctx context.Context, r io.ReaderAt, size int64, want Root) error {
	s, err := ReadSuperblock(r, size, want)
	if err != nil {
		return err
	}
	stored := make([]byte, BlockSize)
	t := newTree(s, func(block []byte, at int64) error {
		if n, err := r.ReadAt(stored, want.Size+at); n < BlockSize {
			return cvm.Errorf(cvm.Invalid, "the hash tree at byte %d: %w", want.Size+at, err).WithReason("rootfs-corrupt")
		}
		if !bytes.Equal(block, stored) {
			return cvm.Errorf(cvm.Invalid, "the hash tree at byte %d does not belong to the data", want.Size+at).WithReason("rootfs-corrupt").
				WithFix("the file was changed or damaged: build or pull the image again")
		}
		return nil
	})
	root, err := t.root(ctx, r)
	if err != nil {
		return err
	}
	if root != want.Hash {
		return cvm.Errorf(cvm.Invalid, "the root filesystem has root hash %x, the command line wants %x", root, want.Hash).WithReason("rootfs-hash-mismatch").
			WithFix("this is the root filesystem of another image: build or pull the image again")
	}
	return nil
}

// Build writes superblock and tree of s.DataBlocks blocks of data into w at byte at,
// and returns the root hash.
func Build(ctx context.Context, data io.ReaderAt, s Superblock, w io.WriterAt, at int64) (root [32]byte, err error) {
	if s.DataBlocks == 0 || s.DataBlocks > MaxData/BlockSize || len(s.Salt) > MaxSalt {
		return root, cvm.Errorf(cvm.Invalid, "verity: %d data blocks and a salt of %d bytes are not possible", s.DataBlocks, len(s.Salt))
	}
	head := make([]byte, BlockSize)
	copy(head, s.Bytes())
	if _, err := w.WriteAt(head, at); err != nil {
		return root, err
	}
	t := newTree(s, func(block []byte, off int64) error {
		_, err := w.WriteAt(block, at+off)
		return err
	})
	return t.root(ctx, data)
}
