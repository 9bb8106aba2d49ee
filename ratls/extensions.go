package ratls

import (
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

// Extensions are the reference's certificate extensions (dstack-core D.1, arc
// 1.3.6.1.4.1.62397.1, each an OCTET STRING inside extnValue). The issuer's claims
// (AppID, Usage, AppInfo) are worth what the issuer's chain is worth; Attestation
// is evidence, to be verified.
type Extensions struct {
	AppID       *cvm.AppID
	Usage       string
	AppInfo     *AppInfo
	Attestation []byte // attest.Evidence encoding, stripped

	legacyQuote, legacyLog []byte
}

// Last arcs of the extensions.
const (
	arcQuote       = 1 // legacy
	arcEventLog    = 2 // legacy
	arcAppID       = 3
	arcUsage       = 4
	arcAttestation = 8
	arcAppInfo     = 9
)

func arc(n int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 62397, 1, n}
}

// Encode writes the extensions in the reference's order.
func (e Extensions) Encode() ([]pkix.Extension, error) {
	var out []pkix.Extension
	add := func(n int, v []byte) error {
		der, err := asn1.Marshal(v)
		out = append(out, pkix.Extension{Id: arc(n), Value: der})
		return err
	}
	if e.AppID != nil {
		if err := add(arcAppID, e.AppID[:]); err != nil {
			return nil, err
		}
	}
	if e.AppInfo != nil {
		if err := add(arcAppInfo, e.AppInfo.marshal()); err != nil {
			return nil, err
		}
	}
	if e.Usage != "" {
		if err := add(arcUsage, []byte(e.Usage)); err != nil {
			return nil, err
		}
	}
	if len(e.Attestation) != 0 {
		if err := add(arcAttestation, e.Attestation); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// maxUsage bounds CERT_USAGE, in bytes.
const maxUsage = 64

// ParseExtensions reads the reference's extensions of a certificate. Missing ones
// stay zero; malformed ones are an error.
func ParseExtensions(c *x509.Certificate) (e Extensions, err error) {
	seen := map[int]bool{}
	for _, x := range c.Extensions {
		if len(x.Id) != 9 || !x.Id[:8].Equal(arc(0)[:8]) {
			continue
		}
		n := x.Id[8]
		if seen[n] {
			return e, cvm.Errorf(cvm.Invalid, "certificate extension %s appears twice", x.Id)
		}
		seen[n] = true
		var v []byte
		if rest, err := asn1.Unmarshal(x.Value, &v); err != nil || len(rest) != 0 || len(v) > attest.MaxEvidence {
			return e, cvm.Errorf(cvm.Invalid, "certificate extension %s is not an octet string of proper size", x.Id)
		}
		if err := e.set(n, v); err != nil {
			return e, err
		}
	}
	return e, nil
}

func (e *Extensions) set(n int, v []byte) error {
	switch n {
	case arcAppID:
		if len(v) != len(cvm.AppID{}) {
			return cvm.Errorf(cvm.Invalid, "certificate: APP_ID of %d bytes, want 20", len(v))
		}
		id := cvm.AppID(v)
		e.AppID = &id
	case arcUsage:
		if len(v) == 0 || len(v) > maxUsage {
			return cvm.Errorf(cvm.Invalid, "certificate: CERT_USAGE of %d bytes", len(v))
		}
		for _, c := range v {
			if c < 0x21 || c > 0x7e {
				return cvm.Errorf(cvm.Invalid, "certificate: CERT_USAGE is not printable ASCII")
			}
		}
		e.Usage = string(v)
	case arcAppInfo:
		info, err := parseAppInfo(v)
		if err != nil {
			return err
		}
		e.AppInfo = info
	case arcAttestation:
		e.Attestation = v
	case arcQuote:
		e.legacyQuote = v
	case arcEventLog:
		e.legacyLog = v
	}
	return nil
}

// FromCertificate reads the evidence and the extensions of an RA-TLS certificate.
// Nothing is verified: the verifier's policy must demand
// ReportData(c.RawSubjectPublicKeyInfo).
func FromCertificate(c *x509.Certificate) (attest.Evidence, Extensions, error) {
	e, err := ParseExtensions(c)
	if err != nil {
		return attest.Evidence{}, e, err
	}
	switch {
	case len(e.Attestation) != 0:
		ev, err := attest.ParseEvidence(e.Attestation)
		return ev, e, err
	case len(e.legacyQuote) != 0 && len(e.legacyLog) == 0:
		return attest.Evidence{}, e, cvm.Errorf(cvm.Invalid, "TDX event log missing").WithReason("attestation-missing")
	case len(e.legacyQuote) != 0:
		ev, err := legacy(e.legacyQuote, e.legacyLog)
		return ev, e, err
	}
	return attest.Evidence{}, e, cvm.Errorf(cvm.Unauthenticated, "RA-TLS attestation extension missing").WithReason("attestation-missing")
}

const (
	legacyMagic = "ELGZv1"
	maxLegacy   = 16 << 10 // bytes of a decompressed log
)

// legacy reads the form of old images: raw quote, JSON event log (perhaps gzipped).
func legacy(quote, log []byte) (attest.Evidence, error) {
	if z, ok := bytes.CutPrefix(log, []byte(legacyMagic)); ok {
		var err error
		if log, err = unzip(z); err != nil {
			return attest.Evidence{}, err
		}
	}
	events, err := eventlog.ParseJSON(log)
	if err != nil {
		return attest.Evidence{}, err
	}
	q, err := tdx.ParseQuote(quote)
	if err != nil {
		return attest.Evidence{}, err
	}
	return attest.Evidence{Quote: quote, EventLog: events, RuntimeEvents: eventlog.Runtimes(events), ReportData: q.Body.ReportData}, nil
}

// unzip reads one bounded gzip stream and nothing after it.
func unzip(z []byte) ([]byte, error) {
	in := bytes.NewReader(z)
	r, err := gzip.NewReader(in)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "certificate: event log: %w", err)
	}
	r.Multistream(false)
	b, err := io.ReadAll(io.LimitReader(r, maxLegacy+1))
	if err != nil || len(b) > maxLegacy || in.Len() != 0 {
		return nil, cvm.Errorf(cvm.Invalid, "certificate: event log is not one gzip stream of at most %d bytes", maxLegacy)
	}
	return b, nil
}
