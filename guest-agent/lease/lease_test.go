package lease_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/lease"
	"github.com/confidential-cloud/phala/guest-agent/lease/leasetest"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

const compose = `{"manifest_version":2,"name":"t","runner":"none"}`

func machine(t *testing.T) *simtee.Hardware {
	t.Helper()
	hw, err := simtee.New(simtee.Config{Seed: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	return hw
}

func guest(t *testing.T, hw *simtee.Hardware, phase claim.Phase) *simtee.Guest {
	t.Helper()
	h := cvm.ComposeHash{}
	_ = h.UnmarshalText([]byte(hashOf(compose)))
	g, err := hw.Boot(t.Context(), simtee.Boot{Name: fmt.Sprintf("g%d", guests.Add(1)), AppID: cvm.AppID{1}, ComposeHash: h, InstanceID: cvm.InstanceID{2}, Phase: phase})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func session(t *testing.T, g *simtee.Guest, pin []byte, urls ...string) *lease.Session {
	t.Helper()
	s, err := lease.New(lease.Config{URLs: urls, RootSPKI: pin, Prove: g.Evidence, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ask() lease.Ask {
	return lease.Ask{AppID: cvm.AppID{1}, AppCompose: []byte(compose), Timeout: time.Nanosecond}
}

var guests atomic.Int64 // names of TDs

func hashOf(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) }

// runningEvents are what follows a release.
func runningEvents() []eventlog.Runtime {
	return []eventlog.Runtime{{Name: eventlog.KeyProvider, Payload: []byte("{}")}, {Name: eventlog.StorageFS, Payload: []byte("ext4")}, {Name: eventlog.SystemReady}}
}

// run finishes the boot of a released guest.
func run(t *testing.T, g *simtee.Guest) {
	t.Helper()
	for _, e := range runningEvents() {
		if err := g.Extend(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReleaseRenewSign(t *testing.T) {
	hw := machine(t)
	k := leasetest.New(t, hw, "")
	g := guest(t, hw, claim.PhaseRelease)
	// The first member cannot be reached: the next one answers.
	s := session(t, g, k.SPKI, "https://127.0.0.1:1", k.URL)
	rel, err := s.Release(t.Context(), ask())
	if err != nil {
		t.Fatal(err)
	}
	want, _ := k.Root.AppKey(cvm.AppID{1})
	if string(rel.AppKey.Reveal()) != string(want.Reveal()) {
		t.Error("another app key")
	}
	if left := time.Until(s.Expires()); left < 59*time.Minute || left > time.Hour {
		t.Errorf("lease ends in %s", left)
	}
	// A renewal needs evidence of a running guest.
	if err := s.Renew(t.Context(), nil); cvm.ReasonOf(err) != kmsapi.ReasonEvidence {
		t.Errorf("renewal in phase release: %v", err)
	}
	run(t, g)
	if err := s.Renew(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	chain, err := s.SignCert(t.Context(), key, kmsapi.CertConfig{Subject: "x.test", AltNames: []string{"x.test"}, ServerAuth: true})
	if err != nil || len(chain) != 3 {
		t.Fatalf("%d certificates, %v", len(chain), err)
	}
	b, _ := pem.Decode([]byte(chain[0]))
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil || c.Subject.CommonName != "x.test" || !key.PublicKey.Equal(c.PublicKey) {
		t.Errorf("leaf %v %v", c.Subject, err)
	}
	if _, cert, err := s.Certificate(); err != nil || len(cert.Certificate) != 3 {
		t.Errorf("session certificate: %v", err)
	}
}

// A false KMS has genuine-looking everything, but another root.
func TestFalseKMS(t *testing.T) {
	hw := machine(t)
	genuine, false_ := leasetest.New(t, hw, ""), leasetest.New(t, hw, "")
	g := guest(t, hw, claim.PhaseRelease)
	_, err := session(t, g, genuine.SPKI, false_.URL).Release(t.Context(), ask())
	if cvm.ReasonOf(err) != lease.ReasonFalseKMS || cvm.CodeOf(err) != cvm.Denied {
		t.Fatalf("a false KMS: %v (%s)", err, cvm.ReasonOf(err))
	}
	if false_.Count(kmsapi.PathNonce) != 0 {
		t.Error("the false KMS was talked to")
	}
	// Beside a genuine one it does no harm.
	if _, err := session(t, g, genuine.SPKI, false_.URL, genuine.URL).Release(t.Context(), ask()); err != nil {
		t.Error(err)
	}
}

func TestUnpinnedTakesAnyone(t *testing.T) {
	hw := machine(t)
	k := leasetest.New(t, hw, "")
	if _, err := session(t, guest(t, hw, claim.PhaseRelease), nil, k.URL).Release(t.Context(), ask()); err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	hw := machine(t)
	k := leasetest.New(t, hw, "")
	t.Run("governance has the last word", func(t *testing.T) {
		k.Refuse(cvm.Errorf(cvm.Denied, "Compose hash not allowed").WithReason(kmsapi.ReasonGovernance))
		defer k.Refuse(nil)
		a := ask()
		a.Timeout = time.Hour // a refusal is not retried
		_, err := session(t, guest(t, hw, claim.PhaseRelease), k.SPKI, k.URL, k.URL).Release(t.Context(), a)
		if cvm.ReasonOf(err) != kmsapi.ReasonGovernance || cvm.CodeOf(err) != cvm.Denied {
			t.Errorf("%v", err)
		}
	})
	t.Run("running evidence is no boot", func(t *testing.T) {
		_, err := session(t, guest(t, hw, claim.PhaseRunning), k.SPKI, k.URL).Release(t.Context(), ask())
		if cvm.ReasonOf(err) != kmsapi.ReasonEvidence {
			t.Errorf("%v", err)
		}
	})
	t.Run("other machine", func(t *testing.T) {
		other, err := simtee.New(simtee.Config{Seed: append(make([]byte, 31), 9)})
		if err != nil {
			t.Fatal(err)
		}
		_, err = session(t, guest(t, other, claim.PhaseRelease), k.SPKI, k.URL).Release(t.Context(), ask())
		if cvm.ReasonOf(err) != kmsapi.ReasonEvidence {
			t.Errorf("%v", err)
		}
	})
	t.Run("answer for another app", func(t *testing.T) {
		a := ask()
		a.AppID = cvm.AppID{9}
		_, err := session(t, guest(t, hw, claim.PhaseRelease), k.SPKI, k.URL).Release(t.Context(), a)
		if cvm.ReasonOf(err) != "kms-answer-invalid" {
			t.Errorf("%v", err)
		}
	})
	t.Run("nobody answers", func(t *testing.T) {
		_, err := session(t, guest(t, hw, claim.PhaseBooting), k.SPKI, "https://127.0.0.1:1").Release(t.Context(), ask())
		if cvm.ReasonOf(err) != lease.ReasonUnreachable {
			t.Errorf("%v", err)
		}
	})
	for _, u := range []string{"http://127.0.0.1:1", "ftp://x", ""} {
		if _, err := lease.New(lease.Config{URLs: []string{u}, Now: time.Now}); err == nil {
			t.Errorf("URL %q was taken", u)
		}
	}
	if _, err := lease.New(lease.Config{Now: time.Now}); cvm.ReasonOf(err) != lease.ReasonUnreachable {
		t.Errorf("no URL: %v", err)
	}
}

// While the KMS cannot answer, the guest waits and says why; then it goes on.
func TestReleaseWaits(t *testing.T) {
	hw := machine(t)
	k := leasetest.New(t, hw, "")
	k.Refuse(cvm.Errorf(cvm.Unavailable, "no quorum").WithReason(kmsapi.ReasonNoQuorum))
	a := ask()
	a.Timeout = time.Minute
	var said []string
	a.Waiting = func(r string) { said = append(said, r); k.Refuse(nil) }
	if _, err := session(t, guest(t, hw, claim.PhaseRelease), k.SPKI, k.URL).Release(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 || said[0] != kmsapi.ReasonNoQuorum {
		t.Errorf("waited for %q", said)
	}
	// And when the time is over, the KMS's own reason is what remains.
	k.Refuse(cvm.Errorf(cvm.Unavailable, "chain").WithReason(kmsapi.ReasonChainStale))
	a.Timeout, a.Waiting = time.Nanosecond, nil
	_, err := session(t, guest(t, hw, claim.PhaseRelease), k.SPKI, k.URL).Release(t.Context(), a)
	if cvm.ReasonOf(err) != kmsapi.ReasonChainStale {
		t.Errorf("%v", err)
	}
}

func keeper(t *testing.T, k *leasetest.KMS, hw *simtee.Hardware, ttl time.Duration) *lease.Keeper {
	t.Helper()
	k.TTL = ttl
	g := guest(t, hw, claim.PhaseRelease)
	s := session(t, g, k.SPKI, k.URL)
	if _, err := s.Release(t.Context(), ask()); err != nil {
		t.Fatal(err)
	}
	run(t, g)
	return &lease.Keeper{Session: s}
}

func TestKeepRenewsAtHalfLife(t *testing.T) {
	hw := machine(t)
	k := leasetest.New(t, hw, "")
	kp := keeper(t, k, hw, 200*time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	renewed := make(chan struct{}, 10)
	kp.Renewed = func(context.Context) { renewed <- struct{}{} }
	done := make(chan error, 1)
	go func() { done <- kp.Keep(ctx) }()
	for range 3 {
		select {
		case <-renewed:
		case err := <-done:
			t.Fatalf("the keeper ended: %v", err)
		case <-time.After(10 * time.Second):
			t.Fatal("no renewal")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What was left of the boot after the keys counts: a keeper that starts late renews at
// once, not half a life later.
func TestKeepCountsFromTheGrant(t *testing.T) {
	hw := machine(t)
	k := leasetest.New(t, hw, "")
	g := guest(t, hw, claim.PhaseRelease)
	var passed atomic.Int64
	s, err := lease.New(lease.Config{URLs: []string{k.URL}, RootSPKI: k.SPKI, Prove: g.Evidence, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Release(t.Context(), ask()); err != nil {
		t.Fatal(err)
	}
	run(t, g)
	passed.Store(int64(k.TTL * 2 / 3))
	ctx, cancel := context.WithCancel(t.Context())
	renewed, done := make(chan struct{}, 1), make(chan error, 1)
	kp := &lease.Keeper{Session: s, Renewed: func(context.Context) { renewed <- struct{}{} }}
	go func() { done <- kp.Keep(ctx) }()
	select {
	case <-renewed:
	case err := <-done:
		t.Fatalf("the keeper ended: %v", err)
	case <-time.After(20 * time.Second):
		t.Error("two thirds of the lease were over and it was not renewed")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// writer tells of each write.
type writer chan struct{}

func (w writer) Write(b []byte) (int, error) {
	w <- struct{}{}
	return len(b), nil
}

// A boot that took longer than the lease lasts waits for its first renewal, however long
// a member takes to answer; a refusal ends it at once.
func TestBeginAfterASlowBoot(t *testing.T) {
	hw := machine(t)
	k := leasetest.New(t, hw, "")
	said := make(chan struct{}, 100) // a member that did not renew is logged
	begin := func(passed time.Duration) *lease.Keeper {
		t.Helper()
		g := guest(t, hw, claim.PhaseRelease)
		var late atomic.Int64
		s, err := lease.New(lease.Config{URLs: []string{k.URL}, RootSPKI: k.SPKI, Prove: g.Evidence, Log: slog.New(slog.NewTextHandler(writer(said), nil)),
			Now: func() time.Time { return time.Now().Add(time.Duration(late.Load())) }})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Release(t.Context(), ask()); err != nil {
			t.Fatal(err)
		}
		run(t, g)
		late.Store(int64(passed))
		return &lease.Keeper{Session: s}
	}
	t.Run("over", func(t *testing.T) {
		kp := begin(3 * k.TTL)
		k.Refuse(cvm.Errorf(cvm.Unavailable, "no quorum").WithReason(kmsapi.ReasonNoQuorum))
		done := make(chan error, 1)
		go func() { done <- kp.Begin(t.Context()) }()
		for range 2 {
			select {
			case err := <-done:
				t.Fatalf("a KMS that cannot answer ended the boot at once: %v", err)
			case <-said:
			}
		}
		k.Refuse(nil)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if left := time.Until(kp.Session.Expires().Add(-3 * k.TTL)); left < k.TTL/2 {
			t.Errorf("the lease lasts for %s more", left)
		}
	})
	t.Run("refused", func(t *testing.T) {
		kp := begin(3 * k.TTL)
		k.Refuse(cvm.Errorf(cvm.Denied, "revoked").WithReason(kmsapi.ReasonGovernance))
		defer k.Refuse(nil)
		if err := kp.Begin(t.Context()); cvm.ReasonOf(err) != kmsapi.ReasonGovernance {
			t.Errorf("a refusal: %v", err)
		}
	})
	t.Run("given up", func(t *testing.T) {
		kp := begin(3 * k.TTL)
		k.Refuse(cvm.Errorf(cvm.Unavailable, "no quorum").WithReason(kmsapi.ReasonNoQuorum))
		defer k.Refuse(nil)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := kp.Begin(ctx); err == nil {
			t.Error("a lease that nobody renewed was taken for renewed")
		}
	})
	t.Run("young", func(t *testing.T) {
		kp := begin(0)
		before := k.Count(kmsapi.PathRenew)
		if err := kp.Begin(t.Context()); err != nil || k.Count(kmsapi.PathRenew) != before {
			t.Errorf("a lease before its half: %v, %d renewals", err, k.Count(kmsapi.PathRenew)-before)
		}
	})
}

// T5: a revocation ends the lease at the next renewal, an outage when its time is
// over, and neither sooner.
func TestKeepLosesLease(t *testing.T) {
	hw := machine(t)
	k := leasetest.New(t, hw, "")
	t.Run("revoked", func(t *testing.T) {
		kp := keeper(t, k, hw, 100*time.Millisecond)
		kp.Grace = time.Hour // on_stale does not help against a refusal
		k.Refuse(cvm.Errorf(cvm.Denied, "revoked").WithReason(kmsapi.ReasonGovernance))
		defer k.Refuse(nil)
		if err := kp.Keep(t.Context()); cvm.ReasonOf(err) != kmsapi.ReasonGovernance {
			t.Errorf("%v", err)
		}
	})
	t.Run("outage", func(t *testing.T) {
		kp := keeper(t, k, hw, 300*time.Millisecond)
		k.Refuse(cvm.Errorf(cvm.Unavailable, "no quorum").WithReason(kmsapi.ReasonNoQuorum))
		defer k.Refuse(nil)
		end := kp.Session.Expires()
		err := kp.Keep(t.Context())
		if cvm.ReasonOf(err) != kmsapi.ReasonNoQuorum || time.Now().Before(end) {
			t.Errorf("%v, %s before its end", err, time.Until(end))
		}
	})
	t.Run("grace", func(t *testing.T) {
		kp := keeper(t, k, hw, 100*time.Millisecond)
		kp.Grace = 400 * time.Millisecond
		k.Refuse(cvm.Errorf(cvm.Unavailable, "chain").WithReason(kmsapi.ReasonChainStale))
		defer k.Refuse(nil)
		end := kp.Session.Expires().Add(kp.Grace)
		if err := kp.Keep(t.Context()); err == nil || time.Now().Before(end) {
			t.Errorf("%v, %s before the grace ends", err, time.Until(end))
		}
	})
}

func TestGrace(t *testing.T) {
	for in, want := range map[string]time.Duration{"": 0, "stop": 0, "serve(1h)": time.Hour, "serve(90s)": 90 * time.Second} {
		if got, err := lease.Grace(in); err != nil || got != want {
			t.Errorf("%q: %v %v", in, got, err)
		}
	}
	for _, in := range []string{"serve", "serve()", "serve(-1s)", "serve(x)", "forever", "serve(1h) "} {
		if _, err := lease.Grace(in); err == nil {
			t.Errorf("%q was taken", in)
		}
	}
}

func TestTemporary(t *testing.T) {
	for _, c := range []cvm.Code{cvm.Unavailable, cvm.Exhausted, cvm.Internal} {
		if !lease.Temporary(cvm.Errorf(c, "x")) {
			t.Errorf("%s is not temporary", c)
		}
	}
	for _, c := range []cvm.Code{cvm.Denied, cvm.Invalid, cvm.Unauthenticated, cvm.Conflict, cvm.NotFound} {
		if lease.Temporary(cvm.Errorf(c, "x")) {
			t.Errorf("%s is temporary", c)
		}
	}
	if !lease.Temporary(errors.New("plain")) {
		t.Error("an error without a code says nothing about the request")
	}
}
