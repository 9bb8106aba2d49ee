package cli

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const docsFile = "../docs/cli.md"

// TestDocs: docs/cli.md says what the command tree says (UPDATE_GOLDEN=1 rewrites it).
func TestDocs(t *testing.T) {
	a := &app{Config: Config{Version: "test", Getenv: func(string) string { return "" }}}
	root := a.root()
	var b bytes.Buffer
	b.WriteString("# The phala command\n\nGenerated from the command tree by `UPDATE_GOLDEN=1 go test ./cli -run TestDocs`; do not edit.\n\n")
	b.WriteString("```\n" + root.Long + "\n```\n\n")
	b.WriteString("With `--json` every command prints one object: `{\"success\":true,...}`, or `{\"success\":false,\"error\":...}` with `code`, `reason` and `fix` where there are any.\nLists have `items` and `total`; those that the public CLI spreads have its keys `\"0\"`, `\"1\"`, ... beside them. `ssh`, `cp` and `docker` return the exit code of the program they run.\n\nFlags of every command:\n\n")
	flagsTable(&b, root.PersistentFlags())
	walkDocs(&b, root)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(docsFile, b.Bytes(), 0o644); err != nil { //nolint:gosec // documentation
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, b.Bytes()) {
		t.Errorf("%s is not what the commands say: UPDATE_GOLDEN=1 go test ./cli -run TestDocs", docsFile)
	}
}

func walkDocs(b *bytes.Buffer, c *cobra.Command) {
	for _, sub := range c.Commands() {
		if !sub.IsAvailableCommand() && sub.Deprecated == "" {
			continue
		}
		fmt.Fprintf(b, "\n## %s\n\n%s.", strings.TrimSuffix(sub.UseLine(), " [flags]"), strings.TrimSuffix(sub.Short, "."))
		if sub.Deprecated != "" {
			fmt.Fprintf(b, " Deprecated: %s.", sub.Deprecated)
		}
		b.WriteString("\n")
		if len(sub.Aliases) > 0 {
			fmt.Fprintf(b, "\nAlso: %s.\n", strings.Join(sub.Aliases, ", "))
		}
		if sub.Long != "" {
			fmt.Fprintf(b, "\n%s\n", sub.Long)
		}
		if sub.Example != "" {
			fmt.Fprintf(b, "\n```\n%s\n```\n", sub.Example)
		}
		flagsTable(b, sub.LocalFlags())
		walkDocs(b, sub)
	}
}

func flagsTable(b *bytes.Buffer, flags *pflag.FlagSet) {
	n := 0
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" || f.Name == "version" {
			return
		}
		if n++; n == 1 {
			b.WriteString("\n| flag | |\n|---|---|\n")
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		fmt.Fprintf(b, "| `%s` | %s |\n", name, strings.ReplaceAll(f.Usage, "|", "\\|"))
	})
}
