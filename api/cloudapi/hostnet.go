package cloudapi

// PortMapping is a port of the host that leads to a CVM.
type PortMapping struct {
	ID          string `json:"id,omitempty"`
	HostPort    int    `json:"host_port"`
	VMPort      int    `json:"vm_port"`
	Protocol    string `json:"protocol"` // tcp, udp
	HostAddress string `json:"host_address"`
}

// NetworkConfig is what the host hands to a CVM about the network: none of it is
// measured, and the guest believes none of it without proof.
type NetworkConfig struct {
	KMSURLs     []string      `json:"kms_urls"`
	GatewayURLs []string      `json:"gateway_urls"`
	Ports       []PortMapping `json:"ports"`
}

// NetworkConfigPatch is PATCH /cvms/{id}/network-config.
type NetworkConfigPatch struct {
	KMSURLs     []string `json:"kms_urls,omitempty" nullable:"true" maxItems:"64"`
	GatewayURLs []string `json:"gateway_urls,omitempty" nullable:"true" maxItems:"64"`
	Restart     bool     `json:"restart,omitempty"`
}

// WantedPort is a port of a CVM that a port of the host should lead to.
type WantedPort struct {
	VMPort   int    `json:"vm_port" minimum:"1" maximum:"65535"`
	Protocol string `json:"protocol,omitempty" enum:"tcp,udp" default:"tcp"`
}

// PortsRequest is PUT /cvms/{id}/ports.
type PortsRequest struct {
	Ports []WantedPort `json:"ports" maxItems:"64"`
}

// FirewallStatus tells whether the CVM's node guards its network.
type FirewallStatus struct {
	Available bool    `json:"available"`
	Reason    *string `json:"reason"`
}
