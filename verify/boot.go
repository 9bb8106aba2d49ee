package verify

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/refvalue"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/ledger"
)

// boot verifies one guest: the gateway or the app.
type boot struct {
	*run
	who     string
	nonce   []byte
	bound   []byte // what report_data binds beside the nonce
	subject *Subject
}

func (b *boot) sec(link string) *Section { return b.section(b.who + "." + link) }

// skipAll marks what cannot be checked any more. Skipped is not passed.
func (b *boot) skipAll(why string) {
	for _, n := range []string{checkApp, checkCompose, checkKMS} {
		b.sec("identity").skip(n, why)
	}
	for _, n := range []string{checkIncluded, checkLeaf, checkConsistent, checkThen, checkNow} {
		b.sec("decision").skip(n, why)
	}
}

func (b *boot) verify(ctx context.Context, ev guestapi.Evidence) {
	claims, ok := b.evidence(ctx, ev)
	if !ok {
		b.skipAll("the evidence was rejected")
		return
	}
	b.subject.Claims = &claims
	if claims.Platform == cvm.PlatformSimulated {
		b.report.banner(BannerSimulated)
	}
	if claims.Phase == claim.PhaseUnproven {
		b.report.banner(BannerUnproven)
	}
	doc := b.identity(claims, ev)
	b.step(b.sec("decision").Title)
	b.decision(ctx, claims, ev, doc)
}

// evidence runs the production verifier over what the guest showed.
func (b *boot) evidence(ctx context.Context, shown guestapi.Evidence) (claim.Claims, bool) {
	sec := b.sec("evidence")
	ev, err := attest.ParseEvidence(shown.Attestation)
	if !sec.try(checkParsed, err) {
		return claim.Claims{}, false
	}
	col, err := b.s.Collateral.For(ctx, ev)
	if !sec.try(checkCollateral, err) {
		return claim.Claims{}, false
	}
	values, ok := b.values(sec)
	if !ok {
		return claim.Claims{}, false
	}
	v, checks, err := attest.Verify(ev, col, b.p.policy(ev.Variant, guestapi.ReportDataEvidence(b.nonce, b.bound), values), b.s.Now())
	sec.Checks = append(sec.Checks, checks...)
	if err != nil || !v.Valid() {
		return claim.Claims{}, false
	}
	c := v.Claims()
	switch c.Platform {
	case cvm.PlatformTDX, cvm.PlatformSEVSNP:
		sec.pass(checkGenuine, c.Platform.String())
	default:
		sec.fail(checkGenuine, "a hardware vendor's root", c.Platform.String(), "the root of this chain is not a hardware vendor's")
	}
	return c, true
}

// values are the reference values that the profile names, or those compiled in.
func (b *boot) values(sec *Section) (refvalue.Values, bool) {
	if b.p.TEE.ReferenceValues == nil {
		return refvalue.Builtin(), true
	}
	err := error(cvm.Errorf(cvm.Internal, "nobody was asked for the reference values that the profile names"))
	var v refvalue.Values
	if b.s.Values != nil {
		v, err = b.s.Values.Values()
	}
	return v, sec.try(checkValues, err)
}

// identity compares what was measured with the target, the shown document and the
// profile's KMS. It returns the document if it is the measured one.
func (b *boot) identity(c claim.Claims, ev guestapi.Evidence) *appcompose.Document {
	sec := b.sec("identity")
	b.step(sec.Title)
	if b.who == "gateway" {
		want, _ := cvm.ParseAppID(b.p.Gateway.AppID) // validated with the profile
		sec.equal(checkApp, want.String(), c.AppID.String(), "the gateway is another app than the profile names")
	} else if b.t.names(c.AppID, c.InstanceID) {
		sec.pass(checkApp, c.AppID.String())
	} else {
		sec.fail(checkApp, b.t.ID, fmt.Sprintf("app %s, instance %s", c.AppID, c.InstanceID), "the evidence is of another app")
	}
	b.provider(c)
	shown := cvm.ComposeHash(sum([]byte(ev.AppCompose)))
	if !sec.equal(checkCompose, c.ComposeHash.String(), shown.String(), "the shown app-compose has another hash than the measured one") {
		return nil
	}
	b.subject.AppCompose = ev.AppCompose
	doc, err := appcompose.Parse([]byte(ev.AppCompose))
	if err != nil {
		sec.skip(checkPinned, "the document is not one this version reads: "+err.Error())
		return nil
	}
	if want := b.p.KMS.RootSPKI; strings.EqualFold(trim(want), trim(doc.KeyProviderID)) {
		sec.pass(checkPinned, short(want))
	} else {
		sec.fail(checkPinned, short(want), short(doc.KeyProviderID), "the measured document does not pin this KMS")
	}
	return doc
}

// provider compares the measured key provider with the profile's KMS.
func (b *boot) provider(c claim.Claims) {
	var p struct {
		Name string `json:"name"`
		ID   string `json:"id"`
	}
	sec := b.sec("identity")
	if err := json.Unmarshal(c.KeyProvider, &p); err != nil {
		sec.fail(checkKMS, "", "", "no key provider was measured")
		return
	}
	switch want := strings.ToLower(trim(b.p.KMS.RootSPKI)); {
	case p.Name != appcompose.ProviderKMS:
		sec.fail(checkKMS, appcompose.ProviderKMS, p.Name, "the keys come from another kind of provider")
	case p.ID != want:
		sec.fail(checkKMS, short(want), short(p.ID), "the keys come from another KMS")
	default:
		sec.pass(checkKMS, short(p.ID))
	}
}

// decision checks the record of the release, and asks the chain again.
func (b *boot) decision(ctx context.Context, c claim.Claims, ev guestapi.Evidence, doc *appcompose.Document) {
	sec := b.sec("decision")
	req := governance.RequestAtBoot(c)
	leaf, err := ev.Receipt.Verify(b.p.LedgerKeys)
	if sec.try(checkIncluded, err) {
		b.subject.Leaf, b.subject.LeafIndex = &leaf, ev.Receipt.Index
		if d := leafDiffers(leaf, c, req); d != "" {
			sec.fail(checkLeaf, "", "", d)
		} else {
			sec.pass(checkLeaf, fmt.Sprintf("entry %d of %s", ev.Receipt.Index, leaf.Time.UTC().Format("2006-01-02 15:04:05Z")))
		}
		b.consistent(ctx, ev.Receipt)
		b.then(ctx, leaf, req)
		b.notes(leaf, doc)
	} else {
		sec.skip(checkLeaf, "the receipt does not verify")
		sec.skip(checkConsistent, "the receipt does not verify")
		sec.skip(checkThen, "the receipt does not verify")
	}
	d, err := b.s.Chain.AuthorizeApp(ctx, req)
	switch {
	case err != nil:
		sec.try(checkNow, err)
	case !d.Allowed:
		sec.fail(checkNow, "allowed", "denied", d.Reason)
	default:
		sec.pass(checkNow, fmt.Sprintf("block %d, final %d", d.View.Head.Number, d.View.Final.Number))
	}
}

// leafDiffers compares a ledger entry with what was verified. "" means that they
// tell of the same boot.
func leafDiffers(l ledger.Leaf, c claim.Claims, req governance.BootRequest) string {
	for _, f := range []struct{ name, want, got string }{
		{"kind", ledger.KindAllow, l.Kind},
		{"app", c.AppID.String(), l.AppID},
		{"instance", c.InstanceID.String(), orZero(l.InstanceID)},
		{"compose hash", c.ComposeHash.String(), l.ComposeHash},
		{"OS image", c.OSImageHash.String(), l.ImageHash},
		{"device", c.DeviceID.String(), l.DeviceID},
		{"mr_aggregated at boot", hex.EncodeToString(req.MRAggregated[:]), l.MRAggregate},
		{"mr_system at boot", hex.EncodeToString(req.MRSystem[:]), l.MRSystem},
		{"platform", string(c.Platform), l.Platform},
		{"launch", c.LaunchID(), launchOf(l)},
	} {
		if f.want != f.got {
			return fmt.Sprintf("its %s is %q, the evidence says %q", f.name, f.got, f.want)
		}
	}
	return ""
}

// launchOf is the launch that a release went to, where evidence shows no phase.
func launchOf(l ledger.Leaf) string {
	var n ledger.LaunchNote
	if json.Unmarshal(l.Note, &n) != nil {
		return ""
	}
	return n.Launch
}

// orZero spells an absent instance id as the zero id.
func orZero(id string) string {
	if id == "" {
		return cvm.InstanceID{}.String()
	}
	return id
}

// consistent checks that the newest checkpoint extends the receipt's.
func (b *boot) consistent(ctx context.Context, r ledger.Receipt) {
	sec := b.sec("decision")
	old, err := b.p.LedgerKeys.Open(r.Checkpoint)
	if err != nil {
		sec.try(checkConsistent, err)
		return
	}
	note, err := b.s.Ledger.Checkpoint(ctx)
	if err != nil {
		sec.try(checkConsistent, err)
		return
	}
	now, err := b.p.LedgerKeys.Open(note)
	if err != nil {
		sec.try(checkConsistent, err)
		return
	}
	if now.Size < old.Size {
		sec.fail(checkConsistent, fmt.Sprintf("at least %d entries", old.Size), fmt.Sprint(now.Size), "the newest checkpoint is older than the receipt's")
		return
	}
	var proof [][]byte
	if now.Size > old.Size {
		if proof, err = b.s.Ledger.Consistency(ctx, old.Size, now.Size); err != nil {
			sec.try(checkConsistent, err)
			return
		}
	}
	if err := ledger.CheckConsistency(old.Size, old.Root, now.Size, now.Root, proof); err != nil {
		sec.try(checkConsistent, err)
		return
	}
	sec.pass(checkConsistent, fmt.Sprintf("%d entries, then %d", old.Size, now.Size))
}

// then asks the chain about the blocks that the release rested on.
func (b *boot) then(ctx context.Context, l ledger.Leaf, req governance.BootRequest) {
	sec := b.sec("decision")
	var v governance.View
	if err := json.Unmarshal(l.Governance, &v); err != nil {
		sec.fail(checkThen, "", "", "the ledger's entry names no block")
		return
	}
	b.subject.View = &v
	if v.ChainID != b.p.Chain.ID || !strings.EqualFold(v.Contract, b.p.Chain.KMSContract) {
		sec.fail(checkThen, fmt.Sprintf("%s on chain %d", b.p.Chain.KMSContract, b.p.Chain.ID), fmt.Sprintf("%s on chain %d", v.Contract, v.ChainID),
			"the release was decided by another contract")
		return
	}
	for _, ref := range []governance.BlockRef{v.Final, v.Head} {
		ok, reason, err := b.s.Chain.DecisionAt(ctx, req, false, ref)
		if err != nil {
			sec.try(checkThen, err)
			return
		}
		if !ok {
			sec.fail(checkThen, "allowed", "denied", fmt.Sprintf("at block %d: %s", ref.Number, reason))
			return
		}
	}
	sec.pass(checkThen, fmt.Sprintf("final block %d and head %d", v.Final.Number, v.Head.Number))
}

// notes reports on what policy may admit, and a reader must know.
func (b *boot) notes(l ledger.Leaf, doc *appcompose.Document) {
	sec := b.sec("decision")
	if l.NoNonce {
		sec.fail(checkNonce, "", "", "the guest sent no nonce")
		b.report.banner(BannerNoNonce)
	} else {
		sec.pass(checkNonce, "")
	}
	id := b.sec("identity")
	switch {
	case l.EnvSHA256 == "":
		id.pass(checkEnv, "it has none")
	case l.EnvSigned:
		id.pass(checkEnv, fmt.Sprintf("counter %d", l.EnvCounter))
	default:
		id.fail(checkEnv, "signed", "unsigned", "the environment was not signed when the keys were released")
		b.report.banner(BannerUnsigned)
	}
	if doc != nil && len(doc.EnvSigners) > 0 {
		id.require(checkEnv) // the app asks for it: the KMS may not have let it pass
	}
}

// gatewayOnChain compares the profile's gateway with the chain's.
func (b *boot) gatewayOnChain(ctx context.Context) {
	sec := b.sec("decision")
	info, err := b.s.Chain.Info(ctx)
	if err != nil {
		sec.try(checkOnChain, err)
		return
	}
	sec.equal(checkOnChain, strings.ToLower(trim(b.p.Gateway.AppID)), strings.ToLower(trim(info.GatewayAppID)), "the chain names another gateway")
}

func trim(s string) string { return strings.TrimPrefix(s, "0x") }

// short shows the first and last digits of a long hex text.
func short(s string) string {
	s = trim(s)
	if len(s) <= 24 {
		return s
	}
	return s[:12] + "…" + s[len(s)-12:]
}
