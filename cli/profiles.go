package cli

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/profile"
)

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
	c.AddCommand(a.listAlias(c))
	return c
}

func (a *app) switchCmd() *cobra.Command {
	return a.changeProfiles("switch <profile>", "Switch to a login", 1, useProfile)
}

// listAlias is `list` of a group that lists by itself.
func (a *app) listAlias(g *cobra.Command) *cobra.Command {
	return &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: g.Short, Args: args(cobra.NoArgs), RunE: g.RunE}
}

type profileChange func(*profile.Credentials, *profile.Extras, []string) error

func (a *app) changeProfiles(use, short string, n int, change profileChange) *cobra.Command {
	verb, _, _ := strings.Cut(use, " ")
	alias := map[string][]string{"rename": {"mv"}, "delete": {"rm"}}[verb]
	return &cobra.Command{Use: use, Short: short, Aliases: alias, Args: args(cobra.ExactArgs(n)), ValidArgsFunction: a.completeProfiles,
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
