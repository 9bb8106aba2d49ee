package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// hypervisor is the processor time that the QEMU of the one machine below a directory has
// used, as it grew: beside other work on this machine it says more than the wall's clock.
type hypervisor struct {
	stop func()
	mu   sync.Mutex
	used []usage
}

type usage struct {
	at  time.Time
	cpu time.Duration
}

func watchHypervisor(machines string) *hypervisor {
	ended := make(chan struct{})
	h := &hypervisor{stop: sync.OnceFunc(func() { close(ended) })}
	go func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case at := <-tick.C:
				if cpu, ok := processorTime(machines); ok {
					h.mu.Lock()
					h.used = append(h.used, usage{at, cpu})
					h.mu.Unlock()
				}
			}
		}
	}()
	return h
}

// processorTime is what the hypervisor has used; false while there is none.
func processorTime(machines string) (time.Duration, bool) {
	files, _ := filepath.Glob(filepath.Join(machines, "*", "qemu.pid"))
	if len(files) != 1 {
		return 0, false
	}
	pid, err := os.ReadFile(files[0])
	if err != nil {
		return 0, false
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(string(pid)), "stat"))
	if err != nil {
		return 0, false
	}
	return parseStat(string(stat))
}

// parseStat reads the user's and the kernel's time of proc_pid_stat(5), which are in
// hundredths of a second. The second field, a name in parentheses, may hold anything.
func parseStat(stat string) (time.Duration, bool) {
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 13 {
		return 0, false
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, err1 == nil && err2 == nil
}

// by is what had been used at a time.
func (h *hypervisor) by(at time.Time) (cpu time.Duration) {
	for _, u := range h.used {
		if u.at.After(at) {
			break
		}
		cpu = u.cpu
	}
	return cpu
}

// table ends the watch.
func (h *hypervisor) table(line *timeline) string {
	h.stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	var out strings.Builder
	out.WriteString("| stage | processor s of the hypervisor |\n|---|---|\n")
	var before time.Duration
	for _, s := range line.stages {
		cpu := max(before, h.by(s.end))
		if cpu > before {
			fmt.Fprintf(&out, "| %s | %.1f |\n", s.name, (cpu - before).Seconds())
		}
		before = cpu
	}
	fmt.Fprintf(&out, "| all | %.1f |\n", before.Seconds())
	return out.String()
}

func TestHypervisor(t *testing.T) {
	if d, ok := parseStat("7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0"); !ok || d != 3*time.Second {
		t.Errorf("processor time %s %t", d, ok)
	}
	if _, ok := parseStat("7 (a) S 1"); ok {
		t.Error("a line that is cut off was read")
	}
	zero := time.Unix(1000, 0)
	h := &hypervisor{stop: func() {}, used: []usage{{zero, time.Second}, {zero.Add(time.Second), 3 * time.Second}}}
	l := begin(zero.Add(-time.Minute))
	l.until("before", zero.Add(-time.Second))
	l.until("one", zero.Add(500*time.Millisecond))
	l.until("two", zero.Add(time.Minute))
	if got := h.table(l); !strings.HasSuffix(got, "|\n| one | 1.0 |\n| two | 2.0 |\n| all | 3.0 |\n") {
		t.Errorf("%s", got)
	}
}
