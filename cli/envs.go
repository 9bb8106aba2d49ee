package cli

import (
	"context"
	"encoding/hex"
	"slices"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/verify"
)

func (a *app) envsCmd() *cobra.Command {
	return a.group("envs", "Encrypt and replace the environment of a CVM", a.envsUpdateCmd(), a.envsEncryptCmd())
}

// envTarget is the CVM whose environment is meant, checked against the pins.
type envTarget struct {
	v     cloudapi.CVMDetail
	trust *verify.Profile
	app   cvm.AppID
	kms   *cloudapi.KMS
	env   []keys.EnvVar
}

func (a *app) envTarget(ctx context.Context, s *session, id, trustFlag string, values []string) (*envTarget, error) {
	env, err := a.readEnv(values)
	if err != nil {
		return nil, err
	}
	t, _, err := a.trust(s, trustFlag)
	if err != nil {
		return nil, err
	}
	e := &envTarget{trust: t, env: env}
	if e.v, err = s.api.CVM(ctx, id); err != nil {
		return nil, err
	}
	if e.app, err = cvm.ParseAppID(str(e.v.AppID)); err != nil {
		return nil, err
	}
	list, err := s.api.KMSList(ctx)
	if err != nil {
		return nil, err
	}
	for i, k := range list.Items {
		if k.ChainID != nil && *k.ChainID == t.Chain.ID {
			e.kms = &list.Items[i]
		}
	}
	if e.kms == nil {
		return nil, cvm.Errorf(cvm.Denied, "the cloud has no KMS on chain %d, which the trust profile names", t.Chain.ID).WithReason(reasonWrongCloud)
	}
	return e, nil
}

func (a *app) envsUpdateCmd() *cobra.Command {
	var values []string
	var trust string
	var noWait bool
	c := &cobra.Command{Use: "update [cvm]", Short: "Replace the environment: encrypted to the app, signed by you",
		Long: "Replace the whole environment of a CVM. The names must be the ones that the\nmeasured app-compose allows; to change the names, deploy again.",
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			if len(values) == 0 {
				return usage("which environment? -e NAME=value or -e FILE (repeatable)")
			}
			return a.withCVM(c.Context(), as, func(ctx context.Context, s *session, id string) error {
				return a.updateEnvs(ctx, s, id, trust, values, noWait)
			})
		}}
	c.Flags().StringArrayVarP(&values, "env", "e", nil, "environment variable KEY=VALUE, or a file of them (repeatable)")
	c.Flags().StringVar(&trust, "trust", "", "trust profile (default: the login's)")
	c.Flags().BoolVar(&noWait, "no-wait", false, "return when the cloud has accepted it")
	return c
}

func (a *app) updateEnvs(ctx context.Context, s *session, id, trust string, values []string, noWait bool) error {
	e, err := a.envTarget(ctx, s, id, trust, values)
	if err != nil {
		return err
	}
	was, err := composeOf(e.v)
	if err != nil {
		return cvm.Errorf(cvm.Unavailable, "the cloud's app-compose of %s is not readable: %w", e.v.Name, err)
	}
	for _, name := range envNames(e.env) {
		if !slices.Contains(was.AllowedEnvs, name) {
			return cvm.Errorf(cvm.Invalid, "%s is not among the names that the measured app-compose allows", name).
				WithFix("phala deploy -n " + e.v.Name + " -e ... puts the new names on chain")
		}
	}
	w, err := a.openWallet(s)
	if err != nil {
		return err
	}
	st := a.steps()
	sealed, err := a.seal(ctx, s, st, e.trust, e.kms, e.app, e.env, true, e.v.EnvCounter, w)
	if err != nil {
		st.fail()
		return err
	}
	ref := first(str(e.v.VMUUID), id)
	acc, err := s.api.UpdateEnvs(ctx, ref, cloudapi.EnvsUpdate{EncryptedEnv: sealed.blob, EnvKeys: sealed.keys, EnvSignature: sealed.sig})
	if err != nil {
		return err
	}
	status := acc.Status
	if !noWait {
		if status, err = a.follow(ctx, s, ref, acc.EventSeq, "updating "+e.v.Name, cloudapi.StatusRunning); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(map[string]any{"name": e.v.Name, "app_id": e.app, "status": status, "env_counter": sealed.sig.Counter, "env_keys": sealed.keys})
	}
	a.printf("%s %s\n", e.v.Name, status)
	return nil
}

func (a *app) envsEncryptCmd() *cobra.Command {
	var values []string
	var trust string
	var bare bool
	c := &cobra.Command{Use: "encrypt [cvm]", Short: "Encrypt environment variables so that only the app can read them", Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			if len(values) == 0 {
				return usage("which environment? -e NAME=value or -e FILE (repeatable)")
			}
			return a.withCVM(c.Context(), as, func(ctx context.Context, s *session, id string) error {
				e, err := a.envTarget(ctx, s, id, trust, values)
				if err != nil {
					return err
				}
				blob, err := a.encrypt(ctx, s, e.trust, e.kms, e.app, e.env)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(map[string]any{"app_id": e.app, "encrypted_env": hex.EncodeToString(blob), "env_keys": envNames(e.env)})
				}
				end := "\n"
				if bare {
					end = ""
				}
				a.printf("%x%s", blob, end)
				return nil
			})
		}}
	c.Flags().StringArrayVarP(&values, "env", "e", nil, "environment variable KEY=VALUE, or a file of them (repeatable)")
	c.Flags().StringVar(&trust, "trust", "", "trust profile (default: the login's)")
	c.Flags().BoolVarP(&bare, "no-newline", "n", false, "no newline at the end")
	return c
}
