package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/itchyny/gojq"
	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
)

// apiFlags are the flags of phala api.
type apiFlags struct {
	method, data, input, jq string
	query, fields, headers  []string
	silent, include         bool
}

func (a *app) apiCmd() *cobra.Command {
	var fl apiFlags
	c := &cobra.Command{Use: "api <endpoint>", Short: "Make an authenticated request to the cloud API",
		Example: "  phala api /auth/me\n  phala api /cvms -q '.[].name'\n  phala api /cvms/provision -X POST --input body.json\n  phala api /apps -f page=1",
		Args:    args(cobra.ExactArgs(1)),
		RunE:    func(c *cobra.Command, as []string) error { return a.callAPI(c, &fl, as[0]) }}
	f := c.Flags()
	f.StringVarP(&fl.method, "method", "X", "", "HTTP method (default: GET, POST with a body)")
	f.StringArrayVarP(&fl.query, "query", "f", nil, "query parameter key=value, or key=@file (repeatable)")
	f.StringArrayVarP(&fl.fields, "field", "F", nil, "body field key=value (text) or key:=value (JSON), @file reads one (repeatable)")
	f.StringArrayVarP(&fl.headers, "header", "H", nil, "HTTP header key:value (repeatable)")
	f.StringVarP(&fl.data, "data", "d", "", "request body")
	f.StringVar(&fl.input, "input", "", "read the body from a file (- for stdin)")
	f.BoolVarP(&fl.include, "include", "i", false, "print the answer's status and headers")
	f.StringVarP(&fl.jq, "jq", "q", "", "filter the answer with a jq expression")
	f.BoolVar(&fl.silent, "silent", false, "do not print the answer's body")
	c.MarkFlagsMutuallyExclusive("field", "data", "input")
	return c
}

func (a *app) callAPI(c *cobra.Command, fl *apiFlags, endpoint string) error {
	s, err := a.loggedIn()
	if err != nil {
		return err
	}
	var filter *gojq.Code
	if fl.jq != "" {
		q, err := gojq.Parse(fl.jq)
		if err == nil {
			filter, err = gojq.Compile(q)
		}
		if err != nil {
			return usage("-q: %w", err)
		}
	}
	body, err := a.apiBody(fl)
	if err != nil {
		return err
	}
	method := first(fl.method, map[bool]string{true: http.MethodPost, false: http.MethodGet}[body != nil])
	path, err := a.apiPath(endpoint, fl.query)
	if err != nil {
		return err
	}
	header, err := apiHeader(fl.headers)
	if err != nil {
		return err
	}
	var send any
	if body != nil {
		send = bytes.NewReader(body)
		if !json.Valid(body) && header.Get("Content-Type") == "" {
			header.Set("Content-Type", "text/plain")
		}
	}
	res, err := s.api.Call(c.Context(), strings.ToUpper(method), path, header, send)
	if err != nil {
		return a.explain(s, err)
	}
	defer res.Body.Close()
	if fl.include {
		a.printf("%s %s\n", res.Proto, res.Status)
		for _, k := range slices.Sorted(maps.Keys(res.Header)) {
			a.printf("%s: %s\n", k, strings.Join(res.Header[k], ", "))
		}
		a.printf("\n")
	}
	switch {
	case fl.silent:
		_, err = io.Copy(io.Discard, res.Body)
	case filter != nil:
		err = a.filtered(res.Body, filter)
	default:
		_, err = io.Copy(a.Stdout, res.Body)
	}
	return err
}

// filtered prints what a jq program makes of a JSON answer: text as it is, other
// values as JSON.
func (a *app) filtered(body io.Reader, filter *gojq.Code) error {
	var in any
	d := json.NewDecoder(io.LimitReader(body, 64<<20))
	d.UseNumber()
	if err := d.Decode(&in); err != nil {
		return cvm.Errorf(cvm.Unavailable, "-q wants a JSON answer, and this is none: %w", err)
	}
	it := filter.Run(in)
	for {
		v, ok := it.Next()
		if !ok {
			return nil
		}
		switch v := v.(type) {
		case error:
			return cvm.Errorf(cvm.Invalid, "-q: %w", v)
		case string:
			a.printf("%s\n", v)
		default:
			b, err := gojq.Marshal(v)
			if err != nil {
				return fmt.Errorf("-q: %w", err)
			}
			a.printf("%s\n", b)
		}
	}
}

// apiPath keeps the request at the API: a full URL would carry the key elsewhere.
func (a *app) apiPath(endpoint string, query []string) (string, error) {
	if strings.Contains(endpoint, "://") || strings.HasPrefix(endpoint, "//") {
		return "", usage("%q is a URL: give the path below the API prefix, like /auth/me", endpoint)
	}
	path := "/" + strings.TrimLeft(strings.TrimPrefix(strings.TrimLeft(endpoint, "/"), "api/v1/"), "/")
	q := url.Values{}
	for _, kv := range query {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return "", usage("-f %q: want key=value", kv)
		}
		b, err := a.atFile(v)
		if err != nil {
			return "", err
		}
		q.Add(k, strings.TrimRight(string(b), "\n"))
	}
	if len(q) > 0 {
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		path += sep + q.Encode()
	}
	return path, nil
}

// apiHeader reads -H values. The key's own header is not among what may be set: a
// key in an argument can be read by other users of this machine.
func apiHeader(list []string) (http.Header, error) {
	h := http.Header{}
	for _, kv := range list {
		k, v, ok := strings.Cut(kv, ":")
		if k = strings.TrimSpace(k); !ok || k == "" {
			return nil, usage("-H %q: want key:value", k)
		}
		if strings.EqualFold(k, "X-API-Key") || strings.EqualFold(k, "Authorization") {
			return nil, usage("-H %s: the key comes from the login (--profile, PHALA_CLOUD_API_KEY)", k)
		}
		h.Add(k, strings.TrimSpace(v))
	}
	return h, nil
}

// atFile is the value, or with @ before it the file's content.
func (a *app) atFile(v string) ([]byte, error) {
	name, isFile := strings.CutPrefix(v, "@")
	if !isFile {
		return []byte(v), nil
	}
	b, err := os.ReadFile(a.path(name))
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "reading %s: %w", name, err)
	}
	return b, nil
}

func (a *app) apiBody(fl *apiFlags) ([]byte, error) {
	var b []byte
	var err error
	switch {
	case fl.data != "":
		return []byte(fl.data), nil // any bytes, as curl sends them
	case fl.input == "-":
		b, err = io.ReadAll(io.LimitReader(a.Stdin, 16<<20))
	case fl.input != "":
		b, err = os.ReadFile(a.path(fl.input))
	case len(fl.fields) > 0:
		return a.fieldsBody(fl.fields)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "reading the body: %w", err)
	}
	if b = bytes.TrimSpace(b); !json.Valid(b) {
		return nil, cvm.Errorf(cvm.Invalid, "the body is not JSON")
	}
	return b, nil
}

func (a *app) fieldsBody(fields []string) ([]byte, error) {
	m := map[string]any{}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return nil, usage("-F %q: want key=value or key:=json", f)
		}
		b, err := a.atFile(v)
		if err != nil {
			return nil, err
		}
		if key, typed := strings.CutSuffix(k, ":"); typed {
			if !json.Valid(b) {
				return nil, usage("-F %s: the value is not JSON", key)
			}
			m[key] = json.RawMessage(b)
			continue
		}
		m[k] = string(b)
	}
	return json.Marshal(m)
}
