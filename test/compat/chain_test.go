package compat

import (
	"testing"

	"github.com/confidential-cloud/phala/test/drycloud"
)

// sign is the owner's own step between the two phases: a transaction made by viem,
// without the CLI and without the cloud. It answers with the transaction's hash.
const sign = "owner's transaction"

// contracted is the life of an app whose owner is an account on a chain.
var contracted = []step{
	{cmd: "kms base", want: []string{"(base)", "dstack-0.5.5", "local"}, calls: "GET /kms/on-chain/base"},
	{cmd: "kms ethereum", exit: 1, calls: "GET /kms/on-chain/ethereum"},
	{cmd: "kms list", want: []string{"base"}, calls: "GET /kms"},
	{cmd: "deploy", args: "-n chain-app -c docker-compose.yml -e GREETING=hello --kms base --private-key {owner} --rpc-url {rpc} --json", want: []string{`"success": true`},
		calls: "POST /cvms/provision, GET /kms/kms-test/pubkey/...", save: "uuid=vm_uuid app=app_id", rest: "chain-app"},
	{cmd: "deploy", args: "--cvm-id chain-app -c next.yml --prepare-only --json", want: []string{`"prepare_only": true`, `"is_allowed": false`},
		calls: "GET /cvms/chain-app, PATCH /cvms/chain-app", save: "token=commit_token hash=compose_hash"},
	{cmd: "deploy", args: "--cvm-id chain-app --commit --token {token} --compose-hash {hash} --transaction-hash already-registered", noKey: true, exit: 1,
		calls: "POST /cvms/chain-app/commit-update"},
	{cmd: sign, args: "{rpc} {owner} {app} {hash}", save: "tx=transaction_hash"},
	{cmd: "deploy", args: "--cvm-id chain-app --commit --token 0b7d5f86-6c55-4b6a-9d0a-7a8f54c6d001 --compose-hash {hash} --transaction-hash {tx}", noKey: true, exit: 1,
		calls: "POST /cvms/chain-app/commit-update"},
	{cmd: "deploy", args: "--cvm-id chain-app --commit --token {token} --compose-hash {hash} --transaction-hash {tx} --json", noKey: true, want: []string{`"success": true`},
		calls: "POST /cvms/chain-app/commit-update", rest: "chain-app"},
	{cmd: "api", args: "/cvms/chain-app/docker-compose.yml", want: []string{"nginx:1.28"}, calls: "GET /cvms/chain-app/docker-compose.yml"},
	// The first one's hash is allowed already.
	{cmd: "deploy", args: "--cvm-id chain-app -c docker-compose.yml --private-key {owner} --rpc-url {rpc}", calls: "GET /cvms/chain-app, PATCH /cvms/chain-app", rest: "chain-app"},
	{cmd: "api", args: "/cvms/chain-app/docker-compose.yml", want: []string{"nginx:1.27"}, calls: "GET /cvms/chain-app/docker-compose.yml"},

	// The CLI makes the owner's transaction itself, and nobody else's is taken.
	{cmd: "deploy", args: "--cvm-id chain-app -c third.yml --prepare-only --json", want: []string{`"is_allowed": false`}, calls: "GET /cvms/chain-app, PATCH /cvms/chain-app", save: "third=compose_hash"},
	{cmd: "deploy", args: "--cvm-id chain-app -c third.yml --private-key {stranger} --rpc-url {rpc}", exit: 1, calls: "GET /cvms/chain-app, PATCH /cvms/chain-app"},
	{cmd: "api", args: "/cvms/chain-app/docker-compose.yml", want: []string{"nginx:1.27"}, calls: "GET /cvms/chain-app/docker-compose.yml"},
	{cmd: "deploy", args: "--cvm-id chain-app -c third.yml --private-key {owner} --rpc-url {rpc} --wait", want: []string{"CVM is ready"}, calls: "GET /cvms/chain-app, PATCH /cvms/chain-app, PATCH /cvms/chain-app, GET..."},
	{cmd: "api", args: "/cvms/chain-app/docker-compose.yml", want: []string{"nginx:1.29"}, calls: "GET /cvms/chain-app/docker-compose.yml"},
	{cmd: "deploy", args: "--cvm-id chain-app -c third.yml --prepare-only --json", want: []string{`"is_allowed": true`}, calls: "GET /cvms/chain-app, PATCH /cvms/chain-app"},
	{cmd: "envs update", args: "chain-app -e GREETING=two -e EXTRA=three --private-key {owner} --rpc-url {rpc}", calls: "GET /cvms/chain-app, GET /kms/base/pubkey/{app}, PATCH /cvms/{cvm}/envs, PATCH /cvms/{cvm}/envs", rest: "chain-app"},

	// A replica on a device that the contract does not allow (yet).
	{cmd: "api", args: "/cvms/chain-app", calls: "GET /cvms/chain-app", save: "running=compose_hash"},
	{cmd: "allow-devices remove", args: "chain-app local --wait --private-key {owner} --rpc-url {rpc}", calls: "GET /cvms/chain-app..."},
	{cmd: "cvms replicate", args: "chain-app --node-id 1 --compose-hash {running} --prepare-only --json", calls: "GET /cvms/chain-app...", save: "token=commitToken"},
	{cmd: "cvms replicate", args: "chain-app --commit --token {token} --compose-hash {running} --transaction-hash already-registered", exit: 1, calls: "GET /cvms/chain-app..."},
	{cmd: "allow-devices add", args: "chain-app local --wait --private-key {owner} --rpc-url {rpc}", calls: "GET /cvms/chain-app..."},
	{cmd: "cvms replicate", args: "chain-app --commit --token {token} --compose-hash {running} --transaction-hash already-registered --json", calls: "GET /cvms/chain-app...", save: "replica=vm_uuid", rest: "{replica}"},
	{cmd: "cvms replicate", args: "{uuid} --compose-hash {running} --private-key {owner} --rpc-url {rpc} --json", calls: "GET /cvms/{uuid32}...", save: "second=vm_uuid", rest: "{second}"},

	// A new instance with a compose file that the contract does not allow yet.
	{cmd: "instances add", args: "--app-id {app} -c fourth.yml --prepare-only --json", calls: "POST /apps/{app}/instances...", save: "token=commitToken hash=composeHash"},
	{cmd: "instances add", args: "--app-id {app} --commit --token {token} --compose-hash {hash} --transaction-hash already-registered", exit: 1, calls: "POST /apps/{app}..."},
	{cmd: sign, args: "{rpc} {owner} {app} {hash}", save: "tx=transaction_hash"},
	{cmd: "instances add", args: "--app-id {app} --commit --token {token} --compose-hash {hash} --transaction-hash {tx} --json", calls: "POST /apps/{app}...", save: "instance=vm_uuid", rest: "{instance}"},
	{cmd: "instances add", args: "--app-id {app} -c next.yml --pre-launch-script pre.sh --private-key {owner} --rpc-url {rpc} --json", calls: "POST /apps/{app}/instances...", save: "instance=vm_uuid", rest: "{instance}"},
	{cmd: "allow-devices list", args: "chain-app --rpc-url {rpc}", want: []string{"local"}, calls: "GET /cvms/chain-app..."},
	{cmd: "allow-devices add", args: "chain-app 0x4444444444444444444444444444444444444444444444444444444444444444 --private-key {owner} --rpc-url {rpc}", calls: "GET /cvms/chain-app..."},
	{cmd: "allow-devices remove", args: "chain-app 0x4444444444444444444444444444444444444444444444444444444444444444 --private-key {owner} --rpc-url {rpc}", calls: "GET /cvms/chain-app..."},
	{cmd: "allow-devices allow-any", args: "chain-app --enable --wait --private-key {owner} --rpc-url {rpc}", calls: "GET /cvms/chain-app..."},
	{cmd: "allow-devices allow-any", args: "chain-app --disable --wait --private-key {owner} --rpc-url {rpc}", calls: "GET /cvms/chain-app..."},
	{cmd: "allow-devices toggle-allow-any", args: "chain-app --enable --wait --private-key {owner} --rpc-url {rpc}", calls: "GET /cvms/chain-app..."},
	{cmd: "allow-devices disallow-any", args: "chain-app --wait --private-key {owner} --rpc-url {rpc}", calls: "GET /cvms/chain-app..."},
	{cmd: "allow-devices toggle-allow-any", args: "chain-app --disable --wait --private-key {owner} --rpc-url {rpc}", calls: "GET /cvms/chain-app..."},
	{cmd: "allow-devices toggle-allow-any", args: "chain-app --private-key {owner} --rpc-url {rpc}", calls: "GET /cvms/chain-app..."},
}

func TestOnChain(t *testing.T) {
	if !long() {
		t.Skip("SKIPPED: a chain makes a block per second: PHALA_LONG=1 runs the clients on one")
	}
	modules := install(t)
	s := newStack(t, &drycloud.Chain{ID: 8453, Name: "base"}) // a chain that viem knows
	rpc, key := s.RPC, "0x"+s.Owner(t)                        // whose apps are not the cloud's
	t.Run("cli", func(t *testing.T) {
		t.Parallel()
		u := newUser(t, s, modules, "chain")
		u.env = append(u.env, "ETH_RPC_URL="+rpc)
		u.vars["owner"], u.vars["stranger"], u.vars["rpc"] = key, "0x"+s.Owner(t), rpc
		for _, st := range contracted {
			t.Run(st.cmd, func(t *testing.T) { st.check(t, u) })
		}
	})
	t.Run("sdk", func(t *testing.T) {
		t.Parallel()
		verdict(t, called(t, modules, "chain.mjs", "PREFIX="+s.tagged("sdk"), "KEY="+s.Key, "RPC="+rpc, "PRIVATE_KEY="+key), onChain)
	})
}
