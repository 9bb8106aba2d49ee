package routes

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// pool gives tunnel addresses to WireGuard keys. A key's first choice follows from
// its hash, so a gateway that forgot everything mostly gives the same address again.
type pool struct {
	network netip.Prefix
	byKey   map[[keySize]byte]netip.Addr
	owner   map[netip.Addr][keySize]byte
	freed   map[[keySize]byte]time.Time // when the key's last route ended
}

// reclaimAfter is how long an address stays with a key that has no route.
const reclaimAfter = time.Hour

func newPool(network netip.Prefix) *pool {
	return &pool{
		network: network.Masked(),
		byKey:   map[[keySize]byte]netip.Addr{},
		owner:   map[netip.Addr][keySize]byte{},
		freed:   map[[keySize]byte]time.Time{},
	}
}

// firstHost is the gateway's own address: the network's first.
func firstHost(n netip.Prefix) netip.Addr { return n.Masked().Addr().Next() }

func (p *pool) take(key [keySize]byte, at time.Time) (netip.Addr, error) {
	delete(p.freed, key)
	if a, ok := p.byKey[key]; ok {
		return a, nil
	}
	p.reclaim(at)
	// Host numbers: 0 is the network, 1 the gateway, the last the broadcast address.
	size := uint32(1)<<(32-p.network.Bits()) - 3
	base := binary.BigEndian.Uint32(p.network.Addr().AsSlice()) + 2
	h := sha256.Sum256(key[:])
	first := binary.BigEndian.Uint32(h[:4]) % size
	for i := range size {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], base+(first+i)%size)
		a := netip.AddrFrom4(b)
		if _, used := p.owner[a]; !used {
			p.byKey[key], p.owner[a] = a, key
			return a, nil
		}
	}
	return netip.Addr{}, cvm.Errorf(cvm.Exhausted, "no tunnel address is free in %s", p.network).
		WithReason("no-tunnel-address").WithFix("give the gateway a larger tunnel.network")
}

func (p *pool) release(key [keySize]byte, at time.Time) { p.freed[key] = at }

func (p *pool) reclaim(at time.Time) {
	for k, t := range p.freed {
		if at.Sub(t) >= reclaimAfter {
			delete(p.owner, p.byKey[k])
			delete(p.byKey, k)
			delete(p.freed, k)
		}
	}
}
