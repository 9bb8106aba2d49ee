#!/usr/bin/env bash
# Installs what the cloud (up) or its tests (test) need from Debian or Ubuntu,
# after saying so; says what to do where it cannot.
set -eu -o pipefail
what=${1:-up}

if [ "$(uname -s)" != Linux ]; then
  echo "This runs on Linux (here: $(uname -s)). Use a Debian or Ubuntu machine or virtual machine." >&2; exit 1
fi
need_go=1.26
if ! command -v go >/dev/null; then
  echo "Go $need_go or newer is needed and 'go' is not on the PATH. Install it, then run this again." >&2; exit 1
fi
have_go=$(go env GOVERSION | sed 's/^go//')
if [ "$(printf '%s\n%s\n' "$need_go" "$have_go" | sort -V | head -n1)" != "$need_go" ]; then
  echo "Go $need_go or newer is needed; this is $have_go." >&2; exit 1
fi

# command:package
wanted="git:git curl:curl mmdebstrap:mmdebstrap mksquashfs:squashfs-tools xz:xz-utils iptables:iptables"
if ! command -v dockerd >/dev/null && ! docker info >/dev/null 2>&1; then wanted="$wanted dockerd:docker.io"; fi
if [ "$what" = test ]; then
  wanted="$wanted node:nodejs npm:npm gcc:gcc"
  # Virtual machines: their image, their disks, their network.
  wanted="$wanted qemu-system-x86_64:qemu-system-x86 mksquashfs:squashfs-tools xz:xz-utils veritysetup:cryptsetup-bin nft:nftables ip:iproute2"
fi

missing=
for w in $wanted; do
  command -v "${w%%:*}" >/dev/null || [ -x "/usr/sbin/${w%%:*}" ] || missing="$missing ${w##*:}"
done
# The guest image is Debian whatever this machine is, and its packages are checked.
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing="$missing debian-archive-keyring"
[ "$what" != test ] || [ -e /usr/include/stdlib.h ] || missing="$missing libc6-dev" # the race detector needs cgo
if [ "$what" = test ]; then # tests that miss these say so and are skipped
  ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
  # (Ubuntu's is a snap.)
  command -v chromium >/dev/null || ! grep -qx 'ID=debian' /etc/os-release || missing="$missing chromium"
fi
# The client is a package of its own on newer systems.
command -v docker >/dev/null || { case "$missing" in *docker.io*) ;; *) missing="$missing docker.io" ;; esac; }
[ -n "$missing" ] || exit 0

SUDO=
if [ "$(id -u)" != 0 ]; then
  if command -v sudo >/dev/null; then SUDO=sudo; else
    echo "Missing:$missing. Install them as root: apt-get install$missing" >&2; exit 1
  fi
fi
if ! command -v apt-get >/dev/null; then
  echo "Missing:$missing. This installs them with apt-get on Debian and Ubuntu; here, install them yourself." >&2; exit 1
fi
echo "Installing from this system's packages:$missing"
log=$(mktemp)
install() {
  $SUDO apt-get update || return
  case "$missing" in *postgresql*) # its programs are wanted, not a server of the system's
    $SUDO mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" | $SUDO tee /etc/postgresql-common/createcluster.conf ;;
  esac
  if ! command -v docker >/dev/null && apt-cache show docker-cli >/dev/null 2>&1; then missing="$missing docker-cli"; fi
  $SUDO env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
}
if ! install >"$log" 2>&1; then
  tail -n 15 "$log" >&2
  echo "apt-get failed (log: $log). Mend that and run this again." >&2; exit 1
fi
rm -f "$log"
