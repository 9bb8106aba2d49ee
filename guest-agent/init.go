package guestagent

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/guest-agent/vm"
)

// InitMachine is PID 1 of a machine, started by the initramfs: it runs the agent as its
// child, collects orphans, and switches the machine off when the agent has ended. It
// does not return.
func InitMachine() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil || !vm.IsVM(string(cmdline)) {
		log.Error("this is PID 1 of a phala image's machine, and the kernel's command line is not the image's", "err", err)
		vm.PowerOff(log)
	}
	code, err := InitProcess([]string{"-machine"})
	log.Info("the guest agent has ended", "code", code, "err", err)
	vm.PowerOff(log)
}

// InitProcess is PID 1 of a container guest: it runs the agent as its child, hands
// signals on, collects every process whose parent has gone, and returns the
// agent's exit code. It does nothing else, so that it cannot fail.
//
// The agent is a child of its own because collecting "any child" and waiting for a
// certain one cannot be done by the same process.
func InitProcess(args []string) (code int, err error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGCHLD)
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	p, err := os.StartProcess(self, append([]string{self}, args...), &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Env: os.Environ()})
	if err != nil {
		return 1, fmt.Errorf("starting the agent: %w", err)
	}
	for s := range signals {
		if s != syscall.SIGCHLD {
			_ = syscall.Kill(p.Pid, s.(syscall.Signal))
			continue
		}
		if done, code := reap(p.Pid); done {
			return code, nil
		}
	}
	return 1, nil
}

// reap collects every ended child. SIGCHLDs coalesce: it goes on until none is left.
func reap(agent int) (done bool, code int) {
	for {
		var st unix.WaitStatus
		pid, err := unix.Wait4(-1, &st, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || pid <= 0:
			return done, code
		case pid == agent && st.Exited():
			done, code = true, st.ExitStatus()
		case pid == agent && st.Signaled():
			done, code = true, 128+int(st.Signal())
		}
	}
}
