package cli_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cli"
	"github.com/confidential-cloud/phala/test/simtrust"
	"github.com/confidential-cloud/phala/verify"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

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
	flags, c := nodeVMM(t, func(c *vmm.Config) { c.Machines = dry.New(dry.Config{Guest: simtrust.Prover(t, hw, nonceOf)}) })
	good := simtrust.Profile(t, hw, nil)
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
	bad := simtrust.Profile(t, hw, func(p *verify.Profile) { p.TEE.Roots[0].SPKI = strings.Repeat("ab", 32) })
	if r := join(cli.ExitDenied, bad); r["success"] == true || r["device_id"] != nil {
		t.Errorf("a root that is not admitted: %v", r)
	}
	gone("another root")
}
