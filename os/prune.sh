#!/bin/sh
# prune.sh ROOT FLAVOUR: what a guest does not need, or must not have, goes. Runs on
# the root filesystem after all packages are configured (mmdebstrap's customize hook).
set -eu
root=${1:?}
flavour=${2:?}
cd "$root"

# No package manager, no interpreter that only it needs, none of their data.
rm -rf usr/bin/apt* usr/bin/dpkg* usr/sbin/dpkg* usr/lib/apt usr/lib/dpkg usr/share/dpkg usr/share/debconf usr/sbin/dpkg-* usr/share/lintian \
	etc/apt etc/dpkg var/lib/apt var/lib/dpkg var/lib/ucf etc/debconf.conf etc/ucf.conf usr/bin/debconf* usr/bin/ucf* usr/sbin/update-rc.d usr/sbin/start-stop-daemon \
	usr/bin/perl* usr/lib/x86_64-linux-gnu/perl* usr/share/perl* usr/lib/x86_64-linux-gnu/perl-base usr/bin/update-alternatives etc/alternatives/README \
	var/lib/debconf usr/bin/deb-systemd-* usr/sbin/invoke-rc.d usr/sbin/service usr/lib/init etc/init.d etc/rc?.d etc/kernel etc/cron.* etc/default/cron etc/logrotate.d etc/systemd \
	usr/libexec/dpkg usr/lib/systemd usr/lib/x86_64-linux-gnu/systemd
# No way to log in or to become another user. (The dev flavour: keys over ssh.)
rm -f usr/bin/su usr/bin/login usr/bin/chsh usr/bin/chfn usr/bin/passwd usr/bin/newgrp usr/bin/sg usr/bin/gpasswd usr/bin/chage usr/bin/expiry usr/bin/faillog \
	usr/bin/lastlog usr/sbin/agetty usr/sbin/getty usr/sbin/sulogin usr/sbin/runuser usr/sbin/useradd usr/sbin/userdel usr/sbin/usermod usr/sbin/group* \
	usr/sbin/adduser usr/sbin/addgroup usr/sbin/deluser usr/sbin/delgroup usr/sbin/chpasswd usr/sbin/chgpasswd usr/sbin/newusers usr/sbin/pw* usr/sbin/grp* \
	usr/sbin/vipw usr/sbin/vigr usr/sbin/shadowconfig usr/bin/newuidmap usr/bin/newgidmap usr/sbin/chmem
shell=/usr/sbin/nologin
sed -i "s#^\([^:]*:[^:]*:[^:]*:[^:]*:[^:]*:[^:]*:\).*#\1$shell#" etc/passwd
[ "$flavour" != dev ] || sed -i 's#^\(root:.*:\)[^:]*$#\1/bin/bash#' etc/passwd
# No password, and no day of the build.
cut -d: -f1 etc/passwd | sed 's/$/:*:::::::/' >etc/shadow
cut -d: -f1 etc/group | sed 's/$/:*::/' >etc/gshadow
rm -f etc/passwd- etc/shadow- etc/group- etc/gshadow- etc/subuid* etc/subgid* etc/.pwd.lock
# Nothing is setuid or setgid: everything in a guest runs as root or in a container.
find . -xdev ! -type l -perm /6000 -exec chmod u-s,g-s {} +
# Not for a machine: documentation (the licences stay), other languages, character sets.
find usr/share/doc -type f ! -name copyright -delete
find usr/share/doc -type l -delete
find usr/share/doc -depth -mindepth 1 -type d -empty -delete
rm -rf usr/share/man usr/share/info usr/share/locale usr/share/bug usr/share/bash-completion usr/share/zsh usr/share/fish usr/share/gcc usr/share/gdb \
	usr/share/menu usr/share/pixmaps usr/share/common-licenses/GFDL* usr/share/polkit-1 usr/share/initramfs-tools \
	usr/lib/x86_64-linux-gnu/gconv usr/share/i18n usr/share/zoneinfo/right usr/share/zoneinfo/posix
# Parts of containerd and docker that nothing here starts.
rm -f usr/bin/ctr usr/bin/containerd-stress usr/bin/containerd-shim usr/bin/containerd-shim-runc-v1 usr/bin/tini-static
# Written by the build, different each time or of no use.
rm -rf var/log/* var/cache/* var/backups var/tmp/* tmp/* run/* etc/hostname etc/resolv.conf etc/machine-id var/lib/dbus etc/ssh/ssh_host_* root/.[!.]* \
	var/lib/systemd var/lib/chrony/* etc/ld.so.cache~ var/lib/pam var/lib/shells.state
find . -xdev -type d -perm -0002 ! -perm -1000 -exec chmod o-w {} +
if [ "$flavour" = dev ]; then
	mkdir -p etc/ssh/sshd_config.d
	printf 'PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n' >etc/ssh/sshd_config.d/phala.conf
	test -x usr/sbin/sshd
fi
for f in usr/bin/dockerd usr/sbin/dockerd; do [ ! -x $f ] || dockerd=$f; done
for f in ${dockerd:?} usr/bin/docker usr/libexec/docker/cli-plugins/docker-compose usr/bin/containerd usr/sbin/runc usr/sbin/cryptsetup usr/sbin/nft usr/sbin/iptables usr/sbin/chronyd \
	usr/sbin/ip usr/sbin/mkfs.ext4 usr/bin/bash usr/bin/mount usr/sbin/modprobe; do
	test -e $f || test -L $f || {
		echo "image: the root filesystem lacks $f" >&2
		exit 1
	}
done
