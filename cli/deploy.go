package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/composefile"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/templates"
)

// deployFlags are the flags of deploy.
type deployFlags struct {
	name, compose, instanceType, region, image, kms, fs, disk string
	preLaunch, nodeID                                         string
	envs                                                      []string
	publicLogs, noPublicLogs, publicSys, noPublicSys          bool
	listed, noListed, devOS, noDevOS                          bool
	wait, noWait, dryRun, debug                               bool
	vcpu, memory                                              int
	uuid, kmsID, sshKey, customApp, nonce                     string
	commitFlags

	template *templates.Template // instead of a compose file
}

const deployLong = `Deploy a docker-compose file as a confidential VM, or update the one with this name.

What happens: the file is checked; the exact app-compose is built here and compared
with the cloud's; its hash is put on chain with your wallet (the app's contract is
made at the first deploy); the environment is encrypted to the app and signed by
you; the CVM boots, proves itself to the KMS and serves.`

func (a *app) deployCmd() *cobra.Command {
	var f deployFlags
	c := &cobra.Command{Use: "deploy", Short: "Deploy a new CVM, or update an existing one", Long: deployLong,
		Example: "  phala deploy -c docker-compose.yml -n hello -e SECRET=x\n  phala deploy -n hello -e .env          # the same name again: update in place\n  phala deploy -n hello --plan           # only show what would change",
		Args:    args(cobra.NoArgs),
		RunE:    func(c *cobra.Command, _ []string) error { return a.deploy(c.Context(), &f) }}
	f.add(c)
	return c
}

func (f *deployFlags) add(c *cobra.Command) {
	s := c.Flags()
	s.StringVarP(&f.name, "name", "n", "", "CVM name (default: phala.toml, then the directory's name)")
	s.StringVarP(&f.compose, "compose", "c", "", "Docker Compose file (default: docker-compose.yml)")
	s.StringVarP(&f.instanceType, "instance-type", "t", "", "instance type, e.g. tdx.small (phala instance-types)")
	s.StringVarP(&f.region, "region", "r", "", "preferred region")
	s.StringArrayVarP(&f.envs, "env", "e", nil, "environment variable KEY=VALUE, or a file of them (repeatable)")
	s.StringVar(&f.kms, "kms", "", "KMS: phala, ethereum, base, or an id")
	s.BoolVar(&f.wait, "wait", false, "wait until it serves (the default)")
	s.BoolVar(&f.noWait, "no-wait", false, "return when the cloud has accepted it")
	s.BoolVar(&f.dryRun, "plan", false, "check and show the plan, change nothing")
	s.BoolVar(&f.dryRun, "dry-run", false, "the same as --plan")
	s.StringVar(&f.disk, "disk-size", "", "disk size with unit, e.g. 50G")
	s.StringVar(&f.fs, "fs", "", "filesystem of the data disk: ext4 or zfs")
	s.StringVar(&f.image, "image", "", "OS image (phala os-images)")
	s.StringVar(&f.nodeID, "node-id", "", "node (phala nodes)")
	s.StringVar(&f.preLaunch, "pre-launch-script", "", "file with a script that runs before compose")
	s.StringVar(&f.rpcURL, "rpc-url", "", "RPC URL of the chain (default: the trust profile's)")
	s.StringVar(&f.trust, "trust", "", "trust profile (default: the login's)")
	s.BoolVar(&f.publicLogs, "public-logs", true, "anyone may read the containers' logs")
	s.BoolVar(&f.noPublicLogs, "no-public-logs", false, "only you may read the logs")
	s.BoolVar(&f.publicSys, "public-sysinfo", true, "anyone may read the system information")
	s.BoolVar(&f.noPublicSys, "no-public-sysinfo", false, "only you may read it")
	s.BoolVar(&f.listed, "listed", false, "list the CVM publicly")
	s.BoolVar(&f.devOS, "dev-os", false, "use a development OS image (with your SSH key)")
	s.StringVar(&f.sshKey, "ssh-pubkey", "", "SSH public key for a development image (default: ~/.ssh/id_ed25519.pub, id_rsa.pub)")
	s.BoolVar(&f.prepare, "prepare-only", false, "prepare an update and print its commit token; put nothing on chain")
	s.BoolVar(&f.commit, "commit", false, "commit a prepared update (with --token; no login needed)")
	s.StringVar(&f.token, "token", "", "commit token of --prepare-only")
	s.StringVar(&f.composeHash, "compose-hash", "", "compose hash of the prepared update (default: the token's)")
	s.StringVar(&f.transaction, "transaction-hash", "", "transaction that allowed it on chain, or "+alreadyRegistered)
	f.addOld(c)
}

// addOld adds flags that only old scripts of the public CLI use, and opposites that
// say the default.
func (f *deployFlags) addOld(c *cobra.Command) {
	s := c.Flags()
	s.BoolVar(&f.noListed, "no-listed", false, "do not list it (the default)")
	s.BoolVar(&f.noDevOS, "no-dev-os", false, "no development image")
	s.StringVar(&f.privateKey, "private-key", "", "")
	s.StringVar(&f.uuid, "uuid", "", "")
	s.IntVar(&f.vcpu, "vcpu", 0, "")
	s.IntVar(&f.memory, "memory", 0, "")
	s.StringArrayVar(&f.envs, "env-file", nil, "")
	s.StringVar(&f.kmsID, "kms-id", "", "")
	s.StringVar(&f.customApp, "custom-app-id", "", "")
	s.StringVar(&f.nonce, "nonce", "", "")
	s.BoolVar(&f.debug, "debug", false, "")
	for _, h := range []string{"private-key", "wait", "no-listed", "no-dev-os", "uuid", "vcpu", "memory", "env-file", "kms-id", "custom-app-id", "nonce", "debug", "dry-run"} {
		_ = s.MarkHidden(h)
	}
}

// job is one deploy as far as it has come.
type job struct {
	f       *deployFlags
	s       *session
	steps   *steps
	name    string
	ref     string // an existing CVM is meant, by any of its ids
	text    string // the compose file
	file    *composefile.File
	env     []keys.EnvVar
	envSet  bool // -e or an env_file was given: the environment is replaced
	script  string
	diskGB  int
	nodeID  int
	warning []string
}

func (a *app) deploy(ctx context.Context, f *deployFlags) error {
	if err := f.check(false); err != nil {
		return err
	}
	if f.commit {
		return a.commitPrepared(ctx, f)
	}
	j, err := a.readInputs(f)
	if err != nil {
		return err
	}
	if j.s.api.Key == "" {
		_, err := a.loggedIn()
		return err
	}
	for _, w := range j.warning {
		a.say("%s", a.warn(w))
	}
	j.steps = a.steps()
	err = a.explain(j.s, a.runDeploy(ctx, j))
	if err != nil {
		j.steps.fail()
	}
	return err
}

// readInputs reads and checks everything local, before anything is asked of anyone.
func (a *app) readInputs(f *deployFlags) (*job, error) {
	if f.customApp != "" || f.nonce != "" {
		return nil, cvm.Errorf(cvm.Unsupported, "--custom-app-id and --nonce are for a KMS without a chain; here the app's contract is its id")
	}
	s, err := a.session()
	if err != nil {
		return nil, err
	}
	j := &job{f: f, s: s}
	if err := a.readCompose(j); err != nil {
		return nil, err
	}
	if j.ref = a.existing(f, s); j.ref != "" {
		j.name = j.ref // until the cloud tells its name
	} else if j.name, err = a.cvmName(f, s); err != nil {
		return nil, err
	}
	if err := a.deployEnv(j); err != nil {
		return nil, err
	}
	if j.diskGB, err = diskGB(f.disk); err != nil {
		return nil, err
	}
	if f.nodeID != "" {
		if j.nodeID, err = strconv.Atoi(f.nodeID); err != nil || j.nodeID < 1 {
			return nil, usage("--node-id %q is not a number (phala nodes)", f.nodeID)
		}
	}
	if f.fs != "" && f.fs != "ext4" && f.fs != "zfs" {
		return nil, usage("--fs %q is neither ext4 nor zfs", f.fs)
	}
	if f.preLaunch != "" {
		b, err := os.ReadFile(a.path(f.preLaunch))
		if err != nil {
			return nil, cvm.Errorf(cvm.Invalid, "--pre-launch-script: %w", err)
		}
		j.script = string(b)
	}
	if len(j.text)+len(j.script) > composefile.MaxSize {
		return nil, cvm.Errorf(cvm.Invalid, "compose file and pre-launch script have %d bytes together, the limit is %d", len(j.text)+len(j.script), composefile.MaxSize)
	}
	return j, nil
}

// existing is the id of a CVM that is to be updated, by a flag or by phala.toml; a
// name in phala.toml may also be that of one to make.
func (a *app) existing(f *deployFlags, s *session) string {
	if f.name != "" {
		return ""
	}
	p := s.project
	return first(a.cvmID, f.uuid, p.ID, p.UUID, p.AppID, p.InstanceID)
}

// deployEnv reads the environment; a development image gets the SSH key through it.
func (a *app) deployEnv(j *job) (err error) {
	envs := j.f.envs
	if len(envs) == 0 && j.s.project.EnvFile != "" && j.f.template == nil {
		envs = []string{j.s.project.EnvFile}
	}
	if j.f.devOS || j.f.sshKey != "" {
		key, _, err := a.publicKey(j.f.sshKey)
		if err != nil {
			return err
		}
		envs = append(slices.Clone(envs), "DSTACK_AUTHORIZED_KEYS="+key)
	}
	j.envSet = len(envs) > 0
	j.env, err = a.readEnv(envs)
	return err
}

// readCompose reads and lints the compose file.
func (a *app) readCompose(j *job) error {
	path := first(j.f.compose, j.s.project.ComposeFile)
	if j.f.template != nil {
		return a.lintCompose(j, "template "+j.f.template.ID, []byte(j.f.template.Compose))
	}
	if path == "" {
		for _, p := range []string{"docker-compose.yml", "docker-compose.yaml", "compose.yaml", "compose.yml"} {
			if path == "" && exists(a.path(p)) {
				path = p
			}
		}
	}
	if path == "" {
		return cvm.Errorf(cvm.Invalid, "there is no docker-compose.yml here").WithFix("name the file: phala deploy -c path/to/docker-compose.yml")
	}
	b, err := os.ReadFile(a.path(path))
	if errors.Is(err, fs.ErrNotExist) {
		return cvm.Errorf(cvm.Invalid, "there is no compose file %s", path).WithFix("name the file: -c path/to/docker-compose.yml")
	} else if err != nil {
		return cvm.Errorf(cvm.Invalid, "reading the compose file: %w", err)
	}
	return a.lintCompose(j, path, b)
}

func (a *app) lintCompose(j *job, path string, b []byte) (err error) {
	if j.file, err = composefile.Parse(b); err == nil {
		err = j.file.Check()
	}
	if err != nil {
		var ce *cvm.Error
		if errors.As(err, &ce) {
			ce.Message = path + ": " + strings.TrimPrefix(ce.Message, "compose file: ")
		}
		return err
	}
	for _, w := range j.file.Lint() {
		text := path + ": " + w.String()
		if w.Fix != "" {
			text += "\n  fix: " + w.Fix
		}
		j.warning = append(j.warning, text)
	}
	j.text = string(b)
	return nil
}

// nameRule is the public contract's; a double dash is checked apart.
var nameRule = regexp.MustCompile(`^[a-zA-Z]([a-zA-Z0-9-]*[a-zA-Z0-9])?$`)

const nameFix = "-n NAME: 5 to 63 characters, letters, digits and single dashes, beginning with a letter"

func (a *app) cvmName(f *deployFlags, s *session) (string, error) {
	name := first(f.name, s.project.Name)
	what := "name"
	if name == "" {
		name, what = filepath.Base(a.Workdir), "the directory's name"
	}
	switch {
	case len(name) < 5:
		return "", cvm.Errorf(cvm.Invalid, "%s %q is too short: it has %d characters, the minimum is 5", what, name, len(name)).WithFix(nameFix)
	case len(name) > 63:
		return "", cvm.Errorf(cvm.Invalid, "%s %q is too long: it has %d characters, the maximum is 63", what, name, len(name)).WithFix(nameFix)
	case !nameRule.MatchString(name) || strings.Contains(name, "--"):
		return "", cvm.Errorf(cvm.Invalid, "%s %q cannot name a CVM", what, name).WithFix(nameFix)
	}
	return name, nil
}

var diskRule = regexp.MustCompile(`^(\d{1,7})\s*(?:G|GB|GiB|g|gb)?$`)

func diskGB(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	m := diskRule.FindStringSubmatch(s)
	if m == nil {
		return 0, usage("--disk-size %q: want a number of gigabytes, like 50G", s)
	}
	return strconv.Atoi(m[1])
}
