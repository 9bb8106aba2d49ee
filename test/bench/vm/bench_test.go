package vm

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/test/bench/report"
)

var (
	write   = flag.String("write", "", "write the tables between their markers in this file")
	vms     = flag.Int("vms", 20, "VMs of the dry node; 1000 for a table to publish")
	nodes   = flag.Int("nodes", 100, "nodes of the API; 10000 for a table to publish")
	cvms    = flag.Int("cvms", 1000, "CVMs of the API; 100000 for a table to publish")
	deploys = flag.Int("deploys", 40, "deploys at once; 1000 for a table to publish")
	reads   = flag.Int("reads", 5, "rounds of reads; 40 for a table to publish")
)

func TestMain(m *testing.M) {
	if c := os.Getenv(envChild); c != "" {
		if err := serveAPI(c); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// publish logs a table and, with -write, puts it between the markers of its name.
func publish(t *testing.T, name, text string) {
	t.Helper()
	hardware, load := report.Machine()
	text = fmt.Sprintf("%s shared with other work, %s, load at the end %s.\n\n%s", hardware, runtime.Version(), load, text)
	t.Log("\n" + text)
	report.Splice(t, *write, "vm:"+name, text)
}

// spread collects the durations of one operation.
type spread []time.Duration

func (s *spread) time(fn func()) {
	begin := time.Now()
	fn()
	*s = append(*s, time.Since(begin))
}

func (s spread) at(p float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	d := slices.Sorted(slices.Values(s))
	return d[int(p*float64(len(d)-1))]
}

// cells is p50 | p95 | most, in ms.
func (s spread) cells() string {
	return fmt.Sprintf("%s | %s | %s", millis(s.at(0.5)), millis(s.at(0.95)), millis(s.at(1)))
}

func millis(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 1, 64)
}

// rss is the resident memory of a process in MiB, peakRSS the most that it was.
func rss(pid int) float64     { return memory(pid, "VmRSS:") }
func peakRSS(pid int) float64 { return memory(pid, "VmHWM:") }

func memory(pid int, what string) float64 {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == what {
			kib, _ := strconv.ParseFloat(f[1], 64)
			return kib / 1024
		}
	}
	return 0
}

// cpu is the processor time of a process.
func cpu(pid int) time.Duration {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	sys, _ := strconv.Atoi(f[12])
	return time.Duration(user+sys) * 10 * time.Millisecond // ticks of 1/100 s
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
