package guestagent

import (
	"context"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/attest/sevguest"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/tdxguest"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/boot"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/guest-agent/vm"
	"github.com/confidential-cloud/phala/internal/hostlink"
)

// What an agent does in a real machine and not in a container: package vm's work, in
// the order of the boot.

// startMachine prepares the system and starts the link, so that everything after it
// can be told to the host. stop ends the link; it is the last thing of a run.
func (a *Agent) startMachine(ctx context.Context) (stop func(), err error) {
	start := time.Now()
	if err := vm.Prepare(ctx, a.log); err != nil {
		return nil, err
	}
	a.settled = vm.CheckClock(ctx, a.log)
	if err := vm.DelegateCgroups(cgroupRoot); err != nil {
		return nil, err
	}
	linked, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	stop = func() { cancel(); wg.Wait() }
	a.link = hostlink.NewGuest(hostlink.Config{Open: vm.OpenLink, RunDir: a.cfg.RunDir, NoTEE: vm.Hardware("/") != "", Log: a.log})
	wg.Go(func() {
		if err := a.link.Run(linked); err != nil {
			a.log.Error("host link", "err", err)
		}
	})
	vm.WatchPower(linked, a.log, a.askStop)
	a.system = guestapi.Stage{Stage: "system", Name: "preparing the system", DurationMS: float64(time.Since(start)) / float64(time.Millisecond)}
	a.log.Info("boot stage done", "stage", "system", "number", 0, "took", time.Since(start))
	return stop, nil
}

// linkWait is how long a machine waits for its host before it goes on without it.
const linkWait = 10 * time.Second

// tellSystem is the first message to the host. A host that does not listen is no
// reason to stop, but then the seed of a new instance cannot be kept either.
func (a *Agent) tellSystem(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, linkWait)
	defer cancel()
	c, err := a.link.Dial(ctx, hostlink.HostAPI)
	if err != nil {
		a.log.Warn("the host does not answer on the link", "err", err)
		return
	}
	_ = c.Close()
	a.notify(ctx, a.system.Notify())
}

// sharedFromDisk is the machine's way to the host-shared files.
func (a *Agent) sharedFromDisk() (*boot.Shared, error) {
	if err := vm.ReadShared(a.cfg.SharedDir); err != nil {
		return nil, err
	}
	return boot.ReadShared(a.cfg.SharedDir)
}

// recorder is over the hardware where there is any, whatever the host offers; else over
// the simulated device that the driver gave.
func (a *Agent) recorder(ctx context.Context, root string) (*boot.Recorder, error) {
	if !a.cfg.Machine {
		if _, err := os.Stat(a.cfg.TEESock); err == nil {
			return a.simulatedRecorder(ctx)
		}
		c, err := tdxguest.FromEnv(os.Getenv)
		if err != nil {
			return nil, err
		}
		return boot.NewRecorder(tdxguest.New(c), a.cfg.EventDir)
	}
	hw := vm.Hardware(root)
	if hw == "" { // the link may not be up yet: nothing is asked now, and the device is a TD
		return boot.NewRecorder(simtee.NewDevice(a.cfg.TEESock), a.cfg.EventDir)
	}
	if err := vm.NeedTEE(root, hw); err != nil {
		return nil, err
	}
	if hw == vm.HardwareSNP {
		return boot.NewSNPRecorder(sevguest.New(sevguest.Linux(sevguest.Config{})), a.cfg.EventDir)
	}
	return boot.NewRecorder(tdxguest.New(tdxguest.Config{}), a.cfg.EventDir)
}

// simulatedRecorder asks the simulated device which TEE it stands for.
func (a *Agent) simulatedRecorder(ctx context.Context) (*boot.Recorder, error) {
	kind, err := simtee.Provider(ctx, a.cfg.TEESock)
	if err != nil {
		return nil, cvm.Errorf(cvm.Unavailable, "the simulated TEE does not answer: %w", err).WithReason("tee-unavailable").
			WithFix("is the simulated hardware of this host running?")
	}
	if kind == simtee.ProviderSNP {
		return boot.NewSNPRecorder(sevguest.New(simtee.NewSNPDevice(a.cfg.TEESock)), a.cfg.EventDir)
	}
	return boot.NewRecorder(simtee.NewDevice(a.cfg.TEESock), a.cfg.EventDir)
}

// startNetwork is the stage of that name. The filter is there before any card is up.
func (a *Agent) startNetwork(ctx context.Context, s *boot.State) error {
	if err := vm.Hostname(s.AppID); err != nil {
		return err
	}
	cards, err := vm.Cards()
	if err != nil {
		return err
	}
	rules := vm.AppRules(s.App, cards, guestapi.WireGuardPort)
	if vm.HasSSH() {
		rules.Local = append(rules.Local, vm.SSHPort)
	}
	if err := rules.Apply(ctx); err != nil {
		return err
	}
	n := &vm.Network{Log: a.log, ResolvConf: "/etc/resolv.conf"}
	if err := n.Start(ctx, cards); err != nil {
		return err
	}
	a.group.Go(ctx, "network", n.Run)
	guarded := make(chan error, 1)
	a.group.Go(ctx, "inside", func(ctx context.Context) error {
		return n.Guard(ctx, func(err error) { guarded <- err })
	})
	select {
	case err = <-guarded:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// taken are the networks that an app's own must not overlap.
func (a *Agent) taken() ([]netip.Prefix, error) {
	if a.link == nil { // in a container there is no card: what has the default route
		return vm.Taken(nil)
	}
	cards, err := vm.Cards()
	if err != nil {
		return nil, err
	}
	return vm.Taken(cards)
}

// startClock is the stage of that name: after it, leases and certificates count the
// time. secure_time is true unless the app says otherwise, as in the reference.
func (a *Agent) startClock(ctx context.Context, s *boot.State) error {
	if err := a.settled(ctx); err != nil {
		return err
	}
	secure := s.App.SecureTime == nil || *s.App.SecureTime
	c := &vm.Clock{Log: a.log, Servers: a.cfg.TimeServers, Dir: "/run/chrony"}
	a.group.Go(ctx, "clock", func(ctx context.Context) error { return c.Run(ctx, secure) })
	if !secure {
		return nil
	}
	return c.Wait(ctx)
}

// startSSH serves the development image's shell, with keys from the encrypted
// environment or the user's configuration. Production images have no sshd.
func (a *Agent) startSSH(ctx context.Context, s *boot.State) error {
	if !vm.HasSSH() {
		return nil
	}
	var listed string
	for _, v := range s.Env {
		if v.Key == vm.EnvAuthorizedKeys {
			listed = v.Value
		}
	}
	keys, bad := vm.AuthorizedKeys(listed, s.Shared.UserConfig)
	if bad > 0 {
		a.log.Warn("lines that are no SSH public keys are left out", "count", bad)
	}
	if len(keys) == 0 {
		return nil
	}
	a.group.Go(ctx, "ssh", func(ctx context.Context) error { return vm.ServeSSH(ctx, a.log, keys) })
	return nil
}
