package container

import (
	"context"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"github.com/confidential-cloud/phala/cvm"
)

// Network is the docker network of the guests: its own bridge, on which guests
// reach the host's bridge address and the outside, and not each other.
type Network struct {
	DockerHost string `toml:"-"`      // engine to ask; "" is the environment's default socket
	Name       string `toml:"name"`   // docker network, default phala-guests
	Subnet     string `toml:"subnet"` // default 172.31.77.0/24; its first address is the gateway
	Bridge     string `toml:"bridge"` // interface name, at most 15 bytes; default phala0
}

// DefaultNetwork is what the design document names.
func DefaultNetwork() Network {
	return Network{Name: "phala-guests", Subnet: "172.31.77.0/24", Bridge: "phala0"}
}

const (
	optICC    = "com.docker.network.bridge.enable_icc"
	optBridge = "com.docker.network.bridge.name"
)

// EnsureNetwork makes the guests' network when it is missing and returns the
// address of its gateway, on which services for guests listen. It needs only the
// engine, so it can be called before anything else.
func EnsureNetwork(ctx context.Context, n Network) (gatewayIP string, err error) {
	cli, err := dial(n.DockerHost)
	if err != nil {
		return "", err
	}
	defer cli.Close()
	return ensureNetwork(ctx, cli, n)
}

func ensureNetwork(ctx context.Context, cli *client.Client, n Network) (string, error) {
	if err := n.validate(); err != nil {
		return "", err
	}
	have, err := cli.NetworkInspect(ctx, n.Name, network.InspectOptions{})
	if errdefs.IsNotFound(err) {
		if err := createNetwork(ctx, cli, n); err != nil {
			return "", err
		}
		have, err = cli.NetworkInspect(ctx, n.Name, network.InspectOptions{})
	}
	if err != nil {
		return "", engineError("network "+n.Name, err)
	}
	return checkNetwork(have, n)
}

func (n Network) validate() error {
	p, err := netip.ParsePrefix(n.Subnet)
	if err != nil || !p.Addr().Is4() || p.Bits() > 28 || p.Masked() != p {
		return cvm.Errorf(cvm.Invalid, "network.subnet %q: want an IPv4 network like 172.31.77.0/24, /28 or larger", n.Subnet)
	}
	if !p.Addr().IsPrivate() {
		return cvm.Errorf(cvm.Invalid, "network.subnet %s: not a private network", n.Subnet)
	}
	if n.Name == "" || n.Bridge == "" || len(n.Bridge) > 15 {
		return cvm.Errorf(cvm.Invalid, "network: name and bridge are needed, the bridge's name has at most 15 bytes")
	}
	return nil
}

func createNetwork(ctx context.Context, cli *client.Client, n Network) error {
	gw := netip.MustParsePrefix(n.Subnet).Addr().Next().String()
	_, err := cli.NetworkCreate(ctx, n.Name, network.CreateOptions{
		Driver:  "bridge",
		IPAM:    &network.IPAM{Config: []network.IPAMConfig{{Subnet: n.Subnet, Gateway: gw}}},
		Options: map[string]string{optICC: "false", optBridge: n.Bridge},
		Labels:  map[string]string{labelOwner: "phala"},
	})
	if err != nil && !errdefs.IsConflict(err) { // made by someone else meanwhile: checked next
		return cvm.Errorf(cvm.Unavailable, "making docker network %s (%s): %w", n.Name, n.Subnet, err).
			WithFix("if the subnet is in use on this machine, set network.subnet to a free private one")
	}
	return nil
}

// checkNetwork refuses a network that would let guests meet.
func checkNetwork(have network.Inspect, n Network) (string, error) {
	fix := "stop the VMs on it and run `docker network rm " + n.Name + "`, or choose another network.name"
	if have.Options[optICC] != "false" {
		return "", cvm.Errorf(cvm.Precondition, "docker network %s lets containers reach each other", n.Name).WithReason("network-not-isolated").WithFix(fix)
	}
	if len(have.IPAM.Config) != 1 || have.IPAM.Config[0].Subnet != n.Subnet || have.IPAM.Config[0].Gateway == "" {
		return "", cvm.Errorf(cvm.Precondition, "docker network %s is %v, the configuration says %s", n.Name, have.IPAM.Config, n.Subnet).WithReason("network-differs").WithFix(fix)
	}
	return have.IPAM.Config[0].Gateway, nil
}
