-- +goose Up
-- GPUs, beside CPU, memory and disk. No CVM had one before.
ALTER TABLE node_rooms ADD COLUMN gpus INTEGER NOT NULL DEFAULT 0;
ALTER TABLE reservations ADD COLUMN gpus INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workspace_sums ADD COLUMN gpus INTEGER NOT NULL DEFAULT 0;
