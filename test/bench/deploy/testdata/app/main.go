// Command app is what the bench deploys: it answers at once, and tells what the memory
// of the machine that it runs on is used for.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// memory is GET /memory: /proc/meminfo, and the resident memory of every process that
// can be seen (Pss: shared pages are divided among their users), in KiB.
type memory struct {
	Meminfo   map[string]int64 `json:"meminfo"`
	Processes []process        `json:"processes"`
	Slabs     string           `json:"slabs"`
	Vmalloc   string           `json:"vmalloc"`
	Zones     string           `json:"zones"`
	Stat      string           `json:"stat"`
}

type process struct {
	Name string `json:"name"`
	Pss  int64  `json:"pss"`
	Anon int64  `json:"anon"` // what no file stands behind
	// Processor time, and that of its children that have ended, in hundredths of a second.
	CPU      int64 `json:"cpu"`
	Children int64 `json:"children"`
}

func main() {
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	http.HandleFunc("GET /memory", func(w http.ResponseWriter, _ *http.Request) {
		m := memory{Meminfo: fields("/proc/meminfo")}
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, d := range dirs {
			f := fields(filepath.Join(d, "smaps_rollup"))
			p := process{Pss: f["Pss"], Anon: f["Pss_Anon"]}
			name, _ := os.ReadFile(filepath.Join(d, "comm"))
			p.Name = strings.TrimSpace(string(name))
			p.CPU, p.Children = processor(filepath.Join(d, "stat"))
			if p.Pss > 0 || p.CPU+p.Children > 0 {
				m.Processes = append(m.Processes, p)
			}
		}
		for into, name := range map[*string]string{&m.Slabs: "slabinfo", &m.Vmalloc: "vmallocinfo", &m.Zones: "zoneinfo", &m.Stat: "stat"} {
			b, _ := os.ReadFile("/proc/" + name)
			*into = string(b)
		}
		_ = json.NewEncoder(w).Encode(m)
	})
	log.Fatal(http.ListenAndServe(":8000", nil)) //nolint:gosec // a program of the bench
}

// processor reads user's and kernel's time of proc_pid_stat(5).
func processor(path string) (own, children int64) {
	b, _ := os.ReadFile(path)
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 15 {
		return 0, 0
	}
	n := func(i int) int64 { v, _ := strconv.ParseInt(f[i], 10, 64); return v }
	return n(11) + n(12), n(13) + n(14)
}

// fields reads "Name: 123 kB" lines.
func fields(path string) map[string]int64 {
	out := map[string]int64{}
	b, _ := os.ReadFile(path)
	for _, line := range bytes.Split(b, []byte("\n")) {
		if k, v, ok := strings.Cut(string(line), ":"); ok {
			if n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(v, "kB")), 10, 64); err == nil {
				out[k] = n
			}
		}
	}
	return out
}
