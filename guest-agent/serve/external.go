package serve

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"

	"golang.org/x/time/rate"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/compose"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/prpc"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/keys"
)

// Quotes that strangers may ask for: a burst, then this many a second for all.
const (
	quoteBurst     = 20
	quotePerSecond = 4
)

// External is port 8090: everyone who reaches the app's gateway reaches it.
func (b *Backend) External() http.Handler {
	quotes := rate.NewLimiter(quotePerSecond, quoteBurst)
	limited := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if !quotes.AllowN(b.Now(), 1) {
				w.Header().Set("Retry-After", "1")
				rpc.WriteError(w, cvm.Errorf(cvm.Exhausted, "too many quotes are asked for: try again in a second").WithReason("rate-limited"))
				return
			}
			next(w, r)
		}
	}
	worker := service("Worker.", map[string]prpc.Method{
		"Info": prpc.NoArgs(b.PublicInfo), "Version": prpc.NoArgs(b.version), "GetAttestationForAppKey": prpc.Unary(b.appKeyQuote),
	})
	mux := http.NewServeMux()
	mux.HandleFunc("/prpc/", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "GetAttestationForAppKey") {
			limited(worker)(w, r)
			return
		}
		worker(w, r)
	})
	mux.HandleFunc("GET /evidence", cors(limited(b.serveEvidence)))
	mux.HandleFunc("OPTIONS /evidence", cors(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	mux.HandleFunc("GET /logs/{container}", b.publicLogs)
	mux.HandleFunc("GET /metrics", b.metrics)
	mux.HandleFunc("GET /{$}", b.dashboard)
	return mux
}

// service serves methods of the reference's wire below /prpc and at the root.
func service(prefix string, methods map[string]prpc.Method) http.HandlerFunc {
	return (&prpc.Service{Methods: methods}).Handler("/prpc", prefix)
}

// cors lets verifiers in browsers read evidence from any page; it carries nothing
// that depends on who asks.
func cors(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Methods", "GET, OPTIONS")
		w.Header().Set("Cache-Control", "no-store")
		next(w, r)
	}
}

func (b *Backend) serveEvidence(w http.ResponseWriter, r *http.Request) {
	nonce, err := hex.DecodeString(strings.TrimPrefix(r.URL.Query().Get("nonce"), "0x"))
	if err != nil {
		rpc.WriteError(w, cvm.Errorf(cvm.Invalid, "nonce: not hex"))
		return
	}
	ev, err := b.PublicEvidence(r.Context(), nonce, nil)
	if err != nil {
		b.Log.Warn("evidence", "err", err)
		rpc.WriteError(w, err)
		return
	}
	rpc.WriteJSON(w, http.StatusOK, ev)
}

type appKeyRequest struct {
	Algorithm string `json:"algorithm"`
}

// appKeyQuote binds the public key of Sign to a quote, as text in the report data.
func (b *Backend) appKeyQuote(ctx context.Context, r appKeyRequest) (guestapi.Quote, error) {
	var label string
	switch r.Algorithm {
	case keys.Ed25519:
		label = "ed25519-pk"
	case keys.Secp256k1, keys.K256:
		label = "secp256k1c-pk"
	default:
		return guestapi.Quote{}, cvm.Errorf(cvm.Invalid, "Unsupported algorithm")
	}
	key, err := keys.KeyPath(b.AppKey, signPath)
	if err != nil {
		return guestapi.Quote{}, err
	}
	pub, err := keys.PublicKey(r.Algorithm, key)
	if err != nil {
		return guestapi.Quote{}, err
	}
	rd, err := appKeyReportData(label, pub)
	if err != nil {
		return guestapi.Quote{}, err
	}
	return b.appKeyEvidence(ctx, rd)
}

// appKeyReportData is "dip1::<kind>:<base64url>" with zeros behind. A text over 64
// bytes cannot be there whole, and half a key proves nothing.
func appKeyReportData(label string, pub []byte) (rd [64]byte, err error) {
	text := "dip1::" + label + ":" + base64.RawURLEncoding.EncodeToString(pub)
	if len(text) > len(rd) {
		return rd, cvm.Errorf(cvm.Internal, "key text of %d bytes does not fit into report data", len(text))
	}
	copy(rd[:], text)
	return rd, nil
}

func (b *Backend) publicLogs(w http.ResponseWriter, r *http.Request) {
	if !b.App.PublicLogs {
		rpc.WriteError(w, cvm.Errorf(cvm.Denied, "this app does not publish its logs").WithReason("logs-not-public").
			WithFix("set public_logs in the app-compose (it is measured)"))
		return
	}
	b.logs(w, r)
}

// logs streams; the query decides the form.
func (b *Backend) logs(w http.ResponseWriter, r *http.Request) {
	if b.Containers == nil {
		rpc.WriteError(w, cvm.Errorf(cvm.Unsupported, "this guest runs no containers"))
		return
	}
	o, err := compose.ParseLogOptions(r.URL.Query(), b.Now())
	if err != nil {
		rpc.WriteError(w, err)
		return
	}
	fw := &flushWriter{w: w, kind: "application/x-ndjson"}
	if o.Bare {
		fw.kind = "text/plain; charset=utf-8"
	}
	if err := b.Containers.Logs(r.Context(), fw, r.PathValue("container"), o); err != nil && !fw.begun {
		rpc.WriteError(w, err)
		return
	}
	fw.begin()
}

// flushWriter sends each line as it comes, and the header with the first.
type flushWriter struct {
	w     http.ResponseWriter
	kind  string
	begun bool
}

func (f *flushWriter) begin() {
	if !f.begun {
		f.begun = true
		f.w.Header().Set("Content-Type", f.kind)
		f.w.Header().Set("X-Content-Type-Options", "nosniff")
		f.w.WriteHeader(http.StatusOK)
	}
}

func (f *flushWriter) Write(p []byte) (int, error) {
	f.begin()
	n, err := f.w.Write(p)
	_ = http.NewResponseController(f.w).Flush()
	return n, err
}
