-- +goose Up
CREATE TABLE attestations (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  checksum TEXT NOT NULL UNIQUE,
  verified INTEGER NOT NULL,
  tcb_status TEXT NOT NULL,
  summary TEXT NOT NULL,
  ppid TEXT NOT NULL,
  device_id TEXT NOT NULL,
  quote BLOB NOT NULL,
  collateral BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  verified_at INTEGER NOT NULL
);
