package hostlink

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"

	"github.com/confidential-cloud/phala/cvm"
)

// The channel is a sequence of two kinds of records:
//
//	hello: 16 bytes magic, 16 bytes nonce of the sender, 16 bytes last nonce that the sender heard
//	data:  byte 'D', 3 bytes length (big endian), 4 bytes CRC-32C of the payload, payload
//
// The CRC finds a record that was cut by a peer's restart before its bytes reach a
// stream. It defends against nobody.
const (
	magic      = "\x90phala-link-v1\r\n"
	nonceSize  = 16
	helloSize  = len(magic) + 2*nonceSize
	dataMark   = 'D'
	dataHeader = 8
	maxPayload = 16 << 10
)

type nonce [nonceSize]byte

// hello introduces a side and says whom it heard.
type hello struct{ from, heard nonce }

func (h hello) encode() []byte {
	b := append(make([]byte, 0, helloSize), magic...)
	return append(append(b, h.from[:]...), h.heard[:]...)
}

// errRestarted ends a session whose peer began anew; errGarbled one whose bytes make
// no sense (a peer restarted in the middle of a record), errFlood one whose peer asks
// for more answers than are held in memory.
var (
	errRestarted = errors.New("the other side of the link has restarted")
	errGarbled   = errors.New("the link is garbled")
	errFlood     = errors.New("the other side floods the link with pings")
)

// readHello discards input until a hello was read.
func readHello(r *bufio.Reader) (h hello, err error) {
	for {
		b, err := r.Peek(len(magic))
		if err != nil {
			return h, err
		}
		if string(b) == magic {
			break
		}
		// To the next byte that may begin a magic: its first byte is nowhere else in it.
		n := bytes.IndexByte(b[1:], magic[0])
		if n < 0 {
			n = len(b) - 1
		}
		if _, err := r.Discard(n + 1); err != nil {
			return h, err
		}
	}
	b := make([]byte, helloSize)
	if _, err := io.ReadFull(r, b); err != nil {
		return h, err
	}
	copy(h.from[:], b[len(magic):])
	copy(h.heard[:], b[len(magic)+nonceSize:])
	return h, nil
}

// stream is the established channel as yamux sees it: an io.ReadWriteCloser.
type stream struct {
	c    io.ReadWriteCloser
	r    *bufio.Reader
	self nonce
	peer nonce
	rest []byte // of the record that is being read
	seen meter
	wmu  sync.Mutex
	// telling: a hello is being answered.
	telling atomic.Bool
	once    sync.Once
	ended   error
}

func (s *stream) Read(b []byte) (int, error) {
	for len(s.rest) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// next reads one record.
func (s *stream) next() error {
	first, err := s.r.Peek(1)
	if err != nil {
		return err
	}
	switch first[0] {
	case magic[0]:
		return s.again()
	case dataMark:
	default:
		return errGarbled
	}
	var head [dataHeader]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return err
	}
	n := int(head[1])<<16 | int(head[2])<<8 | int(head[3])
	if n == 0 || n > maxPayload {
		return errGarbled
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(s.r, b); err != nil {
		return err
	}
	if checksum(b) != binary.BigEndian.Uint32(head[4:]) {
		return errGarbled
	}
	s.rest = b
	return s.seen.see(b)
}

// again handles a hello of an established peer: one that it sent before it had heard
// ours is answered (ours may be lost), any other nonce is a new peer.
func (s *stream) again() error {
	b, err := s.r.Peek(len(magic))
	if err != nil {
		return err
	}
	if string(b) != magic {
		return errGarbled
	}
	h, err := readHello(s.r)
	switch {
	case err != nil:
		return err
	case h.from != s.peer:
		return errRestarted
	case h.heard == s.self:
		return nil
	}
	if s.telling.CompareAndSwap(false, true) {
		go func() { // reading must go on: the other side may be writing as well
			defer s.telling.Store(false)
			_ = s.send(hello{s.self, s.peer}.encode())
		}()
	}
	return nil
}

func (s *stream) Write(b []byte) (written int, err error) {
	for len(b) > 0 {
		n := min(len(b), maxPayload)
		if err := s.send(record(b[:n])); err != nil {
			return written, err
		}
		written, b = written+n, b[n:]
	}
	return written, nil
}

func (s *stream) send(b []byte) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	_, err := s.c.Write(b)
	return err
}

func (s *stream) Close() error {
	s.once.Do(func() { s.ended = s.c.Close() })
	return s.ended
}

func record(payload []byte) []byte {
	n := len(payload)
	b := []byte{dataMark, byte(n >> 16), byte(n >> 8), byte(n), 0, 0, 0, 0}
	binary.BigEndian.PutUint32(b[4:], checksum(payload))
	return append(b, payload...)
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func unavailable(format string, args ...any) error {
	return cvm.Errorf(cvm.Unavailable, "host link: "+format, args...).WithReason("guest-unreachable")
}
