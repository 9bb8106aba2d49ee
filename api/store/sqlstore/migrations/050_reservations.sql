-- +goose Up
-- Room on a node that is promised to a CVM which is not stored yet.
CREATE TABLE reservations (
  id TEXT NOT NULL PRIMARY KEY,
  node_id INTEGER NOT NULL REFERENCES nodes (id),
  vcpu INTEGER NOT NULL,
  memory_mib INTEGER NOT NULL,
  disk_gb INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
);
CREATE INDEX reservations_node ON reservations (node_id, expires_at);
