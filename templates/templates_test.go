package templates

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/composefile"
)

func TestCatalogue(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(all, func(x Template) bool { return x.ID == "hello" }) {
		t.Fatal("there is no hello")
	}
	for _, x := range all {
		if got, err := Get(x.ID); err != nil || got.ID != x.ID {
			t.Errorf("directory and id differ: %q %v", x.ID, err)
		}
		deployable(t, x)
	}
	for _, id := range []string{"", "nothing", "../hello", "hello/app"} {
		if _, err := Get(id); cvm.CodeOf(err) != cvm.NotFound {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// deployable: the cloud takes the compose file, the form asks for all that it needs,
// and for nothing that it does not read.
func deployable(t *testing.T, x Template) {
	t.Helper()
	f, err := composefile.Parse([]byte(x.Compose))
	if err == nil {
		err = f.Check()
	}
	if err != nil {
		t.Errorf("%s: %v", x.ID, err)
		return
	}
	for _, l := range f.Lint() {
		if !strings.Contains(l.Message, "is not pinned by digest") {
			t.Errorf("%s: %s", x.ID, l)
		}
	}
	asked := map[string]Env{}
	for _, e := range x.Envs {
		asked[e.Key] = e
	}
	for _, e := range f.Envs() {
		form, ok := asked[e.Name]
		if !ok || form.Required == e.HasValue {
			t.Errorf("%s: %s: the form says %+v, the compose file has a default: %v", x.ID, e.Name, form, e.HasValue)
		}
		delete(asked, e.Name)
	}
	for name := range asked {
		t.Errorf("%s: %s is asked for and not read", x.ID, name)
	}
}

const goodTemplate = `{"id":"web-app","name":"Web","repo":"r","author":"a","envs":[{"key":"A","required":true}]}`

// A catalogue of one's own is held to the same rules.
func TestOwnCatalogue(t *testing.T) {
	t.Parallel()
	dir := func(meta, compose string) Catalogue {
		return Dir(fstest.MapFS{"web-app/template.json": {Data: []byte(meta)}, "web-app/docker-compose.yml": {Data: []byte(compose)}})
	}
	if all, err := dir(goodTemplate, "services: {}").All(); err != nil || len(all) != 1 || all[0].Compose != "services: {}" {
		t.Fatalf("%+v %v", all, err)
	}
	for want, c := range map[string]Catalogue{
		"unknown field":   dir(strings.Replace(goodTemplate, "author", "writer", 1), "x"),
		"its directory":   dir(strings.Replace(goodTemplate, "web-app", "web", 1), "x"),
		"are needed":      dir(strings.Replace(goodTemplate, `"repo":"r",`, "", 1), "x"),
		"is empty":        dir(goodTemplate, ""),
		"cannot name":     dir(strings.Replace(goodTemplate, `"A"`, `"1A"`, 1), "x"),
		"twice":           dir(strings.Replace(goodTemplate, `[{`, `[{"key":"A","required":true},{`, 1), "x"),
		"has a default":   dir(strings.Replace(goodTemplate, `true}`, `true,"default":"x"}`, 1), "x"),
		"begins with":     dir(strings.Replace(goodTemplate, `"envs"`, `"defaultResource":{"vCPU":0,"memory":1024,"diskSize":10},"envs"`, 1), "x"),
		"larger than":     dir(goodTemplate, strings.Repeat("x", maxFile+1)),
		"does not exist":  Dir(fstest.MapFS{"web-app/template.json": {Data: []byte(goodTemplate)}}),
		"unexpected end ": dir("{", "x"),
	} {
		if _, err := c.All(); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) && want != "unexpected end " {
			t.Errorf("%s: %v", want, err)
		}
	}
}
