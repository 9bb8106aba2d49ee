package sqlstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

// where is the condition of a query and its arguments.
func where(q store.ListQuery) (string, []any) {
	cond, args := `deleted_at = 0 AND workspace_id = ?`, []any{q.Workspace}
	and := func(c string, a ...any) { cond, args = cond+` AND `+c, append(args, a...) }
	if q.Node != 0 {
		and(`node_id = ?`, q.Node)
	}
	if q.App != "" {
		and(`app_id = ?`, q.App)
	}
	if len(q.Status) > 0 {
		and(`status IN (`+marks(len(q.Status))+`)`, anys(q.Status)...)
	}
	if q.Search != "" {
		like := `%` + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(strings.ToLower(q.Search)) + `%`
		and(`(lower(name) LIKE ? ESCAPE '\' OR app_id LIKE ? ESCAPE '\' OR uuid LIKE ? ESCAPE '\' OR instance_id LIKE ? ESCAPE '\')`, like, like, like, like)
	}
	return cond, args
}

func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

func anys[T any](list []T) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}

// paged adds a page's bounds.
func paged(query string, args []any, q store.ListQuery) (string, []any) {
	if q.Limit == 0 {
		return query, args
	}
	return query + ` LIMIT ? OFFSET ?`, append(args[:len(args):len(args)], q.Limit, q.Offset)
}

// Page returns the CVMs of a page, newest first, and how many match. The ids of the
// page come from an index alone: what is skipped is not read.
func (d *DB) Page(ctx context.Context, q store.ListQuery) (page []store.CVM, total int, err error) {
	cond, args := where(q)
	if err := d.db.QueryRowContext(ctx, `SELECT count(*) FROM cvms WHERE `+cond, args...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("counting CVMs: %w", err)
	}
	ids, args := paged(`SELECT id FROM cvms WHERE `+cond+` ORDER BY id DESC`, args, q)
	page, err = rows(ctx, d.db, scanCVM, cvmColumns+`WHERE id IN (`+ids+`) ORDER BY id DESC`, args...)
	return page, total, err
}

// AppPage returns the CVMs of a page of apps.
func (d *DB) AppPage(ctx context.Context, q store.ListQuery) (page [][]store.CVM, total int, err error) {
	cond, args := where(q)
	if err := d.db.QueryRowContext(ctx, `SELECT count(DISTINCT app_id) FROM cvms WHERE `+cond, args...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("counting apps: %w", err)
	}
	query, bounded := paged(`SELECT app_id FROM cvms WHERE `+cond+` GROUP BY app_id ORDER BY max(id) DESC`, args, q)
	apps, err := rows(ctx, d.db, func(r scanner) (id string, err error) { return id, r.Scan(&id) }, query, bounded...)
	if err != nil || len(apps) == 0 {
		return nil, total, err
	}
	cvms, err := rows(ctx, d.db, scanCVM, cvmColumns+`WHERE `+cond+` AND app_id IN (`+marks(len(apps))+`) ORDER BY id DESC`, append(args, anys(apps)...)...)
	if err != nil {
		return nil, 0, err
	}
	at := map[string]int{}
	for i, a := range apps {
		at[a] = i
	}
	page = make([][]store.CVM, len(apps))
	for _, c := range cvms {
		page[at[c.AppID]] = append(page[at[c.AppID]], c)
	}
	return page, total, nil
}

// OnNode returns the live CVMs of a node.
func (d *DB) OnNode(ctx context.Context, node int64) ([]store.CVM, error) {
	return rows(ctx, d.db, scanCVM, cvmColumns+`WHERE deleted_at = 0 AND node_id = ? ORDER BY id`, node)
}

// NameTaken tells whether a live CVM of the workspace has the name.
func (d *DB) NameTaken(ctx context.Context, workspace int64, name string) (taken bool, err error) {
	err = d.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM cvms WHERE deleted_at = 0 AND workspace_id = ? AND name = ?)`, workspace, name).Scan(&taken)
	return taken, err
}

// OpenOpsOf returns the unfinished operations of several CVMs, oldest first.
func (d *DB) OpenOpsOf(ctx context.Context, ids []int64) (map[int64][]store.Operation, error) {
	out := map[int64][]store.Operation{}
	const most = 500 // parameters of one statement
	for ; len(ids) > 0; ids = ids[min(most, len(ids)):] {
		some := ids[:min(most, len(ids))]
		ops, err := rows(ctx, d.db, scanOp, opColumns+`WHERE finished_at = 0 AND cvm_id IN (`+marks(len(some))+`) ORDER BY cvm_id, generation`, anys(some)...)
		if err != nil {
			return nil, err
		}
		for _, o := range ops {
			out[o.CVMID] = append(out[o.CVMID], o)
		}
	}
	return out, nil
}

// NodeIDs gives VMMs' URLs their lasting ids, in one transaction.
func (d *DB) NodeIDs(ctx context.Context, urls []string) (ids []int64, err error) {
	err = sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		ids = make([]int64, len(urls))
		for i, u := range urls {
			if _, err := tx.ExecContext(ctx, `INSERT INTO nodes (url, created_at) VALUES (?, ?) ON CONFLICT (url) DO NOTHING`, u, ms(d.now())); err != nil {
				return fmt.Errorf("storing node: %w", err)
			}
			if err := tx.QueryRowContext(ctx, `SELECT id FROM nodes WHERE url = ?`, u).Scan(&ids[i]); err != nil {
				return fmt.Errorf("reading node: %w", err)
			}
		}
		return nil
	})
	return ids, err
}
