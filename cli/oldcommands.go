package cli

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
)

// Commands that the public CLI keeps for old scripts. They do what their successors
// do; nothing is sent that the successors would not send.

func (a *app) cvmsCreateCmd() *cobra.Command {
	var f deployFlags
	var vcpu, memory, disk int
	var skipEnv, debug bool
	c := &cobra.Command{Use: "create", Short: "Create a CVM", Deprecated: "use phala deploy", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			f.vcpu, f.memory = vcpu, memory
			if disk > 0 {
				f.disk = strconv.Itoa(disk) + "G"
			}
			return a.deploy(c.Context(), &f)
		}}
	s := c.Flags()
	s.StringVarP(&f.name, "name", "n", "", "CVM name")
	s.StringVarP(&f.compose, "compose", "c", "", "Docker Compose file")
	s.IntVar(&vcpu, "vcpu", 0, "virtual CPUs")
	s.IntVar(&memory, "memory", 0, "memory in MB")
	s.IntVar(&disk, "disk-size", 0, "disk in GB")
	s.StringVar(&f.nodeID, "teepod-id", "", "node")
	s.StringVar(&f.image, "image", "", "OS image")
	s.StringArrayVarP(&f.envs, "env-file", "e", nil, "environment file")
	s.StringVar(&f.trust, "trust", "", "trust profile (default: the login's)")
	s.BoolVar(&skipEnv, "skip-env", false, "ask for no environment (never asked for here)")
	s.BoolVar(&debug, "debug", false, "")
	f.publicLogs, f.publicSys = true, true
	_, _ = s.MarkHidden("skip-env"), s.MarkHidden("debug")
	return c
}

func (a *app) cvmsUpgradeCmd() *cobra.Command {
	f := deployFlags{publicLogs: true, publicSys: true}
	var debug bool
	c := &cobra.Command{Use: "upgrade [cvm]", Short: "Update a CVM", Deprecated: "use phala deploy", Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			if len(as) == 1 {
				a.cvmID = as[0]
			}
			return a.deploy(c.Context(), &f)
		}}
	s := c.Flags()
	s.StringVarP(&f.compose, "compose", "c", "", "Docker Compose file")
	s.StringArrayVarP(&f.envs, "env-file", "e", nil, "environment file")
	s.StringVar(&f.trust, "trust", "", "trust profile (default: the login's)")
	s.BoolVar(&debug, "debug", false, "")
	_ = s.MarkHidden("debug")
	return c
}

func (a *app) authCmd() *cobra.Command {
	g := a.group("auth", "Log in and out (older names)")
	for _, c := range []*cobra.Command{a.loginCmd(), a.logoutCmd(), a.statusCmd()} {
		c.Deprecated = "use phala " + c.Name()
		g.AddCommand(c)
	}
	g.Hidden = true
	return g
}

// runtimeConfig is GET /cvms/{id}/user_config.
type runtimeConfig struct {
	Hostname string   `json:"hostname,omitempty"`
	SSHKeys  []string `json:"ssh_authorized_keys"`
	Gateway  string   `json:"default_gateway_domain,omitempty"`
}

func (a *app) runtimeConfigCmd() *cobra.Command {
	return &cobra.Command{Use: "runtime-config [cvm]", Short: "Show the runtime configuration of a CVM", Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			return a.withCVM(c.Context(), as, func(ctx context.Context, s *session, id string) error {
				v, err := s.api.CVM(ctx, id)
				if err != nil {
					return err
				}
				var raw json.RawMessage
				if err := s.api.Do(ctx, "GET", "/cvms/"+first(str(v.VMUUID), v.Name)+"/user_config", nil, &raw); err != nil {
					return err
				}
				if a.json {
					return a.printJSON(raw)
				}
				var r runtimeConfig
				if err := json.Unmarshal(raw, &r); err != nil {
					return cvm.Errorf(cvm.Unavailable, "the answer is not what the API documents: %w", err)
				}
				a.printFields([]field{{"Hostname", r.Hostname}, {"Gateway", r.Gateway}, {"SSH keys", first(strings.Join(r.SSHKeys, "\n\t"), "none")}})
				return nil
			})
		}}
}
