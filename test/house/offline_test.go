package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestVerifyPathHasNoNetwork: nothing that verification links, directly or through
// others, speaks HTTP or starts programs, and floors 0-1 dial nothing: collateral is
// fetched (attest/fetch), then evidence is verified.
func TestVerifyPathHasNoNetwork(t *testing.T) {
	forbidden := []string{"net/http", "net/rpc", "net/smtp", "os/exec", "plugin", "syscall/js", module + "/attest/fetch", module + "/internal/rpc"}
	dials := map[string][]string{
		"net":        {"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialUnix", "DialIP", "Dialer", "Listen", "ListenPacket", "LookupHost", "LookupIP", "LookupAddr", "Resolver"},
		"crypto/tls": {"Dial", "DialWithDialer", "Dialer", "Listen"},
	}
	seen := 0
	for _, p := range list(t) {
		if _, f := floorOf(p.rel()); f > 1 || p.rel() == "" {
			continue
		}
		seen++
		out, err := exec.Command("go", "list", "-deps", p.ImportPath).Output()
		if err != nil {
			t.Fatalf("%s: %v", p.rel(), err)
		}
		for dep := range strings.FieldsSeq(string(out)) {
			if slices.Contains(forbidden, dep) {
				t.Errorf("%s links %s", p.rel(), dep)
			}
		}
		for _, file := range p.GoFiles {
			dialling(t, p, file, dials)
		}
	}
	if seen < 10 {
		t.Errorf("only %d packages were looked at", seen)
	}
}

func dialling(t *testing.T, p pkg, file string, dials map[string][]string) {
	t.Helper()
	src, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for _, im := range src.Imports {
		path := strings.Trim(im.Path.Value, `"`)
		n := filepath.Base(path)
		if im.Name != nil {
			n = im.Name.Name
		}
		names[n] = path
	}
	ast.Inspect(src, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && slices.Contains(dials[names[x.Name]], sel.Sel.Name) {
				t.Errorf("%s/%s uses %s.%s", p.rel(), file, x.Name, sel.Sel.Name)
			}
		}
		return true
	})
}
