package api

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/scheduler"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// newChooser is a server that does not run, with one node of a size.
func newChooser(t *testing.T, whole vmmapi.Resources) *Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/node", func(w http.ResponseWriter, _ *http.Request) {
		rpc.WriteJSON(w, http.StatusOK, vmmapi.Node{Name: "one", Capacity: whole})
	})
	mux.HandleFunc("GET /v1/images", func(w http.ResponseWriter, _ *http.Request) { rpc.WriteJSON(w, http.StatusOK, []vmmapi.Image{}) })
	vmm := httptest.NewServer(mux)
	t.Cleanup(vmm.Close)
	cfg := DefaultConfig()
	cfg.Dir, cfg.Log = t.TempDir(), slog.New(slog.DiscardHandler)
	token := filepath.Join(cfg.Dir, "token")
	if err := os.WriteFile(token, []byte("token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Nodes = []NodeConfig{{URL: vmm.URL, TokenFile: token}}
	cfg.KMS.URLs, cfg.KMS.RootSPKI = []string{"https://127.0.0.1:1"}, "3059"
	cfg.Gateway = GatewayConfig{Domain: "dev.localhost", Port: 8443}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Room that is stored and not yet known to be counts once: who chooses in between is
// not refused what is free.
func TestPromisedOnce(t *testing.T) {
	const fit = 4
	s := newChooser(t, vmmapi.Resources{VCPU: fit, MemoryMiB: fit << 10, DiskMiB: fit * 20 << 10})
	r := scheduler.Request{Need: scheduler.Resources{VCPU: 1, MemoryMiB: 1 << 10, DiskGB: 20}}
	ids := []string{"a", "b", "c", "d"}
	for i, id := range ids {
		n, limit, _, err := s.choose(t.Context(), r, "", id)
		if err != nil {
			t.Fatalf("choice %d of %d that fit: %v", i+1, fit, err)
		}
		if i%2 == 1 {
			continue // about to be stored
		}
		h := store.Reservation{ID: id, NodeID: n.ID, Room: roomOf(r), ExpiresAt: time.Now().Add(time.Hour)}
		if err := s.store.HoldRoom(t.Context(), h, limit); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, _, err := s.choose(t.Context(), r, "", "e"); err == nil {
		t.Error("one more than fits was chosen")
	}
	for _, id := range ids {
		s.chooser.chosen(id, false) // two of them were stored
	}
	for _, id := range []string{"f", "g"} {
		if _, _, _, err := s.choose(t.Context(), r, "", id); err != nil {
			t.Errorf("what was not stored holds room: %v", err)
		}
	}
	if _, _, _, err := s.choose(t.Context(), r, "", "h"); err == nil {
		t.Error("one more than fits was chosen")
	}
}
