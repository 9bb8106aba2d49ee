// Command phala-guest-agent is the first program of a confidential VM. As process 1
// it runs itself as a child and collects orphans; "init", the initramfs's word, says
// that this is a machine and not a container.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"

	guestagent "github.com/confidential-cloud/phala/guest-agent"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/internal/run"
)

func main() {
	if os.Getpid() == 1 {
		if len(os.Args) == 2 && os.Args[1] == "init" {
			guestagent.InitMachine()
		}
		code, err := guestagent.InitProcess(os.Args[1:])
		if err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
		}
		os.Exit(code)
	}
	file := config.PathFlag(flag.CommandLine, "") // "": the guest image's paths
	machine := flag.Bool("machine", false, "take the duties of a real machine (set by PID 1 of the image)")
	dir := flag.String("simulator", "", "serve the fixture files of this directory and sockets beside them, without a TEE (development only)")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	run.Main(func(ctx context.Context) error {
		if *dir != "" {
			return guestagent.Simulate(ctx, *dir, log)
		}
		c := guestagent.Default()
		if *file != "" {
			if err := config.Load(*file, &c); err != nil {
				return err
			}
		}
		c.Log, c.Machine = log, c.Machine || *machine
		a, err := guestagent.New(c)
		if err != nil {
			return err
		}
		return a.Run(ctx)
	})
}
