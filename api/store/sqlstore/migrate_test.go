package sqlstore

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/confidential-cloud/phala/api/billing"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/api/store/storetest"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

// Every schema that was released becomes the present one, with what was stored.
func TestMigrateFromEverySchema(t *testing.T) {
	everySchema(t, func(t *testing.T) sqldb.Source { return sqldb.Source{Path: filepath.Join(t.TempDir(), "x.db")} })
}

func TestMigrateFromEverySchemaPostgres(t *testing.T) {
	pg := storetest.StartPostgres(t)
	everySchema(t, func(t *testing.T) sqldb.Source { return sqldb.Source{URL: pg.NewDatabase(t)} })
}

func everySchema(t *testing.T, source func(*testing.T) sqldb.Source) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil || len(files) < 9 {
		t.Fatal(files, err)
	}
	for n := 1; n <= len(files); n++ {
		t.Run(filepath.Base(files[n-1]), func(t *testing.T) {
			src := source(t)
			old := fstest.MapFS{}
			for _, f := range files[:n] {
				b, err := migrations.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				old[filepath.Base(f)] = &fstest.MapFile{Data: b}
			}
			writeOld(t, src, old)
			st, err := Open(t.Context(), src, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			readNew(t, st)
		})
	}
}

// writeOld stores, with the words of the first schema, a node with three CVMs of two
// apps: one runs, one is stopped, one was deleted.
func writeOld(t *testing.T, src sqldb.Source, old fs.FS) {
	t.Helper()
	ctx := t.Context()
	db, err := sqldb.Open(ctx, src)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := sqldb.Migrate(ctx, db, old); err != nil {
		t.Fatal(err)
	}
	exec := func(q string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(ctx, q, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO workspaces (id, name, slug, created_at) VALUES (7, 'w', 'w', 1)`)
	exec(`INSERT INTO users (id, workspace_id, username, email, role, created_at) VALUES (7, 7, 'u', '', 'admin', 1)`)
	exec(`INSERT INTO nodes (id, url, created_at) VALUES (7, 'http://n', 1)`)
	for i, c := range []struct {
		status  string
		deleted int
	}{{"running", 0}, {"stopped", 0}, {"deleted", 5}} {
		exec(`INSERT INTO cvms (id, workspace_id, user_id, uuid, name, app_id, node_id, status, generation, created_at, updated_at, deleted_at, body) VALUES (?, 7, 7, ?, ?, ?, 7, ?, 1, 1, 1, ?, ?)`,
			i+1, fmt.Sprintf("00000000-0000-4000-8000-%012d", i), fmt.Sprintf("name-%d", i), fmt.Sprintf("a%d", i), c.status, c.deleted,
			`{"vcpu": 2, "memory_mib": 2048, "disk_gb": 20, "app_compose": "e30=", "compose_hash": "h"}`)
	}
	if _, err := fs.Stat(old, "090_held.sql"); err == nil { // from here on programs keep the sums
		exec(`INSERT INTO node_rooms (node_id, vcpu, memory_mib, disk_gb) VALUES (7, 2, 2048, 40)`)
		exec(`INSERT INTO workspace_sums (workspace_id, cvms, apps, vcpu, memory_mib, disk_gb) VALUES (7, 2, 2, 4, 4096, 40)`)
	}
	if _, err := fs.Stat(old, "100_flat.sql"); err == nil { // and what names are found by
		for _, g := range []string{"nam", "ame", "me-", "e-0", "e-1"} {
			exec(`INSERT INTO name_grams (workspace_id, gram, cvm_id) SELECT 7, ?, id FROM cvms WHERE deleted_at = 0 AND name LIKE ?`, g, "%"+g+"%")
		}
	}
}

func readNew(t *testing.T, st *DB) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	if h, err := st.Held(ctx, 7); err != nil || h != (billing.Held{CVMs: 2, VCPU: 4, MemoryMB: 4096, DiskGB: 40}) {
		t.Errorf("the workspace holds %+v, %v", h, err)
	}
	if r, err := st.PromisedRoom(ctx, 0); err != nil || len(r.Rooms) != 1 || r.Rooms[7] != (store.Room{VCPU: 2, MemoryMiB: 2048, DiskGB: 40}) {
		t.Errorf("promised: %+v, %v", r, err)
	}
	if page, n, err := st.AppPage(ctx, store.ListQuery{Workspace: 7, Limit: 5}); err != nil || n != 2 || len(page) != 2 || page[0][0].Name != "name-1" || page[0][0].VCPU != 2 {
		t.Errorf("apps: %d %+v, %v", n, page, err)
	}
	if page, n, err := st.Page(ctx, store.ListQuery{Workspace: 7, Search: "ME-1"}); err != nil || n != 1 || len(page) != 1 || page[0].Name != "name-1" {
		t.Errorf("found: %d %+v, %v", n, page, err)
	}
	if _, err := st.Change(ctx, 1, nil, func(c *store.Change) error { c.SetStatus("stopped", "x"); return nil }); err != nil {
		t.Error(err)
	}
	if r, err := st.PromisedRoom(ctx, 0); err != nil || r.Rooms[7] != (store.Room{DiskGB: 40}) {
		t.Errorf("promised after a stop: %+v, %v", r, err)
	}
}
