package run

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestGroupStopsInReverse(t *testing.T) {
	var mu sync.Mutex
	var order []string
	g := &Group{}
	for _, n := range []string{"a", "b", "c"} {
		g.Go(context.Background(), n, func(ctx context.Context) error {
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			order = append(order, n)
			return ctx.Err()
		})
	}
	if err := g.Stop(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(order, []string{"c", "b", "a"}) {
		t.Errorf("stopped in order %v", order)
	}
}

func TestGroupReportsTheFirstFailureByName(t *testing.T) {
	g := &Group{}
	g.Go(context.Background(), "db", func(context.Context) error { return errors.New("disk full") })
	if err := g.Wait(context.Background()); err == nil || err.Error() != "db: disk full" {
		t.Errorf("got %v", err)
	}
	_ = g.Stop()
	g = &Group{}
	g.Go(context.Background(), "quiet", func(context.Context) error { return nil })
	if err := g.Wait(context.Background()); err == nil || !strings.Contains(err.Error(), "stopped by itself") {
		t.Errorf("a part that ends early must be an error, got %v", err)
	}
}

func TestGroupStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Group{StopTimeout: time.Minute}
		release := make(chan struct{})
		g.Go(context.Background(), "stuck", func(context.Context) error { <-release; return nil })
		if err := g.Stop(); err == nil || !strings.Contains(err.Error(), "stuck: did not stop within 1m0s") {
			t.Errorf("got %v", err)
		}
		close(release)
	})
}

func TestStopOneLeavesTheOthers(t *testing.T) {
	g := &Group{}
	ended := make(chan string, 2)
	for _, n := range []string{"a", "b"} {
		g.Go(context.Background(), n, func(ctx context.Context) error { <-ctx.Done(); ended <- n; return ctx.Err() })
	}
	if err := g.StopOne("a"); err != nil || <-ended != "a" {
		t.Fatal(err)
	}
	if err := g.StopOne("a"); err == nil {
		t.Error("a stopped part was stopped again")
	}
	select {
	case n := <-ended:
		t.Errorf("%s was stopped too", n)
	case err := <-g.Failed():
		t.Errorf("a part that was asked to stop counts as failed: %v", err)
	default:
	}
	if err := g.Stop(); err != nil || <-ended != "b" {
		t.Error(err)
	}
}
