-- +goose Up
-- Which API processes live (on PostgreSQL, where there may be several).
CREATE TABLE api_processes (
  id TEXT PRIMARY KEY,
  seen_at INTEGER NOT NULL
);
