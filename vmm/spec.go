package vmm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/netip"
	"net/url"
	"regexp"

	"github.com/google/uuid"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// Bounds of what the guest reads from the host (dstack-core A.7), in bytes.
const (
	maxEncryptedEnv = 256 << 10
	maxUserConfig   = 4 << 20
	maxSysConfig    = 32 << 10
	maxURLs         = 16
)

var vmName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_. -]{0,62}[A-Za-z0-9])?$`)

// checkSpec returns all problems of a spec.
func (c *Config) checkSpec(s *vmmapi.Spec) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, cvm.Errorf(cvm.Invalid, format, args...)) }
	if u, err := uuid.Parse(s.ID); err != nil || u.String() != s.ID {
		bad("id %q: want a lowercase UUID", s.ID)
	}
	if !vmName.MatchString(s.Name) {
		bad("name %q: want 1 to 64 letters, digits, dot, dash, underscore or space, beginning and ending with a letter or digit", s.Name)
	}
	if s.Image != "" && !image.ValidName(s.Image) {
		bad("image %q: not an image name", s.Image)
	}
	if s.AppID.IsZero() {
		bad("app_id: missing")
	}
	if s.Restart != "" && s.Restart != "always" && s.Restart != "never" {
		bad("restart %q: want always or never", s.Restart)
	}
	errs = append(errs, c.checkResources(s.Resources), checkApp(&s.App), checkURLs("kms_urls", s.KMSURLs), checkURLs("gateway_urls", s.GatewayURLs), c.checkHost(s))
	return joinInvalid(errs)
}

func (c *Config) checkResources(r vmmapi.Resources) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, cvm.Errorf(cvm.Invalid, format, args...)) }
	if r.VCPU < 1 || r.VCPU > 1024 {
		bad("resources.vcpu %d: want 1 to 1024", r.VCPU)
	}
	if r.MemoryMiB < c.Limits.MinMemoryMiB || r.MemoryMiB > 64<<20 {
		bad("resources.memory_mib %d: want at least %d", r.MemoryMiB, c.Limits.MinMemoryMiB)
	}
	if r.DiskMiB < c.Limits.MinDiskMiB || r.DiskMiB > 1<<30 {
		bad("resources.disk_mib %d: want at least %d", r.DiskMiB, c.Limits.MinDiskMiB)
	}
	return errors.Join(errs...)
}

func checkApp(a *vmmapi.App) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, cvm.Errorf(cvm.Invalid, format, args...)) }
	if _, err := appcompose.Parse(a.AppCompose); err != nil {
		errs = append(errs, cvm.Errorf(cvm.Invalid, "app_compose: %w", err))
	}
	if len(a.EncryptedEnv) > maxEncryptedEnv {
		bad("encrypted_env: %d bytes, at most %d", len(a.EncryptedEnv), maxEncryptedEnv)
	}
	if len(a.UserConfig) > maxUserConfig {
		bad("user_config: %d bytes, at most %d", len(a.UserConfig), maxUserConfig)
	}
	if s := a.EnvSignature; s != nil {
		if len(a.EncryptedEnv) == 0 {
			bad("env_signature: there is no encrypted_env to sign")
		}
		if len(s.Signer) > 64 || len(s.Signature) > 256 {
			bad("env_signature: signer or signature too long")
		}
	}
	return errors.Join(errs...)
}

func checkURLs(what string, urls []string) error {
	if len(urls) > maxURLs {
		return cvm.Errorf(cvm.Invalid, "%s: %d, at most %d", what, len(urls), maxURLs)
	}
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil || len(s) > 512 {
			return cvm.Errorf(cvm.Invalid, "%s: %q is not an http(s) URL", what, s)
		}
		if ip, err := netip.ParseAddr(u.Hostname()); err == nil && (ip.IsLoopback() || ip.IsUnspecified()) {
			return cvm.Errorf(cvm.Invalid, "%s: %s is the guest itself", what, s).WithFix("name the address of the guests' network bridge")
		}
	}
	return nil
}

// joinInvalid keeps one problem as it is and joins more into one coded error.
func joinInvalid(errs []error) error {
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	return cvm.Errorf(cvm.Invalid, "%w", err).WithReason("invalid-spec")
}

// digest identifies a spec.
func digest(s vmmapi.Spec) string {
	b, _ := json.Marshal(s) // plain data: cannot fail
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
