// Package sni reads where a TLS client wants to go: the server name of its first
// message, before anything is decrypted, and the name's meaning for the gateway.
package sni

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// MaxHello bounds a ClientHello with its record headers, in bytes. Post-quantum
// key shares and long ALPN lists fit many times over.
const MaxHello = 64 << 10

// Hello is what the gateway needs from a ClientHello.
type Hello struct {
	ServerName string // lower case, without trailing dot; "" when absent
	ALPN       []string
	// Raw is everything read so far, to be replayed to whoever speaks TLS.
	Raw []byte
}

// Errors of ReadHello. Hello.Raw is set with all of them.
var (
	// ErrNotTLS: the first byte is not a TLS handshake record's.
	ErrNotTLS = errors.New("not a TLS handshake")
	// ErrTooLong: more than MaxHello bytes without a complete ClientHello.
	ErrTooLong = errors.New("TLS ClientHello is too long")
	// ErrMalformed: not a ClientHello (RFC 8446 section 4.1.2).
	ErrMalformed = errors.New("malformed TLS ClientHello")
)

const (
	recordHandshake  = 22
	recordHeader     = 5
	maxRecord        = 1<<14 + 256
	typeClientHello  = 1
	extServerName    = 0
	extALPN          = 16
	handshakeHeader  = 4
	maxALPNProtocols = 64
)

// ReadHello reads records until the ClientHello is complete, wherever the client
// cut it. It reads nothing beyond the record that completes it.
func ReadHello(r io.Reader) (Hello, error) {
	var raw, msg bytes.Buffer
	head := make([]byte, recordHeader)
	for {
		// The first byte decides, so that a plain-text client is answered at once.
		n, err := io.ReadFull(r, head[:1])
		raw.Write(head[:n])
		if err != nil {
			return Hello{Raw: raw.Bytes()}, err
		}
		if head[0] != recordHandshake {
			if msg.Len() > 0 {
				return Hello{Raw: raw.Bytes()}, ErrMalformed
			}
			return Hello{Raw: raw.Bytes()}, ErrNotTLS
		}
		n, err = io.ReadFull(r, head[1:])
		raw.Write(head[1 : 1+n])
		if err != nil {
			return Hello{Raw: raw.Bytes()}, err
		}
		size := int(head[3])<<8 | int(head[4])
		if head[1] != 3 || size == 0 || size > maxRecord {
			return Hello{Raw: raw.Bytes()}, ErrMalformed
		}
		if raw.Len()+size > MaxHello {
			return Hello{Raw: raw.Bytes()}, ErrTooLong
		}
		before := raw.Len()
		if _, err := io.CopyN(&raw, r, int64(size)); err != nil {
			return Hello{Raw: raw.Bytes()}, err
		}
		msg.Write(raw.Bytes()[before:])
		h, done, err := parseMessage(msg.Bytes())
		if done || err != nil {
			h.Raw = raw.Bytes()
			return h, err
		}
	}
}

// parseMessage reports done when b holds a whole handshake message.
func parseMessage(b []byte) (h Hello, done bool, err error) {
	if b[0] != typeClientHello {
		return h, false, ErrMalformed
	}
	if len(b) < handshakeHeader {
		return h, false, nil
	}
	size := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	if size > MaxHello {
		return h, false, ErrTooLong
	}
	if len(b) < handshakeHeader+size {
		return h, false, nil
	}
	h, err = ParseHello(b[handshakeHeader : handshakeHeader+size])
	return h, true, err
}

// ParseHello reads the body of a ClientHello message. Raw is not set.
func ParseHello(body []byte) (Hello, error) {
	s := cryptobyte.String(body)
	var version uint16
	var random []byte
	var session, suites, compression cryptobyte.String
	if !s.ReadUint16(&version) || !s.ReadBytes(&random, 32) ||
		!s.ReadUint8LengthPrefixed(&session) || len(session) > 32 ||
		!s.ReadUint16LengthPrefixed(&suites) || len(suites) == 0 || len(suites)%2 != 0 ||
		!s.ReadUint8LengthPrefixed(&compression) || len(compression) == 0 {
		return Hello{}, ErrMalformed
	}
	if s.Empty() {
		return Hello{}, nil // no extensions: TLS 1.2 allows it
	}
	var exts cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&exts) || !s.Empty() {
		return Hello{}, ErrMalformed
	}
	return parseExtensions(exts)
}

func parseExtensions(exts cryptobyte.String) (h Hello, err error) {
	seen := map[uint16]bool{}
	for !exts.Empty() {
		var kind uint16
		var data cryptobyte.String
		if !exts.ReadUint16(&kind) || !exts.ReadUint16LengthPrefixed(&data) || seen[kind] {
			return Hello{}, ErrMalformed // twice: two readers could see two names
		}
		seen[kind] = true
		switch kind {
		case extServerName:
			h.ServerName, err = parseServerName(data)
		case extALPN:
			h.ALPN, err = parseALPN(data)
		}
		if err != nil {
			return Hello{}, err
		}
	}
	return h, nil
}

// parseServerName takes exactly one host name (RFC 6066 section 3).
func parseServerName(data cryptobyte.String) (string, error) {
	var list, name cryptobyte.String
	var kind uint8
	if !data.ReadUint16LengthPrefixed(&list) || !data.Empty() ||
		!list.ReadUint8(&kind) || kind != 0 ||
		!list.ReadUint16LengthPrefixed(&name) || !list.Empty() {
		return "", ErrMalformed
	}
	n := strings.TrimSuffix(strings.ToLower(string(name)), ".")
	if n == "" || len(n) > 253 {
		return "", ErrMalformed
	}
	for _, c := range []byte(n) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return "", ErrMalformed
		}
	}
	return n, nil
}

func parseALPN(data cryptobyte.String) ([]string, error) {
	var list cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&list) || !data.Empty() || list.Empty() {
		return nil, ErrMalformed
	}
	var out []string
	for !list.Empty() {
		var p cryptobyte.String
		if !list.ReadUint8LengthPrefixed(&p) || p.Empty() || len(out) == maxALPNProtocols {
			return nil, ErrMalformed
		}
		out = append(out, string(p))
	}
	return out, nil
}
