// Package sdk holds the guest agent's sockets against the reference's own npm SDK,
// unmodified, over the reference's simulator fixtures.
package sdk

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	stdsha3 "crypto/sha3"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"hash"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secpecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"

	"github.com/confidential-cloud/phala/appcompose"
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

// nodeFacts is what the SDK gave back; it is checked here, not there.
type nodeFacts struct {
	Info struct {
		AppID    string `json:"app_id"`
		Instance string `json:"instance_id"`
		Compose  string `json:"compose_hash"`
		Device   string `json:"device_id"`
		Image    string `json:"os_image_hash"`
		MRTD     string `json:"mrtd"`
		RTMR3    string `json:"rtmr3"`
		Events   int    `json:"events"`
	}
	Key, Ed25519 keyAnswer2
	TLS          struct {
		Chain []string
		Key   string
		Dated string
		Plain string
	}
	Quote       string
	Replay      []string
	Attestation string
	Sign        map[string]struct {
		Signature, Key string
		Chain          []string
	}
	Derived struct{ Chain []string }
	Hashes  map[string]string
	Env     string
}

type keyAnswer2 struct {
	Key   string
	Chain []string
}

// nodeInput is what the SDK's functions without a socket are asked.
func nodeInput(t *testing.T) (text string, key keys.Secret) {
	t.Helper()
	app, err := cvm.ParseAppID(goldenApp)
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		t.Fatal(err)
	}
	key = keys.NewSecret(raw)
	pub, err := ecdh.X25519().NewPrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	sign := func(parts ...[]byte) string {
		compact := secpecdsa.SignCompact(signer, keccak(parts...), true)
		return hex.EncodeToString(append(compact[1:], compact[0]-31))
	}
	now := time.Now().Unix()
	envKey := pub.PublicKey().Bytes()
	doc := map[string]any{"manifest_version": 2, "name": "n", "runner": "docker-compose", "docker_compose_file": "a: <b> & \u00e9\n", "allowed_envs": []string{"B", "A"}, "kms_enabled": true}
	canonical, err := appcompose.Canonical(mustJSON(t, doc))
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(canonical)
	return string(mustJSON(t, map[string]any{
		"compose": doc, "composeHash": hex.EncodeToString(hash[:]), "envKey": hex.EncodeToString(envKey), "app": goldenApp, "timestamp": now,
		"signer":   hex.EncodeToString(signer.PubKey().SerializeCompressed()),
		"envSig":   sign([]byte("dstack-env-encrypt-pubkey:"), app[:], envKey),
		"envSigV1": sign([]byte("dstack-env-encrypt-pubkey:"), app[:], binary.BigEndian.AppendUint64(nil, uint64(now)), envKey),
	})), key
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestNodeSDK calls every public function of the SDK; what came back is checked by
// this test's own code.
func TestNodeSDK(t *testing.T) {
	dir := simulator(t)
	input, envKey := nodeInput(t)
	b, err := exec.Command("node", "check.mjs", dir, install(t), input).Output() // stderr has the SDK's deprecation notes
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	var out struct {
		Verdicts map[string]any
		Facts    nodeFacts
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatalf("%v\n%.2000s", err, b)
	}
	for fn, v := range out.Verdicts {
		if v != true {
			t.Errorf("%s: %v", fn, v)
		}
	}
	if len(out.Verdicts) < 24 {
		t.Errorf("only %d functions were called", len(out.Verdicts))
	}
	f := out.Facts
	i := f.Info
	if i.AppID != goldenApp || i.Instance != goldenInstance || i.Compose != goldenCompose || i.Device != goldenDevice || i.Image != goldenImage || i.MRTD != goldenMRTD || i.RTMR3 != goldenRTMR3 || i.Events != 33 {
		t.Errorf("info %+v", i)
	}
	if len(f.Replay) != 4 || f.Replay[3] != goldenRTMR3 {
		t.Errorf("the SDK's replay of the event log: %q", f.Replay)
	}
	app := unhex(t, goldenApp)
	checkChain(t, app, "test", secp256k1.PrivKeyFromBytes(unhex(t, f.Key.Key)).PubKey().SerializeCompressed(), f.Key.Chain)
	checkChain(t, app, "test", ed25519.NewKeyFromSeed(unhex(t, f.Ed25519.Key)).Public().(ed25519.PublicKey), f.Ed25519.Chain)
	for a, s := range f.Sign {
		if len(s.Chain) != 3 || s.Chain[0] != s.Signature {
			t.Errorf("%s: %+v", a, s)
			continue
		}
		checkChain(t, app, "signing", unhex(t, s.Key), s.Chain[1:])
	}
	checkLeaf(t, f.TLS.Chain)
	if c := certs(t, []string{f.TLS.Dated, f.TLS.Plain}); c[0].NotBefore.Unix() != 1700000000 || c[0].NotAfter.Unix() != 1900000000 || extension(t, c[0], 9) == nil && extension(t, c[0], 3) == nil || len(c[1].DNSNames) != 0 {
		t.Errorf("dated %v to %v", c[0].NotBefore, c[0].NotAfter)
	}
	if a := readAttestation(t, unhex(t, strings.TrimPrefix(f.Attestation, "0x"))); string(a.reportData[:5]) != "test\x00" {
		t.Error("attest: report data")
	}
	checkHashes(t, f.Hashes)
	vars, err := keys.DecryptEnv(envKey, unhex(t, f.Env))
	if err != nil || len(vars) != 2 || vars[0].Value != "v\u00e4\"lue\n" {
		t.Errorf("encryptEnvVars: %v %v", vars, err)
	}
}

// checkHashes recomputes the report data of TdxQuote (C.3).
func checkHashes(t *testing.T, got map[string]string) {
	t.Helper()
	in := []byte("app-data:test content")
	sum := func(h hash.Hash) string {
		h.Write(in)
		return hex.EncodeToString(append(h.Sum(nil), make([]byte, 64)...)[:64])
	}
	want := map[string]string{
		"sha256": sum(sha256.New()), "sha384": sum(sha512.New384()), "sha512": sum(sha512.New()), "default": sum(sha512.New()), "sha3-256": sum(stdsha3.New256()), "sha3-384": sum(stdsha3.New384()),
		"sha3-512": sum(stdsha3.New512()), "keccak256": sum(sha3.NewLegacyKeccak256()), "keccak512": sum(sha3.NewLegacyKeccak512()),
		"raw": strings.Repeat("00", 60) + hex.EncodeToString([]byte("test")), // the SDK pads on the left
	}
	for name, w := range want {
		if got[name] != w {
			t.Errorf("report data of %s: %s, want %s", name, got[name], w)
		}
	}
	if len(got["keccak384"]) != 128 || got["keccak384"][96:] != strings.Repeat("0", 32) || got["keccak384"][:96] == got["sha3-384"][:96] {
		t.Errorf("keccak384: %s", got["keccak384"])
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
		b, err := os.ReadFile(n)
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
