package kms

import (
	"context"
	"encoding/hex"
	"path/filepath"
	"testing"

	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

// A member as phala-kms runs it: its TD made over the control socket, collateral
// fetched over HTTP; and once more over the same directory.
func TestMemberOverSockets(t *testing.T) {
	dir := t.TempDir()
	hw, err := simtee.New(simtee.Config{Dir: filepath.Join(dir, "hw"), ControlSock: filepath.Join(dir, "tee.sock"), CollateralAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- hw.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	<-hw.Ready()

	mr, err := ExpectedMR(testVMConfig)
	if err != nil {
		t.Fatal(err)
	}
	root := hw.RootSPKI()
	addr := freePort(t)
	cfg := Default()
	cfg.ID, cfg.Dir, cfg.Bootstrap, cfg.Raft = "kms-1", filepath.Join(dir, "1"), true, freePort(t)
	cfg.RPC, cfg.URLs = []string{addr}, []string{"https://" + addr}
	cfg.VMConfig, cfg.SimTEE, cfg.CollateralURLs = testVMConfig, filepath.Join(dir, "tee.sock"), []string{hw.CollateralURL()}
	cfg.Attestation.SimulatedRoots = []string{hex.EncodeToString(root[:])}
	cfg.Attestation.Variants = []string{measure.VariantContainer}
	cfg.Authority = &chain{apps: map[cvm.ComposeHash]bool{}, kms: map[[32]byte]bool{mr: true}, head: 1}
	cfg.Log = testLog(t)

	var origin string
	for range 2 {
		m, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		mctx, mstop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- m.Run(mctx) }()
		select {
		case <-m.Ready():
		case err := <-done:
			t.Fatal(err)
		}
		if origin != "" && m.machine.Origin() != origin {
			t.Error("a restart founded another cluster")
		}
		origin = m.machine.Origin()
		// The second start finds no collateral service: what the first kept is enough.
		cfg.CollateralURLs = []string{"http://127.0.0.1:1"}
		mstop()
		<-done
	}
}

func TestConfigRefusals(t *testing.T) {
	good := func() Config {
		c := Default()
		c.ID, c.Dir, c.Bootstrap, c.Raft, c.RPC, c.URLs = "a", "d", true, ":1", []string{":2"}, []string{"https://h:2"}
		c.VMConfig, c.SimTEE, c.CollateralURLs = testVMConfig, "s", []string{"http://127.0.0.1:1"}
		c.Attestation.SimulatedRoots, c.Attestation.Variants = []string{hex.EncodeToString(make([]byte, 32))}, []string{"container"}
		c.Authority = &chain{}
		return c
	}
	if _, err := New(good()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(c *Config){
		"no authority":   func(c *Config) { c.Authority = nil },
		"no root":        func(c *Config) { c.Attestation.SimulatedRoots = nil },
		"no variant":     func(c *Config) { c.Attestation.Variants = nil },
		"no status":      func(c *Config) { c.Attestation.TCBStatus = nil },
		"no TDX module":  func(c *Config) { c.Attestation.MRSeam = []cvm.Measurement{} },
		"bad evaluation": func(c *Config) { c.Attestation.MinEvalNumber = -1 },
		"revoked":        func(c *Config) { c.Attestation.TCBStatus = []string{"Revoked"} },
		"bad root":       func(c *Config) { c.Attestation.SimulatedRoots = []string{"00"} },
		"no TEE":         func(c *Config) { c.SimTEE = "" },
		"no peers":       func(c *Config) { c.Bootstrap = false },
		"plain http":     func(c *Config) { c.URLs = []string{"http://h"} },
		"bad id":         func(c *Config) { c.ID = "A b" },
		"no staleness":   func(c *Config) { c.MaxStaleness = 0 },
		"no lease":       func(c *Config) { c.LeaseTTL = 0 },
		"no directory":   func(c *Config) { c.Dir = "" },
		"no vm_config":   func(c *Config) { c.VMConfig = "" },
		"no rpc address": func(c *Config) { c.RPC = nil },
		"max_age":        func(c *Config) { c.Fetch.MaxAge = c.Fetch.Refresh - 1 },
		"no refresh":     func(c *Config) { c.Fetch.Refresh = 0 },
		"no timeout":     func(c *Config) { c.Fetch.Timeout = 0 },
		"no bundle":      func(c *Config) { c.Fetch.Bundle = "none.json" },
		"bad bundle":     func(c *Config) { c.Fetch.Bundle = "simtee_test.go" },
		"no CA file":     func(c *Config) { c.Fetch.CAFile = "none.pem" },
		"bad CA file":    func(c *Config) { c.Fetch.CAFile = "simtee_test.go" },
		"cache no dir":   func(c *Config) { c.Fetch.Cache = "simtee_test.go" },
	} {
		c := good()
		spoil(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
