#!/usr/bin/env bash
# Runs every test; with "long" also the long ones. Starts a Docker engine where
# none runs, builds the guest image once, stops what it started. Ends with one
# line: N passed, N failed, N skipped.
set -eu -o pipefail
cd "$(dirname "$0")/.."
mode=${1:-short}
. scripts/engine.sh
cleanup() {
  [ -z "${PHALA_GUEST_BASE:-}" ] || docker rmi "$PHALA_GUEST_BASE" >/dev/null 2>&1 || true
  engine_stop
}
trap cleanup EXIT
scripts/deps.sh test
engine_start
if [ -n "${CI:-}" ] && ! docker info >/dev/null 2>&1; then
  echo "CI needs a Docker engine: without one the whole cloud would be skipped" >&2; exit 1
fi
export CGO_ENABLED=0
step() { printf '\n== %s (%s)\n' "$1" "$(date +%T)"; }

status=0
# The images are built while the linter works: half of that is waiting for packages.
export PHALA_IMAGE_LEVEL=2 # compressing as for a release takes a minute and a half more
imagelog=$(mktemp)
{ os/qemu-chroot.sh os/cache/qemu-chroot || echo "no QEMU 11.1: command lines are checked by this machine's own"; os/build.sh container prod; } >"$imagelog" 2>&1 & images=$!
step "lint"; scripts/lint.sh || status=1
step "generated files"; governance/ethereum/contracts/build.sh --check || status=1
step "guest images"
built=0; wait $images || built=$?
cat "$imagelog"
if [ $built = 3 ]; then # Debian has moved on from a locked version: what it has today is tested
  echo "THE LOCK IS OUT OF DATE (make image-lock renews it): building of today's packages"
  export PHALA_IMAGE_UNLOCKED=1
  built=0; os/build.sh container prod || built=$?
fi
[ $built = 0 ] || status=1
if [ $built = 0 ] && docker info >/dev/null 2>&1; then
  export PHALA_GUEST_BASE=phala-guest-base:test # the guest agent's own tests run it in a container of this image
  docker import build/images/phala-container/rootfs.tar "$PHALA_GUEST_BASE" >/dev/null || status=1
fi
if [ $built = 0 ]; then # the guests' own Compose: what they do with a compose file is asked of it
  tar -xf build/images/phala-container/rootfs.tar -C build ./usr/libexec/docker/cli-plugins/docker-compose
  export PHALA_COMPOSE=$PWD/build/usr/libexec/docker/cli-plugins/docker-compose
fi
step "build"
make --no-print-directory build

log=$(mktemp)
on_a_machine='^TestMachine$'
run() { # run NAME PACKAGES...: go test -json into the tally
  step "$1"; shift
  go test -json "$@" >>"$log" 2>"$log.err" || status=1
  cat "$log.err" >&2
}
packages=$(go list ./... | grep -v -e /test/cloud -e /test/e2e)
run "packages" -p 2 -timeout 20m $packages
CGO_ENABLED=1 run "race" -race -p 2 -timeout 20m -run 'Race|Concurrent|Cluster' ./internal/... ./kms/... ./gateway/... ./vmm/... ./attest/...
step "refusals switched off, a sample (all of them: make mutate-attest)"; go run ./test/mutate -quick || status=1
# The cloud's tests mostly wait: the parsers of foreign evidence are fuzzed meanwhile.
fuzzlog=$(mktemp)
nice -n 15 scripts/fuzz.sh 5 attest ratls >"$fuzzlog" 2>&1 & fuzz=$!
run "the cloud, whole" -p 1 -timeout 30m ./test/cloud ./test/e2e
PHALA_TEST_DRIVER=qemu run "the cloud on an emulated virtual machine" -count=1 -timeout 20m -run "$on_a_machine" ./test/cloud
step "fuzz of the evidence parsers, 5 s each (ran beside the cloud)"
wait $fuzz || status=1
cat "$fuzzlog"
if [ "$mode" = long ]; then
  os/build.sh dev || status=1 # TestMachineDev asks for it
  step "the image twice, byte for byte"; make --no-print-directory image-repro || status=1
  PHALA_TEST_DRIVER=qemu run "the cloud's tests on virtual machines, hosts that cheat" -count=1 -timeout 2h \
    -run '^(TestMachine.*|TestHello|TestTwoServices|TestWallet|TestFalseKMS|TestHostSwapsEnvironment)$' ./test/cloud
  PHALA_VM=1 run "machines that boot wrong, end, break" -count=1 -p 1 -timeout 1h ./guest-agent ./guest-agent/vm ./guest-agent/initramfs ./guest-agent/disk ./vmm/qemu
  PHALA_LONG=1 run "all seeds, all clients, all inputs" -count=1 -p 1 -timeout 2h ./vmm ./api ./test/compat ./test/compose ./test/bench/vm
  step "fuzz, 60 s each"; scripts/fuzz.sh 60 || status=1
  run "every bit of accepted quotes" -timeout 1h -run TestEveryBit ./attest -everybit
  run "four verifiers, millions of mutations" -timeout 6h ./test/differential -long
  step "each refusal of the verifier switched off"; make --no-print-directory mutate-attest || status=1
fi
go run ./test/tally <"$log" || status=1
exit $status
