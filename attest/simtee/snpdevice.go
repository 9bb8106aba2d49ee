package simtee

import (
	"context"
	"encoding/hex"
	"net/http"
	"os"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// Paths of a SEV-SNP guest beside those of serve.go.
const (
	pathSNP     = "/snp"         // control: POST createSNPRequest -> {}
	pathKind    = "/provider"    // GET -> {provider}, also of a TD
	pathReport  = "/report"      // POST {report_data, level} -> {report, certificates}
	pathDerived = "/derived-key" // POST {fields} -> {key}
)

type (
	createSNPRequest struct {
		Name   string   `json:"name"`
		Socket string   `json:"socket"`
		Shape  SNPShape `json:"shape"`
	}
	kindResponse struct {
		Provider string `json:"provider"`
	}
	reportRequest struct {
		ReportData []byte `json:"report_data"`
		Level      uint   `json:"level"`
	}
	reportResponse struct {
		Report       []byte `json:"report"`
		Certificates []byte `json:"certificates"` // the host's table
	}
	derivedRequest struct {
		Fields uint64 `json:"fields"`
	}
)

// ProviderTDX and ProviderSNP are what Linux calls the sources of reports.
const (
	ProviderTDX = "tdx_guest"
	ProviderSNP = "sev_guest"
)

// AMD is the machine's SEV-SNP side; nil unless Config.SNP.
func (h *Hardware) AMD() *AMD { return h.amd }

// SNPInfo describes a machine's SEV-SNP side.
type SNPInfo struct {
	RootSPKI string       `json:"root_spki"` // hex sha256
	DeviceID cvm.DeviceID `json:"device_id"`
	Product  string       `json:"product"`
}

func (h *Hardware) snpInfo() *SNPInfo {
	if h.amd == nil {
		return nil
	}
	spki := h.amd.RootSPKI()
	return &SNPInfo{hex.EncodeToString(spki[:]), h.amd.DeviceID(), h.amd.cfg.Product}
}

// snpServer is a running SEV-SNP guest of this machine and its device socket.
type snpServer struct{ srv *server }

// createSNP starts a SEV-SNP guest and its device socket.
func (h *Hardware) createSNP(q createSNPRequest) error {
	mode := os.FileMode(q.Shape.SockMode)
	switch {
	case h.amd == nil:
		return cvm.Errorf(cvm.Unsupported, "this simulated machine has no SEV-SNP").WithReason("no-sev-snp").WithFix("start it with SNP, as `phala-devcloud up --simulate snp` does")
	case !nameOK(q.Name) || q.Socket == "":
		return cvm.Errorf(cvm.Invalid, "SEV-SNP guest %.40q: want a name of 1 to 128 of a-z, A-Z, 0-9, '.', '_', '-' and a socket", q.Name)
	case mode != 0 && mode != 0o600 && mode != 0o666:
		return cvm.Errorf(cvm.Invalid, "SEV-SNP guest %s: socket mode %#o, want 0600 or 0666", q.Name, mode)
	case mode == 0:
		mode = 0o600
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.freeLocked(q.Name); err != nil {
		return err
	}
	ln, err := listenUnix(q.Socket, mode)
	if err != nil {
		return err
	}
	h.snps[q.Name] = &snpServer{serveOn(ln, h.amd.Launch(q.Shape).device())}
	return nil
}

// freeLocked refuses a name in use, and one guest too many.
func (h *Hardware) freeLocked(name string) error {
	if h.tds[name] != nil || h.snps[name] != nil {
		return cvm.Errorf(cvm.Conflict, "TD %s exists", name).WithReason("td-exists").WithFix("destroy it first")
	}
	if len(h.tds)+len(h.snps) >= maxTDs {
		return cvm.Errorf(cvm.Exhausted, "the machine holds %d TDs", len(h.tds)+len(h.snps))
	}
	return nil
}

// device offers what configfs-tsm and /dev/sev-guest offer to a guest, and nothing else.
func (g *SNPGuest) device() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathKind, rpc.Handle(func(*http.Request, none) (kindResponse, error) { return kindResponse{ProviderSNP}, nil }))
	mux.HandleFunc("POST "+pathReport, rpc.Handle(func(r *http.Request, q reportRequest) (out reportResponse, err error) {
		if len(q.ReportData) != 64 {
			return out, cvm.Errorf(cvm.Invalid, "report data of %d bytes, want 64", len(q.ReportData))
		}
		out.Report, out.Certificates, err = g.Report(r.Context(), [64]byte(q.ReportData), q.Level)
		return out, err
	}))
	mux.HandleFunc("POST "+pathDerived, rpc.Handle(func(r *http.Request, q derivedRequest) (sealResponse, error) {
		k, err := g.DerivedKey(r.Context(), q.Fields)
		return sealResponse{k}, err
	}))
	return mux
}

// CreateSNP starts a SEV-SNP guest and its device socket at the path sock (a dead
// socket there is replaced). A machine without SEV-SNP refuses with code unsupported.
// DestroyTD ends it.
func (c *Control) CreateSNP(ctx context.Context, name, sock string, s SNPShape) error {
	return c.rpc.Call(ctx, http.MethodPost, pathSNP, createSNPRequest{Name: name, Socket: sock, Shape: s}, nil)
}

// Provider asks a device socket what it is: ProviderTDX or ProviderSNP.
func Provider(ctx context.Context, sock string) (string, error) {
	var out kindResponse
	c := client(sock)
	err := c.Call(ctx, http.MethodGet, pathKind, nil, &out)
	return out.Provider, err
}

// SNPDevice is the guest's client of its SEV-SNP device: attest/sevguest works over it.
type SNPDevice struct{ rpc rpc.Client }

// NewSNPDevice uses the device socket at sock.
func NewSNPDevice(sock string) *SNPDevice { return &SNPDevice{client(sock)} }

// Report signs report data at a privilege level; table is the host's certificate table.
func (d *SNPDevice) Report(ctx context.Context, reportData [64]byte, level uint) (report, table []byte, err error) {
	var out reportResponse
	err = d.rpc.Call(ctx, http.MethodPost, pathReport, reportRequest{reportData[:], level}, &out)
	return out.Report, out.Certificates, err
}

// DerivedKey is MSG_KEY_REQ: 32 bytes mixed with the selected fields. The result is
// key material.
func (d *SNPDevice) DerivedKey(ctx context.Context, fields uint64) ([]byte, error) {
	var out sealResponse
	err := d.rpc.Call(ctx, http.MethodPost, pathDerived, derivedRequest{fields}, &out)
	return out.Key, err
}
