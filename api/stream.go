package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

// streamInput is what streams read from their request.
type streamInput struct {
	IDInput
	After      int64  `query:"after" doc:"progress: only events with a higher seq"`
	Target     string `query:"target" doc:"state: the status to wait for; without it one JSON answer"`
	Interval   int    `query:"interval" default:"5" minimum:"5" maximum:"30" doc:"state: seconds between states"`
	Timeout    int    `query:"timeout" default:"300" minimum:"10" maximum:"600" doc:"state: seconds"`
	Channel    string `query:"ch" default:"serial" doc:"serial-logs: serial, or the hypervisor's own stdout or stderr"`
	Container  string `query:"container" doc:"logs: default is the first one"`
	Tail       string `query:"tail" pattern:"^[0-9]*$" doc:"logs: lines from the end"`
	Since      string `query:"since"`
	Until      string `query:"until"`
	Follow     bool   `query:"follow"`
	Timestamps bool   `query:"timestamps"`
	Stderr     string `query:"stderr" doc:"logs: true adds what the container wrote to stderr"`
}

// stream registers an operation that writes as it goes. open checks the request
// (errors become error answers) and returns what writes.
func (s *Server) stream(api huma.API, path, summary string, open func(context.Context, *streamInput) (func(huma.Context), error)) {
	o := op{method: "GET", path: path, summary: summary}
	h := huma.Operation{
		OperationID: operationID(o), Method: o.method, Path: cloudapi.Prefix + path, Summary: summary, Tags: []string{"cvms"},
		Responses: map[string]*huma.Response{
			"200":     {Description: "OK", Content: map[string]*huma.MediaType{"text/event-stream": {}, "text/plain": {}}},
			"default": {Description: "Error", Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Ref: "#/components/schemas/Error"}}}},
		},
	}
	if !s.guard(&h, reads("cvms")) {
		return
	}
	huma.Register(api, h, func(ctx context.Context, in *streamInput) (*huma.StreamResponse, error) {
		write, err := open(ctx, in)
		if err != nil {
			return nil, s.answer(ctx, err)
		}
		return &huma.StreamResponse{Body: write}, nil
	})
}

// sse writes server-sent events; after a failed write it stays silent.
type sse struct {
	hc  huma.Context
	rc  *http.ResponseController
	err error
}

func newSSE(hc huma.Context) *sse {
	hc.SetHeader("Content-Type", "text/event-stream")
	hc.SetHeader("Cache-Control", "no-store")
	out := &sse{hc: hc}
	if w, ok := hc.BodyWriter().(http.ResponseWriter); ok {
		out.rc = http.NewResponseController(w)
	}
	return out
}

func (e *sse) send(event string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		e.err = err
		return
	}
	e.write(fmt.Sprintf("event: %s\ndata: %s\n\n", event, b))
}

func (e *sse) write(s string) {
	if e.err != nil {
		return
	}
	if _, e.err = e.hc.BodyWriter().Write([]byte(s)); e.err == nil && e.rc != nil {
		e.err = e.rc.Flush()
	}
}

// heartbeat keeps a silent stream open through proxies.
const heartbeat = 15 * time.Second

func (s *Server) progress(ctx context.Context, in *streamInput) (func(huma.Context), error) {
	c, err := s.resolve(ctx, in.ID, true)
	if err != nil {
		return nil, err
	}
	return func(hc huma.Context) {
		out := newSSE(hc)
		signal, stop := s.store.Watch(c.ID)
		defer stop()
		poll := time.NewTicker(time.Second)
		defer poll.Stop()
		last, after := s.now(), in.After
		for look, ticks := true, 0; out.err == nil; {
			n, done := 0, false
			if look {
				n, done = s.follow(hc.Context(), out, c.ID, &after)
			}
			if done || out.err != nil {
				return
			}
			if now := s.now(); n > 0 {
				last = now
			} else if now.Sub(last) > heartbeat {
				last = now
				out.write(": waiting\n\n")
			}
			select {
			case <-hc.Context().Done():
				return
			case <-signal:
				look = true
			case <-poll.C: // for changes by other processes: nearly each has an event
				seq, err := s.store.LastSeq(hc.Context(), c.ID)
				ticks++
				look = err != nil || seq > after || ticks%5 == 0
			}
		}
	}, nil
}

// follow sends the events after a seq, and done when the CVM rests.
func (s *Server) follow(ctx context.Context, out *sse, id int64, after *int64) (n int, done bool) {
	// The state first: an event of a change that comes between is sent next time.
	ops, err := s.store.OpenOps(ctx, id)
	if err != nil {
		out.err = err
		return 0, false
	}
	c, err := s.store.CVM(ctx, id)
	if err != nil {
		out.err = err
		return 0, false
	}
	for {
		list, err := s.store.Events(ctx, id, *after, 500)
		if err != nil {
			out.err = err
			return n, false
		}
		for _, e := range list {
			out.send("event", e)
			*after = e.Seq
			n++
		}
		if len(list) < 500 {
			break
		}
	}
	if len(ops) > 0 {
		return n, false
	}
	// A VM that restarts by itself is on its way without any operation.
	if c.Status == cloudapi.StatusStarting || c.Status == cloudapi.StatusStopping {
		return n, false
	}
	out.send("done", cloudapi.Done{Status: c.Status, Target: c.Status, Seq: *after, Error: c.Error})
	return n, true
}

func (s *Server) stateOf(c store.CVM) cloudapi.State {
	v := cloudapi.State{ID: c.UUID, InstanceID: c.InstanceID, Name: c.Name, Status: c.Status, Uptime: uptime(c, s.now()), BootProgress: c.BootProgress, Error: c.Error}
	if c.Error != nil {
		v.BootError = c.Error.Message
	}
	if !c.StoppedAt.IsZero() {
		v.ExitedAt = stamp(c.StoppedAt)
	}
	return v
}

const maxStreams = 5 // of /state, per user (public contract)

func (s *Server) state(ctx context.Context, in *streamInput) (func(huma.Context), error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if in.Target == "" {
		return func(hc huma.Context) {
			hc.SetHeader("Content-Type", "application/json")
			_ = json.NewEncoder(hc.BodyWriter()).Encode(s.stateOf(c))
		}, nil
	}
	user := who(ctx).UserID
	if !s.streams.take(user) {
		return nil, fail(http.StatusTooManyRequests, "", cvm.Exhausted, "too-many-streams", fmt.Sprintf("at most %d state streams per user", maxStreams), "close one, or poll the state")
	}
	return func(hc huma.Context) {
		defer s.streams.give(user)
		s.watchState(hc, c.ID, in)
	}, nil
}

func (s *Server) watchState(hc huma.Context, id int64, in *streamInput) {
	out := newSSE(hc)
	signal, stop := s.store.Watch(id)
	defer stop()
	ctx, cancel := context.WithTimeout(hc.Context(), time.Duration(in.Timeout)*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Duration(in.Interval) * time.Second)
	defer tick.Stop()
	shown, force := "", true
	for out.err == nil {
		c, err := s.store.CVM(hc.Context(), id)
		if err != nil {
			out.send("error", map[string]string{"error": "reading the state failed"})
			return
		}
		v := s.stateOf(c)
		if now := v.Status + v.BootProgress; force || now != shown {
			shown = now
			out.send("state", v)
		}
		ops, err := s.store.OpenOps(hc.Context(), id)
		if err == nil && c.Status == in.Target && len(ops) == 0 {
			out.send("complete", v)
			return
		}
		if err == nil && c.Status == cloudapi.StatusFailed && len(ops) == 0 {
			out.send("error", map[string]any{"error": v.BootError, "state": v})
			return
		}
		force = false
		select {
		case <-ctx.Done():
			if hc.Context().Err() == nil {
				out.send("timeout", map[string]any{"message": "the target was not reached in time", "state": v})
			}
			return
		case <-signal:
		case <-tick.C:
			force = true
		}
	}
}
