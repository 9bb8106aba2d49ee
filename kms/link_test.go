package kms

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"log/slog"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/ratls"
)

// A raft connection lasts no longer than the evidence that opened it.
func TestRaftConnectionsEnd(t *testing.T) {
	g, err := newHardware(t, 1).Boot(t.Context(), simtee.Boot{Name: "m", Phase: claim.PhaseRunning})
	if err != nil {
		t.Fatal(err)
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := spkiOf(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := g.Evidence(t.Context(), ratls.ReportData(spki))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	cert, err := ratls.NewCertificate(k, ev, ratls.Template{CommonName: "m", ServerAuth: true, ClientAuth: true, NotBefore: start.Add(-time.Hour), NotAfter: start.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	left := 300 * time.Millisecond
	now := func() time.Time { return cert.Leaf.NotAfter.Add(-left) }
	anybody := func(context.Context, attest.Evidence, [64]byte) (claim.Claims, error) { return claim.Claims{}, nil }
	l, err := newLink("127.0.0.1:0", ratls.Fixed(cert), anybody, func([]byte) bool { return true }, now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { ended <- l.run(ctx) }()
	t.Cleanup(func() { stop(); <-ended; _ = l.close() })
	out, err := raftLayer{l.raft, l, ""}.Dial(l.addr.String(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	in, err := l.raft.Accept()
	if err != nil {
		t.Fatal(err)
	}
	// Nobody writes: only the end of a connection ends these reads.
	for _, c := range []interface {
		Read([]byte) (int, error)
		SetReadDeadline(time.Time) error
		Close() error
	}{out, in} {
		_ = c.SetReadDeadline(start.Add(30 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("read something")
		}
		_ = c.Close()
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("ended by the test's own deadline, after %s", d)
	}
}
