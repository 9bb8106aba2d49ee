package ethereum

import (
	"context"
	"errors"
	"math/big"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"
	"golang.org/x/sync/errgroup"

	"github.com/confidential-cloud/phala/governance"
)

const (
	tagFinalized = int64(rpc.FinalizedBlockNumber)
	tagSafe      = int64(rpc.SafeBlockNumber)
)

// tips is what one endpoint says of the chain.
type tips struct{ head, final *types.Header }

// View reads the chain's final block and head from every endpoint, and refuses
// what is stale, torn or older than what was seen before. It is what every
// decision rests on; services may also call it to watch the chain.
func (r *Reader) View(ctx context.Context) (governance.View, error) {
	v, _, _, err := r.view(ctx)
	return v, err
}

func (r *Reader) view(ctx context.Context) (v governance.View, head, final *types.Header, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	seen := r.now() // before the first question: the answer is at least this old
	// The view must not be behind what was known when it was begun. Views that are
	// read at the same time may end in any order.
	high := r.HighWater()
	all, err := r.tips(ctx)
	if err != nil {
		return v, nil, nil, err
	}
	if head, err = r.agreedHead(ctx, all); err != nil {
		return v, nil, nil, err
	}
	if final, err = r.agreedFinal(ctx, all, head); err != nil {
		return v, nil, nil, err
	}
	v = governance.View{Source: "ethereum", ChainID: r.cfg.ChainID, Contract: r.contract.Hex(), SeenAt: seen.UTC(), FinalMode: r.final.text,
		Final: ref(final.Number.Uint64(), final.Hash(), final.Time), Head: ref(head.Number.Uint64(), head.Hash(), head.Time)}
	if err = r.checkTime(v); err != nil {
		return v, nil, nil, err
	}
	return v, head, final, r.advance(ctx, v, high)
}

// tips asks every endpoint for its chain id, head and final block.
func (r *Reader) tips(ctx context.Context) ([]tips, error) {
	all := make([]tips, len(r.endpoints))
	g, ctx := errgroup.WithContext(ctx)
	for i, e := range r.endpoints {
		g.Go(func() error {
			id, err := e.ChainID(ctx)
			if err != nil {
				return unreachable(err, e.name+": asking for the chain id")
			}
			if !id.IsUint64() || id.Uint64() != r.cfg.ChainID {
				return refused(ReasonDisagrees, "%s is on chain %s, not %d", e.name, id, r.cfg.ChainID)
			}
			// The final block first: it cannot be ahead of a head that is read later.
			if r.final.tag != 0 {
				if all[i].final, err = header(ctx, e, big.NewInt(r.final.tag)); err != nil {
					return err
				}
			}
			all[i].head, err = header(ctx, e, nil)
			return err
		})
	}
	return all, g.Wait()
}

func header(ctx context.Context, e named, n *big.Int) (*types.Header, error) {
	h, err := e.HeaderByNumber(ctx, n)
	what := "the head"
	if n != nil {
		what = "block " + blockName(n)
	}
	if errors.Is(err, ethereum.NotFound) {
		return nil, refused(ReasonUnreachable, "%s has not got %s", e.name, what)
	}
	if err != nil {
		return nil, unreachable(err, e.name+": reading "+what)
	}
	if h.Number == nil || !h.Number.IsUint64() || (n != nil && n.Sign() >= 0 && h.Number.Cmp(n) != 0) {
		return nil, refused(ReasonDisagrees, "%s answered with another block when asked for %s", e.name, what)
	}
	return h, nil
}

func blockName(n *big.Int) string {
	if n.Sign() < 0 {
		return rpc.BlockNumber(n.Int64()).String()
	}
	return n.String()
}

// agreedHead is the lowest of the heads; everyone must have it, and nobody may be
// far ahead of it.
func (r *Reader) agreedHead(ctx context.Context, all []tips) (*types.Header, error) {
	low, high := 0, 0
	for i := range all {
		if all[i].head.Number.Cmp(all[low].head.Number) < 0 {
			low = i
		}
		if all[i].head.Number.Cmp(all[high].head.Number) > 0 {
			high = i
		}
	}
	lo, hi := all[low].head.Number.Uint64(), all[high].head.Number.Uint64()
	if hi-lo > r.cfg.HeadSlack {
		return nil, refused(ReasonDisagrees, "%s is at block %d and %s at %d: more than %d apart",
			r.endpoints[low].name, lo, r.endpoints[high].name, hi, r.cfg.HeadSlack)
	}
	return all[low].head, r.everyoneHas(ctx, all[low].head, func(i int) *types.Header { return all[i].head })
}

// agreedFinal is the lowest final block (or the block N behind the head).
func (r *Reader) agreedFinal(ctx context.Context, all []tips, head *types.Header) (*types.Header, error) {
	none := func(int) *types.Header { return nil }
	if r.final.tag == 0 {
		n := uint64(0)
		if h := head.Number.Uint64(); h > r.final.back {
			n = h - r.final.back
		}
		h, err := header(ctx, r.endpoints[0], new(big.Int).SetUint64(n))
		if err != nil {
			return nil, err
		}
		return h, r.everyoneHas(ctx, h, none)
	}
	low := 0
	for i := range all {
		if all[i].final.Number.Cmp(all[low].final.Number) < 0 {
			low = i
		}
	}
	f := all[low].final
	if f.Number.Cmp(head.Number) > 0 {
		return nil, refused(ReasonDisagrees, "%s calls block %s final, ahead of the head %s", r.endpoints[low].name, f.Number, head.Number)
	}
	return f, r.everyoneHas(ctx, f, func(i int) *types.Header { return all[i].final })
}

// everyoneHas checks that each endpoint has the block h at its height. known gives
// what an endpoint has said already.
func (r *Reader) everyoneHas(ctx context.Context, h *types.Header, known func(int) *types.Header) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, e := range r.endpoints {
		g.Go(func() error {
			own := known(i)
			if own == nil || own.Number.Cmp(h.Number) != 0 {
				var err error
				if own, err = header(ctx, e, h.Number); err != nil {
					return err
				}
			}
			if own.Hash() != h.Hash() {
				return refused(ReasonDisagrees, "%s has another block %s than the other endpoints", e.name, h.Number)
			}
			return nil
		})
	}
	return g.Wait()
}

// checkTime refuses an old head, by its own time and by the time it was read at,
// and one from the future.
func (r *Reader) checkTime(v governance.View) error {
	now := r.now()
	if age := now.Sub(v.Head.Time); age > time.Duration(r.cfg.MaxStaleness) {
		return refused(ReasonStale, "the newest block %d is %s old, the limit is %s", v.Head.Number, age.Round(1e9), r.cfg.MaxStaleness)
	}
	if age := now.Sub(v.SeenAt); age > time.Duration(r.cfg.MaxStaleness) {
		return refused(ReasonStale, "reading the chain took %s, the limit is %s", age.Round(1e9), r.cfg.MaxStaleness)
	}
	if ahead := v.Head.Time.Sub(now); ahead > maxFuture {
		return refused(ReasonDisagrees, "block %d says it was made %s in the future", v.Head.Number, ahead.Round(1e9))
	}
	return nil
}

// advance holds the view against the high-water mark and raises it. The old final
// block must still be on the chain.
func (r *Reader) advance(ctx context.Context, v governance.View, high HighWater) error {
	if err := notBehind(v, high, r.cfg.HeadSlack); err != nil {
		return err
	}
	if high.Final.Hash != "" && high.Final.Number < v.Final.Number {
		old, err := header(ctx, r.endpoints[0], new(big.Int).SetUint64(high.Final.Number))
		if err != nil {
			return err
		}
		if old.Hash().Hex() != high.Final.Hash {
			return refused(ReasonWentBack, "block %d was final as %s and is %s now", high.Final.Number, high.Final.Hash, old.Hash().Hex())
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// Another call may have seen more meanwhile; the mark only rises.
	if v.Final.Number >= r.high.Final.Number {
		r.high.Final = v.Final
	}
	if v.Head.Number >= r.high.Head.Number {
		r.high.Head = v.Head
	}
	return nil
}

func notBehind(v governance.View, high HighWater, slack uint64) error {
	if v.Final.Number < high.Final.Number {
		return refused(ReasonWentBack, "the final block went back from %d to %d", high.Final.Number, v.Final.Number)
	}
	if v.Final.Number == high.Final.Number && high.Final.Hash != "" && v.Final.Hash != high.Final.Hash {
		return refused(ReasonWentBack, "final block %d changed from %s to %s", v.Final.Number, high.Final.Hash, v.Final.Hash)
	}
	if v.Head.Number+slack < high.Head.Number {
		return refused(ReasonWentBack, "the head went back from %d to %d", high.Head.Number, v.Head.Number)
	}
	return nil
}
