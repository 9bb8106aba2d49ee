package chain

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/beacon/engine"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/types"
)

// buildTime is how long the node may fill a block. It starts with an empty one at
// once and the pool's transactions follow within milliseconds.
const buildTime = 150 * time.Millisecond

// settle tells the node which stored block is the head, and that the network is
// synced. The node writes without waiting for the disk, so a process that was
// killed may have lost the mark of its last head; the block itself was put on disk
// before anyone could see it (seal), and nobody else makes blocks: the highest
// stored one was the head, and what was final behind it is so again.
func (c *Chain) settle() error {
	db, h := c.eth.ChainDb(), c.eth.BlockChain().CurrentBlock()
	for next := h; next != nil; {
		h, next = next, nil
		for _, hash := range rawdb.ReadAllHashes(db, h.Number.Uint64()+1) {
			if b := c.eth.BlockChain().GetBlockByHash(hash); b != nil && b.ParentHash() == h.Hash() {
				next = b.Header()
			}
		}
	}
	res, err := c.engine.ForkchoiceUpdatedV3(c.forkchoice(h.Hash()), nil)
	if err != nil {
		return fmt.Errorf("chain: settling on the stored head: %w", err)
	}
	if res.PayloadStatus.Status != engine.VALID {
		return fmt.Errorf("chain: settling on the stored head %d: the node answered %s", h.Number, res.PayloadStatus.Status)
	}
	return nil
}

// forkchoice names head and, behind it, the safe and the final block. The final
// block never goes back: the node keeps it across restarts.
func (c *Chain) forkchoice(head common.Hash) engine.ForkchoiceStateV1 {
	bc := c.eth.BlockChain()
	s := engine.ForkchoiceStateV1{HeadBlockHash: head}
	h := bc.GetHeaderByHash(head)
	if h == nil {
		return s
	}
	var final uint64
	if n := h.Number.Uint64(); n > c.cfg.FinalityLag {
		final = n - c.cfg.FinalityLag
	}
	// Walk down from head: the canonical index does not know a new head yet.
	for h.Number.Uint64() > final {
		h = bc.GetHeader(h.ParentHash, h.Number.Uint64()-1)
		if h == nil {
			return s
		}
	}
	if kept := bc.CurrentFinalBlock(); kept != nil && kept.Number.Uint64() > final {
		h = kept
	}
	s.FinalizedBlockHash, s.SafeBlockHash = h.Hash(), h.Hash()
	return s
}

// seal makes one block.
func (c *Chain) seal(ctx context.Context) error {
	// The pool follows the head on its own thread; what it still misses would be
	// missing in the block.
	if err := c.syncPool(); err != nil {
		return fmt.Errorf("waiting for the transaction pool: %w", err)
	}
	parent := c.eth.BlockChain().CurrentBlock()
	attrs := &engine.PayloadAttributes{
		Timestamp:   max(uint64(time.Now().Unix()), parent.Time+1),
		Withdrawals: c.takeCredit(),
		BeaconRoot:  &common.Hash{},
	}
	_, _ = rand.Read(attrs.Random[:])
	res, err := c.engine.ForkchoiceUpdatedV3(c.forkchoice(parent.Hash()), attrs)
	if err != nil {
		return fmt.Errorf("starting a block: %w", err)
	}
	if res.PayloadID == nil {
		return fmt.Errorf("starting a block: the node answered %s", res.PayloadStatus.Status)
	}
	wait := time.NewTimer(buildTime)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wait.C:
	}
	env, err := c.engine.GetPayloadV4(*res.PayloadID)
	if err != nil {
		return fmt.Errorf("reading the block: %w", err)
	}
	requests := make([]hexutil.Bytes, 0, len(env.Requests))
	for _, r := range env.Requests {
		requests = append(requests, r)
	}
	blobs, err := blobHashes(env.ExecutionPayload.Transactions)
	if err != nil {
		return err
	}
	st, err := c.engine.NewPayloadV4(*env.ExecutionPayload, blobs, &common.Hash{}, requests)
	if err != nil {
		return fmt.Errorf("importing the block: %w", err)
	}
	if st.Status != engine.VALID {
		return fmt.Errorf("importing the block: the node answered %s", st.Status)
	}
	// On disk before it is the head: see settle.
	if err := c.eth.ChainDb().SyncKeyValue(); err != nil {
		return fmt.Errorf("writing the block: %w", err)
	}
	head := env.ExecutionPayload.BlockHash
	if _, err := c.engine.ForkchoiceUpdatedV3(c.forkchoice(head), nil); err != nil {
		return fmt.Errorf("making the block the head: %w", err)
	}
	return nil
}

// syncPool waits until the transaction pool has seen the head. One caller at a time:
// the pool remembers only its last waiter, and another would wait for ever.
func (c *Chain) syncPool() error {
	c.pool.Lock()
	defer c.pool.Unlock()
	return c.eth.TxPool().Sync()
}

// takeCredit empties the list of accounts to fund. A block that fails loses them,
// and Fund is asked again by who waits for the balance.
func (c *Chain) takeCredit() []*types.Withdrawal {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.credit
	c.credit = nil
	for _, w := range list {
		w.Index = c.minted
		c.minted++
	}
	if list == nil {
		list = []*types.Withdrawal{}
	}
	return list
}

// blobHashes lists the blobs that a block's transactions carry: the engine API
// wants them beside the block.
func blobHashes(txs [][]byte) ([]common.Hash, error) {
	list := []common.Hash{}
	for _, raw := range txs {
		var tx types.Transaction
		if err := tx.UnmarshalBinary(raw); err != nil {
			return nil, fmt.Errorf("reading the block's transactions: %w", err)
		}
		list = append(list, tx.BlobHashes()...)
	}
	return list, nil
}
