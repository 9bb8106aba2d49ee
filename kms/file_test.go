package kms

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/internal/config"
)

// What config.Save writes, phala-kms reads back.
func TestFileRoundTrip(t *testing.T) {
	f := DefaultFile()
	c := &f.KMS
	c.ID, c.Dir, c.Bootstrap, c.Raft, c.RPC, c.URLs = "kms-1", "d", true, "127.0.0.1:1", []string{"127.0.0.1:2"}, []string{"https://h:2"}
	c.VMConfig, c.SimTEE, c.CollateralURLs = testVMConfig, "s", []string{"http://127.0.0.1:1"}
	c.Attestation.SimulatedRoots, c.Attestation.Variants = []string{strings.Repeat("ab", 32)}, []string{"container"}
	f.Governance.Static = "allow.json"
	path := filepath.Join(t.TempDir(), "kms.toml")
	if err := config.Save(path, &f); err != nil {
		t.Fatal(err)
	}
	back := DefaultFile()
	if err := config.Load(path, &back); err != nil {
		t.Fatal(err)
	}
	if back.KMS.LeaseTTL != c.LeaseTTL || back.KMS.VMConfig != testVMConfig || back.Governance.Static != "allow.json" {
		t.Errorf("%+v", back)
	}
	back.Governance.RPCURLs = []string{"http://x"}
	if err := back.Validate(); err == nil {
		t.Error("two authorities are accepted")
	}
}
