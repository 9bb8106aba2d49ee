#!/bin/sh
# Builds the guest image of the container driver: a Debian root filesystem with
# docker and docker compose, and the guest agent as a layer of its own.
#
#   os/build.sh [-o DIR] [-a AGENT_BINARY]
#
# DIR (default build/images/phala-container) receives rootfs.tar, agent.tar,
# metadata.json, sha256sum.txt and digest.txt; the content of digest.txt is
# os_image_hash. What did not change is not built again: the root filesystem is
# kept in os/cache by the digest of its recipe, the agent takes seconds.
# -a takes a ready agent binary instead of building cmd/phala-guest-agent.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
repo=$(dirname "$here")
out=$repo/build/images/phala-container
agent=
while getopts o:a: opt; do
	case $opt in
	o) out=$OPTARG ;;
	a) agent=$OPTARG ;;
	*) exit 2 ;;
	esac
done
case $out in /*) ;; *) out=$PWD/$out ;; esac
cache=$here/cache
mkdir -p "$out" "$cache"
say() { echo "image: $*"; }
fail() {
	echo "image: $*" >&2
	exit 1
}
sum() { sha256sum "$1" | cut -d' ' -f1; }

# One build at a time: two would write the same files.
exec 9>"$cache/.lock"
if ! flock -n 9; then
	say "waiting for another build"
	flock 9
fi

# The recipe: what decides the root filesystem. Timestamps inside are clamped to
# SOURCE_DATE_EPOCH, so equal package versions give equal bytes.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1767225600}
export SOURCE_DATE_EPOCH
recipe=$(cat "$here/rootfs.sh" "$here/packages" | sha256sum | cut -c1-16)
base=$cache/rootfs-$recipe-$SOURCE_DATE_EPOCH.tar

if [ ! -s "$base" ]; then
	tmp=$cache/.rootfs.$$.tar
	trap 'rm -f "$tmp"' EXIT
	trap 'exit 130' INT TERM
	if command -v mmdebstrap >/dev/null 2>&1; then
		say "building the root filesystem (Debian trixie; about half a minute)"
		sh "$here/rootfs.sh" "$here/packages" "$tmp" ||
			fail "mmdebstrap failed; see the messages above (does \`apt-get update\` work on this machine?)"
	elif command -v docker >/dev/null 2>&1 && docker version >/dev/null 2>&1; then
		say "building the root filesystem in a container: this machine has no mmdebstrap"
		# The builder's Debian is only a place to run mmdebstrap in; what it makes is
		# checked by Debian's archive keys.
		docker run --rm --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
			-e SOURCE_DATE_EPOCH -v "$here:/os:ro" -v "$cache:/cache" debian:trixie-slim \
			sh -c 'apt-get update -qq && apt-get install -qqy --no-install-recommends mmdebstrap && sh /os/rootfs.sh /os/packages "/cache/$1"' sh "$(basename "$tmp")" ||
			fail "building inside a container failed; install mmdebstrap on this machine: apt-get install mmdebstrap"
	else
		fail "needs mmdebstrap or a running Docker engine; on Debian and Ubuntu: apt-get install mmdebstrap"
	fi
	mv "$tmp" "$base"
	sum "$base" >"$base.sha256"
	trap - EXIT INT TERM
	say "root filesystem: $(du -h "$base" | cut -f1)"
fi
[ -s "$base.sha256" ] || sum "$base" >"$base.sha256"

# The agent's layer.
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/root/usr/bin" "$stage/root/var/lib/phala"
if [ -n "$agent" ]; then
	cp "$agent" "$stage/root/usr/bin/phala-guest-agent"
else
	say "building the guest agent"
	(cd "$repo" && CGO_ENABLED=0 GOOS=linux go build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' \
		-o "$stage/root/usr/bin/phala-guest-agent" ./cmd/phala-guest-agent) || fail "the guest agent does not build"
fi
chmod 755 "$stage/root/usr/bin/phala-guest-agent" "$stage/root" "$stage/root/usr" "$stage/root/usr/bin" "$stage/root/var" "$stage/root/var/lib"
chmod 700 "$stage/root/var/lib/phala"
# Only what is ours: an entry for /usr or /var would change the mode of the image's own.
tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu \
	-C "$stage/root" -cf "$stage/agent.tar" usr/bin/phala-guest-agent var/lib/phala

version=$(cat "$here/VERSION")
cat >"$stage/metadata.json" <<EOF
{"bios":"","kernel":"","cmdline":"","initrd":"","rootfs":"rootfs.tar","version":"$version","git_revision":"","shared_ro":true,"is_dev":true,"overlay":"agent.tar","driver":"container"}
EOF
{
	echo "$(cat "$base.sha256")  rootfs.tar"
	echo "$(sum "$stage/agent.tar")  agent.tar"
	echo "$(sum "$stage/metadata.json")  metadata.json"
} >"$stage/sha256sum.txt"
sum "$stage/sha256sum.txt" >"$stage/digest.txt"

if cmp -s "$stage/digest.txt" "$out/digest.txt" && [ -s "$out/rootfs.tar" ]; then
	say "unchanged: $(cat "$out/digest.txt")"
	exit 0
fi
# digest.txt goes first and comes last: a build that was cut off is no image.
rm -f "$out/digest.txt"
if ! cmp -s "$base" "$out/rootfs.tar"; then
	ln -f "$base" "$out/rootfs.tar" 2>/dev/null || cp "$base" "$out/rootfs.tar"
fi
mv "$stage/agent.tar" "$stage/metadata.json" "$stage/sha256sum.txt" "$out/"
mv "$stage/digest.txt" "$out/"
chmod 644 "$out"/*.txt "$out"/*.json "$out/agent.tar"
say "built $(basename "$out"): $(cat "$out/digest.txt")"
