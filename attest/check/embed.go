package check

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/confidential-cloud/phala/attest/composite"
	"github.com/confidential-cloud/phala/cvm"
)

// JSON is Parse and Run for programs in other languages: evidence in any form of
// Parse, options as a JSON object (empty: none) with any of "collateral" (see
// ReadCollateral), "policy" (a name, or an object as composite.ParsePolicy reads it),
// "roots" (list of strings: a certificate in PEM, its DER in hex, or the sha256 of
// its public key in hex), "at" (unix seconds) and "report_data" (hex). The answer is
// the Report's JSON.
func JSON(evidence, options []byte, now time.Time) ([]byte, error) {
	in, err := Parse(evidence)
	if err != nil {
		return nil, err
	}
	o, err := readOptions(options, in)
	if err != nil {
		return nil, err
	}
	o.Now = now
	r, err := Run(in, o)
	if err != nil {
		return nil, err
	}
	return json.Marshal(r)
}

func readOptions(raw []byte, in Input) (o Options, err error) {
	if len(raw) == 0 {
		return o, nil
	}
	f := object("options", raw)
	f.only("collateral", "policy", "roots", "at", "report_data")
	if f.has("collateral") {
		set, err := ReadCollateral(f.m["collateral"], in.Evidence)
		if err != nil {
			return o, err
		}
		o.Collateral = &set
	}
	if f.has("policy") {
		p, name, err := readPolicy(f.m["policy"])
		if err != nil {
			return o, err
		}
		o.Policy, o.Parts, o.PolicyName = &p.CPU, p.Parts, name
	}
	if f.has("roots") {
		if o.Roots, err = readRoots(f.m["roots"]); err != nil {
			return o, err
		}
	}
	if sec, ok := f.unix("at"); ok {
		o.At = time.Unix(sec, 0)
	}
	if f.has("report_data") {
		if o.ReportData, err = ReadReportData(f.text("report_data")); err != nil {
			return o, err
		}
	}
	return o, f.err
}

func readPolicy(raw []byte) (p composite.Policy, name string, err error) {
	if json.Unmarshal(raw, &name) == nil {
		p.CPU, err = NamedPolicy(name)
		return p, name, err
	}
	p, err = composite.ParsePolicy(raw)
	return p, "given", err
}

// readRoots never gives nil without an error: an empty list admits no root.
func readRoots(raw []byte) ([][32]byte, error) {
	var list []string
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "options: roots is not a list of strings").WithReason("evidence-input")
	}
	out := make([][32]byte, 0, len(list))
	for _, s := range list {
		spki, err := ReadRoot([]byte(s))
		if err != nil {
			return nil, err
		}
		out = append(out, *spki)
	}
	return out, nil
}

// ReadRoot is ParseRoot, and reads the sha256 of a public key in hex as itself.
func ReadRoot(text []byte) (*[32]byte, error) {
	if b, err := hex.DecodeString(string(bytes.TrimSpace(text))); err == nil && len(b) == 32 {
		return (*[32]byte)(b), nil
	}
	return ParseRoot(text)
}
