package vmm

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/qemu"
)

// vmConfig is vm_config (dstack-core A.7) in the reference's key order: what a
// verifier needs to recompute the registers.
type vmConfig struct {
	OSImageHash      cvm.ImageHash        `json:"os_image_hash"`
	CPUCount         int                  `json:"cpu_count"`
	MemorySize       uint64               `json:"memory_size"` // bytes
	QEMUVersion      string               `json:"qemu_version,omitempty"`
	PCIHole64Size    uint64               `json:"pci_hole64_size"`
	Hugepages        bool                 `json:"hugepages"`
	NumGPUs          int                  `json:"num_gpus"`
	NumNVSwitches    int                  `json:"num_nvswitches"`
	NumNICs          int                  `json:"num_nics,omitempty"` // absent says 1
	NumVerityVolumes int                  `json:"num_verity_volumes,omitempty"`
	HotplugOff       bool                 `json:"hotplug_off"`
	Image            string               `json:"image,omitempty"`
	HostShareMode    string               `json:"host_share_mode"`
	Variant          string               `json:"tdx_attestation_variant,omitempty"`
	TDXMeasurement   *measure.Measurement `json:"tdx_measurement,omitempty"`
	SpecVersion      int                  `json:"spec_version"`
	SNPMeasurement   string               `json:"sev_snp_measurement,omitempty"` // JSON in a string
	MRConfig         string               `json:"mr_config,omitempty"`           // SEV-SNP: the document of HOST_DATA
}

// snpMeasurement is vm_config.sev_snp_measurement.
type snpMeasurement struct {
	measure.Measurement
	VCPUs    int    `json:"vcpus"`
	VCPUType string `json:"vcpu_type"`
	Features int    `json:"guest_features"`
}

// composeVMConfig describes a machine of a driver. A virtual machine's carries the
// image's own measurements: its os_image_hash commits to them.
func composeVMConfig(im *image.Image, m *machine.Machine, d machine.Description) (string, error) {
	c := vmConfig{
		OSImageHash: im.Hash, CPUCount: m.Size.VCPU, MemorySize: uint64(m.Size.MemoryMiB) << 20, QEMUVersion: d.QEMUVersion,
		Hugepages: m.Hugepages, NumVerityVolumes: len(m.Volumes), HotplugOff: d.HotplugOff,
		Image: im.Name, HostShareMode: orWord(d.HostShareMode, "bind"), Variant: d.Variant, SpecVersion: 1,
	}
	for _, g := range m.GPUs {
		if g.Switch {
			c.NumNVSwitches++
		} else {
			c.NumGPUs++
		}
	}
	if n := len(m.NICs); n > 1 {
		c.NumNICs = n
	}
	if isSNP(m, d) {
		c.MRConfig = m.MRConfig
	}
	if d.Variant == qemu.Variant {
		if err := c.commit(im, m, d); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(c)
	return string(b), err
}

// commit adds the image's documents, to which its os_image_hash commits.
func (c *vmConfig) commit(im *image.Image, m *machine.Machine, d machine.Description) error {
	t, hash, err := measure.ReadMeasurement(os.DirFS(im.Dir))
	if err != nil {
		return err
	}
	if hash != im.Hash {
		return cvm.Errorf(cvm.Precondition, "guest image %s changed while it was read", im.Name).WithReason("image-broken")
	}
	c.TDXMeasurement = &t
	if !isSNP(m, d) {
		return nil
	}
	c.TDXMeasurement = nil
	snp := snpMeasurement{Measurement: t, VCPUs: m.Size.VCPU, VCPUType: qemu.SNPCPU, Features: 1}
	if snp.Document, err = os.ReadFile(filepath.Join(im.Dir, "measurement.snp.cbor")); err != nil {
		return cvm.Errorf(cvm.Precondition, "guest image %s: %w", im.Name, err).WithReason("image-no-snp").WithFix("use an image that has a measurement for SEV-SNP")
	}
	b, err := json.Marshal(snp)
	c.SNPMeasurement = string(b)
	return err
}

// bind says to what the launch of a machine is bound: on SEV-SNP to the MrConfig
// document (version 3), else to the compose hash (version 1).
func bind(m *machine.Machine, doc *appcompose.Document, app cvm.AppID, instance cvm.InstanceID, d machine.Description) (err error) {
	m.MRConfigID = mrConfigID(doc.Hash())
	if !isSNP(m, d) {
		return nil
	}
	if m.MRConfig, err = launchDocument(m, doc, app, instance); err != nil {
		return err
	}
	hash := attest.HostData(m.MRConfig)
	m.MRConfigID = cvm.Measurement{3}
	copy(m.MRConfigID[1:], hash[:])
	return nil
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
func (m *VMM) writeShared(r *record, vmConfig, mrConfig string) error {
	dir := m.store.shared(r.VM.Spec.ID)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("host-shared files: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("host-shared files: %w", err)
	}
	conf := guestapi.SysConfig{
		KMSURLs: orEmpty(r.VM.Spec.KMSURLs), GatewayURLs: orEmpty(r.VM.Spec.GatewayURLs), PCCSURL: m.cfg.PCCSURL,
		DockerRegistry: m.cfg.DockerRegistry, InsecureRegistries: m.cfg.InsecureRegistries,
		HostAPIURL: "unix://" + guestapi.HostSock, VMConfig: vmConfig,
	}
	if mrConfig != "" {
		conf.MRConfig = mrConfig
	}
	if m.cfg.AMDKDSURL != "" {
		conf.CollateralURLs = map[string]any{"amd_kds": m.cfg.AMDKDSURL}
	}
	sys, err := json.Marshal(conf)
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
