package simdev

import (
	"crypto/sha512"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/attest/tpm"
)

// TPM is a simulated TPM with an attestation key of P-384.
type TPM struct {
	PKI   PKI
	PCRs  map[int][]byte // the values of the quoted registers
	Quote tpm.Quote      // what is signed; Digest and PCRs are filled in by Evidence
}

// NewTPM makes a TPM whose certificates are valid around at.
func NewTPM(seed string, at time.Time) (*TPM, error) {
	p, err := NewPKI(seed, at, []string{"tpm-ak", "tpm-ca", "tpm-root"}, nil)
	if err != nil {
		return nil, err
	}
	return &TPM{PKI: p, PCRs: map[int][]byte{0: make([]byte, 32)}, Quote: tpm.Quote{
		Signer: append([]byte{0, 0x0b}, make([]byte, 32)...), Bank: tpm.SHA256, Clock: 1000, Resets: 3, Safe: true, Firmware: 0x20160511,
	}}, nil
}

// Evidence quotes the registers for a nonce.
func (t *TPM) Evidence(nonce []byte) (tpm.Evidence, error) {
	q := t.Quote
	q.ExtraData, q.PCRs = nonce, 0
	var all []byte
	for _, i := range slices.Sorted(maps.Keys(t.PCRs)) {
		q.PCRs |= 1 << i
		all = append(all, t.PCRs[i]...)
	}
	d := sha512.Sum384(all)
	q.Digest = d[:]
	raw := EncodeQuote(q)
	sig, err := t.Sign(raw)
	return tpm.Evidence{Quote: raw, Signature: sig, PCRs: maps.Clone(t.PCRs), Chain: t.PKI.DER()[:1]}, err
}

// Sign makes a TPMT_SIGNATURE (ECDSA, SHA-384) with the attestation key.
func (t *TPM) Sign(attest []byte) ([]byte, error) {
	rs, err := signRaw(t.PKI.Keys[0], attest)
	if err != nil {
		return nil, err
	}
	return sized(sized([]byte{0, 0x18, 0, 0x0c}, rs[:48]), rs[48:]), nil
}

// EncodeQuote writes a TPMS_ATTEST.
func EncodeQuote(q tpm.Quote) []byte {
	b := []byte{0xff, 'T', 'C', 'G', 0x80, 0x18}
	b = sized(sized(b, q.Signer), q.ExtraData)
	b = binary.BigEndian.AppendUint64(b, q.Clock)
	b = binary.BigEndian.AppendUint32(b, q.Resets)
	b = binary.BigEndian.AppendUint32(b, q.Restarts)
	safe := byte(0)
	if q.Safe {
		safe = 1
	}
	b = append(b, safe)
	b = binary.BigEndian.AppendUint64(b, q.Firmware)
	b = append(b, 0, 0, 0, 1, byte(q.Bank>>8), byte(q.Bank), 3, byte(q.PCRs), byte(q.PCRs>>8), byte(q.PCRs>>16))
	return sized(b, q.Digest)
}
