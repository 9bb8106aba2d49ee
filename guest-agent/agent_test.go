package guestagent_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	guestagent "github.com/confidential-cloud/phala/guest-agent"
	"github.com/confidential-cloud/phala/guest-agent/boot"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/guest-agent/lease/leasetest"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ratls"
)

const vmConfig = `{"os_image_hash":"0100000000000000000000000000000000000000000000000000000000000000","cpu_count":1,"memory_size":1073741824,"tdx_attestation_variant":"container"}`

// world is a machine with one TD, its KMS and its host.
type world struct {
	dir  string // short: unix sockets have 107 bytes
	hw   *simtee.Hardware
	kms  *leasetest.KMS
	mu   sync.Mutex
	sent []guestapi.Notify
}

func newWorld(t *testing.T, listen string) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "ga")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{dir: dir}
	w.hw, err = simtee.New(simtee.Config{Seed: make([]byte, 32), ControlSock: filepath.Join(dir, "hw.sock")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.hw.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	<-w.hw.Ready()
	w.kms = leasetest.New(t, w.hw, listen)
	for _, d := range []string{"shared", "run"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.newTD(t)
	w.serveHost(t)
	return w
}

// newTD is a power cycle: fresh registers.
func (w *world) newTD(t *testing.T) {
	t.Helper()
	regs, err := measure.Container(vmConfig)
	if err != nil {
		t.Fatal(err)
	}
	ccel, err := measure.ContainerCCEL(vmConfig)
	if err != nil {
		t.Fatal(err)
	}
	c := simtee.NewControl(filepath.Join(w.dir, "hw.sock"))
	_ = c.DestroyTD(t.Context(), "guest")
	err = c.CreateTD(t.Context(), "guest", filepath.Join(w.dir, "run/tee.sock"), simtee.Shape{MRTD: regs.MRTD, RTMR: regs.RTMR, CCEL: ccel})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) serveHost(t *testing.T) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/Notify", rpc.Handle(func(_ *http.Request, n guestapi.Notify) (struct{}, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.sent = append(w.sent, n)
		if n.Event == "instance.info" {
			return struct{}{}, os.WriteFile(filepath.Join(w.dir, "shared/.instance_info"), []byte(n.Payload), 0o600)
		}
		return struct{}{}, nil
	}))
	serveUnix(t, filepath.Join(w.dir, "run/host.sock"), mux)
}

func (w *world) last(event string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range slices.Backward(w.sent) {
		if n.Event == event {
			return n.Payload
		}
	}
	return ""
}

// share writes what the host hands over and returns the app-compose.
func (w *world) share(t *testing.T, app map[string]any, sys map[string]any) []byte {
	t.Helper()
	doc := map[string]any{"manifest_version": 2, "name": "test app ☃", "runner": "none", "key_provider": "kms",
		"key_provider_id": hex.EncodeToString(w.kms.SPKI), "public_logs": true, "public_sysinfo": true}
	for k, v := range app {
		doc[k] = v
	}
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	s := map[string]any{"kms_urls": []string{w.kms.URL}, "vm_config": vmConfig}
	for k, v := range sys {
		s[k] = v
	}
	sb, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"app-compose.json": b, ".sys-config.json": sb} {
		if err := os.WriteFile(filepath.Join(w.dir, "shared", name), data, 0o644); err != nil { // #nosec G306
			t.Fatal(err)
		}
	}
	return b
}

func (w *world) config() guestagent.Config {
	c := guestagent.Under(w.dir)
	c.TEESock, c.HostSock = filepath.Join(w.dir, "run/tee.sock"), filepath.Join(w.dir, "run/host.sock")
	c.Log = slog.New(slog.DiscardHandler)
	return c
}

// start runs an agent until it is ready; done carries Run's error.
func start(t *testing.T, c guestagent.Config) (stop func() error, done <-chan error) {
	t.Helper()
	a, err := guestagent.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ch := make(chan error, 1)
	go func() { ch <- a.Run(ctx) }()
	t.Cleanup(cancel)
	select {
	case <-a.Ready():
	case err := <-ch:
		t.Fatalf("the agent ended: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("not ready")
	}
	return func() error { cancel(); return wait(t, ch) }, ch
}

func wait(t *testing.T, ch <-chan error) error {
	t.Helper()
	select {
	case err := <-ch:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the agent did not end")
		return nil
	}
}

func TestGuestWithoutContainers(t *testing.T) {
	w := newWorld(t, "")
	w.kms.GatewayAppID = strings.Repeat("0c", 20)
	compose := w.share(t, nil, nil)
	stop, _ := start(t, w.config())
	d := guestapi.NewDstack(filepath.Join(w.dir, "dstack.sock"))

	info, err := d.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.AppCert == "" || len(info.MRAggregated) != 32 || info.AppName != "test app ☃" || !strings.Contains(info.TCBInfo, `"rtmr3"`) {
		t.Errorf("info %+v", info)
	}
	var tcb struct {
		AppCompose string `json:"app_compose"`
	}
	if err := json.Unmarshal([]byte(info.TCBInfo), &tcb); err != nil || tcb.AppCompose != string(compose) {
		t.Errorf("tcb_info's app_compose differs from the measured bytes: %v", err)
	}
	app := cvm.AppID(info.AppID)

	k, err := d.GetKey(t.Context(), guestapi.KeyRequest{Path: "wallet", Purpose: "eth"})
	if err != nil {
		t.Fatal(err)
	}
	pub, _ := keys.PublicKey("", keys.NewSecret(k.Key))
	if err := keys.VerifyKeyChain(app, "eth", pub, [][]byte{k.SignatureChain[0], k.SignatureChain[1]}, w.kms.Root.K256Public()); err != nil {
		t.Errorf("signature chain: %v", err)
	}
	checkTLSKey(t, d, w.kms.SPKI, app)
	checkEvidence(t, w, d, compose)

	kms, err := d.KMS(t.Context())
	if err != nil || kms.GatewayAppID != w.kms.GatewayAppID || kms.RootSPKI != hex.EncodeToString(w.kms.SPKI) || !kms.Simulated || len(kms.TicketKey) != 32 {
		t.Errorf("KMS info %+v %v", kms, err)
	}
	if w.last("ready") != "" || !slices.ContainsFunc(w.sent, func(n guestapi.Notify) bool { return n.Event == "ready" }) {
		t.Error("the host was not told that the guest is ready")
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "dstack.sock")); err == nil {
		t.Error("dstack.sock is left")
	}
}

func checkTLSKey(t *testing.T, d *guestapi.Dstack, root []byte, app cvm.AppID) {
	t.Helper()
	k, err := d.GetTLSKey(t.Context(), guestapi.TLSKeyRequest{Subject: "gw.test", AltNames: []string{"gw.test", "127.0.0.1"}, RATLS: true, ServerAuth: true})
	if err != nil {
		t.Fatal(err)
	}
	var chain []*x509.Certificate
	for _, p := range k.CertificateChain {
		b, _ := pem.Decode([]byte(p))
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, c)
	}
	// What another guest does before it registers with a gateway.
	if err := ratls.VerifyPinned(chain, root, ratls.UsageAppCustom, &app, x509.ExtKeyUsageServerAuth); err != nil {
		t.Errorf("GetTlsKey's chain: %v", err)
	}
	if _, _, err := ratls.FromCertificate(chain[0]); err != nil {
		t.Errorf("evidence in the certificate: %v", err)
	}
	before, after := uint64(20), uint64(10)
	if _, err := d.GetTLSKey(t.Context(), guestapi.TLSKeyRequest{NotBefore: &before, NotAfter: &after}); err == nil || !strings.Contains(err.Error(), "not_before must be earlier than not_after") {
		t.Errorf("not_before after not_after: %v", err)
	}
}

func checkEvidence(t *testing.T, w *world, d *guestapi.Dstack, compose []byte) {
	t.Helper()
	nonce, bound := []byte("0123456789abcdef"), []byte("a key")
	e, err := d.Evidence(t.Context(), guestapi.EvidenceRequest{Nonce: nonce, Bound: bound})
	if err != nil {
		t.Fatal(err)
	}
	ev, err := attest.ParseEvidence(e.Attestation)
	if err != nil {
		t.Fatal(err)
	}
	c, err := w.hw.Collateral(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	p := w.hw.Policy(guestapi.ReportDataEvidence(nonce, bound), claim.PhaseRunning)
	v, _, err := attest.Verify(ev, c, p, time.Now())
	if err != nil {
		t.Fatalf("evidence: %v", err)
	}
	if !bytes.Equal([]byte(e.AppCompose), compose) || len(e.Receipt.Leaf) == 0 {
		t.Error("evidence does not carry what it refers to")
	}
	var kp boot.ProviderEvent
	if err := json.Unmarshal(v.Claims().KeyProvider, &kp); err != nil || kp.Name != "kms" || kp.ID != hex.EncodeToString(w.kms.SPKI) {
		t.Errorf("key provider %+v %v", kp, err)
	}
	if _, err := d.Evidence(t.Context(), guestapi.EvidenceRequest{Nonce: []byte("short")}); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("a nonce of 5 bytes: %v", err)
	}
}

// The same instance comes back after a power cycle, with the same keys.
func TestInstanceLasts(t *testing.T) {
	w := newWorld(t, "")
	w.share(t, nil, nil)
	c := w.config()
	var ids []string
	for range 2 {
		stop, _ := start(t, c)
		info, err := guestapi.NewDstack(c.DstackSock).Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, hex.EncodeToString(info.InstanceID))
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		w.newTD(t)
	}
	if ids[0] != ids[1] || len(ids[0]) != 40 {
		t.Errorf("instances %q", ids)
	}
	// Without a host the agent keeps the seed itself.
	_ = os.Remove(filepath.Join(w.dir, "shared/.instance_info"))
	c.HostSock = ""
	for i := range 2 {
		stop, _ := start(t, c)
		info, _ := guestapi.NewDstack(c.DstackSock).Info(t.Context())
		ids[i] = hex.EncodeToString(info.InstanceID)
		_ = stop()
		w.newTD(t)
	}
	if ids[0] != ids[1] {
		t.Errorf("without a host: instances %q", ids)
	}
}

// T5: a revocation ends the guest, and the host learns why.
func TestRevocationStops(t *testing.T) {
	w := newWorld(t, "")
	w.kms.TTL = 500 * time.Millisecond
	w.share(t, nil, nil)
	_, done := start(t, w.config())
	w.kms.Refuse(cvm.Errorf(cvm.Denied, "Compose hash not allowed").WithReason(kmsapi.ReasonGovernance))
	if err := wait(t, done); cvm.ReasonOf(err) != kmsapi.ReasonGovernance {
		t.Errorf("ended with %v", err)
	}
	if e := w.last("boot.error"); !strings.Contains(e, kmsapi.ReasonGovernance) || !strings.Contains(e, `"stage":"running"`) {
		t.Errorf("the host was told %q", e)
	}
	if _, err := guestapi.NewDstack(filepath.Join(w.dir, "dstack.sock")).Info(t.Context()); err == nil {
		t.Error("dstack.sock still gives keys")
	}
}

func TestBootFailures(t *testing.T) {
	tests := []struct {
		name   string
		spoil  func(t *testing.T, w *world)
		reason string
		stage  string
	}{
		{"false KMS", func(t *testing.T, w *world) {
			w.share(t, map[string]any{"key_provider_id": hex.EncodeToString(leasetest.New(t, w.hw, "").SPKI)}, nil)
		}, "kms-identity-mismatch", "keys"},
		{"no pin", func(t *testing.T, w *world) { w.share(t, map[string]any{"key_provider_id": ""}, nil) }, boot.ReasonUnpinned, "host-shared"},
		{"refused", func(_ *testing.T, w *world) {
			w.kms.Refuse(cvm.Errorf(cvm.Denied, "Compose hash not allowed").WithReason(kmsapi.ReasonGovernance))
		}, kmsapi.ReasonGovernance, "keys"},
		{"vm_config of another machine", func(t *testing.T, w *world) {
			w.share(t, nil, map[string]any{"vm_config": strings.Replace(vmConfig, `"cpu_count":1`, `"cpu_count":2`, 1)})
		}, kmsapi.ReasonEvidence, "keys"},
		{"environment for another app", func(t *testing.T, w *world) {
			if err := os.WriteFile(filepath.Join(w.dir, "shared/.encrypted-env"), make([]byte, 100), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "environment-invalid", "environment"},
		{"environment unsigned", func(t *testing.T, w *world) {
			w.share(t, map[string]any{"env_signers": []string{"0x" + strings.Repeat("11", 20)}}, nil)
			if err := os.WriteFile(filepath.Join(w.dir, "shared/.encrypted-env"), make([]byte, 100), 0o600); err != nil {
				t.Fatal(err)
			}
		}, kmsapi.ReasonEnvSwapped, "environment"},
		{"symlink", func(t *testing.T, w *world) {
			if err := os.Symlink("/etc/passwd", filepath.Join(w.dir, "shared/.user-config")); err != nil {
				t.Fatal(err)
			}
		}, boot.ReasonShared, "host-shared"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, "")
			w.share(t, nil, nil)
			tt.spoil(t, w)
			c := w.config()
			c.KeysTimeout = 1
			a, err := guestagent.New(c)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err = a.Run(ctx)
			if cvm.ReasonOf(err) != tt.reason {
				t.Errorf("reason %q: %v", cvm.ReasonOf(err), err)
			}
			if e := w.last("boot.error"); !strings.Contains(e, `"stage":"`+tt.stage+`"`) || !strings.Contains(e, tt.reason) {
				t.Errorf("the host was told %s", e)
			}
			if _, err := os.Stat(c.DstackSock); err == nil {
				t.Error("dstack.sock was left behind")
			}
		})
	}
}

// The gateway's guest joins no gateway itself; other guests do, pinned.
func TestGuestAPI(t *testing.T) {
	w := newWorld(t, "")
	w.share(t, map[string]any{"public_tcbinfo": false}, nil)
	c := w.config()
	_, done := start(t, c)
	g := guestapi.NewClient(c.GuestSock)
	info, err := g.Info(t.Context())
	if err != nil || info.TCBInfo != "" || info.VMConfig != "" {
		t.Errorf("the host sees what the app hides: %+v %v", info, err)
	}
	if s, err := g.SysInfo(t.Context()); err != nil || s.NumCPUs == 0 || s.TotalMemory == 0 || s.KernelVersion == "" || len(s.Disks) != 1 {
		t.Errorf("sysinfo %+v %v", s, err)
	}
	if l, err := g.Containers(t.Context()); err != nil || len(l.Containers) != 0 {
		t.Errorf("containers %v %v", l, err)
	}
	if _, err := g.Evidence(t.Context(), []byte("01234567")); err != nil {
		t.Error(err)
	}
	if _, err := g.Logs(t.Context(), "x", nil); cvm.CodeOf(err) != cvm.Unsupported {
		t.Errorf("logs: %v", err)
	}
	if err := g.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := wait(t, done); err != nil {
		t.Errorf("a shutdown that was asked for ended with %v", err)
	}
}
