-- +goose Up
-- What nodes proved of their platform (one proof each), and what happened to them.
CREATE TABLE node_proofs (
  node_id INTEGER NOT NULL PRIMARY KEY REFERENCES nodes (id),
  expires_at INTEGER NOT NULL,
  told INTEGER NOT NULL DEFAULT 0,
  body TEXT NOT NULL,
  fresh TEXT NOT NULL,
  evidence BLOB NOT NULL,
  checks TEXT NOT NULL
);
CREATE TABLE node_events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  node_id INTEGER NOT NULL REFERENCES nodes (id),
  time INTEGER NOT NULL,
  body TEXT NOT NULL
);
CREATE INDEX node_events_node ON node_events (node_id, seq);
