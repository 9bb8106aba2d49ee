package cloudapi

// CVMInfo is a CVM (2026-01-21). The detail has ComposeFile beside it.
type CVMInfo struct {
	ID            string        `json:"id" doc:"cvm_..."`
	Name          string        `json:"name"`
	AppID         *string       `json:"app_id"`
	VMUUID        *string       `json:"vm_uuid"`
	InstanceID    *string       `json:"instance_id"`
	Resource      Resource      `json:"resource"`
	NodeInfo      *NodeRef      `json:"node_info"`
	OS            *OSInfo       `json:"os"`
	KMSType       *string       `json:"kms_type"`
	KMSInfo       *CVMKMSInfo   `json:"kms_info"`
	Status        string        `json:"status"`
	Progress      *Progress     `json:"progress"`
	ComposeHash   *string       `json:"compose_hash"`
	Gateway       Gateway       `json:"gateway"`
	Services      []any         `json:"services"`
	Endpoints     []Endpoint    `json:"endpoints"`
	PublicLogs    bool          `json:"public_logs"`
	PublicSysinfo bool          `json:"public_sysinfo"`
	PublicTCBInfo bool          `json:"public_tcbinfo"`
	GatewayOn     bool          `json:"gateway_enabled"`
	SecureTime    bool          `json:"secure_time"`
	Listed        bool          `json:"listed"`
	StorageFS     string        `json:"storage_fs,omitempty"`
	Workspace     *WorkspaceRef `json:"workspace"`
	Creator       *UserRef      `json:"creator"`

	CreatedAt    string    `json:"created_at"`              // ours
	UpdatedAt    string    `json:"updated_at"`              // ours
	BootProgress string    `json:"boot_progress,omitempty"` // ours
	Error        *CVMError `json:"error,omitempty"`         // ours
	Generation   int       `json:"generation"`              // ours: grows with every operation
	EnvCounter   uint64    `json:"env_counter"`             // ours: of the present environment; sign the next with more
	EnvSigned    bool      `json:"env_signed"`              // ours: false and HasEnv = UNSIGNED ENV
	HasEnv       bool      `json:"has_env"`                 // ours
	Simulated    bool      `json:"simulated"`               // ours: the node has no TEE
}

// CVMDetail is GET /cvms/{id} (2026-01-21).
type CVMDetail struct {
	CVMInfo
	ComposeFile any `json:"compose_file"`
}

// Resource is what a CVM uses.
type Resource struct {
	InstanceType        *string  `json:"instance_type"`
	VCPU                *int     `json:"vcpu"`
	MemoryInGB          *float64 `json:"memory_in_gb"`
	DiskInGB            *int     `json:"disk_in_gb"`
	GPUs                *int     `json:"gpus"`
	ComputeBillingPrice *string  `json:"compute_billing_price"`
	BillingPeriod       *string  `json:"billing_period"`
}

// OSInfo is the guest image.
type OSInfo struct {
	Name        *string `json:"name"`
	Version     *string `json:"version"`
	OSImageHash *string `json:"os_image_hash"`
	IsDev       *bool   `json:"is_dev"`
}

// CVMKMSInfo is the CVM's view of its KMS.
type CVMKMSInfo struct {
	ChainID            *uint64 `json:"chain_id"`
	DstackKMSAddress   *string `json:"dstack_kms_address"`
	DstackAppAddress   *string `json:"dstack_app_address"`
	DeployerAddress    *string `json:"deployer_address"`
	RPCEndpoint        *string `json:"rpc_endpoint"`
	EncryptedEnvPubkey *string `json:"encrypted_env_pubkey"`
}

// Progress is set while an operation runs; a non-empty target means busy.
type Progress struct {
	Target        *string `json:"target"`
	StartedAt     *string `json:"started_at"`
	CorrelationID *string `json:"correlation_id"`
}

// Gateway is where the app is reached; BaseDomain may carry ":port".
type Gateway struct {
	BaseDomain *string `json:"base_domain"`
	CNAME      *string `json:"cname"`
}

// Endpoint is one published port's URLs.
type Endpoint struct {
	App      string `json:"app"`
	Instance string `json:"instance"`
}

// WorkspaceRef names a workspace.
type WorkspaceRef struct {
	ObjectType string  `json:"object_type" enum:"workspace"`
	ID         string  `json:"id"`
	Name       string  `json:"name"`
	Slug       *string `json:"slug"`
	AvatarURL  *string `json:"avatar_url"`
}

// UserRef names a user.
type UserRef struct {
	ObjectType string  `json:"object_type" enum:"user"`
	ID         *string `json:"id"`
	Username   *string `json:"username"`
	AvatarURL  *string `json:"avatar_url"`
}

// State is GET /cvms/{id}/state: what has no value is absent.
type State struct {
	ID               string    `json:"id,omitempty"`
	InstanceID       string    `json:"instance_id,omitempty"`
	Name             string    `json:"name"`
	Status           string    `json:"status"`
	Uptime           string    `json:"uptime,omitempty"`
	ExitedAt         string    `json:"exited_at,omitempty"`
	BootProgress     string    `json:"boot_progress,omitempty"`
	BootError        string    `json:"boot_error,omitempty"`
	ShutdownProgress string    `json:"shutdown_progress,omitempty"`
	Error            *CVMError `json:"error,omitempty"` // ours
}

// Container is one container of the app. Created in unix seconds.
type Container struct {
	ID          string   `json:"id"`
	Names       []string `json:"names"`
	Image       string   `json:"image"`
	ImageID     string   `json:"image_id"`
	Command     *string  `json:"command"`
	Created     int64    `json:"created"`
	State       string   `json:"state"`
	Status      string   `json:"status"`
	LogEndpoint *string  `json:"log_endpoint"`
}

// Composition is GET /cvms/{id}/composition (also /containers).
type Composition struct {
	IsOnline          bool        `json:"is_online"`
	IsPublic          bool        `json:"is_public"`
	Error             *string     `json:"error"`
	DockerComposeFile *string     `json:"docker_compose_file"`
	ManifestVersion   *int        `json:"manifest_version"`
	Version           *string     `json:"version"`
	Runner            *string     `json:"runner"`
	Features          []string    `json:"features"`
	Containers        []Container `json:"containers"`
	Images            []ImageUse  `json:"images,omitempty"`
}

// ImageUse says how a service of the compose file names its image: Pinned is by
// digest, so the compose hash says what runs.
type ImageUse struct {
	Service string `json:"service"`
	Image   string `json:"image"`
	Pinned  bool   `json:"pinned"`
	Built   bool   `json:"built,omitempty"` // in the CVM
}

// Stats is GET /cvms/{id}/stats. Sysinfo in bytes, load times 100.
type Stats struct {
	IsOnline     bool     `json:"is_online"`
	IsPublic     bool     `json:"is_public"`
	Error        *string  `json:"error"`
	Sysinfo      *Sysinfo `json:"sysinfo"`
	Status       *string  `json:"status"`
	InProgress   bool     `json:"in_progress"`
	BootProgress *string  `json:"boot_progress"`
	BootError    *string  `json:"boot_error"`
}

// Sysinfo is the guest's view of itself.
type Sysinfo struct {
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

// Network is GET /cvms/{id}/network.
type Network struct {
	IsOnline        bool       `json:"is_online"`
	IsPublic        bool       `json:"is_public"`
	Error           *string    `json:"error"`
	InternalIP      *string    `json:"internal_ip"`
	LatestHandshake *string    `json:"latest_handshake"`
	PublicURLs      []Endpoint `json:"public_urls"`
}

// Attestation is GET /cvms/{id}/attestation: a summary for people and existing
// clients. It is relayed by the cloud and proves nothing by itself; phala verify
// asks the app directly. Evidence is the guest's own answer, when ?nonce= was given.
type Attestation struct {
	Name            *string       `json:"name"`
	IsOnline        bool          `json:"is_online"`
	IsPublic        bool          `json:"is_public"`
	Error           *string       `json:"error"`
	AppCertificates []Certificate `json:"app_certificates"`
	TCBInfo         *TCBInfo      `json:"tcb_info"`
	ComposeFile     *string       `json:"compose_file"`

	Evidence  any  `json:"evidence,omitempty"`  // ours: guestapi.Evidence
	Simulated bool `json:"simulated,omitempty"` // ours
}

// TCBInfo is the guest's registers and runtime events, hex.
type TCBInfo struct {
	MRTD       string     `json:"mrtd"`
	RootfsHash *string    `json:"rootfs_hash"`
	RTMR0      string     `json:"rtmr0"`
	RTMR1      string     `json:"rtmr1"`
	RTMR2      string     `json:"rtmr2"`
	RTMR3      string     `json:"rtmr3"`
	EventLog   []LogEvent `json:"event_log"`
	AppCompose string     `json:"app_compose"`
}

// LogEvent is one event of the log.
type LogEvent struct {
	IMR          int    `json:"imr"`
	EventType    uint32 `json:"event_type"`
	Digest       string `json:"digest"`
	Event        string `json:"event"`
	EventPayload string `json:"event_payload"`
}

// Certificate is one certificate of the app's chain.
type Certificate struct {
	Subject            CertName `json:"subject"`
	Issuer             CertName `json:"issuer"`
	SerialNumber       string   `json:"serial_number"`
	NotBefore          string   `json:"not_before"`
	NotAfter           string   `json:"not_after"`
	Version            string   `json:"version"`
	Fingerprint        string   `json:"fingerprint"`
	SignatureAlgorithm string   `json:"signature_algorithm"`
	SANs               []string `json:"sans"`
	IsCA               bool     `json:"is_ca"`
	PositionInChain    *int     `json:"position_in_chain"`
	Quote              *string  `json:"quote"`
	AppID              *string  `json:"app_id"`
	CertUsage          *string  `json:"cert_usage"`
}

// CertName is a distinguished name.
type CertName struct {
	CommonName   *string `json:"common_name"`
	Organization *string `json:"organization"`
	Country      *string `json:"country"`
	State        *string `json:"state"`
	Locality     *string `json:"locality"`
}

// StatusBatchRequest is POST /status/batch.
type StatusBatchRequest struct {
	VMUUIDs []string `json:"vm_uuids" maxItems:"100"`
}

// BatchStatus is one CVM's status in the answer, keyed by the string that was sent.
type BatchStatus struct {
	VMUUID             string  `json:"vm_uuid"`
	Status             string  `json:"status"`
	Uptime             *string `json:"uptime"`
	InProgress         bool    `json:"in_progress"`
	BootProgress       *string `json:"boot_progress"`
	BootError          *string `json:"boot_error"`
	OperationType      *string `json:"operation_type"`
	OperationStartedAt *string `json:"operation_started_at"`
	CorrelationID      *string `json:"correlation_id"`
}

// App is an app with its CVMs (2026-01-21).
type App struct {
	ID               string    `json:"id"`
	Name             string    `json:"name"`
	AppID            string    `json:"app_id"`
	AppProvisionType *string   `json:"app_provision_type"`
	AppIconURL       *string   `json:"app_icon_url"`
	CreatedAt        string    `json:"created_at"`
	KMSType          string    `json:"kms_type"`
	CurrentCVM       *CVMInfo  `json:"current_cvm"`
	CVMs             []CVMInfo `json:"cvms"`
	CVMCount         int       `json:"cvm_count"`
}

// Apps is GET /apps.
type Apps struct {
	DstackApps []App `json:"dstack_apps"`
	Page       int   `json:"page"`
	PageSize   int   `json:"page_size"`
	Total      int   `json:"total"`
	TotalPages int   `json:"total_pages"`
}

// Revision is one app-compose an app has run.
type Revision struct {
	RevisionID    string        `json:"revision_id"`
	AppID         string        `json:"app_id"`
	VMUUID        string        `json:"vm_uuid"`
	ComposeHash   string        `json:"compose_hash"`
	CreatedAt     string        `json:"created_at"`
	TraceID       *string       `json:"trace_id"`
	OperationType string        `json:"operation_type"`
	TriggeredBy   *UserRef      `json:"triggered_by"`
	CVM           *CVMRef       `json:"cvm"`
	Workspace     *WorkspaceRef `json:"workspace"`
}

// CVMRef names a CVM.
type CVMRef struct {
	ObjectType string  `json:"object_type" enum:"cvm"`
	ID         *string `json:"id"`
	Name       *string `json:"name"`
	AppID      *string `json:"app_id"`
	VMUUID     *string `json:"vm_uuid"`
}

// Revisions is GET /apps/{app}/revisions.
type Revisions struct {
	Revisions  []Revision `json:"revisions"`
	Total      int        `json:"total"`
	Page       int        `json:"page"`
	PageSize   int        `json:"page_size"`
	TotalPages int        `json:"total_pages"`
}
