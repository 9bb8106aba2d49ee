package kmsapi

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// DO NOT CHANGE: guests in the field compute these (docs/spec/formats.md).
func TestReportDataVectors(t *testing.T) {
	nonce := bytes.Repeat([]byte{1}, 56)
	for want, got := range map[string][64]byte{
		"175e2aabc1c37cdd5f0a70c12d6a24bcabc3f7b328a0e628bc63c5585e5d287da050c24966f5a2c3a89f7eb7c8a4c82124e8ae4fcfa7fc4839ee656733d2649f": ReportDataRelease(nonce, []byte("spki"), []byte("{}")),
		"e1d8ffcbb368841d40ce038a5bc78d3a0c6ddc630f1066dab705724ad50ec6b27b65eb6b8db976c387c02490c616c18683444d464b216be5eb46c3aa59a017e9": ReportDataRenew(nonce, []byte("spki"), "lease"),
	} {
		if hex.EncodeToString(got[:]) != want {
			t.Errorf("got %x, want %s", got, want)
		}
	}
}
