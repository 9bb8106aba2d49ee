package ethereum

import (
	"context"
	"encoding/hex"
	"errors"
	"math/big"
	"strings"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance/ethereum/contracts"
)

// Reasons why a transaction proves nothing, all with code precondition.
const (
	ReasonTxUnknown = "transaction-unknown" // the chain has not got it (yet)
	ReasonTxFailed  = "transaction-failed"  // it was included and reverted
	ReasonTxOther   = "transaction-other"   // it does not add this hash to this app
	ReasonNoApp     = "app-not-on-chain"    // there is no app contract at the address
)

// AppClient is the part of a JSON-RPC client that reading apps needs.
type AppClient interface {
	Endpoint
	TransactionReceipt(ctx context.Context, txHash common.Hash) (*types.Receipt, error)
}

// Apps reads app contracts at the chain's head, for those who show what is allowed
// and tell owners early what a boot would be refused for. It decides nothing: the
// KMS asks its own Reader before it releases keys.
type Apps struct {
	client  AppClient
	chainID uint64
}

// NewApps connects to an RPC URL; nothing is asked yet.
func NewApps(ctx context.Context, rpcURL string, chainID uint64) (*Apps, error) {
	c, err := Dial(ctx, rpcURL)
	if err != nil {
		return nil, err
	}
	return NewAppsWith(c, chainID), nil
}

// NewAppsWith is NewApps over a client that is connected already.
func NewAppsWith(c AppClient, chainID uint64) *Apps { return &Apps{c, chainID} }

// AppState is what an app's contract says at one block.
type AppState struct {
	ComposeAllowed bool
	AnyDevice      bool
	Devices        []bool // allowed by name, in the order they were asked for
}

// State asks an app's contract about a compose hash and devices, at the head.
func (a *Apps) State(ctx context.Context, app cvm.AppID, h cvm.ComposeHash, devices ...cvm.DeviceID) (s AppState, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := a.sameChain(ctx); err != nil {
		return s, err
	}
	head, err := header(ctx, named{"the RPC endpoint", a.client}, nil)
	if err != nil {
		return s, err
	}
	k := contracts.NewDstackApp()
	if s.ComposeAllowed, err = a.bool(ctx, app, head, k.PackAllowedComposeHashes(h), k.UnpackAllowedComposeHashes); err != nil {
		return s, err
	}
	if s.AnyDevice, err = a.bool(ctx, app, head, k.PackAllowAnyDevice(), k.UnpackAllowAnyDevice); err != nil {
		return s, err
	}
	for _, d := range devices {
		ok, err := a.bool(ctx, app, head, k.PackAllowedDeviceIds(d), k.UnpackAllowedDeviceIds)
		if err != nil {
			return s, err
		}
		s.Devices = append(s.Devices, ok)
	}
	return s, nil
}

func (a *Apps) sameChain(ctx context.Context) error {
	id, err := a.client.ChainID(ctx)
	if err != nil {
		return unreachable(err, "asking for the chain id")
	}
	if id.Cmp(new(big.Int).SetUint64(a.chainID)) != 0 {
		return refused(ReasonDisagrees, "the RPC endpoint is on chain %s, not %d", id, a.chainID)
	}
	return nil
}

func (a *Apps) bool(ctx context.Context, app cvm.AppID, head *types.Header, data []byte, unpack func([]byte) (bool, error)) (bool, error) {
	to := common.Address(app)
	out, err := a.client.CallContractAtHash(ctx, ethereum.CallMsg{To: &to, Data: data}, head.Hash())
	if err != nil && asRevert(err) == nil {
		return false, unreachable(err, "calling the app's contract")
	}
	v, uerr := unpack(out)
	if err != nil || uerr != nil {
		return false, cvm.Errorf(cvm.Precondition, "there is no app contract at %s", to.Hex()).WithReason(ReasonNoApp).
			WithFix("register the app with the KMS contract first")
	}
	return v, nil
}

// ComposeAdded checks that a transaction was included, succeeded, and made the app's
// contract say that it added the hash. Who sent it (an owner, a multisig, a
// timelock) does not matter: only the contract can emit its event.
func (a *Apps) ComposeAdded(ctx context.Context, tx string, app cvm.AppID, h cvm.ComposeHash) error {
	raw, err := hex.DecodeString(strings.TrimPrefix(tx, "0x"))
	if err != nil || len(raw) != common.HashLength {
		return cvm.Errorf(cvm.Invalid, "transaction hash %q: want 32 bytes in hex", clean(tx, 80)).WithReason(ReasonTxOther)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := a.sameChain(ctx); err != nil {
		return err
	}
	r, err := a.client.TransactionReceipt(ctx, common.BytesToHash(raw))
	switch {
	case errors.Is(err, ethereum.NotFound):
		return cvm.Errorf(cvm.Precondition, "the chain has no transaction %s", tx).WithReason(ReasonTxUnknown).WithFix("wait until it is included, then commit again")
	case err != nil:
		return unreachable(err, "reading the transaction's receipt")
	case r.Status != types.ReceiptStatusSuccessful:
		return cvm.Errorf(cvm.Precondition, "transaction %s was reverted", tx).WithReason(ReasonTxFailed)
	}
	k := contracts.NewDstackApp()
	for _, l := range r.Logs {
		if l.Address != common.Address(app) || l.Removed {
			continue
		}
		if e, err := k.UnpackComposeHashAddedEvent(l); err == nil && e.ComposeHash == h {
			return nil
		}
	}
	return cvm.Errorf(cvm.Precondition, "transaction %s does not add compose hash %s to app %s", tx, h, app).WithReason(ReasonTxOther).
		WithFix("call addComposeHash of the app's contract with this hash, and send that transaction's hash")
}
