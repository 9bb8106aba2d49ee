package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// memory is what the app of the bench says at /memory, in KiB.
type memory struct {
	Meminfo   map[string]int64 `json:"meminfo"`
	Processes []struct {
		Name     string `json:"name"`
		Pss      int64  `json:"pss"`
		Anon     int64  `json:"anon"`
		CPU      int64  `json:"cpu"`
		Children int64  `json:"children"`
	} `json:"processes"`
	Slabs   string `json:"slabs"`
	Vmalloc string `json:"vmalloc"`
	Zones   string `json:"zones"`
	Stat    string `json:"stat"`
}

func (b *cloud) memory(vm vmmapi.VM) (m memory) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	body, err := get(ctx, b.http, appURL(b, vm.Spec.AppID.String())+"memory")
	if err == nil {
		err = json.Unmarshal(body, &m)
	}
	if err != nil || len(m.Processes) == 0 {
		b.t.Fatalf("memory of the guest: %v, %d processes", err, len(m.Processes))
	}
	return m
}

// processes is a table of who holds how much, of programs by their name.
func (m memory) processes() string {
	type row struct {
		name          string
		n             int
		pss, anon     int64
		cpu, children int64
	}
	var rows []row
	for _, p := range m.Processes {
		i := slices.IndexFunc(rows, func(r row) bool { return r.name == p.Name })
		if i < 0 {
			rows, i = append(rows, row{name: p.Name}), len(rows)
		}
		rows[i].n, rows[i].pss, rows[i].anon = rows[i].n+1, rows[i].pss+p.Pss, rows[i].anon+p.Anon
		rows[i].cpu, rows[i].children = rows[i].cpu+p.CPU, rows[i].children+p.Children
	}
	slices.SortFunc(rows, func(a, b row) int { return int(b.anon - a.anon) })
	var out strings.Builder
	out.WriteString("| program in the guest | processes | resident MiB (Pss) | of it in no file | processor s | of children that ended |\n|---|---|---|---|---|---|\n")
	all := row{name: "all"}
	for _, r := range rows {
		all.n, all.pss, all.anon, all.cpu = all.n+r.n, all.pss+r.pss, all.anon+r.anon, all.cpu+r.cpu
		if r.pss == 0 && r.cpu < 100 {
			continue // a thread of the kernel's that did nothing
		}
		fmt.Fprintf(&out, "| %s | %d | %s | %s | %s | %s |\n", r.name, r.n, mib(r.pss), mib(r.anon), seconds(r.cpu), seconds(r.children))
	}
	fmt.Fprintf(&out, "| all | %d | %s | %s | %s | |\n", all.n, mib(all.pss), mib(all.anon), seconds(all.cpu))
	return out.String()
}

func mib(kib int64) string { return fmt.Sprintf("%.1f", float64(kib)/1024) }

// seconds are those of hundredths.
func seconds(hundredths int64) string { return fmt.Sprintf("%.1f", float64(hundredths)/100) }
