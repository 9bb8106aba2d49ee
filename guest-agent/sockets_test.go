package guestagent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/guest-agent/serve"
	"github.com/confidential-cloud/phala/keys"
)

// TestServiceSockets: each limited service has sockets of its own, held to its part of
// the policy; they are there once the shared ones are.
func TestServiceSockets(t *testing.T) {
	dir, err := os.MkdirTemp("", "socks")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	a, err := New(Under(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.group.Stop() })
	socks := a.serviceSockets(t.Context())
	if _, _, err := socks.Open("web"); err == nil {
		t.Error("sockets before there is a backend")
	}
	doc, err := appcompose.Parse([]byte(`{"manifest_version":2,"name":"a","runner":"docker-compose","docker_compose_file":"x","socket_policy":{"default":"none","containers":{"web":{"keys":["w/*"]},"db":{"keys":["d"]}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, 32)
	raw[0] = 1
	a.backend.Store(&serve.Backend{App: doc, AppKey: keys.NewSecret(raw)})
	for service, rights := range map[string]map[string]bool{"web": {"w/a": true, "d": false}, "db": {"w/a": false, "d": true}} {
		dstack, tappd, err := socks.Open(service)
		if err != nil {
			t.Fatal(err)
		}
		again, _, err := socks.Open(service)
		if err != nil || again != dstack || filepath.Dir(tappd) != filepath.Dir(dstack) {
			t.Errorf("%s: %s, then %s, %v", service, dstack, again, err)
		}
		if st, err := os.Stat(tappd); err != nil || st.Mode()&os.ModeSocket == 0 {
			t.Errorf("%s: %v", tappd, err)
		}
		for path, want := range rights {
			_, err := guestapi.NewDstack(dstack).GetKey(t.Context(), guestapi.KeyRequest{Path: path})
			if (err == nil) != want || (err != nil && !strings.Contains(err.Error(), "socket policy: service "+service)) {
				t.Errorf("%s asks for %s: %v", service, path, err)
			}
		}
	}
	for path, want := range map[string]string{"/var/run/dstack.sock": "/run/dstack.sock", "/run/a": "/var/run/a"} {
		if got := sameFile(path); len(got) != 2 || got[1] != want {
			t.Errorf("%s: %q", path, got)
		}
	}
}
