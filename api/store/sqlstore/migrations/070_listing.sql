-- +goose Up
-- What lists and references look for, among many CVMs.
CREATE INDEX cvms_of_workspace ON cvms (workspace_id, id) WHERE deleted_at = 0;
CREATE INDEX cvms_name ON cvms (workspace_id, name);
CREATE INDEX cvms_instance ON cvms (instance_id);
CREATE INDEX provisions_expiry ON provisions (expires_at);
