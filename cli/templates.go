package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/composefile"
	"github.com/confidential-cloud/phala/templates"
)

const templatesLong = `Apps that are ready to deploy. A template is a compose file, the environment it wants and
the size it needs; the catalogue is part of this program, or a directory of your own
(--catalogue DIR, with ID/template.json and ID/docker-compose.yml in it).

Images of templates are named by tag, and whoever controls a registry can move a tag: before
others rely on the app, write the digest into the compose file ("phala templates init" gives
you your own), as in image: nginx:1.28-alpine@sha256:... "phala templates show" names the
images that have none.`

func (a *app) templatesCmd() *cobra.Command {
	var dir string
	list := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List templates", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			all, err := a.catalogue(dir).All()
			if err != nil {
				return err
			}
			return printList(a, all, "no templates", []string{"ID", "NAME", "NEEDS", "DESCRIPTION"}, func(t templates.Template) []string {
				return []string{t.ID, t.Name, strings.Join(needs(t), " "), t.Description}
			})
		}}
	show := &cobra.Command{Use: "show <template>", Short: "Show a template and its compose file", Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, as []string) error {
			t, err := a.catalogue(dir).Get(as[0])
			if err != nil {
				return err
			}
			return a.showTemplate(t)
		}}
	g := a.group("templates", "Apps that are ready to deploy", list, show, a.templateInitCmd(&dir), a.templateDeployCmd(&dir))
	g.Long = templatesLong
	g.RunE = list.RunE // `phala templates` alone lists
	g.PersistentFlags().StringVar(&dir, "catalogue", "", "directory of templates (default: the ones in this program)")
	for _, c := range g.Commands() {
		if c != list {
			c.ValidArgsFunction = a.completeTemplates(&dir)
		}
	}
	return g
}

func (a *app) catalogue(dir string) templates.Catalogue {
	if dir == "" {
		return templates.Builtin()
	}
	return templates.Dir(os.DirFS(a.path(dir)))
}

func (a *app) completeTemplates(dir *string) cobra.CompletionFunc {
	return func(_ *cobra.Command, as []string, prefix string) ([]string, cobra.ShellCompDirective) {
		all, err := a.catalogue(*dir).All()
		if err != nil || len(as) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, t := range all {
			names = append(names, t.ID+"\t"+t.Description)
		}
		return startingWith(names, prefix, nil), cobra.ShellCompDirectiveNoFileComp
	}
}

// needs are the names that a person has to give values for.
func needs(t templates.Template) (out []string) {
	for _, e := range t.Envs {
		if e.Required {
			out = append(out, e.Key)
		}
	}
	return out
}

func (a *app) showTemplate(t templates.Template) error {
	if a.json {
		return a.printJSON(struct {
			templates.Template
			Compose string `json:"compose"`
		}{t, t.Compose})
	}
	fields := []field{{"ID", t.ID}, {"Name", t.Name}, {"About", t.Description}, {"Source", t.Repo}, {"Author", t.Author}, {"Tags", strings.Join(t.Tags, ", ")}}
	if r := t.DefaultResource; r != nil {
		fields = append(fields, field{"Size", fmt.Sprintf("at least %d vCPU, %d MB memory, %d GB disk", r.VCPU, r.Memory, r.DiskSize)})
	}
	for _, e := range t.Envs {
		about := e.Description
		switch {
		case e.Required:
			about += " (needed)"
		case e.Default != "":
			about += " (default: " + e.Default + ")"
		}
		fields = append(fields, field{"Env " + e.Key, strings.TrimSpace(about)})
	}
	a.printFields(fields)
	a.printf("\n%s", t.Compose)
	f, err := composefile.Parse([]byte(t.Compose))
	if err != nil {
		return err
	}
	a.say("")
	for _, w := range f.Lint() {
		a.say("%s", a.warn(w.String()))
	}
	a.say("next: phala templates deploy %s, or phala templates init %s to change it first", t.ID, t.ID)
	return nil
}

func (a *app) templateInitCmd(dir *string) *cobra.Command {
	return &cobra.Command{Use: "init <template> [directory]", Short: "Start a project from a template: compose file, .env and phala.toml",
		Long: "Write docker-compose.yml, .env (what you have to fill in) and phala.toml into a directory\n(default: one with the template's name). Files that exist are never overwritten.",
		Args: args(cobra.RangeArgs(1, 2)),
		RunE: func(_ *cobra.Command, as []string) error {
			t, err := a.catalogue(*dir).Get(as[0])
			if err != nil {
				return err
			}
			to := as[0]
			if len(as) == 2 {
				to = as[1]
			}
			return a.initTemplate(t, to)
		}}
}

func (a *app) initTemplate(t templates.Template, dir string) error {
	to := a.path(dir)
	var env strings.Builder
	for _, e := range t.Envs {
		fmt.Fprintf(&env, "# %s\n%s=%s\n", first(e.Description, e.Key), e.Key, e.Default)
	}
	project := "compose_file = \"docker-compose.yml\"\n"
	if len(t.Envs) > 0 {
		project += "env_file = \".env\"\n"
	}
	names, texts := []string{"docker-compose.yml", "phala.toml"}, []string{t.Compose, project}
	if len(t.Envs) > 0 {
		names, texts = append(names, ".env"), append(texts, env.String())
	}
	for _, n := range names {
		if exists(filepath.Join(to, n)) {
			return cvm.Errorf(cvm.Conflict, "%s exists already; nothing was written", filepath.Join(dir, n)).WithFix("name another directory: phala templates init " + t.ID + " DIR")
		}
	}
	if err := os.MkdirAll(to, 0o755); err != nil { //nolint:gosec // a project's directory
		return cvm.Errorf(cvm.Invalid, "%s: %w", dir, err)
	}
	for i, n := range names {
		if err := writeNew(filepath.Join(to, n), texts[i]); err != nil {
			return err
		}
	}
	if !a.json {
		if wanted := needs(t); len(wanted) > 0 {
			a.say("fill in %s: %s", filepath.Join(dir, ".env"), strings.Join(wanted, ", "))
		}
		a.say("next: cd %s && phala deploy -n %s", dir, appName(t.ID))
	}
	return a.done(map[string]any{"template": t.ID, "directory": dir, "files": names, "needs": append([]string{}, needs(t)...)}, "wrote "+strings.Join(names, ", ")+" to "+dir)
}

// writeNew writes a file that must not be there; it may hold secrets later.
func writeNew(path, text string) error {
	mode := fs.FileMode(0o644)
	if filepath.Base(path) == ".env" {
		mode = 0o600
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// appName is a template's id as the name of a CVM, which has five characters at least.
func appName(id string) string {
	if len(id) < 5 {
		return id + "-app"
	}
	return id
}

func (a *app) templateDeployCmd(dir *string) *cobra.Command {
	var f deployFlags
	c := &cobra.Command{Use: "deploy <template>", Short: "Deploy a template", Args: args(cobra.ExactArgs(1)),
		Long:    "Deploy a template as it is. What it needs is given with -e, or asked for on a terminal;\nthe same name again updates the CVM in place. The flags are those of phala deploy.",
		Example: "  phala templates deploy hello -n hello-world -e GREETING=Moin",
		RunE: func(c *cobra.Command, as []string) error {
			t, err := a.catalogue(*dir).Get(as[0])
			if err != nil {
				return err
			}
			if f.compose != "" {
				return usage("-c: the compose file is the template's (phala templates init %s, to change it)", t.ID)
			}
			f.template, f.name = &t, first(f.name, appName(t.ID))
			if err := a.templateEnv(c.Context(), &f); err != nil {
				return err
			}
			return a.deploy(c.Context(), &f)
		}}
	f.add(c)
	for _, h := range []string{"compose", "commit", "prepare-only", "token", "compose-hash", "transaction-hash"} {
		_ = c.Flags().MarkHidden(h)
	}
	return c
}

// templateEnv completes the environment of a new CVM; an update keeps what it has.
func (a *app) templateEnv(ctx context.Context, f *deployFlags) error {
	s, err := a.loggedIn()
	if err != nil {
		return err
	}
	if _, err := s.api.CVM(ctx, f.name); cvm.CodeOf(err) != cvm.NotFound {
		return a.explain(s, err)
	}
	have, err := a.readEnv(f.envs)
	if err != nil {
		return err
	}
	given := envNames(have)
	var missing []string
	for _, e := range f.template.Envs {
		switch {
		case slices.Contains(given, e.Key):
		case e.Default != "":
			f.envs = append(f.envs, e.Key+"="+e.Default)
		case e.Required && a.Secret != nil:
			v, err := a.Secret(e.Key + " (" + first(e.Description, "needed") + "): ")
			if err != nil || len(v) == 0 {
				return cvm.Errorf(cvm.Precondition, "%s is needed; nothing was changed", e.Key)
			}
			f.envs = append(f.envs, e.Key+"="+string(v))
		case e.Required:
			missing = append(missing, e.Key)
		}
	}
	if len(missing) > 0 {
		return cvm.Errorf(cvm.Invalid, "template %s needs %s", f.template.ID, strings.Join(missing, ", ")).
			WithFix("-e " + strings.Join(missing, "=... -e ") + "=... (phala templates show " + f.template.ID + ")")
	}
	if r := f.template.DefaultResource; r != nil {
		return a.templateSize(ctx, s, f, *r)
	}
	return nil
}

// templateSize chooses the smallest type that is large enough, where none is named.
func (a *app) templateSize(ctx context.Context, s *session, f *deployFlags, r templates.Resource) error {
	all, err := s.api.InstanceTypes(ctx)
	if err != nil {
		return a.explain(s, err)
	}
	var best *cloudapi.InstanceType
	for _, family := range all.Result {
		for _, t := range family.Items {
			fits := t.VCPU >= r.VCPU && t.MemoryMB >= r.Memory && !t.RequiresGPU
			if fits && (best == nil || t.VCPU < best.VCPU || t.VCPU == best.VCPU && t.MemoryMB < best.MemoryMB) {
				best = &t
			}
		}
	}
	switch {
	case f.instanceType != "" || f.vcpu+f.memory > 0:
	case best == nil:
		return cvm.Errorf(cvm.Unsupported, "no instance type has the %d vCPU and %d MB memory that template %s wants", r.VCPU, r.Memory, f.template.ID).WithFix("phala instance-types lists them; -t TYPE deploys it in a smaller one")
	default:
		f.instanceType = best.ID
	}
	if best != nil && f.disk == "" && r.DiskSize > best.DefaultDiskSizeGB {
		f.disk = fmt.Sprintf("%dG", r.DiskSize)
	}
	return nil
}
