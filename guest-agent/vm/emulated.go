package vm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/internal/run"
)

const clockSource = "sys/devices/system/clocksource/clocksource0/current_clocksource"

// CheckClock sees to it that an emulated machine keeps time. Such a machine's kernel
// measures how fast its TSC runs by loops that a busy host interrupts; it may find it many
// times too slow, and time then runs as many times too fast, and leases with it. So the
// clock is compared with the real-time clock, whose seconds are the host's, in the
// background: what agrees stays, because nothing is as cheap to read; otherwise the
// ACPI timer, whose frequency is known, takes over and the time is set anew.
//
// Until settled returns, no duration and no time counts. Elsewhere it returns at once:
// a machine with a TEE has no other clock that the host does not hold.
func CheckClock(ctx context.Context, log *slog.Logger) (settled func(context.Context) error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := steadyClock(ctx, "/", log); err != nil {
			log.Warn("time of an emulated processor", "err", err)
		}
	}()
	return func(ctx context.Context) error {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func steadyClock(ctx context.Context, root string, log *slog.Logger) error {
	cpu, err := os.ReadFile(filepath.Join(root, "proc/cpuinfo"))
	if err != nil || Hardware(root) != "" || !strings.Contains(string(cpu), "QEMU TCG CPU") {
		return err
	}
	source := filepath.Join(root, clockSource)
	now, err := os.ReadFile(source)
	if err != nil || strings.TrimSpace(string(now)) != "tsc" {
		return err // one whose frequency need not be measured
	}
	rtc, err := openRTC(filepath.Join(root, "dev/rtc0"))
	if err == nil {
		defer rtc.Close() //nolint:errcheck // only read
		c := comparison{second: rtc.second, now: monotonic, pause: run.Pause}
		var off float64
		if off, err = c.run(ctx); err == nil {
			log.Info("emulated processor: the TSC agrees with the real-time clock", "off_by_at_most", off)
			return nil
		}
	}
	log.Info("emulated processor: time by the ACPI timer", "because", err)
	if err := os.WriteFile(source, []byte("acpi_pm"), 0o644); err != nil { //nolint:gosec // the kernel's file
		return fmt.Errorf("clock of an emulated processor: %w", err)
	}
	if rtc == nil {
		return nil // the time is off by what it gained during the boot
	}
	t, err := rtc.second()
	if err != nil {
		return err
	}
	log.Info("emulated processor: time set", "was_off_by", time.Since(time.Unix(t, 0)).Round(time.Second))
	return unix.Settimeofday(&unix.Timeval{Sec: t})
}

// What a comparison takes.
const (
	// agreement is how far a clock may be off: what a kernel measures is right to a
	// ten-thousandth, or wrong altogether.
	agreement = 0.01
	// comparable bounds a comparison, in seconds of the real-time clock; two or three are
	// enough, on a busy host a few more.
	comparable = 30
	readings   = 20000
	nearly     = 2 * time.Millisecond   // between readings while a second is about to begin
	sparing    = 930 * time.Millisecond // without readings after one began
)

var (
	errWrongRate = errors.New("the TSC's frequency was measured wrongly")
	errNoAnswer  = errors.New("the TSC could not be compared with the real-time clock")
)

// comparison is one of a clock with the seconds of another.
type comparison struct {
	second func() (int64, error) // of the clock that is right
	now    func() time.Duration  // the clock in question
	pause  func(context.Context, time.Duration) error
}

// turn is the begin of a second: by the clock in question, it was between from and to.
type turn struct {
	second   int64
	from, to time.Duration
}

// run returns how far the clock is off at most, errWrongRate, or errNoAnswer where it
// cannot be told. A reading that takes long makes the answer late, never wrong: a
// turn lies between the begin of the last reading before it and the end of the first
// after it.
func (c comparison) run(ctx context.Context) (off float64, err error) {
	var turns []turn
	from := c.now()
	before, err := c.second()
	if err != nil {
		return 0, err
	}
	first := before
	for range readings {
		began := c.now()
		s, err := c.second()
		if err != nil {
			return 0, err
		}
		wait := nearly
		if s != before {
			latest := turn{s, from, c.now()}
			for _, t := range turns {
				if off, decided, err := t.rate(latest); decided {
					return off, err
				}
			}
			turns, wait = append(turns, latest), sparing
		}
		if s < before || s-first > comparable {
			return 0, errNoAnswer
		}
		before, from = s, began
		if err := c.pause(ctx, wait); err != nil {
			return 0, err
		}
	}
	return 0, errNoAnswer
}

// rate compares the two clocks between two turns.
func (t turn) rate(later turn) (off float64, decided bool, err error) {
	right := float64(later.second-t.second) * float64(time.Second)
	least, most := float64(later.from-t.to)/right-1, float64(later.to-t.from)/right-1
	switch {
	case least > agreement || most < -agreement:
		return 0, true, errWrongRate
	case least > -agreement && most < agreement:
		return max(-least, most), true, nil
	}
	return 0, false, nil
}

func monotonic() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail
	return time.Duration(t.Nano())
}

// rtc is the machine's real-time clock.
type rtc struct{ *os.File }

func openRTC(path string) (*rtc, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &rtc{f}, nil
}

// second is the Unix time.
func (r *rtc) second() (int64, error) {
	t, err := unix.IoctlGetRTCTime(int(r.Fd()))
	if err != nil {
		return 0, fmt.Errorf("real-time clock: %w", err)
	}
	return time.Date(int(t.Year)+1900, time.Month(t.Mon+1), int(t.Mday), int(t.Hour), int(t.Min), int(t.Sec), 0, time.UTC).Unix(), nil
}
