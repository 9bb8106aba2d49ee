package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

// where is the condition of a query on the CVM c, and its arguments.
func (d *DB) where(ctx context.Context, q store.ListQuery) (string, []any, error) {
	cond, args := `c.deleted_at = 0 AND c.workspace_id = ?`, []any{q.Workspace}
	and := func(c string, a ...any) { cond, args = cond+` AND `+c, append(args, a...) }
	if q.Node != 0 {
		and(`c.node_id = ?`, q.Node)
	}
	if q.App != "" {
		and(`c.app_id = ?`, q.App)
	}
	if len(q.Status) > 0 {
		and(`c.status IN (`+marks(len(q.Status))+`)`, anys(q.Status)...)
	}
	if q.Search != "" {
		found, by, err := d.found(ctx, q.Workspace, q.Search)
		if err != nil {
			return "", nil, err
		}
		and(found, by...)
	}
	return cond, args, nil
}

// whole tells whether a query means all CVMs of the workspace, whose number is known.
func whole(q store.ListQuery) bool {
	return q.Node == 0 && q.App == "" && q.Search == "" && len(q.Status) == 0
}

// total reads how many CVMs or apps a workspace has.
func (d *DB) total(ctx context.Context, what string, workspace int64, n *int) error {
	err := notFound(d.db.QueryRowContext(ctx, `SELECT `+what+` FROM workspace_sums WHERE workspace_id = ?`, workspace).Scan(n))
	if err != nil && !errors.Is(err, store.ErrNotFound) { // it never had a CVM
		return fmt.Errorf("counting %s: %w", what, err)
	}
	return nil
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
	cond, args, err := d.where(ctx, q)
	if err != nil {
		return nil, 0, err
	}
	if whole(q) {
		if err := d.total(ctx, `cvms`, q.Workspace, &total); err != nil {
			return nil, 0, err
		}
	} else if err := d.db.QueryRowContext(ctx, `SELECT count(*) FROM cvms c WHERE `+cond, args...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("counting CVMs: %w", err)
	}
	ids, args := paged(`SELECT id FROM cvms c WHERE `+cond+` ORDER BY id DESC`, args, q)
	page, err = rows(ctx, d.db, scanCVM, cvmColumns+`WHERE id IN (`+ids+`) ORDER BY id DESC`, args...)
	return page, total, err
}

// Older returns CVMs that match, newest first, of those before one.
func (d *DB) Older(ctx context.Context, q store.ListQuery, before int64, limit int) ([]store.CVM, error) {
	cond, args, err := d.where(ctx, q)
	if err != nil {
		return nil, err
	}
	if before != 0 {
		cond, args = cond+` AND c.id < ?`, append(args, before)
	}
	return rows(ctx, d.db, scanCVM, cvmColumns+`c WHERE `+cond+` ORDER BY id DESC LIMIT ?`, append(args, limit)...)
}

// AppPage returns the CVMs of a page of apps.
func (d *DB) AppPage(ctx context.Context, q store.ListQuery) (page [][]store.CVM, total int, err error) {
	cond, args, err := d.where(ctx, q)
	if err != nil {
		return nil, 0, err
	}
	if whole(q) {
		if err := d.total(ctx, `apps`, q.Workspace, &total); err != nil {
			return nil, 0, err
		}
	} else if err := d.db.QueryRowContext(ctx, `SELECT count(*) FROM (SELECT app_id FROM cvms c WHERE `+cond+` GROUP BY app_id) AS apps`, args...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("counting apps: %w", err)
	}
	// An app stands where the newest of its CVMs that match stands: what is behind the
	// page is not looked at.
	newer := strings.ReplaceAll(cond, "c.", "n.")
	query, bounded := paged(`SELECT app_id FROM cvms c WHERE `+cond+` AND NOT EXISTS (SELECT 1 FROM cvms n WHERE `+newer+` AND n.app_id = c.app_id AND n.id > c.id)
		ORDER BY id DESC`, append(args[:len(args):len(args)], args...), q)
	apps, err := rows(ctx, d.db, func(r scanner) (id string, err error) { return id, r.Scan(&id) }, query, bounded...)
	if err != nil || len(apps) == 0 {
		return nil, total, err
	}
	cvms, err := rows(ctx, d.db, scanCVM, cvmColumns+`c WHERE `+cond+` AND app_id IN (`+marks(len(apps))+`) ORDER BY id DESC`, append(args, anys(apps)...)...)
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

// OnNodes returns the live CVMs of some nodes, by node.
func (d *DB) OnNodes(ctx context.Context, nodes []int64) (map[int64][]store.Resident, error) {
	type placed struct {
		node int64
		r    store.Resident
	}
	all, err := rows(ctx, d.db, func(s scanner) (p placed, err error) {
		var updated int64
		err = s.Scan(&p.node, &p.r.ID, &p.r.UUID, &p.r.InstanceID, &p.r.Status, &updated)
		p.r.UpdatedAt = at(updated)
		return p, err
	}, `SELECT node_id, id, uuid, instance_id, status, updated_at FROM cvms WHERE deleted_at = 0 AND node_id IN (`+marks(len(nodes))+`) ORDER BY id`, anys(nodes)...)
	out := make(map[int64][]store.Resident, len(nodes))
	for _, p := range all {
		out[p.node] = append(out[p.node], p.r)
	}
	return out, err
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
