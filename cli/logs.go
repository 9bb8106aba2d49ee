package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
)

// logFlags are the flags of the log commands.
type logFlags struct {
	serial, stdout, stderr, errs, follow, stamps bool
	tail                                         int
	since, until, container                      string
}

// ofHost: the node keeps it, not the guest.
func (fl *logFlags) ofHost() bool { return fl.serial || fl.stdout || fl.errs }

func (a *app) logsCmd() *cobra.Command {
	return a.logsOf("logs [container]", "Fetch logs from a CVM, or from all instances of its app")
}

func (a *app) serialLogsCmd() *cobra.Command {
	c := a.logsOf("serial-logs [cvm]", "Fetch a CVM's console")
	c.Deprecated = "use phala logs --serial"
	return c
}

// logsOf is `phala logs [container]`, `phala cvms logs [cvm]` and serial-logs.
func (a *app) logsOf(use, short string) *cobra.Command {
	var fl logFlags
	verb, arg, _ := strings.Cut(use, " ")
	c := &cobra.Command{Use: use, Short: short, Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			fl.serial = fl.serial || verb == "serial-logs"
			if arg != "[cvm]" {
				fl.container, as = firstOf(as), nil
			}
			q, err := a.logQuery(&fl)
			if err != nil {
				return err
			}
			return a.withCVM(c.Context(), as, func(ctx context.Context, s *session, id string) error {
				return a.instanceLogs(ctx, s, id, &fl, q)
			})
		}}
	f := c.Flags()
	f.IntVarP(&fl.tail, "tail", "n", 0, "number of lines from the end")
	f.BoolVarP(&fl.follow, "follow", "f", false, "go on as lines come")
	f.BoolVarP(&fl.stamps, "timestamps", "t", false, "show times")
	if verb == "serial-logs" {
		return c
	}
	f.BoolVar(&fl.serial, "serial", false, "the CVM's console: boot, guest agent, docker compose")
	f.BoolVar(&fl.stdout, "cvm-stdout", false, "what the CVM's hypervisor wrote to stdout (where the node keeps it)")
	f.BoolVar(&fl.errs, "cvm-stderr", false, "the same of stderr")
	f.BoolVar(&fl.stderr, "stderr", true, "include the container's stderr")
	f.StringVar(&fl.since, "since", "", "start: RFC 3339, or relative like 42m")
	f.StringVar(&fl.until, "until", "", "end: RFC 3339, or relative")
	c.MarkFlagsMutuallyExclusive("serial", "cvm-stdout", "cvm-stderr")
	if arg == "[cvm]" {
		f.StringVarP(&fl.container, "container", "c", "", "container name (default: the first)")
	}
	return c
}

func (a *app) logQuery(fl *logFlags) (url.Values, error) {
	if a.json {
		return nil, usage("logs are text: leave --json out")
	}
	if fl.tail < 0 {
		return nil, usage("--tail %d is negative", fl.tail)
	}
	q := url.Values{}
	set := func(on bool, k, v string) {
		if on {
			q.Set(k, v)
		}
	}
	set(fl.tail > 0, "tail", strconv.Itoa(fl.tail))
	set(fl.follow, "follow", "true")
	set(fl.stamps, "timestamps", "true")
	set(fl.stdout, "ch", "stdout")
	set(fl.errs, "ch", "stderr")
	set(fl.stderr && !fl.ofHost(), "stderr", "true")
	for k, v := range map[string]string{"since": fl.since, "until": fl.until} {
		when, err := logTime(v, a.Now())
		if err != nil {
			return nil, usage("--%s %w", k, err)
		}
		set(when != "", k, when)
	}
	return q, nil
}

var relative = regexp.MustCompile(`^[1-9]\d{0,8}[smhd]$`)

// logTime reads RFC 3339, unix seconds, or a span before now, and gives unix seconds,
// which every guest understands.
func logTime(v string, now time.Time) (string, error) {
	if v == "" {
		return "", nil
	}
	if t, err := time.Parse(time.RFC3339, v); err == nil {
		return strconv.FormatInt(t.Unix(), 10), nil
	}
	if n, err := strconv.ParseUint(v, 10, 40); err == nil {
		return strconv.FormatUint(n, 10), nil
	}
	if !relative.MatchString(v) {
		return "", fmt.Errorf("%q is neither RFC 3339 nor a span like 42m or 2d", v)
	}
	n, _ := strconv.Atoi(v[:len(v)-1])
	unit := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}[v[len(v)-1]]
	if time.Duration(n) > now.Sub(time.Unix(0, 0))/unit {
		return "0", nil // before all time
	}
	return strconv.FormatInt(now.Add(-time.Duration(n)*unit).Unix(), 10), nil
}

// instanceLogs shows the logs of one CVM, or, where an app has several instances and
// none of them was named, of all, each line with its instance.
func (a *app) instanceLogs(ctx context.Context, s *session, id string, fl *logFlags, q url.Values) error {
	refs, err := s.logInstances(ctx, id)
	if err != nil {
		return err
	}
	if len(refs) == 1 {
		return a.streamLogs(ctx, s, refs[0], fl, q, a.Stdout)
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	for _, r := range refs {
		w := &prefixed{mu: &mu, to: a.Stdout, name: a.onOut().paint("36", r[:min(8, len(r))]) + " | "}
		g.Go(func() error {
			defer w.flush()
			err := a.streamLogs(ctx, s, r, fl, cloneQuery(q), w)
			if err != nil && cvm.CodeOf(err) != cvm.Internal {
				a.say("%s", a.warn(r+": "+err.Error())) // the others go on
				return nil
			}
			return err
		})
	}
	return g.Wait()
}

func cloneQuery(q url.Values) url.Values {
	out := url.Values{}
	for k, v := range q {
		out[k] = append([]string{}, v...)
	}
	return out
}

// logInstances are the CVMs that an id means: an app's id or a name means every
// instance of the app.
func (s *session) logInstances(ctx context.Context, id string) ([]string, error) {
	app, err := cvm.ParseAppID(strings.TrimPrefix(id, "app_"))
	if err != nil {
		v, err := s.api.CVM(ctx, id)
		var several *cloudapi.APIError
		if errors.As(err, &several) && strings.HasPrefix(several.ErrorCode, "ERR-03-01") || err == nil && id != v.Name {
			return []string{id}, nil // that very instance, or the cloud's own explanation
		} else if err != nil {
			return nil, err
		}
		if app, err = cvm.ParseAppID(str(v.AppID)); err != nil {
			return []string{id}, nil //nolint:nilerr // a CVM without an app yet has one instance
		}
	}
	all, err := s.instances(ctx, app)
	var refs []string
	for _, v := range all {
		if v.VMUUID != nil {
			refs = append(refs, *v.VMUUID)
		}
	}
	if err != nil && cvm.CodeOf(err) != cvm.NotFound {
		return nil, err
	}
	if len(refs) < 2 {
		return []string{id}, nil
	}
	return refs, nil
}

func (a *app) streamLogs(ctx context.Context, s *session, id string, fl *logFlags, q url.Values, w io.Writer) error {
	var body io.ReadCloser
	var err error
	if fl.ofHost() {
		body, err = s.api.SerialLogs(ctx, id, q)
	} else {
		body, err = s.api.Logs(ctx, id, fl.container, q)
	}
	var ce *cvm.Error
	if errors.As(err, &ce) && ce.Code == cvm.NotFound && fl.container != "" && ce.Fix == "" {
		ce.Fix = "phala ps --cvm-id " + id + " lists its containers"
	}
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(w, body)
	if ctx.Err() != nil || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil // -f ends with Ctrl-C, or with the container
	}
	return err
}

// prefixed writes whole lines, each with a name before it.
type prefixed struct {
	mu   *sync.Mutex
	to   io.Writer
	name string
	part []byte
}

// maxLine bounds a line that is held back for its end, in bytes.
const maxLine = 64 << 10

func (p *prefixed) Write(b []byte) (int, error) {
	p.part = append(p.part, b...)
	for {
		n, line, err := bufio.ScanLines(p.part, false)
		if n == 0 || err != nil {
			if len(p.part) > maxLine {
				p.flush()
			}
			return len(b), nil
		}
		if err := p.line(line); err != nil {
			return 0, err
		}
		p.part = p.part[n:]
	}
}

func (p *prefixed) line(line []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := fmt.Fprintf(p.to, "%s%s\n", p.name, line)
	return err
}

func (p *prefixed) flush() {
	if len(p.part) > 0 {
		_ = p.line(p.part)
	}
	p.part = nil
}
