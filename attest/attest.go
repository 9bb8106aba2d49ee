// Package attest decides whether evidence is to be believed. ParseEvidence reads
// foreign bytes and trusts nothing; Verify takes evidence, collateral, a policy
// and a time, and gives Verified or a *claim.Rejection with every check that was
// made. It needs no network and no clock, so that a past decision can be replayed.
//
// Absence of policy is refusal: the zero Policy accepts nothing.
package attest

import (
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/cvm"
)

// MaxEvidence bounds an encoded attestation, in bytes (the reference's limit).
const MaxEvidence = 10 << 20

// Encoding of an attestation on the wire.
type Encoding int

const (
	EncodingAuto Encoding = iota // Marshal chooses: V0 when every event is V1, else V1
	EncodingV0                   // SCALE
	EncodingV1                   // msgpack
)

// Evidence is a parsed attestation, trusted by nobody.
type Evidence struct {
	Quote         []byte
	EventLog      []eventlog.Event
	RuntimeEvents []eventlog.Runtime
	ReportData    [64]byte
	Config        string   // vm_config JSON
	Encoding      Encoding // as parsed, so that it re-encodes to the same bytes
}

// Root is an admitted trust root. Only IntelRoots makes a genuine platform:
// Platform must be simulated or custom for any other key.
type Root struct {
	SPKI     [32]byte // sha256 of the root certificate's SubjectPublicKeyInfo
	Platform cvm.Platform
}

// Policy is what a relying party admits. The zero Policy accepts nothing.
type Policy struct {
	Roots         []Root    // admitted trust roots
	TCBStatus     []string  // admitted merged statuses, for example "UpToDate"
	ReportData    *[64]byte // nil is refused unless AnyReportData
	AnyReportData bool
	Phases        []claim.Phase
	Image         measure.Policy
}

// Verified is evidence that passed a policy. Only Verify makes one.
type Verified struct {
	ok     bool
	claims claim.Claims
}

// Claims says what was verified. It panics on the zero Verified, which no
// verification made.
func (v Verified) Claims() claim.Claims {
	if !v.ok {
		panic("attest: zero Verified used")
	}
	return v.claims
}

// Valid reports whether a verification made v.
func (v Verified) Valid() bool { return v.ok }

// ParseEvidence reads an attestation in the reference's V0 (SCALE) or V1
// (msgpack) form: bounded, canonical, no trailing bytes.
func ParseEvidence(b []byte) (Evidence, error) {
	return Evidence{}, cvm.Errorf(cvm.Unsupported, "attest.ParseEvidence is being built")
}

// Marshal encodes the evidence.
func (e Evidence) Marshal() ([]byte, error) {
	return nil, cvm.Errorf(cvm.Unsupported, "attest.Evidence.Marshal is being built")
}

// Strip is the form for certificates: the three ACPI events and the runtime
// events, the latter without digests.
func (e Evidence) Strip() Evidence { return e }

// Verify checks everything and returns every check it made. A non-nil error is a
// *claim.Rejection.
func Verify(ev Evidence, c collateral.Set, p Policy, at time.Time) (Verified, []claim.Check, error) {
	return Verified{}, nil, &claim.Rejection{}
}
