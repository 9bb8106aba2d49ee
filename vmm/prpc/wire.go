package prpc

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

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// Mounts of the two services and of the log stream.
const (
	MountVmm   = "/prpc/"
	MountGuest = "/guest/"
	PathLogs   = "/logs"
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

// empty is the answer of methods without one: the literal null.
type empty struct{}

// MarshalJSON writes null.
func (empty) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

// readers are the methods that change nothing; the others are not served to GET,
// which a browser can be made to send.
func readers() map[string]bool {
	return map[string]bool{
		"GetComposeHash": true, "Status": true, "GetInfo": true, "ListImages": true, "GetAppEnvEncryptPubKey": true,
		"Version": true, "GetMeta": true, "ListGpus": true, "SvList": true, "ListRegistryImages": true,
		"guest:Info": true, "guest:SysInfo": true, "guest:NetworkInfo": true, "guest:ListContainers": true,
	}
}

// Owns reports whether a path belongs to this package.
func Owns(path string) bool {
	return path == PathLogs || strings.HasPrefix(path, MountVmm) || strings.HasPrefix(path, MountGuest)
}

// ReadOnly reports whether the method at path changes nothing.
func ReadOnly(path string) bool {
	if path == PathLogs {
		return true
	}
	if name, ok := strings.CutPrefix(path, MountGuest); ok {
		return readers()["guest:"+trim(name, guestPrefixes()...)]
	}
	return readers()[trim(strings.TrimPrefix(path, MountVmm), vmmPrefixes()...)]
}

func vmmPrefixes() []string   { return []string{"Vmm.", "Teepod."} }
func guestPrefixes() []string { return []string{"ProxiedGuestApi.", "GuestApi."} }

// trim takes service names off again and again, as the reference does.
func trim(name string, prefixes ...string) string {
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

// serve answers one service: POST or GET, JSON, HTTP 400 with {"error"} for every error.
func serve(w http.ResponseWriter, r *http.Request, name string, readOnly bool, methods map[string]method) {
	m, ok := methods[name]
	switch {
	case !ok:
		WriteError(w, http.StatusBadRequest, cvm.Errorf(cvm.Invalid, "Service not found: %s", name))
		return
	case r.Method != http.MethodPost && r.Method != http.MethodGet:
		WriteError(w, http.StatusBadRequest, cvm.Errorf(cvm.Invalid, "method %s is not allowed", r.Method))
		return
	case r.Method == http.MethodGet && !readOnly:
		WriteError(w, http.StatusBadRequest, cvm.Errorf(cvm.Invalid, "%s changes something: use POST", name))
		return
	}
	resp, err := m(r.Context(), func(v any) error { return decode(w, r, v) })
	if err != nil {
		WriteError(w, http.StatusBadRequest, err)
		return
	}
	rpc.WriteJSON(w, http.StatusOK, resp)
}

// WriteError answers in the reference's shape.
func WriteError(w http.ResponseWriter, status int, err error) {
	rpc.WriteJSON(w, status, map[string]string{"error": errorText(err)})
}

func decode(w http.ResponseWriter, r *http.Request, v any) error {
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
	if err := json.Unmarshal(b, v); err != nil { // unknown fields are ignored, as there
		return cvm.Errorf(cvm.Invalid, "request body: %w", err)
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
		vals := append(append([]string{}, q[name]...), q[name+"[]"]...)
		for k := 0; q.Has(fmt.Sprintf("%s[%d]", name, k)); k++ {
			vals = append(vals, q.Get(fmt.Sprintf("%s[%d]", name, k)))
		}
		if len(vals) == 0 {
			continue
		}
		if err := setField(s.Field(i), vals); err != nil {
			return cvm.Errorf(cvm.Invalid, "query %s: %w", name, err)
		}
	}
	return nil
}

func setField(f reflect.Value, vals []string) (err error) {
	switch p := f.Addr().Interface().(type) {
	case *string:
		*p = vals[0]
	case *guestapi.Hex:
		return p.UnmarshalText([]byte(vals[0]))
	case *[]string:
		*p = vals
	case *bool:
		*p, err = strconv.ParseBool(vals[0])
	case *uint32:
		var n uint64
		n, err = strconv.ParseUint(vals[0], 10, 32)
		*p = uint32(n)
	default:
		return cvm.Errorf(cvm.Invalid, "cannot be given in a query: use POST")
	}
	return err
}
