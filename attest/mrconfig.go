package attest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/cvm"
)

// MRConfig is the reference's MrConfig document, version 3 (dstack-core A.5): what a
// launch is bound to through HOST_DATA (SEV-SNP) or MRCONFIGID (TDX). Members are
// lower-case hex and stand in this order, which is that of their names.
type MRConfig struct {
	AppID            string   `json:"app_id,omitempty"` // 20 bytes; "": the first 20 bytes of the compose hash
	ComposeHash      string   `json:"compose_hash"`
	GPUPolicyHash    string   `json:"gpu_policy_hash,omitempty"`
	InitScriptHashes []string `json:"init_script_hashes,omitempty"`
	InstanceID       string   `json:"instance_id,omitempty"` // 20 bytes
	KeyProvider      string   `json:"key_provider"`          // none, local, kms or tpm
	KeyProviderID    string   `json:"key_provider_id,omitempty"`
	Version          int      `json:"version"` // 3
}

// Limits of a MrConfig document.
const (
	maxMRConfig    = 16 << 10 // bytes
	maxInitScripts = 5
	maxProviderID  = 4 << 10 // bytes
	mrConfigTag    = "dstack-mr-config-v3:\x00"
)

// HostData is the hash that a launch carries of a document.
func HostData(document string) [32]byte { return sha256.Sum256([]byte(mrConfigTag + document)) }

// ParseMRConfig reads a document strictly: every member known and well formed, and
// the whole canonical (RFC 8785), so that it re-encodes to the same bytes.
func ParseMRConfig(document string) (MRConfig, error) {
	var m MRConfig
	if len(document) > maxMRConfig {
		return m, badMRConfig("%d bytes, at most %d", len(document), maxMRConfig)
	}
	if err := collateral.StrictKeys([]byte(document)); err != nil {
		return m, badMRConfig("%w", err)
	}
	d := json.NewDecoder(bytes.NewReader([]byte(document)))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, badMRConfig("%w", err)
	}
	again, err := m.Document()
	if err != nil {
		return m, err
	}
	if again != document {
		return m, badMRConfig("not in canonical form")
	}
	return m, nil
}

// Document is the canonical text of m.
func (m MRConfig) Document() (string, error) {
	if m.Version != 3 {
		return "", badMRConfig("version %d, want 3", m.Version)
	}
	for _, f := range []struct {
		name, value string
		size        int
		optional    bool
	}{
		{"app_id", m.AppID, len(cvm.AppID{}), true}, {"compose_hash", m.ComposeHash, 32, false}, {"gpu_policy_hash", m.GPUPolicyHash, 32, true},
		{"instance_id", m.InstanceID, len(cvm.InstanceID{}), true}, {"key_provider_id", m.KeyProviderID, -1, true},
	} {
		if err := checkHex(f.name, f.value, f.size, f.optional); err != nil {
			return "", err
		}
	}
	if len(m.InitScriptHashes) > maxInitScripts {
		return "", badMRConfig("%d init scripts, at most %d", len(m.InitScriptHashes), maxInitScripts)
	}
	for _, h := range m.InitScriptHashes {
		if err := checkHex("init_script_hashes", h, 32, false); err != nil {
			return "", err
		}
	}
	switch m.KeyProvider {
	case "none", "local", "kms", "tpm":
	default:
		return "", badMRConfig("key_provider %.20q, want none, local, kms or tpm", m.KeyProvider)
	}
	b, err := json.Marshal(m)
	return string(b), err
}

func checkHex(name, v string, size int, optional bool) error {
	if v == "" && optional {
		return nil
	}
	b, err := hex.DecodeString(v)
	if err != nil || hex.EncodeToString(b) != v || size >= 0 && len(b) != size || len(b) > maxProviderID {
		return badMRConfig("%s is not lower-case hex of its length", name)
	}
	return nil
}

func badMRConfig(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, "MrConfig: "+format, args...)
}

// identity is what the document says about the app, in the forms that claims have.
func (m MRConfig) identity() (app cvm.AppID, compose cvm.ComposeHash, instance cvm.InstanceID, provider []byte) {
	fill := func(dst []byte, s string) {
		b, _ := hex.DecodeString(s) // checked by ParseMRConfig
		copy(dst, b)
	}
	fill(compose[:], m.ComposeHash)
	copy(app[:], compose[:])
	fill(app[:], m.AppID)
	fill(instance[:], m.InstanceID)
	return app, compose, instance, fmt.Appendf(nil, `{"name":"%s","id":"%s"}`, m.KeyProvider, m.KeyProviderID)
}
