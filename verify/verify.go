// Package verify walks the chain of trust backwards: from the TLS key that a
// client sees, over the gateway's and the app's evidence, to the hardware root,
// the owner's rules on chain and the public ledger.
//
// Run makes the report; package verify/online gives it the network. A Report is
// verified only if every required check passed: whatever could not be checked
// counts as failed, and what a profile does not name is not admitted.
package verify

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/refvalue"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// Peer is the other end of a TLS connection.
type Peer struct {
	SPKI      []byte // DER SubjectPublicKeyInfo of its certificate
	Subject   string // for people
	Untrusted string // why the certificate is not valid for the name; "" when it is
}

// Edge talks to the cloud as a client would, through the gateway.
type Edge interface {
	// Connect makes a TLS connection to a name and looks at its certificate.
	Connect(ctx context.Context, host string, port int) (Peer, error)
	// GatewayEvidence asks the gateway; Peer is of the connection that answered.
	GatewayEvidence(ctx context.Context, nonce []byte) (gatewayapi.Evidence, Peer, error)
	// AppEvidence asks the app (by app or instance id) through the gateway.
	AppEvidence(ctx context.Context, id string, nonce []byte) (guestapi.Evidence, Peer, error)
}

// Collateral gets vendor collateral for evidence (attest/fetch.Client).
type Collateral interface {
	For(ctx context.Context, ev attest.Evidence) (collateral.Set, error)
}

// Chain is governance (governance/ethereum.Reader).
type Chain interface {
	AuthorizeApp(ctx context.Context, r governance.BootRequest) (governance.Decision, error)
	DecisionAt(ctx context.Context, r governance.BootRequest, kms bool, block governance.BlockRef) (bool, string, error)
	Info(ctx context.Context) (governance.Info, error)
}

// Ledger is the public log (kmsapi.Client).
type Ledger interface {
	Checkpoint(ctx context.Context) ([]byte, error)
	Consistency(ctx context.Context, from, to int64) ([][]byte, error)
}

// Sources are what a verification asks. Nothing that they answer is believed
// before it is checked.
type Sources struct {
	Edge       Edge
	Collateral Collateral
	Chain      Chain
	Ledger     Ledger
	Values     Values           // asked when the profile names a feed
	Now        func() time.Time // nil: time.Now
	Nonce      func() []byte    // nil: 32 random bytes
}

// Values gives the newest reference values that hold. fetch.Feed is one.
type Values interface {
	Values() (refvalue.Values, error)
}

// Progress is called before each link of the chain with its title. It may be nil.
type Progress func(title string)

type run struct {
	p      Profile
	t      Target
	s      Sources
	report *Report
	step   Progress
}

// Run verifies a target. The error is for what kept the report from being made at
// all (a bad profile or target); a target that does not pass gives a report whose
// Verified is false.
func Run(ctx context.Context, p Profile, t Target, s Sources, progress Progress) (*Report, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if t.ID == "" || t.Host == "" || s.Edge == nil || s.Collateral == nil || s.Chain == nil || s.Ledger == nil {
		return nil, cvm.Errorf(cvm.Invalid, "verify: the target or a source is missing")
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	if s.Nonce == nil {
		s.Nonce = func() []byte {
			b := make([]byte, 32)
			_, _ = rand.Read(b)
			return b
		}
	}
	if progress == nil {
		progress = func(string) {}
	}
	r := &run{p: p, t: t, s: s, step: progress, report: &Report{Version: 1, Target: t.Text, Profile: p.Name,
		At: s.Now().UTC().Truncate(time.Second), Sections: outline(), Banners: []string{}}}
	key := r.connection(ctx)
	r.gateway(ctx, key)
	r.app(ctx, key)
	r.report.finish()
	return r.report, ctx.Err()
}

// section finds a link by its id.
func (r *run) section(id string) *Section {
	for i := range r.report.Sections {
		if r.report.Sections[i].ID == id {
			return &r.report.Sections[i]
		}
	}
	return &Section{} // not reached: ids are ours
}

// connection makes the checks of the first link and returns the TLS key that a
// client of the target sees (nil when there is none).
func (r *run) connection(ctx context.Context) []byte {
	sec := r.section("connection")
	r.step(sec.Title)
	peer, err := r.s.Edge.Connect(ctx, r.t.Host, r.t.Port)
	if !sec.try(checkConnect, err) {
		sec.skip(checkCertificate, "there is no connection")
		sec.skip(checkKeyProved, "there is no connection")
		return nil
	}
	if peer.Untrusted != "" {
		sec.fail(checkCertificate, r.t.Host, peer.Subject, peer.Untrusted)
	} else {
		sec.pass(checkCertificate, peer.Subject)
	}
	// checkKeyProved is made when the gateway has shown its evidence.
	return peer.SPKI
}

// gateway verifies the gateway's own boot, and that it proves the target's TLS key.
func (r *run) gateway(ctx context.Context, key []byte) {
	nonce := r.s.Nonce()
	b := &boot{run: r, who: "gateway", nonce: nonce, subject: &r.report.Gateway}
	r.step(r.section("gateway.evidence").Title)
	ev, peer, err := r.s.Edge.GatewayEvidence(ctx, nonce)
	conn := r.section("connection")
	switch {
	case key == nil: // said already
	case err != nil:
		conn.fail(checkKeyProved, "", "", "the gateway shows no evidence")
	case string(ev.Evidence.Bound) != string(peer.SPKI):
		conn.fail(checkKeyProved, keyID(ev.Evidence.Bound), keyID(peer.SPKI), "the gateway proves another key than it uses")
	case string(peer.SPKI) != string(key):
		conn.fail(checkKeyProved, keyID(peer.SPKI), keyID(key), "the target is served with another key than the gateway proves")
	default:
		conn.pass(checkKeyProved, keyID(key))
	}
	if !b.sec("evidence").try(checkFetched, err) {
		b.skipAll("the gateway shows no evidence")
		return
	}
	r.report.Gateway.TLSKey = keyID(peer.SPKI)
	// The quote is held against the key of the connection itself.
	b.bound = peer.SPKI
	b.verify(ctx, ev.Evidence)
	b.gatewayOnChain(ctx)
}

// app verifies the app's boot, asked through the gateway.
func (r *run) app(ctx context.Context, key []byte) {
	nonce := r.s.Nonce()
	b := &boot{run: r, who: "app", nonce: nonce, subject: &r.report.App}
	r.step(r.section("app.evidence").Title)
	ev, peer, err := r.s.Edge.AppEvidence(ctx, r.t.ID, nonce)
	if !b.sec("evidence").try(checkFetched, err) {
		b.skipAll("the app shows no evidence")
		return
	}
	if key != nil && string(peer.SPKI) != string(key) {
		b.sec("evidence").fail(checkSameGateway, keyID(key), keyID(peer.SPKI), "the evidence came over another TLS key than the target's")
	} else {
		b.sec("evidence").pass(checkSameGateway, keyID(peer.SPKI))
	}
	b.bound = ev.Bound
	b.verify(ctx, ev)
	if c := r.report.App.Claims; c != nil && c.Platform == cvm.PlatformSimulated {
		r.report.banner(BannerSimulated)
	}
}

// keyID is a short name of a key: the first 16 hex digits of its sha256.
func keyID(spki []byte) string {
	if len(spki) == 0 {
		return "none"
	}
	return hex.EncodeToString(sum(spki))[:16]
}
