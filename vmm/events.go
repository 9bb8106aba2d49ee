package vmm

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

const (
	// maxEvents bounds one answer of GET events.
	maxEvents = 2000
	// maxEventFile in bytes; a longer file is compacted to keepChatter of what guests
	// say and keepFacts of the rest, and to keepBytes of each, so that it is short
	// afterwards whatever they hold.
	maxEventFile = 4 << 20
	keepChatter  = 500
	keepFacts    = 1500
	keepBytes    = maxEventFile / 4
	// maxEventText cuts what a guest says, in bytes, as the reference does.
	maxEventText = 4096
	// sseBeat keeps proxies from closing a quiet event stream.
	sseBeat = 20 * time.Second
)

// chatter reports whether an event is a guest's word, which says little later on.
// What the VMM did, and how boots ended, is kept longest.
func chatter(kind string) bool {
	switch kind {
	case "created", "starting", "stopping", "stopped", "ready", "crashed", "lost", "boot.error", "instance.info",
		"app.updated", "resized", "image", "start", "stop", "restart", "deleting", "rolled-back", eventExhausted,
		"update.requested", "update.switching", "update.done", "update.failed", "update.cancelled", "update.applied":
		return false
	}
	return true
}

func (s store) eventFile(id string) string { return filepath.Join(s.vmDir(id), "events.jsonl") }

// appendEvent adds an event. A guest can only ever cost maxEventFile.
func (s store) appendEvent(id string, e vmmapi.Event) error {
	if len(e.Message) > maxEventText {
		e.Message = string(bytes.ToValidUTF8([]byte(e.Message[:maxEventText]), nil)) + "…"
	}
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encoding an event: %w", err)
	}
	f, err := os.OpenFile(s.eventFile(id), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil {
		_, err = f.Write(append(b, '\n'))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if st.Size() > maxEventFile {
		return s.compactEvents(id)
	}
	return nil
}

// compactEvents keeps the newest of both sorts, in order, with their numbers.
func (s store) compactEvents(id string) error {
	all, err := s.readEvents(id)
	if err != nil {
		return err
	}
	talk, facts := budget{keepChatter, keepBytes}, budget{keepFacts, keepBytes}
	var lines [][]byte // newest first
	for _, e := range slices.Backward(all) {
		line, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("encoding an event: %w", err)
		}
		of := &facts
		if chatter(e.Kind) {
			of = &talk
		}
		if of.takes(len(line) + 1) {
			lines = append(lines, line)
		}
	}
	var b bytes.Buffer
	for _, line := range slices.Backward(lines) {
		b.Write(append(line, '\n'))
	}
	return s.replace(s.eventFile(id), b.Bytes())
}

// budget is what one sort of event may keep; once something did not fit, nothing
// older does.
type budget struct{ events, bytes int }

func (b *budget) takes(size int) bool {
	b.events--
	b.bytes -= size
	return b.events >= 0 && b.bytes >= 0
}

// readEvents reads the file. A torn line (a crash in the middle of a write) is skipped.
func (s store) readEvents(id string) ([]vmmapi.Event, error) {
	f, err := os.Open(s.eventFile(id))
	if errors.Is(err, os.ErrNotExist) {
		return []vmmapi.Event{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := []vmmapi.Event{}
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var e vmmapi.Event
		if json.Unmarshal(bytes.TrimSpace(sc.Bytes()), &e) == nil && e.Seq > 0 {
			out = append(out, e)
		}
	}
	return out, sc.Err()
}

// cursor selects events. Without after: the newest; with it: the oldest beyond it.
type cursor struct {
	after  int64
	has    bool
	limit  int
	follow bool
}

// events reads at most limit events, oldest first.
func (s store) events(id string, c cursor) ([]vmmapi.Event, error) {
	all, err := s.readEvents(id)
	if err != nil {
		return nil, err
	}
	if !c.has {
		return all[max(0, len(all)-c.limit):], nil
	}
	i := 0
	for i < len(all) && all[i].Seq <= c.after {
		i++
	}
	all = all[i:]
	return all[:min(len(all), c.limit)], nil
}

func parseCursor(r *http.Request) (c cursor, err error) {
	q := r.URL.Query()
	c.limit = maxEvents
	if s := q.Get("limit"); s != "" {
		if c.limit, err = strconv.Atoi(s); err != nil || c.limit < 1 || c.limit > maxEvents {
			return c, cvm.Errorf(cvm.Invalid, "limit=%q: want 1 to %d", s, maxEvents)
		}
	}
	if c.follow, err = boolParam(q.Get("follow"), "follow", false); err != nil {
		return c, err
	}
	after := q.Get("after")
	if id := r.Header.Get("Last-Event-ID"); id != "" && c.follow {
		after = id // a browser that comes back says where it was
	}
	if after != "" {
		c.has = true
		if c.after, err = strconv.ParseInt(after, 10, 64); err != nil || c.after < 0 {
			return c, cvm.Errorf(cvm.Invalid, "after=%q: want the seq of an event", after)
		}
	}
	return c, nil
}

func boolParam(s, name string, otherwise bool) (bool, error) {
	if s == "" {
		return otherwise, nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, cvm.Errorf(cvm.Invalid, "%s=%q: want true or false", name, s)
	}
	return b, nil
}

// getEvents answers a list, or with follow a stream of server-sent events that
// ends when the VM is gone.
func (m *VMM) getEvents(w http.ResponseWriter, r *http.Request) {
	v, err := m.find(id(r))
	var c cursor
	if err == nil {
		c, err = parseCursor(r)
	}
	var list []vmmapi.Event
	if err == nil {
		list, err = m.store.events(id(r), c)
	}
	if err != nil {
		rpc.WriteError(w, err)
		return
	}
	if !c.follow {
		rpc.WriteJSON(w, http.StatusOK, list)
		return
	}
	m.streamEvents(w, r, v, c, list)
}

func (m *VMM) streamEvents(w http.ResponseWriter, r *http.Request, v *vm, c cursor, list []vmmapi.Event) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("X-Accel-Buffering", "no")
	out := flushWriter{w, http.NewResponseController(w)}
	beat := time.NewTicker(sseBeat)
	defer beat.Stop()
	c.has = true
	for {
		var b bytes.Buffer
		for _, e := range list {
			data, err := json.Marshal(e)
			if err != nil {
				return
			}
			fmt.Fprintf(&b, "id: %d\nevent: %s\ndata: %s\n\n", e.Seq, sseWord(e.Kind), data)
			c.after = e.Seq
		}
		if len(list) == 0 {
			b.WriteString(": \n\n")
		}
		if _, err := out.Write(b.Bytes()); err != nil {
			return
		}
		changed, gone := v.watch(c.after)
		if gone {
			return
		}
		select {
		case <-changed:
		case <-beat.C:
		case <-r.Context().Done():
			return
		}
		var err error
		if list, err = m.store.events(v.id(), c); err != nil {
			return
		}
	}
}

// sseWord keeps a guest from writing lines of its own into the stream.
func sseWord(kind string) string {
	b := []byte(kind)
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

// watch is closed when there is an event after seq; gone: none will come.
func (v *vm) watch(seq int64) (changed <-chan struct{}, gone bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rec.EventSeq > seq {
		c := make(chan struct{})
		close(c)
		return c, v.gone
	}
	return v.changed, v.gone
}

func (v *vm) id() string { return v.rec.VM.Spec.ID } // never changes
