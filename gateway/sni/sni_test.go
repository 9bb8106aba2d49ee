package sni

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/confidential-cloud/phala/cvm"
)

// clientHello is what crypto/tls really sends.
func clientHello(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		cfg.InsecureSkipVerify = true
		_ = tls.Client(b, cfg).Handshake()
		_ = b.Close()
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(a, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(a, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

func TestReadHello(t *testing.T) {
	long := strings.Repeat("p", 200)
	var manyProtos []string
	for range 60 {
		manyProtos = append(manyProtos, long)
	}
	for name, x := range map[string]*tls.Config{
		"plain":       {ServerName: "App.Dev.localhost"},
		"alpn":        {ServerName: "a.dev.localhost", NextProtos: []string{"h2", "http/1.1"}},
		"tls1.2":      {ServerName: "a.dev.localhost", MaxVersion: tls.VersionTLS12},
		"over 4096 B": {ServerName: "a.dev.localhost", NextProtos: manyProtos},
		"no name":     {},
	} {
		raw := clientHello(t, x)
		for _, r := range []io.Reader{bytes.NewReader(append(slices.Clone(raw), "more"...)), iotest.OneByteReader(bytes.NewReader(raw))} {
			h, err := ReadHello(r)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if h.ServerName != strings.ToLower(x.ServerName) || !slices.Equal(h.ALPN, x.NextProtos) || !bytes.Equal(h.Raw, raw) {
				t.Errorf("%s: %q %v, %d bytes of %d", name, h.ServerName, h.ALPN, len(h.Raw), len(raw))
			}
		}
	}
}

// split cuts a hello's message into records of n bytes.
func split(raw []byte, n int) []byte {
	var out []byte
	for c := range slices.Chunk(raw[5:], n) {
		out = append(out, 22, 3, 1, byte(len(c)>>8), byte(len(c)))
		out = append(out, c...)
	}
	return out
}

func TestHelloOverManyRecords(t *testing.T) {
	raw := clientHello(t, &tls.Config{ServerName: "a.dev.localhost"})
	for _, n := range []int{1, 3, 4, 100, len(raw)} {
		s := split(raw, n)
		h, err := ReadHello(bytes.NewReader(s))
		if err != nil || h.ServerName != "a.dev.localhost" || !bytes.Equal(h.Raw, s) {
			t.Errorf("records of %d: %q %v", n, h.ServerName, err)
		}
	}
}

func TestRefusedHellos(t *testing.T) {
	raw := clientHello(t, &tls.Config{ServerName: "a.dev.localhost"})
	change := func(f func(b []byte) []byte) []byte { return f(slices.Clone(raw)) }
	sni := bytes.Index(raw, []byte("a.dev.localhost"))
	endless := bytes.Repeat(append([]byte{22, 3, 1, 0x40, 0}, append([]byte{1, 0xff, 0, 0}, make([]byte, 0x4000-4)...)...), 10)
	for name, x := range map[string]struct {
		in   []byte
		want error
	}{
		"http":                    {[]byte("GET / HTTP/1.1\r\n"), ErrNotTLS},
		"alert record":            {[]byte{21, 3, 3, 0, 2, 1, 0}, ErrNotTLS},
		"sslv2 major":             {change(func(b []byte) []byte { b[1] = 2; return b }), ErrMalformed},
		"empty record":            {[]byte{22, 3, 1, 0, 0}, ErrMalformed},
		"huge record":             {[]byte{22, 3, 1, 0xff, 0xff}, ErrMalformed},
		"server hello":            {change(func(b []byte) []byte { b[5] = 2; return b }), ErrMalformed},
		"message too big":         {[]byte{22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff}, ErrTooLong},
		"endless":                 {endless, ErrTooLong},
		"truncated":               {raw[:len(raw)-1], io.EOF},
		"nothing":                 {nil, io.EOF},
		"name with NUL":           {change(func(b []byte) []byte { b[sni] = 0; return b }), ErrMalformed},
		"name with slash":         {change(func(b []byte) []byte { b[sni] = '/'; return b }), ErrMalformed},
		"other record in between": {append(split(raw, 10)[:15], 23, 3, 1, 0, 1, 0), ErrMalformed},
	} {
		_, err := ReadHello(bytes.NewReader(x.in))
		if !errors.Is(err, x.want) && !(errors.Is(x.want, io.EOF) && errors.Is(err, io.ErrUnexpectedEOF)) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
}

// Two server names, or the extension twice: a gateway and an app could read
// different ones.
func TestAmbiguousNamesAreRefused(t *testing.T) {
	ext := func(kind uint16, data ...byte) []byte {
		return append([]byte{byte(kind >> 8), byte(kind), byte(len(data) >> 8), byte(len(data))}, data...)
	}
	body := func(exts ...[]byte) []byte {
		all := bytes.Join(exts, nil)
		b := append([]byte{3, 3}, make([]byte, 32)...)
		b = append(b, 0, 0, 2, 0x13, 1, 1, 0, byte(len(all)>>8), byte(len(all)))
		return append(b, all...)
	}
	one := ext(0, 0, 4, 0, 0, 1, 'a')
	if h, err := ParseHello(body(one)); err != nil || h.ServerName != "a" {
		t.Fatalf("%q %v", h.ServerName, err)
	}
	for name, b := range map[string][]byte{
		"extension twice": body(one, one),
		"two names":       body(ext(0, 0, 8, 0, 0, 1, 'a', 0, 0, 1, 'b')),
		"other name type": body(ext(0, 0, 4, 1, 0, 1, 'a')),
		"empty name":      body(ext(0, 0, 3, 0, 0, 0)),
		"empty alpn":      body(ext(16, 0, 0)),
		"trailing":        append(body(one), 0),
	} {
		if _, err := ParseHello(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

const (
	base = "dev.localhost"
	id   = "00112233445566778899aabbccddeeff00112233"
)

func TestParseName(t *testing.T) {
	for in, want := range map[string]Target{
		id + "." + base:                        {Port: 80, Mode: Terminate},
		id + "-." + base:                       {Port: 80, Mode: Terminate},
		id + "-8080." + base:                   {Port: 8080, Mode: Terminate},
		id + "-s." + base:                      {Port: 443, Mode: Passthrough},
		id + "-8443s." + base:                  {Port: 8443, Mode: Passthrough},
		id + "-g." + base:                      {Port: 80, Mode: H2},
		id + "-50051g." + base:                 {Port: 50051, Mode: H2},
		id + "-65535." + base:                  {Port: 65535, Mode: Terminate},
		strings.ToUpper(id) + "-80." + base:    {Port: 80, Mode: Terminate},
		id + "." + strings.ToUpper(base) + ".": {Port: 80, Mode: Terminate},
		"gateway." + base:                      {Self: Self, Port: 80, Mode: Terminate},
		"health." + base:                       {Self: Health, Port: 80, Mode: Terminate},
		base:                                   {Self: Self, Port: 80, Mode: Terminate},
	} {
		got, err := ParseName(in, base)
		if want.Self == "" {
			want.ID = [20]byte{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0, 0x11, 0x22, 0x33}
		}
		if err != nil || got != want {
			t.Errorf("%s: %+v %v", in, got, err)
		}
	}
	for in, code := range map[string]cvm.Code{
		"example.org": cvm.NotFound, "x" + base: cvm.NotFound, "a.b." + base: cvm.NotFound, "." + base: cvm.NotFound, "": cvm.NotFound,
		id + ".other.localhost": cvm.NotFound,
		id + "-gs." + base:      cvm.Invalid, id + "-sg." + base: cvm.Invalid, id + "-80-s." + base: cvm.Invalid, id + "--80." + base: cvm.Invalid,
		id + "-0." + base: cvm.Invalid, id + "-65536." + base: cvm.Invalid, id + "-99999999999999999999." + base: cvm.Invalid,
		id + "-8o." + base: cvm.Invalid, id + "-+80." + base: cvm.Invalid, id[:39] + "." + base: cvm.Invalid, id + "0." + base: cvm.Invalid,
		strings.Replace(id, "f", "g", 1) + "." + base: cvm.Invalid, "gateway-80." + base: cvm.Invalid, "gateway-s." + base: cvm.Invalid, "hello." + base: cvm.Invalid,
	} {
		if _, err := ParseName(in, base); cvm.CodeOf(err) != code {
			t.Errorf("%s: %v, want %s", in, err, code)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{id + "." + base, id + "-8080s." + base, id + "-g." + base, "gateway." + base, "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseName(s, base)
		if err != nil {
			if c := cvm.CodeOf(err); c != cvm.Invalid && c != cvm.NotFound {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if a.Port == 0 || (a.Mode != Terminate && a.Mode != Passthrough && a.Mode != H2) {
			t.Fatalf("%q: %+v", s, a)
		}
		if b, err := ParseName(strings.ToUpper(s), base); err != nil || a != b {
			t.Fatalf("%q: case matters: %+v %+v %v", s, a, b, err)
		}
	})
}

func seedHellos(f *testing.F) {
	raw := clientHello(f, &tls.Config{ServerName: "a.dev.localhost", NextProtos: []string{"h2"}})
	f.Add(raw)
	f.Add(split(raw, 7))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
}

// Whatever the records, the reader stays within its bound and replays exactly what
// it read.
func FuzzReadHello(f *testing.F) {
	seedHellos(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := ReadHello(bytes.NewReader(in))
		if len(h.Raw) > MaxHello || !bytes.HasPrefix(in, h.Raw) {
			t.Fatalf("read %d bytes of %d, err %v", len(h.Raw), len(in), err)
		}
		if err == nil && strings.ContainsAny(h.ServerName, "/\x00 ") {
			t.Fatalf("name %q", h.ServerName)
		}
	})
}

// Where crypto/tls and we both accept, we read the same.
func FuzzAgreesWithCryptoTLS(f *testing.F) {
	seedHellos(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := ReadHello(bytes.NewReader(in))
		if err != nil {
			return
		}
		seen, name, protos := theirs(h.Raw)
		if seen && (!strings.EqualFold(strings.TrimSuffix(name, "."), h.ServerName) || !slices.Equal(protos, h.ALPN)) {
			t.Fatalf("crypto/tls reads %q %v, we read %q %v", name, protos, h.ServerName, h.ALPN)
		}
	})
}

// theirs is crypto/tls's reading.
func theirs(in []byte) (seen bool, name string, protos []string) {
	srv := tls.Server(&readConn{r: bytes.NewReader(in)}, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		seen, name, protos = true, h.ServerName, h.SupportedProtos
		return nil, errors.New("enough")
	}})
	_ = srv.Handshake()
	return seen, name, protos
}

type readConn struct {
	net.Conn
	r io.Reader
}

func (c *readConn) Read(b []byte) (int, error)  { return c.r.Read(b) }
func (c *readConn) Write(b []byte) (int, error) { return len(b), nil }
func (c *readConn) Close() error                { return nil }
