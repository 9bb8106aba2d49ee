#!/bin/sh
# base.sh FILE.tar: the root filesystem with Node below the wallet app's image, made once.
set -eu
out=${1:?usage: base.sh FILE.tar}
mkdir -p "$(dirname "$out")"
exec 9>"$out.lock" # one at a time: the other finds it made
flock 9
[ ! -s "$out" ] || exit 0
new=${out%.tar}.new.tar # the name's end chooses the format
mmdebstrap --quiet --variant=minbase --include=nodejs trixie "$new"
mv "$new" "$out"
