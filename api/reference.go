package api

import (
	"bytes"
	"crypto/rand"
	_ "embed" // the page
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"github.com/confidential-cloud/phala/api/cloudapi"
)

// The reference page is the OpenAPI document for people: made by the server, without
// scripts and without anything from elsewhere.

//go:embed pages/reference.html
var referenceHTML string

type refPage struct {
	Title, About, Nonce string
	Groups              []*refGroup
}

type refGroup struct {
	Name       string
	Operations []refOperation
}

type refOperation struct {
	ID, Method, Path, Summary, Who string
	Tables                         []refTable
}

type refTable struct {
	Title string
	Rows  []refField
}

type refField struct {
	Name, Type, About string
	Required          bool
}

// reference serves the page; the document does not change any more.
func (s *Server) reference(mux *chi.Mux, api huma.API) {
	t := template.Must(template.New("reference").Parse(referenceHTML)) // embedded: parses, or no test passes
	p := referencePage(api.OpenAPI())
	mux.Get(cloudapi.Prefix+"/docs", func(w http.ResponseWriter, _ *http.Request) {
		b := make([]byte, 16)
		_, _ = rand.Read(b) // never fails
		page := p
		page.Nonce = base64.RawURLEncoding.EncodeToString(b)
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+page.Nonce+"'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("X-Frame-Options", "DENY")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store") // the nonce is for one answer
		var out bytes.Buffer
		if err := t.Execute(&out, page); err != nil {
			s.log.Error("reference page", "err", err)
			http.Error(w, "the page cannot be shown", http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(out.Bytes())
	})
}

// referencePage turns the document into what the page shows, by tag and path.
func referencePage(doc *huma.OpenAPI) refPage {
	p := refPage{Title: doc.Info.Title, About: doc.Info.Description}
	groups := map[string]*refGroup{}
	paths := make([]string, 0, len(doc.Paths))
	for path := range doc.Paths {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		i := doc.Paths[path]
		for _, o := range []*huma.Operation{i.Get, i.Head, i.Post, i.Put, i.Patch, i.Delete} {
			if o == nil || len(o.Tags) == 0 {
				continue
			}
			g := groups[o.Tags[0]]
			if g == nil {
				g = &refGroup{Name: o.Tags[0]}
				groups[g.Name], p.Groups = g, append(p.Groups, g)
			}
			g.Operations = append(g.Operations, refOperation{ID: o.OperationID, Method: o.Method, Path: o.Path, Summary: o.Summary, Who: whoMay(o), Tables: refTables(doc.Components.Schemas, o)})
		}
	}
	slices.SortFunc(p.Groups, func(a, b *refGroup) int { return strings.Compare(a.Name, b.Name) })
	return p
}

func whoMay(o *huma.Operation) string {
	a, ok := o.Metadata[accessKey].(access)
	switch {
	case !ok || a.public:
		return "Anybody."
	case a.stepUp:
		return fmt.Sprintf("Role %s or more, key scope %s, and a second factor.", a.role, a.scope)
	}
	return fmt.Sprintf("Role %s or more, key scope %s.", a.role, a.scope)
}

func refTables(r huma.Registry, o *huma.Operation) (out []refTable) {
	var params refTable
	params.Title = "Parameters"
	for _, p := range o.Parameters {
		params.Rows = append(params.Rows, refField{Name: p.Name, Type: p.In + ", " + typeName(p.Schema), About: refAbout(p.Schema), Required: p.Required})
	}
	add := func(t refTable) {
		if len(t.Rows) > 0 {
			out = append(out, t)
		}
	}
	add(params)
	if o.RequestBody != nil {
		for kind, m := range o.RequestBody.Content {
			add(refTable{"Body (" + kind + ")", refFields(r, m.Schema)})
		}
	}
	for _, status := range []string{"200", "201", "202"} {
		if a := o.Responses[status]; a != nil {
			for kind, m := range a.Content {
				add(refTable{"Answer " + status + " (" + kind + ")", refFields(r, m.Schema)})
			}
		}
	}
	return out
}

// refFields are an object's members, or those of a list's items.
func refFields(r huma.Registry, s *huma.Schema) (out []refField) {
	for depth := 0; s != nil && depth < 4; depth++ {
		switch {
		case s.Ref != "":
			s = r.SchemaFromRef(s.Ref)
		case s.Items != nil:
			s = s.Items
		default:
			for name, f := range s.Properties {
				out = append(out, refField{Name: name, Type: typeName(f), About: refAbout(f), Required: slices.Contains(s.Required, name)})
			}
			slices.SortFunc(out, func(a, b refField) int { return strings.Compare(a.Name, b.Name) })
			return out
		}
	}
	return nil
}

func refAbout(s *huma.Schema) string {
	if s == nil {
		return ""
	}
	return s.Description
}

func typeName(s *huma.Schema) string {
	switch {
	case s == nil:
		return "any"
	case s.Ref != "":
		return s.Ref[strings.LastIndex(s.Ref, "/")+1:]
	case s.Items != nil:
		return "list of " + typeName(s.Items)
	case s.Type == "":
		return "any"
	}
	return s.Type
}
