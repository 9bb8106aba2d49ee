package vm

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/run"
)

// Rules say what may come in over the machine's cards. They follow from the image and
// the measured app-compose alone: the host decides what it forwards, never what the
// guest takes.
type Rules struct {
	// Cards are the names of the machine's network cards.
	Cards []string
	// WireGuard is the UDP port of the gateway's tunnel; 0: none.
	WireGuard uint16
	// Local are TCP ports of the machine itself: 8090, and those that port_policy lists.
	Local []uint16
	// Published: ports that containers publish may be reached. Only, when it is not nil,
	// narrows them to a list.
	Published bool
	Only      []uint16
}

// AppRules are the rules of an app. A port that its compose file publishes is open,
// unless port_policy.restrict_mode has a list that it is not on. Ports of processes in
// the machine's own network (network_mode: host) are open only when port_policy lists
// them, and 8090 always is: an app that nobody can check would be no use.
func AppRules(d *appcompose.Document, cards []string, wireGuard uint16) Rules {
	r := Rules{Cards: cards, WireGuard: wireGuard, Local: []uint16{guestapi.ExternalPort}, Published: true}
	if d.PortPolicy == nil {
		return r
	}
	if d.PortPolicy.RestrictMode {
		r.Only = []uint16{}
	}
	for _, p := range d.PortPolicy.Ports {
		n := uint16(p.Port) //nolint:gosec // checked by appcompose
		r.Local = append(r.Local, n)
		if d.PortPolicy.RestrictMode {
			r.Only = append(r.Only, n)
		}
	}
	return r
}

// Table is the rules as nftables text: a table of our own beside dockerd's. A packet
// must be accepted by both; dockerd's say where a published port leads.
func (r Rules) Table() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	cards := "{ " + strings.Join(quoted(r.Cards), ", ") + " }"
	line("table inet phala")
	line("delete table inet phala")
	line("table inet phala {")
	line("\tchain input {")
	line("\t\ttype filter hook input priority filter; policy drop;")
	if len(r.Cards) > 0 {
		line("\t\tiifname != %s accept", cards) // loopback, containers
	} else {
		line("\t\taccept")
	}
	line("\t\tct state established,related accept")
	line("\t\tct state invalid drop")
	line("\t\ticmp type { echo-request, destination-unreachable, time-exceeded, parameter-problem } accept")
	line("\t\ticmpv6 type { echo-request, destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept")
	// Neighbours and routers are on the link: a router would have lowered the limit.
	line("\t\ticmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept")
	line("\t\tudp sport 67 udp dport 68 accept")
	line("\t\tip6 saddr fe80::/10 udp sport 547 udp dport 546 accept")
	if r.WireGuard != 0 {
		line("\t\tudp dport %d accept", r.WireGuard)
	}
	if len(r.Local) > 0 {
		line("\t\ttcp dport %s accept", set(r.Local))
	}
	line("\t}")
	line("\tchain forward {")
	line("\t\ttype filter hook forward priority filter; policy drop;")
	if len(r.Cards) > 0 {
		line("\t\tiifname != %s accept", cards)
	} else {
		line("\t\taccept")
	}
	line("\t\tct state established,related accept")
	switch {
	case r.Published && r.Only == nil:
		line("\t\tct status dnat accept")
	case r.Published && len(r.Only) > 0:
		line("\t\tct status dnat meta l4proto { tcp, udp } ct original proto-dst %s accept", set(r.Only))
	}
	line("\t}")
	line("\tset %s { type ipv4_addr; flags interval; auto-merge; }", inside4) // Network.Guard fills them
	line("\tset %s { type ipv6_addr; flags interval; auto-merge; }", inside6)
	if len(r.Cards) > 0 {
		line("\tchain leaving {")
		line("\t\ttype filter hook postrouting priority filter; policy accept;")
		line("\t\toifname %s ip daddr @%s counter drop", cards, inside4)
		line("\t\toifname %s ip6 daddr @%s counter drop", cards, inside6)
		line("\t}")
	}
	line("}")
	return b.String()
}

func quoted(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = fmt.Sprintf("%q", n)
	}
	return out
}

func set(ports []uint16) string {
	ports = slices.Clone(ports)
	slices.Sort(ports)
	text := make([]string, 0, len(ports))
	for _, p := range slices.Compact(ports) {
		text = append(text, fmt.Sprint(p))
	}
	return "{ " + strings.Join(text, ", ") + " }"
}

// Apply puts the rules in force, all at once.
func (r Rules) Apply(ctx context.Context) error { return nft(ctx, r.Table()) }

// nft runs one transaction.
func nft(ctx context.Context, rules string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	out := &run.Tail{Max: 4 << 10}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return cvm.Errorf(cvm.Internal, "packet filter: %w: %s", err, out).WithReason(ReasonNetwork)
	}
	return nil
}
