package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/api/cloudapi"
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

func (a *app) nodesCmd() *cobra.Command {
	c := listing(a, "list", "List nodes", "no nodes", []string{"ID", "NAME", "REGION", "DRIVER", "FREE", "PROBLEM"},
		func(n cloudapi.AvailableNode) []string {
			driver := n.Driver
			if n.Simulated {
				driver += " (SIMULATED TEE)"
			}
			return []string{fmt.Sprint(n.TeepodID), n.Name, str(n.RegionIdentifier), driver,
				fmt.Sprintf("%d vCPU, %d MB, %d GB disk", n.RemainingVCPU, n.RemainingMemory, n.RemainingDiskGB), n.Problem}
		},
		func(c *cobra.Command, s *session, _ []string) ([]cloudapi.AvailableNode, error) {
			n, err := s.api.Nodes(c.Context())
			return n.Nodes, err
		}, false)
	g := a.group("nodes", "List nodes", c)
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
	g := a.group("kms", "List key management services", c, show)
	g.RunE = c.RunE
	return g
}

func (a *app) instanceTypesCmd() *cobra.Command {
	return listing(a, "instance-types [family]", "List instance types", "no such family",
		[]string{"ID", "VCPU", "MEMORY", "DISK", "PER HOUR", "DESCRIPTION"},
		func(t cloudapi.InstanceType) []string {
			return []string{t.ID, fmt.Sprint(t.VCPU), fmt.Sprintf("%d MB", t.MemoryMB), fmt.Sprintf("%d GB", t.DefaultDiskSizeGB), t.HourlyRate, t.Description}
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

func (a *app) osImagesCmd() *cobra.Command {
	return listing(a, "os-images", "List guest OS images", "no images", []string{"NAME", "VERSION", "DEV", "HASH"},
		func(i cloudapi.OSImage) []string {
			return []string{i.Name, i.Version, yesNo(i.IsDev), str(i.OSImageHash)}
		},
		func(c *cobra.Command, s *session, _ []string) ([]cloudapi.OSImage, error) {
			p, err := s.api.OSImages(c.Context())
			return p.Items, err
		}, false)
}
