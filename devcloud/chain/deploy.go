package chain

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance/ethereum"
)

const (
	contractsFile = "contracts.json"
	// ownerGwei is what an owner's wallet holds at least (1000 coins).
	ownerGwei = 1_000_000_000_000
)

// DeployContracts funds the owner's wallet and deploys DstackKms and its
// implementations, owned by it. Once done it is remembered in the data directory
// and costs nothing. Run must be running. progress may be nil.
func (c *Chain) DeployContracts(ctx context.Context, owner ethereum.Signer, progress func(ethereum.Progress)) (ethereum.Contracts, error) {
	if err := c.EnsureFunds(ctx, owner.Address(), ownerGwei); err != nil {
		return ethereum.Contracts{}, err
	}
	if have, err := c.Contracts(ctx); err == nil {
		return have, nil
	} else if cvm.CodeOf(err) != cvm.NotFound {
		return ethereum.Contracts{}, err
	}
	o, err := ethereum.NewOwnerWith(ctx, ethereum.OwnerConfig{ChainID: c.cfg.ChainID, Log: c.log}, c.Client(), owner)
	if err != nil {
		return ethereum.Contracts{}, err
	}
	got, err := o.DeployKMS(ctx, progress)
	if err != nil {
		return got, err
	}
	b, err := json.MarshalIndent(got, "", " ")
	if err != nil {
		return got, err
	}
	path := filepath.Join(c.cfg.Dir, contractsFile)
	if err := os.WriteFile(path+".tmp", append(b, '\n'), 0o600); err != nil {
		return got, err
	}
	return got, os.Rename(path+".tmp", path)
}

// Contracts are the addresses that DeployContracts recorded; not_found before it,
// and when the chain lost them in a crash right after (it deploys again then).
func (c *Chain) Contracts(ctx context.Context) (ethereum.Contracts, error) {
	var have ethereum.Contracts
	path := filepath.Join(c.cfg.Dir, contractsFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return have, cvm.Errorf(cvm.NotFound, "chain: no contracts are deployed yet")
	}
	if err != nil {
		return have, err
	}
	if err := json.Unmarshal(b, &have); err != nil {
		return have, cvm.Errorf(cvm.Invalid, "chain: %s: %w", path, err)
	}
	code, err := c.Client().CodeAt(ctx, have.KMS, nil)
	if err != nil {
		return have, err
	}
	if len(code) == 0 {
		return have, cvm.Errorf(cvm.NotFound, "chain: %s names contracts that the chain has not got", path)
	}
	return have, nil
}

// EnsureFunds credits an address until it holds at least gwei. Run must be running.
func (c *Chain) EnsureFunds(ctx context.Context, to common.Address, gwei uint64) error {
	want := new(big.Int).Mul(new(big.Int).SetUint64(gwei), big.NewInt(1e9))
	cl := c.Client()
	var asked time.Time
	for {
		have, err := cl.BalanceAt(ctx, to, nil)
		if err != nil {
			return err
		}
		if have.Cmp(want) >= 0 {
			return c.syncPool() // the pool judges by its own view of the head
		}
		if time.Since(asked) > 5*time.Duration(c.cfg.Period) { // the block that held the credit may have failed
			c.Fund(to, gwei)
			asked = time.Now()
		}
		t := time.NewTimer(50 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Stop()
			return cvm.Errorf(cvm.Unavailable, "chain: funding %s: %w", to, ctx.Err()).WithFix("is the chain making blocks?")
		case <-t.C:
		}
	}
}
