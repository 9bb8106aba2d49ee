#!/bin/sh
# Builds the image twice, in different directories and surroundings, and compares the
# bytes: os/repro.sh [-l LEVEL] [-a AGENT] [FLAVOUR]... (default: container prod). Fails with the
# first file that differs, and in an archive with the first member. -l, -a: as build.sh's.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
repo=$(dirname "$here")
level=15
agent=
while getopts l:a: opt; do
	case $opt in
	l) level=$OPTARG ;;
	a) agent=$(realpath "$OPTARG") ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- container prod
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM

# tree DIR: the sources as git has them, changes in the work tree included.
tree() {
	mkdir -p "$1/os/cache"
	(cd "$repo" && git ls-files -z --cached --others --exclude-standard | xargs -0 sh -c 'for f; do [ ! -e "$f" ] || printf "%s\0" "$f"; done' sh |
		tar --null -T - -cf -) | tar -C "$1" -xf -
	# The packages are verified against the lock in each build; downloading them twice proves nothing.
	[ ! -d "$here/cache/debs" ] || cp -r "$here/cache/debs" "$1/os/cache/"
	[ ! -e "$here/cache/unlocked.lock" ] || cp "$here/cache/unlocked.lock" "$1/os/cache/"
}
tree "$tmp/a"
tree "$tmp/another/place/with a-longer.name"
b="$tmp/another/place/with a-longer.name"
echo "repro: first build"
(cd "$tmp/a" && umask 022 && TZ=UTC LC_ALL=C os/build.sh -l "$level" ${agent:+-a "$agent"} "$@")
echo "repro: second build"
# Another umask, time zone, locale, user's name, host name (where a namespace can be had), time to compile.
other() { (cd "$b" && umask 077 && TZ=Pacific/Kiritimati LC_ALL=C.UTF-8 LANG=tr_TR.UTF-8 USER=somebody HOME="$tmp/home" GOPATH="$(go env GOPATH)" \
	GOCACHE="$(go env GOCACHE)" GOMODCACHE="$(go env GOMODCACHE)" GOFLAGS=-p=1 "$@"); }
mkdir -p "$tmp/home"
if unshare --uts true 2>/dev/null; then
	other unshare --uts sh -c 'hostname elsewhere; exec "$@"' sh os/build.sh -l "$level" ${agent:+-a "$agent"} "$@"
else
	other os/build.sh -l "$level" ${agent:+-a "$agent"} "$@"
fi
cd "$repo" && go run ./os/imagediff "$tmp/a/build/images" "$b/build/images"
