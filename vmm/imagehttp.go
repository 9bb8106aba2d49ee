package vmm

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/image/oci"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// ImageRegistry says which images may be pulled. The zero value pulls anonymously
// what the caller pins by digest or os_image_hash.
type ImageRegistry struct {
	// Keys are files of public keys (PEM, Ed25519 or ECDSA P-256). If there are any, an
	// image is refused unless one of them signed it.
	Keys []string `toml:"keys"`
	// Registry (host[:port]) is the one that is told User and the content of PasswordFile.
	// Others are asked without: who may name a registry must not learn the password.
	Registry     string `toml:"registry"`
	User         string `toml:"user"`
	PasswordFile string `toml:"password_file"`
	// MaxMiB bounds one image (default 8192); KeepFreeMiB stays free (default 1024).
	MaxMiB      int64 `toml:"max_mib"`
	KeepFreeMiB int64 `toml:"keep_free_mib"`
}

func (c ImageRegistry) validate() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, cvm.Errorf(cvm.Invalid, format, args...)) }
	for _, p := range append([]string{c.PasswordFile}, c.Keys...) {
		if p != "" && !filepath.IsAbs(p) {
			bad("image_registry: %q: want an absolute path", p)
		}
	}
	if (c.User == "") != (c.PasswordFile == "") || (c.User == "") != (c.Registry == "") {
		bad("image_registry: registry, user and password_file go together")
	}
	if c.MaxMiB < 0 || c.KeepFreeMiB < 0 || c.MaxMiB > 1<<20 || c.KeepFreeMiB > 1<<30 {
		bad("image_registry: max_mib %d, keep_free_mib %d: out of range", c.MaxMiB, c.KeepFreeMiB)
	}
	return errs
}

// puller reads the keys and the password: a key that cannot be read must not mean
// that nothing has to be signed.
func (c ImageRegistry) puller(dir string, log *slog.Logger) (*oci.Puller, error) {
	cfg := oci.Config{Dir: dir, MaxBytes: c.MaxMiB << 20, KeepFree: c.KeepFreeMiB << 20, Log: log}
	var errs []error
	for _, path := range c.Keys {
		k, err := oci.LoadKey(path)
		cfg.Keys, errs = append(cfg.Keys, k), append(errs, err)
	}
	if c.User != "" {
		b, err := readSmall(c.PasswordFile)
		if err != nil {
			errs = append(errs, cvm.Errorf(cvm.Invalid, "image_registry.password_file: %w", err))
		}
		cfg.Login = oci.Login{Registry: c.Registry, User: c.User, Password: keys.NewSecret([]byte(strings.TrimSpace(string(b))))}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return oci.New(cfg)
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 4096))
}

// imageRoutes are the operations on guest images.
func (m *VMM) imageRoutes(r chi.Router) {
	r.Post("/v1/images/pull", rpc.Handle(func(_ *http.Request, q vmmapi.PullRequest) (vmmapi.Pull, error) {
		return m.puller.Start(m.ctx(), q) // it lives longer than the request
	}))
	r.Get("/v1/images/pulls", rpc.Handle(func(*http.Request, none) ([]vmmapi.Pull, error) { return m.puller.Pulls(), nil }))
	r.Delete("/v1/images/{name}", rpc.Handle(func(r *http.Request, _ none) (none, error) {
		return none{}, m.deleteImage(chi.URLParam(r, "name"))
	}))
	r.Post("/v1/images/gc", rpc.Handle(func(_ *http.Request, q vmmapi.GCRequest) (vmmapi.GCResult, error) { return m.collectImages(q) }))
}

// users maps the images in use to a VM that uses them. The caller holds m.mu, so that
// no VM is defined meanwhile.
func (m *VMM) users() map[string]string {
	out := map[string]string{}
	add := func(name, id string) {
		if name = orWord(name, m.cfg.DefaultImage); name == "" {
			// The only image there is: all of them, while a VM means "whichever there is".
			images, _ := image.List(m.cfg.ImagesDir)
			for _, im := range images {
				out[im.Name] = id
			}
			return
		}
		out[name] = id
	}
	for id, v := range m.vms {
		v.mu.Lock()
		add(v.rec.VM.Spec.Image, id)
		if u := v.rec.Update; u != nil { // it may have to go back
			add(u.Old.Image, id)
			add(u.Next.Image, id)
		}
		v.mu.Unlock()
	}
	return out
}

// deleteImage removes an image that no VM names.
func (m *VMM) deleteImage(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id, used := m.users()[name]; used {
		return cvm.Errorf(cvm.Conflict, "image %s is used by VM %s", name, id).WithReason("image-used").WithFix("delete the VM or give it another image first")
	}
	if name == m.cfg.DefaultImage {
		return cvm.Errorf(cvm.Conflict, "image %s is this node's default_image", name).WithReason("image-used").WithFix("set another default_image first")
	}
	return m.puller.Delete(name)
}

func (m *VMM) collectImages(q vmmapi.GCRequest) (vmmapi.GCResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	used := m.users()
	return m.puller.Collect(q, func(name string) bool { return used[name] != "" || name == m.cfg.DefaultImage })
}
