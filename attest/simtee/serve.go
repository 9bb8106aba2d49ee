package simtee

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// Paths of the control and device protocols: JSON over HTTP over unix sockets.
const (
	pathTD    = "/td"       // POST createRequest -> {}; DELETE /td/{name} -> {}
	pathInfo  = "/info"     // GET -> Info
	pathQuote = "/quote"    // POST {report_data} -> {quote}
	pathExt   = "/extend"   // POST {index, digest} -> {}
	pathCCEL  = "/ccel"     // GET -> {ccel}
	pathSeal  = "/seal-key" // POST {context} -> {key}
)

type (
	createRequest struct {
		Name   string `json:"name"`
		Socket string `json:"socket"`
		Shape  Shape  `json:"shape"`
	}
	quoteRequest struct {
		ReportData []byte `json:"report_data"`
	}
	quoteResponse struct {
		Quote []byte `json:"quote"`
	}
	extendRequest struct {
		Index  int             `json:"index"`
		Digest cvm.Measurement `json:"digest"`
	}
	ccelResponse struct {
		CCEL []byte `json:"ccel"`
	}
	sealRequest struct {
		Context []byte `json:"context"`
	}
	sealResponse struct {
		Key []byte `json:"key"`
	}
	none struct{}
)

// Info describes a machine.
type Info struct {
	RootSPKI      string       `json:"root_spki"` // hex sha256
	DeviceID      cvm.DeviceID `json:"device_id"`
	CollateralURL string       `json:"collateral_url"` // also of AMD's paths
	SNP           *SNPInfo     `json:"snp,omitempty"`  // nil: it starts no SEV-SNP guests
}

// server is one listening HTTP server.
type server struct {
	srv  *http.Server
	ln   net.Listener
	done chan error
}

func serveOn(ln net.Listener, handler http.Handler) *server {
	s := &server{srv: &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}, ln: ln, done: make(chan error, 1)}
	go func() { s.done <- s.srv.Serve(ln) }()
	return s
}

// close ends the server and removes its socket.
func (s *server) close() { _ = s.srv.Close() }

// listenUnix binds a socket, taking the place of a dead one.
func listenUnix(path string, mode os.FileMode) (net.Listener, error) {
	switch st, err := os.Lstat(path); {
	case err == nil && st.Mode()&fs.ModeSocket == 0:
		return nil, cvm.Errorf(cvm.Conflict, "%s exists and is not a socket", path)
	case err == nil:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("replacing the socket %s: %w", path, err)
		}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "listening on %s: %w", path, err)
	}
	if err := os.Chmod(path, mode); err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return ln, nil
}

// Run serves the control socket, the device sockets and the collateral service
// until ctx ends; then every TD is gone, as when a machine is switched off.
func (h *Hardware) Run(ctx context.Context) error {
	var servers []*server
	defer func() {
		for _, s := range servers {
			s.close()
		}
		h.powerOff()
	}()
	failed := make(chan error, 2)
	start := func(what string, ln net.Listener, handler http.Handler) {
		s := serveOn(ln, handler)
		servers = append(servers, s)
		go func() { failed <- fmt.Errorf("%s: %w", what, <-s.done) }()
	}
	if h.cfg.CollateralAddr != "" {
		ln, err := net.Listen("tcp", h.cfg.CollateralAddr)
		if err != nil {
			return cvm.Errorf(cvm.Precondition, "simulated TEE: collateral service: %w", err).WithFix("choose another collateral address, or stop what listens there")
		}
		h.mu.Lock()
		h.addr = ln.Addr().String()
		h.mu.Unlock()
		start("collateral service", ln, h.Handler())
	}
	if h.cfg.ControlSock != "" {
		ln, err := listenUnix(h.cfg.ControlSock, 0o600)
		if err != nil {
			return fmt.Errorf("simulated TEE: control: %w", err)
		}
		start("control socket", ln, h.control())
	}
	h.log.Info("SIMULATED TEE is running: it proves nothing about hardware", "device", h.DeviceID().String(), "collateral", h.CollateralURL())
	close(h.ready)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-failed:
		return err
	}
}

// powerOff ends all TDs.
func (h *Hardware) powerOff() {
	h.mu.Lock()
	var names []string
	for n := range h.tds {
		names = append(names, n)
	}
	for n := range h.snps {
		names = append(names, n)
	}
	h.mu.Unlock()
	for _, n := range names {
		if err := h.DestroyTD(n); err != nil && !errors.As(err, new(*cvm.Error)) {
			h.log.Warn("ending a TD", "td", n, "error", err)
		}
	}
}

func (h *Hardware) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathTD, rpc.Handle(func(_ *http.Request, q createRequest) (none, error) {
		return none{}, h.createTD(q)
	}))
	mux.HandleFunc("POST "+pathSNP, rpc.Handle(func(_ *http.Request, q createSNPRequest) (none, error) {
		return none{}, h.createSNP(q)
	}))
	mux.HandleFunc("DELETE "+pathTD+"/{name}", rpc.Handle(func(r *http.Request, _ none) (none, error) {
		return none{}, h.DestroyTD(r.PathValue("name"))
	}))
	mux.HandleFunc("GET "+pathInfo, rpc.Handle(func(*http.Request, none) (Info, error) {
		spki := h.RootSPKI()
		return Info{RootSPKI: hex.EncodeToString(spki[:]), DeviceID: h.DeviceID(), CollateralURL: h.CollateralURL(), SNP: h.snpInfo()}, nil
	}))
	return mux
}

// createTD starts a TD and its device socket.
func (h *Hardware) createTD(q createRequest) error {
	if q.Socket == "" {
		return cvm.Errorf(cvm.Invalid, "TD %s: no socket path", q.Name)
	}
	td, err := h.NewTD(q.Name, q.Shape)
	if err != nil {
		return err
	}
	mode := os.FileMode(0o600)
	if q.Shape.SockMode != 0 {
		mode = os.FileMode(q.Shape.SockMode)
	}
	ln, err := listenUnix(q.Socket, mode)
	if err != nil {
		_ = h.DestroyTD(q.Name) // it was made above
		return err
	}
	srv := serveOn(ln, td.device())
	td.mu.Lock()
	defer td.mu.Unlock()
	if td.dead { // destroyed meanwhile
		srv.close()
		return cvm.Errorf(cvm.Unavailable, "TD %s was destroyed", q.Name)
	}
	td.srv = srv
	return nil
}

// device offers what configfs-tsm, sysfs and CCEL offer to a guest, and nothing else.
func (t *TD) device() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathKind, rpc.Handle(func(*http.Request, none) (kindResponse, error) { return kindResponse{ProviderTDX}, nil }))
	mux.HandleFunc("POST "+pathQuote, rpc.Handle(func(r *http.Request, q quoteRequest) (quoteResponse, error) {
		if len(q.ReportData) != 64 {
			return quoteResponse{}, cvm.Errorf(cvm.Invalid, "report data of %d bytes, want 64", len(q.ReportData))
		}
		b, err := t.Quote(r.Context(), [64]byte(q.ReportData))
		return quoteResponse{b}, err
	}))
	mux.HandleFunc("POST "+pathExt, rpc.Handle(func(r *http.Request, q extendRequest) (none, error) {
		return none{}, t.Extend(r.Context(), q.Index, q.Digest)
	}))
	mux.HandleFunc("GET "+pathCCEL, rpc.Handle(func(r *http.Request, _ none) (ccelResponse, error) {
		b, err := t.CCEL(r.Context())
		return ccelResponse{b}, err
	}))
	mux.HandleFunc("GET "+pathRegisters, rpc.Handle(func(r *http.Request, _ none) (Registers, error) { return t.Registers(r.Context()) }))
	mux.HandleFunc("POST "+pathSeal, rpc.Handle(func(r *http.Request, q sealRequest) (sealResponse, error) {
		k, err := t.SealKey(r.Context(), q.Context)
		return sealResponse{k}, err
	}))
	return mux
}
