// Package sqlite is store.Store on SQLite: one file, one API process.
package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

//go:embed migrations/*.sql
var migrations embed.FS

// DB is the store.
type DB struct {
	db  *sqldb.DB
	now func() time.Time

	mu      sync.Mutex
	watches map[int64]map[chan struct{}]struct{}
}

var _ store.Store = (*DB)(nil)

// Open opens the database and migrates it. now is the clock.
func Open(ctx context.Context, src sqldb.Source, now func() time.Time) (*DB, error) {
	db, err := sqldb.Open(ctx, src)
	if err != nil {
		return nil, err
	}
	files, err := fs.Sub(migrations, "migrations")
	if err == nil {
		err = sqldb.Migrate(ctx, db, files)
	}
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	d := &DB{db: db, now: now, watches: map[int64]map[chan struct{}]struct{}{}}
	db.BeforeCommit = d.audit
	return d, nil
}

// Handle is the database, for who shares the store's connections.
func (d *DB) Handle() *sqldb.DB { return d.db }

// Close closes the database.
func (d *DB) Close() error { return d.db.Close() }

// NodeID gives a VMM's URL its lasting id.
func (d *DB) NodeID(ctx context.Context, url string) (id int64, err error) {
	err = sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO nodes (url, created_at) VALUES (?, ?) ON CONFLICT (url) DO NOTHING`, url, ms(d.now())); err != nil {
			return fmt.Errorf("storing node: %w", err)
		}
		return tx.QueryRowContext(ctx, `SELECT id FROM nodes WHERE url = ?`, url).Scan(&id)
	})
	return id, err
}

// Watch signals after each change of a CVM.
func (d *DB) Watch(id int64) (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.watches[id] == nil {
		d.watches[id] = map[chan struct{}]struct{}{}
	}
	d.watches[id][ch] = struct{}{}
	return ch, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.watches[id], ch)
		if len(d.watches[id]) == 0 {
			delete(d.watches, id)
		}
	}
}

func (d *DB) signal(id int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ch := range d.watches[id] {
		select {
		case ch <- struct{}{}:
		default: // a signal is waiting already
		}
	}
}

// Times are stored as unix milliseconds, 0 for the zero time.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func at(v int64) time.Time {
	if v == 0 {
		return time.Time{}
	}
	return time.UnixMilli(v).UTC()
}

func notFound(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return store.ErrNotFound
	}
	return err
}
