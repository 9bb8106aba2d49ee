package vmm

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// handler is the REST API of package vmmapi.
func (m *VMM) handler() http.Handler {
	r := chi.NewRouter()
	r.Use(m.authenticate)
	type none struct{}
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		rpc.WriteError(w, cvm.Errorf(cvm.NotFound, "no such path: %s %s", r.Method, r.URL.Path))
	})
	r.Get("/v1/node", rpc.Handle(func(r *http.Request, _ none) (vmmapi.Node, error) { return m.node(r), nil }))
	r.Get("/v1/images", rpc.Handle(func(*http.Request, none) ([]vmmapi.Image, error) { return m.images(), nil }))
	r.Get("/v1/vms", rpc.Handle(func(*http.Request, none) ([]vmmapi.VM, error) { return m.list(), nil }))
	r.Put("/v1/vms/{id}", rpc.Handle(func(r *http.Request, s vmmapi.Spec) (vmmapi.VM, error) {
		if s.ID == "" {
			s.ID = id(r)
		}
		if s.ID != id(r) {
			return vmmapi.VM{}, cvm.Errorf(cvm.Invalid, "id %q in the body, %q in the path", s.ID, id(r))
		}
		return m.put(s)
	}))
	r.Get("/v1/vms/{id}", rpc.Handle(func(r *http.Request, _ none) (vmmapi.VM, error) { return m.get(id(r)) }))
	r.Put("/v1/vms/{id}/app", rpc.Handle(func(r *http.Request, a vmmapi.App) (vmmapi.VM, error) { return m.putApp(r.Context(), id(r), a) }))
	r.Put("/v1/vms/{id}/resources", rpc.Handle(func(r *http.Request, x vmmapi.Resources) (vmmapi.VM, error) {
		return m.putResources(r.Context(), id(r), x)
	}))
	r.Put("/v1/vms/{id}/image", rpc.Handle(func(r *http.Request, x vmmapi.ImageChoice) (vmmapi.VM, error) {
		return m.putImage(r.Context(), id(r), x.Image)
	}))
	for name, fn := range map[string]func(context.Context, string) (vmmapi.VM, error){"start": m.start, "stop": m.stopVM, "restart": m.restart} {
		r.Post("/v1/vms/{id}/"+name, rpc.Handle(func(r *http.Request, _ none) (vmmapi.VM, error) { return fn(r.Context(), id(r)) }))
	}
	r.Delete("/v1/vms/{id}", rpc.Handle(func(r *http.Request, _ none) (none, error) { return none{}, m.deleteRequest(r) }))
	r.Get("/v1/vms/{id}/events", rpc.Handle(func(r *http.Request, _ none) ([]vmmapi.Event, error) {
		if _, err := m.find(id(r)); err != nil {
			return nil, err
		}
		return m.store.events(id(r))
	}))
	r.Get("/v1/vms/{id}/serial", m.serial)
	for _, p := range []string{"info", "containers", "sysinfo", "evidence", "logs/{container}"} {
		r.Get("/v1/vms/{id}/guest/"+p, m.proxyGuest)
	}
	return r
}

func id(r *http.Request) string { return chi.URLParam(r, "id") }

func (m *VMM) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		sum := sha256.Sum256([]byte(token))
		if !ok || subtle.ConstantTimeCompare(sum[:], m.token[:]) != 1 {
			rpc.WriteError(w, cvm.Errorf(cvm.Unauthenticated, "this VMM wants its bearer token").WithReason("bad-token").WithFix("use the content of the VMM's token_file"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (m *VMM) node(r *http.Request) vmmapi.Node {
	d := m.refresh(r.Context())
	return vmmapi.Node{
		ID: m.cfg.Node.ID, Name: m.cfg.Node.Name, Region: m.cfg.Node.Region, Driver: d.Name, Simulated: d.Simulated,
		DeviceID: d.DeviceID, Capacity: m.pool.Capacity(), Used: m.pool.Used(), Warnings: d.Warnings,
	}
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
	switch q := r.URL.Query().Get("volumes"); q {
	case "keep", "delete":
		return m.remove(id(r), q == "keep")
	default:
		return cvm.Errorf(cvm.Invalid, "volumes=%q: say keep or delete", q)
	}
}

// serial streams the console of the newest run.
func (m *VMM) serial(w http.ResponseWriter, r *http.Request) {
	rc, err := m.openSerial(r)
	if err != nil {
		rpc.WriteError(w, err)
		return
	}
	defer rc.Close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	_, _ = io.Copy(flushWriter{w, http.NewResponseController(w)}, rc)
}

func (m *VMM) openSerial(r *http.Request) (io.ReadCloser, error) {
	v, err := m.settled(r.Context(), id(r))
	if err != nil {
		return nil, err
	}
	var o machine.ConsoleOptions
	if s := r.URL.Query().Get("tail"); s != "" {
		if o.Tail, err = strconv.Atoi(s); err != nil || o.Tail < 0 {
			return nil, cvm.Errorf(cvm.Invalid, "tail=%q: want a number of lines", s)
		}
	}
	if s := r.URL.Query().Get("follow"); s != "" {
		if o.Follow, err = strconv.ParseBool(s); err != nil {
			return nil, cvm.Errorf(cvm.Invalid, "follow=%q: want true or false", s)
		}
	}
	v.mu.Lock()
	inst := v.last
	v.mu.Unlock()
	if inst == nil {
		return nil, cvm.Errorf(cvm.Precondition, "VM %s has no console yet: it was not started", id(r)).WithReason("no-console")
	}
	return inst.Console(r.Context(), o)
}

type flushWriter struct {
	io.Writer
	rc *http.ResponseController
}

func (f flushWriter) Write(b []byte) (int, error) {
	n, err := f.Writer.Write(b)
	_ = f.rc.Flush()
	return n, err
}

// proxyGuest forwards the five read-only routes of the guest API.
func (m *VMM) proxyGuest(w http.ResponseWriter, r *http.Request) {
	v, err := m.settled(r.Context(), id(r))
	if err != nil {
		rpc.WriteError(w, err)
		return
	}
	if s := r.URL.Query().Get("nonce"); strings.HasSuffix(r.URL.Path, "/evidence") {
		if b, err := hex.DecodeString(s); err != nil || len(b) == 0 || len(b) > 64 {
			rpc.WriteError(w, cvm.Errorf(cvm.Invalid, "nonce: want 1 to 64 bytes of hex"))
			return
		}
	}
	v.mu.Lock()
	inst, view := v.inst, v.rec.VM
	v.mu.Unlock()
	if inst == nil {
		rpc.WriteError(w, cvm.Errorf(cvm.Precondition, "VM %s is not running (%s)", view.Spec.ID, view.State).WithReason("vm-not-running"))
		return
	}
	path := "/v1" + r.URL.EscapedPath()[strings.Index(r.URL.EscapedPath(), "/guest/")+len("/guest"):]
	proxy := httputil.ReverseProxy{
		Transport: guestClient(inst).Transport, FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", "guest", "guest"
			p.Out.URL.Path, p.Out.URL.RawPath = mustUnescape(path), path
			p.Out.Header.Del("Authorization") // the VMM's token is not the guest's business
			p.Out.Header.Del("Cookie")
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			m.log.Debug("guest API", "vm", view.Spec.ID, "error", err)
			rpc.WriteError(w, cvm.Errorf(cvm.Unavailable, "the guest agent of VM %s does not answer (%s)", view.Spec.ID, strings.TrimSpace(view.State+" "+view.BootProgress)).WithReason("guest-unreachable"))
		},
	}
	proxy.ServeHTTP(w, r)
}

func mustUnescape(escaped string) string {
	s, err := url.PathUnescape(escaped)
	if err != nil { // the router matched it, so it was well formed
		return escaped
	}
	return s
}
