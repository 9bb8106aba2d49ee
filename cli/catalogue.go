package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
)

// listing is a command that shows one list of the API.
func listing[T any](a *app, use, short, none string, head []string, row func(T) []string, load func(*cobra.Command, *session, []string) ([]T, error), public bool) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			open := a.loggedIn
			if public {
				open = a.session
			}
			s, err := open()
			if err != nil {
				return err
			}
			items, err := load(c, s, as)
			if err != nil {
				return a.explain(s, err)
			}
			return printList(a, items, none, head, row)
		}}
}

func (a *app) printNodes(nodes []cloudapi.AvailableNode) error {
	return printList(a, nodes, "no nodes", []string{"ID", "NAME", "REGION", "DRIVER", "FREE", "PROBLEM"},
		func(n cloudapi.AvailableNode) []string {
			driver := n.Driver
			if n.Simulated {
				driver += " (SIMULATED TEE)"
			}
			return []string{fmt.Sprint(n.TeepodID), n.Name, str(n.RegionIdentifier), driver,
				fmt.Sprintf("%d vCPU, %d MB, %d GB disk", n.RemainingVCPU, n.RemainingMemory, n.RemainingDiskGB), n.Problem}
		})
}

// paged gives a list its pages; they are cut here, from the whole list.
type paged struct{ page, size int }

func (p *paged) add(c *cobra.Command, size int) {
	c.Flags().IntVar(&p.page, "page", 1, "page, beginning with 1")
	c.Flags().IntVar(&p.size, "page-size", size, "items per page")
}

func cut[T any](p *paged, items []T) ([]T, error) {
	if p.page < 1 || p.size < 1 {
		return nil, usage("--page and --page-size begin with 1")
	}
	from := min((p.page-1)*p.size, len(items))
	if p.page > 1 && p.page-1 > len(items)/p.size { // no overflow
		from = len(items)
	}
	return items[from:min(from+p.size, len(items))], nil
}

// nodeListing is `nodes list` and `cvms list-nodes`.
func (a *app) nodeListing(use string) *cobra.Command {
	var p paged
	c := &cobra.Command{Use: use, Short: "List nodes", Args: args(cobra.NoArgs)}
	p.add(c, 30)
	c.RunE = func(c *cobra.Command, _ []string) error {
		s, err := a.loggedIn()
		if err != nil {
			return err
		}
		all, err := s.api.Nodes(c.Context())
		if err != nil {
			return a.explain(s, err)
		}
		nodes, err := cut(&p, all.Nodes)
		if err != nil {
			return err
		}
		return a.printNodes(nodes)
	}
	return c
}

func (a *app) nodesCmd() *cobra.Command {
	c := a.watchable(a.nodeListing("list"))
	c.Aliases = []string{"ls"}
	g := a.group("nodes", "List nodes", c)
	g.Flags().AddFlagSet(c.Flags())
	g.RunE = c.RunE // `phala nodes` alone lists, which is what a person means
	return g
}

func (a *app) kmsCmd() *cobra.Command {
	c := listing(a, "list", "List key management services", "no KMS", []string{"ID", "URL", "CHAIN", "CONTRACT", "GATEWAY APP"},
		func(k cloudapi.KMS) []string {
			chain := ""
			if k.ChainID != nil {
				chain = fmt.Sprint(*k.ChainID)
			}
			return []string{first(str(k.Slug), k.ID), k.URL, chain, str(k.KMSContractAddress), str(k.GatewayAppID)}
		},
		func(c *cobra.Command, s *session, _ []string) ([]cloudapi.KMS, error) {
			p, err := s.api.KMSList(c.Context())
			return p.Items, err
		}, false)
	show := &cobra.Command{Use: "show <kms>", Short: "Inspect one KMS as the cloud sees it", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			k, err := s.api.KMSInfo(c.Context(), as[0])
			if err != nil {
				return a.explain(s, err)
			}
			if a.json {
				return a.printJSON(k)
			}
			a.printFields([]field{{"KMS", first(str(k.KMS.Slug), k.KMS.ID)}, {"URLs", strings.Join(k.URLs, " ")}, {"Root key", k.RootSPKI},
				{"Env key signer", k.K256}, {"Simulated", yesNo(k.Simulated)}, {"Warnings", strings.Join(k.Warnings, "; ")}})
			return nil
		}}
	g := a.group("kms", "List key management services", c, show, a.kmsChainCmd("ethereum"), a.kmsChainCmd("base"))
	g.RunE = c.RunE
	return g
}

func (a *app) instanceTypesCmd() *cobra.Command {
	return listing(a, "instance-types [family]", "List instance types", "no such family",
		[]string{"ID", "VCPU", "MEMORY", "DISK", "GPUS", "PER HOUR", "DESCRIPTION"},
		func(t cloudapi.InstanceType) []string {
			return []string{t.ID, fmt.Sprint(t.VCPU), fmt.Sprintf("%d MB", t.MemoryMB), fmt.Sprintf("%d GB", t.DefaultDiskSizeGB), gpusText(t), t.HourlyRate, t.Description}
		},
		func(c *cobra.Command, s *session, as []string) ([]cloudapi.InstanceType, error) {
			types, err := s.api.InstanceTypes(c.Context())
			var out []cloudapi.InstanceType
			for _, f := range types.Result {
				if len(as) == 0 || f.Name == as[0] {
					out = append(out, f.Items...)
				}
			}
			return out, err
		}, true)
}

// gpusText is the cards of a type: "2 x NVIDIA H200", or "-".
func gpusText(t cloudapi.InstanceType) string {
	switch {
	case t.GPUs > 0:
		return fmt.Sprintf("%d x %s", t.GPUs, cmp.Or(t.GPUName, t.GPU))
	case t.RequiresGPU: // a cloud that does not say which
		return "yes"
	}
	return "-"
}

func (a *app) kmsChainCmd(chain string) *cobra.Command {
	return &cobra.Command{Use: chain, Short: "Show the KMS contracts on " + chain, Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			var out json.RawMessage
			if err := s.api.Do(c.Context(), "GET", "/kms/on-chain/"+chain, nil, &out); err != nil {
				return a.explain(s, err)
			}
			if a.json {
				return a.printJSON(out)
			}
			var v chainKMS
			if err := json.Unmarshal(out, &v); err != nil {
				return cvm.Errorf(cvm.Unavailable, "the answer is not what the API documents: %w", err)
			}
			a.printf("%s (chain %d)\n", v.Chain, v.ID)
			for _, k := range v.Contracts {
				a.printf("contract %s\n", k.Address)
				for _, d := range k.Devices {
					a.printf("  device  %s  %s  %s\n", d.ID, str(d.Node), allowedText(d.Allowed))
				}
				for _, i := range k.Images {
					a.printf("  image   %s %s  %s\n", i.Name, i.Version, allowedText(i.Allowed))
				}
			}
			return nil
		}}
}

// chainKMS is GET /kms/on-chain/{chain}, as far as it is shown.
type chainKMS struct {
	Chain     string `json:"chain_name"`
	ID        uint64 `json:"chain_id"`
	Contracts []struct {
		Address string `json:"contract_address"`
		Devices []struct {
			ID      string  `json:"device_id"`
			Node    *string `json:"node_name"`
			Allowed *bool   `json:"on_chain_allowed"`
		} `json:"devices"`
		Images []struct {
			Name    string `json:"name"`
			Version string `json:"version"`
			Allowed *bool  `json:"on_chain_allowed"`
		} `json:"os_images"`
	} `json:"contracts"`
}

func allowedText(b *bool) string {
	switch {
	case b == nil:
		return "not known"
	case *b:
		return "allowed"
	}
	return "not allowed"
}

func (a *app) osImagesCmd() *cobra.Command {
	var dev, prod, all bool
	var page, size int
	c := &cobra.Command{Use: "os-images", Short: "List guest OS images", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if dev && prod {
				return usage("--dev and --prod exclude each other")
			}
			if page < 1 || size < 1 || size > 100 {
				return usage("--page begins with 1, --page-size is between 1 and 100")
			}
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			var items []cloudapi.OSImage
			for n := page; ; n++ {
				q := url.Values{"page": {fmt.Sprint(n)}, "page_size": {fmt.Sprint(size)}}
				if dev || prod {
					q.Set("is_dev", fmt.Sprint(dev))
				}
				var p cloudapi.Page[cloudapi.OSImage]
				if err := s.api.Do(c.Context(), "GET", "/os-images?"+q.Encode(), nil, &p); err != nil {
					return a.explain(s, err)
				}
				items = append(items, p.Items...)
				if !all || n >= p.Pages || len(p.Items) == 0 {
					break
				}
			}
			return printList(a, items, "no images", []string{"NAME", "VERSION", "DEV", "HASH"},
				func(i cloudapi.OSImage) []string {
					return []string{i.Name, i.Version, yesNo(i.IsDev), str(i.OSImageHash)}
				})
		}}
	f := c.Flags()
	f.BoolVar(&dev, "dev", false, "development images only")
	f.BoolVar(&prod, "prod", false, "production images only")
	f.IntVar(&page, "page", 1, "page, beginning with 1")
	f.IntVar(&size, "page-size", 100, "items per page, at most 100")
	f.BoolVar(&all, "all", false, "all pages")
	return c
}
