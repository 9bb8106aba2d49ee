#!/usr/bin/env bash
# gofmt, golangci (go vet where it cannot be had: golangci's govet has all its analyzers),
# govulncheck (when its database can be reached).
set -eu -o pipefail
cd "$(dirname "$0")/.."
bad=$(git ls-files '*.go' | xargs gofmt -l)
if [ -n "$bad" ]; then echo "gofmt is needed on:"; echo "$bad"; exit 1; fi
lint=$(command -v golangci-lint || echo "$(go env GOPATH)/bin/golangci-lint")
if [ ! -x "$lint" ]; then
  echo "building golangci-lint (once, some minutes)"
  GOGC=400 go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 || echo "SKIPPED golangci: it cannot be installed here"
fi
# With fewer collections it takes a third less processor time.
if [ -x "$lint" ]; then GOGC=300 GOMEMLIMIT=4GiB "$lint" run --allow-parallel-runners --timeout 30m ./...; else go vet ./...; fi
if command -v govulncheck >/dev/null; then
  rc=0; govulncheck ./... || rc=$?
  case $rc in
  0) ;;
  3) echo "govulncheck found something (above)"; exit 1 ;;
  *) echo "SKIPPED govulncheck: it did not run to the end (is its database reachable?)" ;;
  esac
else
  echo "SKIPPED govulncheck: not installed (its database is not reachable on the build machine)"
fi
