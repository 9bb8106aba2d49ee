#!/bin/sh
# rootfs.sh FLAVOUR LOCK DEBS OUT.tar: the Debian part of the guest image, of exactly
# the packages that the lock names (prod: its set base; dev: base and dev), which lie
# verified in DEBS. Nothing is downloaded.
set -eu
umask 022
TZ=UTC
LC_ALL=C
export TZ LC_ALL
here=$(cd "$(dirname "$0")" && pwd)
flavour=${1:?} lock=${2:?} debs=${3:?} out=${4:?}
repo=$(mktemp -d)
trap 'rm -rf "$repo"' EXIT
trap 'exit 130' INT TERM
chmod 755 "$repo"

# An archive of these packages alone: there is nothing else to choose.
names=
while read -r set name version arch sum; do
	case $set in
	base) ;;
	dev) [ "$flavour" = dev ] || continue ;;
	*) continue ;;
	esac
	f=${name}_$(echo "$version" | sed 's/:/%3a/')_$arch.deb
	g=$(echo "$f" | tr -d %)
	ln "$debs/$f" "$repo/$g" 2>/dev/null || cp "$debs/$f" "$repo/$g"
	dpkg-deb -f "$repo/$g" >>"$repo/Packages"
	printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$g" "$(stat -c %s "$repo/$g")" "$sum" >>"$repo/Packages"
	names=$names,$name
done <"$lock"
printf 'Suite: trixie\nCodename: trixie\nSHA256:\n %s %s Packages\n' "$(sha256sum "$repo/Packages" | cut -d' ' -f1)" "$(stat -c %s "$repo/Packages")" >"$repo/Release"

mmdebstrap --quiet --variant=essential --include="${names#,}" --aptopt='APT::Install-Recommends "false"' --skip=cleanup/apt,cleanup/mmdebstrap,cleanup/reproducible \
	--customize-hook="sh '$here/prune.sh' \"\$1\" $flavour" \
	trixie "$repo/out.tar" "deb [trusted=yes] copy:$repo ./"
chmod 644 "$repo/out.tar"
mv "$repo/out.tar" "$out"
