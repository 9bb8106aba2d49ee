package kms

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/kms/keyring"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ratls"
)

// handleRelease is the one way to an app's keys:
// Verify -> Authorize -> Record -> Release.
func (m *Member) handleRelease(r *http.Request, req kmsapi.ReleaseRequest) (kmsapi.Release, error) {
	spki, err := clientKey(r)
	if err != nil {
		return kmsapi.Release{}, err
	}
	if err := m.serving(); err != nil {
		return kmsapi.Release{}, err
	}
	ctx := r.Context()
	v, err := m.verifyRelease(ctx, req, spki)
	if err != nil {
		return kmsapi.Release{}, m.refused(ctx, err)
	}
	a, err := m.authorize(ctx, v)
	if err != nil {
		return kmsapi.Release{}, m.refused(ctx, err)
	}
	rec, err := m.record(ctx, a)
	if err != nil {
		return kmsapi.Release{}, m.refused(ctx, err)
	}
	return m.release(ctx, rec, a, spki)
}

// release hands out what a recorded decision allows.
func (m *Member) release(ctx context.Context, rec keyring.Recorded, a *authorized, spki []byte) (out kmsapi.Release, err error) {
	l, vault := rec.Lease(), m.vault.Load()
	if out.Receipt, err = m.receipt(ctx, l.Leaf); err != nil {
		return kmsapi.Release{}, err
	}
	ks, err := vault.AppKeys(rec)
	if err != nil {
		return kmsapi.Release{}, err
	}
	out.AppID, out.Epoch = l.AppID, l.Epoch
	out.DiskKey, out.EnvKey, out.AppKey, out.AppKeySig = ks.Disk, ks.Env, ks.App, ks.AppSignature
	out.GatewayAppID, out.OSImageHash = a.decision.GatewayAppID, a.v.Claims().OSImageHash
	out.RootCA, out.TicketKey = m.rootPEM(), m.machine.Epochs()[vault.Epoch()].Ticket
	out.Lease = m.lease(l.ID)
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return kmsapi.Release{}, cvm.Errorf(cvm.Invalid, "client key: %w", err)
	}
	if out.Certificates, err = m.certify(rec, pub, m.clientTemplate(l)); err != nil {
		return kmsapi.Release{}, err
	}
	out.Ticket, err = m.ticket(l, a.context.WireGuardKey)
	if err != nil {
		return kmsapi.Release{}, err
	}
	m.log.Info("released", "app", l.AppID, "instance", l.InstanceID, "leaf", l.Leaf, "simulated", l.Simulated)
	return out, nil
}

func (m *Member) lease(id string) kmsapi.Lease {
	ttl := time.Duration(m.cfg.LeaseTTL)
	return kmsapi.Lease{ID: id, Expires: m.now().Add(ttl).UTC(), TTL: ttl}
}

// clientCertLife is how long the certificate over the TLS client key lasts.
const clientCertLife = time.Hour

func (m *Member) clientTemplate(l keyring.Lease) ratls.Template {
	at := m.now()
	return ratls.Template{
		CommonName: "dstack-guest-agent", ClientAuth: true, ServerAuth: true,
		NotBefore: at.Add(-5 * time.Minute), NotAfter: at.Add(clientCertLife),
		Extensions: ratls.Extensions{AppID: &l.AppID, Usage: ratls.UsageAppCustom, AppInfo: appInfo(l)},
	}
}

func appInfo(l keyring.Lease) *ratls.AppInfo {
	return &ratls.AppInfo{
		AppID: l.AppID, ComposeHash: l.ComposeHash, InstanceID: l.InstanceID, DeviceID: l.Boot.DeviceID,
		MRSystem: l.Boot.MRSystem, MRAggregated: [32]byte(l.MRBoot), OSImageHash: l.Boot.OSImageHash,
	}
}

// ticket signs a route ticket that lives as long as the lease. No key, no ticket.
func (m *Member) ticket(l keyring.Lease, wireguard []byte) ([]byte, error) {
	if len(wireguard) == 0 {
		return nil, nil
	}
	if len(wireguard) != 32 {
		return nil, cvm.Errorf(cvm.Invalid, "wireguard_key must have 32 bytes")
	}
	key, err := m.vault.Load().TicketKey()
	if err != nil {
		return nil, err
	}
	at := m.now().UTC()
	return kmsapi.SignTicket(key, kmsapi.RouteTicket{
		AppID: l.AppID, InstanceID: l.InstanceID, WireGuardKey: wireguard, ComposeHash: l.ComposeHash.String(),
		PortPolicy: l.PortPolicy, Simulated: l.Simulated, IssuedAt: at, Expires: at.Add(time.Duration(m.cfg.LeaseTTL)),
	})
}

// handleRenew extends a lease: the same TLS key, the same boot, now running, and
// an authority that still allows it. It writes nothing, but a majority must have
// confirmed that this member's view is current (T6).
func (m *Member) handleRenew(r *http.Request, req kmsapi.RenewRequest) (out kmsapi.Renewal, err error) {
	spki, err := clientKey(r)
	if err != nil {
		return out, err
	}
	if err := m.serving(); err != nil {
		return out, err
	}
	ctx := r.Context()
	if _, err := checkNonce(m.nonceKey, req.Nonce, spki, m.now()); err != nil {
		return out, err
	}
	v, err := m.evidence(ctx, req.Attestation, kmsapi.ReportDataRenew(req.Nonce, spki, req.LeaseID), claim.PhaseRunning)
	if err != nil {
		return out, m.refused(ctx, err)
	}
	rec, err := m.current(ctx, req.LeaseID, spki)
	if err != nil {
		return out, err
	}
	l, c := rec.Lease(), v.Claims()
	if c.AppID != l.AppID || c.InstanceID != l.InstanceID || c.ComposeHash != l.ComposeHash || !bytes.Equal(c.MRBoot[:], l.MRBoot) || c.LaunchID() != l.Launch {
		return out, m.refused(ctx, &refusal{genuine: true, claims: c, err: cvm.Errorf(cvm.Denied,
			"the evidence is of another boot than the one the lease was given to").WithReason(kmsapi.ReasonLeaseUnknown)})
	}
	if err := m.still(ctx, governance.RequestOf(c)); err != nil {
		return out, m.refused(ctx, &refusal{genuine: true, claims: c, err: asCoded(err)})
	}
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return out, cvm.Errorf(cvm.Invalid, "client key: %w", err)
	}
	if out.Certificates, err = m.certify(rec, pub, m.clientTemplate(l)); err != nil {
		return out, err
	}
	if out.Ticket, err = m.ticket(l, req.WireGuardKey); err != nil {
		return out, err
	}
	out.Lease = m.lease(l.ID)
	return out, nil
}

// current is a lease's recorded decision in a state that a majority confirms.
func (m *Member) current(ctx context.Context, lease string, spki []byte) (keyring.Recorded, error) {
	if err := m.barrier(ctx); err != nil {
		return keyring.Recorded{}, err
	}
	return m.machine.Recorded(lease, hashHex(spki))
}

// certify signs a leaf below the app's CA, whose key is the app's alone. It takes
// a recorded decision for the same reason as keys do.
func (m *Member) certify(rec keyring.Recorded, pub any, t ratls.Template) ([]string, error) {
	key, err := m.vault.Load().AppCA(rec)
	if err != nil {
		return nil, err
	}
	at := m.now()
	app := rec.Lease().AppID
	ca, err := m.root.IssueCA(key, ratls.Template{
		CommonName: "Dstack App CA", Organization: "Dstack", NotBefore: at.Add(-time.Hour), NotAfter: at.AddDate(10, 0, 0),
		Extensions: ratls.Extensions{AppID: &app, Usage: ratls.UsageAppCA},
	})
	if err != nil {
		return nil, err
	}
	leaf, err := ca.Issue(pub, t)
	if err != nil {
		return nil, err
	}
	return []string{pemCert(leaf), pemCert(ca.Cert.Raw), m.rootPEM()}, nil
}

func pemCert(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func (m *Member) rootPEM() string { return pemCert(m.root.Cert.Raw) }
