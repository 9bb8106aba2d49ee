package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/verify"
	"github.com/confidential-cloud/phala/verify/online"
)

func (a *app) verifyCmd() *cobra.Command {
	var trust, html, bundle string
	var all bool
	c := &cobra.Command{Use: "verify <url | app | cvm>", Short: "Check what runs, from the TLS key you see down to hardware, chain and ledger",
		Long: "Walk the chain of trust backwards: from the TLS key of a URL to the gateway's and the\napp's evidence, the hardware root, the rules on chain and the public ledger.\nThe exit code is 0 only if every required check passed.",
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error { return a.verify(c.Context(), as, trust, html, bundle, all) }}
	c.Flags().StringVar(&trust, "trust", "", "trust profile: what you believe beforehand (default: the login's)")
	c.Flags().StringVar(&html, "html", "", "also write the report as a page")
	c.Flags().StringVar(&bundle, "collateral", "", "file of the vendors' statements (phala collateral export) to rest on, instead of asking their services")
	c.Flags().BoolVarP(&all, "all", "a", false, "show passed checks too")
	return c
}

func (a *app) verify(ctx context.Context, as []string, trustFlag, html, bundle string, all bool) error {
	s, err := a.session()
	if err != nil {
		return err
	}
	t, _, err := a.trust(s, trustFlag)
	if err != nil {
		return err
	}
	s.gateway(t)
	if t.Gateway.CAPEM, err = s.caPEM(t); err != nil {
		return err
	}
	target, err := a.verifyTarget(ctx, s, t, as)
	if err != nil {
		return err
	}
	o := online.Options{CacheDir: s.collateralDir()}
	if bundle != "" {
		b, err := readBundle(a.path(bundle))
		if err != nil {
			return err
		}
		o.Bundle = &b
	}
	src, closeAll, err := online.Open(ctx, *t, o)
	if err != nil {
		return err
	}
	defer closeAll()
	st := a.steps()
	r, err := verify.Run(ctx, *t, target, src, func(title string) {
		st.drop()
		st.start("checking %s", strings.ToLower(title))
	})
	st.drop()
	if err != nil {
		return err
	}
	return a.report(r, html, all)
}

// report prints the verdict; a report that is not verified is a failure.
func (a *app) report(r *verify.Report, html string, all bool) error {
	if html != "" {
		if err := a.writeHTML(r, html); err != nil {
			return err
		}
	}
	if a.json {
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal(b, &fields); err != nil {
			return err
		}
		fields["success"] = fields["verified"]
		if err := writeJSON(a.Stdout, fields); err != nil {
			return err
		}
	} else if err := r.WriteText(a.Stdout, a.style(all)); err != nil {
		return err
	}
	if r.Verified {
		return nil
	}
	a.reported = true // the report says it all
	return cvm.Errorf(cvm.Internal, "not verified")
}

func (a *app) style(all bool) verify.Style {
	code := func(c string) func(string) string { return func(s string) string { return a.onOut().paint(c, s) } }
	return verify.Style{Pass: code("32"), Fail: code("31"), Skip: code("33"), Bold: code("1"), Dim: code("2"), Banner: code("1;33"), All: all}
}

func (a *app) writeHTML(r *verify.Report, path string) error {
	var b bytes.Buffer
	if err := r.WriteHTML(&b); err != nil {
		return err
	}
	if err := os.WriteFile(a.path(path), b.Bytes(), 0o644); err != nil {
		return cvm.Errorf(cvm.Invalid, "--html: %w", err)
	}
	a.say("%s", a.good("report written to "+path))
	return nil
}

// verifyTarget takes a URL or an app id as it is; a CVM's name is looked up in the
// cloud, and the report then names the app that the cloud named.
func (a *app) verifyTarget(ctx context.Context, s *session, t *verify.Profile, as []string) (verify.Target, error) {
	text := first(firstOf(as), a.cvmID)
	if text == "" {
		text = s.project.cvm()
	}
	if text == "" {
		return verify.Target{}, usage("what? phala verify https://<app>.%s, an app id, or a CVM's name", t.Gateway.Domain)
	}
	id := strings.TrimPrefix(strings.TrimPrefix(text, "app_"), "0x")
	if _, err := cvm.ParseAppID(id); err == nil {
		return t.ParseTarget(id)
	}
	if strings.Contains(text, "://") || strings.Contains(text, ".") {
		return t.ParseTarget(text)
	}
	if s.api.Key == "" {
		_, err := a.loggedIn()
		return verify.Target{}, err
	}
	v, err := s.api.CVM(ctx, text)
	if err != nil {
		return verify.Target{}, naming(s, text, a.explain(s, err))
	}
	app, err := cvm.ParseAppID(str(v.AppID))
	if err != nil {
		return verify.Target{}, err
	}
	a.say("%s", a.warn("the cloud says that "+v.Name+" is app "+app.String()+": compare it with the app you registered"))
	target, err := t.ParseTarget(app.String())
	target.App = &app
	return target, err
}
