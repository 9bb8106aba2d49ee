// Package gateway carries clients to apps. It reads the server name of a TLS
// stream, finds the app's live instances, and joins the stream to one of them
// through WireGuard: with TLS ended here, in the gateway's enclave, or passed
// through to the app. HTTP of apps is never parsed.
//
// The gateway trusts tickets (routes), its guest agent (identity) and nothing the
// host says. Make one with New and start it with Run.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/certs"
	"github.com/confidential-cloud/phala/gateway/routes"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/internal/wgnet"
)

// Version of the gateway, shown at /.well-known/phala.
const Version = "0.1.0"

// Gateway is one node.
type Gateway struct {
	cfg     Config
	log     *slog.Logger
	id      *identity
	table   *routes.Table
	metrics *metrics
	streams *streams
	pages   *pages
	started time.Time
	runID   string

	// Set by Run before ready is closed.
	keeper   *certs.Keeper
	net      *wgnet.Net
	tls      *tlsConfigs
	port     int // external
	apiAddr  string
	edgeAddr string

	ready     chan struct{}
	readyOnce sync.Once

	peersMu sync.Mutex
	peers   map[string]uint64 // route key -> generation of its tunnel peer
	gen     uint64

	namesMu sync.Mutex
	names   map[cvm.AppID]map[string]bool // names with certificates of their own
}

// New checks the configuration. Nothing is opened before Run.
func New(c Config) (*Gateway, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Store == nil {
		c.Store = routes.NewMemory()
	}
	if c.Tunnel.Endpoint == "" {
		c.Tunnel.Endpoint = c.Tunnel.WireGuard
	}
	network, err := netip.ParsePrefix(c.Tunnel.Network)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "tunnel.network: %w", err)
	}
	t, err := routes.New(routes.Config{Network: network, Store: c.Store})
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		cfg: c, log: c.Log, table: t, streams: newStreams(c.Limits.Connections),
		id:      &identity{agent: guestapi.NewDstack(c.DstackSock), names: certNames(c.Domain, c.Tunnel.API, c.Tunnel.Endpoint)},
		started: time.Now(), ready: make(chan struct{}),
		peers: map[string]uint64{}, names: map[cvm.AppID]map[string]bool{},
	}
	g.runID = strconv.FormatInt(g.started.UnixNano(), 36)
	g.metrics = newMetrics(g)
	g.pages = newPages(g)
	return g, nil
}

// Ready is closed when clients and guests are served.
func (g *Gateway) Ready() <-chan struct{} { return g.ready }

// Addr is the bound TLS address, valid once Ready.
func (g *Gateway) Addr() string { return g.edgeAddr }

// APIAddr is the bound address of the tunnel API, valid once Ready.
func (g *Gateway) APIAddr() string { return g.apiAddr }

// Run serves until ctx ends, then lets streams drain.
func (g *Gateway) Run(ctx context.Context) (err error) {
	group := &run.Group{Log: g.log, StopTimeout: time.Duration(g.cfg.Limits.Drain) + 10*time.Second}
	defer func() { err = errors.Join(err, group.Stop()) }()
	if g.cfg.Admin.Listen != "" {
		ln, err := net.Listen("tcp", g.cfg.Admin.Listen)
		if err != nil {
			return fmt.Errorf("gateway admin: %w", err)
		}
		group.Go(ctx, "admin", func(ctx context.Context) error { return g.serveAdmin(ctx, ln) })
	}
	if err := g.identify(ctx); err != nil {
		return err
	}
	if err := g.open(ctx, group); err != nil {
		return err
	}
	g.readyOnce.Do(func() { close(g.ready) })
	g.log.Info("gateway is ready", "domain", g.cfg.Domain, "clients", g.edgeAddr, "guests", g.apiAddr,
		"wireguard", g.net.LocalAddr(), "simulated", g.id.kms.Load().Simulated)
	return group.Wait(ctx)
}

// identify waits for the guest agent: at boot the gateway may be first.
func (g *Gateway) identify(ctx context.Context) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, retryAfter) {
		err := g.id.load(ctx, g.cfg.Tunnel.Endpoint)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("gateway identity: %w", err)
		}
		g.log.Warn("waiting for the guest agent", "sock", g.cfg.DstackSock, "err", err)
		if perr := run.Pause(ctx, wait); perr != nil {
			return fmt.Errorf("gateway identity: %w", err)
		}
	}
}

func (g *Gateway) open(ctx context.Context, group *run.Group) error {
	g.table.SetTicketKey(g.id.kms.Load().TicketKey)
	edge, err := net.Listen("tcp", g.cfg.Listen)
	if err != nil {
		return fmt.Errorf("gateway listener: %w", err)
	}
	g.edgeAddr = edge.Addr().String()
	bound := edge.Addr().(*net.TCPAddr).Port
	g.port = g.cfg.ExternalPort
	if g.port == 0 {
		g.port = bound
	}
	api, err := net.Listen("tcp", g.cfg.Tunnel.API)
	if err != nil {
		_ = edge.Close()
		return fmt.Errorf("gateway tunnel API: %w", err)
	}
	g.apiAddr = api.Addr().String()
	if err = g.openTunnel(); err == nil {
		err = g.openCerts(ctx, bound)
	}
	if err != nil {
		_, _ = edge.Close(), api.Close()
		return err
	}
	if err := g.restore(ctx); err != nil {
		g.log.Warn("routes could not be restored; guests will register again", "err", err)
	}
	group.Go(ctx, "tunnel", func(ctx context.Context) error {
		<-ctx.Done()
		return g.net.Close()
	})
	group.Go(ctx, "certificates", g.keeper.Run)
	group.Go(ctx, "identity", func(ctx context.Context) error {
		return g.id.refresh(ctx, func(k guestapi.KMSInfo) { g.table.SetTicketKey(k.TicketKey) },
			func(err error) { g.log.Warn("refreshing the gateway's identity", "err", err) })
	})
	group.Go(ctx, "pages", g.pages.run)
	group.Go(ctx, "registrations", func(ctx context.Context) error { return g.serveAPI(ctx, api) })
	group.Go(ctx, "routes", g.sweep)
	group.Go(ctx, "clients", func(ctx context.Context) error { return g.serveEdge(ctx, edge) })
	return nil
}

func (g *Gateway) openTunnel() error {
	listen, err := netip.ParseAddrPort(g.cfg.Tunnel.WireGuard)
	if err != nil {
		return cvm.Errorf(cvm.Invalid, "tunnel.wireguard: %w", err)
	}
	g.net, err = wgnet.New(wgnet.Config{
		PrivateKey: g.id.tunnel, Listen: listen, Address: g.table.GatewayIP(), MTU: g.cfg.Tunnel.MTU, Log: g.log,
	})
	if err != nil {
		return fmt.Errorf("gateway tunnel: %w", err)
	}
	return nil
}

func (g *Gateway) openCerts(ctx context.Context, port int) (err error) {
	acme := g.cfg.Certs.ACME
	acme.ListenHost, _, _ = net.SplitHostPort(g.cfg.Listen)
	acme.ListenPort = port
	g.keeper, err = certs.New(ctx, certs.Config{
		Domain: g.cfg.Domain, Dir: g.cfg.StateDir, StorageKey: g.id.storage,
		Issuer: g.cfg.Certs.Issuer, CACert: g.cfg.Certs.CACert, CAKey: g.cfg.Certs.CAKey,
		ACME: acme, Allow: g.allowName, Log: g.log,
	})
	if err != nil {
		_ = g.net.Close()
		return err
	}
	g.tls = newTLSConfigs(g.keeper)
	return nil
}

func (g *Gateway) restore(ctx context.Context) error {
	list, refused, err := g.table.Restore(ctx, time.Now())
	for _, r := range list {
		if err := g.addPeer(r, netip.AddrPort{}); err != nil {
			return err
		}
	}
	if refused > 0 {
		g.log.Warn("stored routes refused", "count", refused)
	}
	return err
}

// sweep ends what has no live ticket any more: its streams too, because a ticket
// that is not renewed is how a revocation reaches the gateway (T5).
func (g *Gateway) sweep(ctx context.Context) error {
	for {
		if err := run.Pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
		for _, r := range g.table.Expire(time.Now()) {
			g.log.Info("route ended", "app", r.AppID, "instance", r.Key)
			g.drop(r)
		}
	}
}

// drop ends a route's tunnel peer and streams.
func (g *Gateway) drop(r *routes.Route) {
	g.peersMu.Lock()
	err := g.net.RemovePeer(r.WireGuardKey[:])
	delete(g.peers, r.Key)
	g.peersMu.Unlock()
	if err != nil {
		g.log.Warn("removing a tunnel peer", "instance", r.Key, "err", err)
	}
	g.streams.cut(r.Load)
}

// addPeer lets a route's WireGuard key in. A new peer starts a new generation.
func (g *Gateway) addPeer(r *routes.Route, hint netip.AddrPort) error {
	g.peersMu.Lock()
	defer g.peersMu.Unlock()
	if _, known := g.peers[r.Key]; known {
		return nil
	}
	err := g.net.AddPeer(wgnet.Peer{PublicKey: r.WireGuardKey[:], AllowedIP: r.IP, Endpoint: hint})
	if err != nil {
		return fmt.Errorf("adding tunnel peer: %w", err)
	}
	g.gen++
	g.peers[r.Key] = g.gen
	return nil
}

func (g *Gateway) generation(r *routes.Route) string {
	g.peersMu.Lock()
	defer g.peersMu.Unlock()
	return g.runID + "." + strconv.FormatUint(g.peers[r.Key], 36)
}
