package compat

import (
	"encoding/hex"
	"path/filepath"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/devcloud/chain"
	"github.com/confidential-cloud/phala/internal/wallet"
)

// onChainStack is a cloud whose apps live on a chain that viem knows: Base's id, with
// Multicall3 at its usual address. It returns its RPC and the owner's private key.
func onChainStack(t *testing.T) (s *stack, rpc, key string) {
	t.Helper()
	c, err := chain.New(chain.Config{Dir: filepath.Join(t.TempDir(), "chain"), Listen: "127.0.0.1:0", ChainID: 8453, Multicall3: true})
	if err != nil {
		t.Fatal(err)
	}
	live(t, c.Run)
	owner, err := wallet.OpenDev(filepath.Join(t.TempDir(), "owner.json"))
	if err != nil {
		t.Fatal(err)
	}
	contracts, err := c.DeployContracts(t.Context(), owner, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The apps' owner is not the cloud's.
	mine, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.EnsureFunds(t.Context(), crypto.PubkeyToAddress(mine.PublicKey), 10_000_000_000); err != nil {
		t.Fatal(err)
	}
	s = newStack(t, func(cfg *api.Config) {
		cfg.Chain = api.ChainConfig{ID: c.ChainID(), Name: "base", RPCURL: c.Endpoint(), Contract: contracts.KMS.Hex()}
	})
	return s, c.Endpoint(), "0x" + hex.EncodeToString(crypto.FromECDSA(mine))
}

func TestOnChain(t *testing.T) {
	if !long() {
		t.Skip("SKIPPED: a chain makes a block per second: PHALA_LONG=1 runs the clients on one")
	}
	modules := install(t)
	s, rpc, key := onChainStack(t)
	verdict(t, called(t, modules, "chain.mjs", "PREFIX="+s.prefix("sdk"), "KEY="+s.key, "RPC="+rpc, "PRIVATE_KEY="+key), onChain)
}
