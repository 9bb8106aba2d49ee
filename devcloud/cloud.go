package devcloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/devcloud/chain"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/internal/registry"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/internal/wallet"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/vmm/image"
)

// Cloud is a running one-machine cloud.
type Cloud struct {
	cfg   Config
	state *State
	log   *slog.Logger
	group *run.Group
	out   *Progress

	closers   []io.Closer
	facts     facts
	listen    string // this host's address for guests, and how they name it
	guestHost string
	hw        *simtee.Hardware
	image     *image.Image
	wallet    *wallet.Wallet
	chain     *chain.Chain
	contracts ethereum.Contracts
	meta      kmsapi.Meta
	members   []string
	registry  *registry.Registry
	helloURL  string
}

// Start brings everything up, in order, and returns when the cloud serves. Stop it
// with Stop. On an error everything that was started is stopped again.
func Start(ctx context.Context, cfg Config) (*Cloud, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	cloud := &Cloud{cfg: cfg, out: NewProgress(cfg.Out)}
	if err := cloud.begin(ctx); err != nil {
		return nil, errors.Join(err, cloud.Stop())
	}
	return cloud, nil
}

func (c *Cloud) begin(ctx context.Context) (err error) {
	cfg := c.cfg
	if c.state, err = OpenState(cfg.StateDir); err != nil { // first: "already running" says more than "port taken"
		return err
	}
	if err := c.out.Step("looking at this machine", func(func(string, ...any)) error { return preflight(ctx, cfg) }); err != nil {
		return err
	}
	if err := c.prepare(); err != nil {
		return err
	}
	for _, s := range []struct {
		name string
		fn   func(ctx context.Context, note func(string, ...any)) error
	}{
		{"guest image, chain, simulated TEE", c.foundation},
		{"policy on chain: this image, these KMS members, this device", c.policy},
		{"KMS: " + fmt.Sprint(cfg.Members) + " members", c.startKMS},
		{"KMS keys on chain", c.registerKMS},
		{"gateway as an app on chain", c.registerGateway},
		{"registry", c.startRegistry},
		{"VMM", noNotes(c.startVMM)},
		{"gateway, booted as its app", noNotes(c.startGateway)},
		{"trust profile", noNotes(c.writeTrust)},
		{"cloud API", noNotes(c.startAPI)},
		{"CLI profile", c.writeProfile},
	} {
		if err := c.out.Step(s.name, func(note func(string, ...any)) error { return s.fn(ctx, note) }); err != nil {
			return err
		}
	}
	return nil
}

func noNotes(fn func(context.Context) error) func(context.Context, func(string, ...any)) error {
	return func(ctx context.Context, _ func(string, ...any)) error { return fn(ctx) }
}

func (c *Cloud) prepare() error {
	if err := mkdirs(c.state.Path("logs"), c.state.Path("config"), c.state.Path("run"), c.state.Path("wallet"),
		c.state.Path("ca"), c.cfg.RunDir, filepath.Join(c.cfg.RunDir, "vm")); err != nil {
		return err
	}
	if c.log = c.cfg.Log; c.log == nil {
		l, err := c.logger("devcloud")
		if err != nil {
			return err
		}
		c.log = l
	}
	c.group = &run.Group{Log: c.log, StopTimeout: stopTimeout}
	if _, err := c.state.ReadJSON("facts.json", &c.facts); err != nil {
		return err
	}
	if c.facts.Driver == "" && c.facts.KMSRoot != "" {
		c.facts.Driver = DriverContainer // a state of before there was a choice
	}
	if c.facts.Driver != "" && c.facts.Driver != c.cfg.Driver {
		return fmt.Errorf("the guests of %s run by the driver %s: use --driver %s, or another state directory (--state)", c.cfg.StateDir, c.facts.Driver, c.facts.Driver)
	}
	c.facts.Network, c.facts.Driver = c.cfg.Network, c.cfg.Driver
	return c.state.WriteJSON("facts.json", c.facts)
}

// Wait returns when ctx ends (nil) or a part fails.
func (c *Cloud) Wait(ctx context.Context) error { return c.group.Wait(ctx) }

// Stop stops everything in reverse order. The state stays.
func (c *Cloud) Stop() error {
	var err error
	if c.group != nil {
		err = c.group.Stop()
	}
	err = errors.Join(err, closeAll(c.closers))
	c.closers = nil
	if c.state != nil {
		c.state.Close()
		os.RemoveAll(c.cfg.RunDir) // sockets only
	}
	return err
}
