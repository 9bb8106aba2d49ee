package cloudapi

import "time"

// AvailableNodes is the answer of GET /nodes and /teepods/available.
type AvailableNodes struct {
	Tier     string          `json:"tier"`
	Capacity Capacity        `json:"capacity"`
	Nodes    []AvailableNode `json:"nodes"`
	KMSList  []KMS           `json:"kms_list"`
}

// Capacity is what the workspace may use at most; null is unlimited. Memory in MB, disk in GB.
type Capacity struct {
	MaxInstances *int `json:"max_instances"`
	MaxVCPU      *int `json:"max_vcpu"`
	MaxMemory    *int `json:"max_memory"`
	MaxDisk      *int `json:"max_disk"`
}

// AvailableNode is one host that takes CVMs. RemainingMemory in MB.
type AvailableNode struct {
	TeepodID          int         `json:"teepod_id"`
	Name              string      `json:"name"`
	Listed            bool        `json:"listed"`
	ResourceScore     float64     `json:"resource_score"`
	RemainingVCPU     int         `json:"remaining_vcpu"`
	RemainingMemory   int         `json:"remaining_memory"`
	RemainingCVMSlots int         `json:"remaining_cvm_slots"`
	Images            []NodeImage `json:"images"`
	SupportOnchainKMS bool        `json:"support_onchain_kms"`
	FMSPC             *string     `json:"fmspc"`
	DeviceID          *string     `json:"device_id"`
	RegionIdentifier  *string     `json:"region_identifier"`
	DefaultKMS        *string     `json:"default_kms"`
	KMSList           []string    `json:"kms_list"`

	RemainingDiskGB int      `json:"remaining_disk_gb"`  // ours
	Driver          string   `json:"driver"`             // ours: qemu, container, dry
	Simulated       bool     `json:"simulated"`          // ours: no TEE behind it
	Online          bool     `json:"online"`             // ours: the VMM answered
	Problem         string   `json:"problem,omitempty"`  // ours: why it does not take CVMs
	Warnings        []string `json:"warnings,omitempty"` // ours
	Draining        bool     `json:"draining,omitempty"` // ours
	GPUs            []string `json:"gpus,omitempty"`     // ours: products of the free ones, vendor:device
	// Confidence (ours) is how sure it is that VMs of the node are confidential.
	Confidence    string       `json:"confidence" enum:"simulated,unverified,genuine"`
	ConfidenceWhy string       `json:"confidence_why,omitempty"` // ours: why it is not more
	Proof         *NodeProof   `json:"proof,omitempty"`          // ours: what it proved of its platform
	Maintenance   *Maintenance `json:"maintenance,omitempty"`    // ours: while it is drained
}

// Maintenance is why a node is out of service, and since when (ours).
type Maintenance struct {
	Reason string     `json:"reason,omitempty"`
	Since  time.Time  `json:"since"`
	StopAt *time.Time `json:"stop_at,omitempty" doc:"when what still runs there is stopped"`
}

// NodeExplanation says whether a node would take a CVM (ours).
type NodeExplanation struct {
	NodeID   int           `json:"node_id"`
	Name     string        `json:"name"`
	Fits     bool          `json:"fits"`
	Problems []NodeProblem `json:"problems"`
}

// NodeProblem is one reason why not.
type NodeProblem struct {
	Check   string `json:"check" enum:"node,region,online,draining,confidence,image,gpu,vcpu,memory,disk"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// NodeImage is a guest image on a node.
type NodeImage struct {
	Name        string  `json:"name"`
	IsDev       bool    `json:"is_dev"`
	Version     []int   `json:"version"`
	OSImageHash *string `json:"os_image_hash"`
}

// NodeRef names a node.
type NodeRef struct {
	ObjectType string  `json:"object_type" enum:"node"`
	ID         *int    `json:"id"`
	Name       *string `json:"name"`
	Region     *string `json:"region"`
	DeviceID   *string `json:"device_id"`
	PPID       *string `json:"ppid"`
	Status     *string `json:"status"`
	Version    *string `json:"version"`
}

// KMS describes a key management service. No other keys: clients are strict.
type KMS struct {
	ID                 string  `json:"id"`
	Slug               *string `json:"slug"`
	URL                string  `json:"url"`
	Version            string  `json:"version"`
	ChainID            *uint64 `json:"chain_id"`
	KMSContractAddress *string `json:"kms_contract_address"`
	GatewayAppID       *string `json:"gateway_app_id"`
}

// KMSInfo is GET /kms/{id}/info, a live inspection through the API's pinned
// channel (ours beyond the KMS fields): what a profile stores after a person agreed.
type KMSInfo struct {
	KMS       KMS      `json:"kms"`
	RootCA    string   `json:"root_ca" doc:"PEM"`
	RootSPKI  string   `json:"root_spki" doc:"hex DER: key_provider_id"`
	K256      string   `json:"k256_pubkey" doc:"hex, compressed: signs env keys"`
	URLs      []string `json:"urls"`
	Simulated bool     `json:"simulated"`
	Warnings  []string `json:"warnings,omitempty"`
}

// EnvKey is GET /kms/{id}/pubkey/{app_id}: hex, without 0x. Timestamp and
// SignatureV1 are ours and come only with ?full=true (strict clients refuse them).
type EnvKey struct {
	PublicKey   string `json:"public_key"`
	Signature   string `json:"signature"`
	SignatureV1 string `json:"signature_v1,omitempty"`
	Timestamp   uint64 `json:"timestamp,omitempty"`
}

// OnChain is GET /kms/on-chain/{chain}.
type OnChain struct {
	ChainName string            `json:"chain_name"`
	ChainID   uint64            `json:"chain_id"`
	RPCURL    string            `json:"rpc_url,omitempty"` // ours
	Contracts []OnChainContract `json:"contracts"`
}

// OnChainContract is one KMS contract. OnChainAllowed is null where nobody asked the chain.
type OnChainContract struct {
	ContractAddress string          `json:"contract_address"`
	ChainID         uint64          `json:"chain_id"`
	ChainName       string          `json:"chain_name"`
	Devices         []OnChainDevice `json:"devices"`
	OSImages        []OnChainImage  `json:"os_images"`
}

// OnChainDevice is a machine.
type OnChainDevice struct {
	DeviceID       string  `json:"device_id"`
	NodeName       *string `json:"node_name"`
	OnChainAllowed *bool   `json:"on_chain_allowed"`
}

// OnChainImage is a guest image.
type OnChainImage struct {
	Name           string  `json:"name"`
	Version        string  `json:"version"`
	OSImageHash    *string `json:"os_image_hash"`
	OnChainAllowed *bool   `json:"on_chain_allowed"`
}

// InstanceType is a size. Prices are decimal strings per hour.
type InstanceType struct {
	ID                string  `json:"id"`
	Name              string  `json:"name"`
	Description       string  `json:"description"`
	VCPU              int     `json:"vcpu"`
	MemoryMB          int     `json:"memory_mb"`
	HourlyRate        string  `json:"hourly_rate"`
	RequiresGPU       bool    `json:"requires_gpu"`
	DefaultDiskSizeGB int     `json:"default_disk_size_gb"`
	Family            *string `json:"family"`
	GPUs              int     `json:"gpus,omitempty"`     // ours: cards that a CVM of this type has
	GPU               string  `json:"gpu,omitempty"`      // ours: their product, vendor:device
	GPUName           string  `json:"gpu_name,omitempty"` // ours: for people
}

// InstanceFamily is one family in GET /instance-types.
type InstanceFamily struct {
	Name  string         `json:"name"`
	Items []InstanceType `json:"items"`
	Total int            `json:"total"`
}

// InstanceTypes is GET /instance-types.
type InstanceTypes struct {
	Result []InstanceFamily `json:"result"`
}

// InstanceTypesOf is GET /instance-types/{family}.
type InstanceTypesOf struct {
	Items  []InstanceType `json:"items"`
	Total  int            `json:"total"`
	Family string         `json:"family"`
}

// OSImage is a guest image.
type OSImage struct {
	Name        string  `json:"name"`
	Slug        string  `json:"slug"`
	Version     string  `json:"version"`
	OSImageHash *string `json:"os_image_hash"`
	IsDev       bool    `json:"is_dev"`
	RequiresGPU bool    `json:"requires_gpu"`
}
