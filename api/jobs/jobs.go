// Package jobs does the lasting work of the cloud API: one River job per
// operation on a CVM (deploy, start, stop, restart, update, delete), on the same
// database as everything else.
//
// A job may run more than once (the process can die at any line); its effect
// happens once. It gets there by asking the VMM what is so before each step, by the
// VMM's own idempotency (a VM's id is the CVM's uuid), and by the boot count that
// is written down before a start. Operations of one CVM run in their order.
package jobs

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// VMM is what jobs ask of a node. *vmmapi.Client is one.
type VMM interface {
	Get(ctx context.Context, id string) (vmmapi.VM, error)
	List(ctx context.Context) ([]vmmapi.VM, error)
	Put(ctx context.Context, s vmmapi.Spec) (vmmapi.VM, error)
	PutApp(ctx context.Context, id string, a vmmapi.App) (vmmapi.VM, error)
	PutResources(ctx context.Context, id string, r vmmapi.Resources) (vmmapi.VM, error)
	PutImage(ctx context.Context, id, image string) (vmmapi.VM, error)
	Update(ctx context.Context, id string, q vmmapi.UpdateRequest) (vmmapi.VM, error)
	Start(ctx context.Context, id string) (vmmapi.VM, error)
	Stop(ctx context.Context, id string) (vmmapi.VM, error)
	Restart(ctx context.Context, id string) (vmmapi.VM, error)
	Delete(ctx context.Context, id string, keepVolumes bool) error
	Events(ctx context.Context, id string) ([]vmmapi.Event, error)
}

// Store is what jobs need of the store.
type Store interface {
	store.CVMs
	store.Listings
	store.Deletions
}

// Config of the runner.
type Config struct {
	Database sqldb.Source // jobs have their own handle on it, unless there is Shared
	// Shared is the store's handle on an SQLite database: two handles of one process
	// would wait for each other in the file's lock, where nobody is next. It stays open.
	Shared *sqldb.DB
	Store  Store
	// Node finds a node's VMM by its lasting id.
	Node func(id int64) (VMM, error)
	// Nodes lists the ids of all nodes, for the sync loop.
	Nodes func() []int64
	// KMSURLs and GatewayURLs are handed to guests.
	KMSURLs, GatewayURLs []string
	Log                  *slog.Logger
	Poll                 time.Duration // how often a running operation asks its VMM; default 250 ms
	Sync                 time.Duration // how often resting CVMs are compared with their nodes; default 2 s
	Workers              int           // operations at the same time; default 64
	PeerTimeout          time.Duration // how long another process may be silent before its jobs are taken over; default 15 s
}

// Runner runs the jobs.
type Runner struct {
	cfg    Config
	db     *sqldb.DB
	own    bool   // db is nobody else's
	id     string // of this process, in the queue
	client *river.Client[*sql.Tx]
}

type args struct {
	CVM        int64 `json:"cvm" river:"unique"`
	Generation int   `json:"generation" river:"unique"`
}

func (args) Kind() string { return "operation" }

// New opens the queue on the database file and creates or migrates its tables.
func New(ctx context.Context, cfg Config) (*Runner, error) {
	cfg.Poll = orDefault(cfg.Poll, 250*time.Millisecond)
	cfg.Sync = orDefault(cfg.Sync, 2*time.Second)
	cfg.PeerTimeout = orDefault(cfg.PeerTimeout, 15*time.Second)
	if cfg.Workers == 0 {
		cfg.Workers = 64
	}
	r := &Runner{cfg: cfg, db: cfg.Shared, id: "api-" + rand.Text()}
	if r.db == nil || r.db.Kind != sqldb.SQLite {
		db, err := sqldb.Open(ctx, cfg.Database)
		if err != nil {
			return nil, err
		}
		r.db, r.own = db, true
	}
	if err := r.open(ctx); err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

func (r *Runner) open(ctx context.Context) error {
	var driver riverdriver.Driver[*sql.Tx] = riversqlite.New(r.db.DB)
	if r.db.Kind == sqldb.Postgres {
		driver = riverdatabasesql.New(r.db.DB)
	}
	// River logs every statement at debug; only its problems are of interest here.
	log := slog.New(quiet{r.cfg.Log.With("part", "river").Handler()})
	m, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: log})
	if err != nil {
		return fmt.Errorf("job queue: %w", err)
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("job queue: migrating: %w", err)
	}
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &worker{r: r}); err != nil {
		return fmt.Errorf("job queue: %w", err)
	}
	r.client, err = river.NewClient(driver, &river.Config{
		ID: r.id, Logger: log, Workers: workers,
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: r.cfg.Workers}},
		FetchCooldown:     min(20*time.Millisecond, r.cfg.Poll),
		FetchPollInterval: r.cfg.Poll,
		JobTimeout:        -1,   // a boot takes what it takes; the VMM bounds it
		MaxAttempts:       1000, // a restart of this process is an attempt
		RetryPolicy:       backoff{},
		// Jobs wait for their VM while they run, so a long run is no sign of death: the
		// jobs of a dead process are adopted (processes.go).
		RescueStuckJobsAfter: 24 * time.Hour,
	})
	if err != nil {
		return fmt.Errorf("job queue: %w", err)
	}
	return nil
}

// backoff retries after 1 s, 2 s, 4 s, ... at most 30 s.
type backoff struct{}

// NextRetry is river.ClientRetryPolicy.
func (backoff) NextRetry(job *rivertype.JobRow) time.Time {
	return time.Now().Add(min(time.Second<<min(len(job.Errors), 5), 30*time.Second))
}

// Enqueue inserts the job for an operation; it is a store.Enqueue. The same
// operation has one job however often it is enqueued.
func (r *Runner) Enqueue(ctx context.Context, tx *sql.Tx, cvmID int64, generation int) error {
	_, err := r.client.InsertTx(ctx, tx, args{CVM: cvmID, Generation: generation}, &river.InsertOpts{UniqueOpts: river.UniqueOpts{ByArgs: true}})
	return err
}

// Run works until ctx ends. Operations that are cut off go on at the next Run.
func (r *Runner) Run(ctx context.Context) error {
	if err := r.adoptAll(ctx); err != nil {
		return err
	}
	if err := r.client.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("job queue: starting: %w", err)
	}
	var wg sync.WaitGroup
	if r.db.Kind == sqldb.Postgres {
		wg.Go(func() { r.watchProcesses(ctx) })
	}
	r.sync(ctx)
	wg.Wait()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 8*time.Second)
	defer cancel()
	if err := r.client.StopAndCancel(stop); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("job queue: stopping: %w", err)
	}
	return nil
}

// Close closes the queue's handle; call it after Run has returned.
func (r *Runner) Close() error {
	if !r.own {
		return nil
	}
	return r.db.Close()
}

type worker struct {
	river.WorkerDefaults[args]
	r *Runner
}

// Work does one operation.
func (w *worker) Work(ctx context.Context, job *river.Job[args]) error {
	wait, err := w.r.operate(ctx, job.Args.CVM, job.Args.Generation)
	if err != nil {
		return err
	}
	if wait > 0 {
		return river.JobSnooze(wait)
	}
	return nil
}

// quiet passes warnings and errors only.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && q.Handler.Enabled(ctx, l)
}

func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a)} }
func (q quiet) WithGroup(n string) slog.Handler      { return quiet{q.Handler.WithGroup(n)} }
