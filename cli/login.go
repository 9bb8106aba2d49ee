package cli

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/profile"
)

const loginLong = `Log in. Without a key, a person approves it in a browser (device login). A key may be
given as argument (other users of this machine can read it there), in
PHALA_CLOUD_API_KEY, or with --manual on stdin or at a prompt.`

// loginFlags are the flags of login.
type loginFlags struct {
	url                        string
	manual, printToken, noOpen bool
}

func (a *app) loginCmd() *cobra.Command {
	var fl loginFlags
	c := &cobra.Command{Use: "login [api-key]", Short: "Log in", Long: loginLong,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error { return a.login(c.Context(), &fl, as) }}
	f := c.Flags()
	f.StringVar(&fl.url, "url", "", "API prefix of the cloud, for example http://127.0.0.1:8730/api/v1")
	f.BoolVar(&fl.manual, "manual", false, "take the key from stdin, or ask for it")
	f.BoolVar(&fl.noOpen, "no-open", false, "start no browser")
	f.BoolVar(&fl.printToken, "print-token", false, "print the key instead of saving it")
	return c
}

func (a *app) login(ctx context.Context, fl *loginFlags, as []string) error {
	dir, err := profile.Dir(a.Getenv)
	if err != nil {
		return err
	}
	prefix := strings.TrimRight(first(fl.url, a.Getenv("PHALA_CLOUD_API_PREFIX"), profile.DefaultAPI), "/")
	key, err := a.loginKey(as, fl.manual)
	if err != nil {
		return err
	}
	if key == "" {
		if key, err = a.deviceLogin(ctx, prefix, !fl.noOpen); err != nil {
			return err
		}
	}
	api, err := newClient(prefix, key)
	if err != nil {
		return err
	}
	me, err := api.Me(ctx)
	if err != nil {
		return a.loginError(prefix, err)
	}
	if fl.printToken {
		if a.json {
			return a.printJSON(map[string]any{"token": key})
		}
		a.printf("%s\n", key)
		return nil
	}
	return a.saveLogin(dir, prefix, key, me)
}

func (a *app) saveLogin(dir, prefix, key string, me cloudapi.CurrentUser) error {
	name := first(a.profile, str(me.Workspace.Slug), "default")
	extras, err := profile.LoadExtras(dir)
	if err != nil {
		return err
	}
	l := profile.Login{Token: key, APIPrefix: prefix, UpdatedAt: a.Now().UTC().Format(time.RFC3339),
		Workspace: profile.Workspace{Name: me.Workspace.Name, Slug: str(me.Workspace.Slug)},
		User:      profile.User{Username: me.User.Username, Email: me.User.Email}}
	if err := profile.Put(dir, name, l, extras.Profiles[name]); err != nil {
		return err
	}
	a.say("%s", a.good("logged in to "+prefix+" as "+me.User.Username+" (profile "+name+")"))
	if extras.Profiles[name].Trust == "" {
		a.say("%s", a.warn("no trust profile yet: deploy and verify need one (phala trust use FILE)"))
	}
	if a.json {
		return a.printJSON(map[string]any{"profile": name, "api_prefix": prefix, "user": l.User, "workspace": l.Workspace})
	}
	return nil
}

// loginKey is the key that was given; "" asks for the device login.
func (a *app) loginKey(as []string, manual bool) (string, error) {
	var b []byte
	var err error
	switch {
	case len(as) == 1 && as[0] != "-":
		b = []byte(as[0])
	case a.token != "":
		b = []byte(a.token)
	case !manual && len(as) == 0:
		return strings.TrimSpace(a.Getenv("PHALA_CLOUD_API_KEY")), nil
	case a.Secret != nil:
		b, err = a.Secret("API key: ")
	default:
		b, err = io.ReadAll(io.LimitReader(a.Stdin, 4096))
	}
	if err != nil {
		return "", err
	}
	key := strings.TrimSpace(string(b))
	if key == "" {
		return "", cvm.Errorf(cvm.Invalid, "no API key").WithFix("give it as argument, on stdin with --manual, or in PHALA_CLOUD_API_KEY")
	}
	return key, nil
}

func (a *app) loginError(prefix string, err error) error {
	ce, ok := err.(*cvm.Error) //nolint:errorlint // the client returns it unwrapped
	if !ok {
		return err
	}
	switch {
	case ce.Code == cvm.Unauthenticated:
		ce.Fix = "the address answers, the key is not one of its keys: check both"
	case ce.Reason == "api-unreachable":
		ce.Message = "no answer from " + prefix + ": " + rootCause(ce)
		ce.Fix = "check --url: the whole prefix, for example http://127.0.0.1:8730/api/v1; is the cloud running (phala up)?"
	case !strings.HasSuffix(prefix, "/api/v1"):
		ce.Message = prefix + " is not a cloud API: " + ce.Message
		ce.Fix = "the prefix usually ends in /api/v1: --url " + prefix + "/api/v1"
	default:
		ce.Message = prefix + ": " + ce.Message
	}
	return ce
}

func (a *app) logoutCmd() *cobra.Command {
	return &cobra.Command{Use: "logout", Short: "Remove the stored API key", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			creds, err := profile.LoadCredentials(s.dir)
			if err != nil {
				return err
			}
			if _, ok := creds.Profiles[s.name]; !ok {
				a.say("not logged in")
			} else {
				delete(creds.Profiles, s.name)
				if creds.Current == s.name {
					creds.Current = ""
				}
				if err := creds.Save(s.dir); err != nil {
					return err
				}
				a.say("%s", a.good("logged out of profile "+s.name+" (its wallet and trust profile stay)"))
			}
			if a.json {
				return a.printJSON(map[string]any{"profile": s.name})
			}
			return nil
		}}
}

func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Check the login and the cloud", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			me, err := s.api.Me(c.Context())
			if err != nil {
				return a.explain(s, err)
			}
			if a.json {
				return a.printJSON(map[string]any{"profile": s.name, "api_prefix": s.api.Base, "user": me.User, "workspace": me.Workspace,
					"credits": me.Credits, "trust_profile": s.extra.Trust, "wallet": s.walletPath()})
			}
			a.printFields([]field{{"Profile", s.name}, {"API", s.api.Base}, {"User", person(me.User)},
				{"Workspace", me.Workspace.Name}, {"Trust profile", first(s.extra.Trust, "none (phala trust use FILE)")}, {"Wallet", s.walletPath()}})
			return nil
		}}
}

func person(u cloudapi.User) string {
	if u.Email == "" {
		return u.Username
	}
	return u.Username + " <" + u.Email + ">"
}

func (a *app) whoamiCmd() *cobra.Command {
	return &cobra.Command{Use: "whoami", Short: "Print the current user", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			me, err := s.api.Me(c.Context())
			if err != nil {
				return a.explain(s, err)
			}
			if a.json {
				return a.printJSON(me)
			}
			a.printf("%s\n", me.User.Username)
			return nil
		}}
}
