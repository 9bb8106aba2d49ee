package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// hostRoutes show the host's side of a CVM's network. What of it can be changed is
// in the app-compose, which is measured; the rest is the node operator's, and a
// request for it is refused rather than taken and not done.
func (s *Server) hostRoutes(api huma.API) {
	read, write := reads("cvms"), writes("cvms")
	register(s, api, op{method: "GET", path: "/cvms/{id}/network-config", summary: "KMS, gateways and host ports as the node has them now", access: read}, s.networkConfig)
	register(s, api, op{method: "PATCH", path: "/cvms/{id}/network-config", summary: "Keep the KMS and gateways that the CVM has; others are refused", access: write}, s.patchNetworkConfig)
	register(s, api, op{method: "GET", path: "/cvms/{id}/ports", summary: "Ports of the host that lead to the CVM", access: read}, s.ports)
	register(s, api, op{method: "PUT", path: "/cvms/{id}/ports", summary: "Keep the ports that the CVM has; others are refused", access: write}, s.putPorts)
	register(s, api, op{method: "GET", path: "/cvms/{id}/firewall-status", summary: "Does the CVM's node guard its network", access: read}, s.firewallStatus)
}

// specOf is the CVM's VM as its node has it; one that was not made yet has nothing.
func (s *Server) specOf(ctx context.Context, c store.CVM) (vmmapi.Spec, error) {
	vmm, err := s.nodes.vmm(c.NodeID)
	if err != nil {
		return vmmapi.Spec{}, err
	}
	vm, err := vmm.Get(ctx, c.UUID)
	if err != nil && cvm.CodeOf(err) == cvm.NotFound {
		return vmmapi.Spec{}, nil
	}
	return vm.Spec, err
}

func mappings(c store.CVM, list []vmmapi.PortMap, ids bool) []cloudapi.PortMapping {
	out := []cloudapi.PortMapping{}
	for _, p := range list {
		v := cloudapi.PortMapping{HostPort: int(p.HostPort), VMPort: int(p.VMPort), Protocol: p.Protocol, HostAddress: p.HostAddress}
		if ids {
			v.ID = fmt.Sprintf("%s-%s-%d", store.HashID(c.UUID), p.Protocol, p.HostPort)
		}
		out = append(out, v)
	}
	return out
}

func (s *Server) networkConfig(ctx context.Context, in *IDInput) (out cloudapi.NetworkConfig, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	spec, err := s.specOf(ctx, c)
	if err != nil {
		return out, err
	}
	return cloudapi.NetworkConfig{KMSURLs: append([]string{}, spec.KMSURLs...), GatewayURLs: append([]string{}, spec.GatewayURLs...), Ports: mappings(c, spec.Ports, false)}, nil
}

type networkPatchInput struct {
	IDInput
	Body cloudapi.NetworkConfigPatch
}

// patchNetworkConfig answers a request for what is so already.
func (s *Server) patchNetworkConfig(ctx context.Context, in *networkPatchInput) (out cloudapi.NetworkConfig, err error) {
	if out, err = s.networkConfig(ctx, &in.IDInput); err != nil {
		return out, err
	}
	if in.Body.KMSURLs == nil && in.Body.GatewayURLs == nil {
		return out, badText("there is nothing to change: send kms_urls or gateway_urls")
	}
	if in.Body.KMSURLs != nil && !sameSet(in.Body.KMSURLs, out.KMSURLs) {
		return out, fail(http.StatusForbidden, "", cvm.Denied, "kms-urls-are-the-clouds", "the addresses of the KMS are the cloud's: its members share one identity, which the app-compose pins",
			"to trust another KMS set key_provider_id in the app-compose, which makes another compose hash")
	}
	if in.Body.GatewayURLs != nil && !sameSet(in.Body.GatewayURLs, out.GatewayURLs) {
		return out, fail(http.StatusForbidden, "", cvm.Denied, "gateway-urls-are-the-clouds", "the addresses of the gateways are the cloud's: a CVM joins each of them",
			"to stay off the gateway set gateway_enabled: false in the app-compose")
	}
	return out, nil
}

func (s *Server) ports(ctx context.Context, in *IDInput) ([]cloudapi.PortMapping, error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	spec, err := s.specOf(ctx, c)
	return mappings(c, spec.Ports, true), err
}

type portsInput struct {
	IDInput
	Body cloudapi.PortsRequest
}

// putPorts answers a request for the ports that the CVM has. Others it refuses, and
// says which way leads to them.
func (s *Server) putPorts(ctx context.Context, in *portsInput) ([]cloudapi.PortMapping, error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	spec, err := s.specOf(ctx, c)
	if err != nil {
		return nil, err
	}
	name := func(proto string, port int) string { return fmt.Sprintf("%d/%s", port, proto) }
	want, has := []string{}, []string{}
	for _, p := range in.Body.Ports {
		want = append(want, name(p.Protocol, p.VMPort))
	}
	for _, p := range spec.Ports {
		has = append(has, name(p.Protocol, int(p.VMPort)))
	}
	if sameSet(want, has) {
		return mappings(c, spec.Ports, true), nil
	}
	for _, p := range in.Body.Ports {
		if err := closed(c, p); err != nil && !slices.Contains(has, name(p.Protocol, p.VMPort)) {
			return nil, err
		}
	}
	return nil, fail(http.StatusForbidden, "", cvm.Denied, "host-ports-are-the-nodes", "ports of the host are the node operator's and are given when a VM is made: traffic comes through the gateway",
		"publish the port in docker-compose.yml and reach it as https://<app id>-<port>."+s.cfg.baseDomain(), "for TLS that ends in the app, append s to the port")
}

// closed tells why not even the gateway may lead to a port: the app's port policy is
// measured.
func closed(c store.CVM, want cloudapi.WantedPort) error {
	p := parsed(c).PortPolicy
	if p == nil || !p.RestrictMode || slices.ContainsFunc(p.Ports, func(r appcompose.Port) bool { return r.Port == want.VMPort }) {
		return nil
	}
	return fail(http.StatusForbidden, "", cvm.Denied, "port-policy", fmt.Sprintf("the app's port_policy, which is measured, does not open port %d", want.VMPort),
		"add the port to port_policy in the app-compose: that makes another compose hash, which must be allowed as every update")
}

func (s *Server) firewallStatus(ctx context.Context, in *IDInput) (out cloudapi.FirewallStatus, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	n := s.nodes.byID[c.NodeID]
	if n == nil {
		return out, gone()
	}
	info, _, err := n.facts()
	switch {
	case err != nil:
		out.Reason = ptr("the node does not answer")
	case slices.ContainsFunc(info.Networks, func(n vmmapi.NodeNetwork) bool { return n.Managed }):
		out.Available = true
	default:
		out.Reason = ptr("the node manages no network of its own: nothing there guards addresses")
	}
	return out, nil
}
