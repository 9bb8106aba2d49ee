// Package rpc is how services talk: typed JSON over HTTP (TCP, unix socket or
// RA-TLS), with a body limit and one mapping between coded errors and HTTP.
package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// MaxBody bounds request and response bodies, in bytes.
const MaxBody = 10 << 20

var statusOf = map[cvm.Code]int{
	cvm.Invalid:         http.StatusBadRequest,
	cvm.Unauthenticated: http.StatusUnauthorized,
	cvm.Denied:          http.StatusForbidden,
	cvm.NotFound:        http.StatusNotFound,
	cvm.Conflict:        http.StatusConflict,
	cvm.Precondition:    http.StatusPreconditionFailed,
	cvm.Exhausted:       http.StatusTooManyRequests,
	cvm.Unavailable:     http.StatusServiceUnavailable,
	cvm.Unsupported:     http.StatusNotImplemented,
	cvm.Internal:        http.StatusInternalServerError,
}

// Status is the HTTP status of a coded error.
func Status(err error) int { return statusOf[cvm.CodeOf(err)] }

// errorBody is what an error looks like on the wire: {"error": {...}}.
type errorBody struct {
	Error *cvm.Error `json:"error"`
}

// WriteError answers with the error's status and JSON body. Errors without a
// code become "internal" with their text withheld: it may hold anything.
func WriteError(w http.ResponseWriter, err error) {
	var e *cvm.Error
	if !errors.As(err, &e) {
		e = &cvm.Error{Code: cvm.Internal, Message: "internal error (see the service's log)"}
	}
	WriteJSON(w, Status(e), errorBody{Error: e})
}

// WriteJSON answers with v and a Content-Length (never chunked: the JS SDK reads
// unix sockets by hand and needs one).
func WriteJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, `{"error":{"code":"internal","message":"encoding failed"}}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// Handle makes a handler of a typed function. The body (if any) is decoded
// strictly: unknown fields and trailing data are invalid.
func Handle[Req, Resp any](fn func(r *http.Request, req Req) (Resp, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req Req
		if err := Decode(w, r, &req); err != nil {
			WriteError(w, err)
			return
		}
		resp, err := fn(r, req)
		if err != nil {
			WriteError(w, err)
			return
		}
		WriteJSON(w, http.StatusOK, resp)
	}
}

// Decode reads a bounded, strict JSON body; an empty body leaves v as it is.
func Decode(w http.ResponseWriter, r *http.Request, v any) error {
	if r.Body == nil || r.Method == http.MethodGet {
		return nil
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err == io.EOF {
		return nil
	} else if err != nil {
		return cvm.Errorf(cvm.Invalid, "request body: %w", err)
	}
	if d.More() {
		return cvm.Errorf(cvm.Invalid, "request body: data after the JSON value")
	}
	return nil
}

// Client calls a service. Base is "http://host:port", or "http://unix" with HTTP
// set by UnixClient. Header is added to every request (for example a token).
type Client struct {
	Base   string
	HTTP   *http.Client
	Header http.Header
}

// UnixClient makes an HTTP client for a unix socket.
func UnixClient(path string) *http.Client {
	return &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}
}

// Call sends req (nil: no body) and decodes the answer into resp (nil: ignored).
// A coded error on the other side comes back as *cvm.Error; a broken transport
// as code unavailable.
func (c *Client) Call(ctx context.Context, method, path string, req, resp any) error {
	body, err := c.Stream(ctx, method, path, req)
	if err != nil {
		return err
	}
	defer body.Close()
	if resp == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(body, MaxBody))
		return err
	}
	if err := json.NewDecoder(io.LimitReader(body, MaxBody)).Decode(resp); err != nil {
		return cvm.Errorf(cvm.Unavailable, "%s %s: reading the answer: %w", method, path, err)
	}
	return nil
}

// Stream is Call for answers that are read as they come (logs, events).
func (c *Client) Stream(ctx context.Context, method, path string, req any) (io.ReadCloser, error) {
	var rd io.Reader
	if req != nil {
		b, err := json.Marshal(req)
		if err != nil {
			return nil, fmt.Errorf("encoding request: %w", err)
		}
		rd = bytes.NewReader(b)
	}
	hr, err := http.NewRequestWithContext(ctx, method, c.Base+path, rd)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "request %s %s: %w", method, path, err)
	}
	for k, v := range c.Header {
		hr.Header[k] = v
	}
	if req != nil {
		hr.Header.Set("Content-Type", "application/json")
	}
	h := c.HTTP
	if h == nil {
		h = http.DefaultClient
	}
	res, err := h.Do(hr)
	if err != nil {
		return nil, cvm.Errorf(cvm.Unavailable, "%s %s%s: %w", method, c.Base, path, err)
	}
	if res.StatusCode < 300 {
		return res.Body, nil
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	var eb errorBody
	if json.Unmarshal(b, &eb) == nil && eb.Error != nil && eb.Error.Code != "" {
		return nil, eb.Error
	}
	return nil, cvm.Errorf(codeOfStatus(res.StatusCode), "%s %s%s: %s", method, c.Base, path, res.Status)
}

func codeOfStatus(s int) cvm.Code {
	for c, v := range statusOf {
		if v == s {
			return c
		}
	}
	if s >= 500 {
		return cvm.Unavailable
	}
	return cvm.Invalid
}
