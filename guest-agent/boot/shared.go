package boot

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/hostshare"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// Shared is what the host handed over, parsed and bounded. Nothing in it is
// believed yet.
type Shared struct {
	Compose      *appcompose.Document
	Sys          guestapi.SysConfig
	Instance     guestapi.InstanceInfo
	EncryptedEnv []byte // nil: none
	EnvSignature *vmmapi.EnvSignature
	UserConfig   []byte
}

// ReadShared reads the host-shared files of dir. A symbolic link, a special file
// or a file over its limit is refused: the host may point at anything.
func ReadShared(dir string) (*Shared, error) {
	s := &Shared{}
	raw, err := hostshare.ReadFile(dir, hostshare.AppCompose)
	if err != nil {
		return nil, err
	}
	if raw == nil {
		return nil, cvm.Errorf(cvm.Invalid, "%s is missing in %s", hostshare.AppCompose, dir).WithReason(ReasonShared)
	}
	if s.Compose, err = appcompose.Parse(raw); err != nil {
		return nil, err
	}
	if err := readJSON(dir, hostshare.SysConfig, &s.Sys); err != nil {
		return nil, err
	}
	if err := readJSON(dir, hostshare.InstanceInfo, &s.Instance); err != nil {
		return nil, err
	}
	if s.EncryptedEnv, err = hostshare.ReadFile(dir, hostshare.EncryptedEnv); err != nil {
		return nil, err
	}
	if len(s.EncryptedEnv) == 0 {
		s.EncryptedEnv = nil
	}
	var sig vmmapi.EnvSignature
	if err := readJSON(dir, hostshare.EnvSignature, &sig); err != nil {
		return nil, err
	}
	if sig != (vmmapi.EnvSignature{}) {
		s.EnvSignature = &sig
	}
	if s.UserConfig, err = hostshare.ReadFile(dir, hostshare.UserConfig); err != nil {
		return nil, err
	}
	return s, nil
}

// readJSON leaves v as it is when the file is absent. A key that v has not, and
// anything after the object, is an error: what the host wrote in vain it meant for
// something, and nobody would see that it is not done.
func readJSON(dir, name string, v any) error {
	b, err := hostshare.ReadFile(dir, name)
	if err != nil || len(bytes.TrimSpace(b)) == 0 {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err = d.Decode(v)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("there is something after the object")
		}
	}
	if err != nil {
		return cvm.Errorf(cvm.Invalid, "host-shared file %s: %w", name, err).WithReason(ReasonShared).
			WithFix("the host's VMM and this image are of different versions, or the file was edited")
	}
	return nil
}

// identity decides app id, seed and instance id (A.5). fresh says that the seed
// was made now and must be kept by the host.
func identity(s *Shared, rand io.Reader, variant string) (app cvm.AppID, inst cvm.InstanceID, seed []byte, fresh bool, err error) {
	if s.Instance.AppID != "" {
		if app, err = cvm.ParseAppID(s.Instance.AppID); err != nil {
			return app, inst, nil, false, fmt.Errorf("%s: %w", hostshare.InstanceInfo, err)
		}
	} else {
		h := s.Compose.Hash()
		copy(app[:], h[:20])
	}
	if s.Compose.NoInstanceID {
		return app, inst, nil, false, nil
	}
	// Without a key provider nothing lasts, so the instance does not either. On SEV-SNP
	// the launch is bound to the instance, so that the host has drawn the seed.
	if s.Instance.Seed != "" && (variant == cvm.VariantSNP || s.Compose.Provider() != appcompose.ProviderNone) {
		if seed, err = hex.DecodeString(s.Instance.Seed); err != nil || len(seed) != 20 {
			return app, inst, nil, false, cvm.Errorf(cvm.Invalid, "%s: instance_id_seed: want 40 hex digits", hostshare.InstanceInfo).WithReason(ReasonShared)
		}
		return app, cvm.NewInstanceID(seed, app), seed, false, nil
	}
	seed = make([]byte, 20)
	if _, err = io.ReadFull(rand, seed); err != nil {
		return app, inst, nil, false, err
	}
	return app, cvm.NewInstanceID(seed, app), seed, true, nil
}
