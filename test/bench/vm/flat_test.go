package vm

import (
	"database/sql"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store/sqlstore"
	"github.com/confidential-cloud/phala/api/store/storetest"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

// TestCostIsFlat counts what the database does for a request, with few CVMs and with
// ten times as many: statements, rows that they return, blocks that they touch. It is
// the same where it is promised. Each statement must find its rows by an index on
// SQLite, too.
func TestCostIsFlat(t *testing.T) {
	pg := storetest.StartPostgres(t, "shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track_utility=off")
	const nodes, few, many = 100, 100, 1000
	f := newFleet(t)
	c := childConfig{Dir: t.TempDir(), DatabaseURL: pg.NewDatabase(t)}
	c.Token = filepath.Join(c.Dir, "token")
	if err := os.WriteFile(c.Token, []byte("token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		c.Nodes = append(c.Nodes, f.url(i))
	}
	db, err := sqldb.Open(t.Context(), sqldb.Source{URL: c.DatabaseURL})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.DB.ExecContext(t.Context(), `CREATE EXTENSION pg_stat_statements`); err != nil {
		t.Fatal(err)
	}
	a := costs(t, c, f, db.DB, 0, few, 0)
	b := costs(t, c, f, db.DB, few, many, asked+1)
	for name, x := range a {
		y := b[name]
		t.Logf("%-28s %4d CVMs: %s; %4d: %s", name, few, x, many, y)
		// What knows all nodes is read anew after a moment, and has a row for each that
		// has CVMs: they are more now.
		if x.calls == 0 || y.calls > x.calls+2*asked || y.rows > x.rows+asked*nodes {
			t.Errorf("%s: with %d CVMs %s, with %d %s", name, few, x, many, y)
		}
		// An index is a level deeper, here and there. A search reads an index through, a
		// balance sums what stands open.
		if grows := strings.Contains(name, "search") || strings.Contains(name, "balance"); !grows && y.blocks > x.blocks*3/2+20 {
			t.Errorf("%s: %d blocks with %d CVMs, %d with %d", name, x.blocks, few, y.blocks, many)
		}
	}
}

// cost is what the database did for some requests of a kind.
type cost struct{ calls, rows, blocks int64 }

func (c cost) String() string {
	return fmt.Sprintf("%d statements, %d rows, %d blocks", c.calls, c.rows, c.blocks)
}

// asked is how often each thing is asked for while it is counted.
const asked = 3

// costs seeds, and asks everything of an API that does nothing by itself. more is how
// many CVMs there are that were not seeded.
func costs(t *testing.T, c childConfig, f *fleet, db *sql.DB, from, n, more int) map[string]cost {
	t.Helper()
	seed(t, c, f, from, n)
	s, err := api.New(apiConfig(c))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	key, err := s.NewAdminKey(t.Context(), "bench")
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	conn := cloudAPI{Client: &cloudapi.Client{Base: srv.URL + cloudapi.Prefix, Key: key}}
	me, err := conn.Me(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.slug = *me.Workspace.Slug
	out := map[string]cost{}
	var texts []string
	count := func(name string, fn func(k int)) {
		fn(0) // connections are made, nodes were asked
		if _, err := db.ExecContext(t.Context(), `SELECT pg_stat_statements_reset()`); err != nil {
			t.Fatal(err)
		}
		for k := range asked {
			fn(k + 1)
		}
		var x cost
		x, texts = statements(t, db, texts)
		out[name] = x
	}
	for _, r := range allReads() {
		count(r.name, func(k int) { i := n/2 + k; get(t, conn, r.path(n+more, i), r.want(n+more, i)) })
	}
	count("provision and commit", func(k int) { deployOne(t, conn, from+k) })
	bySearch(t, texts)
	return out
}

// deployOne makes a CVM; its job is for nobody.
func deployOne(t *testing.T, c cloudAPI, k int) {
	t.Helper()
	p, err := c.Provision(t.Context(), cloudapi.ProvisionRequest{Name: fmt.Sprintf("flat-%d", k), InstanceType: "tdx.small", DiskSize: 20,
		ComposeFile: map[string]any{"docker_compose_file": fmt.Sprintf("services:\n  web:\n    image: nginx:1.27\n    environment:\n      - N=%d\n", k)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Commit(t.Context(), cloudapi.CommitRequest{AppID: *p.AppID, ComposeHash: p.ComposeHash}); err != nil {
		t.Fatal(err)
	}
}

// statements reads what was done since the reset, without the reading itself.
func statements(t *testing.T, db *sql.DB, texts []string) (c cost, all []string) {
	t.Helper()
	rs, err := db.QueryContext(t.Context(), `SELECT query, calls, rows, shared_blks_hit + shared_blks_read FROM pg_stat_statements
		WHERE query NOT LIKE '%pg_stat_statements%' AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())`)
	if err != nil {
		t.Fatal(err)
	}
	defer rs.Close()
	for rs.Next() {
		var q string
		var x cost
		if err := rs.Scan(&q, &x.calls, &x.rows, &x.blocks); err != nil {
			t.Fatal(err)
		}
		c = cost{c.calls + x.calls, c.rows + x.rows, c.blocks + x.blocks}
		texts = append(texts, q)
	}
	if err := rs.Err(); err != nil {
		t.Fatal(err)
	}
	return c, texts
}

// small tables may be read as they are; what is PostgreSQL's or the queue's own is
// not ours to plan.
var (
	scanned = regexp.MustCompile(`^SCAN (\w+)$`)
	foreign = regexp.MustCompile(`pg_|river|extract\(|FOR UPDATE`)
	small   = regexp.MustCompile(`^(nodes|node_\w+|reservations|price_lists|webhooks|accounts|CONSTANT)$`)
	// Constants were made parameters, and partial indexes want some of them.
	live  = regexp.MustCompile(`(deleted_at|finished_at) = \$\d+`)
	open  = regexp.MustCompile(`running = \$\d+`)
	param = regexp.MustCompile(`\$\d+`)
)

// bySearch asks SQLite how it would run the statements.
func bySearch(t *testing.T, texts []string) {
	t.Helper()
	src := sqldb.Source{Path: filepath.Join(t.TempDir(), "x.db")}
	st, err := sqlstore.Open(t.Context(), src, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	planned := 0
	for _, q := range texts {
		word, _, _ := strings.Cut(strings.TrimSpace(q), " ")
		if foreign.MatchString(q) || word != "SELECT" && word != "UPDATE" && word != "DELETE" {
			continue
		}
		plain := param.ReplaceAllString(open.ReplaceAllString(live.ReplaceAllString(q, "$1 = 0"), "running = 1"), "NULL")
		planned++
		for _, step := range plan(t, st.Handle().DB, plain) {
			if m := scanned.FindStringSubmatch(step); m != nil && !small.MatchString(m[1]) {
				t.Errorf("%s: %s", step, q)
			}
		}
	}
	if planned < 20 {
		t.Errorf("only %d statements were looked at", planned)
	}
}

// plan is how SQLite would run a statement.
func plan(t *testing.T, db *sql.DB, q string) (steps []string) {
	t.Helper()
	rs, err := db.QueryContext(t.Context(), `EXPLAIN QUERY PLAN `+q)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	defer rs.Close()
	for rs.Next() {
		var id, parent, unused int
		var detail string
		if err := rs.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, detail)
	}
	if err := rs.Err(); err != nil {
		t.Fatal(err)
	}
	return steps
}
