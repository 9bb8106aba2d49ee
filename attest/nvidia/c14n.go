package nvidia

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Canonicalisations (W3C), without comments.
const (
	c14n10  = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"
	c14n11  = "http://www.w3.org/2006/12/xml-c14n11"
	c14nExc = "http://www.w3.org/2001/10/xml-exc-c14n#"
)

// canonical writes a subtree in canonical form, without the element skip. ok is
// false for a method that is not known here.
func canonical(e, skip *element, method string) (out []byte, ok bool) {
	if method != c14n10 && method != c14n11 && method != c14nExc {
		return nil, false
	}
	for x := e.parent; x != nil && method == c14n11; x = x.parent {
		// C14N 1.1 would join it with the subtree's own: no RIM needs that.
		if slices.ContainsFunc(x.attrs, func(a attr) bool { return a.space == spaceXML && a.local == "base" }) {
			return nil, false
		}
	}
	w := &writer{method: method, skip: skip}
	w.element(e, map[string]string{"": ""}, true)
	return []byte(w.String()), true
}

type writer struct {
	strings.Builder
	method string
	skip   *element
}

// element writes e; written is what the ancestors in the output declared.
func (w *writer) element(e *element, written map[string]string, apex bool) {
	if e == w.skip {
		return
	}
	want := w.namespaces(e, apex)
	name := qualified(e.prefix, e.local)
	w.WriteString("<" + name)
	mine := written
	for _, prefix := range slices.Sorted(maps.Keys(want)) {
		uri := want[prefix]
		if old, ok := mine[prefix]; ok && old == uri {
			continue
		}
		mine = maps.Clone(mine)
		mine[prefix] = uri
		if prefix == "" {
			w.WriteString(` xmlns="` + escapeAttr(uri) + `"`)
		} else {
			w.WriteString(` xmlns:` + prefix + `="` + escapeAttr(uri) + `"`)
		}
	}
	attrs := slices.Clone(e.attrs)
	if apex && w.method != c14nExc {
		attrs = append(attrs, inherited(e, w.method)...)
	}
	slices.SortFunc(attrs, func(a, b attr) int {
		return cmp.Or(strings.Compare(a.space, b.space), strings.Compare(a.local, b.local))
	})
	for _, a := range attrs {
		w.WriteString(" " + qualified(a.prefix, a.local) + `="` + escapeAttr(a.value) + `"`)
	}
	w.WriteString(">")
	for _, k := range e.kids {
		switch k := k.(type) {
		case string:
			w.WriteString(escapeText(k))
		case *element:
			w.element(k, mine, false)
		}
	}
	w.WriteString("</" + name + ">")
}

// namespaces lists what must be in scope at e: inclusively all that is declared,
// exclusively what e itself uses.
func (w *writer) namespaces(e *element, apex bool) map[string]string {
	want := map[string]string{}
	if w.method == c14nExc {
		want[e.prefix] = e.space
		for _, a := range e.attrs {
			if a.prefix != "" {
				want[a.prefix] = a.space
			}
		}
		delete(want, "xml") // always bound
		return want
	}
	for x := e; x != nil && (x == e || apex); x = x.parent {
		for _, d := range x.decls {
			if _, ok := want[d.prefix]; !ok {
				want[d.prefix] = d.uri
			}
		}
	}
	return want
}

// inherited are the xml: attributes of the ancestors, which inclusive forms carry
// into a subtree (C14N 1.1 leaves xml:id where it is).
func inherited(e *element, method string) (out []attr) {
	seen := map[string]bool{}
	for _, a := range e.attrs {
		if a.space == spaceXML {
			seen[a.local] = true
		}
	}
	for x := e.parent; x != nil; x = x.parent {
		for _, a := range x.attrs {
			if a.space != spaceXML || seen[a.local] || method == c14n11 && a.local == "id" {
				continue
			}
			seen[a.local] = true
			out = append(out, a)
		}
	}
	return out
}

func qualified(prefix, local string) string {
	if prefix == "" {
		return local
	}
	return prefix + ":" + local
}

func escapeText(s string) string {
	if !strings.ContainsAny(s, "&<>\r") {
		return s
	}
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\r", "&#xD;").Replace(s)
}

func escapeAttr(s string) string {
	if !strings.ContainsAny(s, "&<\"\t\n\r") {
		return s
	}
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", `"`, "&quot;", "\t", "&#x9;", "\n", "&#xA;", "\r", "&#xD;").Replace(s)
}
