package vmm

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5/middleware"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/vmm/prpc"
)

// Roles of callers: read sees everything and changes nothing.
const (
	roleRead    = "read"
	roleOperate = "operate"
)

// caller is who asks: the name of a token, or of a client certificate.
type caller struct{ name, role string }

// TLS of the API. With it the API may listen beyond loopback.
type TLS struct {
	CertFile string `toml:"cert_file"` // PEM, leaf first
	KeyFile  string `toml:"key_file"`  // PEM, mode 0600, of the VMM's user or root
	// ClientCAFile: certificates below these CAs authenticate callers whose common
	// name is listed in Operate or Read. Others still need a token.
	ClientCAFile string   `toml:"client_ca_file"`
	Operate      []string `toml:"operate"`
	Read         []string `toml:"read"`
}

func (t *TLS) validate() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, cvm.Errorf(cvm.Invalid, format, args...)) }
	if (t.CertFile == "") != (t.KeyFile == "") {
		bad("tls: cert_file and key_file go together")
	}
	if t.ClientCAFile != "" && t.CertFile == "" {
		bad("tls.client_ca_file: needs cert_file and key_file")
	}
	if named := len(t.Operate)+len(t.Read) > 0; named != (t.ClientCAFile != "") {
		bad("tls: client_ca_file needs names in operate or read, and they need it")
	}
	for _, n := range t.Operate {
		if slices.Contains(t.Read, n) {
			bad("tls: %q is in operate and in read", n)
		}
	}
	return errs
}

// config loads the files; nil when the API is plain HTTP.
func (t *TLS) config() (*tls.Config, error) {
	if t.CertFile == "" {
		return nil, nil //nolint:nilnil // no TLS is what the operator chose
	}
	cert, err := os.ReadFile(t.CertFile)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "tls.cert_file: %w", err)
	}
	key, err := config.ReadSecret(t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("tls.key_file: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "tls: %w", err).WithFix("check cert_file and key_file")
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}
	if t.ClientCAFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(t.ClientCAFile)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "tls.client_ca_file: %w", err)
	}
	c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, cvm.Errorf(cvm.Invalid, "tls.client_ca_file %s: no certificate in it", t.ClientCAFile)
	}
	return c, nil
}

// loadTokens reads the tokens: the operator's own, and those of path (a file or a
// directory of files) with lines "<role> <name> <token>".
func loadTokens(tokenFile, path string) (map[[32]byte]caller, error) {
	token, err := EnsureToken(tokenFile)
	if err != nil {
		return nil, err
	}
	out := map[[32]byte]caller{sha256.Sum256([]byte(token)): {"token_file", roleOperate}}
	if path == "" {
		return out, nil
	}
	files := []string{path}
	if st, err := os.Stat(path); err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "tokens: %w", err)
	} else if st.IsDir() {
		if files, err = filepath.Glob(filepath.Join(path, "*")); err != nil {
			return nil, cvm.Errorf(cvm.Invalid, "tokens: %w", err)
		}
	}
	for _, f := range files {
		if err := readTokens(f, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// readTokens adds the tokens of one file. Its errors never quote a token.
func readTokens(path string, out map[[32]byte]caller) error {
	b, err := config.ReadSecret(path)
	if err != nil {
		return fmt.Errorf("tokens: %w", err)
	}
	n := 0
	for line := range bytes.Lines(b) {
		n++
		f := strings.Fields(string(line))
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) != 3 || (f[0] != roleRead && f[0] != roleOperate) || len(f[2]) < 16 {
			return cvm.Errorf(cvm.Invalid, "tokens: %s line %d: want `read|operate NAME TOKEN`, the token of at least 16 characters", path, n)
		}
		sum := sha256.Sum256([]byte(f[2]))
		if _, twice := out[sum]; twice {
			return cvm.Errorf(cvm.Invalid, "tokens: %s line %d: the token of %s is used twice", path, n, f[1])
		}
		out[sum] = caller{f[1], f[0]}
	}
	return nil
}

// identify finds out who asks. A token is looked up by its digest, so that the
// time taken says nothing about it.
func (m *VMM) identify(r *http.Request) (caller, error) {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		if c, ok := m.tokens[sha256.Sum256([]byte(token))]; ok {
			return c, nil
		}
	} else if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		name := r.TLS.VerifiedChains[0][0].Subject.CommonName
		switch {
		case slices.Contains(m.cfg.TLS.Operate, name):
			return caller{name, roleOperate}, nil
		case slices.Contains(m.cfg.TLS.Read, name):
			return caller{name, roleRead}, nil
		}
		return caller{name, ""}, cvm.Errorf(cvm.Denied, "the certificate of %q has no role here", name).WithReason("no-role").WithFix("list its common name in tls.operate or tls.read")
	}
	return caller{}, cvm.Errorf(cvm.Unauthenticated, "this VMM wants its bearer token").WithReason("bad-token").WithFix("use the content of the VMM's token_file, or a client certificate")
}

type callerKey struct{}

func (m *VMM) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := m.identify(r)
		if err == nil && c.role != roleOperate && changes(r) {
			err = cvm.Errorf(cvm.Denied, "%s may only read", c.name).WithReason("read-only").WithFix("use a token with the role operate")
		}
		if err != nil {
			if changes(r) {
				m.auditLine(r, c, http.StatusForbidden, cvm.ReasonOf(err), 0)
			}
			writeError(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// writeError answers in the form of the API that was asked.
func writeError(w http.ResponseWriter, r *http.Request, err error) {
	if prpc.Owns(r.URL.Path) {
		prpc.WriteError(w, rpc.Status(err), err)
		return
	}
	rpc.WriteError(w, err)
}

// changes reports whether a request may change something: what is not known to
// read only counts as changing.
func changes(r *http.Request) bool {
	if prpc.Owns(r.URL.Path) {
		return !prpc.ReadOnly(r.URL.Path)
	}
	return r.Method != http.MethodGet && r.Method != http.MethodHead
}

// audit leaves one line per changing call: who, what, which VM, with what result.
// Bodies and tokens are not in it.
func (m *VMM) audit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !changes(r) {
			next.ServeHTTP(w, r)
			return
		}
		start := m.now()
		ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		next.ServeHTTP(ww, r)
		c, _ := r.Context().Value(callerKey{}).(caller)
		m.auditLine(r, c, ww.Status(), "", m.now().Sub(start))
	})
}

func (m *VMM) auditLine(r *http.Request, c caller, status int, reason string, took time.Duration) {
	m.log.LogAttrs(r.Context(), slog.LevelInfo, "audit", slog.String("caller", c.name), slog.String("role", c.role),
		slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.String("from", r.RemoteAddr),
		slog.Int("status", status), slog.String("reason", reason), slog.Duration("took", took))
}

// EnsureToken reads the bearer token at path, made on first use (mode 0600).
func EnsureToken(path string) (string, error) {
	b, err := config.ReadSecret(path)
	if cvm.CodeOf(err) == cvm.NotFound {
		b, err = newToken(path)
	}
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if len(token) < 16 {
		return "", cvm.Errorf(cvm.Invalid, "token file %s: want at least 16 characters", path)
	}
	return token, nil
}

func newToken(path string) ([]byte, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	b := []byte(rand.Text() + "\n")
	return b, os.WriteFile(path, b, 0o600)
}
