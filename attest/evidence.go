package attest

import (
	"bytes"
	"crypto/sha512"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/nitro"
	"github.com/confidential-cloud/phala/cvm"
)

// MaxEvidence bounds an encoded attestation, in bytes (the reference's limit).
const MaxEvidence = 10 << 20

const (
	maxQuote  = 16 << 10
	maxConfig = 1 << 20
	maxCert   = 16 << 10
	maxCerts  = 8
)

// Encoding of an attestation on the wire (dstack-core D.3, "VersionedAttestation").
type Encoding int

const (
	EncodingAuto Encoding = iota // Marshal chooses: V0 when every event is V1, else V1
	EncodingV0                   // SCALE
	EncodingV1                   // msgpack
)

// Evidence is a parsed attestation, trusted by nobody.
type Evidence struct {
	Variant       string   // cvm.VariantTDX (also when ""), cvm.VariantSNP, claim.VariantNitroEnclave or VariantNitroTPM
	Quote         []byte   // TDX
	Report        []byte   // SEV-SNP: the attestation report
	CertChain     [][]byte // SEV-SNP: certificates the prover brings; hints, never trusted
	MRConfig      string   // SEV-SNP: the MrConfig document that HOST_DATA is the hash of
	Document      []byte   // AWS Nitro: the attestation document (COSE_Sign1)
	EventLog      []eventlog.Event
	RuntimeEvents []eventlog.Runtime
	ReportData    [64]byte
	Config        string   // vm_config JSON (old captures: a sys-config with vm_config inside)
	PodPayload    *string  // stack dstack-pod: what ReportData is the tagged hash of (see Validate); else nil
	Encoding      Encoding // as parsed, so that it re-encodes to the same bytes
}

// ParseEvidence reads an attestation in the reference's V0 (SCALE) or V1
// (msgpack) form, of TDX, SEV-SNP or AWS Nitro: bounded and canonical (it re-encodes
// to the same bytes). Errors carry code invalid, or unsupported for other TEEs.
func ParseEvidence(b []byte) (Evidence, error) {
	if len(b) > MaxEvidence {
		return Evidence{}, cvm.Errorf(cvm.Invalid, "attestation: %d bytes, at most %d", len(b), MaxEvidence)
	}
	var (
		ev  Evidence
		err error
	)
	switch {
	case len(b) == 0:
		return Evidence{}, cvm.Errorf(cvm.Invalid, "attestation: empty")
	case b[0] == 0:
		ev, err = parseV0(b)
	case b[0]&0xf0 == 0x80 || b[0] == 0xde || b[0] == 0xdf:
		ev, err = parseV1(b)
	default:
		err = cvm.Errorf(cvm.Unsupported, "attestation: unknown encoding %#x", b[0])
	}
	if err != nil {
		return Evidence{}, err
	}
	if err := ev.Validate(); err != nil {
		return Evidence{}, err
	}
	again, err := ev.Marshal()
	if err != nil {
		return Evidence{}, err
	}
	if !bytes.Equal(again, b) {
		return Evidence{}, cvm.Errorf(cvm.Invalid, "attestation: not in canonical form")
	}
	return ev, nil
}

// NewEvidence packs what a TD says about itself: its quote, the firmware's log
// (CCEL table data; empty for none), the runtime events it extended RTMR3 with and
// the vm_config it was started with.
func NewEvidence(quote, ccel []byte, runtime []eventlog.Runtime, reportData [64]byte, vmConfig string) (Evidence, error) {
	ev := Evidence{Variant: cvm.VariantTDX, Quote: quote, RuntimeEvents: runtime, ReportData: reportData, Config: vmConfig}
	if len(ccel) != 0 {
		boot, err := eventlog.ParseCCEL(ccel)
		if err != nil {
			return Evidence{}, err
		}
		ev.EventLog = boot
	}
	for _, r := range runtime {
		ev.EventLog = append(ev.EventLog, r.Event())
	}
	return ev, ev.Validate()
}

// Marshal encodes the evidence as it was parsed, or by the reference's rule: V0
// when every event has a V1 digest and the stack is dstack, else V1.
func (e Evidence) Marshal() ([]byte, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	switch e.Encoding {
	case EncodingV0:
		return e.marshalV0()
	case EncodingV1:
		return e.marshalV1(), nil
	}
	if e.hasV2() || e.PodPayload != nil {
		return e.marshalV1(), nil
	}
	return e.marshalV0()
}

// Strip is the form for certificates: the three ACPI events and the runtime
// events, the latter without what is recomputed anyway.
func (e Evidence) Strip() Evidence {
	e.EventLog = eventlog.StripForCert(e.EventLog)
	return e
}

func (e Evidence) hasV2() bool {
	for _, r := range e.RuntimeEvents {
		if r.Version == 2 {
			return true
		}
	}
	for _, x := range e.EventLog {
		if x.Version == 2 {
			return true
		}
	}
	return false
}

func (e Evidence) isTDX() bool { return e.Variant == "" || e.Variant == cvm.VariantTDX }
func (e Evidence) isSNP() bool { return e.Variant == cvm.VariantSNP }
func (e Evidence) isNitro() bool {
	return e.Variant == claim.VariantNitroEnclave || e.Variant == claim.VariantNitroTPM
}

// notHere names a TEE of the reference that has no verifier behind this form.
func notHere(kind string) error {
	return cvm.Errorf(cvm.Unsupported, "attestation: TEE %.40q is not supported", kind).WithReason("tee-unsupported").
		WithFix("evidence of Intel TDX, AMD SEV-SNP and AWS Nitro is read in this form")
}

// Validate bounds the parts, whoever made them, and refuses those that belong to
// another TEE: an encoding would lose them silently.
func (e Evidence) Validate() error {
	switch {
	case !e.isTDX() && !e.isSNP() && !e.isNitro():
		return notHere(e.Variant)
	case !e.isTDX() && (len(e.Quote) != 0 || len(e.EventLog) != 0):
		return cvm.Errorf(cvm.Invalid, "attestation: evidence of another TEE with a TDX quote or event log")
	case !e.isSNP() && (len(e.Report) != 0 || len(e.CertChain) != 0 || e.MRConfig != ""):
		return cvm.Errorf(cvm.Invalid, "attestation: evidence of another TEE with parts of a SEV-SNP report")
	case !e.isNitro() && len(e.Document) != 0:
		return cvm.Errorf(cvm.Invalid, "attestation: evidence of another TEE with an AWS document")
	case len(e.Document) > nitro.MaxDocument:
		return cvm.Errorf(cvm.Invalid, "attestation: document of %d bytes, at most %d", len(e.Document), nitro.MaxDocument)
	case len(e.Quote) > maxQuote || len(e.Report) > maxQuote:
		return cvm.Errorf(cvm.Invalid, "attestation: quote or report of %d bytes, at most %d", max(len(e.Quote), len(e.Report)), maxQuote)
	case e.PodPayload != nil && len(*e.PodPayload) > maxConfig:
		return cvm.Errorf(cvm.Invalid, "attestation: report_data_payload of %d bytes, at most %d", len(*e.PodPayload), maxConfig)
	case len(e.Config) > maxConfig || len(e.MRConfig) > maxConfig:
		return cvm.Errorf(cvm.Invalid, "attestation: config of %d bytes, at most %d", max(len(e.Config), len(e.MRConfig)), maxConfig)
	case len(e.CertChain) > maxCerts:
		return cvm.Errorf(cvm.Invalid, "attestation: %d certificates, at most %d", len(e.CertChain), maxCerts)
	case len(e.EventLog) > eventlog.MaxEvents || len(e.RuntimeEvents) > eventlog.MaxEvents:
		return cvm.Errorf(cvm.Invalid, "attestation: more than %d events", eventlog.MaxEvents)
	// Nothing may rest on a payload that the quote does not cover.
	case e.PodPayload != nil && e.ReportData != sha512.Sum512([]byte(podTag+*e.PodPayload)):
		return cvm.Errorf(cvm.Invalid, "attestation: report_data is not the hash of report_data_payload")
	}
	for _, c := range e.CertChain {
		if len(c) > maxCert {
			return cvm.Errorf(cvm.Invalid, "attestation: certificate of %d bytes, at most %d", len(c), maxCert)
		}
	}
	return e.validateEvents()
}

// podTag is the reference's domain tag of application report data (dstack-core D.4).
const podTag = "app-data:"

func (e Evidence) validateEvents() error {
	for _, x := range e.EventLog {
		if err := x.Validate(); err != nil {
			return err
		}
	}
	for _, r := range e.RuntimeEvents {
		if len(r.Name) > 4*eventlog.MaxName || len(r.Payload) > eventlog.MaxPayload || r.Version < 0 || r.Version > 2 {
			return cvm.Errorf(cvm.Invalid, "attestation: runtime event %.40q is too large", r.Name)
		}
	}
	return nil
}
