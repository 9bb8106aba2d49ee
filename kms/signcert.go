package kms

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ratls"
)

// handleSignCert certifies a key for an app that holds a lease, while the
// authority still allows it.
func (m *Member) handleSignCert(r *http.Request, req kmsapi.SignCertRequest) (out kmsapi.SignCertResponse, err error) {
	spki, err := clientKey(r)
	if err != nil {
		return out, err
	}
	if err := m.serving(); err != nil {
		return out, err
	}
	pub, conf, err := readCertRequest(req)
	if err != nil {
		return out, err
	}
	rec, err := m.current(r.Context(), req.LeaseID, spki)
	if err != nil {
		return out, err
	}
	l := rec.Lease()
	if err := m.still(r.Context(), l.Boot); err != nil {
		return out, err
	}
	t, err := m.certTemplate(conf)
	if err != nil {
		return out, err
	}
	t.Extensions = ratls.Extensions{AppID: &l.AppID, Usage: ratls.UsageAppCustom}
	if conf.AppInfo {
		t.Extensions.AppInfo = appInfo(l)
	}
	if len(conf.Evidence) > 0 {
		if err := m.checkCertEvidence(r, conf.Evidence, req.PublicKey, l.AppID); err != nil {
			return out, err
		}
		t.Extensions.Attestation = conf.Evidence
	}
	out.Certificates, err = m.certify(rec, pub, t)
	return out, err
}

// maxSubject is X.509's bound of a common name and an organization, in bytes.
const maxSubject = 64

func readCertRequest(req kmsapi.SignCertRequest) (*ecdsa.PublicKey, kmsapi.CertConfig, error) {
	var conf kmsapi.CertConfig
	bad := func(format string, args ...any) (*ecdsa.PublicKey, kmsapi.CertConfig, error) {
		return nil, conf, cvm.Errorf(cvm.Invalid, "sign-cert: "+format, args...)
	}
	k, err := x509.ParsePKIXPublicKey(req.PublicKey)
	if err != nil {
		return bad("public_key: %w", err)
	}
	pub, ok := k.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return bad("public_key: want P-256")
	}
	h := sha256.Sum256(slices.Concat([]byte("phala-sign-cert:v1:"), req.PublicKey, req.Config))
	if !ecdsa.VerifyASN1(pub, h[:], req.Proof) {
		return bad("proof: not a signature of that key over this request")
	}
	d := json.NewDecoder(bytes.NewReader(req.Config))
	d.DisallowUnknownFields()
	if err := d.Decode(&conf); err != nil || d.More() {
		return bad("config: not the expected JSON")
	}
	if len(conf.Subject) > maxSubject || len(conf.OrgName) > maxSubject || len(conf.AltNames) > 64 {
		return bad("config: subject and org_name have at most 64 bytes, alt_names at most 64 entries")
	}
	return pub, conf, nil
}

func (m *Member) certTemplate(c kmsapi.CertConfig) (ratls.Template, error) {
	at := m.now()
	t := ratls.Template{
		CommonName: c.Subject, Organization: c.OrgName, AltNames: c.AltNames, ServerAuth: c.ServerAuth, ClientAuth: c.ClientAuth,
		NotBefore: at.Add(-time.Hour), NotAfter: at.AddDate(10, 0, 0),
	}
	const far = 253402300799 // the end of year 9999, X.509's last
	if c.NotBefore > far || c.NotAfter > far {
		return t, cvm.Errorf(cvm.Invalid, "sign-cert: a date is beyond the year 9999")
	}
	if c.NotBefore != 0 {
		t.NotBefore = time.Unix(int64(c.NotBefore), 0)
	}
	if c.NotAfter != 0 {
		t.NotAfter = time.Unix(int64(c.NotAfter), 0)
	}
	if !t.NotBefore.Before(t.NotAfter) {
		return t, cvm.Errorf(cvm.Invalid, "not_before must be earlier than not_after")
	}
	return t, nil
}

// checkCertEvidence verifies the evidence that goes into a certificate: whoever
// reads it later should not find a quote over another key or of another app.
func (m *Member) checkCertEvidence(r *http.Request, raw, spki []byte, app cvm.AppID) error {
	ev, err := attest.ParseEvidence(raw)
	if err != nil {
		return cvm.Errorf(cvm.Invalid, "sign-cert: evidence: %w", err).WithReason(kmsapi.ReasonEvidence)
	}
	v, err := m.judge(r.Context(), ev, ratls.ReportData(spki), claim.PhaseRunning)
	if err != nil {
		return m.refused(r.Context(), err)
	}
	if v.Claims().AppID != app {
		return cvm.Errorf(cvm.Denied, "sign-cert: the evidence is of another app").WithReason(kmsapi.ReasonEvidence)
	}
	return nil
}
