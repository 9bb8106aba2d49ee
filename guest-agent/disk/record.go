package disk

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

// The generation record (docs/spec/data-disk.md). One copy lies in the clear before
// the data, so that it can be read before the key is there; the other lies inside
// the encrypted volume. Both are authenticated with a key that follows from the
// disk's key; they count together.
const (
	recordMagic   = "PHALAGEN"
	markerMagic   = "PHALAFMT" // formatting began and did not end
	recordVersion = 1
	recordSize    = 512
	recordSlot    = 4096 // bytes of one slot of the outer record
	recordMAC     = 56   // offsets
	recordSum     = 480
)

// states of a record.
const (
	stateOpen   uint32 = 1 // a boot has the disk open, or had and did not end well
	stateClosed uint32 = 2 // the last boot closed it
)

// record is one generation record.
type record struct {
	generation uint64
	state      uint32
	header     [32]byte // Header.Digest: the record belongs to this disk
}

// places of a record, part of what is authenticated.
const (
	outer = "phala-disk-generation:v1:outer:"
	inner = "phala-disk-generation:v1:inner:"
)

// macKey derives the key of the records from the disk's key.
func macKeyOf(disk keys.Secret) (keys.Secret, error) {
	return keys.Derive(disk.Reveal(), keys.Size, []byte("phala-disk-generation:v1"))
}

// encode writes the record of a place.
func (r record) encode(place string, key keys.Secret) []byte {
	b := make([]byte, recordSize)
	copy(b, recordMagic)
	binary.BigEndian.PutUint32(b[8:], recordVersion)
	binary.BigEndian.PutUint32(b[12:], r.state)
	binary.BigEndian.PutUint64(b[16:], r.generation)
	copy(b[24:], r.header[:])
	copy(b[recordMAC:], mac(place, key, b))
	seal(b)
	return b
}

// mac authenticates what stands before it.
func mac(place string, key keys.Secret, b []byte) []byte {
	h := hmac.New(sha256.New, key.Reveal())
	h.Write([]byte(place))
	h.Write(b[:recordMAC])
	return h.Sum(nil)
}

// seal adds the checksum, by which a torn write is told from an edited record.
func seal(b []byte) {
	s := sha256.Sum256(b[:recordSum])
	copy(b[recordSum:], s[:])
}

func whole(b []byte, magic string) bool {
	s := sha256.Sum256(b[:recordSum])
	return string(b[:8]) == magic && string(b[recordSum:recordSize]) == string(s[:])
}

// parseRecord reads a record's form; nothing of it is authentic yet. ok is false
// for what is no whole record.
func parseRecord(b []byte) (r record, ok bool) {
	if len(b) < recordSize || !whole(b[:recordSize], recordMagic) || binary.BigEndian.Uint32(b[8:]) != recordVersion ||
		!zero(b[recordMAC+sha256.Size:recordSum]) {
		return r, false
	}
	r.state, r.generation = binary.BigEndian.Uint32(b[12:]), binary.BigEndian.Uint64(b[16:])
	copy(r.header[:], b[24:])
	return r, (r.state == stateOpen || r.state == stateClosed) && r.generation < 1<<62
}

// marker is the slot of a disk whose formatting has begun.
func marker() []byte {
	b := make([]byte, recordSlot)
	copy(b, markerMagic)
	seal(b[:recordSize])
	return b
}

// blocks is a device that is read and written in whole blocks of recordSlot bytes;
// a write has reached the device when it returns.
type blocks interface {
	ReadBlock(at int64, b []byte) error
	WriteBlock(at int64, b []byte) error
}

// slots are the two places of a record, written in turn, so that a torn write
// leaves the one before.
type slots struct {
	dev    blocks
	at     int64 // of the first slot
	stride int64 // to the second
	place  string
}

func outerSlots(dev blocks) slots { return slots{dev, recordStart, recordSlot, outer} }

// innerSlots lie in the first 1024 bytes of the volume, which ext4 and btrfs leave
// alone: they are written while nothing is mounted.
func innerSlots(dev blocks) slots { return slots{dev, 0, recordSize, inner} }

// newest finds the whole record with the highest generation, and its bytes.
func (s slots) newest() (r record, raw []byte, found bool, err error) {
	for i := range int64(2) {
		b := make([]byte, recordSlot)
		at := s.at + i*s.stride
		if err := s.dev.ReadBlock(at/recordSlot*recordSlot, b); err != nil {
			return r, nil, false, fmt.Errorf("data disk: reading the generation: %w", err)
		}
		b = b[at%recordSlot:][:recordSize]
		if c, ok := parseRecord(b); ok && (!found || c.generation > r.generation) {
			r, raw, found = c, b, true
		}
	}
	return r, raw, found, nil
}

// write puts a record into the slot of its generation.
func (s slots) write(r record, key keys.Secret) error {
	at := s.at + int64(r.generation%2)*s.stride //nolint:gosec // 0 or 1
	b := make([]byte, recordSlot)
	base := at / recordSlot * recordSlot
	if err := s.dev.ReadBlock(base, b); err != nil {
		return fmt.Errorf("data disk: reading the generation: %w", err)
	}
	copy(b[at%recordSlot:], r.encode(s.place, key))
	if err := s.dev.WriteBlock(base, b); err != nil {
		return fmt.Errorf("data disk: writing the generation: %w", err)
	}
	return nil
}

// counter is the generation of an opened disk.
type counter struct {
	outer, inner slots
	key          keys.Secret
	header       [32]byte
	now          uint64
}

func swapped(format string, args ...any) error {
	return cvm.Errorf(cvm.Denied, "data disk: "+format, args...).WithReason(ReasonSwapped).
		WithFix("the disk is not the newest one that this instance wrote: give back the newest; restoring an older one on purpose is the app owner's act")
}

// load reads and judges both records. The inner record moves first, so that it is
// as new as the outer one or, after a crash, one newer; an older one means that the
// data was put back behind a newer outer record. Without any record a disk of profile
// reference is one that this guest has never opened; ours has them from the start.
func (c *counter) load(p Profile) error {
	o, oraw, hasOuter, err := c.outer.newest()
	if err != nil {
		return err
	}
	i, iraw, hasInner, err := c.inner.newest()
	if err != nil {
		// Under dm-integrity another volume key, or a changed block, reads as an error.
		return errors.Join(swapped("its data's generation cannot be read"), err)
	}
	switch {
	case !hasOuter && !hasInner && p == ProfileReference:
		return nil
	case !hasOuter:
		return swapped("its generation record is missing")
	case !hasInner:
		return swapped("its data carries no generation, its record says %d", o.generation)
	case !hmac.Equal(oraw[recordMAC:recordMAC+sha256.Size], mac(outer, c.key, oraw)):
		return swapped("its generation record %d was not written by this app", o.generation)
	case !hmac.Equal(iraw[recordMAC:recordMAC+sha256.Size], mac(inner, c.key, iraw)):
		return swapped("its data's generation %d was not written by this app", i.generation)
	case o.header != c.header || i.header != c.header:
		return swapped("its generation record belongs to another header")
	case i.generation != o.generation && i.generation != o.generation+1:
		return swapped("its data is of generation %d, its record says %d", i.generation, o.generation)
	}
	c.now = i.generation
	return nil
}

// move counts one further: the inner record, then the outer one. A crash between
// them is what load admits, and the next move goes on from the higher number.
func (c *counter) move(state uint32) error {
	r := record{c.now + 1, state, c.header}
	if err := c.inner.write(r, c.key); err != nil {
		return err
	}
	if err := c.outer.write(r, c.key); err != nil {
		return err
	}
	c.now = r.generation
	return nil
}
