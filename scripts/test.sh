#!/usr/bin/env bash
# Runs every test; with "long" also the long ones. Starts a Docker engine where
# none runs, builds the guest image once, stops what it started. Ends with one
# line: N passed, N failed, N skipped.
set -eu -o pipefail
cd "$(dirname "$0")/.."
mode=${1:-short}
. scripts/engine.sh
work=$(mktemp -d)
declare -A lanes
cleanup() {
  for pid in "${lanes[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
  [ -z "${PHALA_GUEST_BASE:-}" ] || docker rmi "$PHALA_GUEST_BASE" >/dev/null 2>&1 || true
  engine_stop
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
scripts/deps.sh test
engine_start
if [ -n "${CI:-}" ] && ! docker info >/dev/null 2>&1; then
  echo "CI needs a Docker engine: without one the whole cloud would be skipped" >&2; exit 1
fi
export CGO_ENABLED=0
# As the programs are built: what the linter, the tests and the programs that tests
# build have in common is compiled once.
GOFLAGS="$(go env GOFLAGS) -trimpath"; export GOFLAGS
step() { printf '\n== %s (%s)\n' "$1" "$(date +%T)"; }
run() { # run NAME PACKAGES...: go test -json into the tally (the linter has vetted)
  step "$1"; shift
  local out; out=$(mktemp "$work/XXXXXX.json")
  ${nice:-} go test -json -vet=off "$@" >"$out" 2>"$out.err" || status=1
  cat "$out.err" >&2
}
# Most of the cloud's tests and of the images' making is waiting, so they run in lanes
# of their own beside what computes. The linter takes what processor time is left.
start() { # start LANE COMMAND...: runs beside what follows, in a process group of its own
  local lane=$1; shift
  echo "beside this: $lane ($(date +%T))"
  set -m
  ( trap - EXIT INT TERM; status=0; "$@" || status=1; step "$lane: end"; exit $status ) >"$work/$lane.log" 2>&1 &
  lanes[$lane]=$!
  set +m
}
finish() { # finish LANE: waits for it, shows what it said, takes its status
  wait "${lanes[$1]}" || { status=1; echo "FAILED: $1"; }
  unset "lanes[$1]"
  cat "$work/$1.log"
}

status=0
export PHALA_IMAGE_LEVEL=2 # compressing as for a release takes a minute and a half more
parts() {
  step "a newer QEMU, the images of apps, the guest images"
  os/qemu-chroot.sh os/cache/qemu-chroot || echo "no QEMU 11.1: command lines are checked by this machine's own"
  test/apps/wallet/base.sh build/test-node.tar || echo "no Node image: the wallet's test tries again"
  local built=0
  os/build.sh container prod || built=$?
  if [ $built = 3 ]; then # Debian has moved on from a locked version: what it has today is tested
    echo "THE LOCK IS OUT OF DATE (make image-lock renews it): building of today's packages"
    touch "$work/unlocked"
    built=0; PHALA_IMAGE_UNLOCKED=1 os/build.sh container prod || built=$?
  fi
  return $built
}
generated() { step "generated files"; governance/ethereum/contracts/build.sh --check; }
lint() { step "lint"; nice -n 19 scripts/lint.sh; }
start images parts
step "build"
compiled() { GOGC=400 go list -test -export -deps "$@" >/dev/null || status=1; } # the compiler spends a fifth less with fewer collections
compiled ./... # all that is linted and linked below
make --no-print-directory build
start lint lint
start generated generated
finish images
[ ! -e "$work/unlocked" ] || export PHALA_IMAGE_UNLOCKED=1
if [ -s build/images/phala-container/digest.txt ]; then
  if docker info >/dev/null 2>&1; then
    # Not a name of the container driver, which removes those that it does not know.
    export PHALA_GUEST_BASE=phala-tests/guest:base # the guest agent's own tests run it in a container of this image
    docker import build/images/phala-container/rootfs.tar "$PHALA_GUEST_BASE" >/dev/null || status=1
  fi
  # The guests' own Compose: what they do with a compose file is asked of it.
  tar -xf build/images/phala-container/rootfs.tar -C build ./usr/libexec/docker/cli-plugins/docker-compose
  export PHALA_COMPOSE=$PWD/build/usr/libexec/docker/cli-plugins/docker-compose
fi

on_a_machine='^TestMachine$'
# The tests that use the same ports follow one another; those on a machine have their own.
cloud() { run "the cloud, whole" -p 1 -timeout 30m ./test/cloud ./test/e2e; return $status; }
machine() {
  PHALA_TEST_DRIVER=qemu run "the cloud on an emulated virtual machine" -count=1 -timeout 20m -run "$on_a_machine" ./test/cloud
  return $status
}
start machine machine
start cloud cloud
packages=$(go list ./... | grep -v -e /test/cloud -e /test/e2e)
nice="nice -n 5" run "packages" -p 3 -timeout 20m $packages
concurrent='Race|Concurrent|Cluster' # the tests' names; only their packages are built a second time
racing=$(git grep -lE "^func Test[A-Za-z0-9_]*($concurrent)" internal kms gateway vmm attest verify | sed -E 's|^|./|; s|/[^/]*$||' | sort -u)
CGO_ENABLED=1 compiled -race $racing
CGO_ENABLED=1 run "race" -race -p 2 -timeout 20m -run "$concurrent" $racing
step "refusals switched off, a sample (all of them: make mutate-attest)"; go run ./test/mutate -quick || { status=1; echo "FAILED: mutate"; }
step "fuzz of the evidence parsers, 2 s each"; nice -n 15 scripts/fuzz.sh 2 attest ratls || { status=1; echo "FAILED: fuzz"; }
for lane in generated cloud machine lint; do finish $lane; done
if [ "$mode" = long ]; then
  os/build.sh dev || status=1 # TestMachineDev asks for it
  step "the image twice, byte for byte"; make --no-print-directory image-repro || status=1
  PHALA_TEST_DRIVER=qemu run "the cloud's tests on virtual machines, hosts that cheat" -count=1 -timeout 2h \
    -run '^(TestMachine.*|TestHello|TestTwoServices|TestWallet|TestFalseKMS|TestHostSwapsEnvironment)$' ./test/cloud
  PHALA_VM=1 run "machines that boot wrong, end, break" -count=1 -p 1 -timeout 1h ./guest-agent ./guest-agent/vm ./guest-agent/initramfs ./guest-agent/disk ./vmm/qemu ./vmm/confine
  PHALA_LONG=1 run "all seeds, all clients, all inputs" -count=1 -p 1 -timeout 2h ./vmm ./api ./test/compat ./test/compose ./test/bench/vm
  step "fuzz, 60 s each"; scripts/fuzz.sh 60 || status=1
  run "every bit of accepted quotes" -timeout 1h -run TestEveryBit ./attest -everybit
  run "four verifiers, millions of mutations" -timeout 6h ./test/differential -long
  step "each refusal of the verifier switched off"; make --no-print-directory mutate-attest || status=1
fi
cat "$work"/*.json | go run ./test/tally || status=1
exit $status
