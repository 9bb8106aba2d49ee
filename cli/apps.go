package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
)

// listFlags are the filters of apps and of cvms list.
type listFlags struct {
	page, pageSize                                     int
	search, baseImage, instanceType, kms, node, region string
	statuses                                           []string
	listed, noListed                                   bool
}

func (f *listFlags) add(c *cobra.Command) {
	s := c.Flags()
	s.IntVar(&f.page, "page", 1, "page, beginning with 1")
	s.IntVar(&f.pageSize, "page-size", 50, "items per page, at most 100")
	s.StringVar(&f.search, "search", "", "by name, app id, UUID or instance id")
	s.StringArrayVar(&f.statuses, "status", nil, "only this status (repeatable)")
	s.BoolVar(&f.listed, "listed", false, "only what is listed publicly")
	s.BoolVar(&f.noListed, "no-listed", false, "only what is not")
	s.StringVar(&f.baseImage, "base-image", "", "only this OS image")
	s.StringVar(&f.instanceType, "instance-type", "", "only this instance type")
	s.StringVar(&f.kms, "kms-type", "", "only this kind of KMS")
	s.StringVar(&f.node, "node", "", "only on this node")
	s.StringVar(&f.region, "region", "", "only in this region")
}

func (f *listFlags) check() error {
	switch {
	case f.page < 1:
		return usage("--page %d: pages begin with 1", f.page)
	case f.pageSize < 1 || f.pageSize > 100:
		return usage("--page-size %d is not between 1 and 100", f.pageSize)
	case f.listed && f.noListed:
		return usage("--listed and --no-listed exclude each other")
	}
	return nil
}

func (f *listFlags) query() url.Values {
	q := url.Values{"page": {fmt.Sprint(f.page)}, "page_size": {fmt.Sprint(f.pageSize)}}
	for k, v := range map[string]string{"search": f.search, "base_image": f.baseImage, "instance_type": f.instanceType,
		"kms_type": f.kms, "node": f.node, "region": f.region} {
		if v != "" {
			q.Set(k, v)
		}
	}
	for _, s := range f.statuses {
		q.Add("status", s)
	}
	if f.listed || f.noListed {
		q.Set("listed", fmt.Sprint(f.listed))
	}
	return q
}

func (a *app) appsCmd() *cobra.Command {
	var f listFlags
	c := &cobra.Command{Use: "apps", Short: "List apps", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			var page cloudapi.Apps
			if err := s.api.Do(c.Context(), "GET", "/apps?"+f.query().Encode(), nil, &page); err != nil {
				return a.explain(s, err)
			}
			if a.json {
				return a.printJSON(page)
			}
			err = printList(a, page.DstackApps, "no apps (phala deploy makes one)", []string{"NAME", "APP ID", "STATUS", "CVMS", "KMS"},
				func(p cloudapi.App) []string {
					status := ""
					if p.CurrentCVM != nil {
						status = statusText(*p.CurrentCVM)
					}
					return []string{p.Name, p.AppID, status, fmt.Sprint(p.CVMCount), p.KMSType}
				})
			if page.TotalPages > page.Page {
				a.say("page %d of %d (--page %d shows the next)", page.Page, page.TotalPages, page.Page+1)
			}
			return err
		}}
	f.add(c)
	return c
}

// printSpread prints a list in the public CLI's JSON shape, which has the items at
// "0", "1", ..., beside ours.
func printSpread[T any](a *app, items []T, none string, head []string, row func(T) []string) error {
	if !a.json {
		return printList(a, items, none, head, row)
	}
	out := map[string]any{"items": items, "total": len(items)}
	if items == nil {
		out["items"] = []T{}
	}
	for i, it := range items {
		out[fmt.Sprint(i)] = it
	}
	return a.printJSON(out)
}

func (a *app) instancesCmd() *cobra.Command {
	return a.group("instances", "The instances of an app", a.watchable(a.instancesListCmd()), a.instancesAddCmd(), a.instancesRemoveCmd())
}

// appID is the app a command is about: flag, then phala.toml.
func (a *app) appID(s *session, flag string) (cvm.AppID, error) {
	text := first(flag, s.project.AppID)
	if text == "" {
		return cvm.AppID{}, usage("which app? --app-id ID (phala apps lists them), or app_id in phala.toml")
	}
	id, err := cvm.ParseAppID(strings.TrimPrefix(text, "app_"))
	if err != nil {
		return id, usage("--app-id: %w", err)
	}
	return id, nil
}

func (a *app) instancesListCmd() *cobra.Command {
	var app string
	c := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List the instances of an app", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			id, err := a.appID(s, app)
			if err != nil {
				return err
			}
			items, err := s.instances(c.Context(), id)
			if err != nil {
				return a.explain(s, err)
			}
			return printSpread(a, items, "no instances", []string{"UUID", "NAME", "STATUS", "NODE", "INSTANCE ID", "COMPOSE HASH"},
				func(v cloudapi.CVMInfo) []string {
					node := ""
					if v.NodeInfo != nil {
						node = str(v.NodeInfo.Name)
					}
					return []string{str(v.VMUUID), v.Name, statusText(v), node, short(str(v.InstanceID)), short(str(v.ComposeHash))}
				})
		}}
	c.Flags().StringVar(&app, "app-id", "", "app id (default: phala.toml's)")
	return c
}

func (s *session) instances(ctx context.Context, app cvm.AppID) (out []cloudapi.CVMInfo, err error) {
	return out, s.api.Do(ctx, "GET", "/apps/"+app.String()+"/cvms", nil, &out)
}

func (a *app) instancesRemoveCmd() *cobra.Command {
	var yes bool
	c := &cobra.Command{Use: "rm <vm-uuid>...", Short: "Delete instances; their volumes stay", Args: args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			if err := a.confirm(yes, "--yes", "Delete "+strings.Join(as, ", ")+"?"); err != nil {
				return err
			}
			type removed struct {
				VMUUID string `json:"vm_uuid"`
				Status string `json:"status"`
				Error  string `json:"error,omitempty"`
			}
			var items []removed
			var failed error
			for _, id := range as {
				r := removed{VMUUID: id, Status: "deleted"}
				if err := s.api.Delete(c.Context(), id, "keep"); err != nil {
					r.Status, r.Error, failed = "failed", err.Error(), err
				}
				items = append(items, r)
			}
			if failed != nil && !a.json {
				for _, r := range items {
					a.say("%s %s %s", r.VMUUID, r.Status, r.Error)
				}
			}
			if failed != nil {
				return a.explain(s, failed)
			}
			return printSpread(a, items, "", []string{"UUID", "STATUS"}, func(r removed) []string { return []string{r.VMUUID, r.Status} })
		}}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVarP(&yes, "force", "f", false, "do not ask")
	return c
}

// sshKey is a key of the account.
type sshKey struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	PublicKey   string `json:"public_key"`
	Fingerprint string `json:"fingerprint"`
	KeyType     string `json:"key_type"`
	Source      string `json:"source"`
	CreatedAt   string `json:"created_at"`
}

func (a *app) sshKeysCmd() *cobra.Command {
	list := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List your SSH keys", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			var items []json.RawMessage // whole, for --json
			if err := s.api.Do(c.Context(), "GET", "/user/ssh-keys", nil, &items); err != nil {
				return a.explain(s, err)
			}
			return printSpread(a, items, "no SSH keys (phala ssh-keys add)", []string{"ID", "NAME", "TYPE", "FINGERPRINT", "SOURCE", "CREATED"},
				func(b json.RawMessage) []string {
					var k sshKey
					_ = json.Unmarshal(b, &k)
					return []string{k.ID, k.Name, k.KeyType, k.Fingerprint, k.Source, k.CreatedAt}
				})
		}}
	remove := &cobra.Command{Use: "remove <key-id>", Aliases: []string{"rm"}, Short: "Remove an SSH key", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			if err := s.api.Do(c.Context(), "DELETE", "/user/ssh-keys/"+url.PathEscape(as[0]), nil, nil); err != nil {
				return a.explain(s, err)
			}
			return a.done(map[string]any{"id": as[0]}, "removed SSH key "+as[0])
		}}
	return a.group("ssh-keys", "Your SSH keys, for development images", list, a.sshKeyAddCmd(), remove, a.sshKeyImportCmd())
}

// done ends a command that changed something.
func (a *app) done(v any, text string) error {
	if a.json {
		return a.printJSON(v)
	}
	a.say("%s", a.good(text))
	return nil
}
