package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/confidential-cloud/phala/cvm"
)

// maxMessage bounds one line of the monitor protocol, in bytes.
const maxMessage = 256 << 10

// message is one line that QEMU sends: exactly one of greeting, answer, error, event.
type message struct {
	Greeting json.RawMessage `json:"QMP,omitempty"`
	Return   json.RawMessage `json:"return,omitempty"`
	Error    *qmpError       `json:"error,omitempty"`
	Event    string          `json:"event,omitempty"`
	Data     json.RawMessage `json:"data,omitempty"`
	ID       *uint64         `json:"id,omitempty"`
}

type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

// decode reads one line.
func decode(line []byte) (message, error) {
	var m message
	if len(line) > maxMessage {
		return m, fmt.Errorf("monitor: %d bytes in one message, at most %d", len(line), maxMessage)
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("monitor: %w", err)
	}
	kinds := 0
	for _, is := range []bool{m.Greeting != nil, m.Return != nil, m.Error != nil, m.Event != ""} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		return message{}, fmt.Errorf("monitor: a message of no kind that is known: %.200q", line)
	}
	return m, nil
}

// client speaks the monitor protocol on one connection. QEMU serves one client at a
// time.
type client struct {
	c     net.Conn
	event func(name string, data json.RawMessage) // called in order, must not block

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan message
	err     error
	done    chan struct{}
}

// dialQMP connects and negotiates; events are delivered from then on.
func dialQMP(ctx context.Context, sock string, event func(string, json.RawMessage)) (*client, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", sock)
	if err != nil {
		return nil, err
	}
	q := &client{c: c, event: event, waiting: map[uint64]chan message{}, done: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	r := bufio.NewReaderSize(c, 16<<10)
	line, err := readLine(r)
	if err == nil {
		var m message
		if m, err = decode(line); err == nil && m.Greeting == nil {
			err = errors.New("monitor: no greeting")
		}
	}
	if err != nil {
		return nil, errors.Join(err, ctx.Err(), c.Close())
	}
	go q.read(r)
	if err := q.execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		return nil, errors.Join(err, q.close())
	}
	return q, nil
}

func (q *client) close() error { return q.c.Close() }

// readLine reads to a newline, bounded.
func readLine(r *bufio.Reader) ([]byte, error) {
	var out []byte
	for {
		part, err := r.ReadSlice('\n')
		out = append(out, part...)
		if len(out) > maxMessage {
			return nil, fmt.Errorf("monitor: a message of more than %d bytes", maxMessage)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if err == io.EOF && len(out) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return bytes.TrimSpace(out), err
		}
	}
}

func (q *client) read(r *bufio.Reader) {
	for {
		line, err := readLine(r)
		if err == nil && len(line) == 0 {
			continue
		}
		var m message
		if err == nil {
			m, err = decode(line)
		}
		if err != nil {
			q.fail(err)
			return
		}
		if m.Event != "" {
			q.event(m.Event, m.Data)
			continue
		}
		if m.ID == nil {
			continue // an error about a line that was not a command: the caller's deadline ends it
		}
		q.mu.Lock()
		ch := q.waiting[*m.ID]
		delete(q.waiting, *m.ID)
		q.mu.Unlock()
		if ch != nil {
			ch <- m
		}
	}
}

func (q *client) fail(err error) {
	q.mu.Lock()
	q.err = err
	q.mu.Unlock()
	_ = q.c.Close()
	close(q.done)
}

// execute runs a command and decodes its answer into out, unless that is nil.
func (q *client) execute(ctx context.Context, command string, args, out any) error {
	ch := make(chan message, 1)
	q.mu.Lock()
	q.next++
	id := q.next
	q.waiting[id] = ch
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, args, id})
	if err == nil {
		_, err = q.c.Write(append(b, '\n'))
	}
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		delete(q.waiting, id)
		q.mu.Unlock()
	}()
	if err != nil {
		return fmt.Errorf("monitor: %s: %w", command, err)
	}
	select {
	case m := <-ch:
		return answer(command, m, out)
	case <-q.done:
		q.mu.Lock()
		defer q.mu.Unlock()
		return fmt.Errorf("monitor: %s: %w", command, q.err)
	case <-ctx.Done():
		return fmt.Errorf("monitor: %s: %w", command, ctx.Err())
	}
}

func answer(command string, m message, out any) error {
	if m.Error != nil {
		return cvm.Errorf(cvm.Precondition, "monitor: %s: %s", command, m.Error.Desc).WithReason("qmp-" + m.Error.Class)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(m.Return, out); err != nil {
		return fmt.Errorf("monitor: answer to %s: %w", command, err)
	}
	return nil
}

func ignoreEvents(string, json.RawMessage) {}
