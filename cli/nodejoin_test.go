package cli_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cli"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/ledger"
	"github.com/confidential-cloud/phala/verify"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// proverGuest is a guest of the simulated hardware that answers as a prover does.
func proverGuest(t *testing.T, hw *simtee.Hardware, nonceOf func([]byte) []byte) func(machine.Machine) http.Handler {
	return func(m machine.Machine) http.Handler {
		doc, err := os.ReadFile(filepath.Join(m.Shared, "app-compose.json"))
		if err != nil {
			t.Error(err)
		}
		hash := sha256.Sum256(doc)
		g, err := hw.Boot(t.Context(), simtee.Boot{Name: m.ID, AppID: cvm.AppID(hash[:20]), ComposeHash: hash, Phase: claim.PhaseRunning})
		if err != nil {
			t.Error(err)
		}
		mux := http.NewServeMux()
		mux.HandleFunc("GET /v1/boot", func(w http.ResponseWriter, _ *http.Request) {
			rpc.WriteJSON(w, http.StatusOK, guestapi.Boot{Ready: true})
		})
		mux.HandleFunc("GET /v1/evidence", func(w http.ResponseWriter, r *http.Request) {
			nonce, err := hex.DecodeString(r.URL.Query().Get("nonce"))
			if err != nil {
				t.Error(err)
			}
			ev, err := g.Evidence(r.Context(), guestapi.ReportDataEvidence(nonceOf(nonce), nil))
			if err != nil {
				t.Error(err)
			}
			b, err := ev.Marshal()
			if err != nil {
				t.Error(err)
			}
			rpc.WriteJSON(w, http.StatusOK, guestapi.Evidence{Attestation: b, AppCompose: string(doc)})
		})
		return mux
	}
}

// joinProfile is a trust profile that admits the simulated hardware.
func joinProfile(t *testing.T, hw *simtee.Hardware, change func(*verify.Profile)) string {
	t.Helper()
	root, err := keys.NewRoot(rand.Reader, 0)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := root.CASPKI()
	if err != nil {
		t.Fatal(err)
	}
	_, vkey, err := note.GenerateKey(rand.Reader, "kms-1")
	if err != nil {
		t.Fatal(err)
	}
	pcs := httptest.NewServer(hw.Handler())
	t.Cleanup(pcs.Close)
	tee := hw.RootSPKI()
	p := verify.Profile{Version: 1, Name: "join test", Chain: verify.Chains{ID: 31337, RPCURLs: []string{"http://127.0.0.1:1"}, KMSContract: "0x" + strings.Repeat("a", 40)},
		KMS: verify.KMSPins{RootSPKI: hex.EncodeToString(spki), K256PubKey: hex.EncodeToString(root.K256Public()), URLs: []string{"https://127.0.0.1:1"}},
		TEE: verify.TEEPins{Roots: []verify.RootPin{{SPKI: hex.EncodeToString(tee[:]), Platform: cvm.PlatformSimulated}}, CollateralURLs: []string{pcs.URL},
			TCBStatus: []string{"UpToDate"}, ImageVariants: []string{"container"}},
		Gateway:    verify.GatewayPin{AppID: strings.Repeat("0", 40), Domain: "dev.localhost", Port: 8443},
		LedgerKeys: ledger.Majority("phala.test/ledger", []string{vkey})}
	change(&p)
	b, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "trust.toml")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// tlsBefore puts a TLS server before a VMM, as an operator's proxy would be.
func tlsBefore(t *testing.T, target string) (front *httptest.Server, ca string) {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	front = httptest.NewTLSServer(httputil.NewSingleHostReverseProxy(u))
	t.Cleanup(front.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return front, ca
}

// TestNodeJoin: a node proves its device to a real VMM's client; the proof is bound
// to the VMM's TLS key; nothing is left on the node; what does not verify is refused.
func TestNodeJoin(t *testing.T) {
	hw, err := simtee.New(simtee.Config{Seed: append([]byte{9}, make([]byte, 31)...)})
	if err != nil {
		t.Fatal(err)
	}
	asked := func(n []byte) []byte { return n }
	nonceOf := func(n []byte) []byte { return asked(n) }
	flags, c := nodeVMM(t, func(c *vmm.Config) { c.Machines = dry.New(dry.Config{Guest: proverGuest(t, hw, nonceOf)}) })
	good := joinProfile(t, hw, func(*verify.Profile) {})
	gone := func(what string) {
		t.Helper()
		for all := []vmmapi.VM{{}}; len(all) > 0; { // deleting ends soon, or the test's own time does
			var err error
			if all, err = c.List(t.Context()); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}

	front, ca := tlsBefore(t, flags[1])
	out := filepath.Join(t.TempDir(), "proof.json")
	join := func(code int, trust string, more ...string) map[string]any {
		t.Helper()
		args := append([]string{"node", "join", "--trust", trust, "--timeout", "60s"}, more...)
		return phala(t, code, append(args, flags...)...)
	}
	r := phala(t, cli.ExitOK, "node", "join", "--trust", good, "--vmm", front.URL, "--vmm-ca", ca, "--vmm-token-file", flags[3], "--out", out)
	key := sha256.Sum256(front.Certificate().RawSubjectPublicKeyInfo)
	if r["simulated"] != true || r["device_id"] == "" || r["tls_key_sha256"] != hex.EncodeToString(key[:]) {
		t.Errorf("%v", r)
	}
	gone("joined")
	proof := map[string]any{}
	if b, err := os.ReadFile(out); err != nil || json.Unmarshal(b, &proof) != nil || proof["device_id"] != r["device_id"] || proof["attestation"] == nil {
		t.Errorf("the proof's file: %v %v", proof, err)
	}
	plain := join(cli.ExitOK, good)
	if plain["device_id"] != r["device_id"] || plain["tls_key_sha256"] != nil {
		t.Errorf("without TLS: %v", plain)
	}

	asked = func([]byte) []byte { return make([]byte, 64) }
	if r := join(cli.ExitDenied, good); r["reason"] != "platform-unproved" {
		t.Errorf("an answer to another nonce: %v", r)
	}
	gone("another nonce")
	asked = func(n []byte) []byte { return n }
	bad := joinProfile(t, hw, func(p *verify.Profile) { p.TEE.Roots[0].SPKI = strings.Repeat("ab", 32) })
	if r := join(cli.ExitDenied, bad); r["success"] == true || r["device_id"] != nil {
		t.Errorf("a root that is not admitted: %v", r)
	}
	gone("another root")
}
