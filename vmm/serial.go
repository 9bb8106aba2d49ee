package vmm

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/vmm/logs"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// logRequest is what of a VM's output somebody wants.
type logRequest struct {
	channel string
	logs.Options
}

// keepLogs looks after the files that a machine writes its output to.
func (v *vm) keepLogs(ctx context.Context, inst machine.Instance) {
	files, ok := inst.(machine.LogFiler)
	if !ok {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, ch := range []string{machine.ChannelSerial, machine.ChannelStdout, machine.ChannelStderr} {
		path := files.LogFile(ch)
		if path == "" {
			continue
		}
		if l := v.logs[ch]; l != nil {
			l.Resume()
			continue
		}
		l, err := logs.Open(path, logs.Config{MaxBytes: int64(v.m.cfg.Logs.MaxBytes), Keep: v.m.cfg.Logs.Keep})
		if err != nil {
			v.log.Error("the machine's output", "channel", ch, "error", err)
			continue
		}
		v.logs[ch] = l
		v.m.wg.Go(func() { l.Run(ctx) })
	}
}

// endLogs tells followers that the machine has ended.
func (v *vm) endLogs() {
	for _, l := range v.logs {
		l.End()
	}
}

// serial streams the output of the newest runs.
func (m *VMM) serial(w http.ResponseWriter, r *http.Request) {
	q, err := parseLogRequest(r.URL.Query(), m.now())
	var rc io.ReadCloser
	if err == nil {
		rc, err = m.openLog(r.Context(), id(r), q)
	}
	if err != nil {
		rpc.WriteError(w, err)
		return
	}
	stream(w, rc)
}

func stream(w http.ResponseWriter, rc io.ReadCloser) {
	defer rc.Close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush() // a follower of a quiet machine knows that it is connected
	_, _ = io.Copy(flushWriter{w, http.NewResponseController(w)}, rc)
}

// openLog opens a channel: from the files that we keep, or from the driver.
func (m *VMM) openLog(ctx context.Context, id string, q logRequest) (io.ReadCloser, error) {
	v, err := m.settled(ctx, id)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	inst, kept := v.last, v.logs[q.channel]
	v.mu.Unlock()
	switch {
	case kept != nil:
		return kept.Read(ctx, q.Options)
	case inst == nil:
		return nil, cvm.Errorf(cvm.Precondition, "VM %s has no console yet: it was not started", id).WithReason("no-console")
	case q.channel != machine.ChannelSerial:
		return nil, cvm.Errorf(cvm.Unsupported, "the machines of this node have no channel %s", q.channel).WithReason("no-channel").WithFix("ask for the channel serial")
	case !q.Since.IsZero() || !q.Until.IsZero() || q.Timestamps:
		return nil, cvm.Errorf(cvm.Unsupported, "this node's driver keeps no times of its console: since, until and timestamps do not work").WithReason("no-times")
	}
	return inst.Console(ctx, machine.ConsoleOptions{Tail: q.Tail, Follow: q.Follow})
}

func parseLogRequest(q url.Values, now time.Time) (out logRequest, err error) {
	out.channel = orWord(q.Get("channel"), machine.ChannelSerial)
	switch out.channel {
	case machine.ChannelSerial, machine.ChannelStdout, machine.ChannelStderr:
	default:
		return out, cvm.Errorf(cvm.Invalid, "channel=%q: want serial, stdout or stderr", out.channel)
	}
	if s := q.Get("tail"); s != "" {
		if out.Tail, err = strconv.Atoi(s); err != nil || out.Tail < 0 {
			return out, cvm.Errorf(cvm.Invalid, "tail=%q: want a number of lines", s)
		}
	}
	for _, p := range []struct {
		name string
		to   *bool
		def  bool
	}{{"follow", &out.Follow, false}, {"ansi", &out.KeepANSI, true}, {"timestamps", &out.Timestamps, false}} {
		if *p.to, err = boolParam(q.Get(p.name), p.name, p.def); err != nil {
			return out, err
		}
	}
	if out.Since, err = timeParam(q.Get("since"), "since", now); err == nil {
		out.Until, err = timeParam(q.Get("until"), "until", now)
	}
	return out, err
}

// timeParam reads RFC 3339, unix seconds, or a duration before now ("10m").
func timeParam(s, name string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 && n < 1<<40 {
		return time.Unix(n, 0), nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, cvm.Errorf(cvm.Invalid, "%s=%q: want RFC 3339, unix seconds, or a duration like 10m", name, s)
}
