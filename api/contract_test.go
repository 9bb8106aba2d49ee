package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
)

// The OpenAPI document as far as the contract test reads it.
type document struct {
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
	} `json:"components"`
}

type operation struct {
	Parameters []struct {
		Name     string `json:"name"`
		In       string `json:"in"`
		Required bool   `json:"required"`
		Schema   schema `json:"schema"`
	} `json:"parameters"`
	RequestBody *struct {
		Content map[string]struct {
			Schema schema `json:"schema"`
		} `json:"content"`
	} `json:"requestBody"`
}

type schema struct {
	Ref        string            `json:"$ref"`
	Type       any               `json:"type"` // a name, or several
	Enum       []any             `json:"enum"`
	Format     string            `json:"format"`
	Properties map[string]schema `json:"properties"`
	Required   []string          `json:"required"`
	Items      *schema           `json:"items"`
	OneOf      []schema          `json:"oneOf"`
	MaxItems   int               `json:"maxItems"`
	Minimum    *float64          `json:"minimum"`
}

// gen makes values for a schema: most are valid, some are anything.
type gen struct {
	r    *rand.Rand
	doc  *document
	ids  []string
	wild float64 // the share of values that do not care about the schema
}

func (g *gen) pick(v ...any) any { return v[g.r.IntN(len(v))] }

// anything is what no schema expects.
func (g *gen) anything() any {
	return g.pick(nil, true, -1, 1e300, 9007199254740993, "", "\x00", "\u202e\U0010ffff", strings.Repeat("A", 70000), "../../etc/passwd", "' OR 1=1 --",
		"${jndi:x}", "0x"+strings.Repeat("f", 64), []any{}, []any{[]any{[]any{}}}, map[string]any{}, map[string]any{"a": map[string]any{"b": nil}},
		strings.Repeat("[", 200), "2006-01-02T15:04:05Z", "-9223372036854775808")
}

func (g *gen) value(s schema, depth int) any {
	if g.r.Float64() < g.wild {
		return g.anything()
	}
	if s.Ref != "" {
		return g.value(g.doc.Components.Schemas[s.Ref[strings.LastIndex(s.Ref, "/")+1:]], depth)
	}
	if len(s.OneOf) > 0 {
		return g.value(s.OneOf[g.r.IntN(len(s.OneOf))], depth)
	}
	if len(s.Enum) > 0 {
		return g.pick(s.Enum...)
	}
	kind, _ := s.Type.(string)
	if list, ok := s.Type.([]any); ok && len(list) > 0 {
		kind, _ = list[g.r.IntN(len(list))].(string)
	}
	switch {
	case kind == "object" && depth < 6:
		return g.object(s, depth)
	case kind == "array" && depth < 6:
		out := []any{}
		for range g.r.IntN(4) {
			if s.Items != nil {
				out = append(out, g.value(*s.Items, depth+1))
			}
		}
		return out
	case kind == "integer":
		return g.pick(0, 1, 2, 10, 100, 1<<31, -5)
	case kind == "number":
		return g.pick(0.0, 1.5, -2.25, 1e12)
	case kind == "boolean":
		return g.r.IntN(2) == 0
	case kind == "string":
		return g.text(s)
	}
	return g.anything()
}

func (g *gen) object(s schema, depth int) any {
	out := map[string]any{}
	for name, p := range s.Properties {
		if slices.Contains(s.Required, name) || g.r.IntN(2) == 0 {
			out[name] = g.value(p, depth+1)
		}
	}
	if len(s.Properties) == 0 || g.r.IntN(8) == 0 {
		out[g.pick("unknown", "docker_compose_file", "__proto__", "").(string)] = g.anything()
	}
	return out
}

func (g *gen) text(s schema) any {
	switch s.Format {
	case "date-time":
		return g.pick("2030-01-01T00:00:00Z", "not a time")
	case "uuid":
		return nobody
	}
	return g.pick("a", "some-name", "tdx.small", composeYAML, g.ids[g.r.IntN(len(g.ids))], strings.Repeat("ab", 20), strings.Repeat("cd", 32), "0x"+strings.Repeat("12", 20),
		"ssh-ed25519 AAAA x", "user@example.com", "https://example.com/hook", "é", "")
}

// request makes one call of an operation.
func (g *gen) request(base, path, method string, op operation) (*http.Request, error) {
	query, header := url.Values{}, http.Header{}
	for _, p := range op.Parameters {
		v := fmt.Sprint(g.value(p.Schema, 5))
		switch p.In {
		case "path":
			id := g.ids[g.r.IntN(len(g.ids))]
			if g.r.IntN(4) == 0 {
				id = v
			}
			if len(id) > 2000 || id == "" || id == "." || id == ".." {
				id = "x"
			}
			path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(id))
		case "query":
			if p.Required || g.r.IntN(2) == 0 {
				query.Set(p.Name, v[:min(len(v), 3000)])
			}
		case "header":
			if g.r.IntN(3) == 0 && !strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
				header.Set(p.Name, v[:min(len(v), 1000)])
			}
		}
	}
	body, kind := []byte(nil), "application/json"
	if op.RequestBody != nil {
		for k, c := range op.RequestBody.Content {
			b, err := json.Marshal(g.value(c.Schema, 0))
			if err != nil {
				return nil, err
			}
			body, kind = b, k
		}
		switch g.r.IntN(12) {
		case 0:
			body = body[:len(body)/2]
		case 1:
			body = []byte(strings.Repeat("[", 100000))
		case 2:
			body = nil
		case 3:
			kind = fmt.Sprint(g.pick("text/plain", "text/yaml", "application/x-www-form-urlencoded", "multipart/form-data", "application/json; charset=utf-7"))
		}
	}
	if strings.Contains(path, "{") {
		path = strings.NewReplacer("{", "", "}", "").Replace(path)
	}
	r, err := http.NewRequest(strings.ToUpper(method), base+path+"?"+query.Encode(), bytes.NewReader(body))
	if err == nil {
		header.Set("Content-Type", kind)
		r.Header = header
	}
	return r, err
}

// errorShape checks an error body: {"detail": text | [problems] | {message}}.
func errorShape(body []byte) error {
	var e struct{ Detail json.RawMessage }
	if err := json.Unmarshal(body, &e); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	var text string
	var list []cloudapi.Validation
	var one cloudapi.ErrorDetail
	switch {
	case json.Unmarshal(e.Detail, &text) == nil && text != "":
	case json.Unmarshal(e.Detail, &list) == nil && len(list) > 0:
		for _, p := range list {
			if p.Msg == "" || p.Type == "" || len(p.Loc) == 0 {
				return fmt.Errorf("problem without loc, msg or type: %+v", p)
			}
		}
	case json.Unmarshal(e.Detail, &one) == nil && one.Message != "":
	case bytes.Contains(e.Detail, []byte(`"error_description":"`)): // RFC 6749, of the device login
	default:
		return fmt.Errorf("detail is %.200s", e.Detail)
	}
	return nil
}

// TestContract: every operation with generated input: never a 5xx, always the
// documented shape. PHALA_LONG=1 takes 25 times as many.
func TestContract(t *testing.T) {
	seed := uint64(20261121)
	rounds := 8
	if os.Getenv("PHALA_LONG") != "" {
		rounds, seed = 200, uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d, %d requests for each operation", seed, rounds)
	w := newWorld(t, offChain)
	vm := w.offChainApp("mine-app", nil)
	doc := w.openapi()
	g := &gen{r: rand.New(rand.NewPCG(seed, 1)), doc: doc, wild: 0.15,
		ids: []string{*vm.VMUUID, vm.AppID, vm.Name, fmt.Sprint(vm.ID), nobody, "app_" + vm.AppID, "default", "0", "1", "%00", "x y"}}
	client := &http.Client{Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, path := range sorted(doc.Paths) {
		for _, method := range sorted(doc.Paths[path]) {
			if strings.HasSuffix(path, "/logout") {
				continue
			}
			for range rounds {
				r, err := g.request(w.url, path, method, doc.Paths[path][method])
				if err != nil {
					continue // not a request: the client's own library refused it
				}
				w.judge(client, r)
			}
		}
	}
	if strings.Contains(w.logs.String(), "panic") {
		t.Error("the log holds a panic")
	}
}

// judge sends one request and looks at the answer's form.
func (w *world) judge(client *http.Client, r *http.Request) {
	w.t.Helper()
	r.Header.Set("X-API-Key", w.key)
	sent := r.Method + " " + r.URL.String()
	res, err := client.Do(r)
	if err != nil {
		w.t.Errorf("%.300s: %v", sent, err)
		return
	}
	defer res.Body.Close()
	if res.StatusCode < 400 {
		return // streams go on
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		w.t.Errorf("%.300s: %v", sent, err)
	}
	// Above 499 only: the node is away; this cloud does not offer it.
	known := bytes.Contains(body, []byte(`"code":"unavailable"`)) || res.StatusCode == http.StatusNotImplemented && bytes.Contains(body, []byte(`"code":"unsupported"`))
	if res.StatusCode >= 500 && !known {
		w.t.Errorf("%.300s: %d %.300s", sent, res.StatusCode, body)
	}
	if kind := res.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
		w.t.Errorf("%.300s: %d as %s", sent, res.StatusCode, kind)
	} else if err := errorShape(body); err != nil && r.Method != http.MethodHead { // whose answer has no body
		w.t.Errorf("%.300s: %d: %v", sent, res.StatusCode, err)
	}
	if res.StatusCode == http.StatusUnauthorized { // the input ended our own key
		if w.key, err = w.srv.NewAdminKey(w.t.Context(), "again"); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) openapi() *document {
	w.t.Helper()
	res, err := http.Get(w.url + cloudapi.Prefix + "/openapi.json")
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	doc := &document{}
	if err := json.NewDecoder(res.Body).Decode(doc); err != nil || len(doc.Paths) < 50 {
		w.t.Fatalf("OpenAPI document with %d paths: %v", len(doc.Paths), err)
	}
	return doc
}

func sorted[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
