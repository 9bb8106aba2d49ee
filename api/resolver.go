package api

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/confidential-cloud/phala/cvm"
)

// resolver asks one DNS server; the standard library's cannot ask for CAA.
type resolver struct{ addr string }

const (
	typeCAA    = dnsmessage.Type(257)
	dnsTimeout = 3 * time.Second
	maxDNS     = 16 << 10 // bytes of an answer
)

// systemResolver is the first server of resolv.conf.
func systemResolver() (string, error) {
	b, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return "", fmt.Errorf("finding the system's DNS server: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			return net.JoinHostPort(f[1], "53"), nil
		}
	}
	return "", cvm.Errorf(cvm.Unsupported, "the API has no DNS server to ask").WithFix("the operator sets dns_resolver in the API's config")
}

// lookup returns the records of a type at a name, as text; none is no error.
func (r resolver) lookup(ctx context.Context, name string, typ dnsmessage.Type) (out []string, err error) {
	n, err := dnsmessage.NewName(strings.TrimSuffix(name, ".") + ".")
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "%q is no DNS name", name)
	}
	id := uint16(rand.Uint32()) //nolint:gosec // 16 bits against an off-path guess are no security; the answer is advice
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: id, RecursionDesired: true}, Questions: []dnsmessage.Question{{Name: n, Type: typ, Class: dnsmessage.ClassINET}}}
	wire, err := q.Pack()
	if err != nil {
		return nil, fmt.Errorf("encoding DNS question: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	m, err := r.ask(ctx, "udp", wire, id)
	if err == nil && m.Truncated {
		m, err = r.ask(ctx, "tcp", wire, id)
	}
	if err != nil {
		return nil, cvm.Errorf(cvm.Unavailable, "the DNS server did not answer for %s: %w", name, err).WithReason("dns-unavailable")
	}
	if m.RCode != dnsmessage.RCodeSuccess && m.RCode != dnsmessage.RCodeNameError {
		return nil, cvm.Errorf(cvm.Unavailable, "the DNS server answered %s for %s", m.RCode, name).WithReason("dns-unavailable")
	}
	for _, a := range m.Answers {
		if v, ok := recordText(a, typ); ok && len(out) < 32 {
			out = append(out, v)
		}
	}
	return out, nil
}

func (r resolver) ask(ctx context.Context, network string, wire []byte, id uint16) (m dnsmessage.Message, err error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, r.addr)
	if err != nil {
		return m, err
	}
	defer c.Close()
	if at, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(at) // a live connection takes it
	}
	buf := make([]byte, maxDNS)
	if network == "tcp" {
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...)); err != nil { //nolint:gosec // a question is short
			return m, err
		}
		if _, err := io.ReadFull(c, buf[:2]); err != nil {
			return m, err
		}
		n := int(binary.BigEndian.Uint16(buf))
		if n > len(buf) {
			return m, errors.New("the answer is too long")
		}
		buf = buf[:n]
		if _, err := io.ReadFull(c, buf); err != nil {
			return m, err
		}
	} else {
		if _, err := c.Write(wire); err != nil {
			return m, err
		}
		n, err := c.Read(buf)
		if err != nil {
			return m, err
		}
		buf = buf[:n]
	}
	if err := m.Unpack(buf); err != nil {
		return m, fmt.Errorf("reading the answer: %w", err)
	}
	if m.ID != id || !m.Response {
		return m, errors.New("the answer is to another question")
	}
	return m, nil
}

// recordText shows a record of the type that was asked for.
func recordText(r dnsmessage.Resource, typ dnsmessage.Type) (string, bool) {
	if r.Header.Type != typ {
		return "", false
	}
	switch b := r.Body.(type) {
	case *dnsmessage.TXTResource:
		return strings.Join(b.TXT, ""), true
	case *dnsmessage.CNAMEResource:
		return strings.ToLower(strings.TrimSuffix(b.CNAME.String(), ".")), true
	case *dnsmessage.AResource:
		return net.IP(b.A[:]).String(), true
	case *dnsmessage.UnknownResource:
		return caaText(b.Data)
	}
	return "", false
}

// caaText reads RFC 8659: flags, tag, value.
func caaText(b []byte) (string, bool) {
	if len(b) < 2 || len(b) < 2+int(b[1]) {
		return "", false
	}
	tag, value := b[2:2+int(b[1])], b[2+int(b[1]):]
	return fmt.Sprintf("%d %s %q", b[0], strings.ToLower(string(tag)), value), true
}
