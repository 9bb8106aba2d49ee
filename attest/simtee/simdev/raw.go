package simdev

import (
	"crypto"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"math/big"
)

const hashSHA384 = crypto.SHA384

// rawSignature turns an ASN.1 ECDSA signature into r || s of P-384.
func rawSignature(der []byte) ([]byte, error) {
	var v struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &v); err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("signature: %w", err)
	}
	out := make([]byte, 96)
	v.R.FillBytes(out[:48])
	v.S.FillBytes(out[48:])
	return out, nil
}

// sized appends a big-endian 16-bit length and the bytes (TPM2B).
func sized(b, v []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(v))), v...) //nolint:gosec // the callers' values are short
}
