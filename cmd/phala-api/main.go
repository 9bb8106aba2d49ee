// Command phala-api is the cloud API as its own process: phala-api -c api.toml.
package main

import (
	"context"
	"flag"
	"log/slog"
	"os"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/internal/run"
)

func main() {
	path := config.PathFlag(flag.CommandLine, "/etc/phala/api.toml")
	flag.Parse()
	run.Main(func(ctx context.Context) error { return start(ctx, *path) })
}

func start(ctx context.Context, path string) error {
	cfg := api.DefaultConfig()
	cfg.Log, cfg.Notice = slog.New(slog.NewTextHandler(os.Stderr, nil)), os.Stdout
	if err := config.Load(path, &cfg); err != nil {
		return err
	}
	s, err := api.New(cfg)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
