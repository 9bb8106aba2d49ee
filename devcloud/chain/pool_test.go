package chain

import (
	"context"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"golang.org/x/sync/errgroup"
)

// Whoever waits for the transaction pool must not make another wait for ever, least
// of all the one who makes the blocks.
func TestConcurrentFunding(t *testing.T) {
	c, stop := start(t, Config{Dir: t.TempDir()})
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	to := common.Address{1}
	if err := c.EnsureFunds(ctx, to, 1); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		var g errgroup.Group
		for range 8 {
			g.Go(func() error {
				for range 50 {
					if err := c.EnsureFunds(ctx, to, 1); err != nil {
						return err
					}
				}
				return nil
			})
		}
		done <- g.Wait()
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-ctx.Done():
		t.Fatal("somebody waits for the pool for ever")
	}
	// And blocks go on: another account is credited in one of them.
	if err := c.EnsureFunds(ctx, common.Address{2}, 1); err != nil {
		t.Fatal(err)
	}
}
