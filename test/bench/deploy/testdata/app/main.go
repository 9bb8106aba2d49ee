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
}

type process struct {
	Name string `json:"name"`
	Pss  int64  `json:"pss"`
	Anon int64  `json:"anon"` // what no file stands behind
}

func main() {
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	http.HandleFunc("GET /memory", func(w http.ResponseWriter, _ *http.Request) {
		m := memory{Meminfo: fields("/proc/meminfo")}
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, d := range dirs {
			if f := fields(filepath.Join(d, "smaps_rollup")); f["Pss"] > 0 {
				name, _ := os.ReadFile(filepath.Join(d, "comm"))
				m.Processes = append(m.Processes, process{strings.TrimSpace(string(name)), f["Pss"], f["Pss_Anon"]})
			}
		}
		for into, name := range map[*string]string{&m.Slabs: "slabinfo", &m.Vmalloc: "vmallocinfo", &m.Zones: "zoneinfo"} {
			b, _ := os.ReadFile("/proc/" + name)
			*into = string(b)
		}
		_ = json.NewEncoder(w).Encode(m)
	})
	log.Fatal(http.ListenAndServe(":8000", nil)) //nolint:gosec // a program of the bench
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
