package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/api/cloudapi"
)

// differences lists every intended difference from the recorded public document:
// "METHOD PATH KIND [NAME] -- reason". KIND is operation (ours has none), query,
// body or answer (ours does not declare the field NAME).
const differences = "testdata/differences.txt"

type publicSchema struct {
	Ref        string                  `json:"$ref"`
	Properties map[string]publicSchema `json:"properties"`
	Items      *publicSchema           `json:"items"`
	AnyOf      []publicSchema          `json:"anyOf"`
	OneOf      []publicSchema          `json:"oneOf"`
	AllOf      []publicSchema          `json:"allOf"`
}

type content map[string]struct {
	Schema publicSchema `json:"schema"`
}

type publicOp struct {
	Parameters []struct {
		Name string `json:"name"`
		In   string `json:"in"`
	} `json:"parameters"`
	RequestBody struct {
		Content content `json:"content"`
	} `json:"requestBody"`
	Responses map[string]struct {
		Content content `json:"content"`
	} `json:"responses"`
}

type publicDoc struct {
	Paths      map[string]map[string]json.RawMessage `json:"paths"`
	Components struct {
		Schemas map[string]publicSchema `json:"schemas"`
	} `json:"components"`
}

// fields are the names of an object's members, those of a list's items and of a
// page's data included; depth bounds recursion into wrappers.
func (d *publicDoc) fields(s publicSchema, depth int) map[string]bool {
	out := map[string]bool{}
	if depth > 6 {
		return out
	}
	if s.Ref != "" {
		return d.fields(d.Components.Schemas[s.Ref[strings.LastIndex(s.Ref, "/")+1:]], depth+1)
	}
	for name := range s.Properties {
		out[name] = true
	}
	parts := slices.Concat(s.AnyOf, s.OneOf, s.AllOf)
	if s.Items != nil {
		parts = append(parts, *s.Items)
	}
	for _, p := range parts {
		for name := range d.fields(p, depth+1) {
			out[name] = true
		}
	}
	return out
}

func (d *publicDoc) content(c content) map[string]bool {
	for kind, v := range c {
		if strings.Contains(kind, "json") {
			return d.fields(v.Schema, 0)
		}
	}
	return nil
}

// success is the answer's fields, nil when the document does not say.
func (d *publicDoc) success(op publicOp) map[string]bool {
	for _, status := range []string{"200", "201", "202"} {
		if r, ok := op.Responses[status]; ok {
			return d.content(r.Content)
		}
	}
	return nil
}

var pathParam = regexp.MustCompile(`\{[^}]*\}`)

func (d *publicDoc) operations(t *testing.T) map[string]publicOp {
	t.Helper()
	out := map[string]publicOp{}
	for path, methods := range d.Paths {
		for method, raw := range methods {
			if !slices.Contains([]string{"get", "post", "put", "patch", "delete"}, method) {
				continue
			}
			var op publicOp
			if err := json.Unmarshal(raw, &op); err != nil {
				t.Fatalf("%s %s: %v", method, path, err)
			}
			out[strings.ToUpper(method)+" "+pathParam.ReplaceAllString(strings.TrimPrefix(path, cloudapi.Prefix), "{}")] = op
		}
	}
	return out
}

func names(op publicOp, in string) map[string]bool {
	out := map[string]bool{}
	for _, p := range op.Parameters {
		if p.In == in {
			out[p.Name] = true
		}
	}
	return out
}

// less lists what of theirs ours does not declare.
func less(line, kind string, theirs, ours map[string]bool) (out []string) {
	for _, name := range sorted(theirs) {
		if !ours[name] {
			out = append(out, fmt.Sprintf("%s %s %s", line, kind, name))
		}
	}
	return out
}

// TestPublicDocument compares with the recorded public OpenAPI document: every
// difference must be listed with its reason, and every listed one must exist.
func TestPublicDocument(t *testing.T) {
	public := readPublic(t)
	w := newWorld(t, nil)
	code, text := w.raw("GET", "/openapi.json", nil, nil)
	var own publicDoc
	if err := json.Unmarshal([]byte(text), &own); err != nil || code != 200 {
		t.Fatalf("%d: %v", code, err)
	}
	ours := own.operations(t)
	var found []string
	for line, op := range public.operations(t) {
		mine, ok := ours[line]
		if !ok {
			found = append(found, line+" operation")
			continue
		}
		found = append(found, less(line, "query", names(op, "query"), names(mine, "query"))...)
		found = append(found, less(line, "body", public.content(op.RequestBody.Content), own.content(mine.RequestBody.Content))...)
		if answer := own.success(mine); len(answer) > 0 {
			found = append(found, less(line, "answer", public.success(op), answer)...)
		}
	}
	slices.Sort(found)
	listed := readDifferences(t)
	if *update {
		writeDifferences(t, found, listed)
		listed = readDifferences(t)
	}
	for _, f := range found {
		if why := listed[f]; why == "" || why == "?" {
			t.Errorf("not listed in %s, or without a reason: %s", differences, f)
		}
	}
	for _, f := range sorted(listed) {
		if !slices.Contains(found, f) {
			t.Errorf("%s lists what is no difference (any more): %s", differences, f)
		}
	}
	t.Logf("%d public operations, %d of them ours, %d listed differences", len(public.operations(t)), len(public.operations(t))-count(found, " operation"), len(listed))
}

func count(lines []string, suffix string) (n int) {
	for _, l := range lines {
		if strings.HasSuffix(l, suffix) {
			n++
		}
	}
	return n
}

func readPublic(t *testing.T) *publicDoc {
	t.Helper()
	for dir := ".."; len(dir) < 20; dir = filepath.Join(dir, "..") {
		b, err := os.ReadFile(filepath.Join(dir, "shared", "reference", "phala-cloud-openapi.json"))
		if err != nil {
			continue
		}
		var d publicDoc
		if err := json.Unmarshal(b, &d); err != nil {
			t.Fatal(err)
		}
		return &d
	}
	t.Skip("SKIPPED: ../shared/reference/phala-cloud-openapi.json is not here")
	return nil
}

func readDifferences(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	f, err := os.Open(differences)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line, why, ok := strings.Cut(sc.Text(), " -- ")
		if ok && !strings.HasPrefix(line, "#") {
			out[line] = strings.TrimSpace(why)
		}
	}
	return out
}

func writeDifferences(t *testing.T, found []string, listed map[string]string) {
	t.Helper()
	b := &strings.Builder{}
	b.WriteString("# Intended differences from the recorded public API document, each with its reason (api/compat_test.go).\n")
	for _, f := range found {
		why := listed[f]
		if why == "" {
			why = "?"
		}
		fmt.Fprintf(b, "%s -- %s\n", f, why)
	}
	if err := os.WriteFile(differences, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
