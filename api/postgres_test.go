package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store/storetest"
)

// Two API processes share a PostgreSQL database. One is killed while deploys are
// under way: the other one finishes them, and no VM is made or started twice.
func TestPostgresTwoProcesses(t *testing.T) {
	pg := storetest.StartPostgres(t)
	w := newWorld(t, func(c *api.Config) {
		c.DatabaseURL, c.PeerTimeout = pg.NewDatabase(t), 2*time.Second
	})
	w.stop() // it only made the key
	first := w.child()
	one := w.c
	w.child()
	two := w.c
	const n = 6 // the node has room for 8
	seen, held := make(chan struct{}, 8*n), make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	t.Cleanup(release)
	w.vmm.mu.Lock()
	w.vmm.after = func(call string) { // the VM is defined, and nobody knows yet
		if strings.HasPrefix(call, http.MethodPut+" ") && !strings.HasSuffix(call, "/app") {
			seen <- struct{}{}
			<-held
		}
	}
	w.vmm.mu.Unlock()
	var ids []string
	for i := range n {
		w.c = []*cloudapi.Client{one, two}[i%2]
		ids = append(ids, *w.commit(fmt.Sprintf("my-app-%d", i), byte(i+1), nil).VMUUID)
	}
	for range n {
		select {
		case <-seen:
		case <-time.After(20 * time.Second):
			t.Fatalf("the VMM has not seen all deploys\n%s", w.logs)
		}
	}
	kill(first)
	release()
	w.c = two
	for _, id := range ids {
		if done := w.wait(id, 0); done.Status != cloudapi.StatusRunning {
			t.Errorf("%s ended %+v", id, done)
		}
	}
	if !strings.Contains(w.logs.String(), "took over the operations of a process that ended") {
		t.Errorf("the killed process had no operations: the test shows nothing\n%s", w.logs)
	}
	if puts, starts := w.vmm.count("PUT")-w.vmm.count("PUT app"), w.vmm.count("POST start"); puts != n || starts != n {
		t.Errorf("the VMM saw %d definitions and %d starts of %d VMs: %v", puts, starts, n, w.vmm.calls)
	}
	all, err := w.c.CVMs(t.Context())
	if err != nil || len(all) != n {
		t.Errorf("%d CVMs, %v", len(all), err)
	}
}
