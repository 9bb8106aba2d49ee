package guestagent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/guest-agent/boot"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/guest-agent/serve"
)

// maxPayload is what the host takes in one notification, in bytes.
const maxPayload = 16 << 10

// host tells the VMM, and remembers for a VMM that was away.
type host struct {
	c  *guestapi.Host // nil: there is none
	mu sync.Mutex
	b  guestapi.Boot
}

func newHost(sock string) *host {
	if sock == "" {
		return &host{}
	}
	return &host{c: guestapi.NewHost(sock)}
}

// Notify sends one message; without a host it only remembers.
func (h *host) Notify(ctx context.Context, n guestapi.Notify) error {
	h.mu.Lock()
	switch n.Event {
	case "boot.progress":
		h.b.Progress = n.Payload
	case "instance.info":
		h.b.Instance = n.Payload
	}
	h.mu.Unlock()
	if h.c == nil {
		return nil
	}
	if len(n.Payload) > maxPayload {
		n.Payload = shorten(n)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return h.c.Notify(ctx, n)
}

// shorten keeps a boot.error readable as JSON: its message is what is long.
func shorten(n guestapi.Notify) string {
	var v map[string]string
	if json.Unmarshal([]byte(n.Payload), &v) == nil && len(v["message"]) > 4096 {
		v["message"] = v["message"][:2048] + " ... " + v["message"][len(v["message"])-2000:]
		if b, err := json.Marshal(v); err == nil && len(b) <= maxPayload {
			return string(b)
		}
	}
	return n.Payload[:maxPayload]
}

func (h *host) setReady() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.b.Ready = true
}

func (h *host) boot() guestapi.Boot {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b
}

type randReader struct{}

func (randReader) Read(b []byte) (int, error) { return rand.Read(b) }

// readShared reads the host's files; where no host keeps .instance_info, ours.
func (a *Agent) readShared() (*boot.Shared, error) {
	if a.cfg.Machine {
		return a.sharedFromDisk()
	}
	s, err := boot.ReadShared(a.cfg.SharedDir)
	if err != nil || a.cfg.HostSock != "" || s.Instance.Seed != "" {
		return s, err
	}
	b, err := os.ReadFile(a.instanceFile())
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	var kept guestapi.InstanceInfo
	if err := json.Unmarshal(b, &kept); err != nil {
		return nil, fmt.Errorf("%s: %w", a.instanceFile(), err)
	}
	s.Instance.Seed = kept.Seed
	return s, nil
}

func (a *Agent) instanceFile() string { return filepath.Join(a.cfg.DataDir, "instance_info.json") }

func (a *Agent) keepInstance(i guestapi.InstanceInfo) error {
	b, err := json.Marshal(i)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(a.cfg.DataDir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(a.instanceFile(), b, 0o600)
}

// serveGuest opens guest.sock before the first stage.
func (a *Agent) serveGuest(ctx context.Context) error {
	if a.cfg.GuestSock == "" {
		return nil
	}
	g := &serve.Guest{Boot: a.host.boot, Backend: a.backend.Load, Shutdown: a.askStop}
	return a.listen(ctx, "guest.sock", a.cfg.GuestSock, 0o600, g.Handler())
}

// askStop ends the run in an orderly way; again is no error.
func (a *Agent) askStop() {
	if a.stopOnce.CompareAndSwap(false, true) {
		close(a.asked)
	}
}

// listen serves a handler on a unix socket (replacing one that a killed agent
// left) as a part of the group.
func (a *Agent) listen(ctx context.Context, name, path string, mode os.FileMode, h http.Handler) error {
	if len(path) > 107 {
		return fmt.Errorf("%s: %q has %d bytes, a unix socket path holds 107", name, path, len(path))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w", name, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := os.Chmod(path, mode); err != nil {
		_ = l.Close()
		return fmt.Errorf("%s: %w", name, err)
	}
	a.serveOn(ctx, name, l, h)
	return nil
}

func (a *Agent) serveOn(ctx context.Context, name string, l net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10}
	a.group.Go(ctx, name, func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() {
			c, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			if s.Shutdown(c) != nil {
				_ = s.Close()
			}
		})
		defer stop()
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}
