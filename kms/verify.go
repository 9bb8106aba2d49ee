package kms

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

// refusal is a request that was refused. genuine says that a vendor (or the
// admitted simulated root) signed its evidence: then claims may hold what the
// evidence shows and the refusal gets a leaf; else it is only counted.
type refusal struct {
	err     *cvm.Error
	genuine bool
	claims  claim.Claims
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// maxHosts bounds how many machines' signatures a member remembers, of each kind
// of TEE: about 16 MiB in all.
const maxHosts = 4096

// evidence parses and verifies a guest's attestation for one binding and one phase.
func (m *Member) evidence(ctx context.Context, raw []byte, binding [64]byte, phase claim.Phase) (attest.Verified, error) {
	ev, err := attest.ParseEvidence(raw)
	if err != nil {
		return attest.Verified{}, &refusal{err: cvm.Errorf(cvm.Invalid, "attestation: %w", err).WithReason(kmsapi.ReasonEvidence)}
	}
	return m.judge(ctx, ev, binding, phase)
}

// judge verifies a guest's evidence. SEV-SNP shows no phase of the boot: where the
// configuration admits it, what a phase stands for is held up otherwise (launch.go).
func (m *Member) judge(ctx context.Context, ev attest.Evidence, binding [64]byte, phase claim.Phase) (attest.Verified, error) {
	if s := m.cfg.Attestation.SNP; s != nil && s.Admit && ev.Variant == cvm.VariantSNP {
		phase = claim.PhaseUnproven
	}
	return m.judgePhase(ctx, ev, binding, phase)
}

// judgePhase verifies anybody's evidence, which must show the phase.
func (m *Member) judgePhase(ctx context.Context, ev attest.Evidence, binding [64]byte, phase claim.Phase) (attest.Verified, error) {
	p, err := m.values.policy()
	if err != nil {
		return attest.Verified{}, err
	}
	p.Floor = m.floor()
	p.ReportData, p.Phases = &binding, []claim.Phase{phase}
	// What no admitted root signed must not choose what is fetched from the vendor, nor
	// push what others need out of the cache.
	pre := brought(ev)
	_, _, err = m.verifier.Verify(ev, pre, p, m.now())
	var rej *claim.Rejection
	if errors.As(err, &rej) && (!rej.Genuine || pre.AMD != nil && len(m.cfg.KDSURLs) == 0) {
		return attest.Verified{}, m.rejected(ev, pre, p, rej)
	}
	set, err := m.collateral.For(ctx, ev)
	if err != nil {
		if code := cvm.CodeOf(err); code == cvm.Invalid || code == cvm.Denied || code == cvm.Unsupported { // the evidence itself is at fault
			return attest.Verified{}, &refusal{err: cvm.Errorf(cvm.Denied, "evidence: %w", err).WithReason(kmsapi.ReasonEvidence)}
		}
		return attest.Verified{}, cvm.Errorf(cvm.Unavailable, "vendor collateral: %w", err).WithReason("collateral-unavailable").
			WithFix("check the KMS's collateral service")
	}
	v, _, err := m.verifier.Verify(ev, set, p, m.now())
	if err == nil {
		return v, nil
	}
	if !errors.As(err, &rej) {
		return attest.Verified{}, err
	}
	return attest.Verified{}, m.rejected(ev, set, p, rej)
}

// rejected words a rejection. What genuine evidence shows beside its faults names
// the leaf.
func (m *Member) rejected(ev attest.Evidence, set collateral.Set, p attest.Policy, rej *claim.Rejection) *refusal {
	out := &refusal{genuine: rej.Genuine, err: cvm.Errorf(cvm.Denied, "%w", rej).WithReason(reasonOf(rej)).WithFix(fixOf(rej))}
	if !rej.Genuine {
		return out
	}
	p.ReportData, p.AnyReportData = nil, true
	p.Phases = []claim.Phase{claim.PhaseEarly, claim.PhaseRelease, claim.PhaseBooting, claim.PhaseRunning, claim.PhaseUnproven}
	if lax, _, err := m.verifier.Verify(ev, set, p, m.now()); err == nil {
		out.claims = lax.Claims()
	} else { // what the vendor signed tells one such refusal from another
		q := rej.Unverified
		out.claims = claim.Claims{Platform: q.Platform, DeviceID: q.DeviceID, ReportData: q.ReportData, MRTD: q.MRTD, RTMR: q.RTMR, SNP: q.SNP}
		if slices.ContainsFunc(rej.Checks, func(c claim.Check) bool { return c.Name == claim.SNPIdentity && c.Verdict == claim.Passed }) {
			out.claims.AppID, out.claims.ComposeHash, out.claims.InstanceID = q.AppID, q.ComposeHash, q.InstanceID // bound to the launch that was signed
		}
	}
	return out
}

// brought is what SEV-SNP evidence brings of its vendor's statements: the chip's
// certificate and its issuers, up to a root that the policy must admit. A TDX quote
// has its chain in it.
func brought(ev attest.Evidence) collateral.Set {
	if ev.Variant != cvm.VariantSNP || len(ev.CertChain) != 3 {
		return collateral.Set{}
	}
	var issuers []byte
	for _, der := range ev.CertChain[1:] {
		issuers = append(issuers, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return collateral.Set{AMD: &collateral.AMD{Leaf: ev.CertChain[0], Chain: issuers}}
}

// reasonOf names a rejection by the check that says most about it.
func reasonOf(r *claim.Rejection) string {
	failed := map[string]bool{}
	for _, c := range r.Checks {
		failed[c.Name] = failed[c.Name] || c.Verdict == claim.Failed
	}
	others := 0
	for _, bad := range failed {
		if bad {
			others++
		}
	}
	switch {
	case failed[claim.RootAdmitted]:
		return kmsapi.ReasonRoot
	case failed[claim.ReportData]:
		return kmsapi.ReasonBinding
	case failed[claim.PhaseCheck] && (others == 1 || r.Unverified.Phase == claim.PhaseUnproven):
		return kmsapi.ReasonPhase
	}
	return kmsapi.ReasonEvidence
}

func fixOf(r *claim.Rejection) string {
	phase := reasonOf(r) == kmsapi.ReasonPhase
	for _, c := range r.Checks {
		if c.Verdict == claim.Failed && c.Fix != "" && (!phase || c.Name == claim.PhaseCheck) {
			return c.Fix
		}
	}
	return ""
}

// verified is a release request whose evidence, nonce, compose and environment
// are sound. Only verifyRelease makes one.
type verified struct {
	v        attest.Verified
	compose  *appcompose.Document
	context  kmsapi.EvidenceContext
	nonce    string // hex sha256; the nonce to redeem
	nonceEnd time.Time
	client   string // hex sha256 of the TLS client SPKI
	tracked  bool   // the compose names env_signers
	signed   bool
	noNonce  bool
}

func (m *Member) verifyRelease(ctx context.Context, req kmsapi.ReleaseRequest, spki []byte) (*verified, error) {
	end, err := checkNonce(m.nonceKey, req.Nonce, spki, m.now())
	if err != nil {
		return nil, &refusal{err: asCoded(err)}
	}
	v, err := m.evidence(ctx, req.Attestation, kmsapi.ReportDataRelease(req.Nonce, spki, req.Context), claim.PhaseRelease)
	if err != nil {
		return nil, err
	}
	out := &verified{v: v, nonce: hashHex(req.Nonce), nonceEnd: end, client: hashHex(spki)}
	if err := out.readCompose(req.AppCompose); err != nil {
		return nil, err
	}
	if err := out.readContext(req.Context); err != nil {
		return nil, err
	}
	if err := m.checkLaunch(out); err != nil {
		return nil, err
	}
	if m.machine.NonceUsed(out.nonce) {
		return nil, out.refuse(cvm.Denied, kmsapi.ReasonNonceUsed, "this nonce was redeemed before", "ask for a new nonce and make new evidence")
	}
	return out, nil
}

func asCoded(err error) *cvm.Error {
	var e *cvm.Error
	if errors.As(err, &e) {
		return e
	}
	return cvm.Errorf(cvm.Internal, "%w", err)
}

// refuse is a refusal of evidence that was verified.
func (v *verified) refuse(code cvm.Code, reason, text, fix string) *refusal {
	return &refusal{genuine: true, claims: v.v.Claims(), err: cvm.Errorf(code, "%s", text).WithReason(reason).WithFix(fix)}
}

func (v *verified) readCompose(raw []byte) error {
	if sha256.Sum256(raw) != [32]byte(v.v.Claims().ComposeHash) {
		return v.refuse(cvm.Denied, kmsapi.ReasonComposeMismatch, "the app-compose that was sent is not the one that was measured",
			"the host changed app-compose.json, or the guest sent another file")
	}
	doc, err := appcompose.Parse(raw)
	if err != nil {
		return v.refuse(cvm.Denied, kmsapi.ReasonComposeMismatch, "the measured app-compose does not parse: "+err.Error(), "")
	}
	v.compose = doc
	return nil
}

// readContext checks the environment's signature (T11). The counter is checked
// where it is kept: in the replicated state.
func (v *verified) readContext(raw []byte) error {
	bad := func(text string) error {
		return v.refuse(cvm.Denied, kmsapi.ReasonEnvSwapped, text,
			"the encrypted environment is not the one the owner signed: deploy it again, and look who can write to the host's files")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&v.context); err != nil || d.More() {
		return v.refuse(cvm.Invalid, kmsapi.ReasonEvidence, "context: not the expected JSON", "")
	}
	c := v.context
	if n := len(c.WireGuardKey); n != 0 && n != 32 {
		return v.refuse(cvm.Invalid, kmsapi.ReasonEvidence, "context: wireguard_key must have 32 bytes", "")
	}
	if len(v.compose.EnvSigners) == 0 {
		return nil // the measured policy admits unsigned environments; the leaf says so
	}
	v.tracked = true
	if c.EnvSHA256 == "" {
		if c.EnvCounter != 0 || c.EnvSignature != "" {
			return bad("the context has an environment signature but no environment")
		}
		return nil
	}
	sum, err := hex.DecodeString(c.EnvSHA256)
	if err != nil || len(sum) != 32 {
		return bad("context: env_sha256 is not 64 hex digits")
	}
	sig, err := hex.DecodeString(c.EnvSignature)
	if err != nil || len(sig) == 0 {
		return bad("the environment is not signed, and the app-compose names env_signers")
	}
	signer, err := keys.RecoverEnvSigner(sig, v.v.Claims().AppID, c.EnvCounter, [32]byte(sum))
	if err != nil {
		return bad("the environment's signature is malformed")
	}
	if !slices.ContainsFunc(v.compose.EnvSigners, func(s string) bool { return keys.SameAddress(s, signer) }) {
		return bad("the environment's signature is of " + signer + " (for these bytes), whom the app-compose does not name in env_signers")
	}
	v.signed = true
	return nil
}
