package vmm

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/measure/sample"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/qemu"
)

// sampleImage is an image directory with the documents of both vendors.
func sampleImage(t *testing.T) *image.Image {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "phala-sample")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := measure.New(measure.Files{Firmware: sample.OVMF(), Kernel: sample.Kernel(), Initrd: sample.Initrd(), Cmdline: sample.Cmdline})
	if err != nil {
		t.Fatal(err)
	}
	tdx, err := m.Document()
	if err != nil {
		t.Fatal(err)
	}
	snp, err := snpFiles().Document()
	if err != nil {
		t.Fatal(err)
	}
	var sums bytes.Buffer
	for _, f := range []struct {
		name string
		b    []byte
	}{{"ovmf.fd", sample.OVMF()}, {measure.DocumentFile, tdx}, {"measurement.snp.cbor", snp}, {image.MetadataFile, []byte(`{"bios":"ovmf.fd","driver":"qemu"}`)}} {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(f.b), f.name)
		if err := os.WriteFile(filepath.Join(dir, f.name), f.b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	digest := sha256.Sum256(sums.Bytes())
	for name, b := range map[string][]byte{image.SumsFile: sums.Bytes(), image.DigestFile: []byte(hex.EncodeToString(digest[:]) + "\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	im, err := image.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

func snpFiles() measure.SNPFiles {
	return measure.SNPFiles{Firmware: sample.SEVFirmware(), Kernel: sample.Kernel(), Initrd: sample.Initrd(), Cmdline: sample.Cmdline}
}

func bigMachine() machine.Machine {
	return machine.Machine{
		Size: machine.Size{VCPU: 4, MemoryMiB: 4096}, NICs: make([]machine.NIC, 2), Volumes: make([]machine.Volume, 3), Hugepages: true,
		GPUs: []machine.GPU{{Slot: "0000:01:00.0"}, {Slot: "0000:02:00.0", Switch: true}},
	}
}

// What the VMM writes is what attest/measure reads, and it commits to the image.
func TestVMConfigOfVirtualMachines(t *testing.T) {
	im, m := sampleImage(t), bigMachine()
	text, err := composeVMConfig(im, &m, machine.Description{Variant: qemu.Variant, Accel: "tdx", QEMUVersion: "11.1.3", HostShareMode: "tar", HotplugOff: true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := measure.ParseVMConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	want := measure.Topology{QEMUVersion: "11.1.3", CPUCount: 4, MemorySize: 4 << 30, HugePages: true, NumGPUs: 1, NumNVSwitches: 1, NumNICs: 2, NumVerityVolumes: 3, HotplugOff: true, HostShareMode: "tar"}
	if c.Topology != want || c.OSImageHash != im.Hash || c.Variant != measure.VariantLite {
		t.Errorf("%+v, want %+v", c, want)
	}
	shape, err := simtee.MeasureLaunch(simtee.TDLaunch{Firmware: sample.OVMF(), Kernel: sample.Kernel(), Initrd: sample.Initrd(), Cmdline: sample.Cmdline, VMConfig: text})
	if err != nil {
		t.Fatal(err)
	}
	acpi, err := simtee.ACPI(text)
	if err != nil {
		t.Fatal(err)
	}
	r, err := measure.ExpectedWith(measure.Policy{Variants: []string{measure.VariantLite}, AnyACPI: true}, text, acpi.Digests())
	if err != nil || r.Registers.MRTD != shape.MRTD || r.Registers.RTMR != shape.RTMR {
		t.Errorf("expected from vm_config: %+v (%v), measured at launch: %x %x", r.Registers, err, shape.MRTD, shape.RTMR)
	}

	if err := os.Remove(filepath.Join(im.Dir, measure.DocumentFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := composeVMConfig(im, &m, machine.Description{Variant: qemu.Variant}); err == nil || !strings.Contains(err.Error(), measure.DocumentFile) {
		t.Errorf("an image without its document: %v", err)
	}
}

func TestVMConfigOfSNP(t *testing.T) {
	im, m := sampleImage(t), bigMachine()
	d := machine.Description{Variant: qemu.Variant, Accel: "snp", QEMUVersion: "11.1.3", HostShareMode: "tar", HotplugOff: true}
	doc, err := appcompose.Parse([]byte(`{"manifest_version":"3","name":"x","runner":"docker-compose","docker_compose_file":"services: {}","kms_enabled":true,"init_script":"true"}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := bind(&m, doc, cvm.AppID{5}, cvm.InstanceID{6}, d); err != nil {
		t.Fatal(err)
	}
	config, err := attest.ParseMRConfig(m.MRConfig)
	if err != nil || config.ComposeHash != doc.Hash().String() || config.AppID != (cvm.AppID{5}).String() || config.KeyProvider != "kms" || config.InstanceID != (cvm.InstanceID{6}).String() || len(config.InitScriptHashes) != 1 || config.GPUPolicyHash == "" {
		t.Errorf("%+v %v", config, err)
	}
	if hash := attest.HostData(m.MRConfig); m.MRConfigID[0] != 3 || !bytes.Equal(m.MRConfigID[1:33], hash[:]) {
		t.Errorf("bound to %s, the document's hash is %x", m.MRConfigID, hash)
	}
	text, err := composeVMConfig(im, &m, d)
	if err != nil {
		t.Fatal(err)
	}
	got, hash, err := measure.SNPDigest(text)
	if err != nil || hash != im.Hash {
		t.Fatalf("%s %v", hash, err)
	}
	want, err := snpFiles().Digest(measure.SNPShape{VCPUs: 4, VCPUType: qemu.SNPCPU, Features: 1})
	if err != nil || got != want {
		t.Errorf("launch digest from vm_config %s, from the files %s (%v)", got, want, err)
	}

	m.NoTEE = true
	if err := bind(&m, doc, cvm.AppID{5}, cvm.InstanceID{6}, d); err != nil || m.MRConfigID != mrConfigID(doc.Hash()) {
		t.Errorf("without TEE: %s %v", m.MRConfigID, err)
	}
}
