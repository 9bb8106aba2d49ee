package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func migrations(n int) fstest.MapFS {
	all := []string{
		"-- +goose Up\nCREATE TABLE a (x INTEGER NOT NULL);\n",
		"-- +goose Up\nALTER TABLE a ADD COLUMN y TEXT NOT NULL DEFAULT 'old';\n",
	}
	m := fstest.MapFS{}
	for i := range n {
		m[[]string{"001_a.sql", "002_b.sql"}[i]] = &fstest.MapFile{Data: []byte(all[i])}
	}
	return m
}

func TestMigrate(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "with space & ?.db")
	db, err := Open(ctx, Source{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v: want 0600", st, err)
	}
	if err := Migrate(ctx, db, migrations(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO a (x) VALUES (7)`); err != nil {
		t.Fatal(err)
	}
	if err := Migrate(ctx, db, migrations(2)); err != nil {
		t.Fatal(err)
	}
	var x int
	var y string
	if err := db.QueryRow(`SELECT x, y FROM a`).Scan(&x, &y); err != nil || x != 7 || y != "old" {
		t.Fatalf("after migration: %d %q %v", x, y, err)
	}
	err = Migrate(ctx, db, migrations(1))
	if err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Fatalf("an old program opened a newer database: %v", err)
	}
}

// Areas number their migrations in ranges: a newer version may bring a lower number.
func TestMigrateOutOfOrder(t *testing.T) {
	ctx := t.Context()
	db, err := Open(ctx, Source{Path: filepath.Join(t.TempDir(), "x.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	late := fstest.MapFS{"045_late.sql": {Data: []byte("-- +goose Up\nCREATE TABLE late (x INTEGER NOT NULL);\n")}}
	if err := Migrate(ctx, db, late); err != nil {
		t.Fatal(err)
	}
	for k, v := range migrations(2) {
		late[k] = v
	}
	if err := Migrate(ctx, db, late); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO a (x) VALUES (7)`); err != nil {
		t.Fatal(err)
	}
}

func TestTxRollsBack(t *testing.T) {
	ctx := t.Context()
	db, err := Open(ctx, Source{Path: filepath.Join(t.TempDir(), "x.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := Migrate(ctx, db, migrations(1)); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	err = Transact(ctx, db, func(tx *Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO a (x) VALUES (1)`); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	var n int
	if err := db.QueryRow(`SELECT count(*) FROM a`).Scan(&n); err != nil || n != 0 {
		t.Fatalf("%d rows after rollback, %v", n, err)
	}
}

// A transaction whose context ends says so, and not that somebody ended it before.
func TestTxEndsWithItsContext(t *testing.T) {
	db, err := Open(t.Context(), Source{Path: filepath.Join(t.TempDir(), "x.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithCancel(t.Context())
	err = Transact(ctx, db, func(tx *Tx) error {
		cancel()
		for { // until it is rolled back
			if _, err := tx.SQL.ExecContext(t.Context(), `SELECT 1`); errors.Is(err, sql.ErrTxDone) {
				return nil
			}
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that the context was canceled", err)
	}
}
