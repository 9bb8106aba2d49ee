package cli

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// steps shows what happens, with times, on stderr: on a terminal the running step
// turns; elsewhere each step is a line when it ends (and when it has news).
type steps struct {
	a     *app
	mu    sync.Mutex
	name  string
	note  string
	since time.Time
	quit  chan struct{}
	done  chan struct{}
}

func (a *app) steps() *steps { return &steps{a: a} }

// start begins a step, ending a running one as done.
func (s *steps) start(format string, args ...any) {
	s.ok("")
	s.mu.Lock()
	s.name, s.note, s.since = fmt.Sprintf(format, args...), "", s.a.Now()
	s.mu.Unlock()
	if s.a.TTY {
		s.quit, s.done = make(chan struct{}), make(chan struct{})
		go s.turn(s.quit, s.done)
	}
}

// news tells how a running step is going.
func (s *steps) news(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.mu.Lock()
	same := s.note == text
	s.note = text
	name, took := s.name, s.took()
	s.mu.Unlock()
	switch {
	case same:
	case name == "": // no turning line to show it on
		s.a.say("  %s", text)
	case !s.a.TTY:
		s.a.say("  %s: %s (%s)", name, text, took)
	}
}

// ok ends a running step; text replaces its name when given.
func (s *steps) ok(text string) { s.end(s.a.good, text) }

// fail ends a running step that did not work.
func (s *steps) fail() { s.end(s.a.bad, "") }

// drop ends a running step without a verdict: the verdict is printed elsewhere.
func (s *steps) drop() { s.end(nil, "") }

func (s *steps) end(mark func(string) string, text string) {
	s.mu.Lock()
	name, took := s.name, s.took()
	s.name = ""
	s.mu.Unlock()
	if name == "" {
		return
	}
	if s.quit != nil {
		close(s.quit)
		<-s.done
		s.quit = nil
	}
	if mark == nil {
		return
	}
	if text == "" {
		text = name
	}
	s.a.say("%s  %s", mark(text), s.a.paint("2", took))
}

func (s *steps) took() string {
	return fmt.Sprintf("%.1fs", s.a.Now().Sub(s.since).Seconds())
}

// oneLine keeps a turning line on one line: what wraps is not cleared.
func oneLine(line, took string, width int) string {
	line = strings.ReplaceAll(line, "\n", " ")
	room := width - len(took) - 5 // the turning sign, two gaps, the cursor
	if r := []rune(line); width > 0 && len(r) > room {
		line = string(r[:max(room-1, 0)]) + "…"
	}
	return line + "  " + took
}

func (s *steps) turn(quit, done chan struct{}) {
	defer close(done)
	t := time.NewTicker(120 * time.Millisecond)
	defer t.Stop()
	for i := 0; ; i++ {
		s.mu.Lock()
		line := s.name
		if s.note != "" {
			line += ": " + s.note
		}
		took := s.took()
		s.mu.Unlock()
		fmt.Fprintf(s.a.Stderr, "\r\x1b[K%s %s", string([]rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")[i%10]), oneLine(line, took, s.a.columns(s.a.Stderr)))
		select {
		case <-quit:
			fmt.Fprint(s.a.Stderr, "\r\x1b[K")
			return
		case <-t.C:
		}
	}
}
