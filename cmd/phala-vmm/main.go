// Command phala-vmm runs a node's confidential VMs: `phala-vmm -c vmm.toml`.
package main

import (
	"context"
	"flag"
	"log/slog"
	"os"

	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/vmm"
)

func main() {
	path := flag.String("c", "/etc/phala/vmm.toml", "configuration file")
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
