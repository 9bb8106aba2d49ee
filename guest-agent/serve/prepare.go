package serve

import (
	"encoding/json"
	"errors"
	"net/http"
	"sync"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// prepare pulls what another app-compose would run. The host asks; what it sends is
// neither measured nor approved, and nothing of it is kept but images.
func (g *Guest) prepare(w http.ResponseWriter, r *http.Request) {
	b := g.Backend()
	if b == nil {
		rpc.WriteError(w, booting())
		return
	}
	if b.Prepare == nil {
		rpc.WriteError(w, cvm.Errorf(cvm.Unsupported, "this guest runs no containers"))
		return
	}
	var q guestapi.PrepareRequest
	if err := rpc.Decode(w, r, &q); err != nil {
		rpc.WriteError(w, err)
		return
	}
	doc, err := appcompose.Parse([]byte(q.AppCompose))
	if err != nil {
		rpc.WriteError(w, err)
		return
	}
	if doc.Runner != appcompose.RunnerDockerCompose || doc.DockerComposeFile == "" {
		rpc.WriteError(w, cvm.Errorf(cvm.Invalid, "app_compose: want runner docker-compose and a docker_compose_file").WithReason("prepare-refused"))
		return
	}
	out := &progressWriter{w: &flushWriter{w: w, kind: "application/x-ndjson"}}
	err = b.Prepare(r.Context(), doc, out.tell)
	out.tell(last(err))
}

// last is the line that ends a preparation.
func last(err error) guestapi.PullProgress {
	if err == nil {
		return guestapi.PullProgress{State: "ready"}
	}
	p := guestapi.PullProgress{State: "failed", Error: err.Error(), Reason: cvm.ReasonOf(err)}
	var c *cvm.Error
	if errors.As(err, &c) {
		p.Fix = c.Fix
	}
	return p
}

// progressWriter writes lines as they come.
type progressWriter struct {
	mu sync.Mutex
	w  *flushWriter
}

func (p *progressWriter) tell(line guestapi.PullProgress) {
	b, err := json.Marshal(line)
	if err != nil {
		return // a struct of strings and numbers
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = p.w.Write(append(b, '\n')) // a host that is gone ends the request's context
}
