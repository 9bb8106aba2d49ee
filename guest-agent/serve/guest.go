package serve

import (
	"encoding/hex"
	"net"
	"net/http"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// Guest is guest.sock, what the host may ask. It answers from the first moment of
// the boot; until there is a Backend most of it says so.
type Guest struct {
	Boot     func() guestapi.Boot
	Backend  func() *Backend // nil while booting
	Shutdown func()          // asks for a stop; returns at once
}

// Handler serves the guest API.
func (g *Guest) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/boot", rpc.Handle(func(*http.Request, struct{}) (guestapi.Boot, error) { return g.Boot(), nil }))
	mux.HandleFunc("POST "+guestapi.PathShutdown, rpc.Handle(func(*http.Request, struct{}) (struct{}, error) {
		g.Shutdown()
		return struct{}{}, nil
	}))
	mux.HandleFunc("GET "+guestapi.PathInfo, up(g, func(b *Backend, r *http.Request) (guestapi.AppInfo, error) {
		return b.PublicInfo(r.Context()) // the host is a stranger
	}))
	mux.HandleFunc("GET "+guestapi.PathContainers, up(g, func(b *Backend, r *http.Request) (c guestapi.Containers, err error) {
		c.Containers = []guestapi.Container{}
		if b.Containers != nil {
			c.Images = b.Containers.Images()
			c.Containers, err = b.Containers.Containers(r.Context())
		}
		return c, err
	}))
	mux.HandleFunc("GET "+guestapi.PathSysInfo, up(g, func(b *Backend, _ *http.Request) (guestapi.SysInfo, error) {
		return SysInfo(b.DataDir), nil
	}))
	mux.HandleFunc("GET "+guestapi.PathNetwork, up(g, func(*Backend, *http.Request) (guestapi.NetworkInfo, error) {
		links, err := net.Interfaces()
		return NetworkInfo("/", links), err
	}))
	mux.HandleFunc("GET "+guestapi.PathGuestProof, up(g, func(b *Backend, r *http.Request) (guestapi.Evidence, error) {
		nonce, err := hex.DecodeString(r.URL.Query().Get("nonce"))
		if err != nil {
			return guestapi.Evidence{}, cvm.Errorf(cvm.Invalid, "nonce: not hex")
		}
		return b.PublicEvidence(r.Context(), nonce, nil)
	}))
	mux.HandleFunc("GET "+guestapi.PathLogs+"{container}", func(w http.ResponseWriter, r *http.Request) {
		b := g.Backend()
		if b == nil {
			rpc.WriteError(w, booting())
			return
		}
		b.publicLogs(w, r)
	})
	mux.HandleFunc("POST "+guestapi.PathPrepare, g.prepare)
	return mux
}

func booting() error {
	return cvm.Errorf(cvm.Precondition, "the guest is still booting").WithReason("guest-booting")
}

func up[Resp any](g *Guest, fn func(b *Backend, r *http.Request) (Resp, error)) http.HandlerFunc {
	return rpc.Handle(func(r *http.Request, _ struct{}) (resp Resp, err error) {
		b := g.Backend()
		if b == nil {
			return resp, booting()
		}
		return fn(b, r)
	})
}
