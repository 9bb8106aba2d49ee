package devcloud

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// stopTimeout bounds the stop of one part; the VMM stops every guest in it.
const stopTimeout = 60 * time.Second

const banner = `
  ┌──────────────────────────────────────────────────────────────────────┐
  │  SIMULATED TEE. This machine proves the path, not the hardware: the  │
  │  guests are containers and their quotes come from a software root.   │
  └──────────────────────────────────────────────────────────────────────┘`

// Up starts the cloud, runs the main job once (deploys hello, fetches it, verifies
// it), says what to do next, and stays until ctx ends.
func Up(ctx context.Context, cfg Config) error {
	p := NewProgress(cfg.Out)
	p.Say("%s", banner)
	p.Title("Starting the cloud (state: %s)", cfg.StateDir)
	c, err := Start(ctx, cfg)
	if err != nil {
		return err
	}
	err = c.mainJob(ctx)
	if err == nil {
		c.whatNext()
		err = c.Wait(ctx)
	}
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	c.out.Title("Stopping (apps and keys stay in %s)", cfg.StateDir)
	return errors.Join(err, c.Stop())
}

// mainJob does what a person would do next, with the same program.
func (c *Cloud) mainJob(ctx context.Context) error {
	c.out.Title("The main job: hello")
	if err := c.out.Step("hello's image, built from this repository", func(note func(string, ...any)) error { return c.prepareHello(ctx, note) }); err != nil {
		return err
	}
	if err := c.phala(ctx, "deploy", "-c", c.HelloCompose(), "-n", "hello", "-t", "tdx.small", "--wait"); err != nil {
		return fmt.Errorf("deploying hello: %w", err)
	}
	url, err := c.appURL(ctx, "hello")
	if err != nil {
		return err
	}
	c.helloURL = url
	c.out.Title("Fetching %s through the gateway", url)
	if err := c.curl(ctx, url); err != nil {
		return fmt.Errorf("fetching %s: %w", url, err)
	}
	c.out.Title("Verifying it")
	if err := c.phala(ctx, "verify", url, "--all"); err != nil {
		return fmt.Errorf("verifying %s: %w", url, err)
	}
	c.out.Say("\nFrom start to the verified page: %s", c.out.Elapsed().Round(time.Second))
	return nil
}

// phala runs the CLI with this cloud's profile.
func (c *Cloud) phala(ctx context.Context, args ...string) error {
	cmd := c.phalaCmd(ctx, args...)
	cmd.Stdout, cmd.Stderr = c.cfg.Out, c.cfg.Out
	return cmd.Run()
}

func (c *Cloud) phalaCmd(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.cfg.BinDir, "phala"), append(args, "--profile", ProfileName)...)
	cmd.Env = append(os.Environ(), "PHALA_DISABLE_UPDATE_CHECK=1")
	if c.cfg.CLIDir != "" {
		cmd.Env = append(cmd.Env, "PHALA_CLOUD_DIR="+c.cfg.CLIDir)
	}
	return cmd
}

func (c *Cloud) whatNext() {
	dir := c.state.Dir
	rows := [][2]string{
		{"deploy your own", "phala deploy -c docker-compose.yml -n myapp -e SECRET=x"},
		{"see it", "phala cvms list    phala ps --cvm-id hello    phala logs --cvm-id hello -f"},
		{"verify it", "phala verify hello --html report.html"},
		{"curl it", "curl --cacert " + c.CACert() + " " + c.helloURL},
		{"trust the CA", "phala trust install"},
		{"verify elsewhere", "phala verify --trust " + c.TrustPath() + " " + c.helloURL},
		{"stop", "Ctrl-C here, or make down; the next make up continues"},
		{"forget everything", "make clean-state"},
	}
	c.out.Title("What next (in another terminal: export PATH=%s:$PATH)", c.cfg.BinDir)
	for _, r := range rows {
		c.out.Say("  %-18s %s", r[0], r[1])
	}
	c.out.Say("\n  state %s   logs %s\n  wallet %s   API %s   chain %s (id %d)", dir, filepath.Join(dir, "logs"),
		c.WalletPath(), c.APIURL(), c.rpcURL(), c.cfg.ChainID)
	c.out.Say("\nRunning. Ctrl-C stops it.")
}

func (c *Cloud) curl(ctx context.Context, url string) error {
	cmd := exec.CommandContext(ctx, "curl", "-fsS", "--max-time", "20", "--cacert", c.CACert(), url)
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	if len(text) > 600 {
		text = text[:600] + " …"
	}
	c.out.Say("%s", text)
	return nil
}
