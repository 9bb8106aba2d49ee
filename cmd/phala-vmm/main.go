// Command phala-vmm runs a node's confidential VMs: `phala-vmm -c vmm.toml`.
package main

import (
	"context"
	"flag"
	"log/slog"
	"os"

	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/vmm"
)

func main() {
	path := config.PathFlag(flag.CommandLine, "/etc/phala/vmm.toml")
	flag.Parse()
	run.Main(func(ctx context.Context) error {
		cfg, err := vmm.LoadConfig(*path)
		if err != nil {
			return err
		}
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
		m, err := vmm.New(cfg)
		if err != nil {
			return err
		}
		return m.Run(ctx)
	})
}
