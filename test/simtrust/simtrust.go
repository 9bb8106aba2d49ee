// Package simtrust gives tests the two sides of simulated hardware: trust profiles that
// admit it, and the prover whose evidence is checked against them.
package simtrust

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/ledger"
	"github.com/confidential-cloud/phala/verify"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// New is a whole trust profile of a cloud with this KMS root, which admits one TEE root
// (the SHA-256 of its SPKI) and asks collateral of one URL. Its addresses lead nowhere:
// a test that goes there sets its own.
func New(root *keys.Root, tee [32]byte, collateral string) (verify.Profile, error) {
	spki, err := root.CASPKI()
	if err != nil {
		return verify.Profile{}, err
	}
	_, vkey, err := note.GenerateKey(rand.Reader, "kms-1")
	if err != nil {
		return verify.Profile{}, err
	}
	return verify.Profile{Version: 1, Name: "test cloud",
		Chain: verify.Chains{ID: 31337, RPCURLs: []string{"http://127.0.0.1:1"}, KMSContract: "0x" + strings.Repeat("a", 40)},
		KMS:   verify.KMSPins{RootSPKI: hex.EncodeToString(spki), K256PubKey: hex.EncodeToString(root.K256Public()), URLs: []string{"https://127.0.0.1:1"}},
		TEE: verify.TEEPins{Roots: []verify.RootPin{{SPKI: hex.EncodeToString(tee[:]), Platform: cvm.PlatformSimulated}}, CollateralURLs: []string{collateral},
			TCBStatus: []string{"UpToDate"}, ImageVariants: []string{"container"}},
		Gateway:    verify.GatewayPin{AppID: strings.Repeat("0", 40), Domain: "dev.localhost", Port: 8443},
		LedgerKeys: ledger.Majority("phala.test/ledger", []string{vkey})}, nil
}

// Write writes a profile into a file and returns its path.
func Write(t testing.TB, p verify.Profile) string {
	t.Helper()
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

// Profile writes a profile of a new KMS root that admits the hardware, whose collateral
// is served until the test ends; change (or nil) makes it another first.
func Profile(t testing.TB, hw *simtee.Hardware, change func(*verify.Profile)) (file string) {
	t.Helper()
	root, err := keys.NewRoot(rand.Reader, 0)
	if err != nil {
		t.Fatal(err)
	}
	pcs := httptest.NewServer(hw.Handler())
	t.Cleanup(pcs.Close)
	p, err := New(root, hw.RootSPKI(), pcs.URL)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&p)
	}
	return Write(t, p)
}

// Evidence is what a running guest of the hardware with this app-compose answers to a
// nonce.
func Evidence(hw *simtee.Hardware, name string, compose, nonce []byte) ([]byte, error) {
	hash := sha256.Sum256(compose)
	g, err := hw.Boot(context.Background(), simtee.Boot{Name: name, AppID: cvm.AppID(hash[:20]), ComposeHash: hash, Phase: claim.PhaseRunning})
	if err != nil {
		return nil, err
	}
	ev, err := g.Evidence(context.Background(), guestapi.ReportDataEvidence(nonce, nil))
	if err != nil {
		return nil, err
	}
	return ev.Marshal()
}

// Answer is what the guest of a machine answers to a nonce.
type Answer func(m machine.Machine, compose, nonce []byte) ([]byte, error)

// Prover is a guest for the dry driver: one of the hardware, which answers as the prover
// of a node does, to what answered makes of the nonce it is asked with (nil: to that).
func Prover(t testing.TB, hw *simtee.Hardware, answered func([]byte) []byte) func(machine.Machine) http.Handler {
	return ProverOf(t, func(m machine.Machine, compose, nonce []byte) ([]byte, error) {
		if answered != nil {
			nonce = answered(nonce)
		}
		return Evidence(hw, m.ID, compose, nonce)
	})
}

// ProverOf is a guest for the dry driver that answers as the prover of a node does.
func ProverOf(t testing.TB, answer Answer) func(machine.Machine) http.Handler {
	return func(m machine.Machine) http.Handler {
		doc, err := os.ReadFile(filepath.Join(m.Shared, "app-compose.json"))
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
			b, err := answer(m, doc, nonce)
			if err != nil {
				t.Error(err)
			}
			rpc.WriteJSON(w, http.StatusOK, guestapi.Evidence{Attestation: b, AppCompose: string(doc)})
		})
		return mux
	}
}
