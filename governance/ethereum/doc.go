// Package ethereum is governance on an EVM chain: the Reader is an Authority that
// decides as T2 says (an allow holds at the final block and at the head, a deny
// needs only the head, the head is recent, heights never go back, and every RPC
// endpoint agrees), the Owner writes policy with an owner's key.
//
// It is the only home of go-ethereum's clients in the services.
package ethereum

import (
	"context"
	"math/big"
	"strings"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/confidential-cloud/phala/cvm"
)

// DevMark is the extra data of a development chain's genesis block. A wallet made
// for development signs only where it is found, and other wallets only where not.
const DevMark = "phala dev chain"

// Reasons of the errors that mean "no answer".
const (
	ReasonStale       = "chain-stale"
	ReasonUnreachable = "chain-unreachable"
	ReasonDisagrees   = "chain-disagrees"
	ReasonWentBack    = "chain-went-back"
)

// Endpoint is the part of a JSON-RPC client that reading needs (ethclient.Client
// and the simulated backend's client have it).
type Endpoint interface {
	ChainID(ctx context.Context) (*big.Int, error)
	HeaderByNumber(ctx context.Context, number *big.Int) (*types.Header, error)
	CallContractAtHash(ctx context.Context, msg ethereum.CallMsg, blockHash common.Hash) ([]byte, error)
}

// Detect reads a chain's id and whether its genesis block carries DevMark.
func Detect(ctx context.Context, e Endpoint) (chainID uint64, dev bool, err error) {
	id, err := e.ChainID(ctx)
	if err != nil {
		return 0, false, unreachable(err, "asking for the chain id")
	}
	g, err := e.HeaderByNumber(ctx, new(big.Int))
	if err != nil {
		return 0, false, unreachable(err, "reading the genesis block")
	}
	return id.Uint64(), string(g.Extra) == DevMark, nil
}

// Dial connects to an RPC URL. It does not ask it anything yet.
func Dial(ctx context.Context, url string) (*ethclient.Client, error) {
	if !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
		return nil, cvm.Errorf(cvm.Invalid, "rpc url %q: want http:// or https://", url)
	}
	c, err := ethclient.DialContext(ctx, url)
	if err != nil {
		return nil, unreachable(err, "connecting")
	}
	return c, nil
}

func unreachable(err error, doing string) *cvm.Error {
	return cvm.Errorf(cvm.Unavailable, "chain: %s: %w", doing, err).WithReason(ReasonUnreachable).
		WithFix("check that the RPC endpoints answer and belong to the right chain")
}

// ParseAddress reads a 0x-address of 40 hex digits.
func ParseAddress(s string) (common.Address, error) {
	if !strings.HasPrefix(s, "0x") || !common.IsHexAddress(s) {
		return common.Address{}, cvm.Errorf(cvm.Invalid, "address %q: want 0x and 40 hex digits", s)
	}
	return common.HexToAddress(s), nil
}
