package lease

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
)

// Ask is what a release asks for.
type Ask struct {
	AppID      cvm.AppID
	AppCompose []byte // exact bytes
	Context    kmsapi.EvidenceContext
	// Timeout bounds the retries while no member can answer.
	Timeout time.Duration
	// Waiting is told why the request is tried again.
	Waiting func(reason string)
}

// Release asks for the app's keys and checks that the answer is for this app and
// this key. It tries again while the KMS cannot answer, and stops at a refusal.
func (s *Session) Release(ctx context.Context, a Ask) (kmsapi.Release, error) {
	doc, err := json.Marshal(a.Context)
	if err != nil {
		return kmsapi.Release{}, err
	}
	deadline := s.cfg.Now().Add(a.Timeout)
	pause := 250 * time.Millisecond
	for {
		var rel kmsapi.Release
		start := s.cfg.Now()
		err := s.each(ctx, "release keys", func(c *rpc.Client) (err error) {
			start = s.cfg.Now()
			rel, err = s.releaseFrom(ctx, c, a, doc)
			return err
		})
		if err == nil {
			s.take(rel.Lease, start, rel.Certificates, rel.Ticket)
			s.mu.Lock()
			s.release = rel
			s.mu.Unlock()
			return rel, nil
		}
		// A false identity everywhere does not mend itself.
		if !Temporary(err) || cvm.ReasonOf(err) == ReasonFalseKMS || s.cfg.Now().Add(pause).After(deadline) {
			return kmsapi.Release{}, err
		}
		if a.Waiting != nil {
			a.Waiting(cvm.ReasonOf(err))
		}
		if err := run.Pause(ctx, pause); err != nil {
			return kmsapi.Release{}, err
		}
		pause = min(2*pause, 5*time.Second)
	}
}

func (s *Session) releaseFrom(ctx context.Context, c *rpc.Client, a Ask, doc []byte) (rel kmsapi.Release, err error) {
	nonce, err := s.nonce(ctx, c)
	if err != nil {
		return rel, err
	}
	att, err := s.prove(ctx, kmsapi.ReportDataRelease(nonce, s.spki, doc))
	if err != nil {
		return rel, err
	}
	req := kmsapi.ReleaseRequest{Nonce: nonce, Attestation: att, Context: doc, AppCompose: a.AppCompose}
	if err := post(ctx, c, kmsapi.PathRelease, req, &rel); err != nil {
		return rel, err
	}
	return rel, s.checkRelease(rel, a)
}

func (s *Session) prove(ctx context.Context, rd [64]byte) ([]byte, error) {
	ev, err := s.cfg.Prove(ctx, rd)
	if err != nil {
		return nil, err
	}
	return ev.Marshal()
}

// checkRelease refuses an answer that is not for us: the pinned channel says who
// answered, not that the answer makes sense.
func (s *Session) checkRelease(rel kmsapi.Release, a Ask) error {
	no := func(text string) error {
		return cvm.Errorf(cvm.Denied, "the KMS's answer cannot be used: %s", text).WithReason("kms-answer-invalid")
	}
	if rel.AppID != a.AppID {
		return no("it is for another app")
	}
	for _, n := range []int{rel.DiskKey.Len(), rel.EnvKey.Len(), rel.AppKey.Len()} {
		if n != 32 {
			return no("a key has not 32 bytes")
		}
	}
	spki, err := RootSPKI(rel.RootCA)
	if err != nil {
		return no("root_ca is not a certificate")
	}
	if len(s.cfg.RootSPKI) > 0 && !bytes.Equal(spki, s.cfg.RootSPKI) {
		return no("its root_ca is not the pinned root")
	}
	if rel.Lease.ID == "" || rel.Lease.TTL <= 0 {
		return no("it has no lease")
	}
	return s.checkLeaf(rel.Receipt, a, no)
}

// checkLeaf looks that the ledger leaf says what was granted; verifiers check the
// receipt's proof against the checkpoint keys they pin.
func (s *Session) checkLeaf(r ledger.Receipt, a Ask, no func(string) error) error {
	var l ledger.Leaf
	if err := json.Unmarshal(r.Leaf, &l); err != nil {
		return no("its ledger leaf is not JSON")
	}
	key, compose := sha256.Sum256(s.spki), sha256.Sum256(a.AppCompose)
	switch {
	case l.Kind != ledger.KindAllow:
		return no("its ledger leaf is not an allow")
	case l.AppID != a.AppID.String() || l.ComposeHash != hex.EncodeToString(compose[:]):
		return no("its ledger leaf is for another app")
	case l.ClientKey != hex.EncodeToString(key[:]):
		return no("its ledger leaf is for another client key")
	}
	return nil
}

// RootSPKI is the DER SubjectPublicKeyInfo of a PEM certificate.
func RootSPKI(pemText string) ([]byte, error) {
	b, _ := pem.Decode([]byte(pemText))
	if b == nil {
		return nil, cvm.Errorf(cvm.Invalid, "not a PEM certificate")
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "certificate: %w", err)
	}
	return c.RawSubjectPublicKeyInfo, nil
}

// take notes a new lease. Its end is counted from when the request was sent, with
// the local clock: the KMS's clock need not agree with ours.
func (s *Session) take(l kmsapi.Lease, asked time.Time, certs []string, ticket []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release.Lease = l
	s.expires = asked.Add(l.TTL)
	if len(certs) > 0 {
		s.certs = slices.Clone(certs)
	}
	if len(ticket) > 0 {
		s.ticket = ticket
	}
}

// Renew extends the lease with fresh evidence of phase running.
func (s *Session) Renew(ctx context.Context, wireguard []byte) error {
	id := s.Granted().Lease.ID
	if id == "" {
		return cvm.Errorf(cvm.Precondition, "there is no lease to renew").WithReason(kmsapi.ReasonLeaseUnknown)
	}
	return s.each(ctx, "renew the lease", func(c *rpc.Client) error {
		asked := s.cfg.Now()
		nonce, err := s.nonce(ctx, c)
		if err != nil {
			return err
		}
		att, err := s.prove(ctx, kmsapi.ReportDataRenew(nonce, s.spki, id))
		if err != nil {
			return err
		}
		var r kmsapi.Renewal
		req := kmsapi.RenewRequest{LeaseID: id, Nonce: nonce, Attestation: att, WireGuardKey: wireguard}
		if err := post(ctx, c, kmsapi.PathRenew, req, &r); err != nil {
			return err
		}
		if r.Lease.ID != id || r.Lease.TTL <= 0 {
			return cvm.Errorf(cvm.Unavailable, "the KMS renewed another lease")
		}
		s.take(r.Lease, asked, r.Certificates, r.Ticket)
		return nil
	})
}

// SignCert has the app's CA certify key (P-256). evidence may be nil.
func (s *Session) SignCert(ctx context.Context, key *ecdsa.PrivateKey, conf kmsapi.CertConfig) ([]string, error) {
	doc, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	h := sha256.Sum256(slices.Concat([]byte("phala-sign-cert:v1:"), spki, doc))
	proof, err := ecdsa.SignASN1(rand.Reader, key, h[:])
	if err != nil {
		return nil, err
	}
	req := kmsapi.SignCertRequest{LeaseID: s.Granted().Lease.ID, PublicKey: spki, Proof: proof, Config: doc}
	var resp kmsapi.SignCertResponse
	err = s.each(ctx, "sign a certificate", func(c *rpc.Client) error {
		return post(ctx, c, kmsapi.PathSignCert, req, &resp)
	})
	if err == nil && len(resp.Certificates) == 0 {
		err = cvm.Errorf(cvm.Unavailable, "the KMS signed no certificate")
	}
	return resp.Certificates, err
}
