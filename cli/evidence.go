package cli

import (
	"context"
	"encoding/hex"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/attest/check"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/composite"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/verify"
)

const evidenceCheckLong = `Check one piece of evidence, offline: which machine made it, what it measured, and
whether that is admitted. FILE (- for stdin) is one of
  - JSON with "quote" (hex) or "attestation" (hex), as a guest's quote API answers it,
    and, if wanted, "parts" (GPUs, a TPM), "collateral", "root" (DER in hex),
    "at" (unix seconds), "policy"
  - a certificate with RA-TLS extensions (PEM or DER)
  - an encoded attestation
Without a policy, cryptography and the vendor's rules only are applied, and the answer
says so. A root that only FILE names makes the platform "custom", never a genuine one.

Prints one JSON object (docs/spec/evidence-check.md), or words with --text. Exit codes:
0 verified; 1 rejected; 2 wrong usage, or input that cannot be read.`

// evidenceFlags are what the one who asks says; they win over the file.
type evidenceFlags struct {
	root, policy, at, reportData, collateral string
	urls, kds                                []string
	text                                     bool
}

func (a *app) evidenceCmd() *cobra.Command {
	return a.group("evidence", "Check evidence yourself", a.evidenceCheckCmd(), a.evidenceServeCmd())
}

func (a *app) evidenceCheckCmd() *cobra.Command {
	var f evidenceFlags
	c := &cobra.Command{Use: "check FILE", Short: "Check a quote, an attestation or an RA-TLS certificate, offline", Long: evidenceCheckLong,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, as []string) error { return a.evidenceCheck(c.Context(), as[0], f) }}
	s := c.Flags()
	s.StringVar(&f.root, "root", "", "the only root to admit: its certificate or the sha256 of its public key, in hex or in a file")
	s.StringVar(&f.policy, "policy", "", "what to admit: a file, strict (the KMS's, for key release) or strict:running")
	s.StringVar(&f.at, "at", "", "verify at this time: unix seconds or RFC 3339 (default: the file's, else now)")
	s.StringVar(&f.reportData, "report-data", "", "the 64 bytes (hex) that the evidence must answer")
	s.StringVar(&f.collateral, "collateral", "", "file of collateral: a bundle, or the JSON that FILE may hold")
	s.StringArrayVar(&f.urls, "collateral-url", nil, "fetch collateral from this PCS or PCCS (may be repeated)")
	s.StringArrayVar(&f.kds, "kds-url", nil, "fetch collateral of SEV-SNP from this key distribution service (may be repeated)")
	s.BoolVar(&f.text, "text", false, "words instead of JSON")
	return c
}

func (a *app) evidenceCheck(ctx context.Context, file string, f evidenceFlags) error {
	a.json = !f.text && !a.noJSON
	raw, err := a.readInput(file)
	if err != nil {
		return err
	}
	in, err := check.Parse(raw)
	if err != nil {
		return err
	}
	o, note, err := a.evidenceOptions(ctx, in, f)
	if err != nil {
		return err
	}
	r, err := check.Run(in, o)
	if err != nil {
		return err
	}
	if note != "" {
		r.Notes = append(r.Notes, note)
	}
	if a.json {
		err = writeJSON(a.Stdout, r)
	} else {
		a.printEvidence(r)
	}
	if err != nil || r.Verified() {
		return err
	}
	a.reported = true // the report says it all
	return cvm.Errorf(cvm.Internal, "rejected")
}

// readInput reads a bounded file, or stdin for "-".
func (a *app) readInput(file string) ([]byte, error) {
	rd := a.Stdin
	if file != "-" {
		f, err := os.Open(a.path(file))
		if err != nil {
			return nil, usage("%w", err)
		}
		defer func() { _ = f.Close() }()
		rd = f
	}
	b, err := io.ReadAll(io.LimitReader(rd, check.MaxInput+1))
	if err != nil {
		return nil, usage("reading %s: %w", file, err)
	}
	return b, nil
}

// evidenceOptions reads the flags. note says why there is no collateral: that is a
// check that fails, not a wrong input.
func (a *app) evidenceOptions(ctx context.Context, in check.Input, f evidenceFlags) (o check.Options, note string, err error) {
	o.Now = a.Now()
	if f.root != "" {
		spki, err := a.readRoot(f.root)
		if err != nil {
			return o, "", err
		}
		o.Roots = [][32]byte{*spki}
	}
	if f.at != "" {
		if o.At, err = readTime(f.at); err != nil {
			return o, "", err
		}
	}
	if f.reportData != "" {
		if o.ReportData, err = check.ReadReportData(f.reportData); err != nil {
			return o, "", err
		}
	}
	if f.policy != "" {
		p, name, err := a.readPolicy(f.policy)
		if err != nil {
			return o, "", err
		}
		o.Policy, o.Parts, o.PolicyName = &p.CPU, p.Parts, name
	}
	switch {
	case f.collateral != "" && len(f.urls)+len(f.kds) > 0:
		return o, "", usage("--collateral and --collateral-url exclude each other")
	case f.collateral != "":
		raw, err := a.readInput(f.collateral)
		if err != nil {
			return o, "", err
		}
		set, err := check.ReadCollateral(raw, in.Evidence)
		if err != nil {
			return o, "", err
		}
		o.Collateral = &set
	case len(f.urls)+len(f.kds) > 0:
		c, err := fetch.New(fetch.Config{URLs: f.urls, KDS: f.kds})
		if err != nil {
			return o, "", err
		}
		defer c.Close()
		set, err := c.For(ctx, in.Evidence)
		if err != nil {
			return o, "no collateral was fetched: " + err.Error(), nil
		}
		o.Collateral = &set
	}
	return o, "", nil
}

// readRoot takes the sha256 of a root's public key, its certificate in hex, or a file.
func (a *app) readRoot(s string) (*[32]byte, error) {
	if _, err := hex.DecodeString(s); err == nil {
		return check.ReadRoot([]byte(s))
	}
	b, err := a.readInput(s)
	if err != nil {
		return nil, err
	}
	return check.ReadRoot(b)
}

// readPolicy takes the name of a policy, or a file.
func (a *app) readPolicy(s string) (p composite.Policy, name string, err error) {
	if p.CPU, err = check.NamedPolicy(s); err == nil {
		return p, s, nil
	}
	if !exists(a.path(s)) && s != "-" {
		return p, "", err
	}
	b, err := a.readInput(s)
	if err != nil {
		return p, "", err
	}
	p, err = composite.ParsePolicy(b)
	return p, s, err
}

func readTime(s string) (time.Time, error) {
	if sec, err := strconv.ParseInt(s, 10, 64); err == nil && sec > 0 {
		return time.Unix(sec, 0), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, usage("--at %q: want unix seconds or a time like 2026-11-21T03:00:00Z", s)
	}
	return t, nil
}

func (a *app) printEvidence(r check.Report) {
	p := a.onOut()
	head := p.bad("REJECTED")
	if r.Verified() {
		head = p.good("VERIFIED")
	}
	a.printf("%s\n%s\n\n", head, verify.Printable(r.Summary))
	advisories := "none"
	if len(r.Advisories) > 0 {
		advisories = strings.Join(r.Advisories, ", ")
	}
	a.printFields([]field{{"platform", r.Platform}, {"TCB status", first(r.TCBStatus, "not known")}, {"advisories", verify.Printable(advisories)},
		{"policy", r.Policy}, {"at", r.At.Format(time.RFC3339)}})
	a.printf("\n")
	for _, c := range r.Checks {
		mark := map[claim.Verdict]string{claim.Passed: p.paint("32", "✓"), claim.Failed: p.paint("31", "✗"), claim.Skipped: p.paint("33", "–")}[c.Status]
		a.printf("%s %s (%s)\n", mark, c.Title, c.Name)
		if c.Status != claim.Passed {
			a.printf("    %s\n", verify.Printable(c.Hint))
		}
		if c.Want != "" {
			a.printf("    wanted %s, found %s\n", verify.Printable(c.Want), verify.Printable(c.Got))
		}
	}
	for _, part := range r.Parts {
		a.printf("%s\n", verify.Printable("part "+part.Name+": "+part.Variant+", bound by "+string(part.Binding)))
	}
	for _, n := range r.Notes {
		a.printf("\n%s\n", p.warn(verify.Printable(n)))
	}
}
