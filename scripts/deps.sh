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
wanted="git:git curl:curl mmdebstrap:mmdebstrap iptables:iptables"
if ! command -v dockerd >/dev/null && ! docker info >/dev/null 2>&1; then wanted="$wanted dockerd:docker.io"; fi
if [ "$what" = test ]; then wanted="$wanted node:nodejs npm:npm chromium:chromium gcc:gcc"; fi

missing=
for w in $wanted; do
  command -v "${w%%:*}" >/dev/null || [ -x "/usr/sbin/${w%%:*}" ] || missing="$missing ${w##*:}"
done
# iptables and dockerd live in sbin, which is not always on the PATH of a user
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
if ! { $SUDO apt-get update && DEBIAN_FRONTEND=noninteractive $SUDO apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
  tail -n 15 "$log" >&2
  echo "apt-get failed (log: $log). Mend that and run this again." >&2; exit 1
fi
rm -f "$log"
