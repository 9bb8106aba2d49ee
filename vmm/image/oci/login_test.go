package oci

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// locked makes a registry want a login, and counts the requests that bring one.
func (h *hub) locked(told *atomic.Int64) {
	h.play(func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		user, password, ok := r.BasicAuth()
		if ok {
			told.Add(1)
		}
		if user == "node" && password == "hunter2hunter2" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
}

// TestLoginIsForOneRegistry: who may name an image must not learn the node's password
// by naming one in a registry of theirs.
func TestLoginIsForOneRegistry(t *testing.T) {
	own, strange := newHub(t), newHub(t)
	dir := fakeImage(t, "a")
	here, there := own.push(t, dir, "v1", PushConfig{}), strange.push(t, dir, "v1", PushConfig{})
	var told, leaked atomic.Int64
	own.locked(&told)
	strange.locked(&leaked)
	login := Login{Registry: own.host, User: "node", Password: keys.NewSecret([]byte("hunter2hunter2"))}
	refused(t, puller(t, Config{}), vmmapi.PullRequest{Ref: here.Ref}, "registry-denied")
	refused(t, puller(t, Config{Login: login}), vmmapi.PullRequest{Ref: there.Ref}, "registry-denied")
	if leaked.Load() > 0 {
		t.Errorf("another registry was told the password in %d requests", leaked.Load())
	}
	done(t, puller(t, Config{Login: login}), vmmapi.PullRequest{Ref: here.Ref})
	login.Registry = ""
	refused(t, puller(t, Config{Login: login}), vmmapi.PullRequest{Ref: here.Ref}, "registry-denied")
	own.push(t, fakeImage(t, "b"), "v2", PushConfig{Login: login}) // names its registry itself
	if told.Load() == 0 {
		t.Error("nobody was asked for a login: the test proves nothing")
	}
}
