package cli_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/confidential-cloud/phala/attest/check"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

// evidenceTime is when the evidence of testdata/evidence.txtar was made: 1795230000.
func evidenceTime() time.Time { return time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC) }

// writeEvidence writes the files that testdata/evidence.txtar checks: a simulated
// machine's, because nothing else can be made here.
func writeEvidence(dir string) error {
	hw, err := simtee.New(simtee.Config{Seed: bytes.Repeat([]byte{1}, 32), Clock: evidenceTime})
	if err != nil {
		return err
	}
	g, err := hw.Boot(context.Background(), simtee.Boot{Name: "app", AppID: cvm.AppID{7}, Phase: claim.PhaseRunning})
	if err != nil {
		return err
	}
	ev, err := g.Evidence(context.Background(), [64]byte{1})
	if err != nil {
		return err
	}
	att, err := ev.Marshal()
	if err != nil {
		return err
	}
	set, err := hw.Collateral(evidenceTime())
	if err != nil {
		return err
	}
	coll, err := check.EncodeCollateral(set)
	if err != nil {
		return err
	}
	signer, rest := pem.Decode(set.TCBInfoIssuerChain)
	root, _ := pem.Decode(rest)
	spki := hw.RootSPKI()
	flipped := bytes.Clone(ev.Quote)
	flipped[250] ^= 1
	doc := map[string]any{"quote": hex.EncodeToString(ev.Quote), "collateral": coll, "root": hex.EncodeToString(root.Bytes), "at": evidenceTime().Unix()}
	with := func(key string, v any) map[string]any {
		d := maps.Clone(doc)
		if d[key] = v; v == nil {
			delete(d, key)
		}
		return d
	}
	files := map[string]any{
		"sound.json": doc, "no-root.json": with("root", nil), "late.json": with("at", evidenceTime().AddDate(1, 0, 0).Unix()),
		"flipped.json": with("quote", hex.EncodeToString(flipped)),
		"full.json":    map[string]any{"attestation": hex.EncodeToString(att), "collateral": coll, "at": evidenceTime().Unix()},
		"bare.json":    map[string]any{"attestation": hex.EncodeToString(att)}, "collateral.json": coll,
		"mine.json": hw.Policy([64]byte{1}, claim.PhaseRunning), "release.json": hw.Policy([64]byte{1}, claim.PhaseRelease),
		"root.pem": pem.EncodeToMemory(root), "other.pem": pem.EncodeToMemory(signer), "root.spki": []byte(hex.EncodeToString(spki[:])),
	}
	for name, v := range files {
		b, ok := v.([]byte)
		if !ok {
			if b, err = json.Marshal(v); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}
