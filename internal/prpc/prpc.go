// Package prpc is the reference's RPC over HTTP, as its guest agent and its VMM speak
// it: methods by name, POST with a JSON body or GET with a query, HTTP 400 and
// {"error": text} for every error. JSON only; a protobuf body is refused with what to
// do instead. What a caller may do is decided by whoever mounts a Service.
package prpc

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// Method is one call: it decodes its input and returns its answer.
type Method func(ctx context.Context, decode func(v any) error) (any, error)

// Unary makes a method of a typed function. Req is a struct.
func Unary[Req, Resp any](fn func(ctx context.Context, r Req) (Resp, error)) Method {
	return func(ctx context.Context, decode func(any) error) (any, error) {
		var r Req
		if err := decode(&r); err != nil {
			return nil, err
		}
		return fn(ctx, r)
	}
}

// NoArgs makes a method whose input is ignored.
func NoArgs[Resp any](fn func(ctx context.Context) (Resp, error)) Method {
	return func(ctx context.Context, _ func(any) error) (any, error) { return fn(ctx) }
}

// Service is a set of methods.
type Service struct {
	Methods map[string]Method
	// PostOnly are methods that are not served to GET, which a browser can be made to
	// send; nil: all are, as in the reference.
	PostOnly func(name string) bool
	// ErrorText is what a caller may read of an error; nil: all of it.
	ErrorText func(error) string
}

// Name is the method's name in a path below mount: prefixes (names of services) are
// taken off again and again, as the reference does.
func Name(path, mount string, prefixes ...string) string {
	name := strings.TrimPrefix(strings.TrimPrefix(path, mount), "/")
	for {
		before := name
		for _, p := range prefixes {
			name = strings.TrimPrefix(name, p)
		}
		if name == before {
			return name
		}
	}
}

// Handler serves the service below mount and at the root.
func (s *Service) Handler(mount string, prefixes ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { s.Serve(w, r, Name(r.URL.Path, mount, prefixes...)) }
}

// Serve answers one call of the method called name.
func (s *Service) Serve(w http.ResponseWriter, r *http.Request, name string) {
	m, ok := s.Methods[name]
	switch {
	case !ok:
		s.Fail(w, http.StatusBadRequest, cvm.Errorf(cvm.Invalid, "Service not found: %s", name))
		return
	case r.Method != http.MethodPost && r.Method != http.MethodGet:
		s.Fail(w, http.StatusBadRequest, cvm.Errorf(cvm.Invalid, "method %s is not allowed", r.Method))
		return
	case r.Method == http.MethodGet && s.PostOnly != nil && s.PostOnly(name):
		s.Fail(w, http.StatusBadRequest, cvm.Errorf(cvm.Invalid, "%s changes something: use POST", name))
		return
	}
	resp, err := m(r.Context(), func(v any) error { return Decode(w, r, v) })
	if err != nil {
		s.Fail(w, http.StatusBadRequest, err)
		return
	}
	b, err := json.Marshal(resp)
	if err != nil {
		s.Fail(w, http.StatusBadRequest, fmt.Errorf("encoding the answer: %w", err))
		return
	}
	send(w, http.StatusOK, b)
}

// Fail answers with an error.
func (s *Service) Fail(w http.ResponseWriter, status int, err error) {
	text := err.Error()
	if s.ErrorText != nil {
		text = s.ErrorText(err)
	}
	b, _ := json.MarshalIndent(map[string]string{"error": text}, "", "  ") // a string never fails
	send(w, status, b)
}

// send writes ASCII with its length: the JavaScript SDK compares the length of a
// string with Content-Length, and would wait forever for a letter of two bytes.
func send(w http.ResponseWriter, status int, b []byte) {
	b = ascii(b)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// ascii escapes what is not ASCII in a JSON text (which can only be in strings).
func ascii(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for _, r := range string(b) {
		switch {
		case r < 0x80:
			out = append(out, byte(r))
		case r < 0x10000:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			hi, lo := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		}
	}
	return out
}

// Decode reads a request into the struct that v points to. Unknown fields are
// ignored, as in the reference; an empty body leaves v as it is.
func Decode(w http.ResponseWriter, r *http.Request, v any) error {
	if r.Method == http.MethodGet {
		return decodeQuery(r.URL.Query(), v)
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, rpc.MaxBody))
	if err != nil {
		return cvm.Errorf(cvm.Invalid, "reading the request: %w", err)
	}
	if len(b) == 0 {
		return nil
	}
	ct := r.Header.Get("Content-Type")
	if !r.URL.Query().Has("json") && (strings.HasPrefix(ct, "application/octet-stream") || strings.Contains(ct, "protobuf")) {
		return cvm.Errorf(cvm.Invalid, "protobuf is not spoken here: send JSON with Content-Type application/json, or add ?json")
	}
	if err := json.Unmarshal(b, v); err != nil {
		return cvm.Errorf(cvm.Invalid, "request body: %w", err)
	}
	return nil
}
