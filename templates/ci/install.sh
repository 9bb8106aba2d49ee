#!/usr/bin/env bash
# Installs the phala program of PHALA_URL, if it is the one of PHALA_SHA256.
# Absence of a checksum is refusal: whoever can change that file could deploy as you.
set -euo pipefail
fail() { echo "install phala: $*" >&2; exit 1; }
url=${PHALA_URL:-} sum=${PHALA_SHA256:-}
[ -n "$url" ] || fail "no URL: set phala-url to where phala for this runner is published"
[[ $sum =~ ^[0-9a-f]{64}$ ]] || fail "phala-sha256 must be the 64 hex digits of the program's SHA-256"
case $url in
  https://* | http://127.0.0.1:*) ;;
  *) fail "the URL must begin with https://" ;;
esac
dir=${RUNNER_TEMP:-${CI_BUILDS_DIR:-${TMPDIR:-/tmp}}}/phala-bin
mkdir -p "$dir"
part=$(mktemp "$dir/.phala.XXXXXX")
trap 'rm -f "$part"' EXIT
curl --fail --silent --show-error --location --proto '=https,http' --proto-redir '=https' --retry 3 --max-time 300 --output "$part" "$url" ||
  fail "the program could not be downloaded"
echo "$sum  $part" | sha256sum --check --status || fail "what was downloaded has SHA-256 $(sha256sum "$part" | cut -d' ' -f1), not $sum: it was not installed"
chmod 0755 "$part"
mv "$part" "$dir/phala"
[ -z "${GITHUB_PATH:-}" ] || echo "$dir" >>"$GITHUB_PATH"
echo "$dir/phala"
