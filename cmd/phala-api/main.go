// Command phala-api is the cloud API as its own process: phala-api [config.toml].
package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/internal/run"
)

func main() { run.Main(start) }

func start(ctx context.Context) error {
	path := "/etc/phala/api.toml"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	cfg := api.DefaultConfig()
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := config.Load(path, &cfg); err != nil {
		return err
	}
	s, err := api.New(cfg)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
