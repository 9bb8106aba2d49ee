package devcloud

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/vmm/container"
	"github.com/confidential-cloud/phala/vmm/qemu"
)

// Main is the command line of phala-devcloud.
func Main(ctx context.Context) error {
	cfg, err := Default()
	if err != nil {
		return err
	}
	cfg.Out = os.Stdout
	if exe, err := os.Executable(); err == nil {
		cfg.BinDir = filepath.Dir(exe)
	}
	root := &cobra.Command{
		Use: "phala-devcloud", Short: "The whole confidential cloud on one machine (simulated TEE, for development)",
		SilenceUsage: true, SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().StringVar(&cfg.StateDir, "state", cfg.StateDir, "state directory (also $PHALA_STATE)")
	root.AddCommand(upCommand(&cfg), downCommand(&cfg), cleanCommand(&cfg), statusCommand(&cfg))
	return root.ExecuteContext(ctx)
}

func upCommand(cfg *Config) *cobra.Command {
	var file string
	var background bool
	var base int
	cmd := &cobra.Command{
		Use: "up", Short: "start the cloud, deploy hello, verify it, stay until Ctrl-C", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if base != 0 {
				cfg.Ports = PortsFrom(base)
			}
			cfg.RunDir = defaultRunDir(cfg.StateDir)
			if file != "" {
				if err := config.Load(file, cfg); err != nil {
					return err
				}
			}
			if cfg.Source == "" {
				cfg.Source = findSource()
			}
			if err := cfg.Validate(); err != nil {
				return err
			}
			if background {
				return detach(cmd.Context(), *cfg)
			}
			return Up(cmd.Context(), *cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Source, "source", "", "checkout of the repository (default: found from here upwards)")
	f.StringVar(&file, "config", "", "TOML file that changes ports, domain, members, ...")
	f.IntVar(&base, "port-base", 0, "first of the 70 ports that are used (default 8700)")
	f.BoolVar(&cfg.Processes, "processes", false, "every service as a process of its own")
	f.DurationVar((*time.Duration)(&cfg.RestartDelay), "restart-delay", time.Duration(cfg.RestartDelay), "how long a process that ended stays down (with --processes)")
	f.BoolVarP(&background, "background", "d", false, "return when it serves; stop it with down")
	f.StringVar(&cfg.CLIDir, "cli-dir", "", "where the CLI profile goes (default ~/.phala-cloud)")
	f.StringVar(&cfg.Driver, "driver", cfg.Driver, "what runs the guests: container, or qemu (virtual machines)")
	f.StringVar(&cfg.Simulate, "simulate", cfg.Simulate, "TEE that guests of the container driver get, simulated: tdx or snp")
	f.StringVar(&cfg.Network, "network", cfg.Network, "docker network of the guests")
	f.StringVar(&cfg.Subnet, "subnet", cfg.Subnet, "its addresses")
	f.StringVar(&cfg.BaseDomain, "domain", cfg.BaseDomain, "base domain of the gateway")
	return cmd
}

// findSource looks for the repository from the working directory and the program upwards.
func findSource() string {
	starts := []string{}
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	if exe, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(exe))
	}
	for _, s := range starts {
		for d := s; d != filepath.Dir(d); d = filepath.Dir(d) {
			if _, err := os.Stat(filepath.Join(d, "os", "build.sh")); err == nil {
				return d
			}
		}
	}
	return ""
}

// detach starts the same program in a session of its own and shows its output
// until the cloud serves or fails.
func detach(ctx context.Context, cfg Config) error {
	if pid, err := Running(cfg.StateDir); err != nil {
		return err
	} else if pid != 0 {
		return &RunningError{Dir: cfg.StateDir, PID: pid}
	}
	if err := mkdirs(filepath.Join(cfg.StateDir, "logs")); err != nil {
		return err
	}
	logPath := filepath.Join(cfg.StateDir, "logs", "up.log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	var args []string
	for _, a := range os.Args[1:] {
		if a != "-d" && a != "--background" {
			args = append(args, a)
		}
	}
	cmd := exec.Command(exe, args...) //nolint:noctx // it outlives this process
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	return follow(ctx, logPath, done)
}

// follow copies the log until it says that the cloud runs.
func follow(ctx context.Context, path string, done <-chan error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	var partial string
	for {
		line, err := r.ReadString('\n')
		partial += line
		if err == nil {
			fmt.Print(partial)
			if strings.HasPrefix(partial, "Running.") {
				fmt.Printf("In the background; its output goes to %s\n", path)
				return nil
			}
			partial = ""
			continue
		}
		select {
		case err := <-done:
			rest, _ := r.ReadString(0)
			fmt.Print(partial + rest)
			return fmt.Errorf("it stopped: %w (log: %s)", errors.Join(err), path)
		case <-ctx.Done():
			return fmt.Errorf("still starting in the background (log: %s; stop it with `make down`)", path)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func downCommand(cfg *Config) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "stop a running cloud; its state stays", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return down(cmd.Context(), cfg.StateDir) },
	}
}

func down(ctx context.Context, dir string) error {
	pid, err := Running(dir)
	if err != nil {
		return err
	}
	if pid == 0 {
		fmt.Printf("No cloud is running on %s.\n", dir)
		return nil
	}
	fmt.Printf("Stopping process %d …\n", pid)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping process %d: %w", pid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		if now, err := Running(dir); err != nil {
			return err
		} else if now != pid && gone(pid) {
			fmt.Printf("Stopped. Apps and keys stay in %s; make up continues.\n", dir)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d has not stopped yet (log: %s)", pid, filepath.Join(dir, "logs", "up.log"))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// gone: the process executes nothing any more (one that only waits to be reaped has
// no program). It gives up its state a moment before it ends.
func gone(pid int) bool {
	_, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err != nil
}

func cleanCommand(cfg *Config) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "clean", Short: "forget everything: apps, keys, chain, volumes (asks first)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if pid, err := Running(cfg.StateDir); err != nil {
				return err
			} else if pid != 0 {
				return fmt.Errorf("a cloud is running on %s (process %d): stop it first with `make down`", cfg.StateDir, pid)
			}
			if !yes {
				fmt.Printf("This deletes %s and the guests' volumes: every app, key and ledger in it, for good. Continue? [y/N] ", cfg.StateDir)
				line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
				if a := strings.ToLower(strings.TrimSpace(line)); a != "y" && a != "yes" {
					return errors.New("nothing was deleted (answer y, or give --yes)")
				}
			}
			if _, err := os.Stat(filepath.Join(cfg.StateDir, "state.json")); errors.Is(err, os.ErrNotExist) {
				fmt.Printf("There is no cloud in %s.\n", cfg.StateDir)
				return nil
			}
			return Clean(cmd.Context(), *cfg)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// Clean removes the guests of this state with their volumes, then the directory.
func Clean(ctx context.Context, cfg Config) error {
	ids, err := recordedVMs(cfg.StateDir)
	if err != nil {
		return err
	}
	var f facts
	if _, err := (&State{Dir: cfg.StateDir}).ReadJSON("facts.json", &f); err != nil {
		return err
	}
	if f.Network != "" {
		cfg.Network = f.Network // this state's, not another cloud's
	}
	if err := purge(ctx, cfg, f, ids); err != nil {
		return fmt.Errorf("removing the guests: %w", err)
	}
	if err := os.RemoveAll(cfg.StateDir); err != nil {
		return err
	}
	os.RemoveAll(defaultRunDir(cfg.StateDir))
	fmt.Printf("Forgotten: %s and %d guests.\n", cfg.StateDir, len(ids))
	return nil
}

// purge removes machines that no VMM runs any more, with their disks.
func purge(ctx context.Context, cfg Config, f facts, ids []string) error {
	if f.Driver != DriverQEMU {
		return container.Purge(ctx, guestNetwork(cfg), "", ids)
	}
	d, err := qemu.New(qemu.Config{Options: qemuOptions(), Dir: filepath.Join(cfg.StateDir, "vmm", "machines"), TEE: simtee.NewControl(filepath.Join(cfg.RunDir, "simtee.sock"))})
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := d.Remove(ctx, id, false); err != nil {
			return err
		}
	}
	return nil
}

// recordedVMs lists the ids of the machines that the VMM knows.
func recordedVMs(dir string) (ids []string, err error) {
	entries, err := os.ReadDir(filepath.Join(dir, "vmm", "vms"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, err
}

func statusCommand(cfg *Config) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "whether it runs, and where its state is", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			pid, err := Running(cfg.StateDir)
			switch {
			case err != nil:
				return err
			case pid != 0:
				fmt.Printf("running, process %d, state %s\n", pid, cfg.StateDir)
			default:
				fmt.Printf("not running, state %s\n", cfg.StateDir)
			}
			return nil
		},
	}
}
