#!/bin/sh
# rootfs.sh PACKAGES OUT.tar: the Debian part of the guest image. Sources and keys
# are mmdebstrap's defaults for the suite (main, updates and security).
set -eu
exec mmdebstrap --quiet --variant=minbase --components=main \
	--include="$(grep -v '^#' "$1" | tr -s '\n ' ',' | sed 's/,$//')" \
	--aptopt='APT::Install-Recommends "false"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
	--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--customize-hook='rm -f "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/etc/machine-id' \
	--customize-hook='rm -rf "$1"/var/log/* "$1"/var/cache/ldconfig/* "$1"/var/lib/apt/lists/*' \
	--customize-hook='test -x "$1"/usr/libexec/docker/cli-plugins/docker-compose || test -x "$1"/usr/lib/docker/cli-plugins/docker-compose' \
	trixie "$2"
