package vm

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// fleet answers as many VMMs at once: node n is 127.100.n/250.n%250+1, all of them
// one listener. What it answers is encoded once.
type fleet struct {
	port  int
	node  []byte
	image []byte
	asked atomic.Int64 // GET /v1/node

	mu  sync.Mutex
	vms map[int][]vmmapi.VM
	was map[int][]byte // the answer with these VMs
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	l, err := net.Listen("tcp", "0.0.0.0:0") //nolint:gosec // all of 127/8; answers nothing worth having
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{port: l.Addr().(*net.TCPAddr).Port, vms: map[int][]vmmapi.VM{}, was: map[int][]byte{}}
	f.node = []byte(encode(t, vmmapi.Node{ID: "node", Name: "node", Driver: "dry", Region: "here", Simulated: true,
		Capacity: vmmapi.Resources{VCPU: 64, MemoryMiB: 256 << 10, DiskMiB: 4 << 20}, Used: vmmapi.Resources{VCPU: 10, MemoryMiB: 20 << 10, DiskMiB: 200 << 10}}))
	f.image = []byte(encode(t, []vmmapi.Image{{Name: "phala-0.1.0", Version: "0.1.0"}}))
	srv := &http.Server{Handler: f, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return f
}

func (f *fleet) url(n int) string {
	return fmt.Sprintf("http://127.100.%d.%d:%d", n/250, n%250+1, f.port)
}

func (f *fleet) put(n int, vm vmmapi.VM) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.vms[n] = append(f.vms[n], vm)
	delete(f.was, n)
}

// list answers without what is handed to the guests, as a VMM does for the brief view.
func (f *fleet) list(n int) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.was[n] == nil {
		f.was[n], _ = json.Marshal(append([]vmmapi.VM{}, f.vms[n]...))
	}
	return f.was[n]
}

func (f *fleet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/v1/node":
		f.asked.Add(1)
		_, _ = w.Write(f.node)
	case "/v1/images":
		_, _ = w.Write(f.image)
	case "/v1/vms":
		host, _, _ := strings.Cut(r.Host, ":")
		part := strings.Split(host, ".")
		high, _ := strconv.Atoi(part[2])
		low, _ := strconv.Atoi(part[3])
		_, _ = w.Write(f.list(high*250 + low - 1))
	default:
		rpc.WriteJSON(w, http.StatusNotFound, struct{}{})
	}
}
