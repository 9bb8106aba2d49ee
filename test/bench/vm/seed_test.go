package vm

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/api/store/sqlstore"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/sqldb"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

const perNode = 10 // CVMs of a seeded node

// seeded names CVM n as it was stored.
func seededUUID(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }
func seededName(n int) string { return fmt.Sprintf("seeded-%d", n) }
func seededApp(n int) string  { return fmt.Sprintf("%040x", 0xabc0000000+n) }

// seed writes rows [from, to) as creating, running and observing CVMs leaves them,
// and gives their VMs to the fleet.
func seed(t *testing.T, c childConfig, f *fleet, from, to int) {
	t.Helper()
	src := sqldb.Source{URL: c.DatabaseURL}
	if c.DatabaseURL == "" {
		src.Path = filepath.Join(c.Dir, "api.db")
	}
	st, err := sqlstore.Open(t.Context(), src, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	p, err := st.Admin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]int64, len(c.Nodes))
	for i, u := range c.Nodes {
		if i*perNode < to {
			if ids[i], err = st.NodeID(t.Context(), u); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sqldb.Open(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const batch = 500
	for ; from < to; from += batch {
		n := min(batch, to-from)
		if err := sqldb.Transact(t.Context(), db, func(tx *sqldb.Tx) error { return seedRows(t, tx, p, ids, f, from, n) }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.ExecContext(t.Context(), "ANALYZE"); err != nil {
		t.Fatal(err)
	}
}

func seedRows(t *testing.T, tx *sqldb.Tx, p store.Principal, nodeIDs []int64, f *fleet, from, n int) error {
	t.Helper()
	now := time.Now().UnixMilli()
	compose := []byte(encode(t, map[string]any{"manifest_version": 2, "name": "seeded", "runner": "docker-compose", "kms_enabled": true, "gateway_enabled": true,
		"docker_compose_file": "services:\n  web:\n    image: nginx:1.27\n    ports:\n      - 80:80\n" + strings.Repeat("# what people write\n", 50)}))
	body := encode(t, store.Body{InstanceType: "tdx.small", VCPU: 1, MemoryMiB: 2048, DiskGB: 20, AppCompose: compose, ComposeHash: strings.Repeat("ab", 32),
		EncryptedEnv: []byte(strings.Repeat("x", 300))})
	insert := func(table, columns string, row func(i int) []any) error {
		var args []any
		var q strings.Builder
		fmt.Fprintf(&q, "INSERT INTO %s (%s) VALUES ", table, columns)
		for i := range n {
			r := row(from + i)
			if i > 0 {
				q.WriteString(", ")
			}
			q.WriteString("(?" + strings.Repeat(", ?", len(r)-1) + ")")
			args = append(args, r...)
		}
		_, err := tx.ExecContext(context.Background(), q.String(), args...)
		return err
	}
	err := insert("cvms", "id, workspace_id, user_id, uuid, name, app_id, instance_id, node_id, status, generation, created_at, updated_at, body", func(i int) []any {
		node := i / perNode % len(nodeIDs)
		app, _ := cvm.ParseAppID(seededApp(i))
		inst, _ := cvm.ParseInstanceID(seededApp(i))
		f.put(node, vmmapi.VM{State: vmmapi.StateRunning, Desired: "running", Boots: 1, InstanceID: inst, StartedAt: time.UnixMilli(now).UTC(),
			Spec: vmmapi.Spec{ID: seededUUID(i), Name: seededName(i), AppID: app, App: vmmapi.App{AppCompose: compose},
				Resources: vmmapi.Resources{VCPU: 1, MemoryMiB: 2048, DiskMiB: 20 << 10}}})
		return []any{i + 1, p.WorkspaceID, p.UserID, seededUUID(i), seededName(i), seededApp(i), seededApp(i), nodeIDs[node], cloudapi.StatusRunning, 1, now, now, body}
	})
	if err != nil {
		return err
	}
	if err := insert("operations", "cvm_id, generation, kind, state, created_at, finished_at, body", func(i int) []any {
		return []any{i + 1, 1, store.Deploy, store.Done, now, now, encode(t, store.OperationBody{CorrelationID: seededUUID(i), By: "admin"})}
	}); err != nil {
		return err
	}
	if err := insert("revisions", "cvm_id, workspace_id, app_id, generation, compose_hash, kind, created_at, app_compose", func(i int) []any {
		return []any{i + 1, p.WorkspaceID, seededApp(i), 1, strings.Repeat("ab", 32), store.Deploy, now, compose}
	}); err != nil {
		return err
	}
	for k := range 4 {
		if err := insert("events", "cvm_id, vm_seq, time, generation, body", func(i int) []any {
			return []any{i + 1, k + 1, now, 1, encode(t, cloudapi.Event{Kind: cloudapi.EventVM, Message: "boot.progress", Generation: 1})}
		}); err != nil {
			return err
		}
	}
	if tx.Kind == sqldb.Postgres {
		_, err = tx.ExecContext(context.Background(), `SELECT setval(pg_get_serial_sequence('cvms', 'id'), ?)`, from+n)
	}
	return err
}
