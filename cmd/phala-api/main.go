// Command phala-api is the cloud API as its own process: phala-api -c api.toml.
//
// phala-api -c api.toml reset-password [-second-factor] [USERNAME] prints a one-time
// password for somebody who is locked out (default: the first admin).
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/internal/run"
)

func main() {
	path := config.PathFlag(flag.CommandLine, "/etc/phala/api.toml")
	flag.Parse()
	run.Main(func(ctx context.Context) error { return start(ctx, *path, flag.Args()) })
}

func start(ctx context.Context, path string, args []string) error {
	cfg := api.DefaultConfig()
	cfg.Log, cfg.Notice = slog.New(slog.NewTextHandler(os.Stderr, nil)), os.Stdout
	if err := config.Load(path, &cfg); err != nil {
		return err
	}
	if len(args) > 0 {
		return reset(ctx, cfg, args)
	}
	s, err := api.New(cfg)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

func reset(ctx context.Context, cfg api.Config, args []string) error {
	var r api.Reset
	f := flag.NewFlagSet("reset-password", flag.ContinueOnError)
	f.BoolVar(&r.Factor, "second-factor", false, "remove the second factor too")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	if args[0] != "reset-password" || f.NArg() > 1 {
		return fmt.Errorf("%q: want nothing, or reset-password [-second-factor] [USERNAME]", args)
	}
	r.Username = f.Arg(0)
	return api.ResetPassword(ctx, cfg, r, os.Stdout)
}
