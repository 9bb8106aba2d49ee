package store

import "github.com/confidential-cloud/phala/api/cloudapi"

// Version is what an update of a CVM replaces.
type Version struct {
	AppCompose   []byte                 `json:"app_compose"`
	ComposeHash  string                 `json:"compose_hash"`
	EncryptedEnv []byte                 `json:"encrypted_env,omitempty"`
	EnvSignature *cloudapi.EnvSignature `json:"env_signature,omitempty"`
	UserConfig   string                 `json:"user_config,omitempty"`
	InstanceType string                 `json:"instance_type,omitempty"`
	VCPU         int                    `json:"vcpu"`
	MemoryMiB    int                    `json:"memory_mib"`
	DiskGB       int                    `json:"disk_gb"`
	Image        string                 `json:"image,omitempty"`
}

// Version is the one that the CVM is to run.
func (b *Body) Version() *Version {
	return &Version{b.AppCompose, b.ComposeHash, b.EncryptedEnv, b.EnvSignature, b.UserConfig, b.InstanceType, b.VCPU, b.MemoryMiB, b.DiskGB, b.Image}
}

// Restore makes v the version again that the CVM is to run.
func (v *Version) Restore(b *Body) {
	b.AppCompose, b.ComposeHash, b.EncryptedEnv, b.EnvSignature, b.UserConfig = v.AppCompose, v.ComposeHash, v.EncryptedEnv, v.EnvSignature, v.UserConfig
	b.InstanceType, b.VCPU, b.MemoryMiB, b.DiskGB, b.Image = v.InstanceType, v.VCPU, v.MemoryMiB, v.DiskGB, v.Image
}
