package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"github.com/confidential-cloud/phala/api/jobs"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/api/store/sqlstore"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/internal/sqldb"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

// Server is the cloud API.
type Server struct {
	cfg   Config
	log   *slog.Logger
	store store.Store
	jobs  *jobs.Runner
	nodes *nodes
	keys  KMSClient
	chain AppReader // nil: there is no chain that can be read
	api   huma.API
	mux   *chi.Mux
	now   func() time.Time

	streams streams
	guards  []Guarded
	refused []error // operations that name no access
	sealer  sealer
	hashing chan struct{} // bounds the memory that passwords take
	origins *http.CrossOriginProtection
	oidc    oidcClient
	judge   *judge
	shown   recall
	faces   faces
	chooser chooser
}

// New opens the database and the clients. Nothing runs and nothing is asked of
// other services yet.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cloud API config: %w", err)
	}
	ctx := context.Background() // opening the database
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cloud API: %w", err)
	}
	s := &Server{cfg: cfg, log: cfg.Log, now: cfg.Now, keys: cfg.Keys, hashing: make(chan struct{}, maxHashing)}
	if s.now == nil {
		s.now = time.Now
	}
	if s.keys == nil {
		k, err := kmsapi.New(kmsapi.Config{URLs: cfg.KMS.URLs, RootSPKI: cfg.KMS.RootSPKI})
		if err != nil {
			return nil, fmt.Errorf("cloud API: %w", err)
		}
		s.keys = k
	}
	if s.chain = cfg.Apps; s.chain == nil && cfg.Chain.ID != 0 && cfg.Chain.RPCURL != "" {
		apps, err := ethereum.NewApps(ctx, cfg.Chain.RPCURL, cfg.Chain.ID)
		if err != nil {
			return nil, fmt.Errorf("cloud API: %w", err)
		}
		s.chain = apps
	}
	db, err := sqlstore.Open(ctx, cfg.Database(), s.now)
	if err != nil {
		return nil, fmt.Errorf("cloud API: %w", err)
	}
	s.store = db
	if err := s.open(ctx, db.Handle()); err != nil {
		return nil, errors.Join(fmt.Errorf("cloud API: %w", err), db.Close())
	}
	return s, nil
}

func (s *Server) open(ctx context.Context, db *sqldb.DB) (err error) {
	if s.nodes, err = newNodes(ctx, s.cfg, s.store, s.now); err != nil {
		return err
	}
	s.jobs, err = jobs.New(ctx, jobs.Config{
		Database: s.cfg.Database(), Shared: db, Store: s.store, Log: s.log, Poll: s.cfg.Poll, Sync: s.cfg.Sync, PeerTimeout: s.cfg.PeerTimeout,
		Node: s.nodes.vmm, Nodes: s.nodes.ids, KMSURLs: s.cfg.guestKMS(), GatewayURLs: s.cfg.Gateway.GuestURLs,
	})
	if err != nil {
		return err
	}
	if err := s.store.SetPrices(ctx, s.cfg.prices()); err != nil {
		return err
	}
	if s.sealer, err = openSealer(s.cfg); err != nil {
		return err
	}
	if s.judge, err = newJudge(s.cfg.Attestation, s.now); err != nil {
		return err
	}
	s.origins = http.NewCrossOriginProtection()
	s.mux = chi.NewMux()
	s.mux.Use(plainJSON)
	s.api = s.routes(s.mux)
	if err := errors.Join(s.refused...); err != nil {
		return err
	}
	if err := s.firstKey(ctx); err != nil {
		return err
	}
	return s.firstPassword(ctx)
}

// Handler serves the API; jobs only move while Run runs.
func (s *Server) Handler() http.Handler { return s.mux }

// Close closes the database of a Server that does not run (any more).
func (s *Server) Close() error { return errors.Join(s.jobs.Close(), s.store.Close()) }

// Run listens and works until ctx ends, then closes the database.
func (s *Server) Run(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return errors.Join(fmt.Errorf("cloud API: %w", err), s.Close())
	}
	return s.Serve(ctx, l)
}

// Serve is Run on a listener, which it closes.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	group := &run.Group{Log: s.log}
	group.Go(ctx, "nodes", s.nodes.run)
	group.Go(ctx, "jobs", s.jobs.Run)
	group.Go(ctx, "webhooks", s.deliver)
	group.Go(ctx, "metering", s.meter)
	group.Go(ctx, "http", func(ctx context.Context) error { return s.serveHTTP(ctx, l) })
	s.log.Info("cloud API is up", "address", l.Addr().String())
	err := group.Wait(ctx)
	return errors.Join(err, group.Stop(), s.Close())
}

func (s *Server) serveHTTP(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler: s.mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		// Streams end with the server, not with their own patience.
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		_ = srv.Close()
	}
	<-done //nolint:errcheck // it was asked to close
	return nil
}
