package hostlink

import (
	"encoding/binary"
	"time"
)

// yamux answers each ping in a goroutine that lives until the answer is out. A peer
// that sends pings and reads nothing would fill this side's memory, so they are
// counted before yamux sees them: its own keep-alive is one in keepAlive.
const (
	frameHeader = 12 // version, type, 2 bytes flags, 4 bytes stream, 4 bytes length
	frameData   = 0
	framePing   = 2
	flagSYN     = 1 // of a ping: a question

	maxPings   = 32 // in pingWindow
	pingWindow = keepAlive
)

// meter follows the frames in the bytes that yamux is about to read.
type meter struct {
	head  [frameHeader]byte
	have  int    // bytes of head
	skip  uint32 // bytes of a frame's content that are still to come
	pings int
	since time.Time
	now   func() time.Time
}

// see returns errFlood when the peer asks too often.
func (m *meter) see(b []byte) error {
	for len(b) > 0 {
		if m.skip > 0 {
			n := min(uint32(len(b)), m.skip) //nolint:gosec // a record is at most maxPayload
			m.skip -= n
			b = b[n:]
			continue
		}
		n := copy(m.head[m.have:], b)
		m.have += n
		b = b[n:]
		if m.have < frameHeader {
			return nil
		}
		m.have = 0
		switch kind := m.head[1]; {
		case kind == frameData:
			m.skip = binary.BigEndian.Uint32(m.head[8:])
		case kind == framePing && m.head[3]&flagSYN != 0:
			if !m.ping() {
				return errFlood
			}
		}
	}
	return nil
}

// ping counts one question; false is one too many.
func (m *meter) ping() bool {
	if now := m.now(); now.Sub(m.since) > pingWindow {
		m.since, m.pings = now, 0
	}
	m.pings++
	return m.pings <= maxPings
}
