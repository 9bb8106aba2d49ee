package cloudapi

// LegacyCreate is POST /cvms/from_cvm_configuration, and without its last three
// fields POST /cvms/pubkey/from_cvm_configuration: what `phala cvms create` sends.
type LegacyCreate struct {
	TeepodID            int            `json:"teepod_id,omitempty" nullable:"true"`
	Name                string         `json:"name"`
	Image               string         `json:"image,omitempty" nullable:"true"`
	VCPU                int            `json:"vcpu,omitempty" nullable:"true"`
	Memory              int            `json:"memory,omitempty" nullable:"true" doc:"MB"`
	DiskSize            int            `json:"disk_size,omitempty" nullable:"true" doc:"GB"`
	Listed              bool           `json:"listed,omitempty" nullable:"true"`
	ComposeManifest     LegacyManifest `json:"compose_manifest"`
	EncryptedEnv        string         `json:"encrypted_env,omitempty" nullable:"true" doc:"hex"`
	AppEnvEncryptPubkey string         `json:"app_env_encrypt_pubkey,omitempty" nullable:"true"`
	AppIDSalt           string         `json:"app_id_salt,omitempty" nullable:"true" doc:"of the pubkey's answer"`
}

// LegacyManifest is the old app-compose. Its form version is not read: the document
// is made anew.
type LegacyManifest struct {
	DockerComposeFile string        `json:"docker_compose_file"`
	DockerConfig      *DockerConfig `json:"docker_config,omitempty" doc:"must be empty: an app-compose is public"`
	AllowedEnvs       []string      `json:"allowed_envs,omitempty" nullable:"true"`
	PreLaunchScript   *string       `json:"pre_launch_script,omitempty" nullable:"true"`
	PublicLogs        *bool         `json:"public_logs,omitempty" nullable:"true"`
	PublicSysinfo     *bool         `json:"public_sysinfo,omitempty" nullable:"true"`
	Runner            string        `json:"runner,omitempty" nullable:"true" enum:"docker-compose,"`
}

// DockerConfig is a login to a registry.
type DockerConfig struct {
	URL      string `json:"url,omitempty" nullable:"true"`
	Username string `json:"username,omitempty" nullable:"true"`
	Password string `json:"password,omitempty" nullable:"true"`
}

// LegacyKey is the answer of the pubkey call: the app's key, and the salt that makes
// its id.
type LegacyKey struct {
	AppEnvEncryptPubkey string `json:"app_env_encrypt_pubkey"`
	AppIDSalt           string `json:"app_id_salt"`
}

// LegacyUpgrade is PUT /cvms/{id}/compose: what `phala cvms upgrade` sends.
type LegacyUpgrade struct {
	ComposeManifest LegacyManifest `json:"compose_manifest"`
	EncryptedEnv    *string        `json:"encrypted_env,omitempty" nullable:"true" doc:"hex"`
	EnvKeys         []string       `json:"env_keys,omitempty" nullable:"true"`
	AllowRestart    any            `json:"allow_restart,omitempty" doc:"false or 0 refuses to update a running CVM"`
}

// LegacyUpgraded is its answer.
type LegacyUpgraded struct {
	Accepted
	Detail string `json:"detail"`
}
