package prpc

import (
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// Heartbeat is how often a quiet follower gets an empty line.
const Heartbeat = 60 * time.Second

// LogQuery is what of a VM's output somebody wants.
type LogQuery struct {
	Channel  string // serial, stdout, stderr
	Follow   bool
	KeepANSI bool
	Lines    int // 0: all
}

// logs is GET /logs?id&follow&ansi&lines&ch: text as it comes.
func (s *Service) logs(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		WriteError(w, http.StatusBadRequest, cvm.Errorf(cvm.Invalid, "method %s is not allowed", r.Method))
		return
	}
	q, err := parseLogQuery(r)
	var rc io.ReadCloser
	switch {
	case err != nil:
	case s.cfg.Logs == nil:
		err = cvm.Errorf(cvm.Unsupported, "this node keeps no logs")
	default:
		rc, err = s.cfg.Logs(r.Context(), r.URL.Query().Get("id"), q)
	}
	if err != nil {
		WriteError(w, http.StatusBadRequest, err)
		return
	}
	defer rc.Close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	buf := make([]byte, 32<<10)
	for {
		n, err := rc.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			_ = flush.Flush()
		}
		if err != nil {
			return
		}
	}
}

func parseLogQuery(r *http.Request) (q LogQuery, err error) {
	v := r.URL.Query()
	q = LogQuery{Channel: v.Get("ch"), KeepANSI: true, Lines: 10000}
	if err := wantID(v.Get("id")); err != nil {
		return q, err
	}
	switch q.Channel {
	case "":
		q.Channel = "serial"
	case "serial", "stdout", "stderr":
	default:
		return q, cvm.Errorf(cvm.Invalid, "ch=%q: want serial, stdout or stderr", q.Channel)
	}
	if s := v.Get("lines"); s != "" {
		if q.Lines, err = strconv.Atoi(s); err != nil || q.Lines < 0 {
			return q, cvm.Errorf(cvm.Invalid, "lines=%q: want a number", s)
		}
	}
	for name, to := range map[string]*bool{"follow": &q.Follow, "ansi": &q.KeepANSI} {
		if s := v.Get(name); s != "" {
			if *to, err = strconv.ParseBool(s); err != nil {
				return q, cvm.Errorf(cvm.Invalid, "%s=%q: want true or false", name, s)
			}
		}
	}
	return q, nil
}
