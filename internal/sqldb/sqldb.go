// Package sqldb opens a database, SQLite (embedded, pure Go) or PostgreSQL, with the
// settings every user of it needs, and brings its schema up to date with goose.
//
// Statements are written once, with ? for parameters; migrations are written in
// SQLite's words (see Dialect) and run on both.
package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/confidential-cloud/phala/cvm"
)

// Kind of a database.
type Kind string

// The kinds.
const (
	SQLite   Kind = "sqlite"
	Postgres Kind = "postgres"
)

// Source says where the data is.
type Source struct {
	Path         string // of an SQLite file, made when missing (mode 0600); "" for PostgreSQL
	URL          string // postgres://user@host/database?...; no password in it
	PasswordFile string // PostgreSQL's password, on one line; "" for none (or PGPASSFILE)
}

// DB is a handle whose statements take ? on either database. It is safe for
// concurrent use.
type DB struct {
	*sql.DB
	Kind Kind

	read *sql.DB // for statements outside of transactions that read: SQLite's other connections
	// BeforeCommit, if set, runs in each transaction that is about to commit, and in
	// one with each statement outside of a transaction; its error undoes all of it.
	BeforeCommit func(ctx context.Context, tx *Tx) error
}

// sqliteReaders is how many statements may read an SQLite file at the same time.
const sqliteReaders = 4

// Open opens the database. SQLite gets one connection that writes: it has one writer,
// and waiting in database/sql is fairer than waiting in the file lock; other handles
// on the same file, in this process or another, wait up to 15 s for each other. What
// reads outside of a transaction has connections of its own, and waits for nobody.
func Open(ctx context.Context, s Source) (*DB, error) {
	if s.URL != "" {
		return openPostgres(ctx, s)
	}
	f, err := os.OpenFile(s.Path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening database: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("opening database: %w", err)
	}
	abs, err := filepath.Abs(s.Path)
	if err != nil {
		return nil, fmt.Errorf("opening database: %w", err)
	}
	q := url.Values{"_pragma": {
		"busy_timeout(15000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)",
	}, "_txlock": {"immediate"}}
	file := url.URL{Scheme: "file", Opaque: (&url.URL{Path: abs}).EscapedPath(), RawQuery: q.Encode()}
	db, err := sql.Open("sqlite", file.String())
	if err != nil {
		return nil, fmt.Errorf("opening database %s: %w", s.Path, err)
	}
	db.SetMaxOpenConns(1)
	if err := db.PingContext(ctx); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("opening database %s: %w", s.Path, err)
	}
	file.RawQuery = url.Values{"_pragma": {"busy_timeout(15000)", "query_only(1)"}}.Encode()
	read, err := sql.Open("sqlite", file.String())
	if err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("opening database %s: %w", s.Path, err)
	}
	read.SetMaxOpenConns(sqliteReaders)
	read.SetMaxIdleConns(sqliteReaders)
	return &DB{DB: db, Kind: SQLite, read: read}, nil
}

// Close closes all connections.
func (d *DB) Close() error {
	err := d.DB.Close()
	if d.read != d.DB {
		err = errors.Join(err, d.read.Close())
	}
	return err
}

// maxPostgres connections per handle; Debian's server admits 100.
const maxPostgres = 16

func openPostgres(ctx context.Context, s Source) (*DB, error) {
	u, err := url.Parse(s.URL)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return nil, cvm.Errorf(cvm.Invalid, "database: want postgres://user@host/database").WithReason("database-url")
	}
	if _, inline := u.User.Password(); inline || u.Query().Has("password") {
		return nil, cvm.Errorf(cvm.Invalid, "database: the URL holds a password").WithReason("database-url").WithFix("put it into a file and name that as the password file")
	}
	cfg, err := pgx.ParseConfig(s.URL)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	if s.PasswordFile != "" {
		b, err := os.ReadFile(s.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("database password: %w", err)
		}
		cfg.Password = strings.TrimSpace(string(b))
	}
	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(maxPostgres)
	db.SetMaxIdleConns(maxPostgres)
	if err := db.PingContext(ctx); err != nil {
		_ = db.Close()
		return nil, cvm.Errorf(cvm.Unavailable, "database %s%s: %w", u.Host, u.Path, err)
	}
	return &DB{DB: db, Kind: Postgres, read: db}, nil
}

// Tx is a transaction of a DB. SQL is the plain handle, for libraries that take one.
type Tx struct {
	SQL  *sql.Tx
	Kind Kind
}

// ExecContext runs a statement.
func (d *DB) ExecContext(ctx context.Context, q string, args ...any) (res sql.Result, err error) {
	if d.BeforeCommit == nil {
		return d.DB.ExecContext(ctx, bind(d.Kind, q), args...)
	}
	err = Transact(ctx, d, func(tx *Tx) error {
		res, err = tx.ExecContext(ctx, q, args...)
		return err
	})
	return res, err
}

// QueryContext reads rows; it cannot change any.
func (d *DB) QueryContext(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	return d.read.QueryContext(ctx, bind(d.Kind, q), args...) //nolint:sqlclosecheck,rowserrcheck // the caller's
}

// QueryRowContext reads one row; it cannot change any.
func (d *DB) QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row {
	return d.read.QueryRowContext(ctx, bind(d.Kind, q), args...)
}

// ExecContext runs a statement.
func (t *Tx) ExecContext(ctx context.Context, q string, args ...any) (sql.Result, error) {
	return t.SQL.ExecContext(ctx, bind(t.Kind, q), args...)
}

// QueryContext reads rows.
func (t *Tx) QueryContext(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	return t.SQL.QueryContext(ctx, bind(t.Kind, q), args...) //nolint:sqlclosecheck,rowserrcheck // the caller's
}

// QueryRowContext reads one row.
func (t *Tx) QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row {
	return t.SQL.QueryRowContext(ctx, bind(t.Kind, q), args...)
}

// Lock makes transactions that lock the same name wait for each other until they
// end. (On SQLite every transaction waits for every other anyway.)
func (t *Tx) Lock(ctx context.Context, name string) error {
	if t.Kind != Postgres {
		return nil
	}
	if _, err := t.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtextextended(?, 0))`, name); err != nil {
		return fmt.Errorf("locking %s: %w", name, err)
	}
	return nil
}

// bind numbers the parameters where the database wants that. Statements hold no ?
// but parameters.
func bind(k Kind, q string) string {
	if k != Postgres || !strings.Contains(q, "?") {
		return q
	}
	var b strings.Builder
	n := 0
	for part := range strings.SplitSeq(q, "?") {
		if n > 0 {
			b.WriteString("$" + strconv.Itoa(n))
		}
		b.WriteString(part)
		n++
	}
	return b.String()
}

// Unique tells whether a statement failed because a row with the same values is
// there: columns as SQLite names them ("cvms.name"), index as it was created.
func Unique(err error, columns, index string) bool {
	if err == nil {
		return false
	}
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		return pg.Code == "23505" && pg.ConstraintName == index
	}
	return strings.Contains(err.Error(), "UNIQUE constraint failed") && strings.Contains(err.Error(), columns)
}

// Migrate applies the migrations (NNN_name.sql, goose annotations, forward only)
// that the database does not have yet. A database written by a newer version is
// an error: an old binary must not guess. Several processes may call it at once.
func Migrate(ctx context.Context, db *DB, files fs.FS) error {
	kind := goose.DialectSQLite3
	if db.Kind == Postgres {
		kind, files = goose.DialectPostgres, Dialect{files}
		conn, err := db.Conn(ctx)
		if err != nil {
			return fmt.Errorf("migrating the database: %w", err)
		}
		defer func() { _ = conn.Close() }() // ends the lock too
		if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock(77234)`); err != nil {
			return fmt.Errorf("migrating the database: %w", err)
		}
		defer func() { _, _ = conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock(77234)`) }()
	}
	// Areas have number ranges of their own, so a newer version may bring a lower number.
	p, err := goose.NewProvider(kind, db.DB, files, goose.WithVerbose(false), goose.WithAllowOutofOrder(true))
	if err != nil {
		return fmt.Errorf("reading migrations: %w", err)
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("reading the database's version: %w", err)
	}
	if have > want {
		return fmt.Errorf("the database has schema %d, this program knows only up to %d: it was used by a newer version", have, want)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrating the database: %w", err)
	}
	return nil
}

// Transact runs fn in a transaction and commits it when fn returns nil.
func Transact(ctx context.Context, db *DB, fn func(tx *Tx) error) (err error) {
	defer func() {
		if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
			err = ctx.Err() // which rolled it back: whoever stops is not told of a failure
		}
	}()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // no effect after Commit
	t := &Tx{SQL: tx, Kind: db.Kind}
	if err := fn(t); err != nil {
		return err
	}
	if db.BeforeCommit != nil {
		if err := db.BeforeCommit(ctx, t); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	return nil
}
