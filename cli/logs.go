package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"
)

func (a *app) logsCmd() *cobra.Command { return a.logsOf("logs [container]", "Fetch logs from a CVM") }

// logsOf is `phala logs [container]` and `phala cvms logs [cvm]`.
func (a *app) logsOf(use, short string) *cobra.Command {
	var serial, stderr, follow, stamps bool
	var tail int
	var since, until, container string
	ofCVM := use == "logs [cvm]"
	c := &cobra.Command{Use: use, Short: short, Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			if a.json {
				return usage("logs are text: leave --json out")
			}
			var cvmArg []string
			if ofCVM {
				cvmArg = as
			} else if len(as) == 1 {
				container = as[0]
			}
			q := url.Values{}
			set := func(on bool, k, v string) {
				if on {
					q.Set(k, v)
				}
			}
			set(tail > 0, "tail", fmt.Sprint(tail))
			set(follow, "follow", "true")
			set(stamps, "timestamps", "true")
			set(stderr, "stderr", "true")
			set(since != "", "since", since)
			set(until != "", "until", until)
			return a.withCVM(c.Context(), cvmArg, func(ctx context.Context, s *session, id string) error {
				return a.streamLogs(ctx, s, id, container, serial, q)
			})
		}}
	f := c.Flags()
	f.BoolVar(&serial, "serial", false, "the CVM's console: boot, guest agent, docker compose")
	f.BoolVar(&stderr, "stderr", true, "include the container's stderr")
	f.IntVarP(&tail, "tail", "n", 0, "number of lines from the end")
	f.BoolVarP(&follow, "follow", "f", false, "go on as lines come")
	f.BoolVarP(&stamps, "timestamps", "t", false, "show times")
	f.StringVar(&since, "since", "", "start: RFC 3339, or relative like 42m")
	f.StringVar(&until, "until", "", "end: RFC 3339, or relative")
	if ofCVM {
		f.StringVarP(&container, "container", "c", "", "container name (default: the first)")
	}
	return c
}

func (a *app) streamLogs(ctx context.Context, s *session, id, container string, serial bool, q url.Values) error {
	var body io.ReadCloser
	var err error
	if serial {
		body, err = s.api.SerialLogs(ctx, id, q)
	} else {
		body, err = s.api.Logs(ctx, id, container, q)
	}
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(a.Stdout, body)
	if ctx.Err() != nil || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil // -f ends with Ctrl-C, or with the container
	}
	return err
}
