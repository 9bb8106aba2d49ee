package api

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/attest"
	evidence "github.com/confidential-cloud/phala/attest/check"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

// AttestationConfig is how quotes are judged: by the vendors' rules, under the
// vendors' roots and those that the operator names.
type AttestationConfig struct {
	// CollateralURLs are Intel PCS or PCCS services, tried in order; none: Bundle only.
	CollateralURLs []string `toml:"collateral_urls"`
	// Bundle is a file of collateral (phala collateral export) to fall back on.
	Bundle string `toml:"bundle"`
	// SimulatedRoots are the sha256 (hex) of simulated vendors' keys that count beside
	// the real ones: for development.
	SimulatedRoots []string `toml:"simulated_roots"`
}

func (a AttestationConfig) validate() (errs []error) {
	for i, u := range a.CollateralURLs {
		if v, err := url.Parse(u); err != nil || v.Host == "" {
			errs = append(errs, fmt.Errorf("attestation.collateral_urls[%d]: %q is not a URL", i, u))
		}
	}
	for i, r := range a.SimulatedRoots {
		if b, err := hex.DecodeString(r); err != nil || len(b) != 32 {
			errs = append(errs, fmt.Errorf("attestation.simulated_roots[%d]: want a sha256 in hex", i))
		}
	}
	return errs
}

// judge verifies quotes.
type judge struct {
	roots       [][32]byte
	usual       *fetch.Client // kept for an hour
	early       *fetch.Client // the vendor's newest, TCB recoveries before their deadline included
	now         func() time.Time
	unavailable bool // no service and no bundle
}

// earlyAge is how old a statement may be that an evaluation rests on: one round of
// questions about an app's CVMs shares it.
const earlyAge = 10 * time.Second

func newJudge(c AttestationConfig, now func() time.Time) (*judge, error) {
	j := &judge{now: now, unavailable: len(c.CollateralURLs) == 0 && c.Bundle == ""}
	roots := evidence.Pinned()
	for _, r := range c.SimulatedRoots {
		var spki [32]byte
		_, _ = hex.Decode(spki[:], []byte(r)) // validated
		roots = append(roots, attest.SimulatedRoot(spki))
	}
	for _, r := range roots {
		j.roots = append(j.roots, r.SPKI)
	}
	f := fetch.Config{URLs: c.CollateralURLs, Roots: roots, Clock: now, Timeout: 10 * time.Second}
	if c.Bundle != "" {
		raw, err := os.ReadFile(c.Bundle)
		if err != nil {
			return nil, fmt.Errorf("attestation.bundle: %w", err)
		}
		b, err := collateral.ParseBundle(raw)
		if err != nil {
			return nil, fmt.Errorf("attestation.bundle: %w", err)
		}
		f.Bundle = &b
	}
	if j.unavailable {
		return j, nil
	}
	var err error
	if j.usual, err = fetch.New(f); err != nil {
		return nil, fmt.Errorf("attestation: %w", err)
	}
	f.Early, f.Refresh = true, earlyAge
	if j.early, err = fetch.New(f); err != nil {
		return nil, fmt.Errorf("attestation: %w", err)
	}
	return j, nil
}

// judged is a quote with what became of it.
type judged struct {
	quote      *tdx.Quote
	raw        []byte // without padding
	set        collateral.Set
	report     evidence.Report
	ppid       []byte
	genuine    bool   // a machine of an admitted vendor signed it
	complaints string // the first check that failed
}

func (j *judged) checksum() string { h := sha(j.raw); return hex.EncodeToString(h[:]) }

// quote verifies one TDX quote. Errors: invalid for what is no quote, unavailable
// where collateral cannot be had.
func (j *judge) quote(ctx context.Context, raw []byte, early bool) (out judged, err error) {
	if out.quote, err = tdx.ParseQuote(raw); err != nil {
		return out, err
	}
	out.raw = raw[:out.quote.Size()]
	_, pck, err := out.quote.ParseChain()
	if err != nil {
		return out, cvm.Errorf(cvm.Invalid, "the quote's certificates: %w", err)
	}
	out.ppid = pck.PPID
	in, err := evidence.Parse(out.raw)
	if err != nil {
		return out, err
	}
	if j.unavailable {
		return out, cvm.Errorf(cvm.Unsupported, "this cloud asks no vendor about quotes").WithReason("no-collateral").WithFix("verify it yourself: phala evidence check; the operator sets attestation.collateral_urls")
	}
	client := j.usual
	if early {
		client = j.early
	}
	a, err := client.Ask(ctx, in.Evidence)
	switch {
	case err != nil && cvm.ReasonOf(err) == fetch.ReasonRoot:
		return out, cvm.Errorf(cvm.Invalid, "no admitted vendor stands behind the quote: %w", err).WithReason("quote-not-genuine")
	case err != nil:
		return out, err
	case early && a.Stale:
		return out, cvm.Errorf(cvm.Unavailable, "the vendor does not answer, and what it said before is too old").WithReason(fetch.ReasonUnavailable)
	}
	out.set = a.Set
	out.report, err = evidence.Run(in, evidence.Options{Now: j.now(), At: j.now(), Roots: j.roots, Collateral: &a.Set})
	if err != nil {
		return out, err
	}
	out.genuine = true
	for _, c := range out.report.Checks {
		if c.Status == claim.Passed {
			continue
		}
		if slices.Contains(tdx.Genuine(), c.Name) {
			out.genuine = false
		}
		if out.complaints == "" && c.Status == claim.Failed {
			out.complaints = c.Title + ": " + c.Hint
		}
	}
	return out, nil
}

// quoteView shows a quote; raw is what q was parsed from.
func quoteView(q *tdx.Quote, raw []byte, verified bool) *cloudapi.QuoteView {
	b := q.Body
	le := func(v uint64) string { return hex.EncodeToString(binary.LittleEndian.AppendUint64(nil, v)) }
	return &cloudapi.QuoteView{
		Header: cloudapi.QuoteHeader{Version: int(q.Version), AKType: int(binary.LittleEndian.Uint16(raw[2:])), TEEType: int(binary.LittleEndian.Uint32(raw[4:])),
			QEVendor: hex.EncodeToString(raw[12:28]), UserData: hex.EncodeToString(raw[28:48])},
		CertData: ptr(string(q.CertificateChain())), Verified: ptr(verified),
		Body: cloudapi.QuoteBody{TEETCBSVN: hex.EncodeToString(b.TEETCBSVN[:]), MRSeam: b.MRSeam.String(), MRSignerSeam: b.MRSignerSeam.String(),
			SeamAttributes: le(b.SeamAttributes), TDAttributes: le(b.TDAttributes), XFAM: le(b.XFAM), MRTD: b.MRTD.String(), MRConfig: b.MRConfigID.String(),
			MROwner: b.MROwner.String(), MROwnerConfig: b.MROwnerConfig.String(), RTMR0: b.RTMR[0].String(), RTMR1: b.RTMR[1].String(),
			RTMR2: b.RTMR[2].String(), RTMR3: b.RTMR[3].String(), ReportData: hex.EncodeToString(b.ReportData[:])},
	}
}

// collateralView reads the tool contract's form, whose names are the contract's.
func collateralView(raw []byte) (*cloudapi.QuoteCollateral, error) {
	out := &cloudapi.QuoteCollateral{}
	if err := json.Unmarshal(raw, out); err != nil {
		return nil, errors.Join(errors.New("reading stored collateral"), err)
	}
	return out, nil
}
