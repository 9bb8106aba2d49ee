// Package vmmapi holds the wire types of the VMM's REST API and its client. The
// cloud API uses only this. Authentication: Authorization: Bearer <token>.
package vmmapi

import (
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// Paths (under /v1): all answers are JSON unless said otherwise.
//
//	GET    /v1/node                     -> Node
//	GET    /v1/images                   -> []Image
//	GET    /v1/vms                      -> []VM
//	PUT    /v1/vms/{id}                 Spec -> VM     create, idempotent by id; 409 if the spec differs
//	GET    /v1/vms/{id}                 -> VM
//	PUT    /v1/vms/{id}/app             App -> VM      new compose / env; takes effect at the next start
//	PUT    /v1/vms/{id}/resources       Resources -> VM
//	PUT    /v1/vms/{id}/image           ImageChoice -> VM   takes effect at the next start
//	POST   /v1/vms/{id}/update          UpdateRequest -> VM  pull, switch, roll back on failure; watch LastUpdate
//	POST   /v1/vms/{id}/start|stop|restart   -> VM     returns at once; watch State
//	DELETE /v1/vms/{id}?volumes=keep|delete  -> {}
//	GET    /v1/vms/{id}/events?after=SEQ&limit=N -> []Event; with follow=true an SSE stream
//	GET    /v1/vms/{id}/boots           -> []Boot, oldest first
//	GET    /v1/vms/{id}/serial?channel=serial|stdout|stderr&tail=N&since=&until=&follow=&ansi=&timestamps= -> text stream
//	GET    /v1/vms/{id}/guest/info      -> guestapi.AppInfo      (proxied to the guest)
//	GET    /v1/vms/{id}/guest/containers-> guestapi.Containers
//	GET    /v1/vms/{id}/guest/logs/{container}?... -> as the guest's /logs
//	GET    /v1/vms/{id}/guest/sysinfo   -> guestapi.SysInfo
//	GET    /v1/vms/{id}/guest/evidence?nonce=hex -> guestapi.Evidence
const PathVMs = "/v1/vms/"

// States of a VM. While another try is planned after a failure the state is
// starting, with Error set and BootProgress saying when; failed is final until
// someone acts (start, restart, or a new app followed by either).
const (
	StateCreated  = "created" // defined, never started
	StateStarting = "starting"
	StateBooting  = "booting" // the guest agent is in its stages; see BootProgress
	StateRunning  = "running" // system-ready and compose is up
	StateStopping = "stopping"
	StateStopped  = "stopped"
	StateFailed   = "failed" // boot error or crash; Error says why
)

// Node is one host.
type Node struct {
	ID        string       `json:"id"`
	Name      string       `json:"name"`
	Driver    string       `json:"driver"` // qemu, container, dry
	Simulated bool         `json:"simulated"`
	DeviceID  cvm.DeviceID `json:"device_id"`
	Region    string       `json:"region,omitempty"`
	Capacity  Resources    `json:"capacity"`
	Used      Resources    `json:"used"`
	Warnings  []string     `json:"warnings,omitempty"`
	Draining  bool         `json:"draining,omitempty"` // takes no new VMs
	// Maintenance says why, while it is draining.
	Maintenance *Maintenance `json:"maintenance,omitempty"`

	GPUs     []NodeGPU     `json:"gpus,omitempty"`
	NUMA     []NodeNUMA    `json:"numa,omitempty"`
	Ports    *NodePorts    `json:"ports,omitempty"`
	Networks []NodeNetwork `json:"networks,omitempty"`
}

// Resources of a VM or node. Memory and disk in MiB, CPU in virtual CPUs.
type Resources struct {
	VCPU      int `json:"vcpu"`
	MemoryMiB int `json:"memory_mib"`
	DiskMiB   int `json:"disk_mib"`
}

// Image is a guest image on the node.
type Image struct {
	Name    string        `json:"name"`
	Hash    cvm.ImageHash `json:"hash"`
	Version string        `json:"version"`
	IsDev   bool          `json:"is_dev"`
}

// ImageChoice names another guest image for a VM.
type ImageChoice struct {
	Image string `json:"image"`
}

// Spec defines a VM. ID is chosen by the caller (uuid) so that creating is idempotent.
type Spec struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Image     string    `json:"image"` // image name; "" is the node's default
	Resources Resources `json:"resources"`
	AppID     cvm.AppID `json:"app_id"`
	App       App       `json:"app"`
	// KMSURLs and GatewayURLs go into the guest's sys-config (host-written, unmeasured).
	KMSURLs     []string `json:"kms_urls"`
	GatewayURLs []string `json:"gateway_urls"`
	// Restart says what to do when the VM crashes: "always" (default) or "never".
	Restart string `json:"restart,omitempty"`

	// Ports of the host that lead to the VM. Tenants' traffic comes through the
	// gateway; these are for infrastructure.
	Ports     []PortMap `json:"ports,omitempty"`
	Networks  []Network `json:"networks,omitempty"` // none: one card of the node's default mode
	GPUs      *GPUs     `json:"gpus,omitempty"`
	Volumes   []string  `json:"volumes,omitempty"` // names in the node's volumes directory
	PinNUMA   bool      `json:"pin_numa,omitempty"`
	Hugepages bool      `json:"hugepages,omitempty"`
	NoTEE     bool      `json:"no_tee,omitempty"`
	Limits    *Limits   `json:"limits,omitempty"`
}

// PortMap maps a port of the host.
type PortMap struct {
	Protocol    string   `json:"protocol"`               // tcp, udp
	HostAddress string   `json:"host_address,omitempty"` // "": the node's default
	HostPort    uint16   `json:"host_port"`
	VMPort      uint16   `json:"vm_port"`
	Allow       []string `json:"allow,omitempty"` // CIDRs that may connect; none: all
}

// Network is one network card.
type Network struct {
	Mode   string `json:"mode"` // user, bridge
	Bridge string `json:"bridge,omitempty"`
}

// GPUs of a VM: those in Slots (listed), every card of the node (all), or Count cards
// of Product which the node chooses at each start (count).
type GPUs struct {
	AttachMode string   `json:"attach_mode"`       // listed, all, count
	Slots      []string `json:"slots,omitempty"`   // PCI addresses
	Product    string   `json:"product,omitempty"` // vendor:device, as "10de:2335"
	Count      int      `json:"count,omitempty"`
}

// Limits of a running VM; 0 is no limit.
type Limits struct {
	DiskBytesPerSec int64 `json:"disk_bytes_per_sec,omitempty"`
	DiskIOPS        int64 `json:"disk_iops,omitempty"`
	NetBytesPerSec  int64 `json:"net_bytes_per_sec,omitempty"`
}

// App is what the host hands to the guest. None of it is secret in the clear.
type App struct {
	AppCompose   []byte        `json:"app_compose"` // exact bytes
	EncryptedEnv []byte        `json:"encrypted_env,omitempty"`
	EnvSignature *EnvSignature `json:"env_signature,omitempty"`
	UserConfig   []byte        `json:"user_config,omitempty"`
}

// EnvSignature travels beside the encrypted environment (T11); stored as
// .env-signature.json in the host-shared files.
type EnvSignature struct {
	Counter   uint64 `json:"counter"`
	Signer    string `json:"signer"`    // 0x-address
	Signature string `json:"signature"` // hex, 65 bytes
}

// VM is a VM's present state.
type VM struct {
	Spec       Spec           `json:"spec"`
	State      string         `json:"state"`
	Desired    string         `json:"desired"` // running or stopped
	InstanceID cvm.InstanceID `json:"instance_id"`
	// BootProgress is the guest agent's last stage ("3/9 requesting keys"); BootError
	// the reason a boot ended.
	BootProgress string    `json:"boot_progress,omitempty"`
	Error        *VMError  `json:"error,omitempty"`
	StartedAt    time.Time `json:"started_at,omitzero"`
	ReadyAt      time.Time `json:"ready_at,omitzero"`
	Restarts     int       `json:"restarts"`
	Boots        int       `json:"boots"`
	// Generation moves with each order and each change of the spec; it is the ETag.
	Generation int64 `json:"generation"`
	// Deleting: removal was ordered and goes on.
	Deleting   bool    `json:"deleting,omitempty"`
	LastUpdate *Update `json:"last_update,omitempty"`
}

// VMError is why a VM is not running; Reason is kmsapi's word when the KMS refused.
type VMError struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Stage   string `json:"stage,omitempty"`
	Fix     string `json:"fix,omitempty"`
}

// Event is one thing that happened to a VM; stored, never overwritten.
type Event struct {
	Seq     int64     `json:"seq"`
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"` // created, starting, boot.progress, boot.error, instance.info, ready, stopped, crashed, deleted, ...
	Message string    `json:"message"`
}
