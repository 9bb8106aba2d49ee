package hostlink

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"
)

func frame(kind, flags byte, length uint32) []byte {
	b := make([]byte, frameHeader)
	b[1], b[3] = kind, flags
	binary.BigEndian.PutUint32(b[8:], length)
	return b
}

// TestAGuestThatFloodsWithPings asks for answers and reads none of them: the session
// ends before the questions cost memory.
func TestAGuestThatFloodsWithPings(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	got := make(chan *Session, 1)
	go func() {
		s, err := Connect(t.Context(), a, Host)
		if err != nil {
			t.Error(err)
		}
		got <- s
	}()
	g := &stream{c: b, r: bufio.NewReader(b), self: nonce{1}, seen: meter{now: time.Now}}
	if err := g.handshake(); err != nil {
		t.Fatal(err)
	}
	host := <-got
	before := runtime.NumGoroutine()
	var flood []byte
	for len(flood)+frameHeader <= maxPayload {
		flood = append(flood, frame(framePing, flagSYN, uint32(len(flood)))...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 8 {
		if err := g.send(record(flood)); err != nil {
			break
		}
	}
	if n := runtime.NumGoroutine() - before; n > 2*maxPings {
		t.Errorf("%d goroutines answer one guest", n)
	}
	select {
	case <-host.Done():
	case <-ctx.Done():
		t.Error("the session goes on")
	}
}

func TestTheMeterFollowsFrames(t *testing.T) {
	at := time.Unix(1000, 0)
	m := meter{now: func() time.Time { return at }}
	ping, data := frame(framePing, flagSYN, 7), append(frame(frameData, flagSYN, 3*frameHeader), make([]byte, 3*frameHeader)...)
	copy(data[frameHeader:], ping) // content that looks like a ping is content
	feed := func(b []byte) error {
		for i := range b { // in the smallest pieces
			if err := m.see(b[i : i+1]); err != nil {
				return err
			}
		}
		return nil
	}
	for range 100 {
		if err := errors.Join(feed(data), feed(frame(framePing, 2, 7)), feed(frame(1, 0, 1<<30))); err != nil {
			t.Fatal(err)
		}
	}
	for i := range maxPings {
		if err := feed(ping); err != nil {
			t.Fatalf("ping %d: %v", i, err)
		}
	}
	if err := feed(ping); !errors.Is(err, errFlood) {
		t.Fatal(err)
	}
	if at = at.Add(pingWindow + time.Second); feed(ping) != nil {
		t.Error("a later ping is refused")
	}
}
