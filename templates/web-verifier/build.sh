#!/usr/bin/env bash
# Builds dist/: the verifier (wasm/) and Go's own loader, from this checkout and its
# Go. Prints the sizes that a page has to load.
set -eu -o pipefail
cd "$(dirname "$0")"
out=${1:-dist}
mkdir -p "$out"
CGO_ENABLED=0 GOOS=js GOARCH=wasm ${GO:-go} build -trimpath -ldflags '-s -w -buildid=' -o "$out/verifier.wasm" ./wasm
cp "$(${GO:-go} env GOROOT)/lib/wasm/wasm_exec.js" "$out/wasm_exec.js"
for f in verifier.wasm wasm_exec.js; do
  printf '%s: %d bytes, %d with gzip -9\n' "$f" "$(wc -c <"$out/$f")" "$(gzip -9 -n -c "$out/$f" | wc -c)"
done
