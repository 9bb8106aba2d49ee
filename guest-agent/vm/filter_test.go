package vm

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
)

// inside runs fn in a network namespace; its sockets and processes live there.
func inside(t *testing.T, ns string, fn func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		f, err := os.Open("/var/run/netns/" + ns)
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			f.Close()
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}

// playground is an outside, a machine with one card, and a container behind it whose
// port 80 the machine publishes as 8080, as dockerd would.
func playground(t *testing.T) (outside, machine, container string) {
	t.Helper()
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: no %s", tool)
		}
	}
	id := fmt.Sprint(os.Getpid())
	outside, machine, container = "gvo"+id, "gvm"+id, "gvc"+id
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			if os.Getuid() != 0 || strings.Contains(string(out), "not permitted") {
				t.Skipf("SKIPPED: no network namespaces here: %s", out)
			}
			t.Fatalf("%v: %s", args, out)
		}
	}
	for _, ns := range []string{outside, machine, container} {
		run("ip", "netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		run("ip", "-n", ns, "link", "set", "lo", "up")
	}
	for _, l := range []struct{ a, an, aip, b, bn, bip string }{
		{outside, "wan0", "10.91.0.1/24", machine, "eth0", "10.91.0.2/24"},
		{machine, "br0", "10.92.0.1/24", container, "eth0", "10.92.0.2/24"},
	} {
		run("ip", "link", "add", l.an, "netns", l.a, "type", "veth", "peer", "name", l.bn, "netns", l.b)
		run("ip", "-n", l.a, "addr", "add", l.aip, "dev", l.an)
		run("ip", "-n", l.b, "addr", "add", l.bip, "dev", l.bn)
		run("ip", "-n", l.a, "link", "set", l.an, "up")
		run("ip", "-n", l.b, "link", "set", l.bn, "up")
	}
	run("ip", "-n", outside, "route", "add", "10.92.0.0/24", "via", "10.91.0.2")
	run("ip", "-n", container, "route", "add", "default", "via", "10.92.0.1")
	run("ip", "netns", "exec", machine, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	run("ip", "netns", "exec", machine, "nft", "add table ip nat; add chain ip nat pre { type nat hook prerouting priority dstnat; }; add rule ip nat pre tcp dport 8080 dnat to 10.92.0.2:80")
	return outside, machine, container
}

func serve(t *testing.T, ns string, ports ...int) {
	t.Helper()
	for _, p := range ports {
		err := inside(t, ns, func() error {
			l, err := net.Listen("tcp", fmt.Sprint(":", p))
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					c.Close()
				}
			}()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func reaches(t *testing.T, ns, addr string) bool {
	t.Helper()
	return inside(t, ns, func() error {
		c, err := net.DialTimeout("tcp", addr, 700*time.Millisecond)
		if err == nil {
			c.Close()
		}
		return err
	}) == nil
}

// TestTheFilterInAKernel: what each app lets in, beside rules that lead a published
// port to a container.
func TestTheFilterInAKernel(t *testing.T) {
	outside, machine, container := playground(t)
	serve(t, machine, 22, 5000, 8090)
	serve(t, container, 80)
	serve(t, outside, 7000)
	apply := func(p *appcompose.PortPolicy) {
		t.Helper()
		r := AppRules(&appcompose.Document{PortPolicy: p}, []string{"eth0"}, 9182)
		if err := inside(t, machine, func() error { return r.Apply(context.Background()) }); err != nil {
			t.Fatal(err)
		}
	}
	only := func(ports ...int) *appcompose.PortPolicy {
		p := &appcompose.PortPolicy{RestrictMode: true}
		for _, n := range ports {
			p.Ports = append(p.Ports, appcompose.Port{Port: n})
		}
		return p
	}
	for _, port := range []string{"10.91.0.2:22", "10.91.0.2:8080", "10.92.0.2:80"} {
		if !reaches(t, outside, port) {
			t.Fatalf("%s is not there without the filter: the test proves nothing", port)
		}
	}
	for _, c := range []struct {
		name   string
		policy *appcompose.PortPolicy
		open   []string
		closed []string
	}{
		{"no policy", nil, []string{"10.91.0.2:8090", "10.91.0.2:8080"}, []string{"10.91.0.2:22", "10.91.0.2:5000", "10.92.0.2:80"}},
		{"a list", &appcompose.PortPolicy{Ports: []appcompose.Port{{Port: 5000}}}, []string{"10.91.0.2:8090", "10.91.0.2:8080", "10.91.0.2:5000"}, []string{"10.91.0.2:22"}},
		{"restricted to it", only(8080), []string{"10.91.0.2:8090", "10.91.0.2:8080"}, []string{"10.91.0.2:5000", "10.92.0.2:80"}},
		{"restricted to another", only(80), []string{"10.91.0.2:8090"}, []string{"10.91.0.2:8080", "10.92.0.2:80"}},
		{"restricted to nothing", only(), []string{"10.91.0.2:8090"}, []string{"10.91.0.2:8080", "10.91.0.2:5000"}},
	} {
		apply(c.policy) // again and again: it replaces what was there
		for _, addr := range c.open {
			if !reaches(t, outside, addr) {
				t.Errorf("%s: %s is closed", c.name, addr)
			}
		}
		for _, addr := range c.closed {
			if reaches(t, outside, addr) {
				t.Errorf("%s: %s is open", c.name, addr)
			}
		}
	}
	if !reaches(t, container, "10.91.0.1:7000") || !reaches(t, container, "10.92.0.1:5000") || !reaches(t, machine, "10.91.0.1:7000") {
		t.Error("what goes out, or stays inside, is filtered")
	}
}

// TestALeaseStealsNoContainer: a host that gives an address in a part of the
// containers' network would be sent what is meant for them.
func TestALeaseStealsNoContainer(t *testing.T) {
	_, machine, container := playground(t)
	serve(t, container, 80)
	n := &Network{cards: []string{"eth0"}, ResolvConf: filepath.Join(t.TempDir(), "resolv.conf")}
	lease := func(network string) error {
		return inside(t, machine, func() error { return n.isFree(netip.MustParsePrefix(network)) })
	}
	for _, stolen := range []string{"10.92.0.0/25", "10.92.0.0/24", "10.92.0.2/32", "10.0.0.0/8", "127.0.0.0/8"} {
		if err := lease(stolen); cvm.ReasonOf(err) != ReasonNetwork || cvm.CodeOf(err) != cvm.Denied {
			t.Errorf("%s: %v", stolen, err)
		}
	}
	for _, fine := range []string{"10.91.0.0/24", "10.93.0.0/16", "192.168.1.0/24"} { // also the card's own
		if err := lease(fine); err != nil {
			t.Errorf("%s: %v", fine, err)
		}
	}
	if !reaches(t, machine, "10.92.0.2:80") {
		t.Fatal("the container is not there")
	}
	// What the refusal is about: the route of the lease below wins over the bridge's.
	if err := inside(t, machine, func() error { return n.apply("eth0", offer{Address: netip.MustParsePrefix("10.92.0.9/25")}) }); err != nil {
		t.Fatal(err)
	}
	if reaches(t, machine, "10.92.0.2:80") {
		t.Error("such a lease does no harm: then the refusal is not needed")
	}
}

// TestWhatIsMeantForContainersStaysInside: a router's prefix, of either IP version, is
// narrower than the container's network, and the host still does not get a packet.
func TestWhatIsMeantForContainersStaysInside(t *testing.T) {
	outside, machine, container := playground(t)
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %s", args, out)
		}
	}
	ip("-n", outside, "-6", "addr", "add", "fd91::1/64", "dev", "wan0", "nodad")
	ip("-n", machine, "-6", "addr", "add", "fd91::2/64", "dev", "eth0", "nodad")
	n := &Network{Log: slog.New(slog.DiscardHandler), cards: []string{"eth0"}}
	if err := inside(t, machine, func() error { return AppRules(&appcompose.Document{}, n.cards, 9182).Apply(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		ended <- inside(t, machine, func() error { return n.Guard(ctx, func(err error) { ready <- err }) })
	}()
	t.Cleanup(func() { cancel(); <-ended })
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	ip("-n", machine, "-6", "addr", "add", "fd92::1/64", "dev", "br0", "nodad") // a network that dockerd makes later
	ip("-n", container, "-6", "addr", "add", "fd92::2/64", "dev", "eth0", "nodad")
	err := wait(t.Context(), 20*time.Millisecond, func() bool {
		b, err := exec.Command("ip", "netns", "exec", machine, "nft", "list", "set", "inet", "phala", inside6).CombinedOutput()
		return err == nil && strings.Contains(string(b), "fd92::/64")
	})
	if err != nil {
		t.Fatal(err)
	}
	taken := func() (nets []netip.Prefix) {
		err := inside(t, machine, func() (err error) { nets, err = Taken(n.cards); return err })
		if err != nil {
			t.Fatal(err)
		}
		return nets
	}
	if got := taken(); !slices.Equal(got, []netip.Prefix{netip.MustParsePrefix("10.91.0.0/24"), netip.MustParsePrefix("fd91::/64")}) {
		t.Errorf("before: %v are the card's networks", got)
	}
	ip("-n", outside, "addr", "add", "10.92.0.2/24", "dev", "wan0") // the host's own "container"
	ip("-n", outside, "-6", "addr", "add", "fd92::2/64", "dev", "wan0", "nodad")
	serve(t, outside, 81)
	serve(t, container, 80)
	if !reaches(t, machine, "10.92.0.2:80") || !reaches(t, machine, "[fd92::2]:80") {
		t.Fatal("the container is not there")
	}
	ip("-n", machine, "route", "add", "10.92.0.2/32", "dev", "eth0")
	ip("-n", machine, "-6", "route", "add", "fd92::2/128", "dev", "eth0")
	for _, addr := range []string{"10.92.0.2:81", "[fd92::2]:81"} {
		if reaches(t, machine, addr) {
			t.Errorf("%s of the host takes what is meant for the container", addr)
		}
	}
	if got := taken(); !slices.Contains(got, netip.MustParsePrefix("10.92.0.2/32")) || !slices.Contains(got, netip.MustParsePrefix("fd92::2/128")) {
		t.Errorf("after: %v are the card's networks", got)
	}
	if out, err := exec.Command("ip", "netns", "exec", machine, "nft", "delete", "chain", "inet", "phala", "leaving").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	for _, addr := range []string{"10.92.0.2:81", "[fd92::2]:81"} {
		if !reaches(t, machine, addr) {
			t.Errorf("%s is not reached: such routes do no harm, then the rule is not needed", addr)
		}
	}
}

// dhcp answers in a namespace's card with one address in 10.92.0.0/25.
func dhcp(t *testing.T, ns, card string) {
	t.Helper()
	err := inside(t, ns, func() error {
		srv, err := server4.NewServer(card, &net.UDPAddr{Port: dhcpv4.ServerPort}, func(c net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
			kind := dhcpv4.MessageTypeOffer
			if m.MessageType() == dhcpv4.MessageTypeRequest {
				kind = dhcpv4.MessageTypeAck
			}
			self := net.IP{10, 91, 0, 1}
			reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind), dhcpv4.WithServerIP(self), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(self)),
				dhcpv4.WithYourIP(net.IP{10, 92, 0, 9}), dhcpv4.WithNetmask(net.CIDRMask(25, 32)), dhcpv4.WithLeaseTime(60))
			if err == nil {
				_, _ = c.WriteTo(reply.ToBytes(), peer)
			}
		})
		if err == nil {
			t.Cleanup(func() { srv.Close() })
			go srv.Serve() //nolint:errcheck // ends when it is closed
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestALeaseThatStealsIsNotTaken(t *testing.T) {
	outside, machine, container := playground(t)
	serve(t, container, 80)
	dhcp(t, outside, "wan0")
	n := &Network{Log: slog.New(slog.DiscardHandler), cards: []string{"eth0"}, leases: map[string]*nclient4.Lease{}, ResolvConf: filepath.Join(t.TempDir(), "resolv.conf")}
	if err := inside(t, machine, func() error { return n.lease(t.Context(), "eth0") }); cvm.CodeOf(err) != cvm.Denied {
		t.Errorf("the lease: %v", err)
	}
	if !reaches(t, machine, "10.92.0.2:80") || len(n.leases) > 0 {
		t.Error("the host has the container's traffic")
	}
}
