package vmm

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/internal/config"
)

func goodConfig() Config {
	c := Default()
	c.TokenFile, c.Dir, c.RunDir, c.ImagesDir, c.TEESocket = "/v/token", "/v", "/r", "/i", "/r/tee.sock"
	return c
}

func TestConfigRefusals(t *testing.T) {
	c := goodConfig()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, edit := range map[string]func(*Config){
		"not loopback":         func(c *Config) { c.Listen = "0.0.0.0:8720" },
		"listen \"x\"":         func(c *Config) { c.Listen = "x" },
		"dir \"rel\"":          func(c *Config) { c.Dir = "rel" },
		"token_file \"\"":      func(c *Config) { c.TokenFile = "" },
		"run_dir":              func(c *Config) { c.RunDir = "/" + strings.Repeat("r", 80) },
		"driver \"xen\"":       func(c *Config) { c.Driver = "xen" },
		"qemu.accel \"hvf\"":   func(c *Config) { c.Driver, c.QEMU.Accel = "qemu", "hvf" },
		"qemu.allow_simulated": func(c *Config) { c.Driver, c.QEMU.Accel = "qemu", "tcg" },
		"when qemu.allow_simulated": func(c *Config) {
			c.Driver, c.TEESocket, c.QEMU.AllowSimulated = "qemu", "", true
		},
		"qemu.tb_size":           func(c *Config) { c.Driver, c.QEMU.TBSizeMiB = "qemu", 0 },
		"qemu.disk_format":       func(c *Config) { c.Driver, c.QEMU.DiskFormat = "qemu", "vmdk" },
		"tee_socket":             func(c *Config) { c.TEESocket = "" },
		"amd_kds_url":            func(c *Config) { c.AMDKDSURL = "ftp://kds" },
		"simulate":               func(c *Config) { c.Simulate = "sgx" },
		"simulate snp":           func(c *Config) { c.Driver, c.Simulate = "qemu", SimulateSNP },
		"default_image":          func(c *Config) { c.DefaultImage = "../x" },
		"plain http only":        func(c *Config) { c.DockerRegistry = "http://mirror.example" },
		"docker_registry \"ftp:": func(c *Config) { c.DockerRegistry = "ftp://x" },
		"insecure_registries":    func(c *Config) { c.InsecureRegistries = []string{"8.8.8.8:5000"} },
		"back_off":               func(c *Config) { c.BackOffMax = 1 },
		"capacity":               func(c *Config) { c.Capacity.VCPU = -1 },
		"limits":                 func(c *Config) { c.Limits.MaxVMs = 0 },
		"node.name":              func(c *Config) { c.Node.Name = "" },
	} {
		c := goodConfig()
		edit(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	c.Listen, c.Driver = "0.0.0.0:1", "x"
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "loopback") || !strings.Contains(err.Error(), "driver") {
		t.Errorf("all problems at once: %v", err)
	}
}

func TestConfigFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vmm.toml")
	c := goodConfig()
	c.DockerRegistry, c.InsecureRegistries = "http://172.31.77.1:5080", []string{"172.31.77.1:5081"}
	if err := config.Save(path, &c); err != nil {
		t.Fatal(err)
	}
	got, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.StopGrace != c.StopGrace || got.Network != c.Network || got.Limits != c.Limits || got.DockerRegistry != c.DockerRegistry {
		t.Fatalf("\n got %+v\nwant %+v", got, c)
	}
	if err := os.WriteFile(path, []byte("listen = \"127.0.0.1:1\"\nlissten = \"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(path); err == nil || !strings.Contains(err.Error(), "lissten") {
		t.Fatalf("an unknown key: %v", err)
	}
}

// FuzzGuestMessages: what a guest says never breaks the record.
func FuzzGuestMessages(f *testing.F) {
	f.Add(instanceInfo())
	f.Add(`{"reason":"x","message":"y"}`)
	f.Add("plain text")
	f.Fuzz(func(t *testing.T, payload string) {
		e := parseBootError(payload)
		if e.Reason == "" || e.Message == "" {
			t.Fatalf("an error without reason or message: %+v", e)
		}
		m := &VMM{store: store{dir: t.TempDir()}, now: nowZero, log: slog.New(slog.DiscardHandler)}
		v := m.newVM(record{})
		v.rec.VM.Spec = spec()
		if err := m.store.save(&v.rec); err != nil {
			t.Fatal(err)
		}
		if v.instanceInfo(payload) != nil {
			return
		}
		records, err := m.store.load()
		if err != nil || len(records) != 1 || records[0].VM.InstanceID != v.rec.VM.InstanceID {
			t.Fatalf("%+v %v", records, err)
		}
	})
}

func nowZero() (t time.Time) { return t }
