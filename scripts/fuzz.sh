#!/usr/bin/env bash
# Fuzzes every target in turn, two at a time on one core each:
#   scripts/fuzz.sh SECONDS [DIRECTORY...]    (default: the whole repository)
# Ends with the number of targets; the first finding's log is shown.
set -eu -o pipefail
cd "$(dirname "$0")/.."
seconds=$1; shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
corpus=$(go env GOCACHE)/fuzz/$(go list -m) # where go test keeps it
export seconds work corpus
binary() { GOGC=400 go test -c -vet=off -fuzz . -o "$work/${1//\//_}.test" "./$1"; } # binary PACKAGE: linked once for all of its targets
one() { # one PACKAGE TARGET
  local log="$work/${1//\//_}.$2.log"
  (cd "$1" && GOMAXPROCS=1 "$work/${1//\//_}.test" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "${seconds}s" -test.fuzzminimizetime 10x \
    -test.parallel 1 -test.fuzzcachedir "$corpus/$1") >"$log" 2>&1 && return
  # Go's fuzzer sometimes calls the end of its own time a failure.
  if grep -q 'context deadline exceeded' "$log" && ! grep -q -e 'Failing input' -e panic "$log"; then
    echo "note: $1 $2 ended by its clock: $(grep -o 'execs: [0-9]*' "$log" | tail -n 1)"; return
  fi
  echo "FAIL fuzz $1 $2"; cat "$log"; return 1
}
export -f binary one
git grep -o '^func Fuzz[A-Za-z0-9_]*' -- "${@:-.}" | grep '_test\.go:' | sed -E 's|/[^/]*:func | |' | sort -u >"$work/targets"
cut -d' ' -f1 "$work/targets" | sort -u | xargs -P 2 -L 1 bash -c 'binary "$0"'
xargs -P 2 -L 1 bash -c 'one "$0" "$1"' <"$work/targets"
echo "fuzz: $(wc -l <"$work/targets") targets, $seconds s each"
