package vmm

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// vmConfig is vm_config (dstack-core A.7) in the reference's key order: what a
// verifier needs to recompute the registers.
type vmConfig struct {
	OSImageHash   cvm.ImageHash `json:"os_image_hash"`
	CPUCount      int           `json:"cpu_count"`
	MemorySize    uint64        `json:"memory_size"` // bytes
	PCIHole64Size uint64        `json:"pci_hole64_size"`
	Hugepages     bool          `json:"hugepages"`
	NumGPUs       int           `json:"num_gpus"`
	NumNVSwitches int           `json:"num_nvswitches"`
	HotplugOff    bool          `json:"hotplug_off"`
	Image         string        `json:"image,omitempty"`
	HostShareMode string        `json:"host_share_mode"`
	Variant       string        `json:"tdx_attestation_variant,omitempty"`
	SpecVersion   int           `json:"spec_version"`
}

func composeVMConfig(im *image.Image, r vmmapi.Resources, variant string) (string, error) {
	b, err := json.Marshal(vmConfig{
		OSImageHash: im.Hash, CPUCount: r.VCPU, MemorySize: uint64(r.MemoryMiB) << 20,
		Image: im.Name, HostShareMode: "bind", Variant: variant, SpecVersion: 1,
	})
	return string(b), err
}

// mrConfigID is the V1 form of A.5: version byte and compose hash. The guest
// compares it with the app-compose it was handed, and it is in mr_aggregated.
func mrConfigID(h cvm.ComposeHash) (m cvm.Measurement) {
	m[0] = 1
	copy(m[1:], h[:])
	return m
}

// writeShared lays out the host-shared files for the next boot. Each boot gets a
// fresh directory content: a file that is not set any more must not stay.
func (m *VMM) writeShared(r *record, vmConfig string) error {
	dir := m.store.shared(r.VM.Spec.ID)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("host-shared files: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("host-shared files: %w", err)
	}
	sys, err := json.Marshal(guestapi.SysConfig{
		KMSURLs: orEmpty(r.VM.Spec.KMSURLs), GatewayURLs: orEmpty(r.VM.Spec.GatewayURLs), PCCSURL: m.cfg.PCCSURL,
		DockerRegistry: m.cfg.DockerRegistry, InsecureRegistries: m.cfg.InsecureRegistries,
		HostAPIURL: "unix://" + guestapi.HostSock, VMConfig: vmConfig,
	})
	if err != nil {
		return fmt.Errorf("encoding .sys-config.json: %w", err)
	}
	if len(sys) > maxSysConfig {
		return cvm.Errorf(cvm.Invalid, ".sys-config.json: %d bytes, at most %d", len(sys), maxSysConfig)
	}
	inst := r.Instance
	if inst == "" {
		b, err := json.Marshal(map[string]string{"app_id": r.VM.Spec.AppID.String()})
		if err != nil {
			return fmt.Errorf("encoding .instance_info: %w", err)
		}
		inst = string(b)
	}
	app := r.VM.Spec.App
	files := map[string][]byte{
		"app-compose.json": app.AppCompose, ".sys-config.json": sys, ".instance_info": []byte(inst),
		".encrypted-env": app.EncryptedEnv, ".user-config": app.UserConfig,
	}
	if app.EnvSignature != nil {
		if files[".env-signature.json"], err = json.Marshal(app.EnvSignature); err != nil {
			return fmt.Errorf("encoding .env-signature.json: %w", err)
		}
	}
	for name, b := range files {
		if len(b) == 0 {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return fmt.Errorf("host-shared files: %w", err)
		}
	}
	return nil
}

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
