package cli

import (
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/profile"
)

func (a *app) loginCmd() *cobra.Command {
	var url string
	var manual, printToken, noOpen bool
	c := &cobra.Command{Use: "login [api-key]", Short: "Log in with an API key",
		Long: "Log in with an API key: as argument, on stdin, or asked for on a terminal\n(an argument can be read by other users of this machine).",
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			dir, err := profile.Dir(a.Getenv)
			if err != nil {
				return err
			}
			key, err := a.loginKey(as)
			if err != nil {
				return err
			}
			prefix := strings.TrimRight(first(url, a.Getenv("PHALA_CLOUD_API_PREFIX"), profile.DefaultAPI), "/")
			api, err := newClient(prefix, key)
			if err != nil {
				return err
			}
			me, err := api.Me(c.Context())
			if err != nil {
				return a.loginError(prefix, err)
			}
			if printToken {
				a.printf("%s\n", key)
				return nil
			}
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
		}}
	f := c.Flags()
	f.StringVar(&url, "url", "", "API prefix of the cloud, for example http://127.0.0.1:8730/api/v1")
	f.BoolVar(&manual, "manual", false, "ask for the key (the default here)")
	f.BoolVar(&noOpen, "no-open", false, "accepted for compatibility: no browser is opened")
	f.BoolVar(&printToken, "print-token", false, "print the key instead of saving it")
	return c
}

func (a *app) loginKey(as []string) (string, error) {
	var b []byte
	var err error
	switch {
	case len(as) == 1:
		b = []byte(as[0])
	case a.token != "":
		b = []byte(a.token)
	case a.Getenv("PHALA_CLOUD_API_KEY") != "":
		b = []byte(a.Getenv("PHALA_CLOUD_API_KEY"))
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
		return "", cvm.Errorf(cvm.Invalid, "no API key").WithFix("give it as argument, on stdin, or in PHALA_CLOUD_API_KEY")
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
			a.printFields([]field{{"Profile", s.name}, {"API", s.api.Base}, {"User", me.User.Username + " <" + me.User.Email + ">"},
				{"Workspace", me.Workspace.Name}, {"Trust profile", first(s.extra.Trust, "none (phala trust use FILE)")}, {"Wallet", s.walletPath()}})
			return nil
		}}
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

func (a *app) profilesCmd() *cobra.Command {
	c := &cobra.Command{Use: "profiles", Short: "List logins", Args: a.unknownCommand,
		RunE: func(*cobra.Command, []string) error {
			dir, err := profile.Dir(a.Getenv)
			if err != nil {
				return err
			}
			creds, err := profile.LoadCredentials(dir)
			if err != nil {
				return err
			}
			type item struct {
				Name      string            `json:"name"`
				Current   bool              `json:"current"`
				APIPrefix string            `json:"api_prefix"`
				Workspace profile.Workspace `json:"workspace"`
				User      profile.User      `json:"user"`
			}
			var items []item
			for _, n := range slices.Sorted(maps.Keys(creds.Profiles)) {
				l := creds.Profiles[n]
				items = append(items, item{n, n == creds.Current, l.APIPrefix, l.Workspace, l.User})
			}
			return printList(a, items, "no logins (phala login)", []string{"NAME", "CURRENT", "USER", "WORKSPACE", "API"},
				func(i item) []string {
					return []string{i.Name, yesNo(i.Current), i.User.Username, i.Workspace.Name, i.APIPrefix}
				})
		}}
	c.AddCommand(a.changeProfiles("use <profile>", "Switch to a login", 1, useProfile),
		a.changeProfiles("rename <old> <new>", "Rename a login", 2, renameProfile),
		a.changeProfiles("delete <profile>", "Delete a login", 1, deleteProfile))
	return c
}

func (a *app) switchCmd() *cobra.Command {
	return a.changeProfiles("switch <profile>", "Switch to a login", 1, useProfile)
}

type profileChange func(*profile.Credentials, *profile.Extras, []string) error

func (a *app) changeProfiles(use, short string, n int, change profileChange) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args(cobra.ExactArgs(n)),
		RunE: func(_ *cobra.Command, as []string) error {
			dir, err := profile.Dir(a.Getenv)
			if err != nil {
				return err
			}
			creds, err := profile.LoadCredentials(dir)
			if err != nil {
				return err
			}
			extras, err := profile.LoadExtras(dir)
			if err != nil {
				return err
			}
			name, _, ok := creds.Find(as[0])
			if !ok {
				return cvm.Errorf(cvm.NotFound, "no profile %q", as[0]).WithFix("phala profiles lists them")
			}
			as[0] = name
			if err := change(creds, extras, as); err != nil {
				return err
			}
			if err := extras.Save(dir); err != nil {
				return err
			}
			if err := creds.Save(dir); err != nil {
				return err
			}
			a.say("%s", a.good("current profile: "+first(creds.Current, "none")))
			if a.json {
				return a.printJSON(map[string]any{"current_profile": creds.Current})
			}
			return nil
		}}
}

func useProfile(c *profile.Credentials, _ *profile.Extras, as []string) error {
	c.Current = as[0]
	return nil
}

func renameProfile(c *profile.Credentials, x *profile.Extras, as []string) error {
	from, to := as[0], as[1]
	if _, taken := c.Profiles[to]; taken {
		return cvm.Errorf(cvm.Conflict, "there is a profile %q already", to)
	}
	c.Profiles[to], x.Profiles[to] = c.Profiles[from], x.Profiles[from]
	delete(c.Profiles, from)
	delete(x.Profiles, from)
	if c.Current == from {
		c.Current = to
	}
	return nil
}

func deleteProfile(c *profile.Credentials, x *profile.Extras, as []string) error {
	delete(c.Profiles, as[0])
	delete(x.Profiles, as[0])
	if c.Current == as[0] {
		c.Current = ""
	}
	return nil
}
