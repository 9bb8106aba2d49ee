// Command phala-gateway runs a gateway: phala-gateway -c gateway.toml.
package main

import (
	"context"
	"flag"
	"log/slog"
	"os"

	"github.com/confidential-cloud/phala/gateway"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/internal/run"
)

func main() {
	file := config.PathFlag(flag.CommandLine, "/etc/phala/gateway.toml")
	debug := flag.Bool("debug", false, "log more")
	flag.Parse()
	run.Main(func(ctx context.Context) error {
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
