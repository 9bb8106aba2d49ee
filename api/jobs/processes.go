package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/confidential-cloud/phala/internal/sqldb"
)

// adoptAll takes over, at the start, what nobody works on: jobs of dead processes
// (on SQLite there is one process, so every running job is an earlier process's),
// those that wait for a retry, and operations whose job is gone.
func (r *Runner) adoptAll(ctx context.Context) error {
	if r.db.Kind == sqldb.SQLite {
		_, err := r.db.ExecContext(ctx, `UPDATE river_job SET state = 'available', scheduled_at = CURRENT_TIMESTAMP
			WHERE state IN ('running', 'retryable', 'scheduled') AND kind = ?`, args{}.Kind())
		if err != nil {
			return fmt.Errorf("job queue: adopting jobs: %w", err)
		}
	} else if err := r.heartbeat(ctx); err != nil {
		return err
	}
	open, err := r.cfg.Store.Unfinished(ctx)
	if err != nil {
		return fmt.Errorf("job queue: reading operations: %w", err)
	}
	return sqldb.Transact(ctx, r.db, func(tx *sqldb.Tx) error {
		for _, o := range open {
			if err := r.Enqueue(ctx, tx.SQL, o.CVMID, o.Generation); err != nil {
				return fmt.Errorf("job queue: adopting an operation: %w", err)
			}
		}
		return nil
	})
}

// watchProcesses runs where several processes share the queue: each says that it
// lives; one that was silent for PeerTimeout has its running jobs taken over. One
// that was only slow may then run an operation twice, which has one effect.
func (r *Runner) watchProcesses(ctx context.Context) {
	tick := time.NewTicker(r.cfg.PeerTimeout / 7)
	defer tick.Stop()
	for {
		if err := r.heartbeat(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("job queue: this process could not say that it lives", "err", err)
		}
		select {
		case <-ctx.Done():
			// At once, so that nobody waits for us.
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			_, _ = r.db.ExecContext(end, `DELETE FROM api_processes WHERE id = ?`, r.id)
			return
		case <-tick.C:
		}
	}
}

// heartbeat notes that this process lives, by the database's clock, and takes over
// the jobs of those that do not.
func (r *Runner) heartbeat(ctx context.Context) error {
	_, err := r.db.ExecContext(ctx, `INSERT INTO api_processes (id, seen_at) VALUES (?, CAST(extract(epoch FROM now()) * 1000 AS BIGINT))
		ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at`, r.id)
	if err != nil {
		return fmt.Errorf("job queue: heartbeat: %w", err)
	}
	_, err = r.db.ExecContext(ctx, `DELETE FROM api_processes WHERE seen_at < CAST(extract(epoch FROM now()) * 1000 AS BIGINT) - ?`, r.cfg.PeerTimeout.Milliseconds())
	if err != nil {
		return fmt.Errorf("job queue: forgetting dead processes: %w", err)
	}
	res, err := r.db.ExecContext(ctx, `UPDATE river_job SET state = 'available', scheduled_at = now()
		WHERE state = 'running' AND kind = ? AND NOT EXISTS (
			SELECT 1 FROM api_processes p WHERE p.id = attempted_by[array_length(attempted_by, 1)])`, args{}.Kind())
	if err != nil {
		return fmt.Errorf("job queue: adopting jobs: %w", err)
	}
	if n, err := res.RowsAffected(); err == nil && n > 0 {
		r.cfg.Log.Info("took over the operations of a process that ended", "operations", n)
	}
	return nil
}
