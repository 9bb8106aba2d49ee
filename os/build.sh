#!/bin/sh
# Builds the guest image.
#
#   os/build.sh [-o DIR] [-a AGENT_BINARY] [-l LEVEL] [container|prod|dev]...
#
# container (the default): what the container driver runs: rootfs.tar (Debian with
# docker and compose), agent.tar (the guest agent, a layer of its own), metadata.json,
# sha256sum.txt and digest.txt, whose content is os_image_hash.
# prod, dev: what a virtual machine boots (docs/design/004-virtual-machines.md), of the
# same root filesystem; dev has ssh and a shell.
#
# -o  the directory of the image, for one flavour (default: below build/images)
# -a  a ready agent binary instead of building cmd/phala-guest-agent
# -l  compression of the machine's root filesystem: 1 (seconds) to 22; the default, 15,
#     is the released image's
#
# PHALA_SNP_FIRMWARE=FILE takes that firmware for SEV-SNP machines into prod and dev.
# The packages are those of os/packages.lock. PHALA_IMAGE_UNLOCKED=1 takes what the
# archive has today instead, and says so. Exit code 3: the archive no longer has a locked
# version. What did not change is not built again; os/cache keeps packages and parts.
set -eu
umask 022
LC_ALL=C
TZ=UTC
export LC_ALL TZ
here=$(cd "$(dirname "$0")" && pwd)
repo=$(dirname "$here")
cache=${PHALA_IMAGE_CACHE:-$here/cache}
out=
agent=
level=${PHALA_IMAGE_LEVEL:-15}
say() { echo "image: $*"; }
fail() {
	echo "image: $*" >&2
	exit 1
}
while getopts o:a:l: opt; do
	case $opt in
	o) out=$OPTARG ;;
	a) agent=$OPTARG ;;
	l) level=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- container
case $out in "" | /*) ;; *) out=$PWD/$out ;; esac
[ -z "$out" ] || [ $# = 1 ] || fail "-o is for one flavour, and $# were asked for"
sum() { sha256sum "$1" | cut -d' ' -f1; }
mkdir -p "$cache"

# One build at a time: two would write the same files.
exec 9>"$cache/.lock"
if ! flock -n 9; then
	say "waiting for another build"
	flock 9
fi
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
trap 'exit 130' INT TERM

# Everything in the image has this time, so equal inputs give equal bytes.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1767225600}
export SOURCE_DATE_EPOCH
version=$(cat "$here/VERSION")

# builder SCRIPT ARGS...: runs one of os/*.sh here, or in a container where this
# machine has no mmdebstrap. The builder's Debian is only a place to run in.
builder() {
	script=$1
	shift
	if command -v mmdebstrap >/dev/null 2>&1; then
		sh "$here/$script" "$@"
	elif command -v docker >/dev/null 2>&1 && docker version >/dev/null 2>&1; then
		say "in a container: this machine has no mmdebstrap"
		docker run --rm --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
			-e SOURCE_DATE_EPOCH -e PHALA_DEBIAN_MIRROR -v "$here:$here:ro" -v "$cache:$cache" debian:trixie-slim \
			sh -c 'apt-get update -qq && apt-get install -qqy --no-install-recommends mmdebstrap >/dev/null && exec sh "$@"' sh "$here/$script" "$@"
	else
		fail "needs mmdebstrap or a running Docker engine; on Debian and Ubuntu: apt-get install mmdebstrap"
	fi
}

lock=$here/packages.lock
unlocked=
if [ "${PHALA_IMAGE_UNLOCKED:-}" = 1 ]; then
	unlocked=-unlocked
	say "UNLOCKED: building from what Debian's archive has now; another build may differ"
	lock=$cache/unlocked.lock
	builder debs.sh lock "$lock" "$cache/debs"
fi

# want SETS: the digest of what the lock says about them.
want() { { grep -E "^($1) " "$lock" && cat "$here/rootfs.sh" "$here/prune.sh" && echo "$SOURCE_DATE_EPOCH"; } | sha256sum | cut -c1-16; }

fetched=
fetch() {
	[ -z "$fetched" ] || return 0
	builder debs.sh fetch "$lock" "$cache/debs"
	fetched=1
}

# rootfs FLAVOUR SETS: sets base to the Debian part, a tar in the cache.
rootfs() {
	base=$cache/rootfs-$1-$(want "$2").tar
	if [ ! -s "$base" ]; then
		fetch
		say "building the root filesystem ($1; about half a minute)"
		builder rootfs.sh "$1" "$lock" "$cache/debs" "$cache/.rootfs.tar" || fail "the root filesystem ($1) was not built; see the messages above"
		mv "$cache/.rootfs.tar" "$base"
		sum "$base" >"$base.sha256"
	fi
	[ -s "$base.sha256" ] || sum "$base" >"$base.sha256"
}

# program NAME: builds a static program of ours into the stage.
program() {
	(cd "$repo" && CGO_ENABLED=0 GOOS=linux GOARCH=amd64 GOFLAGS= go build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' -o "$stage/$1" "./cmd/$1") ||
		fail "$1 does not build"
	chmod 755 "$stage/$1"
}
if [ -n "$agent" ]; then
	install -m 755 "$agent" "$stage/phala-guest-agent"
else
	say "building the guest agent"
	program phala-guest-agent
fi

container() {
	out=${out:-$repo/build/images/phala-container}
	rootfs prod base
	root=$stage/root
	mkdir -p "$root/usr/bin" "$root/var/lib/phala" "$stage/c" "$out"
	cp "$stage/phala-guest-agent" "$root/usr/bin/"
	chmod 755 "$root/usr" "$root/usr/bin" "$root/var" "$root/var/lib"
	chmod 700 "$root/var/lib/phala"
	# Only what is ours: an entry for /usr or /var would change the mode of the image's own.
	tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu \
		-C "$root" -cf "$stage/c/agent.tar" usr/bin/phala-guest-agent var/lib/phala
	cat >"$stage/c/metadata.json" <<-E
		{"bios":"","kernel":"","cmdline":"","initrd":"","rootfs":"rootfs.tar","version":"$version","git_revision":"","shared_ro":true,"is_dev":true,"overlay":"agent.tar","driver":"container"}
	E
	{
		echo "$(cat "$base.sha256")  rootfs.tar"
		echo "$(sum "$stage/c/agent.tar")  agent.tar"
		echo "$(sum "$stage/c/metadata.json")  metadata.json"
	} >"$stage/c/sha256sum.txt"
	sum "$stage/c/sha256sum.txt" >"$stage/c/digest.txt"
	if cmp -s "$stage/c/digest.txt" "$out/digest.txt" && [ -s "$out/rootfs.tar" ]; then
		say "unchanged: $(cat "$out/digest.txt")"
		return
	fi
	# digest.txt goes first and comes last: a build that was cut off is no image.
	rm -f "$out/digest.txt"
	if ! cmp -s "$base" "$out/rootfs.tar"; then
		rm -f "$out/rootfs.tar"
		ln "$base" "$out/rootfs.tar" 2>/dev/null || cp "$base" "$out/rootfs.tar"
	fi
	publish "$stage/c"
}

# machine FLAVOUR SETS NAME: the image of a virtual machine.
machine() {
	out=${out:-$repo/build/images/$3}
	command -v mksquashfs >/dev/null 2>&1 || fail "needs mksquashfs: apt-get install squashfs-tools"
	command -v xz >/dev/null 2>&1 || fail "needs xz: apt-get install xz-utils"
	rootfs "$1" "$2"
	boot=$cache/boot-$(want boot)
	if [ ! -d "$boot" ]; then
		fetch
		mkdir "$stage/boot"
		for p in $(grep '^boot ' "$lock" | while read -r _ name v arch _; do echo "${name}_$(echo "$v" | sed 's/:/%3a/')_$arch.deb"; done); do
			dpkg-deb -x "$cache/debs/$p" "$stage/boot"
		done
		mv "$stage/boot" "$boot"
	fi
	program phala-initramfs
	(cd "$repo" && GOFLAGS='' go build -trimpath -buildvcs=false -o "$stage/mkimage" ./os/mkimage) || fail "os/mkimage does not build"
	snp=
	if [ -n "${PHALA_SNP_FIRMWARE:-}" ]; then
		cp "$PHALA_SNP_FIRMWARE" "$stage/ovmf-sev.fd" || fail "PHALA_SNP_FIRMWARE: $PHALA_SNP_FIRMWARE cannot be read"
		snp=$(sum "$stage/ovmf-sev.fd")
	fi
	# Equal inputs: the image is there already. (The program is part of them.)
	key=$({ sum "$stage/mkimage" && sum "$stage/phala-guest-agent" && sum "$stage/phala-initramfs" && cat "$base.sha256" "$here/modules" "$lock" &&
		mksquashfs -version | head -n 1 && echo "$1 $version $level $unlocked $boot $snp" | sed 's#/.*/##'; } | sha256sum | cut -d' ' -f1)
	if [ -s "$out/digest.txt" ] && [ "$(cat "$cache/made-$3" 2>/dev/null)" = "$key $(cat "$out/digest.txt") $(stat -c '%s %Y' "$out/rootfs.img" 2>/dev/null)" ]; then
		say "unchanged: $(cat "$out/digest.txt")"
		return
	fi
	say "packing $3 (compression $level)"
	mkdir -p "$stage/m" "$out"
	devflag=
	[ "$1" != dev ] || devflag=-dev
	snpflag=
	[ -z "${PHALA_SNP_FIRMWARE:-}" ] || snpflag="-snp-firmware $stage/ovmf-sev.fd"
	"$stage/mkimage" -base "$base" -agent "$stage/phala-guest-agent" -init "$stage/phala-initramfs" -boot "$boot" -modules "$here/modules" \
		-lock "$lock" -version "$version" -epoch "$SOURCE_DATE_EPOCH" -level "$level" $devflag $snpflag $unlocked -out "$stage/m" || exit 1
	rm -f "$out/digest.txt" "$out/measurement.snp.cbor" "$out/ovmf-sev.fd"
	publish "$stage/m"
	echo "$key $(cat "$out/digest.txt") $(stat -c '%s %Y' "$out/rootfs.img")" >"$cache/made-$3"
}

# publish DIR: moves the files into out, digest.txt last.
publish() {
	chmod 644 "$1"/*
	for f in "$1"/*; do
		[ "$f" = "$1/digest.txt" ] || mv "$f" "$out/"
	done
	mv "$1/digest.txt" "$out/"
	say "built $(basename "$out"): $(cat "$out/digest.txt")"
}

for flavour; do
	case $flavour in
	container) container ;;
	prod) machine prod base "phala-$version" ;;
	dev) machine dev 'base|dev' "phala-dev-$version" ;;
	*) fail "unknown flavour $flavour: want container, prod or dev" ;;
	esac
	out= # the next has its own
	rm -rf "$stage/m" "$stage/c" "$stage/root"
done
