package compat

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/compose"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// guests stand in for what the apps' machines run, and for the gateway in front of
// them: https://<app>-8090.<domain>/logs is served by the machine of that app.
type guests struct {
	root   []byte // PEM
	driver *dry.Driver

	mu   sync.Mutex
	apps map[string]http.Handler // by app id
}

func (e *guests) serve(w http.ResponseWriter, r *http.Request) {
	app, _, _ := strings.Cut(r.Host, "-8090.")
	e.mu.Lock()
	g := e.apps[app]
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

// boot makes the guest of a machine.
func (e *guests) boot(m machine.Machine) http.Handler {
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
	e.apps[app] = mux
	return mux
}

// saying is one line of a container's log.
type saying struct {
	at            int64 // unix seconds
	channel, line string
}

// said is what the container "web" said.
var said = []saying{{1700000000, "stdout", "hello from web"}, {1700000060, "stderr", "second line"}, {1700000120, "stdout", "third line"}}

// containerLog is the agent's /logs with the agent's own reading of the query: JSON
// lines, or bare text. Following ends when the client leaves.
func containerLog(w http.ResponseWriter, r *http.Request) {
	o, err := compose.ParseLogOptions(r.URL.Query(), time.Now())
	if err != nil || r.PathValue("name") != "web" {
		rpc.WriteError(w, errors.Join(err, cvm.Errorf(cvm.NotFound, "no container %q", r.PathValue("name"))))
		return
	}
	seconds := func(s string) float64 { v, _ := strconv.ParseFloat(s, 64); return v }
	lines := slices.DeleteFunc(slices.Clone(said), func(l saying) bool {
		return float64(l.at) < seconds(o.Since) || o.Until != "" && float64(l.at) > seconds(o.Until)
	})
	if n, err := strconv.Atoi(o.Tail); err == nil && n < len(lines) {
		lines = lines[len(lines)-n:]
	}
	w.Header().Set("Content-Type", "text/plain")
	for _, l := range lines {
		text := l.line + "\n"
		if o.Timestamps {
			text = time.Unix(l.at, 0).UTC().Format(time.RFC3339Nano) + " " + text
		}
		if o.Bare {
			_, _ = io.WriteString(w, text)
			continue
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"channel": l.channel, "message": base64.StdEncoding.EncodeToString([]byte(text))})
	}
	_ = http.NewResponseController(w).Flush()
	if o.Follow {
		<-r.Context().Done()
	}
}
