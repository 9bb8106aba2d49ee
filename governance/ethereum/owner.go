package ethereum

import (
	"context"
	"errors"
	"log/slog"
	"math/big"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/accounts/abi/bind/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance/ethereum/contracts"
)

// Signer is an owner's wallet (internal/wallet.Wallet). It refuses a chain that
// its key was not made for.
type Signer interface {
	Address() common.Address
	TransactOpts(chainID uint64, dev bool) (*bind.TransactOpts, error)
}

// Client is the part of a JSON-RPC client that writing needs.
type Client interface {
	Endpoint
	bind.ContractBackend
	TransactionReceipt(ctx context.Context, txHash common.Hash) (*types.Receipt, error)
	BalanceAt(ctx context.Context, account common.Address, blockNumber *big.Int) (*big.Int, error)
}

// OwnerConfig says where and how an Owner writes.
type OwnerConfig struct {
	RPCURL      string
	ChainID     uint64
	KMSContract string        // empty before DeployKMS
	Final       string        // as in Config
	Poll        time.Duration // how often to look for inclusion and finality, default 200 ms
	Timeout     time.Duration // for one change to be final, default 5 min (20 min where finality is an epoch)
	Log         *slog.Logger
}

// Stages of a change on its way.
const (
	StageSent     = "sent"
	StageIncluded = "included"
	StageFinal    = "final"
	StageInForce  = "in-force" // it was so already, nothing was sent
)

// Progress tells where a change is. Block is where it was included, Final and
// Head are the chain's (zero before inclusion).
type Progress struct {
	Name   string
	Stage  string
	TxHash string
	Block  uint64
	Final  uint64
	Head   uint64
}

// Owner changes policy on chain with an owner's key.
type Owner struct {
	cfg    OwnerConfig
	client Client
	signer Signer
	dev    bool
	final  finalMode
	kms    common.Address
}

// NewOwner connects, and checks the chain id and that the wallet may sign there.
func NewOwner(ctx context.Context, c OwnerConfig, s Signer) (*Owner, error) {
	cl, err := Dial(ctx, c.RPCURL)
	if err != nil {
		return nil, err
	}
	return NewOwnerWith(ctx, c, cl, s)
}

// NewOwnerWith is NewOwner over a client that is connected already.
func NewOwnerWith(ctx context.Context, c OwnerConfig, cl Client, s Signer) (*Owner, error) {
	o := &Owner{cfg: c, client: cl, signer: s}
	if o.cfg.Poll == 0 {
		o.cfg.Poll = 200 * time.Millisecond
	}
	if o.cfg.Log == nil {
		o.cfg.Log = slog.New(slog.DiscardHandler)
	}
	var err error
	if o.final, err = parseFinal(c.Final); err != nil {
		return nil, err
	}
	id, dev, err := Detect(ctx, cl)
	if err != nil {
		return nil, err
	}
	if id != c.ChainID {
		return nil, cvm.Errorf(cvm.Precondition, "the RPC endpoint is on chain %d, not %d", id, c.ChainID).
			WithFix("check the profile's chain_id and rpc_urls")
	}
	if _, err := s.TransactOpts(id, dev); err != nil {
		return nil, err
	}
	o.dev = dev
	if o.cfg.Timeout == 0 {
		o.cfg.Timeout = 5 * time.Minute
		if !dev && o.final.tag != 0 {
			o.cfg.Timeout = 20 * time.Minute
		}
	}
	if c.KMSContract != "" {
		if o.kms, err = ParseAddress(c.KMSContract); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// KMSContract is the DstackKms this Owner writes to (zero before DeployKMS).
func (o *Owner) KMSContract() common.Address { return o.kms }

// Balance is the wallet's balance in wei.
func (o *Owner) Balance(ctx context.Context) (*big.Int, error) {
	b, err := o.client.BalanceAt(ctx, o.signer.Address(), nil)
	if err != nil {
		return nil, unreachable(err, "reading the balance")
	}
	return b, nil
}

// Apply sends the changes that are not in force yet, in order, and returns when
// all are in force at the final block. progress may be nil.
func (o *Owner) Apply(ctx context.Context, progress func(Progress), ops ...Op) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Timeout)
	defer cancel()
	if progress == nil {
		progress = func(Progress) {}
	}
	var last uint64 // the block everything is in
	var sent []pending
	for _, op := range ops {
		done, at, err := o.inForce(ctx, op)
		if err != nil {
			return err
		}
		if done {
			last = max(last, at)
			progress(Progress{Name: op.Name, Stage: StageInForce})
			continue
		}
		tx, err := o.send(ctx, op.Name, o.target(op), op.data)
		if err != nil {
			return err
		}
		progress(Progress{Name: op.Name, Stage: StageSent, TxHash: tx.Hash().Hex()})
		sent = append(sent, pending{op.Name, tx})
	}
	for _, p := range sent {
		r, err := o.included(ctx, p)
		if err != nil {
			return err
		}
		last = max(last, r.BlockNumber.Uint64())
		progress(Progress{Name: p.name, Stage: StageIncluded, TxHash: p.tx.Hash().Hex(), Block: r.BlockNumber.Uint64()})
	}
	return o.waitFinal(ctx, last, sent, progress)
}

type pending struct {
	name string
	tx   *types.Transaction
}

func (o *Owner) target(op Op) common.Address {
	if op.app != nil {
		return common.Address(*op.app)
	}
	return o.kms
}

// inForce reports whether op holds already, and from which block on that is known.
func (o *Owner) inForce(ctx context.Context, op Op) (bool, uint64, error) {
	if op.query == nil {
		return false, 0, nil
	}
	to := o.target(op)
	msg := ethereum.CallMsg{To: &to, Data: op.query}
	head, err := o.client.HeaderByNumber(ctx, nil)
	if err != nil {
		return false, 0, unreachable(err, "reading the head")
	}
	out, err := o.client.CallContractAtHash(ctx, msg, head.Hash())
	if err != nil {
		return false, 0, unreachable(err, "asking whether it is in force: "+op.Name)
	}
	if len(out) == 0 {
		return false, 0, cvm.Errorf(cvm.NotFound, "there is no contract at %s on chain %d", to, o.cfg.ChainID).
			WithFix("check the contract address in the profile")
	}
	if !op.wanted(out) {
		return false, 0, nil
	}
	if f, err := o.finalHeader(ctx, head); err == nil {
		if out, err := o.client.CallContractAtHash(ctx, msg, f.Hash()); err == nil && op.wanted(out) {
			return true, f.Number.Uint64(), nil
		}
	}
	return true, head.Number.Uint64(), nil
}

func (o *Owner) finalHeader(ctx context.Context, head *types.Header) (*types.Header, error) {
	n := big.NewInt(o.final.tag)
	if o.final.tag == 0 {
		n = new(big.Int)
		if h := head.Number.Uint64(); h > o.final.back {
			n.SetUint64(h - o.final.back)
		}
	}
	return o.client.HeaderByNumber(ctx, n)
}

// send signs and sends one call. What would revert is refused before, with the
// contract's own words.
func (o *Owner) send(ctx context.Context, name string, to common.Address, data []byte) (*types.Transaction, error) {
	opts, err := o.signer.TransactOpts(o.cfg.ChainID, o.dev)
	if err != nil {
		return nil, err
	}
	opts.Context = ctx
	c := bind.NewBoundContract(to, noABI, o.client, o.client, nil)
	tx, err := bind.Transact(c, opts, data)
	return tx, o.sendError(ctx, name, to, err)
}

func (o *Owner) sendError(ctx context.Context, name string, to common.Address, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, bind.ErrNoCode) {
		return cvm.Errorf(cvm.NotFound, "%s: there is no contract at %s on chain %d", name, to, o.cfg.ChainID).
			WithFix("check the contract address in the profile")
	}
	if rv := revertText(err); rv != "" {
		return cvm.Errorf(cvm.Denied, "%s: the contract %s refused: %s", name, to, rv).WithReason("contract-refused").
			WithFix("use the wallet that owns the contract; this one is " + o.signer.Address().Hex())
	}
	if strings.Contains(err.Error(), "insufficient funds") { // nodes give no code for it
		return cvm.Errorf(cvm.Precondition, "%s: wallet %s cannot pay for the transaction on chain %d", name, o.signer.Address(), o.cfg.ChainID).
			WithReason("insufficient-funds").WithFix("send some of the chain's coin to " + o.signer.Address().Hex())
	}
	if cvm.CodeOf(err) != cvm.Internal {
		return err
	}
	return unreachable(err, "sending: "+name)
}

// revertText is what a contract said when it refused: its text, or the name of
// OpenZeppelin's error.
func revertText(err error) string {
	rv := asRevert(err)
	if rv == nil {
		return ""
	}
	type dataError interface{ ErrorData() any }
	var de dataError
	if errors.As(err, &de) {
		if s, _ := de.ErrorData().(string); len(s) >= 10 {
			kms := contracts.NewDstackKms()
			if u, err := kms.UnpackError(common.FromHex(s)); err == nil {
				switch u := u.(type) {
				case *contracts.DstackKmsOwnableUnauthorizedAccount:
					return u.Account.Hex() + " is not its owner"
				case *contracts.DstackKmsInvalidInitialization:
					return "it is initialized already"
				}
			}
		}
	}
	return rv.reason
}

// included waits for the transaction's receipt.
func (o *Owner) included(ctx context.Context, p pending) (*types.Receipt, error) {
	for {
		r, err := o.client.TransactionReceipt(ctx, p.tx.Hash())
		if err == nil {
			if r.Status != types.ReceiptStatusSuccessful {
				return nil, cvm.Errorf(cvm.Denied, "%s: transaction %s failed in block %s", p.name, p.tx.Hash(), r.BlockNumber).
					WithReason("transaction-failed")
			}
			return r, nil
		}
		// Anything else may pass: not mined yet, index not ready, endpoint away for a moment.
		if err := o.pause(ctx, p.name+": waiting for transaction "+p.tx.Hash().Hex(), err); err != nil {
			return nil, err
		}
	}
}

func (o *Owner) pause(ctx context.Context, what string, cause error) error {
	t := time.NewTimer(o.cfg.Poll)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		if errors.Is(cause, ethereum.NotFound) {
			cause = ctx.Err()
		}
		return cvm.Errorf(cvm.Unavailable, "%s: %w", what, errors.Join(ctx.Err(), cause)).WithReason("not-final").
			WithFix("the change may still become final: run the command again, it continues where this one stopped")
	}
}

// waitFinal waits until block is final and the transactions are still in it.
func (o *Owner) waitFinal(ctx context.Context, block uint64, sent []pending, progress func(Progress)) error {
	shown := ^uint64(0)
	for {
		head, err := o.client.HeaderByNumber(ctx, nil)
		if err == nil {
			var f *types.Header
			if f, err = o.finalHeader(ctx, head); err == nil {
				at := Progress{Stage: StageIncluded, Block: block, Final: f.Number.Uint64(), Head: head.Number.Uint64()}
				if at.Final >= block {
					return o.stillThere(ctx, block, sent, at, progress)
				}
				if at.Final != shown {
					progress(at)
					shown = at.Final
				}
			}
		}
		if err := o.pause(ctx, "waiting for finality", err); err != nil {
			return err
		}
	}
}

// stillThere looks once more after finality: a reorganisation may have moved a
// transaction to a later block.
func (o *Owner) stillThere(ctx context.Context, block uint64, sent []pending, at Progress, progress func(Progress)) error {
	for _, p := range sent {
		r, err := o.included(ctx, p)
		if err != nil {
			return err
		}
		if n := r.BlockNumber.Uint64(); n > block {
			return o.waitFinal(ctx, n, sent, progress)
		}
	}
	for _, p := range sent {
		progress(Progress{Name: p.name, Stage: StageFinal, TxHash: p.tx.Hash().Hex(), Block: block, Final: at.Final, Head: at.Head})
	}
	return nil
}
