package attest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

// refusal is one item of the negative list. Exactly the named checks fail.
type refusal struct {
	name    string
	before  func(*scene)
	after   func(*scene)
	genuine bool // the vendor (or simulated root) still stands behind the quote
	checks  []string
}

func faults(f simtee.Faults) func(*scene) { return func(s *scene) { s.cfg.Faults = f } }

func quoteByte(at int) func(*scene) { return func(s *scene) { s.ev.Quote[at] ^= 1 } }

const sigData = 48 + 584 + 4 // where signature data begins in a version 4 quote

func TestRefusals(t *testing.T) {
	for _, group := range [][]refusal{quoteRefusals(), vendorRefusals(), tdRefusals(), logRefusals(), policyRefusals()} {
		for _, tc := range group {
			t.Run(tc.name, func(t *testing.T) {
				s := newScene(t, tc.before)
				if tc.after != nil {
					tc.after(s)
				}
				v, _, err := s.verify()
				if v.Valid() {
					t.Fatal("accepted")
				}
				rejected(t, err, tc.genuine, tc.checks...)
			})
		}
	}
}

func quoteRefusals() []refusal {
	parse := []string{claim.QuoteParse}
	return []refusal{
		{"1 trailing bytes", nil, func(s *scene) { s.ev.Quote = append(s.ev.Quote, 1) }, false, parse},
		{"2 truncated", nil, func(s *scene) { s.ev.Quote = s.ev.Quote[:len(s.ev.Quote)-1] }, false, parse},
		{"2 empty", nil, func(s *scene) { s.ev.Quote = nil }, false, parse},
		{"3 signature_data_len 0", nil, func(s *scene) { copy(s.ev.Quote[sigData-4:], []byte{0, 0, 0, 0}) }, false, parse},
		{"4 qe_auth_data_len too long", nil, func(s *scene) { copy(s.ev.Quote[sigData+134+448:], []byte{0xff, 0xff}) }, false, parse},
		{"5 version 3", nil, func(s *scene) { s.ev.Quote[0] = 3 }, false, parse},
		{"5 version 6", nil, func(s *scene) { s.ev.Quote[0] = 6 }, false, parse},
		{"6 SGX type", nil, func(s *scene) { s.ev.Quote[4] = 0 }, false, parse},
		{"7 P-384 key type", nil, func(s *scene) { s.ev.Quote[2] = 3 }, false, parse},
		{"8 outer certification type 5", nil, func(s *scene) { s.ev.Quote[sigData+128] = 5 }, false, parse},
		{"9 over 16 KiB", nil, func(s *scene) { s.ev.Quote = append(s.ev.Quote, make([]byte, 16<<10)...) }, false, parse},
		{"10 junk before the first PEM block", nil, func(s *scene) { s.ev.Quote = growPEM(s.ev.Quote, "junk\n", true) }, false, []string{claim.PCKChain}},
		{"10 fourth certificate", nil, func(s *scene) {
			s.ev.Quote = growPEM(s.ev.Quote, string(s.hw.RootPEM()), true)
		}, false, []string{claim.PCKChain}},
		{"11 v5 body type and size disagree", func(s *scene) { s.cfg.QuoteVersion = 5 }, func(s *scene) { s.ev.Quote[48] = 2 }, false, parse},
		{"11 v5 unknown body type", func(s *scene) { s.cfg.QuoteVersion = 5 }, func(s *scene) { s.ev.Quote[48] = 4 }, false, parse},
		{"12 padding not zero", nil, func(s *scene) { s.ev.Quote = append(s.ev.Quote, 0, 0, 1) }, false, parse},
		{"12 reserved header bytes set", nil, quoteByte(8), false, parse},
		{"13 all-zero signature", nil, func(s *scene) { clear(s.ev.Quote[sigData : sigData+64]) }, false, []string{claim.QuoteSignature}},
		{"14 attestation key replaced", nil, func(s *scene) { resign(s) }, false, []string{claim.QuoteKey}},
		{"15 attestation key off curve", nil, quoteByte(sigData + 64), false, []string{claim.QuoteKey, claim.QuoteSignature}},
		{"16 QE report signature", nil, quoteByte(sigData + 134 + 384), false, []string{claim.QEReport}},
		{"16 QE auth data", nil, quoteByte(sigData + 134 + 450), false, []string{claim.QuoteKey}},
		{"17 QE report data upper half", faults(simtee.Faults{QE: simtee.QEReportData}), nil, false, []string{claim.QuoteKey}},
		{"report data flipped", nil, quoteByte(568), false, []string{claim.QuoteSignature, claim.ReportData}},
		{"MRTD flipped", nil, quoteByte(48 + 136), false, []string{claim.QuoteSignature, claim.ImageMeasurement}},
	}
}

// growPEM inserts text before (or after) the PCK chain and mends the lengths.
func growPEM(q []byte, text string, before bool) []byte {
	i := bytes.Index(q, []byte("-----BEGIN"))
	add := func(at int) {
		binary.LittleEndian.PutUint32(q[at:], binary.LittleEndian.Uint32(q[at:])+uint32(len(text)))
	}
	q = slices.Clone(q)
	add(sigData - 4)
	add(sigData + 130)
	add(i - 4)
	if !before {
		i = len(q) - 1
	}
	return slices.Concat(q[:i], []byte(text), q[i:])
}

// resign puts an attacker's key into the quote and signs with it.
func resign(s *scene) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	pub, err := k.PublicKey.Bytes()
	if err != nil {
		s.t.Fatal(err)
	}
	digest := sha256.Sum256(s.ev.Quote[:sigData-4])
	der, err := ecdsa.SignASN1(rand.Reader, k, digest[:])
	if err != nil {
		s.t.Fatal(err)
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		s.t.Fatal(err)
	}
	rs.R.FillBytes(s.ev.Quote[sigData : sigData+32])
	rs.S.FillBytes(s.ev.Quote[sigData+32 : sigData+64])
	copy(s.ev.Quote[sigData+64:], pub[1:])
}

func vendorRefusals() []refusal {
	status := []string{claim.TCBStatus}
	return []refusal{
		{"19 foreign root", nil, func(s *scene) { s.policy.Roots[0].SPKI[0]++ }, false, []string{claim.RootAdmitted}},
		{"19 simulated root called genuine", nil, func(s *scene) { s.policy.Roots[0].Platform = cvm.PlatformTDX }, false, []string{claim.RootAdmitted}},
		{"19 simulated quote under Intel's root only", nil, func(s *scene) { s.policy.Roots = attest.IntelRoots() }, false, []string{claim.RootAdmitted}},
		{"19 collateral of another root", nil, func(s *scene) {
			other, err := simtee.New(simtee.Config{Seed: bytes.Repeat([]byte{2}, 32)})
			if err != nil {
				s.t.Fatal(err)
			}
			if s.coll, err = other.Collateral(s.at); err != nil {
				s.t.Fatal(err)
			}
		}, true, []string{claim.CRLFresh, claim.CollateralChain}},
		{"20 TCB info signed by the CA", faults(simtee.Faults{SignedByCA: true}), nil, true, []string{claim.CollateralChain}},
		{"20 signed by another leaf of the root", faults(simtee.Faults{SignerName: "Intel SGX Something"}), nil, true, []string{claim.CollateralChain}},
		{"21 revoked PCK", faults(simtee.Faults{RevokePCK: true}), nil, true, []string{claim.CRLRevoked}},
		{"21 revoked CA", faults(simtee.Faults{RevokeCA: true}), nil, true, []string{claim.CRLRevoked}},
		{"21 revoked TCB signer", faults(simtee.Faults{RevokeTCB: true}), nil, true, []string{claim.CRLRevoked}},
		{"22 missing list", nil, func(s *scene) { s.coll.PCKCRL = nil }, true, []string{claim.CollateralParse}},
		{"22 lists swapped", nil, func(s *scene) { s.coll.PCKCRL, s.coll.RootCRL = s.coll.RootCRL, s.coll.PCKCRL }, true, []string{claim.CRLFresh}},
		{"22 no collateral", nil, func(s *scene) { s.coll = collateral.Set{} }, true, []string{claim.CollateralParse}},
		{"23 expired", faults(simtee.Faults{Expired: true}), nil, true, []string{claim.CollateralFresh, claim.CRLFresh}},
		{"23 from the future", faults(simtee.Faults{Future: true}), nil, true, []string{claim.CollateralFresh, claim.CRLFresh}},
		{"63 verified later", nil, func(s *scene) { s.at = s.at.Add(31 * 24 * time.Hour) }, true, []string{claim.CollateralFresh, claim.CRLFresh}},
		{"63 verified after the certificates", nil, func(s *scene) { s.at = s.at.AddDate(30, 0, 0) }, false, []string{claim.PCKChain}},
		{"24 edited after signing", nil, func(s *scene) {
			s.coll.TCBInfo = bytes.Replace(s.coll.TCBInfo, []byte(`"tcbEvaluationDataNumber":17`), []byte(`"tcbEvaluationDataNumber":18`), 1)
		}, true, []string{claim.CollateralSigned}},
		{"24 smuggled case-variant member", nil, func(s *scene) { s.coll.TCBInfo = smuggle(s.coll.TCBInfo, "TCBINFO", s.coll.TCBInfo) }, true, []string{claim.CollateralParse}},
		{"24 repeated member", nil, func(s *scene) { s.coll.QEIdentity = smuggle(s.coll.QEIdentity, "enclaveIdentity", s.coll.QEIdentity) }, true, []string{claim.CollateralParse}},
		{"24 swapped", nil, func(s *scene) { s.coll.TCBInfo, s.coll.QEIdentity = s.coll.QEIdentity, s.coll.TCBInfo }, true, []string{claim.CollateralParse}},
		{"25 FMSPC", faults(simtee.Faults{OtherFMSPC: true}), nil, true, []string{claim.CollateralMatch}},
		{"25 PCEID", faults(simtee.Faults{OtherPCEID: true}), nil, true, []string{claim.CollateralMatch}},
		{"26 platform out of date", faults(simtee.Faults{TCBStatus: "OutOfDate", Advisories: []string{"INTEL-SA-00106"}}), nil, true, status},
		{"26 platform revoked, even if the policy admits it", faults(simtee.Faults{TCBStatus: "Revoked"}), func(s *scene) { s.policy.TCBStatus = []string{"Revoked"} }, true, []string{claim.TCBMatch, claim.TCBStatus}},
		{"27 module out of date", faults(simtee.Faults{ModuleStatus: "OutOfDate"}), nil, true, status},
		{"27 unknown module", faults(simtee.Faults{ModuleMajor: 9}), nil, true, []string{claim.TDXModule}},
		{"27 module signer", faults(simtee.Faults{SeamSigner: true}), nil, true, []string{claim.TDXModule}},
		{"27 module attributes", faults(simtee.Faults{SeamAttribute: 1}), nil, true, []string{claim.TDXModule}},
		{"28 QE out of date", faults(simtee.Faults{QEStatus: "OutOfDate"}), nil, true, status},
		{"28 QE too old", faults(simtee.Faults{QE: simtee.QETooOld}), nil, true, []string{claim.QEIdentity}},
		{"28 debug QE", faults(simtee.Faults{QE: simtee.QEDebug}), nil, true, []string{claim.QEIdentity}},
		{"28 QE signer", faults(simtee.Faults{QE: simtee.QEOtherSigner}), nil, true, []string{claim.QEIdentity}},
		{"28 QE product", faults(simtee.Faults{QE: simtee.QEProduct}), nil, true, []string{claim.QEIdentity}},
		{"28 QE vendor", faults(simtee.Faults{QE: simtee.QEVendor}), nil, true, []string{claim.QEIdentity}},
		{"29 no level matches", faults(simtee.Faults{NoMatchingTCB: true}), nil, true, []string{claim.TCBMatch}},
		{"29 unknown status", faults(simtee.Faults{TCBStatus: "Splendid"}), nil, true, []string{claim.TCBMatch}},
	}
}

// smuggle adds a member with the content of another to a signed body.
func smuggle(body []byte, name string, from []byte) []byte {
	inner := from[bytes.IndexByte(from[1:], '{')+1 : bytes.LastIndex(from, []byte(`,"signature"`))]
	return slices.Concat(body[:len(body)-1], []byte(`,"`+name+`":`), inner, []byte("}"))
}

func tdRefusals() []refusal {
	attrs := func(a uint64) func(*scene) { return func(s *scene) { s.boot.Attributes = a } }
	return []refusal{
		{"31 debug", attrs(simtee.DefaultAttributes | simtee.AttributeDebug), nil, true, []string{claim.TDDebug}},
		{"32 SEPT_VE_DISABLE clear", attrs(1 << 30), nil, true, []string{claim.TDAttributes}},
		{"33 reserved bit", attrs(simtee.DefaultAttributes | 1<<40), nil, true, []string{claim.TDAttributes}},
		{"33 migratable", attrs(simtee.DefaultAttributes | 1<<29), nil, true, []string{claim.TDAttributes}},
		{"33 reserved TUD bit", attrs(simtee.DefaultAttributes | 1<<3), nil, true, []string{claim.TDDebug}},
		{"33 XFAM without SSE", func(s *scene) { s.boot.XFAM = 1 }, nil, true, []string{claim.TDXFAM}},
		{"33 XFAM undefined bit", func(s *scene) { s.boot.XFAM = 3 | 1<<40 }, nil, true, []string{claim.TDXFAM}},
		{"34 service TD", func(s *scene) { s.cfg.QuoteVersion = 5; s.boot.MRServiceTD[0] = 1 }, nil, true, []string{claim.TDAttributes}},
	}
}

func logRefusals() []refusal {
	events := func(fn func([]eventlog.Runtime) []eventlog.Runtime) func(*scene) {
		return func(s *scene) { s.boot.Phase = claim.PhaseRunning; s.events = fn }
	}
	anyPhase := func(s *scene) {
		s.policy.Phases = []claim.Phase{claim.PhaseRelease, claim.PhaseBooting, claim.PhaseRunning}
	}
	insert := func(at int, e eventlog.Runtime) func(*scene) {
		return events(func(l []eventlog.Runtime) []eventlog.Runtime { return slices.Insert(l, at, e) })
	}
	drop := func(name string) func(*scene) {
		return events(func(l []eventlog.Runtime) []eventlog.Runtime {
			return slices.DeleteFunc(l, func(e eventlog.Runtime) bool { return e.Name == name })
		})
	}
	identity := []string{claim.EventlogIdentity}
	app, compose := ev(eventlog.AppID, make([]byte, 20)...), ev(eventlog.ComposeHash, make([]byte, 32)...)
	return []refusal{
		{"41 payload flipped in both copies", nil, func(s *scene) {
			s.ev.RuntimeEvents[1].Payload = append([]byte{1}, s.ev.RuntimeEvents[1].Payload[1:]...)
			s.ev.EventLog[4] = s.ev.RuntimeEvents[1].Event()
		}, true, []string{claim.EventlogReplay}},
		{"41 event dropped", nil, func(s *scene) { s.ev.RuntimeEvents = s.ev.RuntimeEvents[:5] }, true, []string{claim.EventlogReplay, claim.EventlogAgrees}},
		{"41 boot log does not replay", nil, func(s *scene) { s.ev.EventLog[0].Digest[0]++ }, true, []string{claim.EventlogBoot}},
		{"42 digest disagrees with payload", nil, func(s *scene) { s.ev.EventLog[4].Digest = make([]byte, 48) }, true, []string{claim.EventlogAgrees}},
		{"42 the two copies differ", nil, func(s *scene) { s.ev.EventLog[4].Payload = make([]byte, 20) }, true, []string{claim.EventlogAgrees}},
		{"43 app-id twice", insert(3, app), anyPhase, true, identity},
		{"43 compose-hash twice", insert(3, compose), anyPhase, true, identity},
		{"43 key-provider twice", insert(7, ev(eventlog.KeyProvider, '{', '}')), anyPhase, true, identity},
		{"44 compose-hash after boot-mr-done", insert(6, compose), anyPhase, true, identity},
		{"44 app-id after system-ready", insert(9, app), anyPhase, true, identity},
		{"44 os-image-hash after system-ready", insert(9, ev(eventlog.OSImageHash, make([]byte, 32)...)), anyPhase, true, identity},
		{"45 no boot-mr-done", drop(eventlog.BootMRDone), anyPhase, true, identity},
		{"45 boot-mr-done twice", insert(6, ev(eventlog.BootMRDone)), anyPhase, true, identity},
		{"45 system-ready twice", insert(9, ev(eventlog.SystemReady)), anyPhase, true, identity},
		{"45 no system-ready is not running", func(s *scene) { s.boot.Phase = claim.PhaseBooting }, func(s *scene) { s.policy.Phases = []claim.Phase{claim.PhaseRunning} }, true, []string{claim.PhaseCheck}},
		{"46 reordered", events(func(l []eventlog.Runtime) []eventlog.Runtime { l[3], l[4] = l[4], l[3]; return l }), anyPhase, true, identity},
		{"47 runtime event in RTMR2", nil, func(s *scene) { s.ev.EventLog[4].IMR = 2 }, true, []string{claim.EventlogAgrees, claim.EventlogBoot}},
		{"47 other type in RTMR3", nil, func(s *scene) { s.ev.EventLog[4].Type = 1 }, true, []string{claim.EventlogAgrees}},
		{"48 name with a colon", nil, func(s *scene) {
			e := &s.ev.RuntimeEvents[1]
			e.Name, e.Payload = e.Name+":"+string(e.Payload[:2]), e.Payload[3:]
		}, true, []string{claim.EventlogAgrees, claim.EventlogReplay}},
		{"49 unknown event before system-ready", insert(3, ev("surprise")), anyPhase, true, identity},
		{"50 payload of the wrong size", insert(3, ev(eventlog.InitScriptHash, 1)), anyPhase, true, identity},
		{"running app offered as a boot", func(s *scene) { s.boot.Phase = claim.PhaseRunning }, nil, true, []string{claim.PhaseCheck}},
		{"52 another image", nil, func(s *scene) {
			s.ev.Config = string(bytes.Replace([]byte(s.ev.Config), []byte(`"01`), []byte(`"02`), 1))
		}, true, []string{claim.ImageMeasurement}},
		{"52 another CPU count", nil, func(s *scene) {
			s.ev.Config = string(bytes.Replace([]byte(s.ev.Config), []byte(`"cpu_count":1`), []byte(`"cpu_count":2`), 1))
		}, true, []string{claim.ImageMeasurement}},
		{"52 no vm_config", nil, func(s *scene) { s.ev.Config = "" }, true, []string{claim.ImageMeasurement}},
	}
}

func policyRefusals() []refusal {
	return []refusal{
		{"36 no report data in the policy", nil, func(s *scene) { s.policy.ReportData = nil }, true, []string{claim.ReportData}},
		{"36 no status in the policy", nil, func(s *scene) { s.policy.TCBStatus = nil }, true, []string{claim.TCBStatus}},
		{"36 no phase in the policy", nil, func(s *scene) { s.policy.Phases = nil }, true, []string{claim.PhaseCheck}},
		{"36 no image variant in the policy", nil, func(s *scene) { s.policy.Image.Variants = nil }, true, []string{claim.ImageMeasurement}},
		{"36 a root without a platform", nil, func(s *scene) { s.policy.Roots[0].Platform = "" }, false, []string{claim.RootAdmitted}},
		{"38 report data of another key", nil, func(s *scene) { s.policy.ReportData = &[64]byte{9} }, true, []string{claim.ReportData}},
		{"38 stated report data differs from the quote", nil, func(s *scene) { s.ev.ReportData[0]++ }, true, []string{claim.ReportData}},
		{"38 any report data, but another stated", nil, func(s *scene) { s.policy.ReportData, s.policy.AnyReportData, s.ev.ReportData[0] = nil, true, 9 }, true, []string{claim.ReportData}},
		{"container variant on a custom root", nil, func(s *scene) { s.policy.Roots[0].Platform = cvm.PlatformCustom }, true, []string{claim.ImageMeasurement}},
	}
}
