package cloudapi

// CVMPatch is PATCH /cvms/{id}: what is absent stays as it is. Fields of the
// app-compose make a new compose hash, which a chain must allow first (465).
type CVMPatch struct {
	DockerComposeFile *string       `json:"docker_compose_file,omitempty" nullable:"true"`
	PreLaunchScript   *string       `json:"pre_launch_script,omitempty" nullable:"true" doc:"empty removes it"`
	AllowedEnvs       []string      `json:"allowed_envs,omitempty" nullable:"true"`
	PublicLogs        *bool         `json:"public_logs,omitempty" nullable:"true"`
	PublicSysinfo     *bool         `json:"public_sysinfo,omitempty" nullable:"true"`
	PublicTCBInfo     *bool         `json:"public_tcbinfo,omitempty" nullable:"true"`
	EncryptedEnv      *string       `json:"encrypted_env,omitempty" nullable:"true" doc:"hex"`
	EnvSignature      *EnvSignature `json:"env_signature,omitempty" doc:"ours"`
	UserConfig        *string       `json:"user_config,omitempty" nullable:"true"`
	GPUs              any           `json:"gpus,omitempty"`
	InstanceType      *string       `json:"instance_type,omitempty" nullable:"true"`
	VCPU              *int          `json:"vcpu,omitempty" nullable:"true"`
	Memory            *int          `json:"memory,omitempty" nullable:"true" doc:"MB"`
	DiskSize          *int          `json:"disk_size,omitempty" nullable:"true" doc:"GB; a disk does not shrink"`
	Image             *string       `json:"image,omitempty" nullable:"true"`
	ShutdownTimeout   *int          `json:"shutdown_timeout,omitempty" nullable:"true" doc:"seconds, 10 to 1200; the node's own grace period applies"`
	AllowForceStop    *bool         `json:"allow_force_stop,omitempty" nullable:"true" doc:"a guest that does not shut down in time is always stopped hard"`
}

// ResourcesPatch is PATCH /cvms/{id}/resources. AllowRestart is a boolean, or 0 or 1.
type ResourcesPatch struct {
	VCPU         *int    `json:"vcpu,omitempty" nullable:"true"`
	Memory       *int    `json:"memory,omitempty" nullable:"true" doc:"MB"`
	DiskSize     *int    `json:"disk_size,omitempty" nullable:"true" doc:"GB; a disk does not shrink"`
	InstanceType *string `json:"instance_type,omitempty" nullable:"true"`
	AllowRestart any     `json:"allow_restart,omitempty" doc:"false or 0 refuses to resize a running CVM"`
}

// VisibilityPatch is PATCH /cvms/{id}/visibility.
type VisibilityPatch struct {
	PublicSysinfo *bool `json:"public_sysinfo,omitempty" nullable:"true"`
	PublicLogs    *bool `json:"public_logs,omitempty" nullable:"true"`
	PublicTCBInfo *bool `json:"public_tcbinfo,omitempty" nullable:"true"`
}

// OSImagePatch is PATCH /cvms/{id}/os-image.
type OSImagePatch struct {
	OSImageName string `json:"os_image_name" doc:"name or slug from available-os-images"`
}

// NamePatch is PATCH /cvms/{id}/name.
type NamePatch struct {
	Name string `json:"name"`
}

// ListedPatch is PATCH /cvms/{id}/listed.
type ListedPatch struct {
	Listed bool `json:"listed"`
}

// ScheduledDelete is PATCH /cvms/{id}/scheduled-delete; null calls it off.
type ScheduledDelete struct {
	ScheduledDeleteAt *string `json:"scheduled_delete_at" nullable:"true" required:"true" doc:"RFC 3339; without a zone it is UTC"`
}

// ComposeReplace is POST /cvms/{id}/compose_file: a whole app-compose with the hash
// that the client computed.
type ComposeReplace struct {
	ComposeFile  any           `json:"compose_file"`
	ComposeHash  string        `json:"compose_hash"`
	EncryptedEnv *string       `json:"encrypted_env,omitempty" nullable:"true"`
	EnvKeys      []string      `json:"env_keys,omitempty" nullable:"true"`
	EnvSignature *EnvSignature `json:"env_signature,omitempty" doc:"ours"`
}

// ChainStatus is what the app's contract says now, at the chain's head.
type ChainStatus struct {
	ComposeHashAllowed bool `json:"compose_hash_allowed"`
	DeviceIDAllowed    bool `json:"device_id_allowed"`
	IsAllowed          bool `json:"is_allowed"`
}

// CommitRequest of a prepared change. An empty compose hash is the token's; an empty
// transaction hash or "already-registered" rests on the chain's state alone.
type CommitChange struct {
	Token           string `json:"token,omitempty" nullable:"true"`
	ComposeHash     string `json:"compose_hash,omitempty" nullable:"true"`
	TransactionHash string `json:"transaction_hash,omitempty" nullable:"true"`
}

// PreparedChange is GET /cvms/{id}/commit-update: what a token would commit.
type PreparedChange struct {
	CVMID       string       `json:"cvm_id"`
	CVMName     string       `json:"cvm_name"`
	AppID       string       `json:"app_id"`
	ComposeHash string       `json:"compose_hash"`
	DeviceID    *string      `json:"device_id"`
	KMSInfo     KMS          `json:"kms_info"`
	Status      string       `json:"status" enum:"waiting,committed,superseded,expired"`
	ExpiresAt   string       `json:"expires_at"`
	Onchain     *ChainStatus `json:"onchain_status" doc:"null: the chain cannot be read now"`
}

// ReplicaRequest is POST /cvms/{id}/replicas.
type ReplicaRequest struct {
	NodeID       int           `json:"node_id,omitempty" nullable:"true"`
	TeepodID     int           `json:"teepod_id,omitempty" nullable:"true" doc:"the same as node_id"`
	EncryptedEnv *string       `json:"encrypted_env,omitempty" nullable:"true" doc:"hex; without it the source's"`
	EnvSignature *EnvSignature `json:"env_signature,omitempty" doc:"ours"`
	ComposeHash  string        `json:"compose_hash,omitempty" nullable:"true" doc:"a revision of the app; needed when its CVMs run different ones"`
}

// InstanceRequest is POST /apps/{app_id}/instances: a new instance, or with a token
// the commit of a prepared one.
type InstanceRequest struct {
	ReplicaRequest
	DockerComposeFile *string `json:"docker_compose_file,omitempty" nullable:"true"`
	PreLaunchScript   *string `json:"pre_launch_script,omitempty" nullable:"true"`
	Token             string  `json:"token,omitempty" nullable:"true"`
	TransactionHash   string  `json:"transaction_hash,omitempty" nullable:"true"`
}

// AllowedRequest is POST .../is-allowed. For an app the compose hash is needed.
type AllowedRequest struct {
	ComposeHash string `json:"compose_hash,omitempty" nullable:"true"`
	NodeID      int    `json:"node_id,omitempty" nullable:"true"`
	DeviceID    string `json:"device_id,omitempty" nullable:"true"`
	ChainID     uint64 `json:"chain_id,omitempty" nullable:"true"`
}

// Allowed is its answer.
type Allowed struct {
	CVMID              int64   `json:"cvm_id,omitempty"`
	AppContractAddress string  `json:"app_contract_address"`
	ComposeHash        string  `json:"compose_hash"`
	DeviceID           string  `json:"device_id"`
	ComposeHashAllowed bool    `json:"compose_hash_allowed"`
	AllowAnyDevice     bool    `json:"allow_any_device"`
	DeviceIDAllowed    *bool   `json:"device_id_allowed"`
	IsAllowed          bool    `json:"is_allowed"`
	Error              *string `json:"error"`
}

// AllowedAll is POST /apps/{app_id}/cvms/is-allowed.
type AllowedAll struct {
	IsOnchain     bool      `json:"is_onchain"`
	Results       []Allowed `json:"results"`
	Total         int       `json:"total"`
	AllowedCount  int       `json:"allowed_count"`
	DeniedCount   int       `json:"denied_count"`
	ErrorCount    int       `json:"error_count"`
	SkippedCVMIDs []int64   `json:"skipped_cvm_ids"`
}

// DeviceAllowlist is GET /apps/{app_id}/device-allowlist.
type DeviceAllowlist struct {
	IsOnchainKMS       bool            `json:"is_onchain_kms"`
	AllowAnyDevice     *bool           `json:"allow_any_device"`
	ChainID            *uint64         `json:"chain_id"`
	AppContractAddress *string         `json:"app_contract_address"`
	Devices            []AllowedDevice `json:"devices"`
}

// AllowedDevice is one device of it.
type AllowedDevice struct {
	DeviceID       string  `json:"device_id"`
	NodeName       *string `json:"node_name"`
	CVMIDs         []int64 `json:"cvm_ids"`
	AllowedOnchain bool    `json:"allowed_onchain"`
	Status         string  `json:"status" enum:"allowed,not_allowed"`
}

// BatchStopRequest is POST /cvms/batch-stop.
type BatchStopRequest struct {
	CVMIDs []string `json:"cvm_ids" minItems:"1" maxItems:"50"`
}

// BatchStopped is its answer.
type BatchStopped struct {
	Total   int              `json:"total"`
	Stopped int              `json:"stopped"`
	Skipped int              `json:"skipped"`
	Errors  []BatchStopError `json:"errors"`
}

// BatchStopError is one CVM that was not stopped.
type BatchStopError struct {
	CVMID string `json:"cvm_id"`
	Error string `json:"error"`
}

// Operations is GET /cvms/{id}/operations, newest first.
type Operations struct {
	Items      []OperationRecord `json:"items"`
	NextCursor *string           `json:"next_cursor"`
	Total      int               `json:"total"`
}

// OperationRecord is one thing that was asked of a CVM and what came of it.
type OperationRecord struct {
	CorrelationID       string           `json:"correlation_id"`
	OperationType       string           `json:"operation_type"`
	TargetState         string           `json:"target_state"`
	TriggeredBy         int64            `json:"triggered_by"`
	TriggeredByUsername *string          `json:"triggered_by_username"`
	TriggeredByEmail    *string          `json:"triggered_by_email"`
	StartedAt           string           `json:"started_at"`
	CompletedAt         *string          `json:"completed_at"`
	DurationMS          *int64           `json:"duration_ms"`
	Status              string           `json:"status" enum:"completed,in_progress,failed,cancelled,superseded"`
	ErrorMessage        *string          `json:"error_message"`
	SubOperations       []string         `json:"sub_operations"`
	Events              []OperationEvent `json:"events"`
	InstanceName        string           `json:"instance_name"`
	ComposeHash         *string          `json:"compose_hash"`

	Generation int `json:"generation"` // ours
}

// OperationEvent is one event of an operation.
type OperationEvent struct {
	EventType string `json:"event_type"`
	Timestamp string `json:"timestamp"`
	State     string `json:"state"`
	Message   string `json:"message,omitempty"` // ours
}

// OperationStatus is GET /cvms/{id}/operation-status.
type OperationStatus struct {
	Status        string  `json:"status" enum:"idle,in_progress"`
	InProgress    bool    `json:"in_progress"`
	OperationType *string `json:"operation_type"`
	CorrelationID *string `json:"correlation_id"`
	StartedAt     *string `json:"started_at"`
	TargetState   *string `json:"target_state"`
}

// Cancelled is POST /cvms/{id}/operations/cancel.
type Cancelled struct {
	Cancelled     bool    `json:"cancelled"`
	CorrelationID *string `json:"correlation_id"`
}

// InstanceIDRequest is PATCH /cvms/{id}/instance-id.
type InstanceIDRequest struct {
	Overwrite bool `json:"overwrite,omitempty" nullable:"true"`
	DryRun    bool `json:"dry_run,omitempty" nullable:"true"`
}

// InstanceIDResult is its answer.
type InstanceIDResult struct {
	CVMID               int64   `json:"cvm_id"`
	Identifier          string  `json:"identifier"`
	Status              string  `json:"status" enum:"updated,unchanged,skipped,conflict,error"`
	OldInstanceID       *string `json:"old_instance_id"`
	NewInstanceID       *string `json:"new_instance_id"`
	Source              string  `json:"source" enum:"teepod_state,teepod_info,gateway,none"`
	VerifiedWithGateway bool    `json:"verified_with_gateway"`
	Reason              *string `json:"reason"`
}

// InstanceIDsRequest is PATCH /cvms/instance-ids.
type InstanceIDsRequest struct {
	CVMIDs      []string `json:"cvm_ids,omitempty" nullable:"true"`
	RunningOnly *bool    `json:"running_only,omitempty" nullable:"true" doc:"default true"`
	MissingOnly *bool    `json:"missing_only,omitempty" nullable:"true" doc:"default true"`
	Overwrite   bool     `json:"overwrite,omitempty" nullable:"true"`
	Limit       *int     `json:"limit,omitempty" nullable:"true" doc:"1 to 500, default 100"`
	DryRun      bool     `json:"dry_run,omitempty" nullable:"true"`
}

// InstanceIDsResult is its answer.
type InstanceIDsResult struct {
	Total     int                `json:"total"`
	Scanned   int                `json:"scanned"`
	Updated   int                `json:"updated"`
	Unchanged int                `json:"unchanged"`
	Skipped   int                `json:"skipped"`
	Conflicts int                `json:"conflicts"`
	Errors    int                `json:"errors"`
	Items     []InstanceIDResult `json:"items"`
}

// UserConfig is GET /cvms/{id}/user_config.
type UserConfig struct {
	Hostname             *string  `json:"hostname"`
	SSHAuthorizedKeys    []string `json:"ssh_authorized_keys"`
	DefaultGatewayDomain *string  `json:"default_gateway_domain"`
}

// AvailableImage is one version of GET /cvms/{id}/available-os-images.
type AvailableImage struct {
	Version []int         `json:"version"`
	Prod    *ImageVariant `json:"prod"`
	Dev     *ImageVariant `json:"dev"`
}

// ImageVariant is an image of a version.
type ImageVariant struct {
	Name        string  `json:"name"`
	Slug        string  `json:"slug"`
	OSImageHash *string `json:"os_image_hash"`
	IsCurrent   bool    `json:"is_current"`
}

// NextAppIDs is GET /kms/phala/next_app_id.
type NextAppIDs struct {
	AppIDs []NextAppID `json:"app_ids"`
}

// NextAppID is one of them.
type NextAppID struct {
	AppID string `json:"app_id"`
	Nonce int64  `json:"nonce"`
}
