// Package routes knows which instances may be reached, and where. A route is a
// KMS-signed ticket and ends with it: the table trusts the ticket key and nothing
// else, so any store may carry tickets between gateways.
package routes

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// Store keeps signed tickets where other gateways (or this one, later) find them.
// It is not trusted: what it returns is verified again.
type Store interface {
	// Save keeps the newest signed ticket of an instance until it expires.
	Save(ctx context.Context, instance string, signed []byte, expires time.Time) error
	// Load returns the tickets that have not expired at the given time.
	Load(ctx context.Context, at time.Time) ([][]byte, error)
}

// Config of a table.
type Config struct {
	// Network that client addresses come from, IPv4, /8 to /29. Its first host
	// address is the gateway's.
	Network netip.Prefix
	// Store, or nil for none.
	Store Store
}

// Route leads to one instance. Its fields do not change; a newer ticket makes a
// new Route that shares the instance's Load.
type Route struct {
	Key          string // the instance id, or app id and key for apps without instance ids
	AppID        cvm.AppID
	InstanceID   cvm.InstanceID
	WireGuardKey [keySize]byte
	IP           netip.Addr
	ComposeHash  string
	Policy       appcompose.PortPolicy
	Simulated    bool
	IssuedAt     time.Time // the KMS's clock
	Expires      time.Time // this gateway's clock: never later than the ticket says
	Load         *Load
}

// Load is what the gateway has learned about an instance by using it. Safe for
// concurrent use.
type Load struct {
	Streams     atomic.Int64 // open now
	lastFailure atomic.Int64 // unix nanoseconds
}

// Failed notes a connection that could not be made.
func (l *Load) Failed(at time.Time) { l.lastFailure.Store(at.UnixNano()) }

// Worked notes one that could.
func (l *Load) Worked() { l.lastFailure.Store(0) }

// penalty is how long an instance that could not be reached is tried last.
const penalty = 10 * time.Second

func (l *Load) failing(at time.Time) bool {
	f := l.lastFailure.Load()
	return f != 0 && at.Sub(time.Unix(0, f)) < penalty
}

// Port finds the policy of a port. allowed is false when the app's measured
// restrict_mode does not list it. Evidence is exempt, as it is in the guest: an app
// that nobody can check would be no use.
func (r *Route) Port(port uint16) (p appcompose.Port, allowed bool) {
	for _, x := range r.Policy.Ports {
		if x.Port == int(port) {
			return x, true
		}
	}
	return appcompose.Port{Port: int(port)}, !r.Policy.RestrictMode || port == guestapi.ExternalPort
}

// Table is the set of live routes. Safe for concurrent use.
type Table struct {
	cfg Config
	mu  sync.RWMutex
	key ed25519.PublicKey
	// by instance key, by app, by instance id
	routes map[string]*Route
	byApp  map[cvm.AppID][]*Route
	byInst map[cvm.InstanceID]*Route
	byKey  map[[keySize]byte]string
	seen   map[[20]byte]time.Time // ids that had a route: "gone" differs from "unknown"
	pool   *pool
	next   atomic.Uint64 // round robin
}

// New makes an empty table that admits nothing until SetTicketKey.
func New(c Config) (*Table, error) {
	if !c.Network.IsValid() || !c.Network.Addr().Is4() || c.Network.Bits() < 8 || c.Network.Bits() > 29 {
		return nil, cvm.Errorf(cvm.Invalid, "tunnel network %q: want an IPv4 prefix from /8 to /29, for example 10.88.0.0/16", c.Network)
	}
	return &Table{
		cfg: c, pool: newPool(c.Network),
		routes: map[string]*Route{}, byApp: map[cvm.AppID][]*Route{}, byInst: map[cvm.InstanceID]*Route{},
		byKey: map[[keySize]byte]string{}, seen: map[[20]byte]time.Time{},
	}, nil
}

// GatewayIP is the gateway's own address in the tunnel.
func (t *Table) GatewayIP() netip.Addr { return firstHost(t.cfg.Network) }

// SetTicketKey sets the KMS's ed25519 key. Routes that exist stay until they end.
func (t *Table) SetTicketKey(k ed25519.PublicKey) {
	t.mu.Lock()
	t.key = slices.Clone(k)
	t.mu.Unlock()
}

// Register verifies a ticket and makes or renews its route. replaced is the
// instance's former route when its WireGuard key was another one: its peer and
// its streams must go.
func (t *Table) Register(ctx context.Context, signed []byte, at time.Time) (r, replaced *Route, err error) {
	r, replaced, err = t.admit(signed, at)
	if err != nil {
		return nil, nil, err
	}
	if t.cfg.Store != nil {
		if err := t.cfg.Store.Save(ctx, r.Key, signed, r.Expires); err != nil {
			return nil, nil, cvm.Errorf(cvm.Unavailable, "keeping the route: %w", err)
		}
	}
	return r, replaced, nil
}

// Restore admits what the store has. Tickets that do not verify are skipped and
// counted.
func (t *Table) Restore(ctx context.Context, at time.Time) (routes []*Route, refused int, err error) {
	if t.cfg.Store == nil {
		return nil, 0, nil
	}
	tickets, err := t.cfg.Store.Load(ctx, at)
	if err != nil {
		return nil, 0, err
	}
	for _, s := range tickets {
		r, _, err := t.admit(s, at)
		if err != nil {
			refused++
			continue
		}
		routes = append(routes, r)
	}
	return routes, refused, nil
}

func (t *Table) admit(signed []byte, at time.Time) (r, replaced *Route, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tk, policy, err := Verify(signed, t.key, at)
	if err != nil {
		return nil, nil, err
	}
	wg := [keySize]byte(tk.WireGuardKey)
	key := tk.InstanceID.String()
	if tk.InstanceID.IsZero() {
		key = tk.AppID.String() + "/" + hex.EncodeToString(wg[:8])
	}
	old := t.routes[key]
	switch {
	case old != nil && old.AppID != tk.AppID:
		return nil, nil, cvm.Errorf(cvm.Conflict, "instance %s belongs to app %s", key, old.AppID).WithReason("ticket-invalid")
	case old != nil && tk.IssuedAt.Before(old.IssuedAt):
		return nil, nil, cvm.Errorf(cvm.Conflict, "a newer ticket of instance %s is known", key).WithReason("ticket-older-route")
	}
	if owner, ok := t.byKey[wg]; ok && owner != key {
		return nil, nil, cvm.Errorf(cvm.Conflict, "this WireGuard key belongs to another instance").WithReason("wireguard-key-taken")
	}
	ip, err := t.pool.take(wg, at)
	if err != nil {
		return nil, nil, err
	}
	ttl := min(tk.Expires.Sub(at), tk.Expires.Sub(tk.IssuedAt), MaxTTL)
	r = &Route{
		Key: key, AppID: tk.AppID, InstanceID: tk.InstanceID, WireGuardKey: wg, IP: ip, ComposeHash: tk.ComposeHash,
		Policy: policy, Simulated: tk.Simulated, IssuedAt: tk.IssuedAt, Expires: at.Add(ttl), Load: &Load{},
	}
	if old != nil && old.WireGuardKey == wg {
		r.Load = old.Load
	} else if old != nil {
		replaced = old
		delete(t.byKey, old.WireGuardKey)
		t.pool.release(old.WireGuardKey, at)
	}
	t.put(r, at)
	return r, replaced, nil
}

func (t *Table) put(r *Route, at time.Time) {
	t.routes[r.Key] = r
	t.byKey[r.WireGuardKey] = r.Key
	if !r.InstanceID.IsZero() {
		t.byInst[r.InstanceID] = r
		t.seen[r.InstanceID] = at
	}
	t.seen[r.AppID] = at
	// Readers hold the old slice: build a new one.
	var list []*Route
	for _, x := range t.byApp[r.AppID] {
		if x.Key != r.Key {
			list = append(list, x)
		}
	}
	t.byApp[r.AppID] = append(list, r)
}

// Lookup returns the live routes of an instance or app id, best first: reachable
// before failing, then least streams, then in turn. With none, known says whether
// the id had a route in the last hour.
func (t *Table) Lookup(id [20]byte, at time.Time) (live []*Route, known bool) {
	t.mu.RLock()
	if r := t.byInst[id]; r != nil {
		live = append(live, r)
	} else {
		live = append(live, t.byApp[id]...)
	}
	_, known = t.seen[id]
	t.mu.RUnlock()
	live = slices.DeleteFunc(live, func(r *Route) bool { return !r.Expires.After(at) })
	if n := len(live); n > 1 {
		turn := int(t.next.Add(1) % uint64(n))
		live = append(live[turn:], live[:turn]...)
		slices.SortStableFunc(live, func(a, b *Route) int {
			if fa, fb := a.Load.failing(at), b.Load.failing(at); fa != fb {
				if fa {
					return 1
				}
				return -1
			}
			return cmp.Compare(a.Load.Streams.Load(), b.Load.Streams.Load())
		})
	}
	return live, known
}

// Expire takes out what has ended and returns it, so that peers and streams can
// be ended too.
func (t *Table) Expire(at time.Time) (gone []*Route) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, r := range t.routes {
		if r.Expires.After(at) {
			continue
		}
		gone = append(gone, r)
		delete(t.routes, key)
		delete(t.byKey, r.WireGuardKey)
		delete(t.byInst, r.InstanceID)
		t.pool.release(r.WireGuardKey, at)
		list := slices.DeleteFunc(slices.Clone(t.byApp[r.AppID]), func(x *Route) bool { return x.Key == key })
		if len(list) == 0 {
			delete(t.byApp, r.AppID)
		} else {
			t.byApp[r.AppID] = list
		}
		t.seen[r.AppID] = at
		if !r.InstanceID.IsZero() {
			t.seen[r.InstanceID] = at
		}
	}
	for id, when := range t.seen {
		if at.Sub(when) > reclaimAfter && t.byApp[id] == nil && t.byInst[id] == nil {
			delete(t.seen, id)
		}
	}
	return gone
}

// All returns the live routes, ordered by key.
func (t *Table) All(at time.Time) []*Route {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var out []*Route
	for _, r := range t.routes {
		if r.Expires.After(at) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *Route) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// Len is the number of routes.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.routes)
}

// Current reports whether r, or a renewal of it with the same key, is still live.
func (t *Table) Current(r *Route, at time.Time) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	now := t.routes[r.Key]
	return now != nil && now.Load == r.Load && now.Expires.After(at)
}
