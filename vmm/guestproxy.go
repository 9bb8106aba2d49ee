package vmm

import (
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// ReasonGuestAnswer is of a guest whose answer this VMM does not pass on.
const ReasonGuestAnswer = "guest-answer"

// proxyGuest forwards the five read-only routes of the guest API. The guest is a
// stranger to whom the caller does not speak: the caller's headers do not reach it,
// and of its answer only the status, the kind of content and the body are passed on.
func (m *VMM) proxyGuest(w http.ResponseWriter, r *http.Request) {
	v, err := m.settled(r.Context(), id(r))
	if err != nil {
		rpc.WriteError(w, err)
		return
	}
	if s := r.URL.Query().Get("nonce"); strings.HasSuffix(r.URL.Path, "/evidence") {
		if b, err := hex.DecodeString(s); err != nil || len(b) == 0 || len(b) > 64 {
			rpc.WriteError(w, cvm.Errorf(cvm.Invalid, "nonce: want 1 to 64 bytes of hex"))
			return
		}
	}
	v.mu.Lock()
	inst, view := v.inst, v.rec.VM
	v.mu.Unlock()
	if inst == nil {
		rpc.WriteError(w, cvm.Errorf(cvm.Precondition, "VM %s is not running (%s)", view.Spec.ID, view.State).WithReason("vm-not-running"))
		return
	}
	res, err := askGuest(guestClient(inst), r)
	if err != nil {
		m.log.Debug("guest API", "vm", view.Spec.ID, "error", err)
		rpc.WriteError(w, guestSilent(&view))
		return
	}
	defer res.Body.Close()
	if err := passOn(w, r, res); err != nil {
		m.log.Debug("guest API", "vm", view.Spec.ID, "error", err)
		rpc.WriteError(w, err)
	}
}

func guestSilent(view *vmmapi.VM) error {
	return cvm.Errorf(cvm.Unavailable, "the guest agent of VM %s does not answer (%s)", view.Spec.ID, strings.TrimSpace(view.State+" "+view.BootProgress)).WithReason("guest-unreachable")
}

// askGuest repeats the request without the caller's headers: the VMM's token is not
// the guest's business.
func askGuest(c *http.Client, r *http.Request) (*http.Response, error) {
	_, escaped, _ := strings.Cut(r.URL.EscapedPath(), "/guest/")
	path, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "http", Host: "guest", Path: "/v1/" + path, RawPath: "/v1/" + escaped, RawQuery: r.URL.RawQuery}
	q, err := http.NewRequestWithContext(r.Context(), http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c.Do(q)
}

// passOn answers with what a guest may say. An error is returned while nothing was
// written yet; an answer that is cut off later, or grows too long, ends the connection.
func passOn(w http.ResponseWriter, r *http.Request, res *http.Response) error {
	refuse := func(format string, args ...any) error {
		return cvm.Errorf(cvm.Unavailable, "the guest's answer is not passed on: "+format, args...).WithReason(ReasonGuestAnswer).
			WithFix("the guest is not one of ours, or is broken: look at its image and its serial log")
	}
	switch res.StatusCode { // of rpc's errors; a guest may not say that the caller's own credentials are wrong
	case http.StatusOK, http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed,
		http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusNotImplemented, http.StatusServiceUnavailable:
	default:
		return refuse("status %d", res.StatusCode)
	}
	body := io.Reader(res.Body)
	if logs := strings.Contains(r.URL.Path, "/guest/logs/"); !logs || res.StatusCode != http.StatusOK {
		if res.ContentLength > rpc.MaxBody {
			return refuse("%d bytes, the limit is %d", res.ContentLength, rpc.MaxBody)
		}
		body = http.MaxBytesReader(nil, res.Body, rpc.MaxBody)
	}
	h := w.Header()
	h.Set("Content-Type", kindOf(res.Header.Get("Content-Type")))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(res.StatusCode)
	rc := http.NewResponseController(w)
	_ = rc.Flush() // a follower of a silent log sees that it is connected
	if _, err := io.Copy(flushWriter{w, rc}, body); err != nil && !errors.Is(err, r.Context().Err()) {
		panic(http.ErrAbortHandler) // the caller must not take a part for the whole
	}
	return nil
}

// kindOf is the content type of the guest API's answers; a page or a script would be
// one of the VMM's own origin.
func kindOf(s string) string {
	kind, _, _ := strings.Cut(s, ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "application/json", "application/x-ndjson":
		return strings.ToLower(strings.TrimSpace(kind))
	case "text/plain":
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

type flushWriter struct {
	io.Writer
	rc *http.ResponseController
}

func (f flushWriter) Write(b []byte) (int, error) {
	n, err := f.Writer.Write(b)
	_ = f.rc.Flush()
	return n, err
}
