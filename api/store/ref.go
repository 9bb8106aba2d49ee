package store

import (
	"regexp"
	"strconv"
	"strings"
)

// Ref is a parsed reference to a CVM; exactly one field is set.
type Ref struct {
	UUID          string // dashed
	AppOrInstance string // 40 hex: clients write app_ before instance ids too
	Instance      string // 40 hex
	ID            int64
	Name          string
}

var (
	hex40  = regexp.MustCompile(`^[0-9a-f]{40}$`)
	hex32  = regexp.MustCompile(`^[0-9a-f]{32}$`)
	dashed = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// HashID is the public id of a CVM: cvm_ and its uuid without dashes.
func HashID(uuid string) string { return "cvm_" + strings.ReplaceAll(uuid, "-", "") }

// ParseRef reads every form in which clients name a CVM: uuid with or without
// dashes, cvm_ id, numeric id, app id (bare, 0x, app_), instance id (instance_,
// app_), or name. Names start with a letter and hold no underscore, so a name of 32
// or 40 hex digits is the only ambiguous one, and is read as an id.
func ParseRef(s string) Ref {
	l := strings.ToLower(s)
	switch u := strings.TrimPrefix(l, "cvm_"); {
	case dashed.MatchString(l):
		return Ref{UUID: l}
	case hex32.MatchString(u):
		return Ref{UUID: u[:8] + "-" + u[8:12] + "-" + u[12:16] + "-" + u[16:20] + "-" + u[20:]}
	}
	if i, ok := strings.CutPrefix(l, "instance_"); ok && hex40.MatchString(i) {
		return Ref{Instance: i}
	}
	if a := strings.TrimPrefix(strings.TrimPrefix(l, "app_"), "0x"); hex40.MatchString(a) {
		return Ref{AppOrInstance: a}
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > 0 && s[0] != '+' {
		return Ref{ID: n}
	}
	return Ref{Name: s}
}
