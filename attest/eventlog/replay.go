package eventlog

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/confidential-cloud/phala/cvm"
)

// Extend is what the hardware does: SHA384(register || digest).
func Extend(mr, digest cvm.Measurement) cvm.Measurement {
	var b [96]byte
	copy(b[:48], mr[:])
	copy(b[48:], digest[:])
	return sha512.Sum384(b[:])
}

// Replay extends a zero register with each digest in order.
func Replay(digests ...cvm.Measurement) cvm.Measurement {
	var mr cvm.Measurement
	for _, d := range digests {
		mr = Extend(mr, d)
	}
	return mr
}

// Digest is what the guest extends RTMR3 with for this event. V1 hashes
// LE32(type) ":" name ":" payload; V2 hashes Preimage.
func (r Runtime) Digest() cvm.Measurement {
	var buf [256]byte // most events fit
	return sha512.Sum384(r.appendHashed(buf[:0]))
}

func (r Runtime) appendHashed(b []byte) []byte {
	if r.Version == 2 {
		return append(b, r.Preimage()...)
	}
	b = binary.LittleEndian.AppendUint32(b, RuntimeType)
	b = append(b, ':')
	b = append(b, r.Name...)
	b = append(b, ':')
	return append(b, r.Payload...)
}

// is reports whether digest is that of the event.
func (r Runtime) is(digest []byte) bool {
	d := r.Digest()
	return bytes.Equal(digest, d[:])
}

// Preimage is the canonical JSON (RFC 8785) whose SHA-384 is the V2 digest.
// Valid names need no escaping.
func (r Runtime) Preimage() []byte {
	return fmt.Appendf(nil, `{"name":"%s","payload":"%s","type":%d}`, r.Name, hex.EncodeToString(r.Payload), RuntimeType)
}

// Validate refuses what cannot be replayed without ambiguity: V1 joins name and
// payload with ':', so that a name outside [a-z0-9-] could be split elsewhere.
func (r Runtime) Validate() error {
	if r.Name == "" || len(r.Name) > MaxName {
		return cvm.Errorf(cvm.Invalid, "event name %q: want 1 to %d characters", trunc(r.Name), MaxName)
	}
	for _, c := range []byte(r.Name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return cvm.Errorf(cvm.Invalid, "event name %q: only a-z, 0-9 and '-' are allowed", trunc(r.Name))
		}
	}
	if len(r.Payload) > MaxPayload {
		return cvm.Errorf(cvm.Invalid, "event %s: payload of %d bytes, at most %d", r.Name, len(r.Payload), MaxPayload)
	}
	if r.Version < 0 || r.Version > 2 {
		return cvm.Errorf(cvm.Invalid, "event %s: unknown digest version %d", r.Name, r.Version)
	}
	return nil
}

// Event is the runtime event as a log entry with its digest (and preimage for V2).
func (r Runtime) Event() Event {
	d := r.Digest()
	e := Event{IMR: RuntimeIMR, Type: RuntimeType, Digest: d[:], Name: r.Name, Payload: r.Payload, Version: r.Version}
	if r.Version == 2 {
		e.Preimage = r.Preimage()
	}
	return e
}

// ReplayRuntime replays the events into a zero RTMR3. Events are validated.
func ReplayRuntime(events []Runtime) (cvm.Measurement, error) {
	var mr cvm.Measurement
	if len(events) > MaxEvents {
		return mr, cvm.Errorf(cvm.Invalid, "%d runtime events, at most %d", len(events), MaxEvents)
	}
	for i, e := range events {
		if err := e.Validate(); err != nil {
			return mr, fmt.Errorf("runtime event %d: %w", i, err)
		}
		mr = Extend(mr, e.Digest())
	}
	return mr, nil
}

func trunc(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
