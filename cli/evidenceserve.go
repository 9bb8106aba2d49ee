package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/attest/check"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/verify/server"
)

const evidenceServeLong = `Serve the reference verifier's API: POST /verify with {"quote","event_log","vm_config"} or
{"attestation"}, and GET /health. What is_valid says: docs/spec/evidence-check.md.
It has no authentication: listen on an address that only its users reach.`

func (a *app) evidenceServeCmd() *cobra.Command {
	var listen string
	var roots, urls, kds []string
	c := &cobra.Command{Use: "serve", Short: "Serve POST /verify as the reference's verifier does", Long: evidenceServeLong,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.evidenceServe(c.Context(), listen, roots, urls, kds)
		}}
	s := c.Flags()
	s.StringVar(&listen, "listen", "127.0.0.1:8080", "address to listen on")
	s.StringArrayVar(&roots, "root", nil, "admit this root as a custom platform, beside the vendors' (see check; may be repeated)")
	s.StringArrayVar(&urls, "collateral-url", []string{fetch.IntelPCS}, "PCS or PCCS to fetch collateral from (may be repeated)")
	s.StringArrayVar(&kds, "kds-url", []string{fetch.AMDKDS}, "key distribution service for SEV-SNP (may be repeated)")
	return c
}

func (a *app) evidenceServe(ctx context.Context, listen string, roots, urls, kds []string) error {
	admitted := check.Pinned()
	for _, s := range roots {
		spki, err := a.readRoot(s)
		if err != nil {
			return err
		}
		admitted = append(admitted, check.Named(*spki))
	}
	c, err := fetch.New(fetch.Config{URLs: urls, KDS: kds, Roots: admitted})
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := server.New(server.Config{Listen: listen, Roots: admitted, Collateral: c, Clock: a.Now})
	if err != nil {
		return err
	}
	ready := func(addr string) { a.say("listening on http://%s (POST /verify, GET /health)", addr) }
	return s.Run(ctx, ready)
}

var _ server.Collateral = (*fetch.Client)(nil)
