package vmmapi

// NodeGPU is a card that the node gives to VMs.
type NodeGPU struct {
	Slot    string `json:"slot"`    // PCI address
	Product string `json:"product"` // vendor:device
	Switch  bool   `json:"switch,omitempty"`
	Node    int    `json:"numa_node"` // -1: unknown
	HeldBy  string `json:"held_by,omitempty"`
	Problem string `json:"problem,omitempty"` // why no VM gets it by itself
}

// NodeNUMA is a NUMA node of the host.
type NodeNUMA struct {
	ID        int   `json:"id"`
	CPUs      []int `json:"cpus"`
	MemoryMiB int   `json:"memory_mib"`
	HugeMiB   int   `json:"hugepages_mib,omitempty"`
}

// NodePorts says which ports of the host VMs may have; nil: none.
type NodePorts struct {
	Addresses []string    `json:"addresses"` // the first is the default
	Ranges    []PortRange `json:"ranges"`
}

// PortRange is a range of ports, both ends included.
type PortRange struct {
	Protocol string `json:"protocol" toml:"protocol"` // tcp, udp
	From     uint16 `json:"from" toml:"from"`
	To       uint16 `json:"to" toml:"to"`
}

// NodeNetwork is a network that a VM's card may be on; the first is the default.
type NodeNetwork struct {
	Mode    string `json:"mode"`
	Bridge  string `json:"bridge,omitempty"`
	Managed bool   `json:"managed,omitempty"` // the node gives addresses and guards them
	IPv4    string `json:"ipv4,omitempty"`
	IPv6    string `json:"ipv6,omitempty"`
}
