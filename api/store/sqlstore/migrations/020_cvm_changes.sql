-- +goose Up
-- Which operation an event belongs to (0: before this was kept).
ALTER TABLE events ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
CREATE INDEX events_operation ON events (cvm_id, generation, seq);
-- Changes that wait for governance; token is the sha256 of the commit token.
CREATE TABLE prepared_changes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  token BLOB NOT NULL UNIQUE,
  workspace_id INTEGER NOT NULL REFERENCES workspaces (id),
  cvm_id INTEGER NOT NULL REFERENCES cvms (id),
  slot TEXT NOT NULL,
  compose_hash TEXT NOT NULL,
  state TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  committed_cvm INTEGER NOT NULL DEFAULT 0,
  committed_generation INTEGER NOT NULL DEFAULT 0,
  body TEXT NOT NULL
);
CREATE INDEX prepared_changes_cvm ON prepared_changes (cvm_id, slot);
CREATE TABLE scheduled_deletions (
  cvm_id INTEGER NOT NULL PRIMARY KEY REFERENCES cvms (id),
  delete_at INTEGER NOT NULL
);
CREATE INDEX scheduled_deletions_at ON scheduled_deletions (delete_at);
CREATE TABLE idempotent_answers (
  scope BLOB NOT NULL PRIMARY KEY,
  request BLOB NOT NULL,
  status INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  body BLOB
);
CREATE INDEX idempotent_answers_at ON idempotent_answers (created_at);
