package hostlink

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// echo serves a unix socket that answers with its name and what it was sent.
func echo(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b, err := io.ReadAll(c)
				if err == nil {
					_, _ = c.Write(append([]byte(filepath.Base(path)+":"), b...))
				}
			}()
		}
	}()
}

type sides struct {
	p           *port
	hostDir     string
	guestDir    string
	host, guest *Relay
}

func start(t *testing.T) *sides {
	t.Helper()
	s := &sides{p: newPort(), hostDir: t.TempDir(), guestDir: t.TempDir()}
	echo(t, filepath.Join(s.hostDir, HostSock))
	echo(t, filepath.Join(s.hostDir, TEESock))
	echo(t, filepath.Join(s.guestDir, GuestSock))
	return s
}

// up runs a relay until the returned function is called.
func up(t *testing.T, r *Relay) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("relay: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (s *sides) newHost() *Relay {
	s.host = newRelay(Host, Config{RunDir: s.hostDir}, s.p.openHost)
	return s.host
}

func (s *sides) newGuest() *Relay {
	s.guest = NewGuest(Config{Open: s.p.openGuest, RunDir: s.guestDir})
	return s.guest
}

func ask(t *testing.T, c net.Conn, err error, text, want string) {
	t.Helper()
	if got := talk(t, c, err, text); got != want {
		t.Fatalf("got %.80q, want %.80q", got, want)
	}
}

func talk(t *testing.T, c net.Conn, err error, text string) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte(text))
	_ = c.(interface{ CloseWrite() error }).CloseWrite()
	b, _ := io.ReadAll(c)
	return string(b)
}

// works asks in all three directions. A stream that began before a restart was
// noticed ends without an answer; it never gets a wrong one.
func (s *sides) works(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	until := func(want string, dial func() (net.Conn, error)) {
		t.Helper()
		for {
			c, err := dial()
			got := talk(t, c, err, "a")
			if got == want {
				return
			}
			if got != "" {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
	}
	until("guest.sock:a", func() (net.Conn, error) { return s.host.DialGuest(ctx) })
	for _, name := range []string{HostSock, TEESock} {
		until(name+":a", func() (net.Conn, error) { return eventually(ctx, filepath.Join(s.guestDir, name)) })
	}
}

// eventually dials a socket that is about to be made.
func eventually(ctx context.Context, path string) (net.Conn, error) {
	for {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return c, nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func TestStreamsOfEveryKind(t *testing.T) {
	s := start(t)
	up(t, s.newHost())
	up(t, s.newGuest())
	s.works(t)
	big := make([]byte, 3<<20) // more than a window, both ways
	_, _ = rand.Read(big)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c, err := s.host.DialGuest(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			go func() {
				_, _ = c.Write(big)
				_ = c.(*conn).CloseWrite()
			}()
			b, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(b, append([]byte("guest.sock:"), big...)) {
				t.Errorf("%d bytes came back, %v", len(b), err)
			}
		})
	}
	wg.Wait()
}

func TestEitherSideRestarts(t *testing.T) {
	s := start(t)
	stopHost, stopGuest := up(t, s.newHost()), up(t, s.newGuest())
	for range 5 {
		s.works(t)
		stopHost()
		stopHost = up(t, s.newHost())
		s.works(t)
		stopGuest() // the host is not told
		stopGuest = up(t, s.newGuest())
	}
	s.works(t)
}

func TestARestartInTheMiddleOfARecordAndLostBytes(t *testing.T) {
	s := start(t)
	up(t, s.newHost())
	up(t, s.newGuest())
	for _, n := range []int{1, 3, 7, 100, 5000} {
		s.works(t)
		s.p.lose(n)
		c, err := eventually(t.Context(), filepath.Join(s.guestDir, HostSock))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(make([]byte, 6000))
		_ = c.(*net.UnixConn).CloseWrite()
		b, _ := io.ReadAll(c) // nothing, or the answer to what was sent, never something else
		if len(b) > 0 && !bytes.Equal(b, append([]byte("host.sock:"), make([]byte, 6000)...)) && !bytes.HasPrefix([]byte("host.sock:"), b) {
			t.Fatalf("lost %d: got %d bytes of something else", n, len(b))
		}
		c.Close()
		s.works(t)
	}
}

func TestWhatAnEarlierPeerLeftIsDiscarded(t *testing.T) {
	s := start(t)
	h := hello{nonce{1}, nonce{2}}.encode()
	junk := append([]byte("half a record"), h...)
	s.p.toGuest = append(append(junk, record([]byte("stale"))...), h[:30]...)
	up(t, s.newHost())
	up(t, s.newGuest())
	s.works(t)
}

func TestAMagicInsideAStreamIsData(t *testing.T) {
	s := start(t)
	up(t, s.newHost())
	up(t, s.newGuest())
	h := string(hello{nonce{7}, nonce{8}}.encode())
	c, err := s.host.DialGuest(t.Context())
	ask(t, c, err, h+h, "guest.sock:"+h+h)
}

func TestAStreamWithoutAServerEnds(t *testing.T) {
	s := &sides{p: newPort(), hostDir: t.TempDir(), guestDir: t.TempDir()}
	up(t, s.newHost())
	up(t, s.newGuest())
	c, err := s.host.DialGuest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); len(b) != 0 || err != nil {
		t.Fatalf("got %q, %v", b, err)
	}
}

func pair(t *testing.T) (host, guest *Session) {
	t.Helper()
	a, b := net.Pipe()
	got := make(chan *Session, 1)
	go func() {
		s, err := Connect(t.Context(), a, Host)
		if err != nil {
			t.Error(err)
		}
		got <- s
	}()
	guest, err := Connect(t.Context(), b, Guest)
	if err != nil {
		t.Fatal(err)
	}
	host = <-got
	t.Cleanup(func() { host.Close(); guest.Close() })
	return host, guest
}

func TestAGuestThatOpensTooManyStreams(t *testing.T) {
	host, guest := pair(t)
	go func() {
		for {
			if _, _, err := host.Accept(t.Context()); err != nil { // and never closes them
				return
			}
		}
	}()
	for i := 0; ; i++ {
		if i > 3*maxStreams {
			t.Fatal("a host took any number of streams")
		}
		if _, err := guest.Open(t.Context(), HostAPI); err != nil {
			break
		}
	}
	select {
	case <-host.Done():
	case <-t.Context().Done():
	}
}

func TestConnectEndsWithItsContext(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	go io.Copy(io.Discard, b)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	if _, err := Connect(ctx, a, Host); !errors.Is(err, why) {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte{1}); err == nil {
		t.Fatal("the channel is still open")
	}
}

func TestGarbledRecordsAreNotDelivered(t *testing.T) {
	good := record([]byte("payload"))
	for name, b := range map[string][]byte{
		"flipped payload":  flip(good, 9),
		"flipped checksum": flip(good, 5),
		"empty":            {dataMark, 0, 0, 0, 0, 0, 0, 0},
		"too long":         {dataMark, 1, 0, 0, 0, 0, 0, 0},
		"other mark":       flip(good, 0),
		"half a magic":     append([]byte(magic[:8]), make([]byte, 60)...),
		"a new peer":       hello{nonce{9}, nonce{}}.encode(),
	} {
		s := &stream{r: bufio.NewReader(bytes.NewReader(b)), seen: meter{now: time.Now}}
		if n, err := s.Read(make([]byte, 100)); n != 0 || err == nil {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

// FuzzStream: whatever arrives, reading ends and delivers only whole records.
func FuzzStream(f *testing.F) {
	f.Add(append(record([]byte("one")), record([]byte("two"))...))
	f.Add(hello{nonce{1}, nonce{2}}.encode())
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := &stream{c: discard{}, r: bufio.NewReader(bytes.NewReader(in)), peer: nonce{1}, seen: meter{now: time.Now}}
		var again []byte
		for {
			if err := s.next(); err != nil {
				break
			}
			if len(s.rest) > 0 {
				again = append(again, record(s.rest)...)
				s.rest = nil
			}
		}
		if !bytes.Contains(in, again) && !bytes.Contains(in, []byte(magic)) {
			t.Fatal("a record was delivered that is not there")
		}
	})
}

// FuzzHello: what is found encodes to bytes that are there.
func FuzzHello(f *testing.F) {
	f.Add(append([]byte("\x90\x90ph"), hello{nonce{1}, nonce{2}}.encode()...))
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := readHello(bufio.NewReader(bytes.NewReader(in)))
		if at := bytes.Index(in, []byte(magic)); err == nil {
			if !bytes.HasPrefix(in[at:], h.encode()) {
				t.Fatal("not the first hello")
			}
		} else if at >= 0 && len(in)-at >= helloSize {
			t.Fatal(fmt.Sprint("missed a hello at ", at))
		}
	})
}

type discard struct{}

func (discard) Read([]byte) (int, error)    { return 0, io.EOF }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) Close() error                { return nil }
