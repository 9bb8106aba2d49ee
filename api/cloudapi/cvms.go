package cloudapi

// ProvisionRequest is POST /cvms/provision: it reserves nothing and starts
// nothing; it answers with the hash of the exact app-compose bytes.
type ProvisionRequest struct {
	Name         string `json:"name" doc:"5 to 63 characters: a letter, then letters, digits and single dashes"`
	InstanceType string `json:"instance_type,omitempty" nullable:"true"`
	VCPU         int    `json:"vcpu,omitempty" nullable:"true" doc:"instead of instance_type"`
	Memory       int    `json:"memory,omitempty" nullable:"true" doc:"MB"`
	DiskSize     int    `json:"disk_size,omitempty" nullable:"true" doc:"GB"`
	TeepodID     int    `json:"teepod_id,omitempty" nullable:"true"`
	NodeID       int    `json:"node_id,omitempty" nullable:"true" doc:"the same as teepod_id"`
	Region       string `json:"region,omitempty" nullable:"true"`
	Image        string `json:"image,omitempty" nullable:"true"`
	// ComposeFile is an app-compose object. With manifest_version in it (our CLI) it
	// is taken as a whole document: only an empty name and a missing key_provider_id
	// are filled in. Without (existing SDKs) the contract's defaults are added. The
	// server's bytes are appcompose.Canonical of the result. Send json.RawMessage.
	ComposeFile any      `json:"compose_file" doc:"app-compose object"`
	Listed      bool     `json:"listed,omitempty" nullable:"true"`
	KMS         string   `json:"kms,omitempty" nullable:"true" doc:"phala, ethereum, base or a KMS id; one KMS per cloud today"`
	KMSID       string   `json:"kms_id,omitempty" nullable:"true"`
	PreferDev   *bool    `json:"prefer_dev,omitempty" nullable:"true" doc:"true, and no image: a development image, of the default image's version if there is one, else the newest"`
	AppID       string   `json:"app_id,omitempty" nullable:"true"`
	EnvKeys     []string `json:"env_keys,omitempty" nullable:"true"`
	// MinConfidence (ours) is how sure it must be that VMs of the node are confidential.
	MinConfidence string `json:"min_confidence,omitempty" nullable:"true" enum:"simulated,unverified,genuine,"`
}

// Provisioned is its answer. AppID is null where a chain gives app ids: register
// the app at KMSInfo's contract with ComposeHash and DeviceID.
type Provisioned struct {
	AppID               *string `json:"app_id"`
	AppEnvEncryptPubkey *string `json:"app_env_encrypt_pubkey"`
	ComposeHash         string  `json:"compose_hash"`
	KMSInfo             *KMS    `json:"kms_info"`
	FMSPC               *string `json:"fmspc"`
	DeviceID            *string `json:"device_id"`
	OSImageHash         *string `json:"os_image_hash"`
	InstanceType        *string `json:"instance_type"`
	KMSID               *string `json:"kms_id"`
	TeepodID            *int    `json:"teepod_id"`
	NodeID              *int    `json:"node_id"`

	AppCompose string   `json:"app_compose"`         // ours: the exact bytes
	Placement  string   `json:"placement,omitempty"` // ours: why this node
	Warnings   []string `json:"warnings,omitempty"`
}

// CommitRequest is POST /cvms: it creates the CVM that a provision described.
type CommitRequest struct {
	AppID           string   `json:"app_id" doc:"40 hex digits, 0x allowed"`
	ComposeHash     string   `json:"compose_hash"`
	EncryptedEnv    string   `json:"encrypted_env,omitempty" nullable:"true" doc:"hex"`
	EnvKeys         []string `json:"env_keys,omitempty" nullable:"true"`
	KMSID           string   `json:"kms_id,omitempty" nullable:"true"`
	ContractAddress string   `json:"contract_address,omitempty" nullable:"true"`
	DeployerAddress string   `json:"deployer_address,omitempty" nullable:"true"`
	// EnvSignature is ours. Where the app-compose names env_signers it is required.
	EnvSignature *EnvSignature `json:"env_signature,omitempty"`
}

// TeepodRef names a node in VM.
type TeepodRef struct {
	ID               int     `json:"id"`
	Name             string  `json:"name"`
	RegionIdentifier *string `json:"region_identifier"`
}

// VM is a CVM as power, commit and replica calls return it. Memory in MB, disk in GB.
type VM struct {
	ID                     int64      `json:"id"`
	Name                   string     `json:"name"`
	Status                 string     `json:"status"`
	TeepodID               int        `json:"teepod_id"`
	Teepod                 *TeepodRef `json:"teepod"`
	UserID                 *int64     `json:"user_id"`
	AppID                  string     `json:"app_id"`
	VMUUID                 *string    `json:"vm_uuid"`
	InstanceID             *string    `json:"instance_id"`
	AppURL                 *string    `json:"app_url"`
	BaseImage              *string    `json:"base_image"`
	VCPU                   int        `json:"vcpu"`
	Memory                 int        `json:"memory"`
	DiskSize               int        `json:"disk_size"`
	ManifestVersion        *int       `json:"manifest_version"`
	Version                *string    `json:"version"`
	Runner                 *string    `json:"runner"`
	DockerComposeFile      *string    `json:"docker_compose_file"`
	Features               []string   `json:"features"`
	CreatedAt              string     `json:"created_at"`
	EncryptedEnvPubkey     *string    `json:"encrypted_env_pubkey"`
	AppAuthContractAddress *string    `json:"app_auth_contract_address"`
	DeployerAddress        *string    `json:"deployer_address"`

	Generation int   `json:"generation"` // ours: the operation this call started
	EventSeq   int64 `json:"event_seq"`  // ours: follow progress after this event
}

// ComposeProvisioned is the answer of POST /cvms/{id}/compose_file/provision. The
// request's body is an app-compose object, read as ProvisionRequest.ComposeFile is
// (a document without manifest_version is laid over the CVM's present one).
type ComposeProvisioned struct {
	AppID                 *string `json:"app_id"`
	DeviceID              *string `json:"device_id"`
	ComposeHash           string  `json:"compose_hash"`
	KMSInfo               *KMS    `json:"kms_info"`
	ComposeHashRegistered *bool   `json:"compose_hash_registered,omitempty"`

	AppCompose string `json:"app_compose"` // ours: the exact bytes
	Changed    bool   `json:"changed"`     // ours: differs from what runs
}

// ComposeUpdate is PATCH /cvms/{id}/compose_file. Without EncryptedEnv the
// environment stays as it is.
type ComposeUpdate struct {
	ComposeHash   string        `json:"compose_hash"`
	EncryptedEnv  string        `json:"encrypted_env,omitempty" nullable:"true"`
	EnvKeys       []string      `json:"env_keys,omitempty" nullable:"true"`
	UpdateEnvVars *bool         `json:"update_env_vars,omitempty" nullable:"true"`
	EnvSignature  *EnvSignature `json:"env_signature,omitempty"`
}

// EnvsUpdate is PATCH /cvms/{id}/envs: it replaces the whole environment.
type EnvsUpdate struct {
	EncryptedEnv    string        `json:"encrypted_env"`
	EnvKeys         []string      `json:"env_keys,omitempty" nullable:"true"`
	ComposeHash     string        `json:"compose_hash,omitempty" nullable:"true"`
	TransactionHash string        `json:"transaction_hash,omitempty" nullable:"true"`
	EnvSignature    *EnvSignature `json:"env_signature,omitempty"`
}

// Accepted answers updates: the work is a job; follow it by progress or state.
type Accepted struct {
	Status             string `json:"status"`
	Message            string `json:"message"`
	CorrelationID      string `json:"correlation_id"`
	AllowedEnvsChanged bool   `json:"allowed_envs_changed"`

	Generation int   `json:"generation"` // ours
	EventSeq   int64 `json:"event_seq"`  // ours
}

// Restart is POST /cvms/{id}/restart.
type Restart struct {
	Force bool `json:"force,omitempty"`
}
