package vm

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The TSC is left only where the processor is emulated, no TEE is there, and nothing
// shows that it keeps time: here there is no real-time clock.
func TestSteadyClock(t *testing.T) {
	for _, c := range []struct{ name, cpuinfo, had, want string }{
		{"emulated", "model name\t: QEMU TCG CPU version 2.5+\nflags\t\t: fpu tsc\n", "tsc\n", "acpi_pm"},
		{"emulated without TSC", "model name\t: QEMU TCG CPU version 2.5+\nflags\t\t: fpu\n", "hpet\n", "hpet\n"},
		{"a real processor", "model name\t: Intel(R) Xeon(R)\nflags\t\t: fpu tsc\n", "tsc\n", "tsc\n"},
		{"a TD that its host calls emulated", "model name\t: QEMU TCG CPU version 2.5+\nflags\t\t: fpu tsc tdx_guest\n", "tsc\n", "tsc\n"},
	} {
		root := t.TempDir()
		for name, text := range map[string]string{"proc/cpuinfo": c.cpuinfo, clockSource: c.had} {
			if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := steadyClock(t.Context(), root, slog.New(slog.DiscardHandler)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got, err := os.ReadFile(filepath.Join(root, clockSource)); err != nil || string(got) != c.want {
			t.Errorf("%s: %q %v", c.name, got, err)
		}
	}
}

// world is a machine whose clock runs rate times as fast as time. Each reading and each
// pause takes longer than it should, as on a busy host.
type world struct {
	real        time.Duration
	rate        float64
	read, pause func(n int) time.Duration // real time that the nth reading takes; what comes on top of a pause
	reads       int
	stuck       bool
	fails       int // the reading that fails
}

func (w *world) comparison() comparison {
	const start = 1795276097*time.Second + 377*time.Millisecond
	return comparison{
		second: func() (int64, error) {
			w.reads++
			if w.reads == w.fails {
				return 0, io.ErrUnexpectedEOF
			}
			took := w.read(w.reads)
			w.real += took / 2
			s := int64((start + w.real) / time.Second)
			w.real += took - took/2
			if w.stuck {
				s = 7
			}
			return s, nil
		},
		now: func() time.Duration { return time.Duration(float64(w.real) * w.rate) },
		pause: func(ctx context.Context, d time.Duration) error {
			w.real += time.Duration(float64(d)/w.rate) + w.pause(w.reads)
			return ctx.Err()
		},
	}
}

func always(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }

// each nth takes long, the others short.
func each(nth int, long, short time.Duration) func(int) time.Duration {
	return func(n int) time.Duration {
		if n%nth == 0 {
			return long
		}
		return short
	}
}

func TestComparison(t *testing.T) {
	const ms = time.Millisecond
	idle, busy := always(200*time.Microsecond), each(3, 70*ms, 2*ms)
	for _, c := range []struct {
		name        string
		rate        float64
		read, pause func(int) time.Duration
		want        error
		within      time.Duration // of real time
	}{
		{"right, idle", 1, idle, idle, nil, 4 * time.Second},
		{"right, busy", 1, busy, busy, nil, 31 * time.Second},
		{"a little fast", 1.0005, idle, idle, nil, 4 * time.Second},
		{"seven times too fast", 7, idle, idle, errWrongRate, 4 * time.Second},
		{"seven times too fast, busy", 7, busy, busy, errWrongRate, 31 * time.Second},
		{"a tenth of its rate", 0.1, idle, idle, errWrongRate, 31 * time.Second},
		{"two in a hundred fast", 1.02, idle, idle, errWrongRate, 4 * time.Second},
		{"two in a hundred slow", 0.98, idle, idle, errWrongRate, 4 * time.Second},
		{"two in a hundred fast, busy", 1.02, busy, busy, errWrongRate, 31 * time.Second},
		{"too busy to tell", 1, always(700 * ms), idle, errNoAnswer, 33 * time.Second},
	} {
		w := &world{rate: c.rate, read: c.read, pause: c.pause}
		off, err := w.comparison().run(t.Context())
		if !errors.Is(err, c.want) || off > agreement || w.real > c.within {
			t.Errorf("%s: off by at most %g, %v, want %v; after %s and %d readings", c.name, off, err, c.want, w.real, w.reads)
		}
		t.Logf("%s: %s, %d readings", c.name, w.real.Round(ms), w.reads)
	}
	w := &world{rate: 1, read: idle, pause: idle, stuck: true}
	if _, err := w.comparison().run(t.Context()); !errors.Is(err, errNoAnswer) {
		t.Errorf("a real-time clock that stands still: %v", err)
	}
	for _, nth := range []int{1, 9} {
		w = &world{rate: 1, read: idle, pause: idle, fails: nth}
		if _, err := w.comparison().run(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("reading %d fails: %v", nth, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w = &world{rate: 1, read: idle, pause: idle}
	if _, err := w.comparison().run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a boot that has ended: %v", err)
	}
}
