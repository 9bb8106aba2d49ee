package sdk

import (
	"encoding/binary"
	"testing"
)

// attestation is what D.3 says of a TDX guest.
type attestationV struct {
	version           byte
	quote, reportData []byte
	events            int
}

// readAttestation reads V0 (SCALE) or enough of V1 (msgpack) to compare.
func readAttestation(t *testing.T, b []byte) (a attestationV) {
	t.Helper()
	if len(b) == 0 {
		t.Fatal("no attestation")
	}
	if b[0] != 0 {
		m, rest := msgpack(t, b)
		v, _ := m.(map[string]any)
		if len(rest) > 0 || v["version"] != int64(1) {
			t.Fatalf("V1: %d bytes behind, version %v", len(rest), v["version"])
		}
		platform, _ := v["platform"].(map[string]any)
		stack, _ := v["stack"].(map[string]any)
		if platform["kind"] != "tdx" || stack["kind"] != "dstack" {
			t.Fatalf("V1: kinds %v %v", platform["kind"], stack["kind"])
		}
		pd, sd := platform["data"].(map[string]any), stack["data"].(map[string]any)
		return attestationV{version: 1, quote: ints(t, pd["quote"]), reportData: ints(t, sd["report_data"]), events: len(sd["runtime_events"].([]any))}
	}
	s := &scale{t: t, b: b[1:]}
	if s.take(1)[0] != 0 {
		t.Fatal("V0: not TDX")
	}
	a.quote = s.bytes()
	for range s.compact() {
		s.take(8) // imr, event_type
		s.bytes()
		s.bytes()
		s.bytes()
	}
	for range s.compact() {
		s.bytes()
		s.bytes()
		a.events++
	}
	a.reportData = s.take(64)
	s.bytes()
	if len(s.b) != 0 {
		t.Fatalf("V0: %d bytes behind the end", len(s.b))
	}
	return a
}

type scale struct {
	t *testing.T
	b []byte
}

func (s *scale) take(n int) []byte {
	if n > len(s.b) {
		s.t.Fatalf("V0: %d bytes wanted, %d there", n, len(s.b))
	}
	out := s.b[:n]
	s.b = s.b[n:]
	return out
}

func (s *scale) compact() int {
	switch s.b[0] & 3 {
	case 0:
		return int(s.take(1)[0] >> 2)
	case 1:
		return int(binary.LittleEndian.Uint16(s.take(2)) >> 2)
	default:
		return int(binary.LittleEndian.Uint32(s.take(4)) >> 2)
	}
}

func (s *scale) bytes() []byte { return s.take(s.compact()) }

func ints(t *testing.T, v any) []byte {
	t.Helper()
	list, ok := v.([]any)
	if !ok {
		t.Fatalf("V1: want an array of integers, got %T", v)
	}
	out := make([]byte, len(list))
	for i, n := range list {
		out[i] = byte(n.(int64))
	}
	return out
}

// msgpack reads one value: maps with text keys, arrays, text, bin, unsigned integers, nil.
func msgpack(t *testing.T, b []byte) (v any, rest []byte) {
	t.Helper()
	size := func(n int) (int, []byte) {
		x := 0
		for _, c := range b[1 : 1+n] {
			x = x<<8 | int(c)
		}
		return x, b[1+n:]
	}
	many := func(n int, r []byte, isMap bool) (any, []byte) {
		m, l := map[string]any{}, []any{}
		for range n {
			var k, e any
			if isMap {
				k, r = msgpack(t, r)
			}
			e, r = msgpack(t, r)
			if isMap {
				m[k.(string)] = e
			} else {
				l = append(l, e)
			}
		}
		if isMap {
			return m, r
		}
		return l, r
	}
	text := func(n int, r []byte) (any, []byte) { return string(r[:n]), r[n:] }
	switch c := b[0]; {
	case c < 0x80:
		return int64(c), b[1:]
	case c < 0x90:
		return many(int(c&15), b[1:], true)
	case c < 0xa0:
		return many(int(c&15), b[1:], false)
	case c < 0xc0:
		return text(int(c&31), b[1:])
	case c == 0xc0:
		return nil, b[1:]
	case c >= 0xc4 && c <= 0xc6: // bin
		n, r := size(1 << (c - 0xc4))
		return r[:n], r[n:]
	case c >= 0xcc && c <= 0xcf:
		n, r := size(1 << (c - 0xcc))
		return int64(n), r
	case c >= 0xd9 && c <= 0xdb:
		return text(size(1 << (c - 0xd9)))
	case c == 0xdc || c == 0xdd:
		n, r := size(2 << (c - 0xdc))
		return many(n, r, false)
	case c == 0xde || c == 0xdf:
		n, r := size(2 << (c - 0xde))
		return many(n, r, true)
	default:
		t.Fatalf("msgpack: byte %02x", c)
		return nil, nil
	}
}
