package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
)

// site is one place where the code decides to refuse.
type site struct {
	ID    string // "attest/tdx/quote.go ParseQuote: keyType != keyTypeP256", with " #2" when it repeats
	Kind  kind
	file  string
	start int // of the expression, byte offsets into the file
	end   int

	becomes string // of a hand-written row: the new condition
}

// kind says what the mutation does to the expression.
type kind string

const (
	toFalse kind = "never"  // a condition that refuses never holds
	toTrue  kind = "always" // a condition that must hold to be accepted always holds
	toNil   kind = "nil"    // an error that is recorded or returned is nil
)

// finder walks one file.
type finder struct {
	fset *token.FileSet
	name string // relative to the repository
	src  []byte
	fn   *ast.FuncDecl
	out  []site
}

// find lists the sites of a Go file in order. src is its content.
func find(name string, src []byte) ([]site, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	f := &finder{fset: fset, name: name, src: src}
	for _, d := range file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		f.fn = fn
		f.walk(fn.Body, resultKind(fn.Type))
	}
	slices.SortStableFunc(f.out, func(a, b site) int { return a.start - b.start })
	return number(f.out), nil
}

// number makes identifiers unique by order of appearance.
func number(sites []site) []site {
	seen := map[string]int{}
	for i := range sites {
		id := sites[i].ID
		if seen[id]++; seen[id] > 1 {
			sites[i].ID = fmt.Sprintf("%s #%d", id, seen[id])
		}
	}
	return sites
}

// resultKind is the type name of a function's last result: "error", "bool" or other.
func resultKind(t *ast.FuncType) string {
	if t.Results == nil || len(t.Results.List) == 0 {
		return ""
	}
	last := t.Results.List[len(t.Results.List)-1].Type
	if id, ok := last.(*ast.Ident); ok {
		return id.Name
	}
	return "other"
}

func (f *finder) walk(n ast.Node, result string) {
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			f.walk(n.Body, resultKind(n.Type))
			return false
		case *ast.IfStmt:
			f.ifStmt(n, result)
		case *ast.SwitchStmt:
			if n.Tag == nil {
				f.cases(n, result)
			}
		case *ast.ReturnStmt:
			f.returns(n, result)
		case *ast.CallExpr:
			if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Try" && len(n.Args) == 2 {
				f.add(n.Args[1], toNil)
			}
		}
		return true
	})
}

func (f *finder) ifStmt(n *ast.IfStmt, result string) {
	if refuses(n.Body.List, result) {
		f.operands(n.Cond, token.LOR, toFalse)
		return
	}
	if accepts(n.Body.List, result) {
		f.operands(n.Cond, token.LAND, toTrue)
		return
	}
	if b, ok := n.Else.(*ast.BlockStmt); ok && refuses(b.List, result) {
		f.operands(n.Cond, token.LAND, toTrue)
	}
}

func (f *finder) cases(n *ast.SwitchStmt, result string) {
	for _, s := range n.Body.List {
		c, ok := s.(*ast.CaseClause)
		if !ok {
			continue
		}
		for _, e := range c.List {
			switch {
			case refuses(c.Body, result):
				f.operands(e, token.LOR, toFalse)
			case accepts(c.Body, result):
				f.operands(e, token.LAND, toTrue)
			}
		}
	}
}

// returns finds "return a && b" of functions that answer yes or no.
func (f *finder) returns(n *ast.ReturnStmt, result string) {
	if result != "bool" || len(n.Results) == 0 {
		return
	}
	last := n.Results[len(n.Results)-1]
	switch last.(type) {
	case *ast.BinaryExpr, *ast.CallExpr, *ast.UnaryExpr, *ast.ParenExpr, *ast.IndexExpr:
		if c, ok := last.(*ast.CallExpr); ok && len(n.Results) > 0 {
			if id, ok := c.Fun.(*ast.Ident); ok && id.Name == "fail" {
				return
			}
		}
		if len(n.Results) == 1 {
			f.operands(last, token.LAND, toTrue)
		}
	}
}

// operands adds each operand of a chain of || (or &&) as a site of its own.
func (f *finder) operands(e ast.Expr, op token.Token, k kind) {
	if p, ok := e.(*ast.ParenExpr); ok {
		if b, ok := p.X.(*ast.BinaryExpr); ok && b.Op == op {
			e = b
		}
	}
	if b, ok := e.(*ast.BinaryExpr); ok && b.Op == op {
		f.operands(b.X, op, k)
		f.operands(b.Y, op, k)
		return
	}
	f.add(e, k)
}

func (f *finder) add(e ast.Expr, k kind) {
	start, end := f.fset.Position(e.Pos()).Offset, f.fset.Position(e.End()).Offset
	var text bytes.Buffer
	if err := printer.Fprint(&text, token.NewFileSet(), e); err != nil {
		text.Reset()
		text.Write(f.src[start:end])
	}
	fn := f.fn.Name.Name
	if f.fn.Recv != nil {
		var recv bytes.Buffer
		_ = printer.Fprint(&recv, token.NewFileSet(), f.fn.Recv.List[0].Type)
		fn = strings.TrimPrefix(recv.String(), "*") + "." + fn
	}
	id := fmt.Sprintf("%s %s: %s", filepath.ToSlash(f.name), fn, strings.Join(strings.Fields(text.String()), " "))
	if k != toFalse {
		id += " (" + string(k) + ")"
	}
	f.out = append(f.out, site{ID: id, Kind: k, file: f.name, start: start, end: end})
}

// refuses reports whether statements give up: they return an error, false or
// "not ok", record a failure, pass over what does not match, or set a reader's
// bad mark.
func refuses(list []ast.Stmt, result string) bool {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.ReturnStmt:
			if refusing(s, result) {
				return true
			}
		case *ast.BranchStmt:
			return s.Tok == token.CONTINUE
		case *ast.ExprStmt:
			if c, ok := s.X.(*ast.CallExpr); ok && isFail(c.Fun) {
				return true
			}
		}
	}
	return false
}

func isFail(fun ast.Expr) bool {
	switch x := fun.(type) {
	case *ast.SelectorExpr:
		return x.Sel.Name == "Fail" || x.Sel.Name == "Skip"
	case *ast.Ident:
		return x.Name == "fail"
	}
	return false
}

func refusing(s *ast.ReturnStmt, result string) bool {
	if len(s.Results) == 0 {
		return result == ""
	}
	last := s.Results[len(s.Results)-1]
	if c, ok := last.(*ast.CallExpr); ok && isFail(c.Fun) {
		return true
	}
	switch x := last.(type) {
	case *ast.Ident:
		return result == "error" && x.Name != "nil" || result == "bool" && x.Name == "false"
	case *ast.CallExpr:
		return result == "error"
	}
	return false
}

// accepts reports whether statements say yes: return nil error, or true.
func accepts(list []ast.Stmt, result string) bool {
	if len(list) == 0 {
		return false
	}
	r, ok := list[len(list)-1].(*ast.ReturnStmt)
	if !ok || len(r.Results) == 0 {
		return false
	}
	id, ok := r.Results[len(r.Results)-1].(*ast.Ident)
	return ok && (result == "error" && id.Name == "nil" || result == "bool" && id.Name == "true")
}
