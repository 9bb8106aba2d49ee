package chain

import (
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/governance/ethereum/contracts"
)

const gasLimit = 60_000_000

// genesis is a pure function of the chain id and the predeploys, so that a data
// directory can always be opened again. Nobody is rich in it: accounts are funded
// by withdrawals (Chain.Fund), which is how a beacon chain credits an account.
func genesis(chainID uint64, multicall bool) (*core.Genesis, error) {
	g := core.DeveloperGenesisBlock(gasLimit, nil)
	cfg := *g.Config
	cfg.ChainID = new(big.Int).SetUint64(chainID)
	// Prague is what every wallet and L2 speaks; the engine calls below are its.
	cfg.OsakaTime = nil
	g.Config = &cfg
	// The mark that wallets and writers look for: a real chain's genesis lacks it.
	g.ExtraData = []byte(ethereum.DevMark)
	if multicall {
		code, err := contracts.Multicall3Code()
		if err != nil {
			return nil, err
		}
		g.Alloc[common.HexToAddress("0xcA11bde05977b3631167028862bE2a173976CA11")] = types.Account{Code: code, Balance: new(big.Int)}
	}
	return g, nil
}
