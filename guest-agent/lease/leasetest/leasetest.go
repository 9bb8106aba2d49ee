// Package leasetest is a KMS of one process for tests of the guest: the real wire,
// the real verifier, the real derivations, no cluster and no governance. Package
// kms has the real one.
package leasetest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
	"github.com/confidential-cloud/phala/ratls"
)

// KMS answers on URL.
type KMS struct {
	URL  string
	Root *keys.Root
	SPKI []byte // DER, what app-composes pin
	TTL  time.Duration
	// GatewayAppID is named in releases.
	GatewayAppID string

	hw *simtee.Hardware
	ca *ratls.Authority

	mu      sync.Mutex
	refuse  error
	nonces  map[string]bool
	leases  map[string]string // lease id -> hex sha256 of the client key
	apps    map[string]cvm.AppID
	counts  map[string]int
	changed chan struct{}
}

// New starts a KMS that admits the machine hw, on listen (an IP, "" is loopback).
func New(t testing.TB, hw *simtee.Hardware, listen string) *KMS {
	t.Helper()
	root, err := keys.NewRoot(rand.Reader, 0)
	must(t, err)
	k := &KMS{Root: root, TTL: time.Hour, hw: hw, nonces: map[string]bool{}, leases: map[string]string{},
		apps: map[string]cvm.AppID{}, counts: map[string]int{}, changed: make(chan struct{})}
	k.SPKI, err = root.CASPKI()
	must(t, err)
	k.ca, err = ratls.NewRoot(root.CA(), template("Dstack KMS CA"))
	must(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	leaf := template("kms")
	leaf.ServerAuth, leaf.Extensions = true, ratls.Extensions{Usage: ratls.UsageKMSRPC}
	der, err := k.ca.Issue(&key.PublicKey, leaf)
	must(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+kmsapi.PathNonce, handle(k, kmsapi.PathNonce, k.nonce))
	mux.HandleFunc("POST "+kmsapi.PathRelease, handle(k, kmsapi.PathRelease, k.release))
	mux.HandleFunc("POST "+kmsapi.PathRenew, handle(k, kmsapi.PathRenew, k.renew))
	mux.HandleFunc("POST "+kmsapi.PathSignCert, handle(k, kmsapi.PathSignCert, k.signCert))
	if listen == "" {
		listen = "127.0.0.1"
	}
	l, err := net.Listen("tcp", net.JoinHostPort(listen, "0"))
	must(t, err)
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)}}
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der, k.ca.Cert.Raw}, PrivateKey: key}}}
	s.StartTLS()
	t.Cleanup(s.Close)
	k.URL = "https://" + l.Addr().String()
	return k
}

// Refuse makes every call fail with err; nil makes them work again.
func (k *KMS) Refuse(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refuse = err
}

// Count is how many calls of a path succeeded.
func (k *KMS) Count(path string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.counts[path]
}

// Changed is closed at the next successful call.
func (k *KMS) Changed() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changed
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func template(cn string) ratls.Template {
	at := time.Now()
	return ratls.Template{CommonName: cn, Organization: "Dstack", NotBefore: at.Add(-time.Hour), NotAfter: at.Add(24 * time.Hour)}
}

func handle[Req, Resp any](k *KMS, path string, fn func(spki []byte, q Req) (Resp, error)) http.HandlerFunc {
	return rpc.Handle(func(r *http.Request, q Req) (resp Resp, err error) {
		k.mu.Lock()
		err = k.refuse
		k.mu.Unlock()
		if err != nil {
			return resp, err
		}
		if resp, err = fn(r.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo, q); err != nil {
			return resp, err
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		k.counts[path]++
		close(k.changed)
		k.changed = make(chan struct{})
		return resp, nil
	})
}

func keyHash(spki []byte) string { h := sha256.Sum256(spki); return hex.EncodeToString(h[:]) }

func (k *KMS) nonce(spki []byte, _ struct{}) (kmsapi.Nonce, error) {
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.nonces[string(b)+keyHash(spki)] = true
	return kmsapi.Nonce{Nonce: b, Expires: time.Now().Add(time.Minute)}, nil
}

func (k *KMS) redeem(spki, nonce []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	id := string(nonce) + keyHash(spki)
	if !k.nonces[id] {
		return cvm.Errorf(cvm.Denied, "nonce").WithReason(kmsapi.ReasonNonceUsed)
	}
	delete(k.nonces, id)
	return nil
}

func (k *KMS) verify(raw []byte, rd [64]byte, phase claim.Phase) (claim.Claims, error) {
	ev, err := attest.ParseEvidence(raw)
	if err != nil {
		return claim.Claims{}, err
	}
	c, err := k.hw.Collateral(time.Now())
	if err != nil {
		return claim.Claims{}, err
	}
	v, _, err := attest.Verify(ev, c, k.hw.Policy(rd, phase), time.Now())
	if err != nil {
		return claim.Claims{}, cvm.Errorf(cvm.Denied, "%w", err).WithReason(kmsapi.ReasonEvidence)
	}
	return v.Claims(), nil
}

func (k *KMS) release(spki []byte, q kmsapi.ReleaseRequest) (r kmsapi.Release, err error) {
	if err := k.redeem(spki, q.Nonce); err != nil {
		return r, err
	}
	c, err := k.verify(q.Attestation, kmsapi.ReportDataRelease(q.Nonce, spki, q.Context), claim.PhaseRelease)
	if err != nil {
		return r, err
	}
	if cvm.ComposeHash(sha256.Sum256(q.AppCompose)) != c.ComposeHash {
		return r, cvm.Errorf(cvm.Denied, "compose").WithReason(kmsapi.ReasonComposeMismatch)
	}
	r = kmsapi.Release{AppID: c.AppID, OSImageHash: c.OSImageHash, RootCA: k.ca.PEM(), GatewayAppID: k.GatewayAppID}
	var errs [5]error
	r.DiskKey, errs[0] = k.Root.DiskKey(c.AppID, c.InstanceID)
	r.EnvKey, errs[1] = k.Root.EnvKey(c.AppID)
	r.AppKey, errs[2] = k.Root.AppKey(c.AppID)
	r.AppKeySig, errs[3] = k.Root.AppKeySignature(c.AppID)
	var ticket ed25519.PrivateKey
	if ticket, errs[4] = k.Root.TicketKey(); errs[4] == nil {
		r.TicketKey = ticket.Public().(ed25519.PublicKey)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return r, err
	}
	leaf := ledger.Leaf{Version: 1, Kind: ledger.KindAllow, Time: time.Now().UTC().Truncate(time.Second), AppID: c.AppID.String(),
		ComposeHash: c.ComposeHash.String(), ClientKey: keyHash(spki), Platform: string(c.Platform)}
	if r.Receipt.Leaf, err = leaf.Encode(); err != nil {
		return r, err
	}
	r.Lease = k.lease("lease-" + keyHash(spki)[:8])
	var ec kmsapi.EvidenceContext
	if err := json.Unmarshal(q.Context, &ec); err != nil {
		return r, err
	}
	if r.Ticket, err = k.ticket(c.AppID, c.InstanceID, ec.WireGuardKey); err != nil {
		return r, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.leases[r.Lease.ID], k.apps[r.Lease.ID] = keyHash(spki), c.AppID
	r.Certificates, err = k.certify(c.AppID, spki)
	return r, err
}

// ticket is for a guest's WireGuard key; no key, no ticket.
func (k *KMS) ticket(app cvm.AppID, inst cvm.InstanceID, wireguard []byte) ([]byte, error) {
	if len(wireguard) == 0 {
		return nil, nil
	}
	key, err := k.Root.TicketKey()
	if err != nil {
		return nil, err
	}
	at := time.Now().UTC()
	return kmsapi.SignTicket(key, kmsapi.RouteTicket{AppID: app, InstanceID: inst, WireGuardKey: wireguard, Simulated: true, IssuedAt: at, Expires: at.Add(k.TTL)})
}

// Certify issues a server certificate for an app, as SignCert does.
func (k *KMS) Certify(t testing.TB, app cvm.AppID) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	must(t, err)
	tmpl := template("gateway")
	tmpl.ServerAuth = true
	chain, err := k.issue(app, spki, tmpl)
	must(t, err)
	c := tls.Certificate{PrivateKey: key}
	for _, p := range chain {
		certs, err := ratls.ParsePEM(p)
		must(t, err)
		c.Certificate = append(c.Certificate, certs[0].Raw)
	}
	return c
}

func (k *KMS) lease(id string) kmsapi.Lease {
	return kmsapi.Lease{ID: id, Expires: time.Now().Add(k.TTL), TTL: k.TTL}
}

func (k *KMS) owner(id string, spki []byte) (cvm.AppID, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.leases[id] != keyHash(spki) {
		return cvm.AppID{}, cvm.Errorf(cvm.Denied, "lease").WithReason(kmsapi.ReasonLeaseUnknown)
	}
	return k.apps[id], nil
}

func (k *KMS) renew(spki []byte, q kmsapi.RenewRequest) (r kmsapi.Renewal, err error) {
	if err := k.redeem(spki, q.Nonce); err != nil {
		return r, err
	}
	app, err := k.owner(q.LeaseID, spki)
	if err != nil {
		return r, err
	}
	c, err := k.verify(q.Attestation, kmsapi.ReportDataRenew(q.Nonce, spki, q.LeaseID), claim.PhaseRunning)
	if err != nil {
		return r, err
	}
	if r.Ticket, err = k.ticket(app, c.InstanceID, q.WireGuardKey); err != nil {
		return r, err
	}
	r.Lease = k.lease(q.LeaseID)
	r.Certificates, err = k.certify(app, spki)
	return r, err
}

func (k *KMS) certify(app cvm.AppID, spki []byte) ([]string, error) {
	t := template("dstack-guest-agent")
	t.ClientAuth = true
	return k.issue(app, spki, t)
}

func (k *KMS) issue(app cvm.AppID, spki []byte, t ratls.Template) ([]string, error) {
	key, err := k.Root.AppCA(app)
	if err != nil {
		return nil, err
	}
	sub := template("Dstack App CA")
	sub.Extensions = ratls.Extensions{AppID: &app, Usage: ratls.UsageAppCA}
	ca, err := k.ca.IssueCA(key, sub)
	if err != nil {
		return nil, err
	}
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, err
	}
	t.Extensions.AppID, t.Extensions.Usage = &app, ratls.UsageAppCustom
	der, err := ca.Issue(pub, t)
	if err != nil {
		return nil, err
	}
	return []string{ratls.PEM(der), ca.PEM(), k.ca.PEM()}, nil
}

func (k *KMS) signCert(spki []byte, q kmsapi.SignCertRequest) (r kmsapi.SignCertResponse, err error) {
	app, err := k.owner(q.LeaseID, spki)
	if err != nil {
		return r, err
	}
	pub, err := x509.ParsePKIXPublicKey(q.PublicKey)
	if err != nil {
		return r, err
	}
	h := sha256.Sum256(slices.Concat([]byte("phala-sign-cert:v1:"), q.PublicKey, q.Config))
	if ec, ok := pub.(*ecdsa.PublicKey); !ok || !ecdsa.VerifyASN1(ec, h[:], q.Proof) {
		return r, cvm.Errorf(cvm.Denied, "proof of possession")
	}
	var c kmsapi.CertConfig
	d := json.NewDecoder(bytes.NewReader(q.Config))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return r, err
	}
	t := template(c.Subject)
	t.Organization, t.AltNames, t.ServerAuth, t.ClientAuth = c.OrgName, c.AltNames, c.ServerAuth, c.ClientAuth
	if len(c.Evidence) > 0 {
		if _, err := k.verify(c.Evidence, ratls.ReportData(q.PublicKey), claim.PhaseRunning); err != nil {
			return r, err
		}
		t.Extensions.Attestation = c.Evidence
	}
	r.Certificates, err = k.issue(app, q.PublicKey, t)
	return r, err
}
