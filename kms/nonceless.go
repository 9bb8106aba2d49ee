package kms

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"sync"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/keyring"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ratls"
)

// The reference's guests ask for keys with a TLS certificate that carries a quote over
// its key, and no nonce: nothing tells how old the quote is, only that whoever has the
// TLS key caused it. Keys are released to them where the configuration says so, once
// per TLS key, and the ledger says NO NONCE. They hold no lease, so that nothing stops
// them while they run: what they lose is certificates.

// nonceless refuses where the configuration does not admit such guests.
func (m *Member) nonceless() error {
	if m.cfg.AllowNonceless {
		return m.serving()
	}
	return cvm.Errorf(cvm.Denied, "this KMS releases nothing to guests that send no nonce").WithReason("nonceless-not-allowed").
		WithFix("use a guest image of this cloud, or set allow_nonceless in the KMS's configuration")
}

// tempCA signs the certificates that the reference's guests make for their one call.
// Its key is given to anyone: it proves nothing and is believed by nobody.
type tempCA struct {
	once sync.Once
	cert string
	key  string
	err  error
}

func (t *tempCA) make(m *Member) error {
	t.once.Do(func() {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.err = err
			return
		}
		at := m.now()
		ca, err := ratls.NewTempCA(k, ratls.Template{CommonName: "Dstack Client Temp CA", Organization: "Dstack",
			NotBefore: at.Add(-ratls.Backdate), NotAfter: at.AddDate(10, 0, 0)})
		if err != nil {
			t.err = err
			return
		}
		der, err := x509.MarshalPKCS8PrivateKey(k)
		t.cert, t.err = ca.PEM(), err
		t.key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	})
	return t.err
}

type tempCAAnswer struct {
	Cert string `json:"temp_ca_cert"`
	Key  string `json:"temp_ca_key"`
	CA   string `json:"ca_cert"`
}

func (m *Member) refTempCA(context.Context) (tempCAAnswer, error) {
	if err := m.nonceless(); err != nil {
		return tempCAAnswer{}, err
	}
	err := m.temp.make(m)
	return tempCAAnswer{m.temp.cert, m.temp.key, m.rootPEM()}, err
}

type appKeyRequest struct {
	APIVersion uint32 `json:"api_version"`
	VMConfig   string `json:"vm_config"`
}

type appKeyAnswer struct {
	CACert       string `json:"ca_cert"`
	DiskKey      string `json:"disk_crypt_key"`
	EnvKey       string `json:"env_crypt_key"`
	AppKey       string `json:"k256_key"`
	AppKeySig    string `json:"k256_signature"`
	TproxyAppID  string `json:"tproxy_app_id"`
	GatewayAppID string `json:"gateway_app_id"`
	OSImageHash  string `json:"os_image_hash"`
}

// refAppKey is GetAppKey: Verify -> Authorize -> Record -> Release, as handleRelease.
func (m *Member) refAppKey(ctx context.Context, req appKeyRequest, st *tls.ConnectionState) (out appKeyAnswer, err error) {
	if err := m.nonceless(); err != nil {
		return out, err
	}
	if req.APIVersion > 1 {
		return out, cvm.Errorf(cvm.Unsupported, "Unsupported API version: %d", req.APIVersion)
	}
	if st == nil || len(st.PeerCertificates) == 0 {
		return out, cvm.Errorf(cvm.Unauthenticated, "No attestation provided")
	}
	leaf := st.PeerCertificates[0]
	ev, _, err := ratls.FromCertificate(leaf)
	if cvm.ReasonOf(err) == "attestation-missing" {
		return out, cvm.Errorf(cvm.Unauthenticated, "No attestation provided: %w", err)
	}
	if err != nil {
		return out, m.refused(ctx, &refusal{err: asCoded(err)})
	}
	if ev.Config == "" {
		ev.Config = req.VMConfig // proven, as that in the evidence, by what was measured
	}
	v, err := m.judge(ctx, ev, ratls.ReportData(leaf.RawSubjectPublicKeyInfo), claim.PhaseRelease)
	if err != nil {
		return out, m.refused(ctx, err)
	}
	asked := &verified{v: v, client: hashHex(leaf.RawSubjectPublicKeyInfo), noNonce: true}
	if err := m.checkLaunch(asked); err != nil {
		return out, m.refused(ctx, err)
	}
	a, err := m.authorize(ctx, asked)
	if err != nil {
		return out, m.refused(ctx, err)
	}
	rec, err := m.record(ctx, a)
	if err != nil {
		return out, m.refused(ctx, err)
	}
	ks, err := m.vault.Load().AppKeys(rec)
	if err != nil {
		return out, err
	}
	l := rec.Lease()
	m.log.Info("released", "app", l.AppID, "instance", l.InstanceID, "leaf", l.Leaf, "simulated", l.Simulated, "nonceless", true)
	return appKeyAnswer{
		CACert: m.rootPEM(), DiskKey: hex.EncodeToString(ks.Disk.Reveal()), EnvKey: hex.EncodeToString(ks.Env.Reveal()),
		AppKey: hex.EncodeToString(ks.App.Reveal()), AppKeySig: hex.EncodeToString(ks.AppSignature),
		GatewayAppID: a.decision.GatewayAppID, OSImageHash: v.Claims().OSImageHash.String(),
	}, nil
}

// usedKey is what a nonceless release redeems: its TLS key.
func usedKey(client string) keyring.Once {
	h := sha256.Sum256([]byte("phala-nonceless-key:v1:" + client))
	return keyring.Once{ID: hex.EncodeToString(h[:])}
}

type refSignCertRequest struct {
	APIVersion uint32 `json:"api_version"`
	CSR        string `json:"csr"`
	Signature  string `json:"signature"`
	VMConfig   string `json:"vm_config"`
}

type refSignCertAnswer struct {
	Chain []string `json:"certificate_chain"`
}

// refSignCert is SignCert, version 2: evidence in the request, over its key, of the boot
// that a nonceless release was recorded for.
func (m *Member) refSignCert(ctx context.Context, req refSignCertRequest) (out refSignCertAnswer, err error) {
	if err := m.nonceless(); err != nil {
		return out, err
	}
	csr, ev, err := readRefCSR(req)
	if err != nil {
		return out, err
	}
	pub, err := csr.Verify(unhex(req.Signature))
	if err != nil {
		return out, cvm.Errorf(cvm.Unauthenticated, "Failed to verify csr signature: %w", err)
	}
	v, err := m.judge(ctx, ev, ratls.ReportData(csr.PublicKey), claim.PhaseRunning)
	if err != nil {
		return out, m.refused(ctx, err)
	}
	if err := m.barrier(ctx); err != nil {
		return out, err
	}
	rec, err := m.machine.Nonceless(v.Claims())
	if err != nil {
		return out, err
	}
	l := rec.Lease()
	if err := m.still(ctx, l.Boot); err != nil {
		return out, err
	}
	t, err := m.certTemplate(configOf(csr))
	if err != nil {
		return out, err
	}
	t.Extensions = ratls.Extensions{AppID: &l.AppID, Usage: ratls.UsageAppCustom}
	if csr.AppInfo {
		t.Extensions.AppInfo = appInfo(l)
	}
	if csr.Quote {
		t.Extensions.Attestation = csr.Attestation
	}
	out.Chain, err = m.certify(rec, pub, t)
	return out, err
}

func readRefCSR(req refSignCertRequest) (*ratls.CertRequest, attest.Evidence, error) {
	if req.APIVersion != 2 {
		return nil, attest.Evidence{}, cvm.Errorf(cvm.Unsupported, "Unsupported API version: %d", req.APIVersion)
	}
	csr, err := ratls.ParseCertRequest(unhex(req.CSR))
	if err != nil {
		return nil, attest.Evidence{}, cvm.Errorf(cvm.Invalid, "Failed to parse csr: %w", err)
	}
	if len(csr.Subject) > maxSubject || csr.OrgName != nil && len(*csr.OrgName) > maxSubject {
		return nil, attest.Evidence{}, cvm.Errorf(cvm.Invalid, "Failed to parse csr: subject and org_name have at most %d bytes", maxSubject)
	}
	ev, err := attest.ParseEvidence(csr.Attestation)
	if err != nil {
		return nil, attest.Evidence{}, cvm.Errorf(cvm.Invalid, "Failed to parse csr: attestation: %w", err).WithReason(kmsapi.ReasonEvidence)
	}
	if ev.Config == "" {
		ev.Config = req.VMConfig
	}
	return csr, ev, nil
}

func configOf(r *ratls.CertRequest) (c kmsapi.CertConfig) {
	c.Subject, c.AltNames, c.ServerAuth, c.ClientAuth = r.Subject, r.AltNames, r.ServerAuth, r.ClientAuth
	if r.OrgName != nil {
		c.OrgName = *r.OrgName
	}
	if r.NotBefore != nil {
		c.NotBefore = *r.NotBefore
	}
	if r.NotAfter != nil {
		c.NotAfter = *r.NotAfter
	}
	return c
}

// unhex reads the reference's JSON bytes; what is none becomes nothing, which no
// parser accepts.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil {
		return nil
	}
	return b
}
