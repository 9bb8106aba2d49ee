package devcloud

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStateBelongsToOneProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s, err := OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	var running *RunningError
	if _, err := OpenState(dir); !errors.As(err, &running) || running.PID != os.Getpid() || !strings.Contains(err.Error(), "make down") {
		t.Errorf("a second opener got %v", err)
	}
	if pid, err := Running(dir); err != nil || pid != os.Getpid() {
		t.Errorf("Running: %d, %v", pid, err)
	}
	s.Close()
	if pid, err := Running(dir); err != nil || pid != 0 {
		t.Errorf("Running after Close: %d, %v", pid, err)
	}
	again, err := OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestStateVersions(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{`{"version":1}`, ""},
		{`{"version":2}`, "newer program"},
		{`{"version":0}`, "damaged"},
		{`not json`, "damaged"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenState(dir)
		if tc.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tc.text, err)
				continue
			}
			s.Close()
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.text, err, tc.want)
		}
		if b, _ := os.ReadFile(filepath.Join(dir, "state.json")); string(b) != tc.text {
			t.Errorf("%s: a refusal changed the file to %s", tc.text, b)
		}
	}
}

func TestConfigRefusals(t *testing.T) {
	good, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"state_dir":              func(c *Config) { c.StateDir = "relative" },
		"run_dir":                func(c *Config) { c.RunDir = "/" + strings.Repeat("x", 90) },
		"base_domain":            func(c *Config) { c.BaseDomain = "" },
		"subnet":                 func(c *Config) { c.Subnet = "172.31" },
		"members":                func(c *Config) { c.Members = 2 },
		"chain_id":               func(c *Config) { c.ChainID = 0 },
		"simulate":               func(c *Config) { c.Simulate = "sgx" },
		"needs driver container": func(c *Config) { c.Driver, c.Simulate = DriverQEMU, "snp" },
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

// Every port has its own number, whatever the base.
func TestPortsDoNotMeet(t *testing.T) {
	seen := map[string]string{}
	p := PortsFrom(8700)
	for _, n := range p.list() {
		if other, ok := seen[n.addr]; ok {
			t.Errorf("%s and %s share %s", n.what, other, n.addr)
		}
		seen[n.addr] = n.what
	}
	for i := range 7 { // the largest cluster
		for _, addr := range []string{loopback(p.KMS + i), loopback(p.KMSRaft + i)} {
			if what, ok := seen[addr]; ok && !strings.HasPrefix(what, "KMS") {
				t.Errorf("member %d shares %s with %s", i, addr, what)
			}
		}
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	cfg, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	cfg.StateDir = t.TempDir()
	l, err := listenAnywhere()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg.Ports.API = portOf(l)
	err = preflightPorts(cfg)
	if err == nil || !strings.Contains(err.Error(), "cloud API") || !strings.Contains(err.Error(), "--port-base") {
		t.Errorf("got %v", err)
	}
}

func listenAnywhere() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
