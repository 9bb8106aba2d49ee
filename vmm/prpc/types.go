package prpc

import "github.com/confidential-cloud/phala/guest-agent/guestapi"

// Wire types of the reference, names and order as there. Memory is in MiB, disks
// in GiB.

// ID names a VM (or an image, for DeleteImage).
type ID struct {
	ID string `json:"id"`
}

// VMConfiguration is what CreateVm takes.
type VMConfiguration struct {
	Name         string       `json:"name"`
	Image        string       `json:"image"`
	ComposeFile  string       `json:"compose_file"` // exact bytes of the app-compose
	VCPU         uint32       `json:"vcpu"`
	Memory       uint32       `json:"memory"`
	DiskSize     uint32       `json:"disk_size"`
	Ports        []Port       `json:"ports"`
	EncryptedEnv guestapi.Hex `json:"encrypted_env"`
	AppID        *string      `json:"app_id"`
	UserConfig   string       `json:"user_config"`
	Hugepages    bool         `json:"hugepages"`
	PinNUMA      bool         `json:"pin_numa"`
	GPUs         *GPUConfig   `json:"gpus"`
	KMSURLs      []string     `json:"kms_urls"`
	GatewayURLs  []string     `json:"gateway_urls"`
	Stopped      bool         `json:"stopped"`
	NoTEE        bool         `json:"no_tee"`
	Networking   *Networking  `json:"networking"`
	Networks     []Networking `json:"networks"`
	SimulatedTEE bool         `json:"simulated_tee"`
}

// Port maps a port of the host.
type Port struct {
	Protocol    string `json:"protocol"`
	HostPort    uint32 `json:"host_port"`
	VMPort      uint32 `json:"vm_port"`
	HostAddress string `json:"host_address"`
}

// GPUConfig lists GPUs.
type GPUConfig struct {
	GPUs       []GPUSlot `json:"gpus"`
	AttachMode string    `json:"attach_mode"` // listed, all
}

// GPUSlot is a PCI address.
type GPUSlot struct {
	Slot string `json:"slot"`
}

// Networking is a network card.
type Networking struct {
	Mode       string `json:"mode"`
	BridgeName string `json:"bridge_name"`
}

// UpdateVMRequest changes parts of a VM; an empty compose_file, encrypted_env or
// user_config means unchanged. The two clear_ fields are ours.
type UpdateVMRequest struct {
	ID                string       `json:"id"`
	ComposeFile       string       `json:"compose_file"`
	EncryptedEnv      guestapi.Hex `json:"encrypted_env"`
	UserConfig        string       `json:"user_config"`
	UpdatePorts       bool         `json:"update_ports"`
	Ports             []Port       `json:"ports"`
	UpdateKMSURLs     bool         `json:"update_kms_urls"`
	KMSURLs           []string     `json:"kms_urls"`
	UpdateGatewayURLs bool         `json:"update_gateway_urls"`
	GatewayURLs       []string     `json:"gateway_urls"`
	GPUs              *GPUConfig   `json:"gpus"`
	VCPU              *uint32      `json:"vcpu"`
	Memory            *uint32      `json:"memory"`
	DiskSize          *uint32      `json:"disk_size"`
	Image             *string      `json:"image"`
	NoTEE             *bool        `json:"no_tee"`
	UpdateNetworking  bool         `json:"update_networking"`
	Networks          []Networking `json:"networks"`

	ClearEncryptedEnv bool `json:"clear_encrypted_env"`
	ClearUserConfig   bool `json:"clear_user_config"`
}

// ResizeVMRequest changes the size.
type ResizeVMRequest struct {
	ID       string  `json:"id"`
	VCPU     *uint32 `json:"vcpu"`
	Memory   *uint32 `json:"memory"`
	DiskSize *uint32 `json:"disk_size"`
	Image    *string `json:"image"`
}

// StatusRequest selects VMs.
type StatusRequest struct {
	IDs      []string `json:"ids"`
	Brief    bool     `json:"brief"` // without configuration
	Keyword  string   `json:"keyword"`
	Page     uint32   `json:"page"`      // from 1
	PageSize uint32   `json:"page_size"` // 0: all
}

// StatusResponse lists VMs.
type StatusResponse struct {
	VMs                []VMInfo `json:"vms"`
	PortMappingEnabled bool     `json:"port_mapping_enabled"`
	Total              uint32   `json:"total"`
}

// VMInfo is one VM. Status is running, exited, stopping, stopped or removing.
type VMInfo struct {
	ID               string           `json:"id"`
	Name             string           `json:"name"`
	Status           string           `json:"status"`
	Uptime           string           `json:"uptime"`
	AppURL           *string          `json:"app_url"`
	AppID            string           `json:"app_id"`
	InstanceID       *string          `json:"instance_id"`
	Configuration    *VMConfiguration `json:"configuration"`
	ExitedAt         *string          `json:"exited_at"`
	BootProgress     string           `json:"boot_progress"`
	BootError        string           `json:"boot_error"`
	ShutdownProgress string           `json:"shutdown_progress"`
	ImageVersion     string           `json:"image_version"`
	Events           []Event          `json:"events"`
	Interfaces       []Interface      `json:"interfaces"`
}

// Event of a guest.
type Event struct {
	Event     string `json:"event"`
	Body      string `json:"body"`
	Timestamp uint64 `json:"timestamp"` // unix milliseconds
}

// Interface is a network card as it is.
type Interface struct {
	Mode       string  `json:"mode"`
	Backend    string  `json:"backend"` // slirp, tap_bridge
	MAC        string  `json:"mac"`
	BridgeName *string `json:"bridge_name"`
	NetdevID   *string `json:"netdev_id"`
}

// GetInfoResponse is one VM, if it exists.
type GetInfoResponse struct {
	Found bool    `json:"found"`
	Info  *VMInfo `json:"info"`
}

// ComposeHash is sha256 of a compose file, hex.
type ComposeHash struct {
	Hash string `json:"hash"`
}

// ImageList is the answer of ListImages.
type ImageList struct {
	Images []ImageInfo `json:"images"`
}

// ImageInfo is one guest image.
type ImageInfo struct {
	Name        string `json:"name"`
	Description string `json:"description"` // JSON of its metadata
	Version     string `json:"version"`
	IsDev       bool   `json:"is_dev"`
}

// AppID names an app.
type AppID struct {
	AppID guestapi.Hex `json:"app_id"`
}

// PublicKey is an app's environment key with the KMS's signatures.
type PublicKey struct {
	PublicKey   guestapi.Hex `json:"public_key"`
	Signature   guestapi.Hex `json:"signature"`
	Timestamp   uint64       `json:"timestamp"`
	SignatureV1 guestapi.Hex `json:"signature_v1"`
}

// Version of the VMM.
type Version struct {
	Version string `json:"version"`
	Rev     string `json:"rev"`
}

// Meta is the answer of GetMeta.
type Meta struct {
	KMS        MetaKMS        `json:"kms"`
	Gateway    MetaGateway    `json:"gateway"`
	Resources  MetaResources  `json:"resources"`
	Networking MetaNetworking `json:"networking"`
}

// MetaKMS says where the KMS is.
type MetaKMS struct {
	URL  string   `json:"url"`
	URLs []string `json:"urls"`
}

// MetaGateway says where the gateway is.
type MetaGateway struct {
	URL        string   `json:"url"`
	BaseDomain string   `json:"base_domain"`
	Port       uint32   `json:"port"`
	AgentPort  uint32   `json:"agent_port"`
	URLs       []string `json:"urls"`
}

// MetaResources is the capacity.
type MetaResources struct {
	MaxCVMNumber          uint32 `json:"max_cvm_number"`
	MaxAllocableVCPU      uint32 `json:"max_allocable_vcpu"`
	MaxAllocableMemoryMiB uint32 `json:"max_allocable_memory_in_mb"`
}

// MetaNetworking is what networks may ask for.
type MetaNetworking struct {
	SupportedModes []string `json:"supported_modes"`
	DefaultMode    string   `json:"default_mode"`
	DefaultBridge  string   `json:"default_bridge"`
}

// GPUList is the answer of ListGpus.
type GPUList struct {
	GPUs           []GPU `json:"gpus"`
	AllowAttachAll bool  `json:"allow_attach_all"`
}

// GPU of the host.
type GPU struct {
	Slot        string `json:"slot"`
	ProductID   string `json:"product_id"`
	Description string `json:"description"`
	IsFree      bool   `json:"is_free"`
}

// Reloaded is the answer of ReloadVms.
type Reloaded struct {
	Loaded  uint32 `json:"loaded"`
	Updated uint32 `json:"updated"`
	Removed uint32 `json:"removed"`
}

// ProcessList is the answer of SvList.
type ProcessList struct {
	Processes []Process `json:"processes"`
}

// Process is a VM's hypervisor. Status is running, stopped, exited(code) or error(text).
type Process struct {
	ID      string  `json:"id"`
	Name    string  `json:"name"`
	Status  string  `json:"status"`
	PID     *uint32 `json:"pid"`
	Command string  `json:"command"`
	Note    string  `json:"note"`
}

// RegistryImageList is the answer of ListRegistryImages.
type RegistryImageList struct {
	Images []RegistryImage `json:"images"`
}

// RegistryImage is an image that was or is being pulled.
type RegistryImage struct {
	Tag     string `json:"tag"`
	Local   bool   `json:"local"`
	Pulling bool   `json:"pulling"`
	Error   string `json:"error"`
}

// PullRequest names an image.
type PullRequest struct {
	Tag string `json:"tag"`
}
