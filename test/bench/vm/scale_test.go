package vm

import (
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/store/storetest"
)

// What the cloud API promises with 10,000 nodes, 100,000 CVMs and 1,000 deploys at once.
const (
	maxMemory = 500 // MiB, resident, of the API's process
	maxRead   = 100 * time.Millisecond
)

// TestScaleSQLite is the cloud API with many nodes and CVMs on the embedded database.
func TestScaleSQLite(t *testing.T) { scale(t, "api-sqlite", func() string { return "" }) }

// TestScalePostgres is the same on PostgreSQL.
func TestScalePostgres(t *testing.T) {
	scale(t, "api-postgres", func() string { return storetest.StartPostgres(t).NewDatabase(t) })
}

// level is what was seen with a number of CVMs.
type level struct {
	cvms            int
	seeded, up, lap time.Duration
	rest            float64 // processor, of a core
	memory          float64 // MiB
	reads           []spread
	work            []time.Duration // the API's processor time of all of them
}

func scale(t *testing.T, name string, database func() string) {
	t.Helper()
	begin := time.Now()
	f := newFleet(t)
	dir := t.TempDir()
	c := childConfig{Dir: filepath.Join(dir, "api"), DatabaseURL: database(), Token: filepath.Join(dir, "token")}
	if err := os.Mkdir(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	vmms := dryNodes(t, dir, c.Token, *deploys)
	for i := range *nodes {
		c.Nodes = append(c.Nodes, f.url(i))
	}
	for _, v := range vmms {
		c.Nodes = append(c.Nodes, v.url)
	}
	var levels []level
	var api cloudAPI
	seededTo := 0
	for _, n := range []int{*cvms / 10, *cvms} {
		l := level{cvms: n}
		from := time.Now()
		seed(t, c, f, seededTo, n)
		seededTo, l.seeded, from = n, time.Since(from), time.Now()
		api = startAPI(t, c)
		me, err := api.Me(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		api.slug = *me.Workspace.Slug
		l.up = time.Since(from)
		l.atRest(t, api, f)
		l.measureReads(t, api)
		levels = append(levels, l)
		if n != *cvms {
			api.stop()
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%d nodes of which %d are real VMMs (driver `dry`).\n\n", len(c.Nodes), len(vmms))
	restTable(&out, levels)
	readTable(&out, levels)
	t.Log("\n" + out.String()) // also if the deploys take too long
	made := deployAll(t, api, vmms, &out)
	checkDeploys(t, api, vmms, made)
	peak := peakRSS(api.pid)
	fmt.Fprintf(&out, "\nEvery one of them runs, was started once, and is on one node; the API's memory was never above %.0f MiB. The whole run took %.0f s.\n", peak, time.Since(begin).Seconds())
	if peak > maxMemory {
		t.Errorf("the API took %.0f MiB, at most %d are promised", peak, maxMemory)
	}
	publish(t, name, out.String())
}

// atRest measures what the API does with nobody asking: a whole round over the nodes.
func (l *level) atRest(t *testing.T, api cloudAPI, f *fleet) {
	t.Helper()
	waitAsked(t, f, int64(*nodes))
	asked, before, from := f.asked.Load(), cpu(api.pid), time.Now()
	waitAsked(t, f, int64(*nodes))
	took := time.Since(from)
	l.lap = time.Duration(float64(took) * float64(*nodes) / float64(f.asked.Load()-asked))
	l.rest, l.memory = ratio(cpu(api.pid)-before, took), rss(api.pid)
}

func restTable(out *strings.Builder, levels []level) {
	fmt.Fprint(out, "| CVMs | start | node asked every | API at rest: processor | memory |\n|---|---|---|---|---|\n")
	for _, l := range levels {
		fmt.Fprintf(out, "| %d | %.1f s | %.1f s | %.0f %% of a core | %.0f MiB |\n", l.cvms, l.up.Seconds(), l.lap.Seconds(), 100*l.rest, l.memory)
	}
}

// read is something that clients ask, and what the answer must hold. n is how many
// CVMs there are, i one of them.
type read struct {
	name string
	path func(n, i int) string
	want func(n, i int) string
}

// text is a want that is the same for all.
func text(format string, of func(n, i int) any) func(n, i int) string {
	return func(n, i int) string { return fmt.Sprintf(format, of(n, i)) }
}

func theTotal(n, _ int) any { return n }
func theUUID(_, i int) any  { return seededUUID(i) }
func theApp(_, i int) any   { return seededApp(i) }

func allReads() []read {
	path := func(format string, of func(n, i int) any) func(n, i int) string { return text(format, of) }
	fixed := func(p string) func(n, i int) string { return func(int, int) string { return p } }
	return []read{
		{"first page of 30 CVMs", fixed("/cvms/paginated?page=1&page_size=30"), text(`"total":%d`, theTotal)},
		{"any page of 100 CVMs", func(n, i int) string { return fmt.Sprintf("/cvms/paginated?page=%d&page_size=100", (n-1-i)/100+1) }, text(`"vm_uuid":"%s"`, theUUID)},
		{"a CVM by id", path("/cvms/%s", theUUID), text(`"vm_uuid":"%s"`, theUUID)},
		{"a CVM by name", path("/cvms/%s", func(_, i int) any { return seededName(i) }), text(`"vm_uuid":"%s"`, theUUID)},
		{"a CVM's state", path("/cvms/%s/state", theUUID), text(`"id":"%s"`, theUUID)},
		{"a CVM's events", path("/cvms/%s/events", theUUID), func(int, int) string { return "boot.progress" }},
		{"first page of 30 apps", fixed("/apps?page=1&page_size=30"), text(`"total":%d`, theTotal)},
		{"apps by a search", path("/apps?page=1&page_size=30&search=%s", func(_, i int) any { return seededName(i) }), text(`"name":"%s`, func(_, i int) any { return seededName(i) })}, // it or newer ones
		{"an app", path("/apps/%s", theApp), text(`"vm_uuid":"%s"`, theUUID)},
		{"an app's revisions", path("/apps/%s/revisions", theApp), text(`"vm_uuid":"%s"`, theUUID)},
		{"who am I, with the balance", fixed("/auth/me"), func(int, int) string { return `"username":"admin"` }},
		{"the workspace's quotas", fixed("/workspaces/{slug}/quotas"), func(int, int) string { return `"vm_slots"` }},
		{"would a node take it", fixed("/nodes/1/explain?instance_type=tdx.small"), func(int, int) string { return `"node_id":1` }},
		{"all nodes", fixed("/teepods/available"), func(int, int) string { return `"teepod_id":1` }},
	}
}

// measureReads asks what clients ask, in turn, while the API does its other work.
// CVMs and pages are others each time: what was asked just before helps little.
func (l *level) measureReads(t *testing.T, api cloudAPI) {
	t.Helper()
	all := allReads()
	l.reads, l.work = make([]spread, len(all)), make([]time.Duration, len(all))
	rnd := rand.New(rand.NewPCG(1, uint64(l.cvms))) //nolint:gosec // which CVMs are asked for
	for range *reads {
		for k, r := range all {
			i := rnd.IntN(l.cvms)
			before := cpu(api.pid)
			l.reads[k].time(func() { get(t, api, r.path(l.cvms, i), r.want(l.cvms, i)) })
			l.work[k] += cpu(api.pid) - before
		}
	}
}

func readTable(out *strings.Builder, levels []level) {
	few, many := levels[0], levels[1]
	fmt.Fprintf(out, "\n| read, other CVMs each time | p50 ms with %d | p50 ms with %d CVMs | p95 ms | most | processor ms |\n|---|---|---|---|---|---|\n", few.cvms, many.cvms)
	var over []string
	for k, r := range allReads() {
		work := many.work[k] / time.Duration(max(len(many.reads[k]), 1))
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", r.name, millis(few.reads[k].at(0.5)), many.reads[k].cells(), millis(work))
		if many.reads[k].at(0.95) > maxRead {
			over = append(over, r.name)
		}
	}
	fmt.Fprintf(out, "\nAbove %d ms at p95: %s.\n", maxRead.Milliseconds(), cmp.Or(strings.Join(over, ", "), "none"))
}

// waitAsked waits until the fleet was asked n times more.
func waitAsked(t *testing.T, f *fleet, n int64) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for until := f.asked.Load() + n; f.asked.Load() < until; {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("the API does not ask its nodes")
		}
	}
}

func get(t *testing.T, api cloudAPI, path, want string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api.Base+strings.ReplaceAll(path, "{slug}", api.slug), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", api.Key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s %.300s %v", path, res.Status, b, err)
	}
	if !strings.Contains(string(b), want) {
		t.Errorf("GET %s: no %s in %.300s", path, want, b)
	}
}
