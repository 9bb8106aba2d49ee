package cloudapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// maxBody bounds answers, in bytes.
const maxBody = 16 << 20

// Client calls the API. Base is the whole prefix, for example
// "http://127.0.0.1:8730/api/v1". Key may be empty for public paths.
type Client struct {
	Base string
	Key  string
	HTTP *http.Client // nil: http.DefaultClient
}

// APIError is an error answer as the server sent it. Methods return *cvm.Error
// that wraps it.
type APIError struct {
	Status      int
	ErrorCode   string // "ERR-02-001", or "" for plain and validation errors
	Message     string
	Reason      string
	Details     []Detail
	Suggestions []string
	Validation  []Validation
	OAuth       string // of the device login: "authorization_pending" and its kind
}

func (e *APIError) Error() string { return e.Message }

// Detail is one structured detail.
type Detail struct {
	Field   string `json:"field,omitempty"`
	Value   any    `json:"value,omitempty"`
	Message string `json:"message,omitempty"`
}

// Link points to a page that helps.
type Link struct {
	Label string `json:"label"`
	URL   string `json:"url"`
}

// ErrorDetail is the structured error object ({"detail": ErrorDetail}).
type ErrorDetail struct {
	ErrorCode   string   `json:"error_code"`
	Message     string   `json:"message"`
	Details     []Detail `json:"details,omitempty"`
	Suggestions []string `json:"suggestions,omitempty"`
	Links       []Link   `json:"links,omitempty"`
	Code        cvm.Code `json:"code,omitempty"`   // ours
	Reason      string   `json:"reason,omitempty"` // ours
}

// Validation is one entry of a 422 answer ({"detail": [Validation]}).
type Validation struct {
	Loc  []any  `json:"loc"`
	Msg  string `json:"msg"`
	Type string `json:"type"`
	Fix  string `json:"fix,omitempty"` // ours
}

// Field is the location without body, query or path.
func (v Validation) Field() string {
	var parts []string
	for i, l := range v.Loc {
		if s := fmt.Sprint(l); i > 0 || (s != "body" && s != "query" && s != "path" && s != "header") {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ".")
}

// Do calls any path of the API: body nil sends none, out nil ignores the answer.
func (c *Client) Do(ctx context.Context, method, path string, body, out any) error {
	rc, err := c.Stream(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer rc.Close()
	b, err := io.ReadAll(io.LimitReader(rc, maxBody))
	if err != nil {
		return cvm.Errorf(cvm.Unavailable, "%s %s: reading the answer: %w", method, path, err)
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return cvm.Errorf(cvm.Unavailable, "%s %s: the answer is not what the API documents: %w", method, path, err)
	}
	return nil
}

// Stream is Do for answers that are read as they come. Close the body.
func (c *Client) Stream(ctx context.Context, method, path string, body any) (io.ReadCloser, error) {
	res, err := c.Call(ctx, method, path, nil, body)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// Call is Stream with the request's headers (which win over the usual ones) and the
// whole answer. A body that is an io.Reader is sent as it is. Close the answer's body.
func (c *Client) Call(ctx context.Context, method, path string, header http.Header, body any) (*http.Response, error) {
	rd, raw := body.(io.Reader)
	if body != nil && !raw {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encoding request: %w", err)
		}
		rd = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.Base+path, rd)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "API address: %w", err)
	}
	if c.Key != "" {
		r.Header.Set("X-API-Key", c.Key)
	}
	r.Header.Set("X-Phala-Version", VersionCurrent)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for k, v := range header {
		r.Header[http.CanonicalHeaderKey(k)] = v
	}
	h := c.HTTP
	if h == nil {
		h = http.DefaultClient
	}
	res, err := h.Do(r)
	if err != nil {
		return nil, cvm.Errorf(cvm.Unavailable, "the cloud API does not answer: %w", err).
			WithReason("api-unreachable").WithFix("is the cloud running? Try: phala status")
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return nil, ParseError(res.StatusCode, b)
}

// ParseError reads an error answer of the API into *cvm.Error wrapping *APIError.
func ParseError(status int, body []byte) error {
	e := &APIError{Status: status}
	code := codeOf(status)
	var env struct {
		Detail json.RawMessage `json:"detail"`
	}
	var text string
	var obj ErrorDetail
	switch {
	case json.Unmarshal(body, &env) != nil || len(env.Detail) == 0:
		e.Message = fmt.Sprintf("the API answered %d %s", status, http.StatusText(status))
	case json.Unmarshal(env.Detail, &text) == nil:
		e.Message = text
	case json.Unmarshal(env.Detail, &e.Validation) == nil && len(e.Validation) > 0:
		var lines []string
		for _, v := range e.Validation {
			lines = append(lines, strings.TrimPrefix(v.Field()+": "+v.Msg, ": "))
			if v.Fix != "" {
				e.Suggestions = append(e.Suggestions, v.Fix)
			}
		}
		e.Message, e.Reason = strings.Join(lines, "; "), "validation"
	case json.Unmarshal(env.Detail, &obj) == nil:
		e.ErrorCode, e.Message, e.Details, e.Suggestions, e.Reason = obj.ErrorCode, obj.Message, obj.Details, obj.Suggestions, obj.Reason
		if obj.Code != "" {
			code = obj.Code
		}
		if e.ErrorCode == "" {
			e.oauth(env.Detail)
		}
	}
	ce := &cvm.Error{Code: code, Reason: e.Reason, Message: e.Message, Err: e}
	if ce.Reason == "" {
		ce.Reason = e.ErrorCode
	}
	if len(e.Suggestions) > 0 {
		ce.Fix = e.Suggestions[0]
	}
	return ce
}

// oauth reads the answers of the device login.
func (e *APIError) oauth(detail []byte) {
	var o struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(detail, &o) != nil || o.Error == "" {
		return
	}
	if e.OAuth = o.Error; e.Message == "" {
		e.Message = strings.TrimSpace(o.Error + " " + o.Description)
	}
}

func codeOf(status int) cvm.Code {
	switch {
	case status == 401:
		return cvm.Unauthenticated
	case status == 403:
		return cvm.Denied
	case status == 404:
		return cvm.NotFound
	case status == 409:
		return cvm.Conflict
	case status == 429:
		return cvm.Exhausted
	case status == 412 || status >= 465 && status <= 468:
		return cvm.Precondition
	case status == 501:
		return cvm.Unsupported
	case status == 500:
		return cvm.Internal
	case status > 500:
		return cvm.Unavailable
	}
	return cvm.Invalid
}

// readSSE calls fn for each event of a text/event-stream until it returns io.EOF
// (stop), an error, or the stream ends (io.ErrUnexpectedEOF).
func readSSE(r io.Reader, fn func(event string, data []byte) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), 1<<20)
	event, data := "", []byte(nil)
	for sc.Scan() {
		line := sc.Text()
		switch {
		case strings.HasPrefix(line, "event:"):
			event = strings.TrimSpace(line[6:])
		case strings.HasPrefix(line, "data:"):
			data = append(data, strings.TrimPrefix(line[5:], " ")...)
		case line == "" && event != "":
			if err := fn(event, data); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			event, data = "", nil
		}
	}
	if err := sc.Err(); err != nil {
		return cvm.Errorf(cvm.Unavailable, "the progress stream broke: %w", err)
	}
	return cvm.Errorf(cvm.Unavailable, "the progress stream ended early: %w", io.ErrUnexpectedEOF)
}

func seg(s string) string { return url.PathEscape(s) }
