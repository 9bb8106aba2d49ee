package simtee

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"slices"

	"github.com/confidential-cloud/phala/cvm"
)

// deterministic signs by RFC 6979 whatever randomness is offered.
type deterministic struct{ *ecdsa.PrivateKey }

func (d deterministic) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return d.PrivateKey.Sign(nil, digest, opts)
}

// signRaw signs sha256(msg) as r || s.
func signRaw(k *ecdsa.PrivateKey, msg []byte) ([]byte, error) {
	digest := sha256.Sum256(msg)
	der, err := deterministic{k}.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		return nil, err
	}
	out := make([]byte, 64)
	rs.R.FillBytes(out[:32])
	rs.S.FillBytes(out[32:])
	return out, nil
}

// rawKey is X || Y.
func rawKey(k *ecdsa.PrivateKey) ([]byte, error) {
	b, err := k.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	return b[1:], nil
}

func le16(b []byte, v int) []byte { return binary.LittleEndian.AppendUint16(b, uint16(v)) } //nolint:gosec // small constants and lengths
func le32(b []byte, v int) []byte { return binary.LittleEndian.AppendUint32(b, uint32(v)) } //nolint:gosec // lengths

func qeSigner() [32]byte { return sha256.Sum256([]byte("phala-simtee quoting enclave signer")) }
func seamID() [48]byte {
	a, b := sha256.Sum256([]byte("phala-simtee tdx module")), sha256.Sum256([]byte("phala-simtee tdx module 1.5"))
	return [48]byte(slices.Concat(a[:], b[:16]))
}

// qeReport is the quoting enclave's report over the attestation key.
func (h *Hardware) qeReport(ak, auth []byte) []byte {
	r := make([]byte, 384)
	svn := sgxSVN()
	copy(r, svn[:])
	copy(r[48:], []byte{0x15, 0, 0, 0, 0, 0, 0, 0, 0xe7})
	enclave := sha256.Sum256([]byte("phala-simtee quoting enclave"))
	copy(r[64:], enclave[:])
	signer := qeSigner()
	copy(r[128:], signer[:])
	binary.LittleEndian.PutUint16(r[256:], qeProdID)
	binary.LittleEndian.PutUint16(r[258:], qeSVN)
	bound := sha256.Sum256(slices.Concat(ak, auth))
	copy(r[320:], bound[:])
	switch h.cfg.Faults.QE {
	case QEDebug:
		r[48] |= 2
	case QEOtherSigner:
		r[128] ^= 1
	case QEProduct:
		r[256]++
	case QETooOld:
		r[258] = 0
	case QEReportData:
		r[383] = 1 // the upper half must be zero
	}
	if edit := h.cfg.Faults.QEReport; edit != nil {
		edit(r)
	}
	return r
}

// makeQE prepares what every quote of this machine ends with: certification data
// (QE report, its signature, auth data, PCK chain).
func (h *Hardware) makeQE() error {
	ak, err := rawKey(h.keys[keyAK])
	if err != nil {
		return err
	}
	auth := make([]byte, 32)
	for i := range auth {
		auth[i] = byte(i)
	}
	report := h.qeReport(ak, auth)
	sig, err := signRaw(h.keys[certPCK], report)
	if err != nil {
		return err
	}
	chain := append(slices.Concat(h.pem[certPCK], h.pem[certCA], h.pem[certRoot]), 0)
	data := slices.Concat(report, sig)
	data = append(le16(data, len(auth)), auth...)
	data = append(le32(le16(data, 5), len(chain)), chain...)
	h.qePart = append(le32(le16(ak, 6), len(data)), data...)
	return nil
}

// quote builds and signs a quote over a TD report body.
func (h *Hardware) quote(body []byte) ([]byte, error) {
	version := max(h.cfg.QuoteVersion, 4)
	q := le16(nil, version)
	q = le16(q, 2)
	q = le32(q, 0x81)
	q = le32(q, 0)
	vendor := []byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}
	if h.cfg.Faults.QE == QEVendor {
		vendor[0]++
	}
	qeID := sha256.Sum256(h.ppid)
	q = slices.Concat(q, vendor, qeID[:16], make([]byte, 4))
	if version == 5 {
		q = le32(le16(q, 3), len(body))
	}
	q = append(q, body...)
	sig, err := signRaw(h.keys[keyAK], q)
	if err != nil {
		return nil, fmt.Errorf("signing the quote: %w", err)
	}
	q = le32(q, len(sig)+len(h.qePart))
	return slices.Concat(q, sig, h.qePart), nil
}

// report is the TD report body: TD 1.0 (584 bytes), or TD 1.5 (648) in version 5.
func (h *Hardware) report(s Shape, rtmr3 cvm.Measurement, reportData [64]byte) []byte {
	h.mu.Lock()
	f := h.faults
	h.mu.Unlock()
	svn := tdxSVN()
	if f.ModuleMajor != 0 {
		svn[1] = f.ModuleMajor
	}
	seam, signer := seamID(), [48]byte{}
	if f.SeamSigner {
		signer[0] = 1
	}
	b := slices.Concat(svn[:], seam[:], signer[:])
	b = binary.LittleEndian.AppendUint64(b, f.SeamAttribute)
	b = binary.LittleEndian.AppendUint64(b, s.Attributes)
	b = binary.LittleEndian.AppendUint64(b, s.XFAM)
	b = append(b, s.MRTD[:]...)
	b = append(b, s.MRConfigID[:]...)
	b = append(b, make([]byte, 48+48)...) // MROWNER, MROWNERCONFIG
	for _, r := range s.RTMR {
		b = append(b, r[:]...)
	}
	b = slices.Concat(b, rtmr3[:], reportData[:])
	if h.cfg.QuoteVersion == 5 {
		b = slices.Concat(b, svn[:], s.MRServiceTD[:])
	}
	if f.Body != nil {
		f.Body(b)
	}
	return b
}
