// Package prpc speaks the reference VMM's RPC (service Vmm, ProxiedGuestApi, and
// GET /logs) over the operations of our own VMM, so that the reference's CLI and
// scripts work. It is a translation and keeps no state: what it refuses, it
// refuses before anything changes. JSON only.
//
// It differs where the reference is wrong: UpdateVm checks everything first and
// takes effect whole, ports are checked there as well, encrypted_env and
// user_config can be cleared (clear_encrypted_env, clear_user_config), StopVm lets
// the guest close its disk before it is killed, and what changes something is not
// served to GET.
package prpc

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/prpc"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// Orders on a VM.
const (
	Start  = "start"
	Stop   = "stop"
	Remove = "remove" // with its volumes
	Forget = "forget" // the last run of a VM that does not run
)

// VMs are the operations of the VMM that this package translates to.
type VMs interface {
	Put(vmmapi.Spec) (vmmapi.VM, error)
	List() []vmmapi.VM
	// Respec changes a spec as a whole, checked as a whole, for the next start.
	Respec(ctx context.Context, id string, change func(*vmmapi.Spec) error) (vmmapi.VM, error)
	Order(ctx context.Context, id, what string) error
}

// Images are the guest images of the node.
type Images interface {
	Images() []ImageInfo
	Pull(ctx context.Context, ref string) error
	Pulls() []RegistryImage
	DeleteImage(name string) error
}

// Details are what the reference shows of a VM beyond its spec and state.
type Details struct {
	ExitedAt   time.Time
	Exit       string // how the newest ended run ended
	Events     []vmmapi.Event
	Interfaces []Interface
	HasRun     bool // there is a run to show, alive or not
	Alive      bool
}

// Config of the service. Fields that are nil make their methods answer unsupported.
type Config struct {
	VMs    VMs
	Images Images
	// Details of a VM; brief leaves out the events.
	Details func(id string, brief bool) Details
	Meta    func(ctx context.Context) (Meta, error)
	GPUs    func(ctx context.Context) (GPUList, error)
	EnvKey  func(ctx context.Context, app cvm.AppID) (kmsapi.EnvKey, error)
	Reload  func(ctx context.Context) (Reloaded, error)
	// Guest calls the guest API of a VM ("/v1/info") and decodes its answer.
	Guest func(ctx context.Context, id, path string, out any) error
	Logs  func(ctx context.Context, id string, q LogQuery) (io.ReadCloser, error)
	// PortsEnabled: the node maps ports at all.
	PortsEnabled bool
	Version      Version
	Now          func() time.Time
}

// Service serves the routes that Owns names.
type Service struct {
	cfg   Config
	vmm   map[string]prpc.Method
	guest map[string]prpc.Method
}

// New makes the service. VMs, Details and Now are needed.
func New(cfg Config) *Service {
	s := &Service{cfg: cfg}
	s.vmm = map[string]prpc.Method{
		"CreateVm": prpc.Unary(s.createVM), "UpdateVm": prpc.Unary(s.updateVM), "UpgradeApp": prpc.Unary(s.updateVM), "ResizeVm": prpc.Unary(s.resizeVM),
		"StartVm": s.order(Start), "StopVm": s.order(Stop), "ShutdownVm": s.order(Stop), "RemoveVm": s.order(Remove),
		"GetComposeHash": prpc.Unary(s.composeHash), "Status": prpc.Unary(s.status), "GetInfo": prpc.Unary(s.info),
		"ListImages": prpc.NoArgs(s.listImages), "ListRegistryImages": prpc.NoArgs(s.listPulls), "PullRegistryImage": prpc.Unary(s.pull), "DeleteImage": prpc.Unary(s.deleteImage),
		"GetAppEnvEncryptPubKey": prpc.Unary(s.envKey), "ListGpus": prpc.NoArgs(given(cfg.GPUs, "GPUs")), "GetMeta": prpc.NoArgs(given(cfg.Meta, "its settings")),
		"ReloadVms": prpc.NoArgs(given(cfg.Reload, "reloading")), "Version": prpc.NoArgs(func(context.Context) (Version, error) { return cfg.Version, nil }),
		"SvList": prpc.NoArgs(s.processes), "SvStop": s.order(Stop), "SvRemove": s.order(Forget),
	}
	s.guest = map[string]prpc.Method{
		"Info": prpc.Unary(s.guestInfo), "SysInfo": s.proxy("/v1/sysinfo"), "NetworkInfo": s.proxy("/v1/network"),
		"ListContainers": s.proxy("/v1/containers"), "Shutdown": s.order(Stop),
	}
	return s
}

// given is fn, or a clear refusal.
func given[T any](fn func(context.Context) (T, error), what string) func(context.Context) (T, error) {
	if fn != nil {
		return fn
	}
	return func(context.Context) (t T, err error) {
		return t, cvm.Errorf(cvm.Unsupported, "this node does not offer %s", what)
	}
}

// ServeHTTP answers /prpc/*, /guest/* and /logs. Callers are authenticated before.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case path == PathLogs:
		s.logs(w, r)
	case strings.HasPrefix(path, MountGuest):
		s.service(s.guest, path).Serve(w, r, prpc.Name(path, MountGuest, guestPrefixes()...))
	default:
		s.service(s.vmm, path).Serve(w, r, prpc.Name(path, MountVmm, vmmPrefixes()...))
	}
}

func (s *Service) service(methods map[string]prpc.Method, path string) *prpc.Service {
	return &prpc.Service{Methods: methods, PostOnly: func(string) bool { return !ReadOnly(path) }, ErrorText: errorText}
}

// order makes a method that gives one order.
func (s *Service) order(what string) prpc.Method {
	return prpc.Unary(func(ctx context.Context, q ID) (empty, error) {
		if err := wantID(q.ID); err != nil {
			return empty{}, err
		}
		if _, ok := s.find(q.ID); !ok { // our own removal of what is gone succeeds; the reference says so
			return empty{}, notFound(q.ID)
		}
		return empty{}, s.cfg.VMs.Order(ctx, q.ID, what)
	})
}

func wantID(id string) error {
	if id == "" {
		return cvm.Errorf(cvm.Invalid, "id: missing")
	}
	return nil
}

func notFound(id string) error {
	return cvm.Errorf(cvm.NotFound, "VM not found: %s", id).WithReason("vm-not-found")
}

func (s *Service) find(id string) (vmmapi.VM, bool) {
	for _, vm := range s.cfg.VMs.List() {
		if vm.Spec.ID == id {
			return vm, true
		}
	}
	return vmmapi.VM{}, false
}

// errorText is what a caller may read: coded errors with what to do about it.
func errorText(err error) string {
	var e *cvm.Error
	if !errors.As(err, &e) || e.Code == cvm.Internal {
		return "internal error (see the service's log)" // its text may hold anything
	}
	if e.Fix != "" {
		return err.Error() + " (" + e.Fix + ")"
	}
	return err.Error()
}
