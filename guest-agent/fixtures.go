package guestagent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/ratls"
)

// fixtureCompose is what the app of a simulator without files of its own runs.
const fixtureCompose = "services:\n  app:\n    image: hello-world\n"

// makeFixtures writes what Simulate serves, where dir has no app-compose.json: fresh
// keys, and evidence of a machine whose root nobody keeps.
func makeFixtures(ctx context.Context, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "app-compose.json")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	raw, err := appcompose.Encode(&appcompose.Document{ManifestVersion: 2, Name: "simulator", Runner: appcompose.RunnerDockerCompose,
		DockerComposeFile: fixtureCompose, KMSEnabled: true, GatewayEnabled: true, PublicLogs: true, PublicSysinfo: true, AllowedEnvs: []string{}})
	if err != nil {
		return err
	}
	doc, err := appcompose.Parse(raw)
	if err != nil {
		return err
	}
	hash := doc.Hash()
	app := cvm.AppID(hash[:20])
	g, att, err := fixtureEvidence(ctx, app, hash)
	if err != nil {
		return err
	}
	appKeys, err := newFixtureKeys(app)
	if err != nil {
		return err
	}
	sys, err := json.Marshal(guestapi.SysConfig{KMSURLs: []string{}, GatewayURLs: []string{}, VMConfig: g.VMConfig})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// app-compose.json comes last: with it, the set is whole.
	for _, f := range []struct {
		name string
		b    []byte
	}{{"attestation.bin", att}, {"appkeys.json", appKeys}, {"sys-config.json", sys}, {"app-compose.json", raw}} {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func fixtureEvidence(ctx context.Context, app cvm.AppID, hash cvm.ComposeHash) (*simtee.Guest, []byte, error) {
	seed := make([]byte, 32)
	if _, err := rand.Read(seed); err != nil {
		return nil, nil, err
	}
	hw, err := simtee.New(simtee.Config{Seed: seed})
	if err != nil {
		return nil, nil, err
	}
	instance := sha256.Sum256(seed)
	g, err := hw.Boot(ctx, simtee.Boot{Name: "simulator", AppID: app, ComposeHash: hash, InstanceID: cvm.InstanceID(instance[:20]), Phase: claim.PhaseRunning})
	if err != nil {
		return nil, nil, err
	}
	ev, err := g.Evidence(ctx, [64]byte{})
	if err != nil {
		return nil, nil, err
	}
	ev.Encoding = attest.EncodingAuto
	b, err := ev.Marshal()
	return g, b, err
}

// newFixtureKeys is appkeys.json with keys that exist only there.
func newFixtureKeys(app cvm.AppID) ([]byte, error) {
	root, err := keys.NewRoot(rand.Reader, 0)
	if err != nil {
		return nil, err
	}
	key, err := root.AppKey(app)
	if err != nil {
		return nil, err
	}
	sig, err := root.AppKeySignature(app)
	if err != nil {
		return nil, err
	}
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(ca)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	authority, err := ratls.NewRoot(ca, ratls.Template{CommonName: "Simulator CA (no TEE)", NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0)})
	if err != nil {
		return nil, fmt.Errorf("simulator CA: %w", err)
	}
	return json.Marshal(map[string]any{
		"k256_key": hex.EncodeToString(key.Reveal()), "k256_signature": hex.EncodeToString(sig), "ca_cert": authority.PEM(),
		"key_provider": map[string]any{"None": map[string]any{"key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))}},
	})
}
