// Command phala-gateway runs a gateway: phala-gateway -c gateway.toml.
package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"

	"github.com/confidential-cloud/phala/gateway"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/internal/run"
)

func main() {
	file := flag.String("c", "", "configuration file (TOML); see gateway.Config")
	debug := flag.Bool("debug", false, "log more")
	flag.Parse()
	run.Main(func(ctx context.Context) error {
		if *file == "" {
			return errors.New("-c FILE is missing")
		}
		c := gateway.Default()
		if err := config.Load(*file, &c); err != nil {
			return err
		}
		level := slog.LevelInfo
		if *debug {
			level = slog.LevelDebug
		}
		c.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
		g, err := gateway.New(c)
		if err != nil {
			return err
		}
		return g.Run(ctx)
	})
}
