package vmm

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/prpc"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// handler is the REST API of package vmmapi, and the reference's beside it.
func (m *VMM) handler() http.Handler {
	r := chi.NewRouter()
	r.Use(m.authenticate, m.audit)
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		rpc.WriteError(w, cvm.Errorf(cvm.NotFound, "no such path: %s %s", r.Method, r.URL.Path))
	})
	r.Get("/v1/node", rpc.Handle(func(r *http.Request, _ none) (vmmapi.Node, error) { return m.node(r), nil }))
	r.Get("/v1/images", rpc.Handle(func(*http.Request, none) ([]vmmapi.Image, error) { return m.images(), nil }))
	r.Get("/v1/vms", rpc.Handle(func(r *http.Request, _ none) ([]vmmapi.VM, error) { return viewed(m.list(), r), nil }))
	m.vmRoutes(r)
	m.imageRoutes(r)
	m.drainRoutes(r)
	r.Get("/v1/vms/{id}/events", m.getEvents)
	r.Get("/v1/vms/{id}/boots", rpc.Handle(func(r *http.Request, _ none) ([]vmmapi.Boot, error) { return m.boots(id(r)) }))
	r.Get("/v1/vms/{id}/serial", m.serial)
	wire := m.reference()
	for _, path := range []string{prpc.MountVmm + "*", prpc.MountGuest + "*", prpc.PathLogs} {
		r.Handle(path, wire)
	}
	for _, p := range []string{"info", "containers", "sysinfo", "evidence", "logs/{container}"} {
		r.Get("/v1/vms/{id}/guest/"+p, m.proxyGuest)
	}
	return r
}

type none struct{}

// vmRoutes are the routes that answer with a VM.
func (m *VMM) vmRoutes(r chi.Router) {
	r.Get("/v1/vms/{id}", withTag(func(r *http.Request, _ target, _ none) (vmmapi.VM, error) { return m.get(id(r)) }))
	r.Put("/v1/vms/{id}", withTag(func(r *http.Request, _ target, s vmmapi.Spec) (vmmapi.VM, error) {
		if s.ID == "" {
			s.ID = id(r)
		}
		if s.ID != id(r) {
			return vmmapi.VM{}, cvm.Errorf(cvm.Invalid, "id %q in the body, %q in the path", s.ID, id(r))
		}
		return m.put(s)
	}))
	r.Put("/v1/vms/{id}/app", withTag(func(r *http.Request, t target, a vmmapi.App) (vmmapi.VM, error) {
		return m.putApp(r.Context(), t, a)
	}))
	r.Put("/v1/vms/{id}/resources", withTag(func(r *http.Request, t target, x vmmapi.Resources) (vmmapi.VM, error) {
		return m.putResources(r.Context(), t, x)
	}))
	r.Put("/v1/vms/{id}/image", withTag(func(r *http.Request, t target, x vmmapi.ImageChoice) (vmmapi.VM, error) {
		return m.putImage(r.Context(), t, x.Image)
	}))
	r.Post("/v1/vms/{id}/update", withTag(func(r *http.Request, t target, x vmmapi.UpdateRequest) (vmmapi.VM, error) {
		return m.update(r.Context(), t, x)
	}))
	for name, fn := range map[string]func(context.Context, target) (vmmapi.VM, error){"start": m.start, "stop": m.stopVM, "restart": m.restart} {
		r.Post("/v1/vms/{id}/"+name, withTag(func(r *http.Request, t target, _ none) (vmmapi.VM, error) { return fn(r.Context(), t) }))
	}
	r.Delete("/v1/vms/{id}", rpc.Handle(func(r *http.Request, _ none) (none, error) { return none{}, m.deleteRequest(r) }))
}

// withTag answers with the VM and its generation as ETag, and reads If-Match.
func withTag[Req any](fn func(r *http.Request, t target, q Req) (vmmapi.VM, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rpc.Handle(func(r *http.Request, q Req) (vmmapi.VM, error) {
			t, err := targetOf(r)
			if err != nil {
				return vmmapi.VM{}, err
			}
			vm, err := fn(r, t, q)
			if err == nil {
				w.Header().Set("ETag", strconv.Quote(strconv.FormatInt(vm.Generation, 10)))
			}
			return vm, err
		})(w, r)
	}
}

func targetOf(r *http.Request) (target, error) {
	t := target{id: id(r)}
	s := r.Header.Get("If-Match")
	if s == "" || s == "*" {
		return t, nil
	}
	n, err := strconv.ParseInt(strings.Trim(s, `"`), 10, 64)
	if err != nil {
		return t, cvm.Errorf(cvm.Invalid, "If-Match %s: want the ETag of the VM", s)
	}
	t.match = &n
	return t, nil
}

func id(r *http.Request) string { return chi.URLParam(r, "id") }

func (m *VMM) node(r *http.Request) vmmapi.Node {
	d := m.refresh(r.Context())
	n := vmmapi.Node{
		ID: m.cfg.Node.ID, Name: m.cfg.Node.Name, Region: m.cfg.Node.Region, Driver: d.Name, Simulated: d.Simulated,
		DeviceID: d.DeviceID, Capacity: m.pool.Capacity().Resources, Used: m.pool.Used(), Warnings: d.Warnings,
		Draining: m.drain.state().Draining, Maintenance: m.drain.maintenance(),
	}
	m.describeHost(&n)
	return n
}

func (m *VMM) images() []vmmapi.Image {
	all, err := image.List(m.cfg.ImagesDir)
	if err != nil {
		m.log.Warn("guest images", "error", err)
	}
	out := []vmmapi.Image{}
	for _, im := range all {
		out = append(out, vmmapi.Image{Name: im.Name, Hash: im.Hash, Version: im.Meta.Version, IsDev: im.Meta.IsDev})
	}
	return out
}

func (m *VMM) list() []vmmapi.VM {
	out := []vmmapi.VM{}
	for _, v := range m.all() {
		out = append(out, v.view())
	}
	return out
}

// viewed leaves out of a list what its request does not want to see.
func viewed(list []vmmapi.VM, r *http.Request) []vmmapi.VM {
	if r.URL.Query().Get("view") == vmmapi.ViewBrief {
		for i := range list {
			list[i].Spec.App = vmmapi.App{}
		}
	}
	return list
}

func (m *VMM) get(id string) (vmmapi.VM, error) {
	v, err := m.find(id)
	if err != nil {
		return vmmapi.VM{}, err
	}
	return v.view(), nil
}

func (v *vm) view() vmmapi.VM {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.rec.VM
}

func (m *VMM) deleteRequest(r *http.Request) error {
	t, err := targetOf(r)
	if err != nil {
		return err
	}
	switch q := r.URL.Query().Get("volumes"); q {
	case "keep", "delete":
		return m.remove(t, q == "keep")
	default:
		return cvm.Errorf(cvm.Invalid, "volumes=%q: say keep or delete", q)
	}
}
