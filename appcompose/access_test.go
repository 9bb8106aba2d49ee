package appcompose

import (
	"fmt"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
)

func with(field string) []byte { return []byte(strings.Replace(minimal, `"name"`, field+`,"name"`, 1)) }

func TestSocketPolicy(t *testing.T) {
	d, err := Parse(with(`"socket_policy":{"default":"none","containers":{"web":{"keys":["wallet/*","one"],"purposes":["sign"],"quote":true},"all":{"keys":["*"]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	web, limited := d.SocketPolicy.For("web")
	if !limited || !web.Quote || web.TLS || web.Sign || !web.Allows("sign") || web.Allows("") || web.Allows("other") {
		t.Errorf("web: %+v", web)
	}
	for path, want := range map[string]string{"wallet/": "wallet/*", "wallet/a/b": "wallet/*", "one": "one", "one/": "", "wallet": "", "": "", "Wallet/a": ""} {
		if rule, ok := web.Rule(path); rule != want || ok != (want != "") {
			t.Errorf("%q is covered by %q", path, rule)
		}
	}
	all, _ := d.SocketPolicy.For("all")
	if _, ok := all.Rule(""); !ok || !all.Allows("anything") {
		t.Error("* covers every path, no purposes any purpose")
	}
	if a, limited := d.SocketPolicy.For("other"); !limited || len(a.Keys) != 0 || a.Quote {
		t.Error("default none gives nothing")
	}
	d.SocketPolicy.Default = SocketsReference
	if _, limited := d.SocketPolicy.For("other"); limited {
		t.Error("default reference gives everything")
	}
	if _, limited := (*SocketPolicy)(nil).For("x"); limited {
		t.Error("no policy limits nobody")
	}
}

func TestSocketPolicyRefuses(t *testing.T) {
	many := func(n int, f string) string {
		var s []string
		for i := range n {
			s = append(s, fmt.Sprintf(f, i))
		}
		return strings.Join(s, ",")
	}
	for name, p := range map[string]string{
		"no default": `{"containers":{}}`, "unknown default": `{"default":"all"}`, "empty": `{}`, "a list": `[]`, "unknown key": `{"default":"none","container":{}}`,
		"unknown right": `{"default":"none","containers":{"a":{"qoute":true}}}`, "star in the middle": `{"default":"none","containers":{"a":{"keys":["a*b"]}}}`,
		"two stars": `{"default":"none","containers":{"a":{"keys":["a**"]}}}`, "empty path": `{"default":"none","containers":{"a":{"keys":[""]}}}`,
		"control byte": `{"default":"none","containers":{"a":{"keys":["a\n"]}}}`, "service name": `{"default":"none","containers":{"../a":{}}}`,
		"purposes alone": `{"default":"none","containers":{"a":{"purposes":["x"]}}}`, "long purpose": `{"default":"none","containers":{"a":{"keys":["*"],"purposes":["` + strings.Repeat("x", 257) + `"]}}}`,
		"many services": `{"default":"none","containers":{` + many(65, `"a%d":{}`) + `}}`, "many keys": `{"default":"none","containers":{"a":{"keys":[` + many(33, `"k%d"`) + `]}}}`,
	} {
		if _, err := Parse(with(`"socket_policy":` + p)); cvm.CodeOf(err) != cvm.Invalid || !strings.Contains(err.Error(), "socket_policy") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if d, err := Parse(with(`"socket_policy":null`)); err != nil || d.SocketPolicy != nil {
		t.Errorf("null: %v", err)
	}
}

func TestVolumes(t *testing.T) {
	root := strings.Repeat("ab", 32)
	one := func(source, root, target string) string {
		return fmt.Sprintf(`{"source":%q,"verity_root":%q,"target":%q}`, source, root, target)
	}
	d, err := Parse(with(`"verity_volumes":[` + one("a.img", root, "/v/a") + "," + one("b.img", root, "/v/ab") + `]`))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := d.Volumes(); err != nil || len(v) != 2 || v[1].Target != "/v/ab" {
		t.Errorf("%v %v", v, err)
	}
	good := one("a.img", root, "/a")
	for name, v := range map[string]string{
		"short root": one("a", root[2:], "/a"), "root not hex": one("a", root[2:]+"zz", "/a"), "no root": `{"source":"a","target":"/a"}`, "path as source": one("../a", root, "/a"),
		"relative target": one("a", root, "a"), "unclean target": one("a", root, "/a/../b"), "root target": one("a", root, "/"), "same target": good + "," + good,
		"nested target": good + "," + one("b", root, "/a/b"), "unknown key": `{"source":"a","verity_root":"` + root + `","target":"/a","fs":"ext4"}`,
		"too many": one("a", root, "/0") + strings.Repeat(","+one("a", root, "/1"), 8),
	} {
		d, err := Parse(with(`"verity_volumes":[` + v + `]`))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := d.Volumes(); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
