-- +goose Up
-- What stands open in a workspace, so that a balance is one row: the rates of all open
-- meters, and, of what they have counted already, rate times the hours and rate times
-- the milliseconds beside them, less what the last rounding left. (Rate times time at
-- once would not fit.)
CREATE TABLE meter_sums (
  workspace_id INTEGER NOT NULL PRIMARY KEY REFERENCES workspaces (id),
  rate INTEGER NOT NULL,
  hours INTEGER NOT NULL,
  rest INTEGER NOT NULL
);
INSERT INTO meter_sums (workspace_id, rate, hours, rest)
  SELECT workspace_id, SUM(compute_rate + storage_rate), SUM((compute_rate + storage_rate) * (at / 3600000)),
    SUM((compute_rate + storage_rate) * (at % 3600000) - CASE WHEN compute_rate > 0 THEN compute_rest ELSE 0 END - CASE WHEN storage_rate > 0 THEN storage_rest ELSE 0 END)
  FROM meters WHERE running = 1 GROUP BY workspace_id;
DROP INDEX meters_open;
ALTER TABLE meters DROP COLUMN compute_rate;
ALTER TABLE meters DROP COLUMN storage_rate;
ALTER TABLE meters DROP COLUMN compute_rest;
ALTER TABLE meters DROP COLUMN storage_rest;
CREATE INDEX meters_open ON meters (workspace_id, at) WHERE running = 1;
-- Each three letters of a live CVM's name, in small letters: a search reads those of
-- its text that are in few names.
CREATE TABLE name_grams (
  workspace_id INTEGER NOT NULL,
  gram TEXT NOT NULL,
  cvm_id INTEGER NOT NULL,
  PRIMARY KEY (workspace_id, gram, cvm_id)
);
WITH RECURSIVE place (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM place WHERE i < 61)
  INSERT INTO name_grams (workspace_id, gram, cvm_id)
  SELECT DISTINCT workspace_id, substr(lower(name), i, 3), id FROM cvms, place WHERE deleted_at = 0 AND i <= length(name) - 2;
