package guestagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/guest-agent/boot"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/guest-agent/lease"
	"github.com/confidential-cloud/phala/internal/wgnet"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/ratls"
)

// Retries of a registration that failed, and how often the tunnel's far end is
// reminded of us.
const (
	retryFirst = time.Second
	retryMost  = 15 * time.Second
	keepalive  = 25 * time.Second
)

// edge is the guest's end of the tunnel to the gateways.
type edge struct {
	log     *slog.Logger
	session *lease.Session
	key     keys.Secret
	root    []byte
	urls    []string
	policy  *appcompose.PortPolicy
	listen  netip.AddrPort
	target  string // host that streams are dialled at
	wake    chan struct{}

	mu     sync.Mutex
	net    *wgnet.Net
	domain string            // that apps are below, as URLs have it; "" until a gateway has said so
	runs   map[string]string // by gateway's WireGuard key: its GatewayRun when our session began
	closed bool
}

func newEdge(a *Agent, s *boot.State) *edge {
	return &edge{
		log: a.log, session: a.session, key: a.wgKey, root: s.Keys.RootSPKI, urls: s.Shared.Sys.GatewayURLs,
		policy: s.App.PortPolicy, listen: netip.MustParseAddrPort(a.cfg.WireGuardListen), // checked by Validate
		target: forwardHost(a.cfg.ForwardHost), wake: make(chan struct{}, 1), runs: map[string]string{},
	}
}

// forwardHost is the first address of the guest that is not loopback.
func forwardHost(want string) string {
	if want != "" {
		return want
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "127.0.0.1"
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			return n.IP.String()
		}
	}
	return "127.0.0.1"
}

// kick asks run to register (again): there is a new ticket, or the last try failed.
func (e *edge) kick() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// run registers with each new ticket until ctx ends.
func (e *edge) run(ctx context.Context) error {
	defer e.close()
	pause := retryFirst
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.wake:
		case <-again:
		}
		again = nil
		if err := e.register(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			e.log.Warn("registering with the gateway failed", "err", err, "reason", cvm.ReasonOf(err))
			again = time.After(pause)
			pause = min(2*pause, retryMost)
			continue
		}
		pause = retryFirst
	}
}

// register shows the newest ticket to every gateway and sets the tunnel up as they
// say. One gateway that answers is enough.
func (e *edge) register(ctx context.Context) error {
	if len(e.urls) == 0 {
		return cvm.Errorf(cvm.Precondition, "the host named no gateway (gateway_urls of .sys-config.json is empty)").WithReason("gateway-unknown")
	}
	id, err := cvm.ParseAppID(e.session.Granted().GatewayAppID)
	if err != nil {
		// "any" and "" would let every app of this KMS pose as the gateway.
		return cvm.Errorf(cvm.Precondition, "the KMS names no gateway app (%q)", e.session.Granted().GatewayAppID).
			WithReason("gateway-not-pinned").WithFix("set the gateway app id in governance")
	}
	_, cert, err := e.session.Certificate()
	if err != nil {
		return err
	}
	var errs []error
	var regs []gatewayapi.Registration
	for _, u := range e.urls {
		c, err := gatewayapi.NewClient(u, ratls.PinnedClient(e.root, ratls.UsageAppCustom, &id, cert))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r, err := c.Register(ctx, gatewayapi.RegisterRequest{Ticket: e.session.Ticket(), WireGuardPort: e.port()})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		regs = append(regs, r)
	}
	if len(regs) == 0 {
		return errors.Join(errs...)
	}
	return e.apply(ctx, regs)
}

// port is the tunnel's UDP port, 0 while it is not known.
func (e *edge) port() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.net != nil {
		return int(e.net.LocalAddr().Port())
	}
	return int(e.listen.Port())
}

func (e *edge) apply(ctx context.Context, regs []gatewayapi.Registration) error {
	addr, err := netip.ParseAddr(regs[0].ClientIP)
	if err != nil {
		return cvm.Errorf(cvm.Unavailable, "the gateway gave the tunnel address %q", regs[0].ClientIP)
	}
	var peers []wgnet.Peer
	runs := map[string]string{}
	for _, r := range regs {
		if r.ClientIP != regs[0].ClientIP {
			// Gateways of one cluster share a store; two clusters at once are not served.
			e.log.Warn("gateways disagree about the tunnel address", "have", regs[0].ClientIP, "other", r.ClientIP)
			continue
		}
		for _, s := range r.Servers {
			p, err := peer(ctx, s)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(peers, func(o wgnet.Peer) bool { return string(o.PublicKey) == string(p.PublicKey) }) {
				peers = append(peers, p)
				runs[string(p.PublicKey)] = r.GatewayRun
			}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return context.Canceled
	}
	e.domain = baseDomain(regs[0])
	if e.net != nil && e.net.Address() == addr {
		return e.update(peers, runs)
	}
	if e.net != nil {
		_ = e.net.Close()
		e.net = nil
	}
	n, err := wgnet.New(wgnet.Config{PrivateKey: e.key, Listen: e.listen, Address: addr, Peers: peers, Log: e.log})
	if err != nil {
		return err
	}
	if err := n.Forward(e.dial); err != nil {
		_ = n.Close()
		return err
	}
	e.net, e.runs = n, runs
	e.log.Info("joined the gateway", "tunnel_address", addr, "gateways", len(peers), "domain", regs[0].Domain)
	return nil
}

// baseDomain is what stands after the app in a URL: with the port, unless it is HTTPS's own.
func baseDomain(r gatewayapi.Registration) string {
	if r.Domain == "" || r.Port == 0 || r.Port == 443 {
		return r.Domain
	}
	return net.JoinHostPort(r.Domain, strconv.Itoa(r.Port))
}

// base is the domain that apps are below, "" without a gateway.
func (e *edge) base() string {
	if e == nil {
		return ""
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.domain
}

// update changes the peers of the running tunnel. A gateway that has forgotten our
// session cannot say so in WireGuard, and would be silent until a rekey: begin anew.
func (e *edge) update(peers []wgnet.Peer, runs map[string]string) error {
	if err := e.net.UpdatePeers(peers); err != nil {
		return err
	}
	for _, p := range peers {
		if was, known := e.runs[string(p.PublicKey)]; known && was != runs[string(p.PublicKey)] {
			e.log.Info("the gateway has forgotten the session; shaking hands again", "gateway", p.Endpoint)
			if err := e.net.ResetPeer(p.PublicKey); err != nil {
				return err
			}
		}
	}
	e.runs = runs
	return nil
}

func peer(ctx context.Context, s gatewayapi.Server) (p wgnet.Peer, err error) {
	host, port, err := net.SplitHostPort(s.Endpoint)
	if err != nil {
		return p, cvm.Errorf(cvm.Unavailable, "gateway endpoint %q: %w", s.Endpoint, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return p, cvm.Errorf(cvm.Unavailable, "gateway endpoint %q: bad port", s.Endpoint)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(ips) == 0 {
		return p, cvm.Errorf(cvm.Unavailable, "gateway endpoint %q does not resolve: %w", s.Endpoint, err)
	}
	inner, err := netip.ParseAddr(s.IP)
	if err != nil {
		return p, cvm.Errorf(cvm.Unavailable, "gateway tunnel address %q: %w", s.IP, err)
	}
	return wgnet.Peer{PublicKey: s.PublicKey, Endpoint: netip.AddrPortFrom(ips[0].Unmap(), uint16(n)), AllowedIP: inner, Keepalive: keepalive}, nil
}

// dial joins a stream from the gateway to the guest's own port, as far as the
// measured policy lets it. Evidence is always reachable: an app that nobody can
// check would be no use.
func (e *edge) dial(port uint16) (net.Conn, error) {
	if !allowed(e.policy, port) {
		return nil, cvm.Errorf(cvm.Denied, "port %d is not in the app's port_policy", port)
	}
	return net.DialTimeout("tcp", net.JoinHostPort(e.target, fmt.Sprint(port)), 10*time.Second) //nolint:noctx // a stream has no context
}

func allowed(p *appcompose.PortPolicy, port uint16) bool {
	if p == nil || !p.RestrictMode || port == guestapi.ExternalPort {
		return true
	}
	return slices.ContainsFunc(p.Ports, func(q appcompose.Port) bool { return q.Port == int(port) })
}

func (e *edge) close() {
	e.mu.Lock()
	n := e.net
	e.net, e.closed = nil, true
	e.mu.Unlock()
	if n != nil {
		_ = n.Close()
	}
}
