package collateral

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// reader takes typed values out of a document that checkKeys accepted. Unlike
// encoding/json it knows a member by its exact name alone and takes no null for a
// value. The first value of another kind ends it.
type reader struct {
	scanner
	err error
}

// object reads an object: member must take the value of each key.
func (r *reader) object(member func(key []byte)) {
	if !r.open('{') {
		return
	}
	for r.err == nil {
		r.space()
		switch r.b[r.i] {
		case '}':
			r.i++
			return
		case ',':
			r.i++
			r.space()
		}
		key := r.text()
		r.space()
		r.i++ // the colon
		member(key)
	}
}

// list reads a list: element must take each value.
func (r *reader) list(element func()) {
	if !r.open('[') {
		return
	}
	for r.err == nil {
		r.space()
		switch r.b[r.i] {
		case ']':
			r.i++
			return
		case ',':
			r.i++
		}
		element()
	}
}

func (r *reader) open(c byte) bool {
	r.space()
	if r.err != nil || r.b[r.i] != c {
		r.fail(string(c))
		return false
	}
	r.i++
	return true
}

func (r *reader) fail(want string) {
	if r.err == nil {
		r.err = fmt.Errorf("%.20q at byte %d, want %s", r.b[r.i:], r.i, want)
	}
}

// skip passes over a value that nothing rests on.
func (r *reader) skip() { r.err = r.value(1) }

func (r *reader) str() string {
	r.space()
	if r.b[r.i] != '"' {
		r.fail("a string")
		return ""
	}
	from := r.i
	raw := r.text()
	if !slices.ContainsFunc(raw, func(c byte) bool { return c == '\\' || c > 0x7e }) {
		return string(raw)
	}
	var s string
	if err := json.Unmarshal(r.b[from:r.i], &s); err != nil {
		r.err = err
	}
	return s
}

func (r *reader) integer() int {
	r.space()
	from := r.i
	for r.i < len(r.b) && (r.b[r.i] == '-' || '0' <= r.b[r.i] && r.b[r.i] <= '9') {
		r.i++
	}
	n, err := strconv.Atoi(string(r.b[from:r.i]))
	if err != nil || r.i < len(r.b) && (r.b[r.i] == '.' || r.b[r.i]|0x20 == 'e') {
		r.i = from
		r.fail("an integer")
		return 0
	}
	return n
}

func (r *reader) strings() (out []string) {
	out = []string{}
	r.list(func() { out = append(out, r.str()) })
	return out
}

func decodeTCBInfo(b []byte) (j jsonTCBInfo, err error) {
	r := &reader{scanner: scanner{b: b}}
	r.object(func(key []byte) {
		switch string(key) {
		case "id":
			j.ID = r.str()
		case "version":
			j.Version = r.integer()
		case "issueDate":
			j.IssueDate = r.str()
		case "nextUpdate":
			j.NextUpdate = r.str()
		case "fmspc":
			j.FMSPC = r.str()
		case "pceId":
			j.PCEID = r.str()
		case "tcbType":
			j.TCBType = r.integer()
		case "tcbEvaluationDataNumber":
			j.EvalNumber = r.integer()
		case "tdxModule":
			m := r.module()
			j.Module = &m
		case "tdxModuleIdentities":
			j.Modules = []jsonModule{}
			r.list(func() { j.Modules = append(j.Modules, r.module()) })
		case "tcbLevels":
			j.Levels = []jsonLevel{}
			r.list(func() { j.Levels = append(j.Levels, r.level()) })
		default:
			r.skip()
		}
	})
	return j, r.err
}

func (r *reader) module() (m jsonModule) {
	r.object(func(key []byte) {
		switch string(key) {
		case "id":
			m.ID = r.str()
		case "mrsigner":
			m.MRSigner = r.str()
		case "attributes":
			m.Attributes = r.str()
		case "attributesMask":
			m.AttributesMask = r.str()
		case "tcbLevels":
			m.Levels = r.svnLevels()
		default:
			r.skip()
		}
	})
	return m
}

func (r *reader) level() (l jsonLevel) {
	r.object(func(key []byte) {
		switch string(key) {
		case "tcb":
			r.object(func(key []byte) {
				switch string(key) {
				case "sgxtcbcomponents":
					l.TCB.SGX = r.components()
				case "tdxtcbcomponents":
					l.TCB.TDX = r.components()
				case "pcesvn":
					n := r.integer()
					l.TCB.PCESVN = &n
				default:
					r.skip()
				}
			})
		case "tcbStatus":
			l.Status = r.str()
		case "advisoryIDs":
			l.Advisories = r.strings()
		default:
			r.skip()
		}
	})
	return l
}

func (r *reader) components() []jsonComponent {
	out := make([]jsonComponent, 0, 16)
	r.list(func() {
		c := jsonComponent{SVN: -1} // out of range, if it is missing
		r.object(func(key []byte) {
			if string(key) == "svn" {
				c.SVN = r.integer()
				return
			}
			r.skip()
		})
		out = append(out, c)
	})
	return out
}

func (r *reader) svnLevels() []jsonSVNLevel {
	out := []jsonSVNLevel{}
	r.list(func() {
		var l jsonSVNLevel
		r.object(func(key []byte) {
			switch string(key) {
			case "tcb":
				r.object(func(key []byte) {
					if string(key) == "isvsvn" {
						n := r.integer()
						l.TCB.SVN = &n
						return
					}
					r.skip()
				})
			case "tcbStatus":
				l.Status = r.str()
			case "advisoryIDs":
				l.Advisories = r.strings()
			default:
				r.skip()
			}
		})
		out = append(out, l)
	})
	return out
}

func decodeQEIdentity(b []byte) (j jsonQEIdentity, err error) {
	r := &reader{scanner: scanner{b: b}}
	r.object(func(key []byte) {
		switch string(key) {
		case "id":
			j.ID = r.str()
		case "version":
			j.Version = r.integer()
		case "issueDate":
			j.IssueDate = r.str()
		case "nextUpdate":
			j.NextUpdate = r.str()
		case "tcbEvaluationDataNumber":
			j.EvalNumber = r.integer()
		case "miscselect":
			j.MiscSelect = r.str()
		case "miscselectMask":
			j.MiscSelectMask = r.str()
		case "attributes":
			j.Attributes = r.str()
		case "attributesMask":
			j.AttributesMask = r.str()
		case "mrsigner":
			j.MRSigner = r.str()
		case "isvprodid":
			n := r.integer()
			j.ISVProdID = &n
		case "tcbLevels":
			j.Levels = r.svnLevels()
		default:
			r.skip()
		}
	})
	return j, r.err
}
