package cli_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestStaysSmall: the command that people install links no chain node, no ACME
// server, no container engine, no consensus and no database.
func TestStaysSmall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "github.com/confidential-cloud/phala/cmd/phala").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		if strings.HasPrefix(dep, "github.com/docker/docker-credential-helpers/") {
			continue // comes with go-containerregistry (phala image push) and is not the engine
		}
		for _, heavy := range []string{
			"github.com/ethereum/go-ethereum/eth", "github.com/ethereum/go-ethereum/core/vm", "github.com/ethereum/go-ethereum/core/state",
			"github.com/ethereum/go-ethereum/core/txpool", "github.com/ethereum/go-ethereum/miner", "github.com/ethereum/go-ethereum/node",
			"github.com/ethereum/go-ethereum/ethdb/pebble", "github.com/caddyserver/certmagic", "github.com/letsencrypt/pebble",
			"github.com/cockroachdb/pebble", "github.com/docker/docker", "github.com/hashicorp/raft", "golang.zx2c4.com/wireguard",
			"gvisor.dev/gvisor", "modernc.org/sqlite", "github.com/riverqueue/river", "github.com/danielgtaylor/huma",
		} {
			if dep == heavy || strings.HasPrefix(dep, heavy+"/") || strings.HasPrefix(dep, heavy+"-") {
				t.Errorf("cmd/phala links %s", dep)
			}
		}
		if rest, ok := strings.CutPrefix(dep, "github.com/confidential-cloud/phala/"); ok {
			switch first, _, _ := strings.Cut(rest, "/"); {
			case first == "devcloud", rest == "kms", rest == "vmm", rest == "gateway", rest == "api", rest == "guest-agent":
				t.Errorf("cmd/phala links the service %s", rest)
			}
		}
	}
}
