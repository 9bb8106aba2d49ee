package ratls_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/ratls"
)

// end is one side of an established connection.
type end struct {
	*ratls.Channel
	state tls.ConnectionState
}

// connect shakes hands and returns both ends. serverKey and clientKey are the keys
// of their certificates (clientKey nil: none).
func connect(t *testing.T, server, client *tls.Config, serverKey, clientKey *ecdsa.PrivateKey) (s, c end) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	sc, cc := tls.Server(a, server), tls.Client(b, client)
	go func() { done <- sc.HandshakeContext(ctx) }()
	if err := errors.Join(cc.HandshakeContext(ctx), <-done); err != nil {
		t.Fatal(err)
	}
	s.state, c.state = sc.ConnectionState(), cc.ConnectionState()
	var own []byte
	if clientKey != nil {
		own = spki(t, clientKey)
	}
	s.Channel = must(ratls.NewChannel(s.state, true, spki(t, serverKey)))(t)
	c.Channel = must(ratls.NewChannel(c.state, false, own))(t)
	return s, c
}

func (e tee) quote(ctx context.Context, rd [64]byte) (attest.Evidence, error) {
	return e.guest.Evidence(ctx, rd)
}

func nonce(b byte) []byte {
	n := make([]byte, 32)
	n[0] = b
	return n
}

// binding fails unless err is a rejection of genuine evidence for its report data
// and nothing else.
func refusedForBinding(t *testing.T, what string, err error) {
	t.Helper()
	var r *claim.Rejection
	if !errors.As(err, &r) || !r.Genuine {
		t.Errorf("%s: %v", what, err)
		return
	}
	for _, c := range r.Checks {
		if (c.Verdict == claim.Failed) != (c.Name == claim.ReportData) && c.Verdict != claim.Skipped {
			t.Errorf("%s: check %s %s", what, c.Name, c.Verdict)
		}
	}
}

func TestFreshEvidence(t *testing.T) {
	e := newTEE(t, 1)
	sk, ck := key(t), key(t)
	s, c := connect(t, ratls.ServerConfig(ratls.Fixed(e.cert(t, sk)), e.verify, time.Now),
		ratls.ClientConfig(ratls.Fixed(e.cert(t, ck)), e.verify, time.Now), sk, ck)
	ofServer := must(s.Prove(t.Context(), nonce(1), e.quote))(t)
	if err := c.Check(nonce(1), ofServer, e.verify); err != nil {
		t.Error(err)
	}
	ofClient := must(c.Prove(t.Context(), nonce(2), e.quote))(t)
	if err := s.Check(nonce(2), ofClient, e.verify); err != nil {
		t.Error(err)
	}
	refusedForBinding(t, "another nonce", c.Check(nonce(3), ofServer, e.verify))
	refusedForBinding(t, "one's own evidence sent back", c.Check(nonce(2), ofClient, e.verify))
	refusedForBinding(t, "the certificate's evidence", c.Check(nonce(1), certEvidence(t, c.state), e.verify))

	s2, c2 := connect(t, ratls.ServerConfig(ratls.Fixed(e.cert(t, sk)), e.verify, time.Now),
		ratls.ClientConfig(ratls.Fixed(e.cert(t, ck)), e.verify, time.Now), sk, ck)
	refusedForBinding(t, "an earlier connection's, same keys, same nonce", c2.Check(nonce(1), ofServer, e.verify))
	refusedForBinding(t, "an earlier connection's client", s2.Check(nonce(2), ofClient, e.verify))
}

func certEvidence(t *testing.T, cs tls.ConnectionState) []byte {
	t.Helper()
	return must(ratls.ParseExtensions(cs.PeerCertificates[0]))(t).Attestation
}

// A man in the middle with a connection to each side forwards the victim's nonce
// and the genuine TEE's answer. He may even be a genuine TEE himself, or hold a
// copy of the genuine one's TLS key: the answer is bound to his own connection to it.
func TestRelay(t *testing.T) {
	e := newTEE(t, 1)
	attacker := tee{e.hw, must(e.hw.Boot(t.Context(), simtee.Boot{Name: "evil", AppID: cvm.AppID{8}, Phase: claim.PhaseRunning}))(t)}
	genuine, mine := key(t), key(t)
	for name, shown := range map[string]*ecdsa.PrivateKey{"his own key": mine, "the genuine key, stolen": genuine} {
		// victim -> attacker -> genuine
		_, victim := connect(t, serve(attacker.cert(t, shown)), ratls.ClientConfig(nil, e.verify, time.Now), shown, nil)
		server, _ := connect(t, serve(e.cert(t, genuine)), ratls.ClientConfig(nil, e.verify, time.Now), genuine, nil)
		relayed := must(server.Prove(t.Context(), nonce(1), e.quote))(t)
		refusedForBinding(t, "relayed, attacker with "+name, victim.Check(nonce(1), relayed, e.verify))
	}
	// And a client's evidence towards a server: the attacker poses as the genuine
	// client, over a connection that he opened with the stolen key.
	sk := key(t)
	asServer := func() *tls.Config { return ratls.ServerConfig(ratls.Fixed(e.cert(t, sk)), e.verify, time.Now) }
	asClient := func() *tls.Config {
		return ratls.ClientConfig(ratls.Fixed(e.cert(t, genuine)), e.verify, time.Now)
	}
	victim, _ := connect(t, asServer(), asClient(), sk, genuine)
	_, client := connect(t, asServer(), asClient(), sk, genuine)
	relayed := must(client.Prove(t.Context(), nonce(1), e.quote))(t)
	refusedForBinding(t, "relayed to a server", victim.Check(nonce(1), relayed, e.verify))
}

// Both ends have one key (a server that talks to itself, or a stolen key): who
// proves is still told apart.
func TestNoReflection(t *testing.T) {
	e, k := newTEE(t, 1), key(t)
	s, c := connect(t, ratls.ServerConfig(ratls.Fixed(e.cert(t, k)), e.verify, time.Now),
		ratls.ClientConfig(ratls.Fixed(e.cert(t, k)), e.verify, time.Now), k, k)
	own := must(c.Prove(t.Context(), nonce(1), e.quote))(t)
	refusedForBinding(t, "reflected", c.Check(nonce(1), own, e.verify))
	if err := s.Check(nonce(1), own, e.verify); err != nil {
		t.Error(err)
	}
}

// The client's certificate is not part of what the exporter covers, so both keys
// are in the binding by themselves: a proof is by the key that was shown, for the
// verifier that asked.
func TestProofNamesBothKeys(t *testing.T) {
	e, sk, ck := newTEE(t, 1), key(t), key(t)
	s, c := connect(t, ratls.ServerConfig(ratls.Fixed(e.cert(t, sk)), e.verify, time.Now),
		ratls.ClientConfig(ratls.Fixed(e.cert(t, ck)), e.verify, time.Now), sk, ck)
	proof := must(s.Prove(t.Context(), nonce(1), e.quote))(t)
	other := must(ratls.NewChannel(c.state, false, spki(t, key(t))))(t)
	refusedForBinding(t, "another verifier", other.Check(nonce(1), proof, e.verify))
	refusedForBinding(t, "another prover", s.Check(nonce(1), must(other.Prove(t.Context(), nonce(1), e.quote))(t), e.verify))
}

func TestChannelRefusals(t *testing.T) {
	e, sk := newTEE(t, 1), key(t)
	own := spki(t, sk)
	s, c := connect(t, serve(e.cert(t, sk)), ratls.ClientConfig(nil, e.verify, time.Now), sk, nil)
	for name, change := range map[string]func(*tls.ConnectionState){
		"no handshake": func(cs *tls.ConnectionState) { cs.HandshakeComplete = false },
		"TLS 1.2":      func(cs *tls.ConnectionState) { cs.Version = tls.VersionTLS12 },
		"resumed":      func(cs *tls.ConnectionState) { cs.DidResume = true },
	} {
		cs := s.state
		change(&cs)
		if _, err := ratls.NewChannel(cs, true, own); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
	if _, err := ratls.NewChannel(s.state, true, nil); err == nil {
		t.Error("a server without a key")
	}
	proof := must(s.Prove(t.Context(), nonce(1), e.quote))(t)
	for _, n := range []int{0, 1, ratls.MinNonce - 1, ratls.MaxNonce + 1} {
		if _, err := s.Prove(t.Context(), make([]byte, n), e.quote); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("proved for a nonce of %d bytes: %v", n, err)
		}
		if err := c.Check(make([]byte, n), proof, e.verify); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("checked a nonce of %d bytes: %v", n, err)
		}
	}
	if _, err := c.Prove(t.Context(), nonce(1), e.quote); cvm.CodeOf(err) != cvm.Precondition {
		t.Errorf("a client without a key proves: %v", err)
	}
	if err := s.Check(nonce(1), proof, e.verify); cvm.ReasonOf(err) != ratls.ReasonChannel {
		t.Errorf("a client without a certificate is believed: %v", err)
	}
	if err := c.Check(nonce(1), proof, nil); cvm.CodeOf(err) != cvm.Internal {
		t.Errorf("no verifier: %v", err)
	}
	if err := c.Check(nonce(1), nil, e.verify); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("no evidence: %v", err)
	}
	// A TLS 1.2 connection, really.
	a, b := net.Pipe()
	defer func() { _ = a.Close(); _ = b.Close() }()
	old := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{e.cert(t, sk)}, MaxVersion: tls.VersionTLS12})
	go func() { _ = old.HandshakeContext(t.Context()) }()
	cc := tls.Client(b, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}) // #nosec G402 -- the point of the test
	if err := cc.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := ratls.NewChannel(cc.ConnectionState(), false, nil); cvm.ReasonOf(err) != ratls.ReasonChannel {
		t.Errorf("TLS 1.2: %v", err)
	}
}
