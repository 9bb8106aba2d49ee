package routes

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func signer(n byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	return ed25519.NewKeyFromSeed(seed)
}

func table(t testing.TB, network string, s Store) *Table {
	t.Helper()
	tb, err := New(Config{Network: netip.MustParsePrefix(network), Store: s})
	if err != nil {
		t.Fatal(err)
	}
	tb.SetTicketKey(signer(1).Public().(ed25519.PublicKey))
	return tb
}

func ticket(app, inst, key byte) kmsapi.RouteTicket {
	k := make([]byte, keySize)
	k[0] = key
	t := kmsapi.RouteTicket{AppID: cvm.AppID{app}, WireGuardKey: k, IssuedAt: at, Expires: at.Add(30 * time.Second)}
	if inst != 0 {
		t.InstanceID = cvm.InstanceID{inst}
	}
	return t
}

func sign(t testing.TB, k kmsapi.RouteTicket) []byte {
	t.Helper()
	b, err := kmsapi.SignTicket(signer(1), k)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func admit(t testing.TB, tb *Table, k kmsapi.RouteTicket, when time.Time) (*Route, *Route) {
	t.Helper()
	r, old, err := tb.Register(t.Context(), sign(t, k), when)
	if err != nil {
		t.Fatal(err)
	}
	return r, old
}

// The signed form is the contract with the KMS: DO NOT CHANGE.
func TestTicketVector(t *testing.T) {
	const want = "7b227469636b6574223a2265794a686348426661575169"
	b := sign(t, ticket(1, 2, 3))
	if got := hex.EncodeToString(b)[:len(want)]; got != want {
		t.Fatalf("%s", got)
	}
	var s kmsapi.SignedTicket
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(signer(1).Public().(ed25519.PublicKey), append([]byte("phala-route-ticket:v1:"), s.Ticket...), s.Signature) {
		t.Fatal("what is signed is not the tag and the JSON bytes")
	}
}

func TestRefusedTickets(t *testing.T) {
	change := func(f func(*kmsapi.RouteTicket)) kmsapi.RouteTicket { k := ticket(1, 1, 1); f(&k); return k }
	for name, x := range map[string]struct {
		k      kmsapi.RouteTicket
		reason string
	}{
		"expired":         {change(func(k *kmsapi.RouteTicket) { k.IssuedAt, k.Expires = at.Add(-time.Hour), at }), "ticket-expired"},
		"future":          {change(func(k *kmsapi.RouteTicket) { k.IssuedAt, k.Expires = at.Add(time.Minute), at.Add(time.Hour) }), "ticket-invalid"},
		"ends before":     {change(func(k *kmsapi.RouteTicket) { k.Expires = k.IssuedAt.Add(-1) }), "ticket-invalid"},
		"no app":          {change(func(k *kmsapi.RouteTicket) { k.AppID = cvm.AppID{} }), "ticket-invalid"},
		"no key":          {change(func(k *kmsapi.RouteTicket) { k.WireGuardKey = nil }), "ticket-invalid"},
		"policy not JSON": {change(func(k *kmsapi.RouteTicket) { k.PortPolicy = []byte("{") }), "ticket-invalid"},
		"port twice":      {change(func(k *kmsapi.RouteTicket) { k.PortPolicy = []byte(`{"ports":[{"port":1},{"port":1}]}`) }), "ticket-invalid"},
		"port 65536":      {change(func(k *kmsapi.RouteTicket) { k.PortPolicy = []byte(`{"ports":[{"port":65536}]}`) }), "ticket-invalid"},
	} {
		tb := table(t, "10.88.0.0/16", nil)
		if _, _, err := tb.Register(t.Context(), sign(t, x.k), at); cvm.ReasonOf(err) != x.reason {
			t.Errorf("%s: %v, want %s", name, err, x.reason)
		}
		if tb.Len() != 0 {
			t.Errorf("%s: made a route", name)
		}
	}
	good := sign(t, ticket(1, 1, 1))
	tb := table(t, "10.88.0.0/16", nil)
	tb.SetTicketKey(signer(2).Public().(ed25519.PublicKey))
	if _, _, err := tb.Register(t.Context(), good, at); cvm.ReasonOf(err) != "ticket-forged" {
		t.Errorf("another KMS's ticket: %v", err)
	}
	tb.SetTicketKey(nil)
	if _, _, err := tb.Register(t.Context(), good, at); cvm.CodeOf(err) != cvm.Unavailable {
		t.Errorf("no ticket key: %v", err)
	}
}

func TestEveryBitOfATicketCounts(t *testing.T) {
	var s kmsapi.SignedTicket
	if err := json.Unmarshal(sign(t, ticket(1, 1, 1)), &s); err != nil {
		t.Fatal(err)
	}
	key := signer(1).Public().(ed25519.PublicKey)
	for i := range s.Ticket {
		c := kmsapi.SignedTicket{Ticket: append([]byte(nil), s.Ticket...), Signature: s.Signature}
		c.Ticket[i] ^= 1
		b, _ := json.Marshal(c)
		if _, _, err := Verify(b, key, at); cvm.ReasonOf(err) != "ticket-forged" {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
}

func TestLifeOfARoute(t *testing.T) {
	tb := table(t, "10.88.0.0/16", nil)
	r, _ := admit(t, tb, ticket(1, 1, 1), at)
	if live, _ := tb.Lookup([20]byte(cvm.AppID{1}), at); len(live) != 1 || live[0] != r {
		t.Fatal("the app is not found")
	}
	if live, _ := tb.Lookup([20]byte(cvm.InstanceID{1}), at); len(live) != 1 {
		t.Fatal("the instance is not found")
	}
	// Renewal keeps address and load.
	k := ticket(1, 1, 1)
	k.IssuedAt, k.Expires = at.Add(15*time.Second), at.Add(45*time.Second)
	r2, old := admit(t, tb, k, at.Add(15*time.Second))
	if r2.IP != r.IP || r2.Load != r.Load || old != nil || !tb.Current(r, at.Add(40*time.Second)) {
		t.Fatal("the renewal is not the same route")
	}
	// A new key replaces.
	k.WireGuardKey = append([]byte{9}, make([]byte, 31)...)
	k.IssuedAt = k.IssuedAt.Add(time.Second)
	r3, old := admit(t, tb, k, at.Add(16*time.Second))
	if old != r2 || r3.IP == r.IP || tb.Current(r, at.Add(16*time.Second)) {
		t.Fatal("the new key did not replace the route")
	}
	// The end: by the clock even before Expire, and with Expire for good.
	end := at.Add(45 * time.Second)
	live, known := tb.Lookup([20]byte(cvm.AppID{1}), end)
	if len(live) != 0 || !known {
		t.Fatal("an expired route is live")
	}
	if gone := tb.Expire(end); len(gone) != 1 || gone[0] != r3 || tb.Len() != 0 {
		t.Fatal("Expire did not take it out")
	}
	if _, known := tb.Lookup([20]byte(cvm.AppID{1}), end); !known {
		t.Fatal("gone is not unknown")
	}
	tb.Expire(end.Add(reclaimAfter + time.Second))
	if _, known := tb.Lookup([20]byte(cvm.AppID{1}), end); known {
		t.Fatal("remembered for ever")
	}
}

// A gateway whose clock is behind does not give a ticket a longer life.
func TestTicketLifeIsBounded(t *testing.T) {
	tb := table(t, "10.88.0.0/16", nil)
	r, _ := admit(t, tb, ticket(1, 1, 1), at.Add(-25*time.Second))
	if r.Expires.After(at.Add(5 * time.Second)) {
		t.Fatalf("lives until %s", r.Expires)
	}
	k := ticket(2, 2, 2)
	k.Expires = at.Add(24 * time.Hour)
	if r, _ = admit(t, tb, k, at); r.Expires.After(at.Add(MaxTTL)) {
		t.Fatalf("lives until %s", r.Expires)
	}
}

// Apps without instance ids may still have several instances.
func TestNoInstanceID(t *testing.T) {
	tb := table(t, "10.88.0.0/16", nil)
	admit(t, tb, ticket(1, 0, 1), at)
	admit(t, tb, ticket(1, 0, 2), at)
	if live, _ := tb.Lookup([20]byte(cvm.AppID{1}), at); len(live) != 2 {
		t.Fatalf("%d routes", len(live))
	}
	if live, known := tb.Lookup([20]byte{}, at); len(live) != 0 || known {
		t.Fatal("the zero id leads somewhere")
	}
}

func TestOrder(t *testing.T) {
	tb := table(t, "10.88.0.0/16", nil)
	a, _ := admit(t, tb, ticket(7, 1, 1), at)
	b, _ := admit(t, tb, ticket(7, 2, 2), at)
	first := func(when time.Time) *Route { l, _ := tb.Lookup([20]byte(cvm.AppID{7}), when); return l[0] }
	if one, two := first(at), first(at); one == two {
		t.Error("equal instances do not take turns")
	}
	a.Load.Streams.Add(1)
	if one, two := first(at), first(at); one != b || two != b {
		t.Error("the busier one came first")
	}
	b.Load.Failed(at)
	if first(at) != a {
		t.Error("the failing one came first")
	}
	if first(at.Add(penalty)) != b {
		t.Error("the penalty does not end")
	}
}

func TestAddresses(t *testing.T) {
	tb := table(t, "10.0.0.0/29", nil) // 8 addresses: network, gateway, broadcast, 5 guests
	if tb.GatewayIP().String() != "10.0.0.1" {
		t.Fatal(tb.GatewayIP())
	}
	seen := map[netip.Addr]bool{}
	for i := byte(1); i <= 5; i++ {
		r, _ := admit(t, tb, ticket(1, i, i), at)
		if seen[r.IP] || !netip.MustParsePrefix("10.0.0.0/29").Contains(r.IP) || r.IP == tb.GatewayIP() || r.IP.As4()[3] == 0 || r.IP.As4()[3] == 7 {
			t.Fatalf("address %s", r.IP)
		}
		seen[r.IP] = true
	}
	if _, _, err := tb.Register(t.Context(), sign(t, ticket(1, 6, 6)), at); cvm.ReasonOf(err) != "no-tunnel-address" {
		t.Fatalf("a sixth guest: %v", err)
	}
	// Addresses come back, but not at once: a guest that returns finds its own.
	end := at.Add(30 * time.Second)
	tb.Expire(end)
	k := ticket(1, 6, 6)
	k.IssuedAt, k.Expires = end.Add(reclaimAfter), end.Add(reclaimAfter+time.Minute)
	admit(t, tb, k, end.Add(reclaimAfter))
}

// Another gateway over the same store routes to the same instances, and verifies
// for itself.
func TestStoreIsSharedAndNotTrusted(t *testing.T) {
	s := NewMemory()
	one := table(t, "10.88.0.0/16", s)
	r, _ := admit(t, one, ticket(1, 1, 1), at)
	forged, err := kmsapi.SignTicket(signer(2), ticket(2, 2, 2))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), "x", forged, at.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	two := table(t, "10.88.0.0/16", s)
	list, refused, err := two.Restore(t.Context(), at.Add(time.Second))
	if err != nil || len(list) != 1 || refused != 1 || list[0].IP != r.IP {
		t.Fatalf("%d restored, %d refused, %v", len(list), refused, err)
	}
	if list, _, _ := table(t, "10.88.0.0/16", s).Restore(t.Context(), at.Add(time.Hour)); len(list) != 0 {
		t.Fatal("an expired ticket was restored")
	}
}

func TestBadNetworks(t *testing.T) {
	for _, n := range []netip.Prefix{{}, netip.MustParsePrefix("10.0.0.0/30"), netip.MustParsePrefix("10.0.0.0/7"), netip.MustParsePrefix("fd00::/64")} {
		if _, err := New(Config{Network: n}); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", n, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	k := ticket(1, 1, 1)
	k.PortPolicy = []byte(`{"ports":[{"port":80,"pp":true}],"restrict_mode":true}`)
	b, _ := kmsapi.SignTicket(signer(1), k)
	f.Add(b)
	f.Add([]byte(`{"ticket":"","signature":""}`))
	other := signer(2).Public().(ed25519.PublicKey)
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, _, err := Verify(in, other, at); err == nil {
			t.Fatal("accepted without a signature")
		}
	})
}

func FuzzPolicy(f *testing.F) {
	f.Add([]byte(`{"ports":[{"port":80,"pp":true,"proto":"h2"}],"restrict_mode":true}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := parsePolicy(in)
		if err != nil {
			return
		}
		for _, x := range p.Ports {
			if x.Port < 1 || x.Port > 65535 {
				t.Fatalf("port %d", x.Port)
			}
		}
	})
}
