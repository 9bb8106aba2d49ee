package boot

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// Names and limits (bytes) of the host-shared files (dstack-core A.7).
const (
	fileCompose   = "app-compose.json"
	fileSys       = ".sys-config.json"
	fileInstance  = ".instance_info"
	fileEnv       = ".encrypted-env"
	fileEnvSig    = ".env-signature.json"
	fileUser      = ".user-config"
	maxSys        = 32 << 10
	maxInstance   = 10 << 10
	maxEnv        = 256 << 10
	maxEnvSig     = 4 << 10
	maxUserConfig = 50 << 20
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
	raw, err := readFile(dir, fileCompose, appcompose.MaxSize)
	if err != nil {
		return nil, err
	}
	if raw == nil {
		return nil, cvm.Errorf(cvm.Invalid, "%s is missing in %s", fileCompose, dir).WithReason(ReasonShared)
	}
	if s.Compose, err = appcompose.Parse(raw); err != nil {
		return nil, err
	}
	if err := readJSON(dir, fileSys, maxSys, &s.Sys); err != nil {
		return nil, err
	}
	if err := readJSON(dir, fileInstance, maxInstance, &s.Instance); err != nil {
		return nil, err
	}
	if s.EncryptedEnv, err = readFile(dir, fileEnv, maxEnv); err != nil {
		return nil, err
	}
	if len(s.EncryptedEnv) == 0 {
		s.EncryptedEnv = nil
	}
	var sig vmmapi.EnvSignature
	if err := readJSON(dir, fileEnvSig, maxEnvSig, &sig); err != nil {
		return nil, err
	}
	if sig != (vmmapi.EnvSignature{}) {
		s.EnvSignature = &sig
	}
	if s.UserConfig, err = readFile(dir, fileUser, maxUserConfig); err != nil {
		return nil, err
	}
	return s, nil
}

// readJSON leaves v as it is when the file is absent. Unknown keys are ignored:
// the reference's hosts write more than we read.
func readJSON(dir, name string, limit int64, v any) error {
	b, err := readFile(dir, name, limit)
	if err != nil || len(bytes.TrimSpace(b)) == 0 {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return cvm.Errorf(cvm.Invalid, "host-shared file %s: %w", name, err).WithReason(ReasonShared)
	}
	return nil
}

// readFile returns nil when the file is absent.
func readFile(dir, name string, limit int64) ([]byte, error) {
	bad := func(format string, args ...any) error {
		return cvm.Errorf(cvm.Invalid, "host-shared file %s: "+format, append([]any{name}, args...)...).WithReason(ReasonShared)
	}
	// O_NONBLOCK: opening a FIFO must not wait for a writer that never comes.
	fd, err := unix.Open(dir+"/"+name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, nil
	case errors.Is(err, unix.ELOOP):
		return nil, bad("is a symbolic link")
	case err != nil:
		return nil, bad("%w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, bad("%w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, bad("is not a regular file")
	}
	if st.Size() > limit {
		return nil, bad("%d bytes, the limit is %d", st.Size(), limit)
	}
	// The size may change while it is read: the limit is kept on what arrives.
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, bad("%w", err)
	}
	if int64(len(b)) > limit {
		return nil, bad("more than %d bytes", limit)
	}
	return b, nil
}

// identity decides app id, seed and instance id (A.5). fresh says that the seed
// was made now and must be kept by the host.
func identity(s *Shared, rand io.Reader) (app cvm.AppID, inst cvm.InstanceID, seed []byte, fresh bool, err error) {
	if s.Instance.AppID != "" {
		if app, err = cvm.ParseAppID(s.Instance.AppID); err != nil {
			return app, inst, nil, false, fmt.Errorf("%s: %w", fileInstance, err)
		}
	} else {
		h := s.Compose.Hash()
		copy(app[:], h[:20])
	}
	if s.Compose.NoInstanceID {
		return app, inst, nil, false, nil
	}
	// Without a key provider nothing lasts, so the instance does not either.
	if s.Instance.Seed != "" && s.Compose.Provider() != appcompose.ProviderNone {
		if seed, err = hex.DecodeString(s.Instance.Seed); err != nil || len(seed) != 20 {
			return app, inst, nil, false, cvm.Errorf(cvm.Invalid, "%s: instance_id_seed: want 40 hex digits", fileInstance).WithReason(ReasonShared)
		}
		return app, cvm.NewInstanceID(seed, app), seed, false, nil
	}
	seed = make([]byte, 20)
	if _, err = io.ReadFull(rand, seed); err != nil {
		return app, inst, nil, false, err
	}
	return app, cvm.NewInstanceID(seed, app), seed, true, nil
}
