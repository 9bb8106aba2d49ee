package compat

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// edgeDomain is where apps are reached; dns.cjs sends .test names to this machine.
const edgeDomain = "apps.test"

// edge stands in for the guests and for the gateway in front of them: the dry
// driver's machines answer the guest API, and https://<app>-8090.<domain>/logs is
// served by the machine of that app.
type edge struct {
	srv  *httptest.Server
	root []byte // PEM
	// driver has the machines that the guests live in.
	driver *dry.Driver

	mu     sync.Mutex
	guests map[string]http.Handler // by app id
}

func newEdge(t *testing.T) *edge {
	t.Helper()
	e := &edge{guests: map[string]http.Handler{}}
	e.driver = dry.New(dry.Config{Guest: e.guest, Script: script, LogDir: t.TempDir()})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "compat test root"}, DNSNames: []string{"*." + edgeDomain},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	e.root = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	e.srv = httptest.NewUnstartedServer(http.HandlerFunc(e.serve))
	e.srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	e.srv.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	e.srv.StartTLS()
	t.Cleanup(e.srv.Close)
	return e
}

func (e *edge) port() int { return e.srv.Listener.Addr().(*net.TCPAddr).Port }

func (e *edge) serve(w http.ResponseWriter, r *http.Request) {
	app, _, _ := strings.Cut(r.Host, "-8090.")
	e.mu.Lock()
	g := e.guests[app]
	e.mu.Unlock()
	if g == nil {
		http.NotFound(w, r)
		return
	}
	r.URL.Path = "/v1" + r.URL.Path
	g.ServeHTTP(w, r)
}

// brokenImage is that of an app whose guest refuses to boot.
const brokenImage = "broken:1"

func script(m machine.Machine) []guestapi.Notify {
	if _, compose := identity(m); strings.Contains(string(compose), brokenImage) {
		return []guestapi.Notify{{Event: "boot.error", Payload: `{"stage":"containers","reason":"image","message":"no such image","fix":"push it"}`}}
	}
	return dry.DefaultScript(m)
}

// identity is what the guest learns about itself from its host-shared files.
func identity(m machine.Machine) (hash cvm.ComposeHash, compose []byte) {
	b, err := os.ReadFile(filepath.Join(m.Shared, "app-compose.json"))
	if err != nil {
		panic(err) // the VMM has just written it
	}
	return sha256.Sum256(b), b
}

func (e *edge) guest(m machine.Machine) http.Handler {
	hash, compose := identity(m)
	app := hex.EncodeToString(hash[:20]) // without a chain
	mux := http.NewServeMux()
	answer := func(path string, v any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { rpc.WriteJSON(w, http.StatusOK, v) })
	}
	answer("/v1/boot", guestapi.Boot{Progress: "10/10 containers", Ready: true})
	answer("/v1/containers", guestapi.Containers{Containers: []guestapi.Container{
		{ID: strings.Repeat("c1", 32), Names: []string{"/web"}, Image: "nginx:1.27", ImageID: "sha256:" + strings.Repeat("1", 64), Created: 1700000000, State: "running", Status: "Up 2 minutes"},
	}})
	answer("/v1/sysinfo", guestapi.SysInfo{OSName: "phala", OSVersion: "0.5.5", KernelVersion: "6.9", CPUModel: "test", NumCPUs: 1, TotalMemory: 2 << 30,
		Disks: []guestapi.Disk{{Name: "vda", MountPoint: "/", TotalSize: 1, FreeSize: 1}}})
	reg := strings.Repeat("0a", 48)
	tcb, _ := json.Marshal(map[string]any{"mrtd": reg, "rootfs_hash": strings.Repeat("0b", 32), "rtmr0": reg, "rtmr1": reg, "rtmr2": reg, "rtmr3": reg, "app_compose": string(compose),
		"event_log": []any{map[string]any{"imr": 3, "event_type": 134217729, "digest": reg, "event": "compose-hash", "event_payload": hash.String()}}}) // plain values
	answer("/v1/info", guestapi.AppInfo{AppName: m.Name, TCBInfo: string(tcb), AppCert: string(e.root), ComposeHash: hash[:]})
	mux.HandleFunc("GET /v1/logs/{name}", containerLog)
	mux.HandleFunc("POST /v1/shutdown", func(w http.ResponseWriter, _ *http.Request) {
		rpc.WriteJSON(w, http.StatusOK, struct{}{})
		e.driver.Crash(m.ID, machine.Exit{}) // its own end
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	e.guests[app] = mux
	return mux
}

// containerLog is the agent's /logs: JSON lines, or text with ?text.
func containerLog(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if r.PathValue("name") != "web" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	for i, line := range []string{"hello from web", "second line"} {
		ch := []string{"stdout", "stderr"}[i]
		if q.Has("text") {
			_, _ = fmt.Fprintln(w, line)
			continue
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"channel": ch, "message": base64.StdEncoding.EncodeToString([]byte(line + "\n"))})
	}
}

func writeImage(t *testing.T, dir string, dev bool) {
	t.Helper()
	meta, err := json.Marshal(map[string]any{"version": "0.5.5", "is_dev": dev, "cmdline": dir})
	if err != nil {
		t.Fatal(err)
	}
	sums := fmt.Sprintf("%x  metadata.json\n", sha256.Sum256(meta))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"metadata.json": string(meta), "sha256sum.txt": sums, "digest.txt": fmt.Sprintf("%x\n", sha256.Sum256([]byte(sums)))} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
