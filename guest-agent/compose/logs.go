package compose

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/confidential-cloud/phala/cvm"
)

// LogOptions are the query of the reference's /logs (dstack-core C.5).
type LogOptions struct {
	Since, Until                         string // unix seconds with or without a fraction, or "" for none
	Tail                                 string // lines, or "all"
	Follow, Text, Bare, Timestamps, ANSI bool
}

var (
	ansi     = regexp.MustCompile(`\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)|\x1b[@-Z\\-_]`)
	relative = regexp.MustCompile(`^([0-9]{1,9})([smhd])$`)
	digits   = regexp.MustCompile(`^[0-9]{1,12}$`)
)

// ParseLogOptions reads the query; now turns "5m" into a point in time.
func ParseLogOptions(q url.Values, now time.Time) (o LogOptions, err error) {
	if o.Since, err = point("since", q.Get("since"), now); err != nil {
		return o, err
	}
	if o.Until, err = point("until", q.Get("until"), now); err != nil {
		return o, err
	}
	if o.Tail = q.Get("tail"); o.Tail == "" {
		o.Tail = "1000"
	}
	if o.Tail != "all" && !digits.MatchString(o.Tail) {
		return o, cvm.Errorf(cvm.Invalid, "tail: want a number of lines or all")
	}
	for name, dst := range map[string]*bool{"follow": &o.Follow, "text": &o.Text, "bare": &o.Bare, "timestamps": &o.Timestamps, "ansi": &o.ANSI} {
		if *dst, err = flag(name, q); err != nil {
			return o, err
		}
	}
	return o, nil
}

// flag takes name, name=true, name=1 and their opposites.
func flag(name string, q url.Values) (bool, error) {
	if !q.Has(name) {
		return false, nil
	}
	switch v := q.Get(name); v {
	case "", "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	default:
		return false, cvm.Errorf(cvm.Invalid, "%s: %q is not true or false", name, v)
	}
}

func point(name, v string, now time.Time) (string, error) {
	if v == "" || v == "0" {
		return "", nil
	}
	if digits.MatchString(v) {
		return v, nil
	}
	// The public CLI documents RFC 3339 and passes it on as it was typed.
	if at, err := time.Parse(time.RFC3339, v); err == nil && at.Unix() > 0 {
		return fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond()), nil
	}
	m := relative.FindStringSubmatch(v)
	if m == nil {
		return "", cvm.Errorf(cvm.Invalid, "%s: want RFC 3339, unix seconds, or a number with s, m, h or d", name)
	}
	n, _ := strconv.ParseInt(m[1], 10, 64)
	unit := map[string]int64{"s": 1, "m": 60, "h": 3600, "d": 86400}[m[2]]
	return fmt.Sprint(now.Unix() - n*unit), nil
}

// Logs writes a container's log to w; name is a container name, id or service.
// It returns when the log ends, or, following, when ctx or the container does.
func (e *Engine) Logs(ctx context.Context, w io.Writer, name string, o LogOptions) error {
	id, tty, err := e.find(ctx, name)
	if err != nil {
		return err
	}
	rd, err := e.cli.ContainerLogs(ctx, id, container.LogsOptions{
		ShowStdout: true, ShowStderr: true, Since: o.Since, Until: o.Until, Tail: o.Tail, Follow: o.Follow, Timestamps: o.Timestamps,
	})
	if err != nil {
		return fmt.Errorf("logs of %s: %w", name, err)
	}
	defer rd.Close()
	out, errw := &logWriter{w: w, o: o, channel: "stdout"}, &logWriter{w: w, o: o, channel: "stderr"}
	if tty {
		_, err = io.Copy(out, rd)
	} else {
		_, err = stdcopy.StdCopy(out, errw, rd)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// find takes what people type: a container name, an id, or a compose service.
func (e *Engine) find(ctx context.Context, name string) (id string, tty bool, err error) {
	list, err := e.list(ctx, false)
	if err != nil {
		return "", false, err
	}
	for _, c := range list {
		match := c.ID == name || (len(name) >= 12 && bytes.HasPrefix([]byte(c.ID), []byte(name))) || c.Labels["com.docker.compose.service"] == name
		for _, n := range c.Names {
			match = match || n == "/"+name || n == name
		}
		if match {
			id = c.ID
			break
		}
	}
	if id == "" {
		return "", false, cvm.Errorf(cvm.NotFound, "no container %q", name).WithReason("container-not-found")
	}
	info, err := e.cli.ContainerInspect(ctx, id)
	if errdefs.IsNotFound(err) {
		return "", false, cvm.Errorf(cvm.NotFound, "no container %q", name).WithReason("container-not-found")
	}
	if err != nil {
		return "", false, err
	}
	return id, info.Config != nil && info.Config.Tty, nil
}

// logWriter turns docker's writes (one per line or part of one) into the wire form.
type logWriter struct {
	w       io.Writer
	o       LogOptions
	channel string
}

func (l *logWriter) Write(p []byte) (int, error) {
	b := p
	if !l.o.ANSI {
		b = ansi.ReplaceAll(p, nil)
	}
	if l.o.Bare {
		_, err := l.w.Write(b)
		return len(p), err
	}
	msg := base64.StdEncoding.EncodeToString(b)
	if l.o.Text {
		msg = string(bytes.ToValidUTF8(b, []byte("\uFFFD")))
	}
	line, err := json.Marshal(struct {
		Channel string `json:"channel"`
		Message string `json:"message"`
	}{l.channel, msg})
	if err != nil {
		return 0, err
	}
	if _, err := l.w.Write(append(line, '\n')); err != nil {
		return 0, err
	}
	return len(p), nil
}
