package api_test

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

// accessTable is who may use each operation: "METHOD PATH ROLE SCOPE", or
// "METHOD PATH open". It is written by hand, so that a check that goes missing in
// the code is not missing here too.
const accessTable = "testdata/access.txt"

type accessRow struct {
	method, path, role, scope string
	stepUp                    bool
}

func readAccess(t *testing.T) []accessRow {
	t.Helper()
	f, err := os.Open(accessTable)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rows []accessRow
	for sc := bufio.NewScanner(f); sc.Scan(); {
		w := strings.Fields(sc.Text())
		switch {
		case len(w) == 0 || strings.HasPrefix(w[0], "#"):
		case len(w) == 3 && w[2] == "open":
			rows = append(rows, accessRow{method: w[0], path: w[1]})
		case len(w) == 4 || len(w) == 5 && w[4] == "step-up":
			rows = append(rows, accessRow{w[0], w[1], w[2], w[3], len(w) == 5})
		default:
			t.Fatalf("%s: %q", accessTable, sc.Text())
		}
	}
	return rows
}

// TestAccessTableIsComplete: an operation without a row is one that nobody thought about.
func TestAccessTableIsComplete(t *testing.T) {
	w := newWorld(t, nil)
	var have, want []string
	for _, r := range readAccess(t) {
		have = append(have, r.String())
	}
	for _, o := range w.srv.Operations() {
		r := accessRow{o.Method, strings.TrimPrefix(o.Path, cloudapi.Prefix), string(o.Role), o.Scope, o.StepUp}
		want = append(want, r.String())
	}
	slices.Sort(have)
	slices.Sort(want)
	if *update {
		head := "# METHOD PATH ROLE SCOPE: who may use each operation (api/matrix_test.go). Change a line only on purpose.\n"
		if err := os.WriteFile(accessTable, []byte(head+strings.Join(want, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		have = want
	}
	for _, l := range want {
		if !slices.Contains(have, l) {
			t.Errorf("%s has no line %q", accessTable, l)
		}
	}
	for _, l := range have {
		if !slices.Contains(want, l) {
			t.Errorf("%s names what the server does not have: %q", accessTable, l)
		}
	}
}

func (r accessRow) String() string {
	if r.role == "" {
		return r.method + " " + r.path + " open"
	}
	s := r.method + " " + r.path + " " + r.role + " " + r.scope
	if r.stepUp {
		s += " step-up"
	}
	return s
}

// at is the operation's path with what its parameters are replaced by.
func (r accessRow) at(w *world, id string) string {
	var out []string
	for _, part := range strings.Split(r.path, "/") {
		switch {
		case !strings.HasPrefix(part, "{"):
		case part == "{slug}":
			part = "default"
		default:
			part = id
		}
		out = append(out, part)
	}
	return strings.Join(out, "/")
}

// nobody is an id that nothing has.
const nobody = "00000000-0000-4000-8000-0000deadbeef"

// TestAuthorizationMatrix asks for every operation as everybody: nobody, a wrong
// key, each role, a key without the scope.
func TestAuthorizationMatrix(t *testing.T) {
	p := newPeople(t, nil)
	owner := p.admin()
	ranks := []string{"viewer", "member", "admin", "owner"}
	who := map[string]*browser{"owner": owner}
	for _, role := range ranks[:3] {
		who[role] = p.member(owner, "a-"+role, role)
	}
	for _, r := range readAccess(t) {
		if r.role == "" || ends(r) {
			continue
		}
		path := r.at(p.world, nobody)
		for name, head := range map[string]http.Header{"nobody": {}, "a wrong key": {"X-Api-Key": {"phak_wrong"}}} {
			b := p.browser()
			b.head = head
			if status, body, _ := b.ask(r.method, path); status != http.StatusUnauthorized {
				t.Errorf("%s as %s: %d %s", r, name, status, body)
			}
		}
		for rank, role := range ranks {
			status, body, _ := who[role].ask(r.method, path)
			lacks := status == http.StatusForbidden && strings.Contains(body, "this needs the role")
			if enough := rank >= slices.Index(ranks, r.role); enough == lacks {
				t.Errorf("%s as %s: %d %s", r, role, status, body)
			}
		}
		p.otherScope(t, owner, r, path)
	}
}

// ends tells operations that would end the session that asks.
func ends(r accessRow) bool {
	return strings.HasSuffix(r.path, "/logout") || strings.HasSuffix(r.path, "/leave") || strings.HasPrefix(r.path, "/users/me/sessions") && r.method == http.MethodDelete
}

// otherScope asks with a key that may do everything but this.
func (p *people) otherScope(t *testing.T, owner *browser, r accessRow, path string) {
	t.Helper()
	var scopes []string
	for _, area := range store.ScopeAreas() {
		for _, s := range []string{area + ":write", area + ":read"} {
			if !store.ScopeGrants(s, r.scope) {
				scopes = append(scopes, s)
			}
		}
	}
	var k cloudapi.Token
	owner.call("POST", "/user/api-tokens", m{"name": "scoped", "scopes": scopes}, &k, 201)
	b := p.browser()
	b.head.Set("X-API-Key", *k.Token)
	if status, body, _ := b.ask(r.method, path); status != http.StatusForbidden || !strings.Contains(body, "scope "+r.scope) {
		t.Errorf("%s with a key for everything but %s: %d %s", r, r.scope, status, body)
	}
	owner.call("DELETE", "/user/api-tokens/"+fmt.Sprint(k.ID), nil, nil, 204)
}

func (b *browser) ask(method, path string) (int, string, http.Header) {
	b.t.Helper()
	body := ""
	if method != http.MethodGet && method != http.MethodDelete {
		body = "{}"
	}
	return b.do(method, cloudapi.Prefix+path, "application/json", body)
}

// TestStrangersSeeNothing: what belongs to somebody else answers as what does not exist.
func TestStrangersSeeNothing(t *testing.T) {
	w := newWorld(t, offChain)
	vm := w.offChainApp("mine-app", nil)
	stranger := map[string]string{"X-API-Key": w.srv.KeyOfNewWorkspace(t, "stranger")}
	for _, r := range readAccess(t) {
		if r.role == "" || !strings.Contains(r.path, "{") || strings.Contains(r.path, "{slug}") {
			continue
		}
		var body any
		if r.method != http.MethodGet && r.method != http.MethodDelete {
			body = map[string]any{}
		}
		for _, id := range []string{*vm.VMUUID, vm.AppID} {
			s1, b1 := w.raw(r.method, r.at(w, id), body, stranger)
			missing := nobody
			if len(id) == 40 {
				missing = strings.Repeat("e", 40)
			}
			s2, b2 := w.raw(r.method, r.at(w, missing), body, stranger)
			if s1 != s2 || strings.ReplaceAll(b1, id, "ID") != strings.ReplaceAll(b2, missing, "ID") {
				t.Errorf("%s: of somebody else %d %s, missing %d %s", r, s1, b1, s2, b2)
			}
		}
	}
}
