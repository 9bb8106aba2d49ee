#!/usr/bin/env bash
# Deploys a compose file with phala: a name that is there is updated in place, else
# it is made. Everything comes from the environment; nothing secret is an argument
# or stays on the disk. Outputs go to GITHUB_OUTPUT, or to the dotenv file
# PHALA_OUTPUT, in which dashes are underscores.
set -euo pipefail
umask 077
fail() { echo "deploy: $*" >&2; exit 2; }
need() { [ -n "${!1:-}" ] || fail "$2 is missing"; }
need PHALA_CLOUD_API_KEY "the API key (phala-api-key)"
need CVM_NAME "the name (cvm-name)"
need COMPOSE_FILE "the compose file (compose-file)"
[ -f "$COMPOSE_FILE" ] || fail "there is no compose file $COMPOSE_FILE"

# Disk of the runner, for this run only.
home=$(mktemp -d "${RUNNER_TEMP:-${TMPDIR:-/tmp}}/phala-deploy.XXXXXX")
trap 'rm -rf "$home"' EXIT
export PHALA_CLOUD_DIR=$home NO_COLOR=1

if [ -n "${WALLET_KEY:-}" ]; then
  head -c 32 /dev/urandom | base64 -w0 >"$home/pass"
  export PHALA_WALLET_PASSPHRASE_FILE=$home/pass
  phala wallet import --network "${WALLET_NETWORK:-dev}" <<<"$WALLET_KEY" >/dev/null
fi
unset WALLET_KEY

output() {
  echo "$1: $2"
  if [ -n "${GITHUB_OUTPUT:-}" ]; then echo "$1=$2" >>"$GITHUB_OUTPUT"; fi
  if [ -n "${PHALA_OUTPUT:-}" ]; then echo "${1//-/_}=$2" >>"$PHALA_OUTPUT"; fi
}

args=(deploy --json --compose "$COMPOSE_FILE")
if [ -n "${TRUST_PROFILE:-}" ]; then args+=(--trust "$TRUST_PROFILE"); fi
if [ -n "${PRE_LAUNCH_SCRIPT:-}" ]; then args+=(--pre-launch-script "$PRE_LAUNCH_SCRIPT"); fi
if [ -n "${ENVS:-}" ]; then # NAME: value and NAME=value, one per line
  sed -E '/^[[:space:]]*(#|$)/d; s/^[[:space:]]*([A-Za-z_][A-Za-z0-9_]*)[[:space:]]*:[[:space:]]*/\1=/' <<<"$ENVS" >"$home/envs"
  args+=(--env "$home/envs")
fi
unset ENVS
if [ "${WAIT:-true}" = false ]; then args+=(--no-wait); fi

# An update takes no size: the one that the CVM has stays.
ref=${APP_ID:-$CVM_NAME} found=0
phala cvms get "$ref" --json >"$home/get" 2>&1 || found=$?
case $found in
  0) ;;
  4) [ -z "${APP_ID:-}" ] || fail "there is no CVM of app $APP_ID" ;;
  *) cat "$home/get" >&2; exit "$found" ;;
esac
if [ "$found" = 0 ]; then
  args+=(--cvm-id "$ref")
else
  args+=(--name "$CVM_NAME")
  if [ -n "${INSTANCE_TYPE:-}" ]; then
    args+=(--instance-type "$INSTANCE_TYPE")
  else
    args+=(--vcpu "${VCPU:-2}" --memory "${MEMORY:-2048}")
  fi
  args+=(--disk-size "${DISK_SIZE:-40}")
  if [ -n "${REGION:-}" ]; then args+=(--region "$REGION"); fi
  if [ -n "${NODE_ID:-}" ]; then args+=(--node-id "$NODE_ID"); fi
  if [ -n "${BASE_IMAGE:-}" ]; then args+=(--image "$BASE_IMAGE"); fi
fi

code=0
timeout --signal TERM "${WAIT_TIMEOUT:-900}" phala "${args[@]}" >"$home/answer" || code=$?
[ "$code" != 124 ] || echo "deploy: not ready after ${WAIT_TIMEOUT:-900} s; it goes on in the cloud" >&2
if [ "$code" != 0 ]; then
  cat "$home/answer" >&2
  output deployment-status failed
  exit "$code"
fi
field() { sed -nE 's/^ {2}"'"$1"'": "(.*)",?$/\1/p' "$home/answer" | head -n 1; }
operation=update
if [ "$(field action)" = created ]; then operation=create; fi
output cvm-id "$(field vm_uuid)"
output app-id "$(field app_id)"
output cvm-name "$(field name)"
output deployment-status "$(field status)"
output deployment-url "$(sed -nE '/^ {2}"urls": \[/,/\]/s/^ *"(https:[^"]*)",?$/\1/p' "$home/answer" | head -n 1)"
output operation "$operation"
output compose-hash "$(field compose_hash)"
