package splice

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// tcpPair is two ends of a TCP connection.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// chain is client - Join - server.
func chain(t *testing.T, o Options) (client, server *net.TCPConn, done chan error) {
	t.Helper()
	client, a := tcpPair(t)
	server, b := tcpPair(t)
	done = make(chan error, 1)
	go func() { done <- Join(a, b, o) }()
	return client, server, done
}

func wait(t *testing.T, done chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("Join does not return")
		return nil
	}
}

func TestBothWaysWithHalfClose(t *testing.T) {
	var up, down atomic.Int64
	client, server, done := chain(t, Options{
		AtoB: func(n int) { up.Add(int64(n)) }, BtoA: func(n int) { down.Add(int64(n)) },
	})
	sent := make([]byte, 1<<20)
	_, _ = rand.Read(sent)
	go func() {
		_, _ = client.Write(sent)
		_ = client.CloseWrite()
	}()
	got, err := io.ReadAll(server) // the client's end of stream arrives
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if _, err := server.Write([]byte("answer after the end")); err != nil { // and the other direction lives
		t.Fatal(err)
	}
	_ = server.Close()
	back, err := io.ReadAll(client)
	if err != nil || string(back) != "answer after the end" {
		t.Fatalf("%q %v", back, err)
	}
	if err := wait(t, done); err != nil {
		t.Fatal(err)
	}
	if up.Load() != 1<<20 || down.Load() != 20 {
		t.Fatalf("counted %d up, %d down", up.Load(), down.Load())
	}
}

// In virtual time: net.Pipe instead of sockets.
func TestIdleEndsBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, a := net.Pipe()
		server, b := net.Pipe()
		done := make(chan error, 1)
		start := time.Now()
		go func() { done <- Join(a, b, Options{Idle: time.Minute}) }()
		for range 4 { // movement in one direction keeps both
			<-time.After(50 * time.Second)
			if _, err := client.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-done; !errors.Is(err, ErrIdle) {
			t.Fatal(err)
		}
		if d := time.Since(start); d != 260*time.Second {
			t.Fatalf("ended after %s, want one idle minute after the last byte", d)
		}
		if _, err := client.Read(make([]byte, 1)); err == nil {
			t.Fatal("the client is still open")
		}
	})
}

func TestResetEndsBoth(t *testing.T) {
	client, server, done := chain(t, Options{})
	_ = client.SetLinger(0)
	_ = client.Close() // a reset, not an end of stream
	if err := wait(t, done); err == nil {
		t.Fatal("a reset looks like a clean end")
	}
	_ = server.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := server.Read(make([]byte, 1))
	if ne, ok := errors.AsType[net.Error](err); err == nil || (ok && ne.Timeout()) {
		t.Fatalf("the server is still open: %v", err)
	}
}

// A stream without CloseWrite cannot be told of the end: it is closed.
func TestWithoutHalfClose(t *testing.T) {
	client, a := tcpPair(t)
	b, server := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- Join(a, b, Options{}) }()
	_ = client.CloseWrite()
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	_ = wait(t, done)
}
