package vmm

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/qemu"
)

// A SEV-SNP guest has no register to measure its app into: the host names the app in a
// document whose hash is bound to the launch (HOST_DATA), and the guest refuses anything
// else.

// isSNP reports whether a machine of a driver is a SEV-SNP guest.
func isSNP(m *machine.Machine, d machine.Description) bool {
	return d.Accel == string(qemu.SNP) && !m.NoTEE
}

// settleInstance draws the seed of a new instance, because its id must be in the document
// before the launch. It is kept before anything starts: a seed that is lost means a disk
// that never opens again. No seed where the app wants no instance id.
func (v *vm) settleInstance(r *record, doc *appcompose.Document) error {
	in, err := instanceOf(r)
	if err != nil || doc.NoInstanceID {
		return err
	}
	app := r.VM.Spec.AppID
	if in.Seed != "" { // the guest computes the id again, and so does its host
		seed, err := hex.DecodeString(in.Seed)
		if err != nil {
			return cvm.Errorf(cvm.Internal, ".instance_info of the record: %w", err)
		}
		r.VM.InstanceID = cvm.NewInstanceID(seed, app)
		return nil
	}
	seed := make([]byte, 20)
	if _, err := rand.Read(seed); err != nil {
		return err
	}
	id := cvm.NewInstanceID(seed, app)
	b, err := json.Marshal(guestapi.InstanceInfo{Seed: hex.EncodeToString(seed), InstanceID: id.String(), AppID: app.String()})
	if err != nil {
		return fmt.Errorf("encoding .instance_info: %w", err)
	}
	r.VM.InstanceID, r.Instance = id, string(b)
	v.mu.Lock()
	defer v.mu.Unlock()
	kept := v.rec
	kept.VM.InstanceID, kept.Instance = id, string(b)
	if err := v.m.store.save(&kept); err != nil {
		return cvm.Errorf(cvm.Unavailable, "keeping the seed of a new instance: %w", err)
	}
	v.changeLocked("instance.info", id.String(), func(r *record) { r.VM.InstanceID, r.Instance = id, string(b) })
	return nil
}

func instanceOf(r *record) (in guestapi.InstanceInfo, err error) {
	if r.Instance == "" {
		return in, nil
	}
	if err := json.Unmarshal([]byte(r.Instance), &in); err != nil {
		return in, cvm.Errorf(cvm.Internal, ".instance_info of the record: %w", err)
	}
	return in, nil
}

// launchDocument is the MrConfig document (version 3) of a machine: what its guest will
// compare with the files that it is handed.
func launchDocument(m *machine.Machine, doc *appcompose.Document, app cvm.AppID, instance cvm.InstanceID) (string, error) {
	config := attest.MRConfig{AppID: app.String(), ComposeHash: doc.Hash().String(), KeyProvider: doc.Provider(), KeyProviderID: strings.ToLower(doc.KeyProviderID), Version: 3}
	if !doc.NoInstanceID && !instance.IsZero() {
		config.InstanceID = instance.String()
	}
	if doc.ManifestVersion >= 3 {
		for _, script := range doc.InitScript {
			config.InitScriptHashes = append(config.InitScriptHashes, fmt.Sprintf("%x", sha256.Sum256([]byte(script))))
		}
		if len(m.GPUs) > 0 {
			gpu, err := doc.GPUPolicyHash()
			if err != nil {
				return "", err
			}
			config.GPUPolicyHash = hex.EncodeToString(gpu[:])
		}
	}
	return config.Document()
}
