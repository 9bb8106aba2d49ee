package templates

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/confidential-cloud/phala/cvm"
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
		raw, _ := files.ReadFile(x.ID + "/template.json")
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		var strict Template
		if err := d.Decode(&strict); err != nil {
			t.Errorf("%s: %v", x.ID, err)
		}
		if got, err := Get(x.ID); err != nil || got.ID != x.ID {
			t.Errorf("directory and id differ: %q %v", x.ID, err)
		}
		if x.Name == "" || x.Repo == "" || x.Author == "" || x.Compose == "" {
			t.Errorf("%s: name, repo, author and compose are required", x.ID)
		}
		if r := x.DefaultResource; r != nil && (r.VCPU < 1 || r.Memory < 1024 || r.DiskSize < 10) {
			t.Errorf("%s: defaultResource %+v is below the catalogue's minimum", x.ID, *r)
		}
		var c struct {
			Services map[string]struct {
				Image string
			}
		}
		if err := yaml.Unmarshal([]byte(x.Compose), &c); err != nil || len(c.Services) == 0 {
			t.Errorf("%s: compose file: %v", x.ID, err)
		}
		for _, e := range x.Envs {
			if e.Key == "" || (e.Required && e.Default != "") {
				t.Errorf("%s: env %+v", x.ID, e)
			}
		}
	}
	for _, id := range []string{"", "nothing", "../hello", "hello/app"} {
		if _, err := Get(id); cvm.CodeOf(err) != cvm.NotFound {
			t.Errorf("%q: %v", id, err)
		}
	}
}
