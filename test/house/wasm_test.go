package house

import (
	"os"
	"os/exec"
	"testing"
)

// TestProofsBuildForTheBrowser: who verifies may do so in a page.
func TestProofsBuildForTheBrowser(t *testing.T) {
	c := exec.Command("go", "build", "./cvm/...", "./appcompose/...", "./keys/...", "./attest", "./attest/claim", "./attest/tdx", "./attest/sevsnp", "./attest/eventlog",
		"./attest/measure", "./attest/collateral", "./attest/refvalue", "./attest/nvidia", "./attest/nitro", "./attest/tpm", "./attest/check", "./ratls/...", "./ledger/...", "./governance", "./templates/web-verifier/wasm")
	c.Dir = "../.."
	c.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm", "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("GOOS=js GOARCH=wasm go build: %v\n%s", err, out)
	}
}
