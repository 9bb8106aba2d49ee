package hostlink

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
)

// port plays QEMU's virtio-serial port and its chardev: the host's side comes and
// goes and is seen by the guest; the guest's side comes and goes and the host sees
// nothing, so that what one wrote may reach another one's reader.
type port struct {
	mu       sync.Mutex
	cond     *sync.Cond
	toGuest  []byte
	toHost   []byte
	host     *end // nil: not connected
	guest    *end
	loseNext int // bytes to the host that get lost
}

func newPort() *port {
	p := &port{}
	p.cond = sync.NewCond(&p.mu)
	return p
}

type end struct {
	p      *port
	host   bool
	closed bool
}

const portBuffer = 64 << 10

func (p *port) openHost(context.Context) (io.ReadWriteCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.host != nil {
		return nil, errors.New("the chardev serves one client")
	}
	p.host = &end{p: p, host: true}
	p.cond.Broadcast()
	return p.host, nil
}

func (p *port) openGuest(context.Context) (io.ReadWriteCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.guest != nil {
		return nil, os.ErrExist // EBUSY
	}
	p.guest = &end{p: p}
	p.cond.Broadcast()
	return p.guest, nil
}

func (e *end) Read(b []byte) (int, error) {
	p := e.p
	p.mu.Lock()
	defer p.mu.Unlock()
	q := &p.toGuest
	if e.host {
		q = &p.toHost
	}
	for {
		switch {
		case e.closed:
			return 0, net.ErrClosed
		case len(*q) > 0:
			n := copy(b, *q)
			*q = (*q)[n:]
			p.cond.Broadcast()
			return n, nil
		case !e.host && p.host == nil:
			return 0, io.EOF
		}
		p.cond.Wait()
	}
}

func (e *end) Write(b []byte) (n int, err error) {
	p := e.p
	p.mu.Lock()
	defer p.mu.Unlock()
	q := &p.toHost
	if e.host {
		q = &p.toGuest
	}
	for n < len(b) {
		if e.closed {
			return n, net.ErrClosed
		}
		room := portBuffer - len(*q)
		if room <= 0 || !e.host && p.host == nil {
			p.cond.Wait()
			continue
		}
		m := min(room, len(b)-n)
		part := b[n : n+m]
		n += m
		if !e.host && p.loseNext > 0 {
			lost := min(p.loseNext, len(part))
			p.loseNext, part = p.loseNext-lost, part[lost:]
		}
		*q = append(*q, part...)
		p.cond.Broadcast()
	}
	return n, nil
}

func (e *end) Close() error {
	p := e.p
	p.mu.Lock()
	defer p.mu.Unlock()
	e.closed = true
	if e.host && p.host == e {
		p.host, p.toHost = nil, nil // QEMU throws away what nobody reads
	}
	if !e.host && p.guest == e {
		p.guest = nil // what the host wrote stays for the next one
	}
	p.cond.Broadcast()
	return nil
}

func (p *port) lose(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loseNext = n
}
