package devcloud

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Progress prints what is being done, what it took, and what it found.
type Progress struct {
	w     io.Writer
	color bool
	begin time.Time
	mu    sync.Mutex
}

// NewProgress writes to w; colour only on a terminal without NO_COLOR.
func NewProgress(w io.Writer) *Progress {
	p := &Progress{w: w, begin: time.Now()}
	if f, ok := w.(*os.File); ok && os.Getenv("NO_COLOR") == "" {
		if st, err := f.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			p.color = true
		}
	}
	return p
}

// Step runs fn and prints its name, then how long it took or why it failed. Detail
// lines that fn writes through the note function appear below it.
func (p *Progress) Step(name string, fn func(note func(format string, args ...any)) error) error {
	start := time.Now()
	p.line("  … %s", name)
	err := fn(func(format string, args ...any) { p.line("      "+format, args...) })
	took := time.Since(start).Round(10 * time.Millisecond)
	if err != nil {
		p.line("  %s %s (%s)", p.paint("31", "✗"), name, took)
		return fmt.Errorf("%s: %w", name, err)
	}
	p.line("  %s %s (%s)", p.paint("32", "✓"), name, took)
	return nil
}

// Say prints one line.
func (p *Progress) Say(format string, args ...any) { p.line(format, args...) }

// Title prints a heading.
func (p *Progress) Title(format string, args ...any) {
	p.line("\n%s", p.paint("1", fmt.Sprintf(format, args...)))
}

// Elapsed since the start.
func (p *Progress) Elapsed() time.Duration { return time.Since(p.begin) }

func (p *Progress) paint(code, s string) string {
	if !p.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p *Progress) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, format+"\n", args...)
}
