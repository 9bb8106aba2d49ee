package vm

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/billing"
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
	tidy := "ANALYZE"
	if db.Kind == sqldb.Postgres {
		tidy = "VACUUM ANALYZE" // what autovacuum does in time
	}
	if _, err := db.ExecContext(t.Context(), tidy); err != nil {
		t.Fatal(err)
	}
}

func seededSize() billing.Size {
	return billing.Size{Type: "tdx.small", VCPU: 1, MemoryMiB: 2048, DiskGB: 20}
}

// seededCompose is an app's own app-compose, and its hash.
func seededCompose(t *testing.T, i int) ([]byte, string) {
	t.Helper()
	b := []byte(encode(t, map[string]any{"manifest_version": 2, "name": "seeded", "runner": "docker-compose", "kms_enabled": true, "gateway_enabled": true,
		"docker_compose_file": fmt.Sprintf("services:\n  web:\n    image: nginx:1.27\n    ports:\n      - 80:80\n    environment:\n      - N=%d\n", i) + strings.Repeat("# what people write\n", 50)}))
	return b, fmt.Sprintf("%x", sha256.Sum256(b))
}

func seededBody(t *testing.T, i int, now int64) string {
	t.Helper()
	c, hash := seededCompose(t, i)
	size := seededSize()
	return encode(t, store.Body{InstanceType: size.Type, VCPU: size.VCPU, MemoryMiB: size.MemoryMiB, DiskGB: size.DiskGB, AppCompose: c, ComposeHash: hash,
		EncryptedEnv: []byte(strings.Repeat("x", 300)), StartedAt: time.UnixMilli(now).UTC(),
		Face: &store.Face{Of: hash, Gateway: true, PublicTCB: true, Ports: []int{0}}})
}

func seedRows(t *testing.T, tx *sqldb.Tx, p store.Principal, nodeIDs []int64, f *fleet, from, n int) error {
	t.Helper()
	now := time.Now().UnixMilli()
	meter := encode(t, billing.Meter{Seq: 1 << 40, At: time.UnixMilli(now).UTC(), Status: cloudapi.StatusRunning, Size: seededSize(), Ran: true,
		Rates: map[string]billing.Micro{billing.Compute: 58000, billing.Storage: 2780}})
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
			Spec: vmmapi.Spec{ID: seededUUID(i), Name: seededName(i), AppID: app,
				Resources: vmmapi.Resources{VCPU: 1, MemoryMiB: 2048, DiskMiB: 20 << 10}}})
		return []any{i + 1, p.WorkspaceID, p.UserID, seededUUID(i), seededName(i), seededApp(i), seededApp(i), nodeIDs[node], cloudapi.StatusRunning, 1, now, now, seededBody(t, i, now)}
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
		c, hash := seededCompose(t, i)
		return []any{i + 1, p.WorkspaceID, seededApp(i), 1, hash, store.Deploy, now, c}
	}); err != nil {
		return err
	}
	if err := insert("meters", "cvm_id, workspace_id, at, running, body", func(i int) []any {
		return []any{i + 1, p.WorkspaceID, now, 1, meter}
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
	if err := seedSums(tx, p.WorkspaceID, nodeIDs, from, n, now); err != nil {
		return err
	}
	if tx.Kind == sqldb.Postgres {
		_, err = tx.ExecContext(context.Background(), `SELECT setval(pg_get_serial_sequence('cvms', 'id'), GREATEST(1000000, (SELECT MAX(id) FROM cvms)))`) // behind all that are seeded
	}
	return err
}

// seedSums keeps the sums that the store keeps, and what it finds names by.
func seedSums(tx *sqldb.Tx, workspace int64, nodeIDs []int64, from, n int, now int64) error {
	ctx := context.Background()
	for i := from; i < from+n; {
		node := i / perNode
		some := min((node+1)*perNode, from+n) - i
		_, err := tx.ExecContext(ctx, `INSERT INTO node_rooms (node_id, vcpu, memory_mib, disk_gb) VALUES (?, ?, ?, ?)
			ON CONFLICT (node_id) DO UPDATE SET vcpu = node_rooms.vcpu + excluded.vcpu, memory_mib = node_rooms.memory_mib + excluded.memory_mib, disk_gb = node_rooms.disk_gb + excluded.disk_gb`,
			nodeIDs[node%len(nodeIDs)], some, some*2048, some*20)
		if err != nil {
			return err
		}
		i += some
	}
	const rate, hour = 58000 + 2780, 3600_000
	if _, err := tx.ExecContext(ctx, `INSERT INTO meter_sums (workspace_id, rate, hours, rest) VALUES (?, ?, ?, ?)
		ON CONFLICT (workspace_id) DO UPDATE SET rate = meter_sums.rate + excluded.rate, hours = meter_sums.hours + excluded.hours, rest = meter_sums.rest + excluded.rest`,
		workspace, n*rate, int64(n)*rate*(now/hour), int64(n)*rate*(now%hour)); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `WITH RECURSIVE place (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM place WHERE i < 20)
		INSERT INTO name_grams (workspace_id, gram, cvm_id) SELECT DISTINCT workspace_id, substr(lower(name), i, 3), id FROM cvms, place
		WHERE id > ? AND id <= ? AND i <= length(name) - 2`, from, from+n); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO workspace_sums (workspace_id, cvms, apps, vcpu, memory_mib, disk_gb) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (workspace_id) DO UPDATE SET cvms = workspace_sums.cvms + excluded.cvms, apps = workspace_sums.apps + excluded.apps,
		vcpu = workspace_sums.vcpu + excluded.vcpu, memory_mib = workspace_sums.memory_mib + excluded.memory_mib, disk_gb = workspace_sums.disk_gb + excluded.disk_gb`,
		workspace, n, n, n, n*2048, n*20)
	return err
}
