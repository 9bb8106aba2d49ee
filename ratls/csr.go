package ratls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"slices"
	"unicode/utf8"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/cvm"
)

// CertRequest is the reference's certificate request, version 2 (dstack-core C.6):
// SCALE, with the attestation as the raw tail. The attestation's report data must be
// ReportData of PublicKey.
type CertRequest struct {
	PublicKey   []byte // DER SubjectPublicKeyInfo
	OrgName     *string
	Subject     string
	AltNames    []string
	ServerAuth  bool
	ClientAuth  bool
	Quote       bool // put the attestation into the certificate
	AppInfo     bool
	NotBefore   *uint64 // unix seconds
	NotAfter    *uint64 // unix seconds
	Attestation []byte  // attest.Evidence encoding
}

// csrConfirm opens every request, so that no other signed text is one.
const csrConfirm = "please sign cert:"

// Bounds of a request: bytes of a text or key, entries of AltNames.
const (
	maxCSRText  = 4096
	maxAltNames = 64
)

func compact(b []byte, n int) []byte {
	switch {
	case n < 1<<6:
		return append(b, byte(n<<2)) // #nosec G115 -- below 64
	case n < 1<<14:
		return binary.LittleEndian.AppendUint16(b, uint16(n<<2|1)) // #nosec G115 -- below 2^14
	}
	return binary.LittleEndian.AppendUint32(b, uint32(n<<2|2)) // #nosec G115 -- bounded by MaxEvidence
}

func flag(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func seconds(b []byte, v *uint64) []byte {
	if v == nil {
		return append(b, 0)
	}
	return binary.LittleEndian.AppendUint64(append(b, 1), *v)
}

// Encode writes the request: the bytes that its key signs.
func (r *CertRequest) Encode() []byte {
	text := func(b []byte, s string) []byte { return append(compact(b, len(s)), s...) }
	b := text(nil, csrConfirm)
	b = text(b, string(r.PublicKey))
	if r.OrgName == nil {
		b = append(b, 0)
	} else {
		b = text(append(b, 1), *r.OrgName)
	}
	b = compact(text(b, r.Subject), len(r.AltNames))
	for _, n := range r.AltNames {
		b = text(b, n)
	}
	for _, v := range []bool{r.ServerAuth, r.ClientAuth, r.Quote, r.AppInfo} {
		b = flag(b, v)
	}
	return append(seconds(seconds(b, r.NotBefore), r.NotAfter), r.Attestation...)
}

// ParseCertRequest reads a request; only canonical bytes are one. Nothing is
// verified: call Verify.
func ParseCertRequest(raw []byte) (*CertRequest, error) {
	bad := func(what string) (*CertRequest, error) {
		return nil, cvm.Errorf(cvm.Invalid, "certificate request: %s", what)
	}
	if len(raw) > attest.MaxEvidence {
		return bad("too long")
	}
	c := &csrReader{b: slices.Clone(raw)}
	if string(c.bytes()) != csrConfirm {
		return bad("it does not ask to sign a certificate")
	}
	r := &CertRequest{PublicKey: c.bytes()}
	if c.flag() {
		s := c.text()
		r.OrgName = &s
	}
	r.Subject = c.text()
	n := c.compact()
	if n > maxAltNames {
		return bad("too many alternative names")
	}
	for range n {
		r.AltNames = append(r.AltNames, c.text())
	}
	for _, v := range []*bool{&r.ServerAuth, &r.ClientAuth, &r.Quote, &r.AppInfo} {
		*v = c.flag()
	}
	r.NotBefore, r.NotAfter = c.seconds(), c.seconds()
	if c.bad || len(c.b) == 0 {
		return bad("malformed or truncated")
	}
	r.Attestation = c.b
	return r, nil
}

// Verify checks that the request's own key (P-256) signed it: signature is ASN.1
// ECDSA over sha256 of the encoding.
func (r *CertRequest) Verify(signature []byte) (*ecdsa.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(r.PublicKey)
	pub, ok := k.(*ecdsa.PublicKey)
	if err != nil || !ok || pub.Curve != elliptic.P256() {
		return nil, cvm.Errorf(cvm.Invalid, "certificate request: the public key is not P-256")
	}
	h := sha256.Sum256(r.Encode())
	if !ecdsa.VerifyASN1(pub, h[:], signature) {
		return nil, cvm.Errorf(cvm.Unauthenticated, "certificate request: not signed by its own key").WithReason(ReasonSignature)
	}
	return pub, nil
}

// csrReader is a bounds-checked SCALE reader; after an error bad stays set.
type csrReader struct {
	b   []byte
	bad bool
}

func (c *csrReader) take(n int) []byte {
	if c.bad || n > len(c.b) {
		c.bad = true
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

// compact reads a length in its shortest form.
func (c *csrReader) compact() int {
	p := c.take(1)
	if p == nil {
		return 0
	}
	var n int
	switch p[0] & 3 {
	case 0:
		return int(p[0] >> 2)
	case 1:
		if q := c.take(1); q != nil {
			n = int(binary.LittleEndian.Uint16([]byte{p[0], q[0]}) >> 2)
		}
		c.bad = c.bad || n < 1<<6
	default: // longer than any bound here
		c.bad = true
	}
	return n
}

func (c *csrReader) bytes() []byte {
	n := c.compact()
	if n > maxCSRText {
		c.bad = true
	}
	return c.take(n)
}

func (c *csrReader) text() string {
	b := c.bytes()
	c.bad = c.bad || !utf8.Valid(b)
	return string(b)
}

func (c *csrReader) flag() bool {
	b := c.take(1)
	if b == nil || b[0] > 1 {
		c.bad = true
		return false
	}
	return b[0] == 1
}

func (c *csrReader) seconds() *uint64 {
	if !c.flag() {
		return nil
	}
	b := c.take(8)
	if b == nil {
		return nil
	}
	v := binary.LittleEndian.Uint64(b)
	return &v
}
