package ratls

import (
	"encoding/hex"
	"testing"
)

// Frozen: docs/spec/formats.md. DO NOT CHANGE.
func TestFreshBindingVector(t *testing.T) {
	exporter, nonce := make([]byte, exporterSize), []byte("0123456789abcdef")
	for _, tc := range []struct {
		server           bool
		prover, verifier string
		want             string
	}{
		{true, "prover", "verifier", "94099d1b47aab1ff1aa028f1c1de449928c0bf5e429d5864038f6ba2fcc9f04da60b0e848ceb34053f49ba33175ec6c391356a71a40d62c32b20441c3bf690ad"},
		{false, "prover", "verifier", "49309a7b31dacdd7ce1e8e466b5b4a14b2f3b6f56ef36c59f182b6896dd72f5e09318352cfade8a666b4d57a0980640e62d3da45bb0fb8698f64bbd526e746d0"},
		{true, "prover", "", "e8a67627fed712bb1830d077b2de203ae1097f7398e7bf10b5690b9e17a428c5c96c10c3e6032d67e5eb27c0965ff9e746340aa28d64aa18db3f1058c36d45f6"},
	} {
		got := bind(exporter, tc.server, []byte(tc.prover), []byte(tc.verifier), nonce)
		if hex.EncodeToString(got[:]) != tc.want {
			t.Errorf("%+v: got %x", tc, got)
		}
	}
}
