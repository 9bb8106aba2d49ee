package cli

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
)

// hostRule keeps what reaches ssh and the shell of its ProxyCommand a host name.
var hostRule = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)

// sshFlags are the flags that ssh and cp share.
type sshFlags struct {
	gateway, port   string
	timeout         int
	verbose, dryRun bool
}

func (f *sshFlags) add(c *cobra.Command) {
	s := c.Flags()
	s.StringVarP(&f.port, "port", "p", "", "gateway port (default: phala.toml's, then the gateway's, then 443)")
	s.StringVarP(&f.gateway, "gateway", "g", "", "gateway domain (default: phala.toml's, then the cloud's answer)")
	s.BoolVarP(&f.verbose, "verbose", "v", false, "show the connection's details")
	s.BoolVar(&f.dryRun, "dry-run", false, "print the command, run nothing")
}

// sshTarget is where a CVM's port 22 is reached.
type sshTarget struct{ host, port string }

// sshTarget finds it: with --gateway the id is taken as an app id and nobody is asked.
func (a *app) sshTarget(ctx context.Context, id string, f *sshFlags) (t sshTarget, err error) {
	s, err := a.session()
	if err != nil {
		return t, err
	}
	if id, err = a.cvm(s, one(id)); err != nil {
		return t, err
	}
	gateway, port := first(f.gateway, s.project.GatewayDomain), first(f.port, s.project.gatewayPort())
	app := strings.TrimPrefix(id, "app_")
	if f.gateway == "" {
		if s, err = a.loggedIn(); err != nil {
			return t, err
		}
		v, err := s.api.CVM(ctx, id)
		if err != nil {
			return t, naming(s, id, a.explain(s, err))
		}
		if v.Status != cloudapi.StatusRunning {
			return t, cvm.Errorf(cvm.Precondition, "%s is %s, not running", v.Name, v.Status).WithFix("phala cvms start " + v.Name)
		}
		if v.OS != nil && v.OS.IsDev != nil && !*v.OS.IsDev {
			a.say("%s", a.warn("the OS image of "+v.Name+" is no development image: it has no SSH server"))
		}
		app, gateway = str(v.AppID), first(gateway, str(v.Gateway.BaseDomain))
	}
	host, inDomain, err := net.SplitHostPort(gateway)
	if err != nil {
		host = gateway
	}
	t = sshTarget{app + "-22." + host, first(port, inDomain, "443")}
	if n, err := strconv.Atoi(t.port); err != nil || n < 1 || n > 65535 {
		return t, usage("%q is not a port", t.port)
	}
	if host == "" {
		return t, cvm.Errorf(cvm.Unavailable, "the cloud names no gateway for %s", id).WithFix("--gateway DOMAIN")
	}
	if !hostRule.MatchString(t.host) {
		return t, cvm.Errorf(cvm.Invalid, "%q is not a host name", t.host)
	}
	return t, nil
}

func one(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// sshOptions are those of ssh and scp. A guest draws its host key at each boot: who it
// is, the gateway's certificate says.
func (a *app) sshOptions(f *sshFlags) ([]string, error) {
	proxy, err := a.proxyCommand()
	return []string{"-o", proxy, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=" + strconv.Itoa(f.timeout)}, err
}

func (a *app) sshCmd() *cobra.Command {
	var f sshFlags
	var pipe string
	c := &cobra.Command{Use: "ssh [cvm] [-- ssh options and command]", Short: "Connect to a CVM of a development image",
		Long:    "Connect to a CVM of a development image by SSH, through the gateway (TLS around it).\nWhat stands after -- goes to ssh: options first, then a command.",
		Example: "  phala ssh my-app\n  phala ssh my-app -- -L 8080:localhost:80\n  phala ssh my-app -- ls -la /app\n  phala ssh my-app --dry-run",
		Args:    cobra.ArbitraryArgs, ValidArgsFunction: a.completing(a.cvmNames),
		RunE: func(c *cobra.Command, as []string) error {
			if pipe != "" {
				return a.pipe(c.Context(), pipe)
			}
			mine, pass := as, []string(nil)
			if n := c.ArgsLenAtDash(); n >= 0 {
				mine, pass = as[:n], as[n:]
			}
			if len(mine) > 1 {
				return usage("%q: what ssh is to get stands after --", mine[1])
			}
			opts, command, err := splitPass(pass)
			if err != nil {
				return err
			}
			t, err := a.sshTarget(c.Context(), firstOf(mine), &f)
			if err != nil {
				return err
			}
			cmd, err := a.sshOptions(&f)
			if err != nil {
				return err
			}
			cmd = append(cmd, "-p", t.port)
			if f.verbose {
				cmd = append(cmd, "-v")
			}
			cmd = append(append(cmd, opts...), "root@"+t.host)
			return a.connect("ssh", f.dryRun, append(cmd, command...))
		}}
	f.add(c)
	c.Flags().IntVarP(&f.timeout, "timeout", "t", 30, "seconds to connect in")
	c.Flags().StringVar(&pipe, pipeFlag, "", "join stdin and stdout with host:port (ssh calls this)")
	_ = c.Flags().MarkHidden(pipeFlag)
	return c
}

// sshTakesValue are ssh's options that are followed by a value.
const sshTakesValue = "BbcDEeFIiJLlmOoPpQRSWw"

// splitPass parts ssh's options from the remote command. The way to the CVM is not
// among the options that may be set.
func splitPass(pass []string) (opts, command []string, err error) {
	for i := 0; i < len(pass); i++ {
		p := pass[i]
		if !strings.HasPrefix(p, "-") || p == "-" {
			return opts, pass[i:], nil
		}
		if p == "--" {
			return opts, pass[i+1:], nil
		}
		opts = append(opts, p)
		value := p[2:]
		if len(p) == 2 && strings.Contains(sshTakesValue, p[1:]) && i+1 < len(pass) {
			i++
			value = pass[i]
			opts = append(opts, value)
		}
		if p[1] == 'o' && strings.HasPrefix(strings.ToLower(strings.TrimSpace(value)), "proxycommand") {
			return nil, nil, usage("-o ProxyCommand is how the gateway is reached, and cannot be set")
		}
	}
	return opts, nil, nil
}

func (a *app) cpCmd() *cobra.Command {
	f := sshFlags{timeout: 30}
	var identity string
	var recursive bool
	c := &cobra.Command{Use: "cp <source> <destination>", Short: "Copy files to or from a CVM of a development image",
		Long:    "Copy files by scp, through the gateway. One side is cvm:path; :path is the CVM of phala.toml.",
		Example: "  phala cp ./local.txt my-app:/root/remote.txt\n  phala cp my-app:/root/remote.txt .\n  phala cp -r ./dir :/root/dir",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, as []string) error {
			var id string
			remote := -1
			for i, p := range as {
				name, _, ok := strings.Cut(p, ":")
				if !ok || strings.ContainsAny(name, "/\\") {
					continue
				}
				if remote >= 0 {
					return usage("both sides are on a CVM: copy over this machine")
				}
				remote, id = i, name
			}
			if remote < 0 {
				return usage("neither side is on a CVM: write it as cvm:path, or :path for the one of phala.toml")
			}
			t, err := a.sshTarget(c.Context(), id, &f)
			if err != nil {
				return err
			}
			cmd, err := a.sshOptions(&f)
			if err != nil {
				return err
			}
			cmd = append(cmd, "-P", t.port)
			if identity != "" {
				cmd = append(cmd, "-i", identity)
			}
			if recursive {
				cmd = append(cmd, "-r")
			}
			if f.verbose {
				cmd = append(cmd, "-v")
			}
			_, path, _ := strings.Cut(as[remote], ":")
			as[remote] = "root@" + t.host + ":" + path
			if local := as[1-remote]; strings.HasPrefix(local, "-") {
				as[1-remote] = "./" + local // a path, not an option
			}
			return a.connect("scp", f.dryRun, append(cmd, as...))
		}}
	f.add(c)
	c.Flags().StringVarP(&identity, "identity", "i", "", "SSH identity file (private key)")
	c.Flags().BoolVarP(&recursive, "recursive", "r", false, "copy directories with what is in them")
	return c
}

// connect runs ssh or scp; its exit code becomes ours.
func (a *app) connect(tool string, dry bool, arg []string) error {
	if dry {
		words := []string{tool}
		for _, w := range arg {
			words = append(words, shellWord(w))
		}
		line := strings.Join(words, " ")
		if a.json {
			return a.printJSON(map[string]any{"command": line})
		}
		a.printf("%s\n", line)
		return nil
	}
	err := a.tool(tool, arg...)
	var exit *exitError
	if errors.As(err, &exit) && exit.code == sshFailed {
		a.say("%s", a.warn("the connection did not come about, or was lost: an SSH server runs in development images only, with your key"))
		a.say("  fix: phala deploy --dev-os (phala os-images shows which are), then phala logs --serial; -v shows what ssh does")
	}
	return err
}

// sshFailed is the exit code of ssh and scp for their own trouble.
const sshFailed = 255

// tool runs another program with our streams; its exit code becomes ours.
func (a *app) tool(name string, arg ...string) error {
	err := a.RunTool(name, arg...)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		a.reported = true // it spoke for itself
		return &exitError{exit.ExitCode(), err}
	}
	if errors.Is(err, exec.ErrNotFound) {
		return cvm.Errorf(cvm.NotFound, "%s is not installed", name).WithFix("install it; this command only drives it")
	}
	return err
}

// exitError carries another program's exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

func shellWord(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
