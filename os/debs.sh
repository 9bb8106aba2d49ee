#!/bin/sh
# The Debian packages of the image, by name, version and hash.
#
#   os/debs.sh lock FILE DIR    asks the archive what it has now: writes the lock FILE
#                               and downloads its packages into DIR
#   os/debs.sh fetch FILE DIR   makes sure that DIR holds every package of the lock
#                               FILE, downloads what is missing, verifies all
#
# The archive's signatures are checked by apt, and the hashes here: a lock that was
# reviewed decides, not the archive. PHALA_DEBIAN_MIRROR names another archive (one
# line: URL of the main archive, then of the security archive), for example one that
# keeps old versions. Exit code 3: the archive no longer has a locked version.
set -eu
umask 022
LC_ALL=C
export LC_ALL
here=$(cd "$(dirname "$0")" && pwd)
what=${1:?lock or fetch}
lock=${2:?lock file}
dir=${3:?directory}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
say() { echo "image: $*"; }
fail() {
	echo "image: $1" >&2
	exit "${2:-1}"
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM

# archive: an apt of our own, which knows the suites and no installed package.
archive() {
	mkdir -p "$tmp/etc/apt/preferences.d" "$tmp/etc/apt/apt.conf.d" "$tmp/var/lib/apt/lists/partial" "$tmp/var/cache/apt/archives/partial" "$tmp/var/lib/dpkg"
	: >"$tmp/var/lib/dpkg/status"
	if [ -n "${PHALA_DEBIAN_MIRROR:-}" ]; then
		# shellcheck disable=SC2086 # two words
		set -- $PHALA_DEBIAN_MIRROR
		printf 'deb %s trixie main\ndeb %s trixie-updates main\n' "$1" "$1" >"$tmp/sources"
		[ -z "${2:-}" ] || printf 'deb %s trixie-security main\n' "$2" >>"$tmp/sources"
	else
		# mmdebstrap knows where Debian is: it is asked, and stopped before it starts.
		mmdebstrap --quiet --variant=custom --setup-hook="cat \"\$1\"/etc/apt/sources.list >'$tmp/sources'; exit 1" trixie /dev/null >"$tmp/log" 2>&1 || true
		[ -s "$tmp/sources" ] || fail "mmdebstrap does not say where Debian's archive is: $(tail -n 1 "$tmp/log")"
	fi
	sed -n 's/ trixie main$/ trixie-backports main/p' "$tmp/sources" >>"$tmp/sources"
	mv "$tmp/sources" "$tmp/etc/apt/sources.list"
	cat >"$tmp/apt.conf" <<-E
		Dir "$tmp"; Dir::State::status "$tmp/var/lib/dpkg/status"; Dir::Etc::TrustedParts "/usr/share/keyrings";
		APT::Architecture "amd64"; APT::Architectures "amd64"; APT::Install-Recommends "false"; APT::Sandbox::User "root";
		Acquire::Languages "none"; Acquire::Check-Valid-Until "${PHALA_DEBIAN_MIRROR:+false}"; Acquire::Retries "3"; Dpkg::Use-Pty "false";
	E
	sed -i 's/Valid-Until ""/Valid-Until "true"/' "$tmp/apt.conf"
	export APT_CONFIG="$tmp/apt.conf"
	apt-get -qq update >"$tmp/log" 2>&1 || fail "apt-get update: $(tail -n 3 "$tmp/log")"
}

list() { grep -hv '^#' "$@"; }

# solve PACKAGES...: the packages that installing these into nothing means. (apt's own
# word for the essential ones includes apt; the image has no package manager.)
solve() {
	essential=$(apt-cache dumpavail | awk '/^Package: / { p = $2 } /^Essential: yes/ { print p }' | sort -u)
	# shellcheck disable=SC2086 # words
	apt-get -s -y install $essential "$@" >"$tmp/plan" 2>"$tmp/log" || fail "apt finds no solution: $(tail -n 3 "$tmp/log")"
	sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*\[\([a-z0-9]*\)\]).*/\1=\2/p' "$tmp/plan" | sort
}

deb() { echo "${1%%=*}_$(echo "${1#*=}" | sed 's/:/%3a/')"; } # apt's file name, up to the architecture

# describe SET NAME=VERSION...: lock lines of files in DIR.
describe() {
	set_=$1
	shift
	for p in "$@"; do
		for f in "$dir/$(deb "$p")"_*.deb; do
			[ -f "$f" ] || fail "$p was not downloaded"
			echo "$set_ ${p%%=*} ${p#*=} $(dpkg-deb -f "$f" Architecture) $(sha256sum "$f" | cut -d' ' -f1)"
		done
	done
}

renew() {
	archive
	# shellcheck disable=SC2046 # words
	base=$(solve $(list "$here/packages"))
	# shellcheck disable=SC2046
	all=$(solve $(list "$here/packages" "$here/packages.dev"))
	echo "$base" >"$tmp/base"
	dev=$(echo "$all" | grep -vxF -f "$tmp/base" || true)
	# The newest kernel for clouds of the backports, which is split in two, and the firmware.
	release=$(apt-cache search --names-only '^linux-binary-[0-9].*-cloud-amd64$' | sed 's/^linux-binary-\([^ ]*\) .*/\1/' | sort -V | tail -n 1)
	[ -n "$release" ] || fail "the archive has no linux-binary-*-cloud-amd64 (trixie-backports)"
	boot=
	for p in "linux-base-$release" "linux-binary-$release" "linux-modules-$release" ovmf; do
		boot="$boot $p=$(apt-cache policy "$p" | sed -n 's/^ *Candidate: //p')"
	done
	# shellcheck disable=SC2086
	(cd "$dir" && apt-get -qq download $base $dev $boot) >"$tmp/log" 2>&1 || fail "downloading: $(tail -n 3 "$tmp/log")"
	{
		echo "# SET NAME VERSION ARCHITECTURE SHA256. Written by \`make image-lock\`; review what changed."
		# shellcheck disable=SC2086
		{ describe base $base && describe dev $dev && describe boot $boot; } | sort
	} >"$tmp/lock"
	mv "$tmp/lock" "$lock"
	say "$lock: $(grep -c '^base' "$lock") packages, $(grep -c '^dev' "$lock") more for dev, kernel $release"
}

fetch() {
	[ -s "$lock" ] || fail "there is no lock file $lock: \`make image-lock\` writes it"
	list "$lock" | while read -r _ name version arch sum; do
		f=$(deb "$name=$version")_$arch.deb
		echo "$sum  $f" >>"$tmp/sums"
		[ -s "$dir/$f" ] || echo "$name=$version" >>"$tmp/missing"
	done
	if [ -s "$tmp/missing" ]; then
		say "downloading $(wc -l <"$tmp/missing") packages"
		archive
		gone=
		while read -r p; do
			apt-cache show --no-all-versions "$p" >/dev/null 2>&1 || gone="$gone $p"
		done <"$tmp/missing"
		[ -z "$gone" ] || fail "Debian's archive no longer has these locked versions:$gone. Renew the lock with \`make image-lock\` (another image, to be reviewed), build from what the archive has with PHALA_IMAGE_UNLOCKED=1, or name an archive that keeps old versions in PHALA_DEBIAN_MIRROR" 3
		# shellcheck disable=SC2046
		(cd "$dir" && apt-get -qq download $(cat "$tmp/missing")) >"$tmp/log" 2>&1 || fail "downloading: $(tail -n 3 "$tmp/log")"
	fi
	(cd "$dir" && sha256sum --quiet -c "$tmp/sums") >"$tmp/log" 2>&1 ||
		fail "not the locked package: $(grep -v '^sha256sum' "$tmp/log" | head -n 3 | tr '\n' ' ')(remove it from $dir; if it comes back, the archive has changed a released package)"
}

case $what in
lock) renew ;;
fetch) fetch ;;
*) fail "usage: debs.sh lock|fetch FILE DIR" 2 ;;
esac
