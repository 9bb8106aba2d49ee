package guestagent

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/guest-agent/serve"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ratls"
)

// Simulate serves dstack.sock, tappd.sock and external.sock in dir from the
// reference's simulator fixtures there: app-compose.json, appkeys.json,
// sys-config.json and attestation.bin; a directory without them gets its own, with
// fresh keys. Report data is patched into the captured
// quote, whose signature is then wrong: nobody can take this for a TEE.
func Simulate(ctx context.Context, dir string, log *slog.Logger) error {
	if err := makeFixtures(ctx, dir); err != nil {
		return fmt.Errorf("simulator: making its files: %w", err)
	}
	b, err := fixtures(dir, log)
	if err != nil {
		return fmt.Errorf("simulator: %w", err)
	}
	a := &Agent{cfg: Under(dir), log: log, host: newHost("")}
	defer a.group.Stop() //nolint:errcheck // sockets of a development tool
	for name, h := range map[string]http.Handler{"dstack.sock": b.Dstack(), "tappd.sock": b.Tappd(), "external.sock": b.External()} {
		if err := a.listen(ctx, name, filepath.Join(dir, name), 0o777, h); err != nil {
			return err
		}
	}
	log.Warn("SIMULATED: serving fixtures, no TEE", "dir", dir)
	return a.group.Wait(ctx)
}

type fixtureKeys struct {
	App    guestapi.Hex `json:"k256_key"`
	Sig    guestapi.Hex `json:"k256_signature"`
	CACert string       `json:"ca_cert"`
	Source struct {
		None struct {
			Key string `json:"key"`
		} `json:"None"`
	} `json:"key_provider"`
}

func fixtures(dir string, log *slog.Logger) (*serve.Backend, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "app-compose.json"))
	if err != nil {
		return nil, err
	}
	app, err := appcompose.Parse(raw)
	if err != nil {
		return nil, err
	}
	var k fixtureKeys
	var sys guestapi.SysConfig
	for name, v := range map[string]any{"appkeys.json": &k, "sys-config.json": &sys} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(b, v); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	ca, err := fixtureCA(k)
	if err != nil {
		return nil, err
	}
	att, err := os.ReadFile(filepath.Join(dir, "attestation.bin"))
	if err != nil {
		return nil, err
	}
	ev, err := attest.ParseEvidence(att)
	if err != nil {
		return nil, err
	}
	l, err := eventlog.ReadLaunch(ev.RuntimeEvents)
	if err != nil {
		return nil, err
	}
	return &serve.Backend{
		Log: log, Now: time.Now, App: app, AppID: l.AppID, InstanceID: l.InstanceID, KeyProvider: l.KeyProvider,
		VMConfig: sys.VMConfig, ComposeHash: l.ComposeHash, OSImageHash: l.OSImageHash,
		AppKey: keys.NewSecret(k.App), AppSig: k.Sig, Evidence: patched(ev), QuoteAttestation: true,
		Sign: func(_ context.Context, key *ecdsa.PrivateKey, c kmsapi.CertConfig) ([]string, error) {
			return IssueLocal(ca, &key.PublicKey, l.AppID, c, time.Now())
		},
		DataDir: dir, Simulated: true,
	}, nil
}

func fixtureCA(k fixtureKeys) (*ratls.Authority, error) {
	cert, _ := pem.Decode([]byte(k.CACert))
	key, _ := pem.Decode([]byte(k.Source.None.Key))
	if cert == nil || key == nil {
		return nil, fmt.Errorf("appkeys.json: ca_cert and key_provider.None.key must be PEM")
	}
	c, err := x509.ParseCertificate(cert.Bytes)
	if err != nil {
		return nil, fmt.Errorf("appkeys.json: %w", err)
	}
	p, err := x509.ParsePKCS8PrivateKey(key.Bytes)
	if err != nil {
		return nil, fmt.Errorf("appkeys.json: the CA key cannot be read")
	}
	ec, ok := p.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("appkeys.json: the CA key is not an EC key")
	}
	return &ratls.Authority{Cert: c, Key: ec}, nil
}

// patched puts report data into a copy of the captured quote.
func patched(ev attest.Evidence) func(context.Context, [64]byte) (attest.Evidence, error) {
	return func(_ context.Context, rd [64]byte) (attest.Evidence, error) {
		e := ev
		e.Quote = append([]byte{}, ev.Quote...)
		copy(e.Quote[tdx.ReportDataOffset:], rd[:])
		e.ReportData, e.Encoding = rd, attest.EncodingAuto
		return e, nil
	}
}
