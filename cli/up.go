package cli

import (
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
)

const devcloudName = "phala-devcloud"

// beside finds a program that is not part of this one: beside it, or on the PATH.
func (a *app) beside(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		if p := filepath.Join(filepath.Dir(self), name); exists(p) {
			return p, nil
		}
	}
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	return "", cvm.Errorf(cvm.NotFound, "%s is not installed", name).
		WithFix("in a clone of the repository: make build (or go install ./cmd/" + name + ")")
}

func (a *app) devcloudCmd(verb, short string) *cobra.Command {
	return &cobra.Command{Use: verb + " [flags of " + devcloudName + "]", Short: short, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, as []string) error {
			if firstOf(as) == "--" {
				as = as[1:]
			}
			path, err := a.beside(devcloudName)
			if err != nil {
				return err
			}
			return a.tool(path, append([]string{verb}, as...)...)
		}}
}

func (a *app) upCmd() *cobra.Command {
	return a.devcloudCmd("up", "Start the whole cloud on this machine")
}

func (a *app) downCmd() *cobra.Command {
	return a.devcloudCmd("down", "Stop the cloud on this machine")
}

func (a *app) completionCmd(root *cobra.Command) *cobra.Command {
	var shell string
	c := &cobra.Command{Use: "completion [bash|zsh|fish]", Short: "Print a shell completion script", Args: args(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, as []string) error {
			if len(as) == 1 {
				shell = as[0]
			}
			switch first(shell, filepath.Base(a.Getenv("SHELL"))) {
			case "bash":
				return root.GenBashCompletionV2(a.Stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.Stdout)
			case "fish":
				return root.GenFishCompletion(a.Stdout, true)
			}
			return usage("which shell? bash, zsh or fish")
		}}
	c.Flags().StringVar(&shell, "shell", "", "bash, zsh or fish")
	return c
}
