package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// method is one call of the reference's wire.
type method func(ctx context.Context, decode func(v any) error) (any, error)

// unary makes a method of a typed function.
func unary[Req, Resp any](fn func(ctx context.Context, r Req) (Resp, error)) method {
	return func(ctx context.Context, decode func(any) error) (any, error) {
		var r Req
		if err := decode(&r); err != nil {
			return nil, err
		}
		return fn(ctx, r)
	}
}

// noArgs makes a method whose input is ignored.
func noArgs[Resp any](fn func(ctx context.Context) (Resp, error)) method {
	return func(ctx context.Context, _ func(any) error) (any, error) { return fn(ctx) }
}

// prpc serves methods by name (dstack-core 0): POST or GET, JSON, prefix trimmed
// again and again as the reference does, HTTP 400 for every error.
func prpc(mount, prefix string, methods map[string]method) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, mount), "/")
		for strings.HasPrefix(name, prefix) {
			name = strings.TrimPrefix(name, prefix)
		}
		m, ok := methods[name]
		if !ok {
			fail(w, fmt.Errorf("Service not found: %s", name)) //nolint:staticcheck // the reference's text
			return
		}
		if r.Method != http.MethodPost && r.Method != http.MethodGet {
			fail(w, fmt.Errorf("method %s is not allowed", r.Method))
			return
		}
		resp, err := m(r.Context(), func(v any) error { return decode(w, r, v) })
		if err != nil {
			fail(w, err)
			return
		}
		answer(w, http.StatusOK, resp)
	}
}

func fail(w http.ResponseWriter, err error) {
	b, _ := json.MarshalIndent(map[string]string{"error": err.Error()}, "", "  ")
	send(w, http.StatusBadRequest, b)
}

func answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		fail(w, err)
		return
	}
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

func decode(w http.ResponseWriter, r *http.Request, v any) error {
	if r.Method == http.MethodGet {
		return decodeQuery(r.URL.Query(), v)
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, rpc.MaxBody))
	if err != nil {
		return fmt.Errorf("reading the request: %w", err)
	}
	if len(b) == 0 {
		return nil
	}
	ct := r.Header.Get("Content-Type")
	if !r.URL.Query().Has("json") && (strings.HasPrefix(ct, "application/octet-stream") || strings.Contains(ct, "protobuf")) {
		return fmt.Errorf("protobuf is not spoken here: send JSON with Content-Type application/json, or add ?json")
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("request body: %w", err)
	}
	return nil
}

// decodeQuery reads a message from a query string: name=value, lists as name=a,
// name[]=a or name[0]=a.
func decodeQuery(q url.Values, v any) error {
	s := reflect.ValueOf(v).Elem()
	if s.Kind() != reflect.Struct {
		return nil
	}
	for i := range s.NumField() {
		name, _, _ := strings.Cut(s.Type().Field(i).Tag.Get("json"), ",")
		vals := values(q, name)
		if len(vals) == 0 {
			continue
		}
		if err := setField(s.Field(i), vals); err != nil {
			return fmt.Errorf("query %s: %w", name, err)
		}
	}
	return nil
}

func values(q url.Values, name string) []string {
	vals := append(append([]string{}, q[name]...), q[name+"[]"]...)
	for i := 0; q.Has(fmt.Sprintf("%s[%d]", name, i)); i++ {
		vals = append(vals, q.Get(fmt.Sprintf("%s[%d]", name, i)))
	}
	return vals
}

func setField(f reflect.Value, vals []string) error {
	switch p := f.Addr().Interface().(type) {
	case *string:
		*p = vals[0]
	case *guestapi.Hex:
		return p.UnmarshalText([]byte(vals[0]))
	case *[]string:
		*p = vals
	case *bool:
		b, err := strconv.ParseBool(vals[0])
		*p = b
		return err
	case **uint64:
		n, err := strconv.ParseUint(vals[0], 10, 64)
		*p = &n
		return err
	default:
		return fmt.Errorf("cannot be given in a query: use POST")
	}
	return nil
}
