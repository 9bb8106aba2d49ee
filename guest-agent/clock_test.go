package guestagent

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/confidential-cloud/phala/guest-agent/boot"
)

// The stage that asks for keys follows the stage "clock", which must not end while the
// clock of an emulated machine may be wrong.
func TestStageClockWaitsForTheClock(t *testing.T) {
	asked, ended := make(chan struct{}), make(chan error, 1)
	a := &Agent{log: slog.New(slog.DiscardHandler), settled: func(ctx context.Context) error {
		close(asked)
		<-ctx.Done()
		return context.Cause(ctx)
	}}
	over := errors.New("the boot is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { ended <- a.startClock(ctx, &boot.State{}) }()
	<-asked
	select {
	case err := <-ended:
		t.Fatalf("the stage ended before the clock was settled: %v", err)
	default:
	}
	cancel(over)
	if err := <-ended; !errors.Is(err, over) {
		t.Errorf("the stage ended with %v", err)
	}
}
