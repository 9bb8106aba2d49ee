// Package sdk holds the guest agent's sockets against the reference's own npm SDK,
// unmodified, over the reference's simulator fixtures.
package sdk

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
	guestagent "github.com/confidential-cloud/phala/guest-agent"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/keys"
)

// vectors finds ../shared/vectors of the repository, searching upward.
func vectors(t *testing.T) string {
	t.Helper()
	if d := os.Getenv("PHALA_VECTORS"); d != "" {
		return d
	}
	d, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; d != "/"; d = filepath.Dir(d) {
		if p := filepath.Join(d, "shared", "vectors"); exists(p) {
			return p
		}
	}
	t.Skip("SKIPPED: no test vectors (../shared/vectors, or PHALA_VECTORS)")
	return ""
}

func exists(p string) bool { _, err := os.Stat(p); return err == nil }

// simulator serves the fixtures and returns the directory of its sockets.
func simulator(t *testing.T) string {
	t.Helper()
	from := filepath.Join(vectors(t), "simulator")
	dir, err := os.MkdirTemp("", "sdk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, n := range []string{"app-compose.json", "appkeys.json", "sys-config.json", "attestation.bin"} {
		b, err := os.ReadFile(filepath.Join(from, n))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- guestagent.Simulate(ctx, dir, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("simulator: %v", err)
		}
	})
	d := guestapi.NewDstack(filepath.Join(dir, "dstack.sock"))
	for deadline := time.Now().Add(10 * time.Second); ; {
		_, err := d.Info(t.Context())
		if err == nil {
			return dir
		}
		select {
		case err := <-done:
			done <- nil
			t.Fatalf("simulator: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("simulator: %v", err)
		}
	}
}

// DO NOT CHANGE: the reference's simulator answers this (dstack-core G.3, F.5).
const (
	goldenApp      = "5bb4ff9a3837357f19dc176407a5709c62eb6c56"
	goldenInstance = "1691ed1b47506cad7d08834668691d88246f5b1f"
	goldenCompose  = "c143116fef3940e7f776bfc0919c256232ae5338a6e948c96b711e0b2383483a"
	goldenMRTD     = "e53236d44a074bc78e784cdfa1a2c858a5f6b53afc1b60d8f079662314978b64241b646d8498dd767d5ea48e1e115822"
	goldenRTMR3    = "f28a1490ee924e9396c2ccf2d93ad536b83cbe159a1d45024d1fd7acdcc102145efcfcd0cfa209416446c70226affadf"
	goldenDevice   = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	goldenImage    = "e61be43dd1cc6a6f5edefd7c51b608983780839b0000ce60dd99737dcffe09b9"
	goldenKMSKey   = "0321529e458424ab1f710a3a57ec4dad2fb195ddca572f7469242ba6c7563085b6"
)

type tcbInfo struct {
	MRTD     string `json:"mrtd"`
	RTMR3    string `json:"rtmr3"`
	Image    string `json:"os_image_hash"`
	EventLog []struct {
		Event string `json:"event"`
	} `json:"event_log"`
}

func TestSimulatorGolden(t *testing.T) {
	d := guestapi.NewDstack(filepath.Join(simulator(t), "dstack.sock"))
	i, err := d.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var tcb tcbInfo
	if err := json.Unmarshal([]byte(i.TCBInfo), &tcb); err != nil {
		t.Fatal(err)
	}
	got := []string{hex.EncodeToString(i.AppID), hex.EncodeToString(i.InstanceID), hex.EncodeToString(i.ComposeHash), hex.EncodeToString(i.DeviceID), hex.EncodeToString(i.OSImageHash), tcb.MRTD, tcb.RTMR3}
	want := []string{goldenApp, goldenInstance, goldenCompose, goldenDevice, goldenImage, goldenMRTD, goldenRTMR3}
	if !slices.Equal(got, want) {
		t.Errorf("info\n got %q\nwant %q", got, want)
	}
	if len(tcb.EventLog) != 33 {
		t.Errorf("%d events", len(tcb.EventLog))
	}
	k, err := d.GetKey(t.Context(), guestapi.KeyRequest{Path: "/", Purpose: "test"})
	if err != nil {
		t.Fatal(err)
	}
	pub, _ := keys.PublicKey("", keys.NewSecret(k.Key))
	root, _ := hex.DecodeString(goldenKMSKey)
	app, _ := cvm.ParseAppID(goldenApp)
	if err := keys.VerifyKeyChain(app, "test", pub, [][]byte{k.SignatureChain[0], k.SignatureChain[1]}, root); err != nil {
		t.Error(err)
	}
	q, err := d.GetQuote(t.Context(), []byte("test"))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := tdx.ParseQuote(q.Quote)
	if err != nil || string(parsed.Body.ReportData[:5]) != "test\x00" || q.Attestation == nil {
		t.Errorf("quote: %v", err)
	}
}

func TestNodeSDK(t *testing.T) {
	dir := simulator(t)
	modules := install(t)
	b, err := exec.Command("node", "check.mjs", dir, modules).Output() // stderr has the SDK's deprecation notes
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	var out struct {
		Reachable []bool
		Info      struct {
			AppID   string  `json:"app_id"`
			TCBInfo tcbInfo `json:"tcb_info"`
			Cert    string  `json:"app_cert"`
		}
		Version struct{ Version string }
		Key     []any
		Quote   struct{ Quote string }
		Attest  string
		TooLong string
		TLS     struct {
			Key   string
			Chain []string
			Bytes int
		}
		Sign                map[string][]any
		Digest, Unsupported string
		Derive, Raw         int
		Hashes              map[string]string
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatalf("%v\n%.2000s", err, b)
	}
	if !slices.Equal(out.Reachable, []bool{true, true}) || out.Info.AppID != goldenApp || out.Info.TCBInfo.MRTD != goldenMRTD || out.Info.Cert == "" || out.Version.Version == "" {
		t.Errorf("info %.300s", b)
	}
	if out.Key[0] != out.Key[1] || len(out.Key[0].(string)) != 64 || len(out.Key[2].([]any)) != 2 {
		t.Errorf("keys %v", out.Key)
	}
	if out.Quote.Quote == "" || out.Attest == "" || out.TooLong == "" || out.TLS.Bytes != 32 || out.TLS.Key != "-----BEGIN PRIVATE KEY-----" {
		t.Errorf("quote, attestation, TLS: %v %q %q %+v", out.Quote.Quote != "", out.Attest, out.TooLong, out.TLS)
	}
	checkLeaf(t, out.TLS.Chain)
	for a, v := range out.Sign {
		if !slices.Equal(v, []any{true, false, 3.0, true}) {
			t.Errorf("sign %s: %v", a, v)
		}
	}
	if !strings.Contains(out.Digest, "32-byte digest") || out.Unsupported == "" || out.Derive != 32 || out.Raw == 0 {
		t.Errorf("%q %q %d %d", out.Digest, out.Unsupported, out.Derive, out.Raw)
	}
	for h, e := range out.Hashes {
		if e != "" {
			t.Errorf("tdxQuote with %s: %s", h, e)
		}
	}
}

func checkLeaf(t *testing.T, chain []string) {
	t.Helper()
	b, _ := pem.Decode([]byte(chain[0]))
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject.CommonName != "x.test" || !slices.Equal(c.DNSNames, []string{"localhost"}) || len(c.IPAddresses) != 1 ||
		c.KeyUsage&x509.KeyUsageDigitalSignature == 0 || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
		t.Errorf("leaf %+v", c.Subject)
	}
}

// install has npm put the locked SDK into a directory of its own.
func install(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("SKIPPED: npm is not installed")
	}
	dir := t.TempDir()
	for _, n := range []string{"package.json", "package-lock.json"} {
		b, err := os.ReadFile(filepath.Join("..", "apps", "wallet", n))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	c.Dir = dir
	if b, err := c.CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("npm ci: %v\n%s", err, b)
		}
		t.Skipf("SKIPPED: npm cannot install the SDK: %s", b)
	}
	return dir
}
