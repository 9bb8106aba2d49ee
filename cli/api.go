package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
)

func (a *app) apiCmd() *cobra.Command {
	var method, data, input string
	var query, fields []string
	var silent bool
	c := &cobra.Command{Use: "api <endpoint>", Short: "Make an authenticated request to the cloud API",
		Example: "  phala api /auth/me\n  phala api /cvms/provision -X POST --input body.json\n  phala api /apps -f page=1",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			body, err := a.apiBody(data, input, fields)
			if err != nil {
				return err
			}
			if method == "" {
				method = "GET"
				if body != nil {
					method = "POST"
				}
			}
			path, err := apiPath(as[0], query)
			if err != nil {
				return err
			}
			var send any
			if body != nil {
				send = json.RawMessage(body)
			}
			rc, err := s.api.Stream(c.Context(), strings.ToUpper(method), path, send)
			if err != nil {
				return a.explain(s, err)
			}
			defer rc.Close()
			if silent {
				_, err = io.Copy(io.Discard, rc)
				return err
			}
			_, err = io.Copy(a.Stdout, rc)
			return err
		}}
	f := c.Flags()
	f.StringVarP(&method, "method", "X", "", "HTTP method (default: GET, POST with a body)")
	f.StringArrayVarP(&query, "query", "f", nil, "query parameter key=value (repeatable)")
	f.StringArrayVarP(&fields, "field", "F", nil, "body field key=value (text) or key:=value (JSON) (repeatable)")
	f.StringVarP(&data, "data", "d", "", "request body")
	f.StringVar(&input, "input", "", "read the body from a file (- for stdin)")
	f.BoolVar(&silent, "silent", false, "do not print the answer")
	return c
}

// apiPath keeps the request at the API: a full URL would carry the key elsewhere.
func apiPath(endpoint string, query []string) (string, error) {
	if strings.Contains(endpoint, "://") || strings.HasPrefix(endpoint, "//") {
		return "", usage("%q is a URL: give the path below the API prefix, like /auth/me", endpoint)
	}
	path := "/" + strings.TrimLeft(strings.TrimPrefix(strings.TrimLeft(endpoint, "/"), "api/v1"), "/")
	q := url.Values{}
	for _, kv := range query {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return "", usage("-f %q: want key=value", kv)
		}
		q.Add(k, v)
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

func (a *app) apiBody(data, input string, fields []string) ([]byte, error) {
	var b []byte
	var err error
	switch {
	case data != "":
		b = []byte(data)
	case input == "-":
		b, err = io.ReadAll(io.LimitReader(a.Stdin, 16<<20))
	case input != "":
		b, err = os.ReadFile(a.path(input))
	case len(fields) > 0:
		return fieldsBody(fields)
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

func fieldsBody(fields []string) ([]byte, error) {
	m := map[string]any{}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return nil, usage("-F %q: want key=value or key:=json", f)
		}
		if key, typed := strings.CutSuffix(k, ":"); typed {
			if !json.Valid([]byte(v)) {
				return nil, usage("-F %s: %q is not JSON", key, v)
			}
			m[key] = json.RawMessage(v)
			continue
		}
		m[k] = v
	}
	return json.Marshal(m)
}
