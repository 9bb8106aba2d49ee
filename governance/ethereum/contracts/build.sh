#!/bin/sh
# Compiles the contracts and writes artifacts/ and bindings.go.
#   build.sh          rebuild in place
#   build.sh --check  rebuild elsewhere and fail if what is checked in differs
# Needs node with npm (for solc and OpenZeppelin, pinned by package-lock.json) and go.
set -eu
cd "$(dirname "$0")"
here=$PWD
check=no
case "${1:-}" in
"") ;;
--check) check=yes ;;
*) echo "usage: build.sh [--check]" >&2; exit 2 ;;
esac
command -v npm >/dev/null || { echo "error: npm is missing: install nodejs and npm (apt-get install -y nodejs npm)" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r package.json package-lock.json .npmrc compile.mjs src "$work/"
cd "$work"
npm ci --silent --ignore-scripts >npm.log 2>&1 || { cat npm.log >&2; exit 1; }
node compile.mjs "$work/artifacts"
cd "$here"
go run generate.go "$work/artifacts" "$work/bindings.go"
if [ "$check" = yes ]; then
	if diff -r artifacts "$work/artifacts" >/dev/null && diff bindings.go "$work/bindings.go" >/dev/null; then
		echo "contracts: artifacts and bindings are what the sources give"
		exit 0
	fi
	echo "error: the checked-in artifacts or bindings differ from what the sources give; run governance/ethereum/contracts/build.sh and commit the result" >&2
	exit 1
fi
mkdir -p artifacts
cp "$work"/artifacts/*.json artifacts/
cp "$work/bindings.go" bindings.go
