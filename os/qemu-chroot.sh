#!/bin/sh
# qemu-chroot.sh DIR: a root filesystem with the newest QEMU that Debian trixie and its
# backports have, for checking command lines against the parser of the QEMU that
# hosts with TDX or SEV-SNP run. Nothing of it gets into an image.
# Run in it: chroot DIR qemu-system-x86_64 ...
set -eu
dir=${1:?usage: qemu-chroot.sh DIR}
[ -x "$dir/usr/bin/qemu-system-x86_64" ] && exit 0
tmp=$dir.tmp.$$
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$(dirname "$dir")"
# Everything that backports has is taken from there: QEMU wants its own seabios, and
# the rest does no harm in a filesystem that only parses command lines.
mmdebstrap --quiet --variant=essential --components=main \
	--include=qemu-system-x86,qemu-utils \
	--aptopt='APT::Install-Recommends "false"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--setup-hook='sed -n "s/ trixie / trixie-backports /p" "$1"/etc/apt/sources.list > "$1"/etc/apt/sources.list.d/backports.list' \
	--setup-hook='printf "Package: *\nPin: release n=trixie-backports\nPin-Priority: 900\n" > "$1"/etc/apt/preferences.d/backports' \
	trixie "$tmp"
mv -T "$tmp" "$dir"
trap - EXIT
