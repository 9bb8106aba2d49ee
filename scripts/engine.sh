# Sourced: makes sure that a Docker engine answers. Where none does, and we are
# root, starts one of its own with its own socket and data, and stops it at exit.
engine_start() {
  if docker info >/dev/null 2>&1; then return 0; fi
  if [ "$(id -u)" != 0 ] || ! command -v dockerd >/dev/null; then
    echo "no Docker engine answers and none can be started here (root and dockerd are needed): container tests will skip" >&2
    return 0
  fi
  ENGINE_DIR=$(mktemp -d /tmp/phala-engine.XXXXXX)
  dockerd --host "unix://$ENGINE_DIR/docker.sock" --data-root "$ENGINE_DIR/data" --exec-root "$ENGINE_DIR/exec" \
    --pidfile "$ENGINE_DIR/pid" >"$ENGINE_DIR/log" 2>&1 &
  ENGINE_PID=$!
  export DOCKER_HOST="unix://$ENGINE_DIR/docker.sock"
  for _ in $(seq 1 100); do
    if docker info >/dev/null 2>&1; then return 0; fi
    kill -0 "$ENGINE_PID" 2>/dev/null || break
    sleep 0.2
  done
  tail -n 20 "$ENGINE_DIR/log" >&2
  echo "the Docker engine did not start" >&2
  return 1
}
engine_stop() {
  [ -n "${ENGINE_PID:-}" ] || return 0
  kill "$ENGINE_PID" 2>/dev/null || true
  wait "$ENGINE_PID" 2>/dev/null || true
  rm -rf "$ENGINE_DIR" 2>/dev/null || true
}
