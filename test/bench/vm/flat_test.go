package vm

import (
	"database/sql"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store/sqlstore"
	"github.com/confidential-cloud/phala/api/store/storetest"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

// TestCostIsFlat counts what the database does for a request and for a round of
// metering, with few CVMs and with ten times as many: statements, rows that they
// return, blocks that they touch. It is the same.
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
		t.Skip("SKIPPED: this PostgreSQL does not count its statements: ", err)
	}
	a := costs(t, c, f, db.DB, 0, few, 0)
	b := costs(t, c, f, db.DB, few, many, asked+1) // what was deployed beside them counts too
	for name, x := range a {
		y := b[name]
		t.Logf("%-28s %4d CVMs: %s; %4d: %s", name, few, x, many, y)
		rows := x.rows + asked*(asked+1) // what was deployed is on the first pages, and at work
		if knowsAll := name == "all nodes" || name == deploying; knowsAll {
			rows += 2 * asked * nodes // one for each node that has CVMs: they are more now
		}
		if x.calls == 0 || y.calls > x.calls+asked || y.rows > rows {
			t.Errorf("%s: with %d CVMs %s, with %d %s", name, few, x, many, y)
		}
		// An index is a level deeper, here and there; of few CVMs a page reads a block or
		// two whole, of many it finds each.
		blocks := 2*x.blocks + 5*asked
		if strings.Contains(name, "page") {
			blocks += 4 * y.rows
		}
		if y.blocks > blocks {
			t.Errorf("%s: %d blocks with %d CVMs, %d with %d", name, x.blocks, few, y.blocks, many)
		}
	}
}

// deploying is the request that changes something.
const deploying = "provision and commit"

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
	count := func(name string, fn func(k int)) {
		fn(0) // connections are made, nodes were asked
		if _, err := db.ExecContext(t.Context(), `SELECT pg_stat_statements_reset()`); err != nil {
			t.Fatal(err)
		}
		for k := range asked {
			fn(k + 1)
		}
		out[name] = statements(t, db)
	}
	for _, r := range allReads() {
		count(r.name, func(k int) { i := n/2 + k; get(t, conn, r.path(n+more, i), r.want(n+more, i)) })
	}
	count(deploying, func(k int) { deployOne(t, conn, from+k) })
	st, err := sqlstore.Open(t.Context(), sqldb.Source{URL: c.DatabaseURL}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	count("a round of metering", func(int) {
		_, err := st.MeterDue(t.Context(), 100)
		if err == nil {
			_, err = st.CutDays(t.Context(), time.Now().Add(-time.Hour), 100)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
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
func statements(t *testing.T, db *sql.DB) (c cost) {
	t.Helper()
	rs, err := db.QueryContext(t.Context(), `SELECT calls, rows, shared_blks_hit + shared_blks_read FROM pg_stat_statements
		WHERE query NOT LIKE '%pg_stat_statements%' AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())`)
	if err != nil {
		t.Fatal(err)
	}
	defer rs.Close()
	for rs.Next() {
		var x cost
		if err := rs.Scan(&x.calls, &x.rows, &x.blocks); err != nil {
			t.Fatal(err)
		}
		c = cost{c.calls + x.calls, c.rows + x.rows, c.blocks + x.blocks}
	}
	if err := rs.Err(); err != nil {
		t.Fatal(err)
	}
	return c
}
