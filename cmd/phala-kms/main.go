// Command phala-kms runs one KMS member: `phala-kms -c kms.toml`.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/kms"
)

func main() {
	path := config.PathFlag(flag.CommandLine, "/etc/phala/kms.toml")
	expect := flag.Bool("expected-mr", false, "print the mr_aggregated to allow for this config's members, and exit")
	flag.Parse()
	run.Main(func(ctx context.Context) error { return serve(ctx, *path, *expect) })
}

func serve(ctx context.Context, path string, expect bool) error {
	c := kms.DefaultFile()
	if err := config.Load(path, &c); err != nil {
		return err
	}
	if expect {
		mr, err := kms.ExpectedMR(c.KMS.VMConfig)
		fmt.Printf("0x%x\n", mr)
		return err
	}
	c.KMS.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	var err error
	if c.KMS.Authority, err = authority(ctx, c); err != nil {
		return fmt.Errorf("governance: %w", err)
	}
	m, err := kms.New(c.KMS)
	if err != nil {
		return err
	}
	return m.Run(ctx)
}
