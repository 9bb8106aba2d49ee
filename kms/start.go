package kms

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/keyring"
	"github.com/confidential-cloud/phala/ratls"
)

// start brings the member to where it can serve: founded, joined, or back.
func (m *Member) start(ctx context.Context) error {
	fresh := m.replica.Fresh()
	if err := m.untilAllowed(ctx); err != nil {
		return err
	}
	var err error
	switch {
	case fresh && m.cfg.Bootstrap:
		err = m.bootstrap(ctx)
	case fresh:
		err = m.join(ctx)
	default:
		m.log.Info("coming back with existing state")
	}
	if err != nil {
		return err
	}
	if err := m.machine.Wait(ctx, func(k *keyring.Machine) bool { _, ok := k.Member(m.cfg.ID); return ok }); err != nil {
		return err
	}
	if fresh {
		m.warm.Store(true)
	}
	if err := m.open(ctx); err != nil {
		return err
	}
	close(m.ready)
	m.log.Info("KMS member serves", "urls", m.cfg.URLs, "ledger", m.machine.Size(), "simulated", m.simulated)
	return nil
}

// untilAllowed waits for the authority to allow this member: it may be started
// before the owner has allowed it.
func (m *Member) untilAllowed(ctx context.Context) error {
	for said := ""; ; {
		_, err := m.admit(ctx, m.ownClaims)
		if err == nil {
			return nil
		}
		if text := err.Error(); text != said {
			said = text
			m.log.Warn("this member may not hold keys yet", "err", err,
				"mr_aggregated", "0x"+hex.EncodeToString(m.ownClaims.MRAggregated[:]), "device", "0x"+m.ownClaims.DeviceID.String())
		}
		if err := run.Pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// bootstrap founds the cluster with fresh roots. They leave this function only as
// ciphertext to this member; the vault opens that ciphertext like anyone's.
func (m *Member) bootstrap(ctx context.Context) error {
	tag := make([]byte, 6)
	_, _ = rand.Read(tag) // crypto/rand does not fail
	origin := m.cfg.Cluster + "-" + hex.EncodeToString(tag)
	mb, err := m.memberRecord(origin)
	if err != nil {
		return err
	}
	root, err := keys.NewRoot(rand.Reader, 0)
	if err != nil {
		return err
	}
	at := m.now()
	ca, err := ratls.NewRoot(root.CA(), ratls.Template{
		CommonName: "Dstack KMS CA", Organization: "Dstack", NotBefore: at.Add(-time.Hour), NotAfter: at.AddDate(20, 0, 0),
	})
	if err != nil {
		return fmt.Errorf("root CA: %w", err)
	}
	wrapped, err := keyring.WrapRoot(origin, root, mb)
	if err != nil {
		return err
	}
	ticket, err := root.TicketKey()
	if err != nil {
		return err
	}
	d, err := m.admit(ctx, m.ownClaims)
	if err != nil {
		return err
	}
	if err := m.replica.Bootstrap(); err != nil {
		return err
	}
	cmd := m.command(keyring.KindBootstrap)
	cmd.Bootstrap = &keyring.Bootstrap{
		Origin: origin, Member: mb, Leaf: leafOf(m.ownClaims, d),
		Epoch: keyring.Epoch{
			Number: 0, RootCA: ca.Cert.Raw, K256: root.K256Public(), Ticket: ticket.Public().(ed25519.PublicKey),
			Wrapped: map[string][]byte{mb.ID: wrapped},
		},
	}
	m.log.Info("founding the cluster", "origin", origin)
	for {
		_, err := m.propose(ctx, cmd)
		if err == nil || cvm.CodeOf(err) != cvm.Unavailable {
			return err
		}
		if err := run.Pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// join asks the peers in turn until one that this member's own authority allows
// admits it, then has itself added as a voter.
func (m *Member) join(ctx context.Context) error {
	for said := ""; ; {
		err := m.joinOnce(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if text := err.Error(); text != said {
			said = text
			m.log.Warn("could not join yet", "err", err)
		}
		if err := run.Pause(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
}

func (m *Member) joinOnce(ctx context.Context) error {
	err := error(cvm.Errorf(cvm.Unavailable, "no peer answers"))
	for _, addr := range m.cfg.Peers {
		for range 3 { // a follower names the leader
			var out joinResponse
			if out, err = m.askToJoin(ctx, addr); err != nil {
				break
			}
			if out.Leader != "" {
				addr = out.Leader
				continue
			}
			if err = m.sponsor(out.Members); err != nil {
				return err
			}
			cctx, cancel := context.WithTimeout(ctx, leaderTimeout*2)
			err = m.peer(addr).Call(cctx, http.MethodPost, pathReady, empty{}, nil)
			cancel()
			if err == nil {
				return nil
			}
			break
		}
	}
	return err
}

// askToJoin proves this member to a peer, and asks the authority about the peer:
// both sides of T4, on one connection.
func (m *Member) askToJoin(ctx context.Context, addr string) (out joinResponse, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*leaderTimeout)
	defer cancel()
	conn, err := m.link.dial(ctx, addr, protoPeer)
	if err != nil {
		return out, err
	}
	defer func() { _ = conn.Close() }()
	ch, err := ratls.NewChannel(conn.ConnectionState(), false, m.id.spki)
	if err != nil {
		return out, err
	}
	c := &rpc.Client{Base: "https://" + addr, HTTP: httpOver(conn)}
	nonce := make([]byte, 32)
	_, _ = rand.Read(nonce) // crypto/rand does not fail
	var peer challengeResponse
	if err := c.Call(ctx, http.MethodPost, pathChallenge, challengeRequest{nonce}, &peer); err != nil {
		return out, err
	}
	var claims claim.Claims
	if err := ch.Check(nonce, peer.Attestation, m.believe(ctx, &claims)); err != nil {
		return out, err
	}
	if _, err := m.admit(ctx, claims); err != nil {
		return out, err
	}
	// The verifier key's name holds the origin, which only members know.
	req := joinRequest{Nonce: peer.Nonce}
	if req.Member, err = m.memberRecord(peer.Origin); err != nil {
		return out, err
	}
	if req.Attestation, err = ch.Prove(ctx, peer.Nonce, m.self.evidence); err != nil {
		return out, err
	}
	return out, c.Call(ctx, http.MethodPost, pathJoin, req, &out)
}

// rpcCertificate certifies the member's key for its API, with its evidence.
func (m *Member) rpcCertificate(ctx context.Context) (*tls.Certificate, error) {
	ev, err := m.self.evidence(ctx, ratls.ReportData(m.id.spki))
	if err != nil {
		return nil, err
	}
	att, err := ev.Strip().Marshal()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, u := range m.cfg.URLs {
		if p, err := url.Parse(u); err == nil {
			names = append(names, p.Hostname())
		}
	}
	at := m.now()
	der, err := m.root.Issue(&m.id.tls.PublicKey, ratls.Template{
		CommonName: names[0], AltNames: names, ServerAuth: true, NotBefore: at.Add(-time.Hour), NotAfter: at.AddDate(1, 0, 0),
		Extensions: ratls.Extensions{Usage: ratls.UsageKMSRPC, Attestation: att},
	})
	if err != nil {
		return nil, fmt.Errorf("certificate of the API: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, m.root.Cert.Raw}, PrivateKey: m.id.tls}, nil
}

// rpcTLS asks for a client certificate and takes any: its key is what matters.
func (m *Member) rpcTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := m.cert.Load(); c != nil {
				return c, nil
			}
			return nil, cvm.Errorf(cvm.Unavailable, "this member is starting")
		},
	}
}
