package gateway

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/routes"
)

// streams counts and holds what is open, so that limits, cuts and the drain work.
type streams struct {
	max     int
	mu      sync.Mutex
	conns   map[net.Conn]net.Conn                  // every client connection, and what it is joined to
	byRoute map[*routes.Load]map[net.Conn]struct{} // the joined ones
	byApp   map[cvm.AppID]int
	empty   chan struct{} // closed when conns is empty, while draining
}

func newStreams(max int) *streams {
	return &streams{
		max: max, conns: map[net.Conn]net.Conn{}, byRoute: map[*routes.Load]map[net.Conn]struct{}{}, byApp: map[cvm.AppID]int{},
	}
}

func (s *streams) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// enter takes a slot for a client connection; false when all are taken.
func (s *streams) enter(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= s.max {
		return false
	}
	s.conns[c] = nil
	return true
}

func (s *streams) leave(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if len(s.conns) == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// reserve takes one of an app's slots; give returns it.
func (s *streams) reserve(app cvm.AppID, limit int) (give func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byApp[app] >= limit {
		return nil, false
	}
	s.byApp[app]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.byApp[app]--; s.byApp[app] == 0 {
			delete(s.byApp, app)
		}
	}, true
}

// join notes that c is joined to back over a route, until the returned function is
// called.
func (s *streams) join(l *routes.Load, c, back net.Conn) (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = back
	set := s.byRoute[l]
	if set == nil {
		set = map[net.Conn]struct{}{}
		s.byRoute[l] = set
	}
	set[c] = struct{}{}
	l.Streams.Add(1)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(set, c)
		if len(set) == 0 {
			delete(s.byRoute, l)
		}
		l.Streams.Add(-1)
	}
}

// cut closes every stream of a route.
func (s *streams) cut(l *routes.Load) {
	s.mu.Lock()
	var list []net.Conn
	for c := range s.byRoute[l] {
		list = append(list, c)
	}
	s.mu.Unlock()
	s.closeBoth(list)
}

// closeBoth closes both sides of streams: after a half-close, one side alone would
// leave the other waiting.
func (s *streams) closeBoth(list []net.Conn) {
	for _, c := range list {
		s.mu.Lock()
		back := s.conns[c]
		s.mu.Unlock()
		_ = c.Close()
		if back != nil {
			_ = back.Close()
		}
	}
}

// drain waits until every connection has ended, or ctx has; then it closes the rest.
func (s *streams) drain(ctx context.Context) {
	s.mu.Lock()
	if len(s.conns) == 0 {
		s.mu.Unlock()
		return
	}
	done := make(chan struct{})
	s.empty = done
	s.mu.Unlock()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	s.mu.Lock()
	list := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	s.closeBoth(list)
	<-done
}
