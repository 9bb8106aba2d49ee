// Package cli is the phala command: one file per command or group. It talks to
// the cloud API, to the chain with the owner's wallet, and to gateways; it links
// no chain node, no ACME server and no container engine.
//
// Every command prints its result on stdout (with --json as one object,
// {"success":true,...} or {"success":false,"error":...}) and everything else,
// progress included, on stderr.
package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
)

// Exit codes, the same for every command.
const (
	ExitOK          = 0
	ExitFailed      = 1   // it failed; for verify: a required check did not pass
	ExitInvalid     = 2   // the input is wrong; nothing was changed
	ExitDenied      = 3   // not logged in, or not allowed
	ExitNotFound    = 4   // no such thing
	ExitConflict    = 5   // the present state does not allow it
	ExitUnavailable = 6   // a service does not answer; try again
	ExitInterrupted = 130 // Ctrl-C
)

// Config is what the command may touch of its process.
type Config struct {
	Args    []string // without the program's name
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Getenv  func(string) string
	Workdir string
	Version string
	Now     func() time.Time
	TTY     bool                                   // stdin and stderr are a terminal: prompts and live progress
	Secret  func(prompt string) ([]byte, error)    // reads without echo; nil without a TTY
	RunTool func(name string, arg ...string) error // runs another program with our streams
	Columns func(io.Writer) int                    // width of the terminal that a stream is, 0 for none; nil is none
}

// app is one run of the command.
type app struct {
	Config
	json    bool
	noJSON  bool
	token   string
	profile string
	cvmID   string
	apiVer  string
	// interactive: a person chooses the CVM from a list.
	interactive bool
	reported    bool // the error is on the screen already
	lines       *bufio.Reader
	screen      int // width of the terminal that --watch draws on
}

// Run executes one command and returns its exit code.
func Run(ctx context.Context, c Config) int {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	a := &app{Config: c}
	root := a.root()
	root.SetArgs(c.Args)
	root.SetIn(c.Stdin)
	root.SetOut(c.Stdout)
	root.SetErr(c.Stderr)
	a.tellDeprecated(root)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	if ctx.Err() != nil && !a.reported {
		fmt.Fprintln(c.Stderr, "interrupted; what the cloud or the chain has accepted goes on: run the command again to continue")
		return ExitInterrupted
	}
	if !a.reported {
		a.printError(err)
	}
	return exitCode(err)
}

// tellDeprecated says so on stderr; cobra would on stdout, in the midst of the result.
func (a *app) tellDeprecated(root *cobra.Command) {
	if c, _, err := root.Find(a.Args); err == nil && c.Deprecated != "" {
		a.say("%s", a.warn(c.CommandPath()+" is deprecated: "+c.Deprecated))
		c.Deprecated, c.Hidden = "", true
	}
}

func exitCode(err error) int {
	var u *usageError
	if errors.As(err, &u) {
		return ExitInvalid
	}
	var tool *exitError
	if errors.As(err, &tool) {
		return tool.code
	}
	switch cvm.CodeOf(err) {
	case cvm.Invalid, cvm.Unsupported:
		return ExitInvalid
	case cvm.Unauthenticated, cvm.Denied:
		return ExitDenied
	case cvm.NotFound:
		return ExitNotFound
	case cvm.Conflict, cvm.Precondition, cvm.Exhausted:
		return ExitConflict
	case cvm.Unavailable:
		return ExitUnavailable
	}
	return ExitFailed
}

// usageError is wrong use of a command: cobra's own errors and ours.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

const rootLong = `Deploy docker-compose files as confidential VMs, and check what runs in them.

  phala deploy -c docker-compose.yml -n hello -e SECRET=x
  phala verify https://<app>.<domain>

Exit codes: 0 ok; 1 failed (verify: a required check did not pass); 2 the input
is wrong and nothing was changed; 3 not logged in or not allowed; 4 not found;
5 the present state does not allow it; 6 a service does not answer; 130 interrupted.

Files: logins in $PHALA_CLOUD_DIR (~/.phala-cloud); project settings in ./phala.toml.
Environment: PHALA_CLOUD_API_KEY, PHALA_CLOUD_API_PREFIX, PHALA_CLOUD_DIR,
ETH_RPC_URL, PHALA_WALLET_PASSPHRASE_FILE, NO_COLOR.`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "phala", Short: "The cloud that people can check instead of trust", Long: rootLong,
		Version: a.Version, SilenceErrors: true, SilenceUsage: true,
		SuggestionsMinimumDistance: 2,
		PersistentPreRunE:          func(c *cobra.Command, _ []string) error { return a.checkGlobals(c) },
		Args:                       a.unknownCommand,
		RunE:                       func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	f := root.PersistentFlags()
	f.StringVar(&a.token, "api-token", "", "API key (or set PHALA_CLOUD_API_KEY; a flag is visible to other users of this machine)")
	f.StringVar(&a.token, "api-key", "", "the same as --api-token")
	f.BoolVarP(&a.json, "json", "j", false, "output in JSON")
	f.BoolVar(&a.noJSON, "no-json", false, "output in text")
	f.StringVar(&a.cvmID, "cvm-id", "", "CVM: name, UUID, app id or instance id")
	f.StringVar(&a.profile, "profile", "", "use another login for this command")
	f.BoolVar(&a.interactive, "interactive", false, "choose the CVM from a list")
	f.StringVar(&a.apiVer, "api-version", "", "2025-10-28 or 2026-01-21; accepted for compatibility")
	_, _ = f.MarkHidden("api-key"), f.MarkHidden("no-json")
	_, _ = f.MarkHidden("api-version"), f.MarkHidden("interactive")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w\nsee: %s --help", err, c.CommandPath())}
	})
	root.AddCommand(a.deployCmd(), a.templatesCmd(), a.cvmsCmd(), a.watchable(a.psCmd()), a.logsCmd(), a.envsCmd(), a.watchable(a.appsCmd()), a.instancesCmd(),
		a.linkCmd(), a.sshCmd(), a.cpCmd(), a.sshKeysCmd(), a.runtimeConfigCmd(), a.allowDevicesCmd(),
		a.loginCmd(), a.logoutCmd(), a.watchable(a.statusCmd()), a.whoamiCmd(), a.profilesCmd(), a.switchCmd(), a.authCmd(),
		a.verifyCmd(), a.ledgerCmd(), a.evidenceCmd(), a.collateralCmd(), a.measureCmd(), a.walletCmd(), a.trustCmd(),
		a.nodesCmd(), a.nodeCmd(), a.imageCmd(), a.volumeCmd(), a.kmsCmd(), a.instanceTypesCmd(), a.osImagesCmd(), a.watchable(a.usageCmd()), a.invoicesCmd(), a.apiCmd(),
		a.completionCmd(root), a.upCmd(), a.downCmd(), a.dockerCmd(), a.simulatorCmd(), a.selfCmd(), a.configCmd(), a.doctorCmd())
	a.completions(root)
	root.CompletionOptions.DisableDefaultCmd = true
	return root
}

func (a *app) checkGlobals(c *cobra.Command) error {
	for _, check := range []func() error{c.ValidateRequiredFlags, c.ValidateFlagGroups} {
		if err := check(); err != nil {
			return usage("%w\nsee: %s --help", err, c.CommandPath())
		}
	}
	if a.noJSON {
		a.json = false
	}
	switch a.apiVer {
	case "", "2025-10-28", "2026-01-21":
		return nil
	}
	return usage("--api-version %q is not 2025-10-28 or 2026-01-21", a.apiVer)
}

// unknownCommand suggests what was probably meant.
func (a *app) unknownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	msg := fmt.Sprintf("unknown command %q for %q", args[0], c.CommandPath())
	var meant []string
	for _, s := range c.SuggestionsFor(args[0]) {
		meant = append(meant, c.CommandPath()+" "+s)
	}
	if len(meant) == 0 {
		meant = elsewhere(c.Root(), args[0])
	}
	if len(meant) > 0 {
		msg += "\ndid you mean: " + strings.Join(meant, ", ") + "?"
	}
	return usage("%s\nsee: %s --help", msg, c.CommandPath())
}

// elsewhere finds commands of that name in other groups: resize is cvms resize.
func elsewhere(c *cobra.Command, name string) (out []string) {
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && (sub.Name() == name || sub.HasAlias(name)) {
			out = append(out, sub.CommandPath())
		}
		if len(out) < 4 {
			out = append(out, elsewhere(sub, name)...)
		}
	}
	return out
}

// group is a command that only holds others.
func (a *app) group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: a.unknownCommand, SuggestionsMinimumDistance: 2,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(subs...)
	return c
}

// args wraps cobra's argument checks so that they exit with ExitInvalid.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, as []string) error {
		if err := check(c, as); err != nil {
			return &usageError{fmt.Errorf("%w\nusage: %s", err, c.UseLine())}
		}
		return nil
	}
}

// OS is the configuration of a real process.
func OS(version string) Config {
	wd, _ := os.Getwd()
	c := Config{Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Getenv: os.Getenv, Workdir: wd, Version: version, Now: time.Now, RunTool: runTool, Columns: columns}
	c.TTY, c.Secret = terminal()
	return c
}
