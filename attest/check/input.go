package check

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/composite"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/ratls"
)

// MaxInput bounds what is read as evidence, in bytes: an attestation in hex with
// collateral beside it.
const MaxInput = 2*attest.MaxEvidence + 8*collateral.MaxBody

// Input is what a file of evidence says. Nothing in it is trusted: its root, time
// and policy count only where the one who asks names none.
type Input struct {
	Evidence    attest.Evidence
	Parts       []composite.Part  // what stands beside the CPU's evidence: GPUs, a TPM
	Certificate *x509.Certificate // of a certificate with RA-TLS extensions
	Collateral  *collateral.Set   // nil: the file brings none
	Root        *[32]byte         // sha256 of the SubjectPublicKeyInfo of the root it names
	At          time.Time         // zero: it names none
	Policy      json.RawMessage   // nil: it names none; composite.ParsePolicy reads it
	noChain     bool              // pck_certificate_chain was there, and is not used
}

// Parse reads evidence in any of these forms:
//
//   - JSON with exactly one of "quote" (hex; with it "event_log", "vm_config":
//     JSON in a string, "report_data": hex) or "attestation" (hex), and any of
//     "parts" (see composite.ParseParts), "collateral" (see ParseCollateral), "root"
//     (DER in hex), "at" (unix seconds), "policy" (see composite.ParsePolicy)
//   - a certificate with RA-TLS extensions, PEM (the first one counts) or DER
//   - an attestation in the reference's V0 or V1 encoding, or a TDX quote (bytes)
//
// Errors carry code invalid and reason "evidence-input", or what the parsers say.
func Parse(raw []byte) (Input, error) {
	switch {
	case len(raw) > MaxInput:
		return Input{}, invalid("%d bytes, at most %d", len(raw), MaxInput)
	case len(bytes.TrimSpace(raw)) == 0:
		return Input{}, invalid("nothing to check")
	case bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")):
		return parseJSON(raw)
	case bytes.HasPrefix(bytes.TrimSpace(raw), []byte("-----BEGIN ")):
		block, _ := pem.Decode(raw)
		if block == nil || block.Type != "CERTIFICATE" {
			return Input{}, invalid("the first PEM block is not a certificate")
		}
		return parseCertificate(block.Bytes)
	case raw[0] == 0x30:
		return parseCertificate(raw)
	case len(raw) > 1 && (raw[0] == 4 || raw[0] == 5) && raw[1] == 0: // the version of a quote; no attestation begins so
		ev := attest.Evidence{Variant: cvm.VariantTDX, Quote: raw}
		ev.ReportData = saidBy(raw)
		return Input{Evidence: ev}, ev.Validate()
	}
	ev, err := attest.ParseEvidence(raw)
	return Input{Evidence: ev}, err
}

func invalid(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, "evidence: "+format, args...).WithReason("evidence-input").
		WithFix(`want JSON with "quote" or "attestation", a certificate (PEM, DER), or an encoded attestation`)
}

func parseCertificate(der []byte) (Input, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Input{}, invalid("certificate: %w", err)
	}
	ev, _, err := ratls.FromCertificate(c)
	if err != nil {
		return Input{}, cvm.Errorf(cvm.Invalid, "evidence: %w", err).WithReason("evidence-input")
	}
	return Input{Evidence: ev, Certificate: c}, nil
}

func parseJSON(raw []byte) (in Input, err error) {
	f := object("evidence", raw)
	f.only("quote", "event_log", "vm_config", "report_data", "attestation", "parts", "collateral", "root", "at", "policy")
	if f.err != nil {
		return in, f.err
	}
	if in.Evidence, err = evidenceOf(f); err != nil {
		return in, err
	}
	if f.has("parts") {
		if in.Parts, err = composite.ParseParts(f.m["parts"]); err != nil {
			return in, err
		}
	}
	if f.has("collateral") {
		set, unused, err := parseCollateral(f.m["collateral"])
		if err != nil {
			return in, err
		}
		in.Collateral, in.noChain = &set, unused
	}
	if f.has("root") {
		if in.Root, err = ParseRoot(f.hex("root")); err != nil {
			return in, err
		}
	}
	if sec, ok := f.unix("at"); ok {
		in.At = time.Unix(sec, 0).UTC()
	}
	if f.has("policy") {
		in.Policy = f.m["policy"]
	}
	return in, f.err
}

// evidenceOf reads the dstack forms: a quote with what belongs to it, or an
// attestation that holds all of it.
func evidenceOf(f *fields) (attest.Evidence, error) {
	switch {
	case f.has("quote") == f.has("attestation"):
		f.fail(`want exactly one of "quote" and "attestation"`)
	case f.has("attestation"):
		if f.has("event_log") || f.has("vm_config") || f.has("report_data") {
			f.fail(`an "attestation" holds its own event log, vm_config and report data`)
		}
		b := f.hex("attestation")
		if f.err != nil {
			return attest.Evidence{}, f.err
		}
		return attest.ParseEvidence(b)
	}
	ev := attest.Evidence{Variant: cvm.VariantTDX, Quote: f.hex("quote"), Config: f.text("vm_config")}
	log, said := f.text("event_log"), f.hex("report_data")
	if f.has("report_data") && len(said) != len(ev.ReportData) {
		f.fail("report_data: %d bytes, want %d", len(said), len(ev.ReportData))
	}
	if f.err != nil {
		return ev, f.err
	}
	if log != "" {
		events, err := eventlog.ParseJSON([]byte(log))
		if err != nil {
			return ev, err
		}
		ev.EventLog, ev.RuntimeEvents = events, eventlog.Runtimes(events)
	}
	ev.ReportData = saidBy(ev.Quote)
	if f.has("report_data") {
		ev.ReportData = [64]byte(said)
	}
	return ev, ev.Validate()
}

// saidBy is the report data of a quote. What cannot be parsed is refused by the
// verification, with its name.
func saidBy(quote []byte) (rd [64]byte) {
	if q, err := tdx.ParseQuote(quote); err == nil {
		rd = q.Body.ReportData
	}
	return rd
}

// ParseRoot reads a root certificate, DER or PEM, or DER in hex, and returns what
// names it: the sha256 of its SubjectPublicKeyInfo.
func ParseRoot(raw []byte) (*[32]byte, error) {
	der := raw
	if b, err := hex.DecodeString(strings.TrimSpace(string(raw))); err == nil && len(b) > 0 {
		der = b
	} else if block, _ := pem.Decode(raw); block != nil {
		der = block.Bytes
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "root: %w", err).WithReason("evidence-root").
			WithFix("give the root certificate: DER in hex in a file of evidence, DER or PEM elsewhere")
	}
	spki := collateral.SPKIHash(c)
	return &spki, nil
}
