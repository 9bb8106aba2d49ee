#!/usr/bin/env bash
# Fuzzes every target in turn, two at a time on one core each:
#   scripts/fuzz.sh SECONDS [DIRECTORY...]    (default: the whole repository)
# Ends with the number of targets; the first finding's log is shown.
set -eu -o pipefail
cd "$(dirname "$0")/.."
seconds=$1; shift
logs=$(mktemp -d)
one() { # one SECONDS LOGS PACKAGE TARGET
  local log="$2/${3//\//_}.$4"
  GOMAXPROCS=1 go test "./$3" -run '^$' -fuzz "^$4\$" -fuzztime "${1}s" -fuzzminimizetime 10x -parallel 1 >"$log" 2>&1 && return
  # Go's fuzzer sometimes calls the end of its own time a failure.
  if grep -q 'context deadline exceeded' "$log" && ! grep -q -e 'Failing input' -e panic "$log"; then
    echo "note: $3 $4 ended by its clock: $(grep -o 'execs: [0-9]*' "$log" | tail -n 1)"; return
  fi
  echo "FAIL fuzz $3 $4"; cat "$log"; return 1
}
export -f one
git grep -o '^func Fuzz[A-Za-z0-9_]*' -- "${@:-.}" | grep '_test\.go:' | sed -E 's|/[^/]*:func | |' | sort -u |
  xargs -P 2 -L 1 bash -c 'one "$0" "$1" "$2" "$3"' "$seconds" "$logs"
echo "fuzz: $(ls "$logs" | wc -l) targets, $seconds s each"
rm -rf "$logs"
