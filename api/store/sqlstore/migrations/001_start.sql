-- +goose Up
CREATE TABLE workspaces (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  slug TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL
);
CREATE TABLE users (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  workspace_id INTEGER NOT NULL REFERENCES workspaces (id),
  username TEXT NOT NULL UNIQUE,
  email TEXT NOT NULL,
  role TEXT NOT NULL,
  created_at INTEGER NOT NULL
);
-- sha256 is enough for keys of 256 random bits; only passwords need argon2.
CREATE TABLE api_keys (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users (id),
  workspace_id INTEGER NOT NULL REFERENCES workspaces (id),
  name TEXT NOT NULL,
  prefix TEXT NOT NULL,
  hash BLOB NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  last_used_at INTEGER NOT NULL DEFAULT 0,
  revoked_at INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE nodes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  url TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL
);
CREATE TABLE cvms (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  workspace_id INTEGER NOT NULL REFERENCES workspaces (id),
  user_id INTEGER NOT NULL REFERENCES users (id),
  uuid TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  app_id TEXT NOT NULL,
  instance_id TEXT NOT NULL DEFAULT '',
  node_id INTEGER NOT NULL REFERENCES nodes (id),
  status TEXT NOT NULL,
  generation INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  deleted_at INTEGER NOT NULL DEFAULT 0,
  body TEXT NOT NULL
);
CREATE UNIQUE INDEX cvms_live_name ON cvms (workspace_id, name) WHERE deleted_at = 0;
CREATE INDEX cvms_app ON cvms (app_id);
CREATE INDEX cvms_node ON cvms (node_id) WHERE deleted_at = 0;
CREATE TABLE operations (
  cvm_id INTEGER NOT NULL REFERENCES cvms (id),
  generation INTEGER NOT NULL,
  kind TEXT NOT NULL,
  state TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  finished_at INTEGER NOT NULL DEFAULT 0,
  body TEXT NOT NULL,
  PRIMARY KEY (cvm_id, generation)
);
CREATE INDEX operations_open ON operations (cvm_id) WHERE finished_at = 0;
CREATE TABLE events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  cvm_id INTEGER NOT NULL REFERENCES cvms (id),
  vm_seq INTEGER,
  time INTEGER NOT NULL,
  body TEXT NOT NULL
);
CREATE INDEX events_cvm ON events (cvm_id, seq);
CREATE UNIQUE INDEX events_vm ON events (cvm_id, vm_seq) WHERE vm_seq IS NOT NULL;
CREATE TABLE provisions (
  workspace_id INTEGER NOT NULL REFERENCES workspaces (id),
  cvm_id INTEGER NOT NULL,
  compose_hash TEXT NOT NULL,
  expires_at INTEGER NOT NULL,
  committed_cvm INTEGER NOT NULL DEFAULT 0,
  body TEXT NOT NULL,
  PRIMARY KEY (workspace_id, cvm_id, compose_hash)
);
CREATE TABLE revisions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  cvm_id INTEGER NOT NULL REFERENCES cvms (id),
  workspace_id INTEGER NOT NULL,
  app_id TEXT NOT NULL,
  generation INTEGER NOT NULL,
  compose_hash TEXT NOT NULL,
  kind TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  app_compose BLOB NOT NULL
);
CREATE INDEX revisions_app ON revisions (app_id, id);
