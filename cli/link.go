package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
)

func (a *app) linkCmd() *cobra.Command {
	c := &cobra.Command{Use: "link [cvm]", Short: "Link this directory to a CVM (phala.toml)",
		Long: "Write the CVM's id and the login's profile to ./phala.toml, so that commands run here\nmean this CVM. Other settings in the file stay.",
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			id := first(firstOf(as), a.cvmID)
			if id == "" {
				if id, err = a.pickCVM(c.Context(), s); err != nil {
					return err
				}
			}
			v, err := s.api.CVM(c.Context(), id)
			if err != nil {
				return a.explain(s, err)
			}
			if err := a.writeLink(s, v); err != nil {
				return err
			}
			return a.done(map[string]any{"file": "phala.toml", "name": v.Name, "app_id": v.AppID, "vm_uuid": v.VMUUID, "profile": s.name},
				"phala.toml: this directory is "+v.Name+" (app "+str(v.AppID)+")")
		}}
	return c
}

// writeLink puts the CVM's identity into phala.toml and keeps everything else,
// comments included: identity lines are replaced at the top of the file.
func (a *app) writeLink(s *session, v cloudapi.CVMDetail) error {
	path := a.path("phala.toml")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ids := map[string]bool{"id": true, "uuid": true, "app_id": true, "instance_id": true, "name": true, "profile": true}
	var kept []string
	top := true
	for _, line := range strings.Split(strings.TrimRight(string(old), "\n"), "\n") {
		top = top && !strings.HasPrefix(strings.TrimSpace(line), "[")
		key, _, _ := strings.Cut(line, "=")
		if top && ids[strings.TrimSpace(key)] {
			continue
		}
		kept = append(kept, line)
	}
	var b bytes.Buffer
	for _, f := range []field{{"uuid", str(v.VMUUID)}, {"app_id", str(v.AppID)}, {"name", v.Name}, {"profile", s.name}} {
		if f.value != "" {
			fmt.Fprintf(&b, "%s = %s\n", f.name, strconv.Quote(f.value))
		}
	}
	if rest := strings.Join(kept, "\n"); strings.TrimSpace(rest) != "" {
		b.WriteString(rest + "\n")
	}
	if err := toml.Unmarshal(b.Bytes(), &project{}); err != nil {
		return cvm.Errorf(cvm.Invalid, "phala.toml cannot be kept as it is: %w", err).WithFix("repair it, then link again")
	}
	return os.WriteFile(path, b.Bytes(), 0o644) //nolint:gosec // a file of the project, to be shared
}

// pickable gives a command -i: choose the CVM from a list.
func (a *app) pickable(c *cobra.Command) {
	if c.Flags().ShorthandLookup("i") == nil {
		c.Flags().BoolVarP(&a.interactive, "interactive", "i", false, "choose the CVM from a list")
	}
}

// pickCVM has a person choose.
func (a *app) pickCVM(ctx context.Context, s *session) (string, error) {
	if !a.TTY {
		return "", usage("which CVM? give its name or id (phala cvms list shows them): there is no terminal to choose at")
	}
	all, err := s.api.CVMs(ctx)
	if err != nil {
		return "", a.explain(s, err)
	}
	if len(all) == 0 {
		return "", cvm.Errorf(cvm.NotFound, "there is no CVM to choose").WithFix("phala deploy makes one")
	}
	for i, v := range all {
		a.say("  %2d  %s  %s", i+1, v.Name, v.Status)
	}
	answer, err := a.ask("Which CVM? [1-" + strconv.Itoa(len(all)) + "] ")
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(answer)
	if err != nil || n < 1 || n > len(all) {
		return "", usage("%q is not a number of the list; nothing was changed", answer)
	}
	return first(str(all[n-1].VMUUID), all[n-1].Name), nil
}
