package pool

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

func res(vcpu, memory, disk int) vmmapi.Resources {
	return vmmapi.Resources{VCPU: vcpu, MemoryMiB: memory, DiskMiB: disk}
}

func sized(vcpu, memory, disk int) Claim { return Claim{Resources: res(vcpu, memory, disk)} }

func plain(r vmmapi.Resources) *Pool { return New(Capacity{Resources: r}, nil) }

func refused(t *testing.T, err error, says ...string) {
	t.Helper()
	if cvm.CodeOf(err) != cvm.Exhausted {
		t.Errorf("want exhausted, got %v", err)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("does not say %q: %v", s, err)
		}
	}
}

func must(t *testing.T, g Grant, err error) Grant {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func set(t *testing.T, p *Pool, id string, c Claim) Grant {
	t.Helper()
	g, err := p.Set(id, c)
	return must(t, g, err)
}

func TestPool(t *testing.T) {
	p := plain(res(4, 4096, 10000))
	set(t, p, "a", sized(2, 1024, 4000))
	set(t, p, "a", sized(4, 2048, 4000)) // growing into what is free
	_, err := p.Set("b", sized(1, 4096, 1))
	refused(t, err, "vcpu: 1 wanted, 0 free of 4", "memory: 4096 MiB wanted, 2048 MiB free")
	if u := p.Used(); u.VCPU != 4 || u.DiskMiB != 4000 {
		t.Fatalf("a refused request must hold nothing: %+v", u)
	}
	_, err = p.Set("a", sized(5, 2048, 4000))
	refused(t, err)
	if u := p.Used(); u.VCPU != 4 {
		t.Fatalf("a refused change must keep what was held: %+v", u)
	}
	p.Release("a")
	set(t, p, "b", sized(1, 4096, 1))
	p.Force("c", sized(9, 0, 0), Grant{})
	set(t, p, "b", sized(1, 100, 1)) // shrinking must succeed on an overfull node
	if _, err := p.Set("d", sized(-1, 0, 0)); cvm.CodeOf(err) != cvm.Invalid {
		t.Fatalf("negative: %v", err)
	}
	_, err = plain(res(0, 0, 0)).Set("x", sized(1, 0, 0))
	refused(t, err)
}

func port(s string) Port {
	proto, rest, _ := strings.Cut(s, " ")
	ap := netip.MustParseAddrPort(rest)
	return Port{proto, ap.Addr(), ap.Port()}
}

func TestPorts(t *testing.T) {
	p := New(Capacity{Resources: res(9, 9, 9)}, func(q Port) string {
		if q.Number == 22 {
			return "process 1 (sshd)"
		}
		return ""
	})
	set(t, p, "a", Claim{Ports: []Port{port("tcp 192.0.2.1:80"), port("udp 0.0.0.0:53"), port("tcp [::]:443")}})
	for _, s := range []string{"tcp 192.0.2.1:80", "tcp 0.0.0.0:80", "tcp [::]:80", "udp 127.0.0.1:53", "tcp 127.0.0.1:443", "tcp [2001:db8::1]:443", "tcp [::ffff:192.0.2.1]:80"} {
		_, err := p.Set("b", Claim{Ports: []Port{port(s)}})
		refused(t, err, "held by VM a")
	}
	_, err := p.Set("b", Claim{Resources: res(10, 0, 0), Ports: []Port{port("tcp 0.0.0.0:22"), port("udp 127.0.0.1:53")}})
	refused(t, err, "vcpu: 10 wanted", "port tcp 0.0.0.0:22: held by process 1 (sshd)", "port udp 127.0.0.1:53: held by VM a")
	set(t, p, "b", Claim{Ports: []Port{port("tcp 192.0.2.2:80"), port("udp 192.0.2.1:80"), port("udp [2001:db8::1]:53")}})
	if _, err := p.Set("c", Claim{Ports: []Port{port("tcp 0.0.0.0:90"), port("tcp 127.0.0.1:90")}}); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("the same port twice: %v", err)
	}
	for _, bad := range []Port{{"sctp", netip.IPv4Unspecified(), 1}, {"tcp", netip.Addr{}, 1}, {"tcp", netip.IPv4Unspecified(), 0}} {
		if _, err := p.Set("c", Claim{Ports: []Port{bad}}); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%v: %v", bad, err)
		}
	}
	p.Shrink("a")
	_, err = p.Set("b", Claim{Ports: []Port{port("tcp 192.0.2.1:80")}})
	refused(t, err) // a stopped VM keeps its ports
	p.Release("a")
	set(t, p, "b", Claim{Ports: []Port{port("tcp 192.0.2.1:80")}})
}

func TestListening(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	lo := netip.MustParseAddr("127.0.0.1")
	tcp := Port{"tcp", lo, netip.MustParseAddrPort(l.Addr().String()).Port()}
	udp := Port{"udp", lo, netip.MustParseAddrPort(u.LocalAddr().String()).Port()}
	for _, p := range []Port{tcp, udp, {"tcp", netip.IPv4Unspecified(), tcp.Number}} {
		if who := Listening(p); !strings.HasPrefix(who, "process ") || !strings.Contains(who, "pool.test") {
			t.Errorf("%s: %q", p, who)
		}
	}
	_ = l.Close()
	if who := Listening(tcp); who != "" {
		t.Errorf("closed: %q", who)
	}
	if who := Listening(Port{"tcp", netip.MustParseAddr("198.51.100.7"), 80}); !strings.Contains(who, "not this host's") {
		t.Errorf("foreign address: %q", who)
	}
}

// big is a host with two NUMA nodes and three cards.
func big() Capacity {
	return Capacity{
		Resources: res(16, 32768, 1<<20), FirstUID: 64000, UIDs: 4, FirstCID: 20000, CIDs: 5,
		Nodes: []Node{{0, []int{0, 1, 2, 3, 8, 9, 10, 11}, 16384, 4096}, {1, []int{4, 5, 6, 7, 12, 13, 14, 15}, 16384, 4096}},
		GPUs:  []machine.GPU{{Slot: "0000:3b:00.0", Node: 0}, {Slot: "0000:5e:00.0", Node: 1}, {Slot: "0000:86:00.0", Node: 1, Switch: true}},
		Kinds: map[string][]string{"10de:2335": {"0000:3b:00.0", "0000:5e:00.0"}},
	}
}

func TestGPUsByNumber(t *testing.T) {
	p := New(big(), nil)
	claim := func(kind string, n int) Claim {
		c := sized(2, 1024, 1)
		c.GPUKind, c.GPUCount = kind, n
		return c
	}
	one := claim("10de:2335", 1)
	if g := set(t, p, "a", one); !slices.Equal(g.GPUs, []string{"0000:3b:00.0"}) {
		t.Errorf("%+v", g)
	}
	if g := set(t, p, "b", one); !slices.Equal(g.GPUs, []string{"0000:5e:00.0"}) {
		t.Errorf("%+v", g)
	}
	_, err := p.Set("c", one)
	refused(t, err, "GPUs 10de:2335: 1 wanted, 0 free of 2")
	p.Release("a")
	if g := set(t, p, "b", one); !slices.Equal(g.GPUs, []string{"0000:5e:00.0"}) {
		t.Errorf("a VM that runs changed its card: %+v", g)
	}
	for _, c := range []Claim{claim("10de:2901", 1), claim("10de:2335", 3)} {
		if _, err := p.Set("c", c); err == nil {
			t.Errorf("%+v was granted", c)
		}
	}
	both := one
	both.AllGPUs = true
	for _, c := range []Claim{both, claim("", 1), claim("10de:2335", -1)} {
		if _, err := p.Set("c", c); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%+v: %v", c, err)
		}
	}
	p.Shrink("b")
	if g := set(t, p, "c", claim("10de:2335", 2)); len(g.GPUs) != 2 {
		t.Errorf("%+v", g)
	}
}

func TestGPUs(t *testing.T) {
	p := New(big(), nil)
	one := sized(2, 1024, 1)
	one.GPUs = []string{"0000:5e:00.0"}
	if g := set(t, p, "a", one); !slices.Equal(g.GPUs, one.GPUs) {
		t.Errorf("%+v", g)
	}
	all := sized(2, 1024, 1)
	all.AllGPUs = true
	_, err := p.Set("b", all)
	refused(t, err, "GPU 0000:5e:00.0: held by VM a")
	other := sized(2, 1024, 1)
	other.GPUs = []string{"0000:ff:00.0", "0000:3b:00.0", "0000:3b:00.0"}
	_, err = p.Set("b", other)
	refused(t, err, "GPU 0000:ff:00.0: not on this node", "named twice")
	if l := p.Leases(); !maps.Equal(l, map[string]string{"0000:5e:00.0": "a"}) {
		t.Errorf("%v", l)
	}
	p.Shrink("a") // stopped: its card is free
	if g := set(t, p, "b", all); len(g.GPUs) != 3 {
		t.Errorf("%+v", g)
	}
	_, err = p.Set("a", one)
	refused(t, err, "held by VM b")
	_, err = plain(res(9, 9999, 9)).Set("x", all)
	refused(t, err, "this node has none")
}

func TestNUMA(t *testing.T) {
	p := New(big(), nil)
	pin := func(vcpu, memory int, gpus ...string) Claim {
		c := sized(vcpu, memory, 1)
		c.PinNUMA, c.GPUs = true, gpus
		return c
	}
	if g := set(t, p, "a", pin(4, 8192)); len(g.Nodes) != 1 || g.Nodes[0].Node != 0 || !slices.Equal(g.Nodes[0].HostCPUs, big().Nodes[0].CPUs) {
		t.Errorf("one node is enough: %+v", g)
	}
	if g := set(t, p, "b", pin(2, 4096)); g.Nodes[0].Node != 0 {
		t.Errorf("the fuller node is filled first: %+v", g)
	}
	if g := set(t, p, "c", pin(2, 1024, "0000:5e:00.0")); g.Nodes[0].Node != 1 {
		t.Errorf("not with its GPU: %+v", g)
	}
	_, err := p.Set("d", pin(4, 1024, "0000:3b:00.0"))
	refused(t, err, "NUMA: 4 vcpu and 1024 MiB wanted, node 0 has 2 vcpu and 0 MiB")
	p.Release("a")
	p.Release("b")
	if g := set(t, p, "d", pin(9, 12001)); !reflect.DeepEqual([]int{g.Nodes[0].VCPUs, g.Nodes[1].VCPUs, g.Nodes[0].MemoryMiB, g.Nodes[1].MemoryMiB}, []int{5, 4, 6001, 6000}) {
		t.Errorf("over two nodes: %+v", g)
	}
	huge := sized(2, 4096, 1)
	huge.HugePages = true
	if g := set(t, p, "h", huge); g.Nodes[0].MemoryMiB != 4096 || g.Nodes[0].HostCPUs != nil {
		t.Errorf("huge pages: %+v", g)
	}
	huge.MemoryMiB = 4097
	p.Release("c")
	_, err = p.Set("i", huge)
	refused(t, err, "huge pages: 2 vcpu and 4097 MiB wanted, node 0 has 3 vcpu and 0 MiB, node 1 has 4 vcpu and 4096 MiB")
	p = New(big(), nil)
	_, err = p.Set("f", sized(1, 24577, 1))
	refused(t, err, "memory outside huge pages: 24577 MiB wanted, 24576 MiB free")
	_, err = plain(res(9, 9999, 9)).Set("x", pin(1, 1))
	refused(t, err, "shows no nodes")
}

func TestUserIDs(t *testing.T) {
	p := New(big(), nil)
	for i := range 4 {
		if g := set(t, p, fmt.Sprint(i), Claim{}); g.UID != 64000+i {
			t.Errorf("%d: %+v", i, g)
		}
	}
	_, err := p.Set("x", Claim{})
	refused(t, err, "user ids")
	p.Release("1")
	if g := set(t, p, "3", sized(1, 1, 1)); g.UID != 64003 {
		t.Errorf("a VM lost the owner of its files: %+v", g)
	}
	if g := set(t, p, "x", Claim{}); g.UID != 64001 {
		t.Errorf("%+v", g)
	}
}

func TestContextIDs(t *testing.T) {
	outside := map[uint32]bool{20001: true}
	c := big()
	c.UIDs, c.CIDInUse = 0, func(cid uint32) bool { return outside[cid] }
	p := New(c, nil)
	running := sized(1, 1, 1)
	for i, want := range []uint32{20000, 20002, 20003, 20004} {
		if g := set(t, p, fmt.Sprint(i), running); g.CID != want {
			t.Errorf("%d: context id %d, want %d", i, g.CID, want)
		}
	}
	_, err := p.Set("x", running)
	refused(t, err, "vsock context ids: all 5 are taken")
	outside[20002] = true // its own machine has it
	if g := set(t, p, "1", sized(2, 1, 1)); g.CID != 20002 {
		t.Errorf("a VM that runs got another: %+v", g)
	}
	p.Shrink("1")
	_, err = p.Set("x", running)
	refused(t, err, "vsock context ids") // a stopped VM keeps its own
	outside[20001] = false
	if g := set(t, p, "1", running); g.CID != 20001 {
		t.Errorf("somebody outside took a stopped VM's, and it starts with %+v", g)
	}
	p.Release("0")
	if g := set(t, p, "x", running); g.CID != 20000 {
		t.Errorf("a deleted VM's is not free: %+v", g)
	}
	if g := set(t, plain(res(9, 9, 9)), "a", running); g.CID != 0 {
		t.Errorf("a node without any gave %+v", g)
	}
}

func TestPoolNeverGivesTwice(t *testing.T) {
	p := plain(res(10, 10, 10))
	var wg sync.WaitGroup
	var mu sync.Mutex
	given := 0
	for i := range 50 {
		wg.Go(func() {
			if _, err := p.Set(string(rune('A'+i)), sized(1, 1, 1)); err == nil {
				mu.Lock()
				given++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if given != 10 {
		t.Fatalf("gave %d of 10", given)
	}
}

// TestRandomSequences: whatever happens, nothing is given twice or beyond what
// there is, a reload from claims and grants is the same account, and in the end
// everything is back.
func TestRandomSequences(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test's choices
		p := New(big(), nil)
		for range 60 {
			id := fmt.Sprintf("vm%d", r.IntN(6))
			switch r.IntN(5) {
			case 0:
				p.Release(id)
			case 1:
				p.Shrink(id)
			default:
				before := fmt.Sprintf("%+v", p.held)
				if _, err := p.Set(id, randomClaim(r)); err != nil && before != fmt.Sprintf("%+v", p.held) {
					t.Fatalf("seed %d: a refusal changed the account", seed)
				}
			}
			check(t, seed, p)
			q := New(big(), nil)
			for id, h := range p.held {
				q.Force(id, h.claim, h.grant)
			}
			if !reflect.DeepEqual(q.held, p.held) {
				t.Fatalf("seed %d: reloaded %+v, was %+v", seed, q.held, p.held)
			}
		}
		for _, id := range p.idsLocked() {
			p.Release(id)
		}
		everything := sized(16, 24576, 1<<20)
		everything.AllGPUs = true
		set(t, p, "last", everything)
	}
}

func randomClaim(r *rand.Rand) Claim {
	c := sized(r.IntN(9), r.IntN(12)*1024, r.IntN(1<<18))
	c.PinNUMA, c.HugePages, c.AllGPUs = r.IntN(3) == 0, r.IntN(4) == 0, r.IntN(12) == 0
	for _, g := range big().GPUs {
		if !c.AllGPUs && r.IntN(4) == 0 {
			c.GPUs = append(c.GPUs, g.Slot)
		}
	}
	if !c.AllGPUs && len(c.GPUs) == 0 {
		c.GPUKind, c.GPUCount = "10de:2335", r.IntN(3)
	}
	if r.IntN(2) == 0 {
		addr := []string{"0.0.0.0", "192.0.2.1", "::", "2001:db8::1"}[r.IntN(4)]
		c.Ports = []Port{{"tcp", netip.MustParseAddr(addr), uint16(80 + r.IntN(3))}}
	}
	return c
}

func check(t *testing.T, seed uint64, p *Pool) {
	t.Helper()
	u := p.Used()
	if u.VCPU > 16 || u.MemoryMiB > 32768 || u.DiskMiB > 1<<20 {
		t.Fatalf("seed %d: over capacity: %+v", seed, u)
	}
	gpus, uids, cids := map[string]string{}, map[int]string{}, map[uint32]string{}
	var ports []Port
	mem, huge, cpus := map[int]int{}, map[int]int{}, map[int]int{}
	for id, h := range p.held {
		for _, s := range h.grant.GPUs {
			if other := gpus[s]; other != "" {
				t.Fatalf("seed %d: GPU %s is held by %s and %s", seed, s, id, other)
			}
			gpus[s] = id
		}
		if other := uids[h.grant.UID]; other != "" || h.grant.UID == 0 {
			t.Fatalf("seed %d: user %d of %s and %s", seed, h.grant.UID, id, other)
		}
		uids[h.grant.UID] = id
		if other := cids[h.grant.CID]; other != "" || h.grant.CID == 0 {
			t.Fatalf("seed %d: context id %d of %s and %s", seed, h.grant.CID, id, other)
		}
		cids[h.grant.CID] = id
		for _, a := range h.claim.Ports {
			if slices.ContainsFunc(ports, a.overlaps) {
				t.Fatalf("seed %d: port %s twice", seed, a)
			}
			ports = append(ports, a)
		}
		for _, n := range h.grant.Nodes {
			if h.claim.HugePages {
				huge[n.Node] += n.MemoryMiB
			} else {
				mem[n.Node] += n.MemoryMiB
			}
			if h.claim.PinNUMA {
				cpus[n.Node] += n.VCPUs
			}
		}
	}
	for n := range 2 {
		if mem[n] > 12288 || huge[n] > 4096 || cpus[n] > 8 {
			t.Fatalf("seed %d: node %d: %d MiB, %d MiB huge, %d cpus", seed, n, mem[n], huge[n], cpus[n])
		}
	}
}
