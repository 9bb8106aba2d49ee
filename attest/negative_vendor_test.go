package attest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

func vendorRefusals() []refusal {
	status := []string{claim.TCBStatus}
	return []refusal{
		{"19 foreign root", nil, func(s *scene) { s.policy.Roots[0].SPKI[0]++ }, false, []string{claim.RootAdmitted}},
		{"19 simulated root called genuine", nil, func(s *scene) { s.policy.Roots[0].Platform = cvm.PlatformTDX }, false, []string{claim.RootAdmitted}},
		{"19 simulated quote under Intel's root only", nil, func(s *scene) { s.policy.Roots = attest.IntelRoots() }, false, []string{claim.RootAdmitted}},
		{"19 forged CA and processor under the admitted root", nil, forgedCA, false, []string{claim.PCKChain}},
		{"19 collateral of another root", nil, func(s *scene) {
			s.coll = s.foreign()
		}, true, []string{claim.CRLFresh, claim.CollateralChain}},
		{"20 TCB info signed by the CA", faults(simtee.Faults{SignedByCA: true}), nil, true, []string{claim.CollateralChain}},
		{"20 signed by another leaf of the root", faults(simtee.Faults{SignerName: "Intel SGX Something"}), nil, true, []string{claim.CollateralChain}},
		{"20 collateral under the PCK certificate", nil, func(s *scene) {
			pck, _, root := s.chain()
			s.coll.TCBInfoIssuerChain = slices.Concat(pck, root)
		}, true, []string{claim.CollateralChain}},
		{"20 QE identity under the platform CA", nil, func(s *scene) {
			_, ca, root := s.chain()
			s.coll.QEIdentityIssuerChain = slices.Concat(ca, root)
		}, true, []string{claim.CollateralChain}},
		{"21 revoked PCK", faults(simtee.Faults{RevokePCK: true}), nil, true, []string{claim.CRLRevoked}},
		{"21 revoked CA", faults(simtee.Faults{RevokeCA: true}), nil, true, []string{claim.CRLRevoked}},
		{"21 revoked TCB signer", faults(simtee.Faults{RevokeTCB: true}), nil, true, []string{claim.CRLRevoked}},
		{"22 missing list", nil, func(s *scene) { s.coll.PCKCRL = nil }, true, []string{claim.CollateralParse}},
		{"22 missing root list", nil, func(s *scene) { s.coll.RootCRL = nil }, true, []string{claim.CollateralParse}},
		{"22 missing QE identity chain", nil, func(s *scene) { s.coll.QEIdentityIssuerChain = nil }, true, []string{claim.CollateralParse}},
		{"22 missing TCB info chain", nil, func(s *scene) { s.coll.TCBInfoIssuerChain = nil }, true, []string{claim.CollateralParse}},
		{"22 expired PCK list", nil, func(s *scene) { s.coll.PCKCRL = s.minted(-40).PCKCRL }, true, []string{claim.CRLFresh}},
		{"22 expired root list", nil, func(s *scene) { s.coll.RootCRL = s.minted(-40).RootCRL }, true, []string{claim.CRLFresh}},
		{"22 PCK list of the future", nil, func(s *scene) { s.coll.PCKCRL = s.minted(2).PCKCRL }, true, []string{claim.CRLFresh}},
		{"22 root list of the future", nil, func(s *scene) { s.coll.RootCRL = s.minted(2).RootCRL }, true, []string{claim.CRLFresh}},
		{"22 PCK list of another vendor", nil, func(s *scene) { s.coll.PCKCRL = s.foreign().PCKCRL }, true, []string{claim.CRLFresh}},
		{"22 root list of another vendor", nil, func(s *scene) { s.coll.RootCRL = s.foreign().RootCRL }, true, []string{claim.CRLFresh}},
		{"22 root list in place of the PCK list", nil, func(s *scene) { s.coll.PCKCRL = s.coll.RootCRL }, true, []string{claim.CRLFresh}},
		{"22 lists swapped", nil, func(s *scene) { s.coll.PCKCRL, s.coll.RootCRL = s.coll.RootCRL, s.coll.PCKCRL }, true, []string{claim.CRLFresh}},
		{"22 no collateral", nil, func(s *scene) { s.coll = collateral.Set{} }, true, []string{claim.CollateralParse}},
		{"23 expired", faults(simtee.Faults{Expired: true}), nil, true, []string{claim.CollateralFresh, claim.CRLFresh}},
		{"23 TCB info expired", nil, func(s *scene) { s.coll.TCBInfo = s.minted(-40).TCBInfo }, true, []string{claim.CollateralFresh}},
		{"23 QE identity expired", nil, func(s *scene) { s.coll.QEIdentity = s.minted(-40).QEIdentity }, true, []string{claim.CollateralFresh}},
		{"23 TCB info of the future", nil, func(s *scene) { s.coll.TCBInfo = s.minted(2).TCBInfo }, true, []string{claim.CollateralFresh}},
		{"23 QE identity of the future", nil, func(s *scene) { s.coll.QEIdentity = s.minted(2).QEIdentity }, true, []string{claim.CollateralFresh}},
		{"23 from the future", faults(simtee.Faults{Future: true}), nil, true, []string{claim.CollateralFresh, claim.CRLFresh}},
		{"63 verified later", nil, func(s *scene) { s.at = s.at.Add(31 * 24 * time.Hour) }, true, []string{claim.CollateralFresh, claim.CRLFresh}},
		{"63 verified after the certificates", nil, func(s *scene) { s.at = s.at.AddDate(30, 0, 0) }, false, []string{claim.PCKChain}},
		{"24 edited after signing", nil, func(s *scene) {
			s.coll.TCBInfo = bytes.Replace(s.coll.TCBInfo, []byte(`"tcbEvaluationDataNumber":17`), []byte(`"tcbEvaluationDataNumber":18`), 1)
		}, true, []string{claim.CollateralSigned}},
		{"24 QE identity edited after signing", nil, func(s *scene) {
			s.coll.QEIdentity = bytes.Replace(s.coll.QEIdentity, []byte(`"isvprodid":2`), []byte(`"isvprodid":3`), 1)
		}, true, []string{claim.CollateralSigned}},
		{"24 signature of the other statement", nil, func(s *scene) {
			i, j := bytes.LastIndex(s.coll.TCBInfo, []byte(`,"signature"`)), bytes.LastIndex(s.coll.QEIdentity, []byte(`,"signature"`))
			s.coll.TCBInfo = slices.Concat(s.coll.TCBInfo[:i], s.coll.QEIdentity[j:])
		}, true, []string{claim.CollateralSigned}},
		{"24 white space inside the signed object", nil, func(s *scene) {
			s.coll.TCBInfo = bytes.Replace(s.coll.TCBInfo, []byte(`"tcbType":0`), []byte(`"tcbType": 0`), 1)
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

// signed makes the vendor sign edited statements: old becomes repl in the named one.
func signed(name, old, repl string) func(*scene) {
	return func(s *scene) {
		s.cfg.Faults.Statement = func(n string, b []byte) []byte {
			if n != name {
				return b
			}
			out := bytes.Replace(b, []byte(old), []byte(repl), 1)
			if bytes.Equal(out, b) {
				s.t.Fatalf("%s is not in %s", old, b)
			}
			return out
		}
	}
}

// qeReport spoils the quoting enclave's report, which the processor then signs.
func qeReport(edit func(r []byte)) func(*scene) {
	return func(s *scene) { s.cfg.Faults.QEReport = edit }
}

func body(edit func(b []byte)) func(*scene) { return func(s *scene) { s.cfg.Faults.Body = edit } }

// statementRefusals are genuinely signed statements that do not cover the platform.
func statementRefusals() []refusal {
	parse, match, module, qe := []string{claim.CollateralParse}, []string{claim.TCBMatch}, []string{claim.TDXModule}, []string{claim.QEIdentity}
	tcb := func(old, repl string) func(*scene) { return signed("tcbInfo", old, repl) }
	id := func(old, repl string) func(*scene) { return signed("enclaveIdentity", old, repl) }
	const sgx = `"sgxtcbcomponents":[{"svn":7},`
	return []refusal{
		{"24 SGX TCB info for a TDX quote", tcb(`"id":"TDX"`, `"id":"SGX"`), nil, true, parse},
		{"24 SGX QE identity for a TDX quote", id(`"id":"TD_QE"`, `"id":"QE"`), nil, true, parse},
		{"24 duplicate key inside the signed object", tcb(`"tcbType":0`, `"tcbType":0,"tcbType":0`), nil, true, parse},
		{"24 case-variant key inside the signed object", tcb(`"tcbType":0`, `"tcbType":0,"TcbType":0`), nil, true, parse},
		{"24 TCB info of another version", tcb(`"version":3`, `"version":2`), nil, true, parse},
		{"24 QE identity of another version", id(`"version":2`, `"version":3`), nil, true, parse},
		{"26 PCE below every level", tcb(`"pcesvn":11`, `"pcesvn":12`), nil, true, match},
		{"26 SGX component below every level", tcb(sgx, `"sgxtcbcomponents":[{"svn":8},`), nil, true, match},
		{"26 TDX component below every level", tcb(`"tdxtcbcomponents":[{"svn":0},{"svn":0},{"svn":2},`, `"tdxtcbcomponents":[{"svn":0},{"svn":0},{"svn":3},`), nil, true, match},
		{"26 module 1.0 below component 0", func(s *scene) {
			tcb(`"tdxtcbcomponents":[{"svn":0},`, `"tdxtcbcomponents":[{"svn":6},`)(s)
			body(func(b []byte) { b[1] = 0 })(s)
		}, nil, true, match},
		{"27 module below every level", tcb(`"isvsvn":5`, `"isvsvn":6`), nil, true, module},
		{"27 module signer outside the identity", body(func(b []byte) { b[16+48+47] = 1 }), nil, true, module},
		{"27 module attribute that no statement covers", func(s *scene) {
			tcb(`"attributesMask":"FFFFFFFFFFFFFFFF","id":"TDX_01"`, `"attributesMask":"FFFFFFFFFFFFFF00","id":"TDX_01"`)(s)
			s.cfg.Faults.SeamAttribute = 1 << 60
		}, nil, true, module},
		{"27 status of the module unknown", faults(simtee.Faults{ModuleStatus: "Fine"}), nil, true, match},
		{"28 status of the QE unknown", faults(simtee.Faults{QEStatus: "Fine"}), nil, true, match},
		{"28 QE revoked, even if the policy admits it", faults(simtee.Faults{QEStatus: "Revoked"}), func(s *scene) { s.policy.TCBStatus = []string{"Revoked"} }, true, append(match, claim.TCBStatus)},
		{"28 debug QE though the identity admits it", func(s *scene) {
			id(`"attributes":"11`, `"attributes":"13`)(s)
			s.cfg.Faults.QE = simtee.QEDebug
		}, nil, true, qe},
		{"28 MISCSELECT", qeReport(func(r []byte) { r[16] = 1 }), nil, true, qe},
		{"28 QE attributes", qeReport(func(r []byte) { r[48] |= 0x20 }), nil, true, qe},
		{"29 level with 15 SGX components", tcb(sgx, `"sgxtcbcomponents":[`), nil, true, parse},
		{"29 level with 17 TDX components", tcb(`"tdxtcbcomponents":[`, `"tdxtcbcomponents":[{"svn":0},`), nil, true, parse},
		{"29 no levels", tcb(`"tcbLevels":[{"tcb":{"pcesvn"`, `"tcbLevels":[],"others":[{"tcb":{"pcesvn"`), nil, true, parse},
		{"29 no TDX module levels", tcb(`"tcbLevels":[{"tcb":{"isvsvn"`, `"tcbLevels":[],"others":[{"tcb":{"isvsvn"`), nil, true, parse},
		{"29 status missing", tcb(`"tcbStatus":"UpToDate"`, `"other":"UpToDate"`), nil, true, match},
	}
}

// forgedCA is the evidence of a vendor of the same names, whose root certificate is
// replaced by the admitted one and whose CA signs its own revocation list.
func forgedCA(s *scene) {
	other, err := simtee.New(simtee.Config{Seed: bytes.Repeat([]byte{2}, 32), Clock: now})
	if err != nil {
		s.t.Fatal(err)
	}
	g, err := other.Boot(context.Background(), s.boot)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.ev, err = g.Evidence(context.Background(), s.ev.ReportData); err != nil {
		s.t.Fatal(err)
	}
	q := bytes.Replace(s.ev.Quote, other.RootPEM(), s.hw.RootPEM(), 1)
	grown := uint32(len(q) - len(s.ev.Quote)) //nolint:gosec // wraps on purpose when it shrinks
	for _, f := range []int{sigData - 4, sigData + 130, pckData + 2} {
		binary.LittleEndian.PutUint32(q[f:], binary.LittleEndian.Uint32(q[f:])+grown)
	}
	s.ev.Quote = q
	s.coll.PCKCRL = s.foreign().PCKCRL
}

// minted is the vendor's collateral of another day.
func (s *scene) minted(days int) collateral.Set {
	s.t.Helper()
	c, err := s.hw.Collateral(s.at.AddDate(0, 0, days))
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// foreign is the collateral of another vendor of the same names.
func (s *scene) foreign() collateral.Set {
	s.t.Helper()
	other, err := simtee.New(simtee.Config{Seed: bytes.Repeat([]byte{2}, 32)})
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := other.Collateral(s.at)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// chain is the PCK chain inside the quote, one PEM block each.
func (s *scene) chain() (pck, ca, root []byte) {
	s.t.Helper()
	q, err := tdx.ParseQuote(s.ev.Quote)
	if err != nil {
		s.t.Fatal(err)
	}
	const begin = "-----BEGIN"
	parts := bytes.Split(bytes.TrimSuffix(q.CertificateChain(), []byte{0}), []byte(begin))
	if len(parts) != 4 {
		s.t.Fatalf("%d certificates", len(parts)-1)
	}
	return append([]byte(begin), parts[1]...), append([]byte(begin), parts[2]...), append([]byte(begin), parts[3]...)
}

// smuggle adds a member with the content of another to a signed body.
func smuggle(body []byte, name string, from []byte) []byte {
	inner := from[bytes.IndexByte(from[1:], '{')+1 : bytes.LastIndex(from, []byte(`,"signature"`))]
	return slices.Concat(body[:len(body)-1], []byte(`,"`+name+`":`), inner, []byte("}"))
}
