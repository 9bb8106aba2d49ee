package api

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/internal/config"
)

const example = `
listen = "127.0.0.1:8730"
dir = "/var/lib/phala/api"
admin_key_file = "/var/lib/phala/api/admin.key"
trust_profile = "/var/lib/phala/trust.json"

[[node]]
url = "http://127.0.0.1:8720"
token_file = "/var/lib/phala/vmm/token"
region = "here"

[kms]
id = "kms"
urls = ["https://127.0.0.1:8701", "https://127.0.0.1:8702"]
guest_urls = ["https://172.31.77.1:8701"]
root_spki = "3059301306"

[chain]
id = 31337
name = "anvil"
rpc_url = "http://127.0.0.1:8545"
kms_contract = "0x1111111111111111111111111111111111111111"

[gateway]
domain = "dev.localhost"
port = 8443
guest_urls = ["https://172.31.77.1:8740"]

[disk]
min_gb = 10
default_gb = 20
max_gb = 100

[[instance_type]]
id = "tiny"
name = "Tiny"
family = "cpu"
vcpu = 1
memory_mb = 1024
hourly_rate = "0.01"
default_disk_gb = 10
`

func load(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	c.Log = slog.New(slog.DiscardHandler)
	return c, config.Load(path, &c)
}

func TestConfig(t *testing.T) {
	c, err := load(t, example)
	if err != nil {
		t.Fatal(err)
	}
	// A table of sizes replaces the default one: sizes are data.
	if len(c.InstanceTypes) != 1 || c.InstanceTypes[0].ID != "tiny" {
		t.Errorf("instance types: %+v", c.InstanceTypes)
	}
	if c.baseDomain() != "dev.localhost:8443" || c.guestKMS()[0] != "https://172.31.77.1:8701" || c.Disk.MinGB != 10 {
		t.Errorf("config: %+v", c)
	}
	for name, tt := range map[string]struct{ from, to, want string }{
		"unknown key":        {"[disk]", "[disk]\nmin = 3", "min"},
		"no kms pin":         {`root_spki = "3059301306"`, "", "kms.root_spki"},
		"pin not hex":        {`"3059301306"`, `"xyz"`, "kms.root_spki"},
		"no gateway":         {`domain = "dev.localhost"`, "", "gateway.domain"},
		"chain without kms":  {`kms_contract = "0x1111111111111111111111111111111111111111"`, "", "kms_contract"},
		"node without token": {`token_file = "/var/lib/phala/vmm/token"`, "", "token_file"},
		"disk upside down":   {"default_gb = 20", "default_gb = 5", "min_gb <= default_gb"},
		"type without price": {`hourly_rate = "0.01"`, "", "hourly_rate"},
	} {
		bad := strings.Replace(example, tt.from, tt.to, 1)
		if bad == example {
			t.Fatalf("%s: nothing replaced", name)
		}
		if _, err := load(t, bad); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAdminKeyFile(t *testing.T) {
	dir := t.TempDir()
	c, err := load(t, example)
	if err != nil {
		t.Fatal(err)
	}
	c.Dir, c.Nodes, c.KMS.URLs = dir, nil, []string{"https://127.0.0.1:1"}
	c.AdminKeyFile = filepath.Join(dir, "admin.key")
	var first string
	for range 2 {
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(c.AdminKeyFile)
		if err != nil {
			t.Fatal(err)
		}
		key := strings.TrimSpace(string(b))
		if ok, err := s.ValidKey(t.Context(), key); err != nil || !ok {
			t.Errorf("key in file: %v, %v", ok, err)
		}
		if first != "" && key != first {
			t.Error("the second start wrote another key")
		}
		first = key
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Stat(c.AdminKeyFile); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st, err)
	}
	if err := os.WriteFile(c.AdminKeyFile, []byte("phak_other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := New(c); err == nil {
		_ = s.Close()
		t.Error("a key of another database was taken")
	}
}
