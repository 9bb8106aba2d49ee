package nvidia

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/confidential-cloud/phala/cvm"
)

// Limits of an XML document.
const (
	MaxRIM   = 2 << 20 // bytes
	maxDepth = 16
	maxNodes = 50_000
	maxAttrs = 64 // of one element
)

const spaceXML = "http://www.w3.org/XML/1998/namespace"

// attr is an attribute. A namespace declaration is kept apart, as a decl.
type attr struct{ prefix, local, space, value string }

type decl struct{ prefix, uri string }

// element is an XML element. A kid is a string or an *element.
type element struct {
	prefix, local, space string
	attrs                []attr
	decls                []decl
	kids                 []any
	parent               *element
}

// parseXML reads the subset of XML 1.0 with namespaces that signed RIMs need:
// UTF-8, an XML declaration, elements, attributes, text, comments (dropped). No
// document type, no CDATA, no processing instructions, no entities but the five
// predefined: what is not here cannot be read in two ways.
func parseXML(b []byte) (*element, error) {
	if len(b) > MaxRIM {
		return nil, refuseXML("%d bytes, at most %d", len(b), MaxRIM)
	}
	if !utf8.Valid(b) {
		return nil, refuseXML("not UTF-8")
	}
	for _, c := range b {
		if c < 0x20 && c != '\t' && c != '\n' && c != '\r' {
			return nil, refuseXML("a control character")
		}
	}
	// XML 1.0, 2.11: a line ends with LF, however it was written.
	b = bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
	p := &xmlParser{s: string(b)}
	if strings.HasPrefix(p.s, "<?xml ") {
		head, rest, ok := strings.Cut(p.s, "?>")
		if !ok || strings.Contains(head, "encoding") && !strings.Contains(strings.ToUpper(head), `"UTF-8"`) {
			return nil, refuseXML("its declaration is not for UTF-8")
		}
		p.s = rest
	}
	p.misc()
	root := p.element(nil, 0)
	p.misc()
	if p.err == nil && p.s != "" {
		p.fail("something follows the root element")
	}
	return root, p.err
}

type xmlParser struct {
	s     string
	nodes int
	err   error
}

func (p *xmlParser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = refuseXML(format, args...)
	}
	p.s = ""
}

func (p *xmlParser) space() bool {
	t := strings.TrimLeft(p.s, " \t\n")
	ok := len(t) < len(p.s)
	p.s = t
	return ok
}

// misc skips white space and comments outside the root.
func (p *xmlParser) misc() {
	for p.space() || p.comment() {
	}
}

func (p *xmlParser) comment() bool {
	rest, ok := strings.CutPrefix(p.s, "<!--")
	if !ok {
		return false
	}
	_, after, ok := strings.Cut(rest, "--")
	if !ok || !strings.HasPrefix(after, ">") {
		p.fail("a malformed comment")
		return false
	}
	p.s = after[1:]
	return true
}

// name takes prefix:local of ASCII letters, digits, '_', '-' and '.'.
func (p *xmlParser) name() (prefix, local string) {
	n := 0
	for n < len(p.s) {
		c := p.s[n]
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && c != ':' && c != '-' && c != '.' && (c < '0' || c > '9') {
			break
		}
		n++
	}
	full := p.s[:n]
	p.s = p.s[n:]
	prefix, local, ok := strings.Cut(full, ":")
	if !ok {
		prefix, local = "", full
	}
	if !ncName(local) || ok && !ncName(prefix) {
		p.fail("a malformed name %.40q", full)
	}
	return prefix, local
}

func ncName(s string) bool {
	return s != "" && !strings.Contains(s, ":") && !strings.Contains("-.0123456789", s[:1])
}

func (p *xmlParser) element(parent *element, depth int) *element {
	p.nodes++
	if !strings.HasPrefix(p.s, "<") || depth == maxDepth || p.nodes > maxNodes {
		p.fail("no element where one is due, or too many, or too deep")
		return nil
	}
	p.s = p.s[1:]
	e := &element{parent: parent}
	e.prefix, e.local = p.name()
	p.attributes(e)
	p.resolve(e)
	if p.err != nil {
		return nil
	}
	if rest, ok := strings.CutPrefix(p.s, "/>"); ok {
		p.s = rest
		return e
	}
	if !strings.HasPrefix(p.s, ">") {
		p.fail("a malformed tag of %s", e.local)
		return nil
	}
	p.s = p.s[1:]
	p.content(e, depth)
	prefix, local := p.name()
	p.space()
	if p.err == nil && (prefix != e.prefix || local != e.local || !strings.HasPrefix(p.s, ">")) {
		p.fail("%s is not closed", e.local)
	}
	if p.err != nil {
		return nil
	}
	p.s = p.s[1:]
	return e
}

// content takes what stands between the tags, and "</".
func (p *xmlParser) content(e *element, depth int) {
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			e.kids = append(e.kids, text.String())
			text.Reset()
		}
	}
	for p.err == nil {
		i := strings.IndexByte(p.s, '<')
		if i < 0 {
			p.fail("%s is not closed", e.local)
			return
		}
		raw := p.s[:i]
		p.s = p.s[i:]
		if strings.Contains(raw, "]]>") {
			p.fail("]]> in text")
			return
		}
		text.WriteString(p.unescape(raw))
		switch {
		case p.err != nil:
		case strings.HasPrefix(p.s, "</"):
			flush()
			p.s = p.s[2:]
			return
		case strings.HasPrefix(p.s, "<!"):
			if !p.comment() {
				p.fail("a document type or CDATA")
			}
		default:
			flush()
			if k := p.element(e, depth+1); k != nil {
				e.kids = append(e.kids, k)
			}
		}
	}
}

func (p *xmlParser) attributes(e *element) {
	for p.err == nil {
		spaced := p.space()
		if p.s == "" || p.s[0] == '>' || p.s[0] == '/' {
			return
		}
		prefix, local := p.name()
		rest, ok := strings.CutPrefix(p.s, "=")
		if !ok || !spaced || rest == "" || rest[0] != '"' && rest[0] != '\'' || len(e.attrs)+len(e.decls) == maxAttrs {
			p.fail("a malformed attribute of %s", e.local)
			return
		}
		raw, after, ok := strings.Cut(rest[1:], rest[:1])
		if !ok || strings.Contains(raw, "<") {
			p.fail("a malformed attribute of %s", e.local)
			return
		}
		p.s = after
		// XML 1.0, 3.3.3: white space that is written as such becomes a space.
		v := p.unescape(strings.ReplaceAll(strings.ReplaceAll(raw, "\t", " "), "\n", " "))
		switch {
		case prefix == "xmlns" && (local == "xml" || local == "xmlns" || v == "" || v == spaceXML), prefix == "" && local == "xmlns" && v == spaceXML:
			p.fail("a namespace that may not be declared")
		case prefix == "xmlns":
			e.decls = append(e.decls, decl{local, v})
		case prefix == "" && local == "xmlns":
			e.decls = append(e.decls, decl{"", v})
		default:
			e.attrs = append(e.attrs, attr{prefix: prefix, local: local, value: v})
		}
	}
}

// resolve finds the namespaces of an element and its attributes, and refuses
// what occurs twice.
func (p *xmlParser) resolve(e *element) {
	seen := map[string]bool{}
	once := func(k string) {
		if seen[k] {
			p.fail("%s has an attribute twice", e.local)
		}
		seen[k] = true
	}
	for _, d := range e.decls {
		once("xmlns:" + d.prefix)
	}
	var ok bool
	if e.space, ok = e.namespace(e.prefix); !ok {
		p.fail("prefix %.40q is not declared", e.prefix)
	}
	for i := range e.attrs {
		a := &e.attrs[i]
		if a.prefix != "" {
			if a.space, ok = e.namespace(a.prefix); !ok {
				p.fail("prefix %.40q is not declared", a.prefix)
			}
		}
		once(a.space + " " + a.local)
	}
}

// namespace is what a prefix stands for at an element.
func (e *element) namespace(prefix string) (string, bool) {
	if prefix == "xml" {
		return spaceXML, true
	}
	for x := e; x != nil; x = x.parent {
		for _, d := range x.decls {
			if d.prefix == prefix {
				return d.uri, true
			}
		}
	}
	return "", prefix == ""
}

// unescape resolves the predefined entities and character references.
func (p *xmlParser) unescape(s string) string {
	if !strings.Contains(s, "&") {
		return s
	}
	var out strings.Builder
	for {
		i := strings.IndexByte(s, '&')
		if i < 0 {
			out.WriteString(s)
			return out.String()
		}
		out.WriteString(s[:i])
		ref, rest, ok := strings.Cut(s[i+1:], ";")
		r, known := reference(ref)
		if !ok || !known {
			p.fail("an unknown entity")
			return ""
		}
		out.WriteRune(r)
		s = rest
	}
}

func reference(ref string) (rune, bool) {
	switch ref {
	case "lt":
		return '<', true
	case "gt":
		return '>', true
	case "amp":
		return '&', true
	case "quot":
		return '"', true
	case "apos":
		return '\'', true
	}
	num, ok := strings.CutPrefix(ref, "#")
	base := 10
	if x, hex := strings.CutPrefix(num, "x"); hex {
		num, base = x, 16
	}
	n, err := strconv.ParseUint(num, base, 32)
	r := rune(n)
	valid := n <= utf8.MaxRune && utf8.ValidRune(r) && r != 0xfffe && r != 0xffff && (r >= 0x20 || r == '\t' || r == '\n' || r == '\r')
	return r, ok && err == nil && len(num) <= 8 && valid
}

func refuseXML(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, "RIM: "+format, args...)
}
