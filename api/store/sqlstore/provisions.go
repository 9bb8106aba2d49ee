package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/confidential-cloud/phala/api/store"
)

// PutProvision stores a prepared app-compose; preparing the same one again
// replaces its size, and keeps what its commit made.
func (d *DB) PutProvision(ctx context.Context, p store.Provision) error {
	body, err := json.Marshal(p.ProvisionBody)
	if err != nil {
		return fmt.Errorf("encoding provision: %w", err)
	}
	now := ms(d.now())
	if _, err := d.db.ExecContext(ctx, `DELETE FROM provisions WHERE expires_at <= ?`, now); err != nil {
		return fmt.Errorf("forgetting old provisions: %w", err)
	}
	_, err = d.db.ExecContext(ctx, `INSERT INTO provisions (workspace_id, cvm_id, compose_hash, expires_at, body) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (workspace_id, cvm_id, compose_hash) DO UPDATE SET expires_at = excluded.expires_at, body = excluded.body`,
		p.WorkspaceID, p.CVMID, p.ComposeHash, ms(p.ExpiresAt), string(body))
	if err != nil {
		return fmt.Errorf("storing provision: %w", err)
	}
	return nil
}

// Provision returns one that has not expired.
func (d *DB) Provision(ctx context.Context, workspace, cvm int64, composeHash string) (p store.Provision, err error) {
	var body string
	var expires int64
	row := d.db.QueryRowContext(ctx, `SELECT workspace_id, cvm_id, compose_hash, expires_at, committed_cvm, body FROM provisions
		WHERE workspace_id = ? AND cvm_id = ? AND compose_hash = ? AND expires_at > ?`, workspace, cvm, composeHash, ms(d.now()))
	if err := row.Scan(&p.WorkspaceID, &p.CVMID, &p.ComposeHash, &expires, &p.CommittedCVM, &body); err != nil {
		return p, notFound(err)
	}
	p.ExpiresAt = at(expires)
	if err := json.Unmarshal([]byte(body), &p.ProvisionBody); err != nil {
		return p, fmt.Errorf("provision %s: stored body: %w", composeHash, err)
	}
	return p, nil
}
