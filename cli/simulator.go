package cli

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/profile"
)

// The simulator is the guest agent with fixtures instead of a TEE. It runs by itself
// until `simulator stop`. Who runs it holds a lock on its file, so that a number of a
// process that is gone is never taken for it.
const (
	guestAgent     = "phala-guest-agent"
	simulatorStart = 20 * time.Second
)

// simulator is where one is kept.
type simulator struct{ dir string }

func (a *app) simulator() (simulator, error) {
	dir, err := profile.Dir(a.Getenv)
	return simulator{filepath.Join(dir, "simulator")}, err
}

func (s simulator) pidFile() string           { return filepath.Join(s.dir, "simulator.pid") }
func (s simulator) socket(name string) string { return filepath.Join(s.dir, name) }

// lock takes the lock; busy means that a simulator runs, as the number in the file.
func (s simulator) lock() (f *os.File, busy bool, err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, false, err
	}
	f, err = os.OpenFile(s.pidFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return f, true, nil
	}
	return f, false, err
}

func (a *app) simulatorCmd() *cobra.Command {
	return a.group("simulator", "A guest API without a TEE, for developing apps", a.simulatorStartCmd(), a.simulatorStopCmd(), a.simulatorStatusCmd())
}

func (a *app) simulatorStartCmd() *cobra.Command {
	var port int
	var verbose bool
	c := &cobra.Command{Use: "start", Short: "Serve the guest API on sockets of this machine", Args: args(cobra.NoArgs),
		Long: "Serve what a CVM's containers find at /var/run/dstack.sock, with made-up keys and quotes\nthat no verifier accepts. It runs until phala simulator stop.",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.simulator()
			if err != nil {
				return err
			}
			f, busy, err := s.lock()
			if err != nil {
				return err
			}
			defer f.Close()
			if busy {
				a.say("the simulator runs already")
				return a.showSimulator(s, true)
			}
			if err := a.startSimulator(c, s, f); err != nil {
				return err
			}
			return a.showSimulator(s, true)
		}}
	c.Flags().IntVarP(&port, "port", "p", 8090, "accepted for compatibility: it serves unix sockets")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "accepted for compatibility: its log is a file")
	_, _ = c.Flags().MarkHidden("port"), c.Flags().MarkHidden("verbose")
	return c
}

// startSimulator starts the guest agent, which inherits the lock, and waits until it
// answers.
func (a *app) startSimulator(c *cobra.Command, s simulator, lock *os.File) error {
	agent, err := a.beside(guestAgent)
	if err != nil {
		return err
	}
	logPath := filepath.Join(s.dir, "simulator.log")
	out, err := os.OpenFile(logPath, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(agent, "-simulator", s.dir) //nolint:noctx // it outlives this command
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = out, out, []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return cvm.Errorf(cvm.Internal, "starting %s: %w", guestAgent, err)
	}
	if err = lock.Truncate(0); err == nil {
		_, err = lock.WriteAt([]byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		return err
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	end := time.NewTimer(simulatorStart)
	defer end.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	d := guestapi.NewDstack(s.socket("dstack.sock"))
	for {
		if _, err := d.Info(c.Context()); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case err := <-gone:
			return cvm.Errorf(cvm.Internal, "the simulator ended: %v", err).WithFix("its log: " + logPath)
		case <-end.C:
			_ = cmd.Process.Kill()
			return cvm.Errorf(cvm.Unavailable, "the simulator does not answer").WithFix("its log: " + logPath)
		case <-c.Context().Done():
			_ = cmd.Process.Kill()
			return c.Context().Err()
		}
	}
}

func (a *app) showSimulator(s simulator, running bool) error {
	if a.json {
		return a.printJSON(map[string]any{"running": running, "socket": s.socket("dstack.sock"), "tappd_socket": s.socket("tappd.sock"), "simulated": true})
	}
	if !running {
		a.say("the simulator does not run (phala simulator start)")
		return nil
	}
	a.say("%s", a.warn("SIMULATED: no TEE; no verifier accepts its quotes"))
	a.printf("export DSTACK_SIMULATOR_ENDPOINT=%s\nexport TAPPD_SIMULATOR_ENDPOINT=%s\n", shellWord(s.socket("dstack.sock")), shellWord(s.socket("tappd.sock")))
	return nil
}

func (a *app) simulatorStatusCmd() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Tell whether it runs", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			s, err := a.simulator()
			if err != nil {
				return err
			}
			f, busy, err := s.lock()
			if err != nil {
				return err
			}
			defer f.Close()
			return a.showSimulator(s, busy)
		}}
}

func (a *app) simulatorStopCmd() *cobra.Command {
	return &cobra.Command{Use: "stop", Short: "Stop it", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			s, err := a.simulator()
			if err != nil {
				return err
			}
			f, busy, err := s.lock()
			if err != nil {
				return err
			}
			defer f.Close()
			if !busy {
				return a.done(map[string]any{"stopped": false}, "the simulator does not run")
			}
			b, err := os.ReadFile(s.pidFile())
			if err != nil {
				return err
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
			if err != nil || pid < 2 {
				return cvm.Errorf(cvm.Conflict, "%s does not say which process it is", s.pidFile())
			}
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				return cvm.Errorf(cvm.Internal, "stopping process %d: %w", pid, err)
			}
			if err := untilFree(f); err != nil {
				return err
			}
			for _, n := range []string{"dstack.sock", "tappd.sock", "external.sock"} {
				if err := os.Remove(s.socket(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			return a.done(map[string]any{"stopped": true}, "stopped")
		}}
}

// untilFree waits for the lock: it is free when the process is gone.
func untilFree(f *os.File) error {
	end := time.NewTimer(simulatorStart)
	defer end.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		select {
		case <-tick.C:
		case <-end.C:
			return cvm.Errorf(cvm.Unavailable, "the simulator does not end")
		}
	}
}
