package cloudapi

// AppFilters is GET /apps/filter-options: what the workspace's apps have, each once.
type AppFilters struct {
	Statuses      []string `json:"statuses"`
	ImageVersions []string `json:"image_versions"`
	InstanceTypes []string `json:"instance_types"`
	KMSSlugs      []string `json:"kms_slugs"`
	KMSTypes      []string `json:"kms_types"`
	Regions       []string `json:"regions"`
	Nodes         []string `json:"nodes"`
}

// AppKMSInfo is GET /apps/{app_id}/kms-info. What kind of account the deployer is, is
// not looked up: DeployerType, IsContract and SafeAppURL are null.
type AppKMSInfo struct {
	IsOnchainKMS       bool    `json:"is_onchain_kms"`
	ChainID            *uint64 `json:"chain_id"`
	KMSContractAddress *string `json:"kms_contract_address"`
	AppContractAddress *string `json:"app_contract_address"`
	DeployerAddress    *string `json:"deployer_address"`
	DeployerType       *string `json:"deployer_type"`
	IsContract         *bool   `json:"is_contract"`
	SafeAppURL         *string `json:"safe_app_url"`
}

// PendingUpdates is GET /apps/{app_id}/pending-updates: prepared updates that wait
// for governance or for their commit.
type PendingUpdates struct {
	Items []PendingUpdate `json:"items"`
}

// PendingUpdate is one of them. OnChain: the app's contract allows the hash now.
type PendingUpdate struct {
	VMUUID       string  `json:"vm_uuid"`
	ComposeHash  string  `json:"compose_hash"`
	OnChain      bool    `json:"on_chain"`
	InstanceName *string `json:"instance_name"`
}

// PendingPreview is what a pending update would change.
type PendingPreview struct {
	CurrentDockerCompose   *string `json:"current_docker_compose"`
	PendingDockerCompose   *string `json:"pending_docker_compose"`
	CurrentPreLaunchScript *string `json:"current_pre_launch_script"`
	PendingPreLaunchScript *string `json:"pending_pre_launch_script"`
}

// RevisionDetail is GET /apps/{app_id}/revisions/{revision_id}. EncryptedEnv (hex,
// for the app alone) and UserConfig are those of the CVM while it runs this
// revision, else "": older ones are not kept.
type RevisionDetail struct {
	Revision
	ComposeFile  any    `json:"compose_file"`
	EncryptedEnv string `json:"encrypted_env"`
	UserConfig   string `json:"user_config"`
}
