package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/check"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/profile"
	"github.com/confidential-cloud/phala/verify"
	"github.com/confidential-cloud/phala/verify/online"
)

func (a *app) collateralCmd() *cobra.Command {
	return a.group("collateral", "The hardware vendors' statements, for checking without a network", a.collateralExportCmd(), a.collateralShowCmd())
}

// collateralFlags say about what, from whom and under which roots.
type collateralFlags struct {
	out, trust, ca                        string
	fmspc, evidence, urls, pcs, kds, root []string
	add                                   bool
}

const collateralExportLong = `Fetch what the hardware vendors say about platforms (patch levels, enclave identity,
revocation lists; AMD: the chip's certificate, its issuers and their list) and write it to
one file, for ` + "`phala verify --collateral`, `phala evidence check --collateral`" + ` and the KMS.

Name platforms by --url (an app and its gateway, as the trust profile reaches them),
--evidence or --fmspc. Which services are asked and which roots count says the trust
profile; without one, the vendors' own services and their pinned roots. --pcs, --kds and
--root take the place of either. Every statement is verified before it is written; its
signatures are checked again wherever the file is used.`

func (a *app) collateralExportCmd() *cobra.Command {
	var f collateralFlags
	c := &cobra.Command{Use: "export --out FILE", Short: "Write the vendors' statements about platforms to a file", Long: collateralExportLong, Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return a.collateralExport(c.Context(), f) }}
	s := c.Flags()
	s.StringVarP(&f.out, "out", "o", "", "file to write")
	s.BoolVar(&f.add, "add", false, "keep what the file holds of other platforms")
	s.StringArrayVar(&f.urls, "url", nil, "URL of an app (may be repeated)")
	s.StringArrayVar(&f.evidence, "evidence", nil, "file of evidence, in any form that evidence check reads (may be repeated)")
	s.StringArrayVar(&f.fmspc, "fmspc", nil, "Intel processor model, 12 hex digits (may be repeated)")
	s.StringVar(&f.ca, "ca", "platform", "with --fmspc: whose processors, platform or processor")
	s.StringArrayVar(&f.pcs, "pcs", nil, "base URL of a PCS or PCCS (may be repeated)")
	s.StringArrayVar(&f.kds, "kds", nil, "base URL of an AMD key distribution service (may be repeated)")
	s.StringArrayVar(&f.root, "root", nil, "admit this root: hex sha256 of its public key (may be repeated)")
	s.StringVar(&f.trust, "trust", "", "trust profile (default: the login's)")
	return c
}

func (a *app) collateralExport(ctx context.Context, f collateralFlags) error {
	if f.out == "" {
		return usage("--out is missing: where to?")
	}
	if len(f.urls)+len(f.evidence)+len(f.fmspc) == 0 {
		return usage("about which platform? --url, --evidence or --fmspc")
	}
	cfg, p, err := a.collateralSources(f)
	if err != nil {
		return err
	}
	c, err := fetch.New(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	e := &exporter{app: a, client: c, roots: cfg.Roots, ca: f.ca}
	if err := e.all(ctx, f, p); err != nil {
		return err
	}
	all := e.bundles
	if old := a.path(f.out); f.add && exists(old) {
		b, err := readBundle(old)
		if err != nil {
			return err
		}
		all = append(all, b)
	}
	b, err := collateral.Merge(all...)
	if err != nil {
		return err
	}
	raw, err := b.Marshal()
	if err != nil {
		return err
	}
	if err := profile.WriteFile(a.path(f.out), raw); err != nil {
		return cvm.Errorf(cvm.Invalid, "--out: %w", err)
	}
	a.say("%s", a.good(fmt.Sprintf("collateral of %d platforms written to %s", len(b.Entries), f.out)))
	return a.printBundle(f.out, b)
}

// collateralSources says whom to ask: the flags, else the trust profile, else the
// vendors. p is nil without a profile.
func (a *app) collateralSources(f collateralFlags) (cfg fetch.Config, p *verify.Profile, err error) {
	cfg = fetch.Config{Clock: a.Now}
	s, err := a.session()
	if err != nil {
		return cfg, nil, err
	}
	p, _, err = a.trust(s, f.trust)
	switch {
	case err == nil:
		s.gateway(p)
		if p.Gateway.CAPEM, err = s.caPEM(p); err != nil {
			return cfg, nil, err
		}
		cfg.URLs, cfg.KDS, cfg.Roots = p.TEE.CollateralURLs, p.TEE.KDSURLs, p.AdmittedRoots()
	case f.trust != "" || len(f.urls) > 0 || cvm.ReasonOf(err) != reasonNoTrust:
		return cfg, nil, err
	default:
		cfg.URLs, cfg.KDS, cfg.Roots = []string{fetch.IntelPCS}, []string{fetch.AMDKDS}, append(attest.IntelRoots(), attest.AMDRoots()...)
	}
	if len(f.pcs) > 0 {
		cfg.URLs = f.pcs
	}
	if len(f.kds) > 0 {
		cfg.KDS = f.kds
	}
	if len(f.root) > 0 {
		cfg.Roots = nil
	}
	for _, text := range f.root {
		b, err := hex.DecodeString(text)
		if err != nil || len(b) != 32 {
			return cfg, nil, usage("--root %q: want 64 hex digits, the sha256 of the root's public key", text)
		}
		cfg.Roots = append(cfg.Roots, attest.Root{SPKI: [32]byte(b), Platform: cvm.PlatformCustom})
	}
	return cfg, p, nil
}

// exporter gathers one small bundle per platform.
type exporter struct {
	*app
	client  *fetch.Client
	roots   []attest.Root
	ca      string
	bundles []collateral.Bundle
}

func (e *exporter) all(ctx context.Context, f collateralFlags, p *verify.Profile) error {
	for _, text := range f.fmspc {
		if err := e.model(ctx, text); err != nil {
			return err
		}
	}
	for _, file := range f.evidence {
		raw, err := readFile(e.path(file), check.MaxInput)
		if err != nil {
			return err
		}
		in, err := check.Parse(raw)
		if err != nil {
			return err
		}
		if err := e.evidence(ctx, in.Evidence); err != nil {
			return err
		}
	}
	for _, u := range f.urls {
		if err := e.target(ctx, u, *p); err != nil {
			return err
		}
	}
	return nil
}

func (e *exporter) add(a fetch.Answer) {
	e.bundles = append(e.bundles, collateral.Bundle{Format: collateral.BundleFormat, Entries: []collateral.Entry{a.Entry()}})
}

func (e *exporter) evidence(ctx context.Context, ev attest.Evidence) error {
	got, err := e.client.Ask(ctx, ev)
	if err == nil {
		e.add(got)
	}
	return err
}

// model asks about a processor model under each root: without evidence nothing says
// which of them is meant.
func (e *exporter) model(ctx context.Context, text string) (err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 6 {
		return usage("--fmspc %q: want 12 hex digits", text)
	}
	err = cvm.Errorf(cvm.Precondition, "no root is admitted under which Intel's processors stand")
	for _, r := range e.roots {
		if r.Platform == cvm.PlatformSEVSNP {
			continue
		}
		var got fetch.Answer
		if got, err = e.client.ForFMSPC(ctx, r.SPKI, [6]byte(b), e.ca); err == nil {
			e.add(got)
			return nil
		}
	}
	return err
}

// target fetches the evidence of an app and of its gateway. It is not verified: only
// what it says about its platform is used, and the statements prove themselves.
func (e *exporter) target(ctx context.Context, u string, p verify.Profile) error {
	t, err := p.ParseTarget(u)
	if err != nil {
		return err
	}
	edge, err := online.NewEdge(p, 20*time.Second)
	if err != nil {
		return err
	}
	nonce := make([]byte, 32)
	_, _ = rand.Read(nonce)
	app, _, err := edge.AppEvidence(ctx, t.ID, nonce)
	if err != nil {
		return err
	}
	gw, _, err := edge.GatewayEvidence(ctx, nonce)
	if err != nil {
		return err
	}
	for _, raw := range [][]byte{app.Attestation, gw.Evidence.Attestation} {
		ev, err := attest.ParseEvidence(raw)
		if err != nil {
			return err
		}
		if err := e.evidence(ctx, ev); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) collateralShowCmd() *cobra.Command {
	return &cobra.Command{Use: "show FILE", Short: "Say which platforms a file covers, and until when",
		Long: "Say which platforms a file of collateral covers, until when, and how new its statements\nare. Its signatures are not checked here: that is done wherever it is used.",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, as []string) error {
			b, err := readBundle(a.path(as[0]))
			if err != nil {
				return err
			}
			return a.printBundle(as[0], b)
		}}
}

// readFile reads a bounded file.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cvm.Errorf(cvm.NotFound, "%w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "%w", err)
	}
	if int64(len(raw)) > limit {
		return nil, cvm.Errorf(cvm.Invalid, "%s is longer than %d bytes", path, limit)
	}
	return raw, nil
}

func readBundle(path string) (collateral.Bundle, error) {
	raw, err := readFile(path, collateral.MaxBundle)
	if err != nil {
		return collateral.Bundle{}, err
	}
	return collateral.ParseBundle(raw)
}

// covered is one line of `collateral show`.
type covered struct {
	Subject       string    `json:"subject"`
	Fetched       time.Time `json:"fetched"`
	From          time.Time `json:"valid_from"`
	Until         time.Time `json:"valid_until"`
	State         string    `json:"state"` // current, ended, not-yet
	TCBEvaluation int       `json:"tcb_evaluation_data_number,omitempty"`
	QEEvaluation  int       `json:"qe_evaluation_data_number,omitempty"`
	RootCRL       string    `json:"root_crl_number"`
	PCKCRL        string    `json:"pck_crl_number,omitempty"`
}

func (a *app) covers(b collateral.Bundle) ([]covered, error) {
	var out []covered
	for _, e := range b.Entries {
		s, err := collateral.Summarize(e.Set)
		if err != nil {
			return nil, err
		}
		c := covered{Subject: e.Subject, Fetched: e.Fetched, From: s.From.UTC(), Until: s.Until.UTC(), State: "current",
			TCBEvaluation: s.TCBEvaluation, QEEvaluation: s.QEEvaluation, RootCRL: s.RootCRLNumber.String()}
		if s.PCKCRLNumber != nil {
			c.PCKCRL = s.PCKCRLNumber.String()
		}
		switch at := a.Now(); {
		case !at.Before(s.Until):
			c.State = "ended"
		case at.Before(s.From):
			c.State = "not-yet"
		}
		out = append(out, c)
	}
	return out, nil
}

func (a *app) printBundle(file string, b collateral.Bundle) error {
	all, err := a.covers(b)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"file": file, "items": all, "total": len(all)})
	}
	day := func(t time.Time) string { return t.Format("2006-01-02 15:04Z") }
	for i, c := range all {
		if i > 0 {
			a.printf("\n")
		}
		numbers := ""
		if c.TCBEvaluation > 0 {
			numbers = "TCB info " + strconv.Itoa(c.TCBEvaluation) + ", QE identity " + strconv.Itoa(c.QEEvaluation)
		}
		lists := "root " + c.RootCRL
		if c.PCKCRL != "" {
			lists += ", processors " + c.PCKCRL
		}
		a.printFields([]field{{"Platform", c.Subject}, {"Valid", day(c.From) + " to " + day(c.Until)}, {"Fetched", day(c.Fetched)},
			{"Evaluation data", numbers}, {"Revocation lists", lists}})
		if c.State != "current" {
			a.say("%s", a.warn(map[string]string{"ended": "this has ended: fetch it again", "not-yet": "this begins later: check this machine's clock"}[c.State]))
		}
	}
	return nil
}

// collateralDir is where verifications keep what they fetched.
func (s *session) collateralDir() string { return filepath.Join(s.dir, "cache", "collateral") }
