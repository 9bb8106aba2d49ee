// Package guestapi holds the wire types of the guest agent that other services
// read: the host-side guest API, the public evidence of a running app, and the
// parts of dstack.sock that the gateway uses. The reference's own formats
// (dstack.sock, tappd.sock, port 8090) are spoken exactly as they are there.
package guestapi

import (
	"crypto/sha256"
	"crypto/sha512"
	"time"

	"github.com/confidential-cloud/phala/ledger"
)

// Sockets and ports inside a guest.
const (
	DstackSock   = "/var/run/dstack.sock"
	TappdSock    = "/var/run/tappd.sock"
	ExternalPort = 8090
	// WireGuardPort is the guest's own UDP port; the gateway's endpoint comes from registration.
	WireGuardPort = 9182
)

// StopWithin is how long a guest that was asked to stop may take: its containers
// get 20 s together, then its engine. A host that kills it earlier may cut an app
// off while it writes.
const StopWithin = 45 * time.Second

// DataDir is where the VM's state disk is: the container driver mounts the
// instance's volume there, a real guest its opened data disk. Docker's data root,
// named volumes and the app's directory live below it.
const DataDir = "/var/lib/phala"

// In the container driver PID 1 starts in its own cgroup namespace, with
// /sys/fs/cgroup (v2) or each /sys/fs/cgroup/* (v1) mounted read-only. Before
// dockerd it must remount each of them with MS_REMOUNT|MS_BIND|MS_NOSUID|MS_NODEV|
// MS_NOEXEC and without MS_RDONLY (checked; a plain remount is "busy"), so that the
// instance's limits hold for the containers inside; /proc/sys likewise. On v2 it
// also moves itself into a child group and enables the controllers. /run and /tmp
// are tmpfs. SIGTERM asks PID 1 to stop as /v1/shutdown does.

// Files and sockets the host and the guest share. The host side of RunDir is
// writable by both; SharedDir is read-only for the guest. Nothing in them is
// believed: it is measured, checked against something measured, or ignored.
const (
	SharedDir = "/run/phala/host-shared" // app-compose.json .sys-config.json .instance_info .encrypted-env .env-signature.json .user-config
	RunDir    = "/run/phala/vm"
	TEESock   = RunDir + "/tee.sock"   // the simulated TEE (container driver): attest/simtee's device protocol
	HostSock  = RunDir + "/host.sock"  // served by the VMM: POST /api/Notify {event,payload}, GET /api/Info
	GuestSock = RunDir + "/guest.sock" // served by the guest agent: the guest API below
)

// Guest API (GuestSock), host -> guest:
//
//	GET  /v1/info               -> AppInfo (reference shape, C.4)
//	GET  /v1/boot               -> Boot     how far this boot is; the VMM asks after its own restart
//	GET  /v1/containers         -> Containers
//	GET  /v1/sysinfo            -> SysInfo
//	GET  /v1/network            -> NetworkInfo
//	GET  /v1/evidence?nonce=hex -> Evidence
//	GET  /v1/logs/{container}?since&until&tail&follow&timestamps&text -> as the reference's /logs
//	POST /v1/shutdown           -> {}   stops compose, unmounts, exits
//	POST /v1/prepare {"app_compose":"..."} -> lines of PullProgress (NDJSON), the last one
//	     with state "ready" or with an error; pulls what the document would run, changes
//	     nothing that runs
type Containers struct {
	Containers []Container `json:"containers"`
	Images     []ImageUse  `json:"images,omitempty"` // of the compose file, by service
}

// ImageUse says how a service names its image.
type ImageUse struct {
	Service string `json:"service"`
	Image   string `json:"image"`
	Pinned  bool   `json:"pinned"`          // by digest: part of the measurement
	Built   bool   `json:"built,omitempty"` // built in the guest
}

// PrepareRequest is what POST /v1/prepare takes: the exact bytes of an app-compose.
type PrepareRequest struct {
	AppCompose string `json:"app_compose"`
}

// PullProgress is one line of a pull. State is pulling, done, depends-on-environment,
// and at the end ready, or failed with the other three. Done and Total are bytes of
// the layers announced so far: Total grows.
type PullProgress struct {
	Image  string `json:"image,omitempty"`
	State  string `json:"state"`
	Done   int64  `json:"done"`
	Total  int64  `json:"total"`
	Error  string `json:"error,omitempty"`
	Reason string `json:"reason,omitempty"`
	Fix    string `json:"fix,omitempty"`
}

// Boot is how far the present boot came: what a VMM that was away has missed.
type Boot struct {
	Progress string `json:"progress"`           // the last boot.progress text
	Ready    bool   `json:"ready"`              // "ready" was notified
	Instance string `json:"instance,omitempty"` // last instance.info payload
}

// Container is one container of the app (ListContainers of the reference).
type Container struct {
	ID      string   `json:"id"`
	Names   []string `json:"names"`
	Image   string   `json:"image"`
	ImageID string   `json:"image_id"`
	Created int64    `json:"created"` // unix seconds
	State   string   `json:"state"`
	Status  string   `json:"status"`
	Ports   []int    `json:"ports,omitempty"` // published host ports
}

// SysInfo is the reference's, sizes in bytes, load x 100.
type SysInfo struct {
	OSName          string `json:"os_name"`
	OSVersion       string `json:"os_version"`
	KernelVersion   string `json:"kernel_version"`
	CPUModel        string `json:"cpu_model"`
	NumCPUs         uint32 `json:"num_cpus"`
	TotalMemory     uint64 `json:"total_memory"`
	AvailableMemory uint64 `json:"available_memory"`
	UsedMemory      uint64 `json:"used_memory"`
	FreeMemory      uint64 `json:"free_memory"`
	TotalSwap       uint64 `json:"total_swap"`
	UsedSwap        uint64 `json:"used_swap"`
	FreeSwap        uint64 `json:"free_swap"`
	Uptime          uint64 `json:"uptime"`
	LoadavgOne      uint32 `json:"loadavg_one"`
	LoadavgFive     uint32 `json:"loadavg_five"`
	LoadavgFifteen  uint32 `json:"loadavg_fifteen"`
	Disks           []Disk `json:"disks"`
}

// Disk is one mounted disk, bytes.
type Disk struct {
	Name       string `json:"name"`
	MountPoint string `json:"mount_point"`
	TotalSize  uint64 `json:"total_size"`
	FreeSize   uint64 `json:"free_size"`
}

// NetworkInfo is how the guest is connected (GuestApi of the reference).
type NetworkInfo struct {
	DNSServers []string    `json:"dns_servers"`
	Gateways   []Gateway   `json:"gateways"`
	Interfaces []Interface `json:"interfaces"`
	WGInfo     string      `json:"wg_info"` // always "": the tunnel is a process, not a card
}

// Gateway is that of a default route.
type Gateway struct {
	Address string `json:"address"`
}

// Interface is one network card, with its counters since it is there.
type Interface struct {
	Name      string      `json:"name"`
	Addresses []IPAddress `json:"addresses"`
	RxBytes   uint64      `json:"rx_bytes"`
	TxBytes   uint64      `json:"tx_bytes"`
	RxErrors  uint64      `json:"rx_errors"`
	TxErrors  uint64      `json:"tx_errors"`
}

// IPAddress of a card and the length of its network's prefix, in bits.
type IPAddress struct {
	Address string `json:"address"`
	Prefix  int    `json:"prefix"`
}

// Evidence is what a running guest shows to anyone who asks with a nonce: served
// on the guest API and, for verifiers, on port 8090 as GET /evidence?nonce=hex
// (reached as https://<app>-8090.<base>/evidence). The quote's report_data is
// ReportDataEvidence(nonce, Evidence.Bound).
type Evidence struct {
	Attestation []byte         `json:"attestation"` // attest.Evidence encoding, phase running
	AppCompose  string         `json:"app_compose"` // exact bytes
	KMSRootCA   string         `json:"kms_root_ca"` // PEM, as pinned by key_provider_id
	KMSURLs     []string       `json:"kms_urls"`
	Receipt     ledger.Receipt `json:"receipt"`         // of the release that started this boot
	Bound       []byte         `json:"bound,omitempty"` // what else report_data binds (the gateway: SPKI of its TLS key)
	EnvSigned   bool           `json:"env_signed"`
	HasEnv      bool           `json:"has_env"`
}

// ReportDataEvidence is the 64 bytes of an evidence quote. bound may be empty.
func ReportDataEvidence(nonce, bound []byte) [64]byte {
	n, b := sha256.Sum256(nonce), sha256.Sum256(bound)
	return sha512.Sum512(append(append([]byte("phala-evidence:v1:"), n[:]...), b[:]...))
}

// Extension of dstack.sock (ours, for services that live in a guest):
//
//	POST /v1/Evidence {"nonce":base64,"bound":base64} -> Evidence
//	GET  /v1/KMS -> KMSInfo
//	GET  /v1/KeyRequests -> []KeyRequests
type EvidenceRequest struct {
	Nonce []byte `json:"nonce"`
	Bound []byte `json:"bound"`
}

// KeyRequests counts what a service asked its socket for since the boot. Service is
// "" where services share a socket; Path is the rule of the socket policy that
// covered the path; Path and Purpose are "other" where the policy does not name them.
type KeyRequests struct {
	Service string `json:"service"`
	Method  string `json:"method"`
	Path    string `json:"path"`
	Purpose string `json:"purpose"`
	Outcome string `json:"outcome"` // ok, refused, error
	Count   uint64 `json:"count"`
}

// KMSInfo is what the guest learned over its pinned KMS channel.
type KMSInfo struct {
	URLs         []string `json:"urls"`
	RootCA       string   `json:"root_ca"`    // PEM
	RootSPKI     string   `json:"root_spki"`  // hex DER
	TicketKey    []byte   `json:"ticket_key"` // ed25519: verifies route tickets
	GatewayAppID string   `json:"gateway_app_id"`
	AppID        string   `json:"app_id"`
	Simulated    bool     `json:"simulated"`
}

// Notify is a guest -> host message. Events: boot.progress (text "3/9 requesting
// keys"), boot.error (JSON of vmmapi.VMError), instance.info (JSON of
// .instance_info), ready, shutdown.progress, images (JSON of []ImageUse: a warning
// where one is not pinned).
type Notify struct {
	Event   string `json:"event"`
	Payload string `json:"payload"`
}

// SysConfig is .sys-config.json (host-written, unmeasured), reference names. A key that
// is not here is an error in the guest.
type SysConfig struct {
	KMSURLs            []string       `json:"kms_urls"`
	GatewayURLs        []string       `json:"gateway_urls"`
	PCCSURL            string         `json:"pccs_url,omitempty"`
	CollateralURLs     map[string]any `json:"collateral_urls,omitempty"`
	DockerRegistry     string         `json:"docker_registry,omitempty"`     // mirror for docker.io, "http://ip:port"
	InsecureRegistries []string       `json:"insecure_registries,omitempty"` // ours: private IP literals only
	HostAPIURL         string         `json:"host_api_url,omitempty"`
	// MRConfig is on SEV-SNP the document (a string) that HOST_DATA is the hash of; elsewhere
	// it is not used.
	MRConfig any `json:"mr_config,omitempty"`
	// What the reference's hosts also write; this guest does not use it.
	TproxyURLs  []string `json:"tproxy_urls,omitempty"` // old name of gateway_urls
	NvidiaProxy string   `json:"nvidia_attestation_proxy_url,omitempty"`
	VMConfig    string   `json:"vm_config"` // JSON string (A.7)
}

// InstanceInfo is .instance_info.
type InstanceInfo struct {
	Seed       string `json:"instance_id_seed"` // hex, 20 bytes
	InstanceID string `json:"instance_id"`      // hex or ""
	AppID      string `json:"app_id"`           // hex
}
