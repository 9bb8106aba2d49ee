-- +goose Up
-- Sums that each change of a CVM keeps, so that nobody has to read all CVMs: what is
-- promised on a node (of a stopped CVM its disk), and what a workspace's CVMs hold.
CREATE TABLE node_rooms (
  node_id INTEGER NOT NULL PRIMARY KEY REFERENCES nodes (id),
  vcpu INTEGER NOT NULL,
  memory_mib INTEGER NOT NULL,
  disk_gb INTEGER NOT NULL
);
INSERT INTO node_rooms (node_id, vcpu, memory_mib, disk_gb)
  SELECT node_id, SUM(CASE WHEN status IN ('stopped', 'failed') THEN 0 ELSE json_extract(body, '$.vcpu') END),
    SUM(CASE WHEN status IN ('stopped', 'failed') THEN 0 ELSE json_extract(body, '$.memory_mib') END), SUM(json_extract(body, '$.disk_gb'))
  FROM cvms WHERE deleted_at = 0 GROUP BY node_id;
CREATE TABLE workspace_sums (
  workspace_id INTEGER NOT NULL PRIMARY KEY REFERENCES workspaces (id),
  cvms INTEGER NOT NULL,
  apps INTEGER NOT NULL,
  vcpu INTEGER NOT NULL,
  memory_mib INTEGER NOT NULL,
  disk_gb INTEGER NOT NULL
);
INSERT INTO workspace_sums (workspace_id, cvms, apps, vcpu, memory_mib, disk_gb)
  SELECT workspace_id, COUNT(*), COUNT(DISTINCT app_id), SUM(json_extract(body, '$.vcpu')), SUM(json_extract(body, '$.memory_mib')), SUM(json_extract(body, '$.disk_gb'))
  FROM cvms WHERE deleted_at = 0 GROUP BY workspace_id;
-- An hour's cost of what stands open, and what the last rounding left, for sums.
ALTER TABLE meters ADD COLUMN compute_rate INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meters ADD COLUMN storage_rate INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meters ADD COLUMN compute_rest INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meters ADD COLUMN storage_rest INTEGER NOT NULL DEFAULT 0;
UPDATE meters SET compute_rate = COALESCE(json_extract(body, '$.rates.compute'), 0), storage_rate = COALESCE(json_extract(body, '$.rates.storage'), 0),
  compute_rest = COALESCE(json_extract(body, '$.rest.compute'), 0), storage_rest = COALESCE(json_extract(body, '$.rest.storage'), 0) WHERE running = 1;
CREATE INDEX meters_open ON meters (workspace_id) WHERE running = 1;
-- What a search looks at, without the rest of the CVM.
CREATE INDEX cvms_searched ON cvms (workspace_id, id, name, app_id, uuid, instance_id) WHERE deleted_at = 0;
CREATE INDEX cvms_newest ON cvms (workspace_id, app_id, id) WHERE deleted_at = 0;
CREATE INDEX idempotent_answers_open ON idempotent_answers (created_at) WHERE status = 0;
