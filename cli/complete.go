package cli

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/internal/profile"
)

// completeTime bounds how long a completion may hold up a person's shell.
const completeTime = 2 * time.Second

// completing is a completion that asks the cloud. Whatever goes wrong gives none: a
// shell is no place for error messages.
func (a *app) completing(load func(context.Context, *session) ([]string, error)) cobra.CompletionFunc {
	return func(c *cobra.Command, as []string, prefix string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), completeTime)
		defer cancel()
		s, err := a.loggedIn()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all, err := load(ctx, s)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return startingWith(all, prefix, as), cobra.ShellCompDirectiveNoFileComp
	}
}

// startingWith keeps what begins with prefix and was not given yet.
func startingWith(all []string, prefix string, given []string) (out []string) {
	for _, s := range all {
		name, _, _ := strings.Cut(s, "\t")
		if strings.HasPrefix(name, prefix) && !slices.Contains(given, name) {
			out = append(out, s)
		}
	}
	return out
}

// cvmNames completes CVM names, with their status as description.
func (a *app) cvmNames(ctx context.Context, s *session) (out []string, err error) {
	all, err := s.api.CVMs(ctx)
	for _, v := range all {
		out = append(out, v.Name+"\t"+v.Status)
	}
	return out, err
}

func (a *app) appIDs(ctx context.Context, s *session) (out []string, err error) {
	all, err := s.api.Apps(ctx)
	for _, v := range all.DstackApps {
		out = append(out, v.AppID+"\t"+v.Name)
	}
	return out, err
}

func (a *app) typeNames(ctx context.Context, s *session) (out []string, err error) {
	all, err := s.api.InstanceTypes(ctx)
	for _, f := range all.Result {
		for _, t := range f.Items {
			out = append(out, t.ID+"\t"+t.Description)
		}
	}
	return out, err
}

func (a *app) imageNames(ctx context.Context, s *session) (out []string, err error) {
	all, err := s.api.OSImages(ctx)
	for _, i := range all.Items {
		out = append(out, i.Name)
	}
	return out, err
}

func (a *app) nodeNames(ctx context.Context, s *session) (out []string, err error) {
	all, err := s.api.Nodes(ctx)
	for _, n := range all.Nodes {
		out = append(out, n.Name)
	}
	return out, err
}

// completeProfiles completes the names of logins; it asks nobody.
func (a *app) completeProfiles(_ *cobra.Command, as []string, prefix string) ([]string, cobra.ShellCompDirective) {
	dir, err := profile.Dir(a.Getenv)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	creds, err := profile.LoadCredentials(dir)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return startingWith(slices.Sorted(maps.Keys(creds.Profiles)), prefix, as), cobra.ShellCompDirectiveNoFileComp
}

// completions gives every command what its arguments and flags can be, by the names
// they have everywhere.
func (a *app) completions(root *cobra.Command) {
	byFlag := map[string]cobra.CompletionFunc{
		"cvm-id": a.completing(a.cvmNames), "uuid": a.completing(a.cvmNames), "app-id": a.completing(a.appIDs), "node": a.completing(a.nodeNames),
		"instance-type": a.completing(a.typeNames), "image": a.completing(a.imageNames), "profile": a.completeProfiles,
	}
	for n, list := range map[string][]string{"fs": {"ext4", "zfs"}, "volumes": {"keep", "delete"}, "shell": {"bash", "zsh", "fish"},
		"api-version": {"2025-10-28", "2026-01-21"}, "kms": {"phala", "ethereum", "base"}} {
		byFlag[n] = cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp)
	}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if strings.Contains(c.Use, "[cvm]") {
			a.pickable(c)
			if c.ValidArgsFunction == nil {
				c.ValidArgsFunction = a.completing(a.cvmNames)
			}
		}
		for name, f := range byFlag {
			if c.HasParent() && c.Parent().Name() == "docker" {
				break // its images are Docker's
			}
			if fl := c.Flags().Lookup(name); fl != nil {
				_ = c.RegisterFlagCompletionFunc(name, f)
			}
			if c == root && c.PersistentFlags().Lookup(name) != nil {
				_ = c.RegisterFlagCompletionFunc(name, f)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
}
