package vmm

import (
	"io"
	"net/http"
	"strconv"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// serial streams the console of the newest run.
func (m *VMM) serial(w http.ResponseWriter, r *http.Request) {
	rc, err := m.openSerial(r)
	if err != nil {
		rpc.WriteError(w, err)
		return
	}
	defer rc.Close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	_, _ = io.Copy(flushWriter{w, http.NewResponseController(w)}, rc)
}

func (m *VMM) openSerial(r *http.Request) (io.ReadCloser, error) {
	v, err := m.settled(r.Context(), id(r))
	if err != nil {
		return nil, err
	}
	var o machine.ConsoleOptions
	if s := r.URL.Query().Get("tail"); s != "" {
		if o.Tail, err = strconv.Atoi(s); err != nil || o.Tail < 0 {
			return nil, cvm.Errorf(cvm.Invalid, "tail=%q: want a number of lines", s)
		}
	}
	if o.Follow, err = boolParam(r.URL.Query().Get("follow"), "follow", false); err != nil {
		return nil, err
	}
	v.mu.Lock()
	inst := v.last
	v.mu.Unlock()
	if inst == nil {
		return nil, cvm.Errorf(cvm.Precondition, "VM %s has no console yet: it was not started", id(r)).WithReason("no-console")
	}
	return inst.Console(r.Context(), o)
}
