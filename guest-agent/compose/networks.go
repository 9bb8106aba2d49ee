package compose

import (
	"net/netip"
	"slices"

	"github.com/confidential-cloud/phala/cvm"
)

// ReasonNetworks is of a compose file whose networks overlap those of the guest's cards.
const ReasonNetworks = "networks-overlap"

// network is a top-level network.
type network struct {
	IPAM struct {
		Config []struct {
			Subnet string `json:"subnet"`
		} `json:"config"`
	} `json:"ipam"`
}

// ownNetworks refuses subnets that overlap a network which the guest reaches over its
// cards. Docker takes a subnet that is written down without looking at the routes; the
// narrower of the two would win, and packets for a container, in clear, would go to the
// host, or the guest's router and name servers would be out of reach. The subnets that
// Docker chooses by itself are free.
func (e *Engine) ownNetworks(m *model) error {
	if e.cfg.Taken == nil {
		return nil
	}
	names := make([]string, 0, len(m.Networks))
	for name := range m.Networks {
		names = append(names, name)
	}
	slices.Sort(names)
	var taken []netip.Prefix
	for _, name := range names {
		for _, c := range m.Networks[name].IPAM.Config {
			p, err := netip.ParsePrefix(c.Subnet)
			if err != nil { // none, or one that Compose will refuse
				continue
			}
			if taken == nil {
				if taken, err = e.cfg.Taken(); err != nil {
					return err
				}
			}
			for _, t := range taken {
				if t.Overlaps(p) {
					return cvm.Errorf(cvm.Invalid, "network %s of the compose file has the subnet %s, which overlaps %s, where this guest reaches its host, its router or the internet", name, p, t).
						WithReason(ReasonNetworks).WithFix("choose another subnet, or write none: then a free one is taken")
				}
			}
		}
	}
	return nil
}
