package attest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"slices"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/tdx"
)

func quoteByte(at int) func(*scene) { return func(s *scene) { s.ev.Quote[at] ^= 1 } }

// Where parts of a version 4 quote of the simulated TEE begin, in bytes.
const (
	sigData = 48 + 584 + 4    // signature data
	qeData  = sigData + 134   // QE report
	qeAuth  = qeData + 448    // length of the auth data, then 32 bytes of it
	pckData = qeAuth + 2 + 32 // certification data: type, length, PEM
)

func quoteRefusals() []refusal {
	parse := []string{claim.QuoteParse}
	return []refusal{
		{"1 trailing bytes", nil, func(s *scene) { s.ev.Quote = append(s.ev.Quote, 1) }, false, parse},
		{"2 truncated", nil, func(s *scene) { s.ev.Quote = s.ev.Quote[:len(s.ev.Quote)-1] }, false, parse},
		{"2 empty", nil, func(s *scene) { s.ev.Quote = nil }, false, parse},
		{"3 signature_data_len 0", nil, func(s *scene) { copy(s.ev.Quote[sigData-4:], []byte{0, 0, 0, 0}) }, false, parse},
		{"4 qe_auth_data_len too long", nil, func(s *scene) { copy(s.ev.Quote[qeAuth:], []byte{0xff, 0xff}) }, false, parse},
		{"3 signature_data_len one too small", nil, func(s *scene) { s.ev.Quote[sigData-4]-- }, false, parse},
		{"4 qe_auth_data_len one too large", nil, func(s *scene) { s.ev.Quote[qeAuth]++ }, false, parse},
		{"4 certification data longer than its field", nil, func(s *scene) { s.ev.Quote[sigData+130]-- }, false, parse},
		{"4 PCK chain longer than its field", nil, func(s *scene) { s.ev.Quote[pckData+2]-- }, false, parse},
		{"5 version 3", nil, func(s *scene) { s.ev.Quote[0] = 3 }, false, parse},
		{"5 version 6", nil, func(s *scene) { s.ev.Quote[0] = 6 }, false, parse},
		{"6 SGX type", nil, func(s *scene) { s.ev.Quote[4] = 0 }, false, parse},
		{"6 SGX quote with the wanted bytes where report data lies", nil, sgxQuote, false, []string{claim.QuoteParse}},
		{"7 P-384 key type", nil, func(s *scene) { s.ev.Quote[2] = 3 }, false, parse},
		{"8 outer certification type 5", nil, func(s *scene) { s.ev.Quote[sigData+128] = 5 }, false, parse},
		{"8 inner certification type 6", nil, func(s *scene) { s.ev.Quote[pckData] = 6 }, false, parse},
		{"9 over 16 KiB", nil, func(s *scene) { s.ev.Quote = append(s.ev.Quote, make([]byte, 16<<10)...) }, false, parse},
		{"10 junk before the first PEM block", nil, func(s *scene) { s.ev.Quote = growPEM(s.ev.Quote, "junk\n", true) }, false, []string{claim.PCKChain}},
		{"10 re-wrapped PEM", nil, func(s *scene) { s.ev.Quote = rewrap(s.ev.Quote) }, false, []string{claim.PCKChain}},
		{"10 fourth certificate", nil, func(s *scene) {
			s.ev.Quote = growPEM(s.ev.Quote, string(s.hw.RootPEM()), true)
		}, false, []string{claim.PCKChain}},
		{"11 v5 body type and size disagree", func(s *scene) { s.cfg.QuoteVersion = 5 }, func(s *scene) { s.ev.Quote[48] = 2 }, false, parse},
		{"11 v5 unknown body type", func(s *scene) { s.cfg.QuoteVersion = 5 }, func(s *scene) { s.ev.Quote[48] = 4 }, false, parse},
		{"11 v5 TD 1.5 body called TD 1.0 with its size", func(s *scene) { s.cfg.QuoteVersion = 5 }, func(s *scene) {
			copy(s.ev.Quote[48:], []byte{2, 0, 0x48, 2})
		}, false, parse},
		{"11 v5 size of another body", func(s *scene) { s.cfg.QuoteVersion = 5 }, func(s *scene) { s.ev.Quote[50] = 0x48 }, false, parse},
		{"12 padding not zero", nil, func(s *scene) { s.ev.Quote = append(s.ev.Quote, 0, 0, 1) }, false, parse},
		{"12 reserved header bytes set", nil, quoteByte(8), false, parse},
		{"13 all-zero signature", nil, func(s *scene) { clear(s.ev.Quote[sigData : sigData+64]) }, false, []string{claim.QuoteSignature}},
		{"14 attestation key replaced", nil, func(s *scene) { resign(s) }, false, []string{claim.QuoteKey}},
		{"15 attestation key off curve", nil, quoteByte(sigData + 64), false, []string{claim.QuoteKey, claim.QuoteSignature}},
		{"15 attestation key at infinity", nil, func(s *scene) { clear(s.ev.Quote[sigData+64 : sigData+128]) }, false, []string{claim.QuoteKey, claim.QuoteSignature}},
		{"16 QE report changed", nil, quoteByte(qeData + 300), false, []string{claim.QEReport}},
		{"16 QE report signature", nil, quoteByte(qeData + 384), false, []string{claim.QEReport}},
		{"16 QE auth data", nil, quoteByte(qeAuth + 2), false, []string{claim.QuoteKey}},
		{"17 QE report data upper half", faults(simtee.Faults{QE: simtee.QEReportData}), nil, false, []string{claim.QuoteKey}},
		{"16 report data flipped", nil, quoteByte(568), false, []string{claim.QuoteSignature, claim.ReportData}},
		{"16 MRTD flipped", nil, quoteByte(48 + 136), false, []string{claim.QuoteSignature, claim.ImageMeasurement}},
	}
}

// sgxQuote is a quote of the SGX layout, whose report is 200 bytes shorter, with
// what the policy wants to see at the place of a TD's report data.
func sgxQuote(s *scene) {
	sgx := slices.Concat(s.ev.Quote[:48], s.ev.Quote[qeData:qeData+384])
	binary.LittleEndian.PutUint32(sgx[4:], 0)
	sgx = binary.LittleEndian.AppendUint32(sgx, 1024)
	sgx = append(sgx, make([]byte, 1024)...)
	copy(sgx[tdx.ReportDataOffset:], s.ev.ReportData[:])
	s.ev.Quote = sgx
}

// rewrap moves a line end of the first certificate: the same bytes to a lenient reader.
func rewrap(q []byte) []byte {
	q = slices.Clone(q)
	line := bytes.Index(q, []byte("-----BEGIN CERTIFICATE-----\n")) + 28
	q[line+64], q[line+63] = q[line+63], q[line+64]
	return q
}

// growPEM inserts text before (or after) the PCK chain and mends the lengths.
func growPEM(q []byte, text string, before bool) []byte {
	i := bytes.Index(q, []byte("-----BEGIN"))
	add := func(at int) {
		binary.LittleEndian.PutUint32(q[at:], binary.LittleEndian.Uint32(q[at:])+uint32(len(text)))
	}
	q = slices.Clone(q)
	add(sigData - 4)
	add(sigData + 130)
	add(i - 4)
	if !before {
		i = len(q) - 1
	}
	return slices.Concat(q[:i], []byte(text), q[i:])
}

// resign puts an attacker's key into the quote and signs with it.
func resign(s *scene) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	pub, err := k.PublicKey.Bytes()
	if err != nil {
		s.t.Fatal(err)
	}
	digest := sha256.Sum256(s.ev.Quote[:sigData-4])
	der, err := ecdsa.SignASN1(rand.Reader, k, digest[:])
	if err != nil {
		s.t.Fatal(err)
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		s.t.Fatal(err)
	}
	rs.R.FillBytes(s.ev.Quote[sigData : sigData+32])
	rs.S.FillBytes(s.ev.Quote[sigData+32 : sigData+64])
	copy(s.ev.Quote[sigData+64:], pub[1:])
}
