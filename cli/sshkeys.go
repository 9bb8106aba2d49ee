package cli

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
)

// publicKey reads an SSH public key: path, or the first usual one of ~/.ssh.
func (a *app) publicKey(path string) (key, file string, err error) {
	candidates := []string{path}
	if path == "" {
		candidates = nil
		for _, n := range []string{"id_ed25519.pub", "id_rsa.pub", "id_ecdsa.pub"} {
			candidates = append(candidates, filepath.Join(a.Getenv("HOME"), ".ssh", n))
		}
	}
	for _, p := range candidates {
		b, err := os.ReadFile(a.path(p))
		if err != nil {
			continue
		}
		key := strings.TrimSpace(string(b))
		switch {
		case strings.Contains(key, "PRIVATE KEY"):
			return "", "", cvm.Errorf(cvm.Invalid, "%s is a private key: it stays on this machine", p).WithFix("give the public one, " + p + ".pub")
		case strings.ContainsAny(key, "\n\r") || len(strings.Fields(key)) < 2:
			return "", "", cvm.Errorf(cvm.Invalid, "%s is not one SSH public key", p)
		}
		return key, p, nil
	}
	return "", "", cvm.Errorf(cvm.NotFound, "no SSH public key in %s", strings.Join(candidates, ", ")).WithFix("ssh-keygen makes one; --key-file names another place")
}

func (a *app) sshKeyAddCmd() *cobra.Command {
	var name, file string
	c := &cobra.Command{Use: "add", Short: "Add a local SSH public key to your account", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			key, path, err := a.publicKey(file)
			if err != nil {
				return err
			}
			var k sshKey
			body := map[string]any{"name": first(name, strings.TrimSuffix(filepath.Base(path), ".pub")), "public_key": key}
			if err := s.api.Do(c.Context(), "POST", "/user/ssh-keys", body, &k); err != nil {
				return a.explain(s, err)
			}
			return a.done(k, "added "+k.Name+" "+k.Fingerprint+" ("+k.ID+")")
		}}
	c.Flags().StringVar(&name, "name", "", "name (default: the file's)")
	c.Flags().StringVar(&file, "key-file", "", "public key file (default: ~/.ssh/id_ed25519.pub, then id_rsa.pub)")
	return c
}

func (a *app) sshKeyImportCmd() *cobra.Command {
	return &cobra.Command{Use: "import-github <user>", Short: "Import the SSH keys of a GitHub profile", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			var out struct {
				User    string   `json:"github_username"`
				Added   int      `json:"keys_added"`
				Skipped int      `json:"keys_skipped"`
				Errors  []string `json:"errors"`
			}
			if err := s.api.Do(c.Context(), "POST", "/user/ssh-keys/github-profile", map[string]any{"github_username": as[0]}, &out); err != nil {
				return a.explain(s, err)
			}
			if a.json {
				return a.printJSON(out)
			}
			for _, e := range out.Errors {
				a.say("%s", a.warn(e))
			}
			a.say("%s", a.good(plural(out.Added, "key")+" added, "+plural(out.Skipped, "key")+" there already"))
			return nil
		}}
}
