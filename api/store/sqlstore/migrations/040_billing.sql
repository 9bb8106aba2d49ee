-- +goose Up
CREATE TABLE price_lists (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  effective_at INTEGER NOT NULL,
  body TEXT NOT NULL
);
CREATE TABLE accounts (
  workspace_id INTEGER NOT NULL PRIMARY KEY REFERENCES workspaces (id),
  tier TEXT NOT NULL,
  post_paid INTEGER NOT NULL,
  state TEXT NOT NULL,
  since INTEGER NOT NULL,
  paid INTEGER NOT NULL,
  granted INTEGER NOT NULL,
  used INTEGER NOT NULL
);
-- Amounts are micro-units. Lines are only ever added.
CREATE TABLE ledger (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  workspace_id INTEGER NOT NULL REFERENCES workspaces (id),
  key TEXT NOT NULL,
  kind TEXT NOT NULL,
  cvm_id INTEGER NOT NULL,
  app_id TEXT NOT NULL,
  amount INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL
);
CREATE UNIQUE INDEX ledger_key ON ledger (workspace_id, key);
CREATE INDEX ledger_time ON ledger (workspace_id, started_at, id);
CREATE INDEX ledger_cvm ON ledger (cvm_id, id);
-- Where the reading of each CVM's events stands.
CREATE TABLE meters (
  cvm_id INTEGER NOT NULL PRIMARY KEY REFERENCES cvms (id),
  workspace_id INTEGER NOT NULL,
  at INTEGER NOT NULL,
  running INTEGER NOT NULL,
  body TEXT NOT NULL
);
CREATE INDEX meters_running ON meters (at) WHERE running = 1;
-- CVMs with events that were not metered yet: all that are there already.
CREATE TABLE meter_due (
  cvm_id INTEGER NOT NULL PRIMARY KEY REFERENCES cvms (id)
);
INSERT INTO meter_due (cvm_id) SELECT id FROM cvms WHERE deleted_at = 0;
