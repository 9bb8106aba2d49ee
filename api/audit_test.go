package api_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

func TestAuditLog(t *testing.T) {
	p := newPeople(t, nil)
	b := p.admin()
	mate := p.member(b, "mate", "member")
	mate.call("POST", "/workspaces/default/invitations", m{"role": "viewer"}, nil, 403)
	p.deploy("my-app", 1, nil)
	b.call("GET", "/cvms", nil, nil, 200)
	var page cloudapi.AuditPage
	b.call("GET", "/audit", nil, &page, 200)
	seen := map[string]cloudapi.AuditEntry{}
	for i, e := range page.Items {
		if e.Seq != int64(i+1) || e.Request == "" || e.Time.IsZero() {
			t.Errorf("entry %d: %+v", i, e)
		}
		seen[e.Action+" "+e.User+" "+e.Outcome] = e
	}
	for _, want := range []string{"post-cvms-provision admin done", "post-cvms admin done", "put-users-me-password admin done",
		"post-workspaces-slug-invitations admin done", "post-workspaces-slug-invitations mate denied", "post-invitations-token-register mate done"} {
		if _, ok := seen[want]; !ok {
			t.Errorf("no entry %q in %v", want, seen)
		}
	}
	if e := seen["post-cvms admin done"]; e.Via != "key" || e.ViaID == 0 || e.Address != "127.0.0.1" || e.Target != "/api/v1/cvms" {
		t.Errorf("%+v", e)
	}
	if e := seen["post-invitations-token-register mate done"]; e.Target != "/api/v1/invitations/{token}/register" {
		t.Errorf("the token is in the log: %+v", e)
	}
	_, lines, h := b.do("GET", cloudapi.Prefix+"/audit/export", "", "")
	head, err := cloudapi.VerifyAudit(strings.NewReader(lines))
	if err != nil || head != page.Head || !strings.Contains(h.Get("Content-Type"), "ndjson") {
		t.Errorf("%v %v, want %v (%v)", err, head, page.Head, h)
	}
	if strings.Contains(lines, "get-") || strings.Contains(lines, p.password) {
		t.Error("reads or secrets are in the log")
	}
	b.call("GET", "/audit?cloud=true", nil, &page, 200)
	if len(page.Items) == 0 || page.Items[0].Action != "first-password" {
		t.Errorf("%+v", page)
	}
}

// Whatever is changed in the table, verify names it.
func TestAuditVerifyFindsTampering(t *testing.T) {
	for name, tt := range map[string]struct {
		sql  string
		want string
	}{
		"nothing":      {"", ""},
		"changed":      {`UPDATE audit_entries SET body = replace(body, '"user":"admin"', '"user":"mallory"') WHERE chain = 1 AND seq = 2`, "line 2 was changed"},
		"dropped":      {`DELETE FROM audit_entries WHERE chain = 1 AND seq = 2`, "line 2 is missing"},
		"last changed": {`UPDATE audit_entries SET body = replace(body, '"outcome":"done"', '"outcome":"denied"') WHERE chain = 1 AND seq = 4`, "last one was changed"},
		"cut off":      {`DELETE FROM audit_entries WHERE chain = 1 AND seq = 4`, "newest lines are gone"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeople(t, nil)
			b := p.admin()
			for i := range 3 {
				b.call("PATCH", "/users/me", m{"email": fmt.Sprintf("a%d@example.com", i)}, nil, 204)
			}
			db, err := sql.Open("sqlite", p.cfg.Database().Path+"?_pragma=busy_timeout(10000)")
			if err != nil {
				t.Fatal(err)
			}
			if tt.sql != "" {
				if res, err := db.Exec(tt.sql); err != nil {
					t.Fatal(err)
				} else if n, _ := res.RowsAffected(); n != 1 {
					t.Fatalf("%d rows changed", n)
				}
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			var v cloudapi.AuditVerdict
			b.call("GET", "/audit/verify", nil, &v, 200)
			if v.Valid != (tt.want == "") || !strings.Contains(v.Problem, tt.want) {
				t.Errorf("%+v, want %q", v, tt.want)
			}
		})
	}
}

// A change that cannot be recorded does not happen.
func TestFailedAuditIsAFailedCall(t *testing.T) {
	p := newPeople(t, nil)
	b := p.admin()
	db, err := sql.Open("sqlite", p.cfg.Database().Path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`ALTER TABLE audit_entries RENAME TO hidden`); err != nil {
		t.Fatal(err)
	}
	b.call("PATCH", "/users/me", m{"email": "new@example.com"}, nil, 500)
	p.c.Key = p.key
	status, body := p.raw("POST", "/cvms/provision", m{"name": "my-app", "instance_type": "tdx.small", "compose_file": compose(nil)}, nil)
	if status != 500 {
		t.Errorf("%d %s", status, body)
	}
	if _, err := db.Exec(`ALTER TABLE hidden RENAME TO audit_entries`); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := db.QueryRow(`SELECT count(*) FROM provisions`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d provisions were stored without an audit entry (%v)", n, err)
	}
	if me := b.call("GET", "/auth/me", nil, nil, 200); strings.Contains(me, "new@example.com") {
		t.Errorf("changed: %s", me)
	}
}

// Every operation names who may use it; what changes something needs more than to look.
func TestOperationsAreGuarded(t *testing.T) {
	w := newWorld(t, nil)
	ops := w.srv.Operations()
	if len(ops) < 60 {
		t.Fatalf("%d operations", len(ops))
	}
	for _, o := range ops {
		if o.Public {
			continue
		}
		if !o.Role.Known() || !store.ScopeGrants(store.AllScopes, o.Scope) {
			t.Errorf("%+v", o)
		}
		path := strings.NewReplacer("{", "", "}", "").Replace(strings.TrimPrefix(o.Path, cloudapi.Prefix))
		w.c.Key, w.key = "", ""
		for _, key := range []string{"", "phak_wrong"} {
			status, body := w.raw(o.Method, path, nil, map[string]string{"X-API-Key": key})
			var e struct{ Detail string }
			if err := json.Unmarshal([]byte(body), &e); status != 401 || err != nil || e.Detail == "" {
				t.Errorf("%s %s with key %q: %d %s", o.Method, path, key, status, body)
			}
		}
	}
}
