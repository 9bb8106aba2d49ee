package kms

import (
	"crypto/tls"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ratls"
)

// peerConn is a member's proved connection to another.
type peerConn struct {
	t    *testing.T
	rpc  *rpc.Client
	ch   *ratls.Channel
	mine *Member
}

func (c *cluster) peerConn(t *testing.T, from *Member, to string) peerConn {
	t.Helper()
	conn, err := from.link.dial(t.Context(), to, protoPeer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := ratls.NewChannel(conn.ConnectionState(), false, from.id.spki)
	if err != nil {
		t.Fatal(err)
	}
	return peerConn{t, &rpc.Client{Base: "https://" + to, HTTP: httpOver(conn)}, ch, from}
}

func (p peerConn) challenge(nonce []byte) (out challengeResponse) {
	p.t.Helper()
	if err := p.rpc.Call(p.t.Context(), http.MethodPost, pathChallenge, challengeRequest{nonce}, &out); err != nil {
		p.t.Fatal(err)
	}
	return out
}

func (p peerConn) prove(nonce []byte) []byte {
	p.t.Helper()
	b, err := p.ch.Prove(p.t.Context(), nonce, p.mine.self.evidence)
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

func (p peerConn) join(nonce, attestation []byte, origin string) error {
	p.t.Helper()
	mb, err := p.mine.memberRecord(origin)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.rpc.Call(p.t.Context(), http.MethodPost, pathJoin, joinRequest{Member: mb, Nonce: nonce, Attestation: attestation}, nil)
}

// Root secrets go to a member that proves itself on the very connection it joins
// over: evidence that was made for another connection, even one of the same member
// to the same leader, does not do.
func TestJoinNeedsFreshEvidence(t *testing.T) {
	c := newCluster(t, 2)
	lead := c.leader()
	leader, member := c.nodes[lead], c.nodes[1-lead].Member
	one, two := c.peerConn(t, member, leader.cfg.Raft), c.peerConn(t, member, leader.cfg.Raft)
	n1, n2 := one.challenge(make([]byte, 32)), two.challenge(make([]byte, 32))
	cert, err := ratls.ParseExtensions(member.raftCert.Load().Leaf)
	if err != nil {
		t.Fatal(err)
	}
	forged := append([]byte{}, n1.Nonce...)
	forged[10] ^= 1
	for name, tc := range map[string]struct {
		nonce, att []byte
		code       cvm.Code
		reason     string
	}{
		"no proof":                          {n1.Nonce, nil, cvm.Invalid, ""},
		"the certificate's evidence":        {n1.Nonce, cert.Attestation, cvm.Denied, kmsapi.ReasonBinding},
		"made on another connection":        {n1.Nonce, two.prove(n1.Nonce), cvm.Denied, kmsapi.ReasonBinding},
		"for another nonce":                 {n1.Nonce, one.prove(n2.Nonce), cvm.Denied, kmsapi.ReasonBinding},
		"the leader's own proof":            {n1.Nonce, n1.Attestation, cvm.Denied, kmsapi.ReasonBinding},
		"a nonce that nobody gave":          {forged, one.prove(forged), cvm.Denied, kmsapi.ReasonBinding},
		"no nonce, as if it were not asked": {nil, one.prove(n1.Nonce), cvm.Invalid, kmsapi.ReasonBinding},
	} {
		if err := one.join(tc.nonce, tc.att, n1.Origin); cvm.CodeOf(err) != tc.code || cvm.ReasonOf(err) != tc.reason {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A record with another's key: the roots would be encrypted to whom nobody proved.
	mb, err := leader.memberRecord(n1.Origin)
	if err != nil {
		t.Fatal(err)
	}
	err = one.rpc.Call(t.Context(), http.MethodPost, pathJoin, joinRequest{Member: mb, Nonce: n1.Nonce, Attestation: one.prove(n1.Nonce)}, nil)
	if cvm.ReasonOf(err) != kmsapi.ReasonBinding {
		t.Errorf("another's record: %v", err)
	}
	if err := one.join(n1.Nonce, one.prove(n1.Nonce), n1.Origin); cvm.ReasonOf(err) == kmsapi.ReasonBinding {
		t.Errorf("the right proof: %v", err)
	}
}

// A genuine, allowed member that only forwards the challenge to the true leader is
// noticed: the answer is of its connection, not of the joiner's.
func TestJoinThroughARelay(t *testing.T) {
	c := newCluster(t, 2)
	lead := c.leader()
	leader, relay := c.nodes[lead], c.nodes[1-lead].Member
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	onward := c.peerConn(t, relay, leader.cfg.Raft)
	asked := 0
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathChallenge, rpc.Handle(func(_ *http.Request, req challengeRequest) (challengeResponse, error) {
		asked++
		return onward.challenge(req.Nonce), nil
	}))
	mux.HandleFunc("POST "+pathJoin, func(http.ResponseWriter, *http.Request) { t.Error("the joiner went on") })
	conf := relay.link.server.Clone()
	conf.NextProtos = []string{protoPeer}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	go func() { _ = srv.Serve(tls.NewListener(ln, conf)) }()
	t.Cleanup(func() { _ = srv.Close() })
	// The leader itself plays the joiner: it speaks with the relay as a new member would.
	_, err = leader.askToJoin(t.Context(), ln.Addr().String())
	if cvm.ReasonOf(err) != kmsapi.ReasonBinding || asked != 1 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

// The members' certificates are short-lived and renewed while the link is up.
func TestMemberCertificateIsRenewed(t *testing.T) {
	c := newCluster(t, 1)
	m := c.nodes[0].Member
	shown := func() string {
		t.Helper()
		conn, err := m.link.dial(t.Context(), c.nodes[0].cfg.Raft, protoPeer)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return string(conn.ConnectionState().PeerCertificates[0].Raw)
	}
	old := m.raftCert.Load().Leaf
	if life := old.NotAfter.Sub(old.NotBefore); life > ratls.MaxLifetime || renewEvery*2 > ratls.Lifetime {
		t.Errorf("lives %s, renewed every %s", life, renewEvery)
	}
	if shown() != string(old.Raw) {
		t.Error("another certificate is shown")
	}
	if err := m.renewCertificate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := shown(); got == string(old.Raw) || got != string(m.raftCert.Load().Leaf.Raw) {
		t.Error("the old certificate is still shown")
	}
}
