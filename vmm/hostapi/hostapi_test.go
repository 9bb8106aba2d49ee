package hostapi

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
)

func start(t *testing.T, notify func(guestapi.Notify) error) (*rpc.Client, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "h.sock")
	s, err := New(Config{Path: path, Name: "vm-1", Notify: notify})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("the socket is still there after Run")
		}
	})
	return &rpc.Client{Base: "http://unix", HTTP: rpc.UnixClient(path)}, path
}

func TestNotifyAndInfo(t *testing.T) {
	var got []guestapi.Notify
	c, _ := start(t, func(n guestapi.Notify) error {
		if n.Event == "bad" {
			return cvm.Errorf(cvm.Invalid, "unknown event")
		}
		got = append(got, n)
		return nil
	})
	if err := c.Call(t.Context(), "POST", "/api/Notify", guestapi.Notify{Event: "boot.progress", Payload: "1/10 host-shared"}, nil); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Payload != "1/10 host-shared" {
		t.Fatalf("got %+v", got)
	}
	var in Info
	if err := c.Call(t.Context(), "GET", "/api/Info", nil, &in); err != nil || in.Name != "vm-1" {
		t.Fatalf("info %+v, %v", in, err)
	}
	for name, n := range map[string]guestapi.Notify{
		"no event":   {Payload: "x"},
		"long event": {Event: strings.Repeat("e", MaxEvent+1)},
		"large":      {Event: "x", Payload: strings.Repeat("x", MaxPayload+1)},
		"huge":       {Event: "x", Payload: strings.Repeat("x", 9*MaxPayload)},
		"refused":    {Event: "bad"},
	} {
		if err := c.Call(t.Context(), "POST", "/api/Notify", n, nil); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: want invalid, got %v", name, err)
		}
	}
	if len(got) != 1 {
		t.Fatalf("refused messages reached the handler: %+v", got[1:])
	}
}

func TestNotifyRate(t *testing.T) {
	n := 0
	c, _ := start(t, func(guestapi.Notify) error { n++; return nil })
	var err error
	for range 4 * burst {
		if err = c.Call(t.Context(), "POST", "/api/Notify", guestapi.Notify{Event: "x"}, nil); err != nil {
			break
		}
	}
	if cvm.CodeOf(err) != cvm.Exhausted || n < burst {
		t.Fatalf("after %d messages: %v", n, err)
	}
}

func TestHoardedConnectionsAreRefused(t *testing.T) {
	_, path := start(t, func(guestapi.Notify) error { return nil })
	for range 4 * maxConns {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	// The last one must have been closed by the server.
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Fatalf("connection beyond the limit stays open: %v", err)
	}
}

func TestSocketIsReplacedAndBounded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "h.sock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Path: path, Notify: func(guestapi.Notify) error { return nil }})
	if err != nil {
		t.Fatal("a socket left behind must be replaced:", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = New(Config{Path: "/tmp/" + strings.Repeat("d", 110), Notify: func(guestapi.Notify) error { return nil }})
	if cvm.CodeOf(err) != cvm.Invalid || !strings.Contains(err.Error(), "107") {
		t.Fatalf("long path: %v", err)
	}
}
