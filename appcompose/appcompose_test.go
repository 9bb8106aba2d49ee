package appcompose

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
)

const minimal = `{"manifest_version":2,"name":"a","runner":"docker-compose","docker_compose_file":"services: {}"}`

func TestParseKeepsBytesAndDefaults(t *testing.T) {
	d, err := Parse([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	if string(d.Raw()) != minimal || !d.TCBInfoPublic() || d.Provider() != ProviderNone || d.WantsGateway() {
		t.Errorf("got %+v", d)
	}
	spaced, err := Parse([]byte(" " + minimal))
	if err != nil {
		t.Fatal(err)
	}
	if spaced.Hash() == d.Hash() {
		t.Error("two different byte strings have the same compose hash")
	}
}

func TestParseRefuses(t *testing.T) {
	for name, doc := range map[string]string{
		"not an object":          `[]`,
		"truncated":              minimal[:40],
		"trailing data":          minimal + `{}`,
		"no version":             `{"name":"a","runner":"bash"}`,
		"version 3 as a number":  strings.Replace(minimal, ":2,", ":3,", 1),
		"version 03":             strings.Replace(minimal, ":2,", `:"03",`, 1),
		"version +3":             strings.Replace(minimal, ":2,", `:"+3",`, 1),
		"version 0":              strings.Replace(minimal, ":2,", `:0,`, 1),
		"unknown runner":         strings.Replace(minimal, "docker-compose\"", "podman\"", 1),
		"key twice":              strings.Replace(minimal, `"name":"a"`, `"name":"a","name":"b"`, 1),
		"nested key twice":       strings.Replace(minimal, `"name":"a"`, `"name":"a","x":[{"y":1,"y":2}]`, 1),
		"key differing in case":  strings.Replace(minimal, `"name":"a"`, `"name":"a","Runner":"bash"`, 1),
		"unknown key, version 3": strings.Replace(strings.Replace(minimal, ":2,", `:"3",`, 1), `"name"`, `"nome":1,"name"`, 1),
		"requirements, version 2": strings.Replace(minimal, `"name"`,
			`"requirements":{},"name"`, 1),
		"bad env name": strings.Replace(minimal, `"name"`, `"allowed_envs":["A-B"],"name"`, 1),
		"port 70000":   strings.Replace(minimal, `"name"`, `"port_policy":{"ports":[{"port":70000}]},"name"`, 1),
		"six init scripts": strings.Replace(minimal, `"name"`,
			`"init_script":["1","2","3","4","5","6"],"name"`, 1),
		"deep nesting": strings.Replace(minimal, `"name"`, `"x":`+strings.Repeat("[", 200)+strings.Repeat("]", 200)+`,"name"`, 1),
	} {
		if _, err := Parse([]byte(doc)); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: got %v, want invalid", name, err)
		}
	}
	if _, err := Parse(bytes.Repeat([]byte(" "), MaxSize+1)); cvm.CodeOf(err) != cvm.Invalid {
		t.Error("an oversized document was taken")
	}
}

func TestUnknownKeysAreListedForOldManifests(t *testing.T) {
	d, err := Parse([]byte(strings.Replace(minimal, `"name"`, `"bash_command":"x","name"`, 1)))
	if err != nil || len(d.Unknown) != 1 || d.Unknown[0] != "bash_command" {
		t.Fatalf("got %v, %v", d, err)
	}
}

// DO NOT CHANGE: what the reference's SDKs hash (keys sorted, arrays in order, UTF-8 and
// HTML characters not escaped).
func TestCanonicalVector(t *testing.T) {
	got, err := Canonical([]byte(`{"b":[{"z":1,"a":"<é>"},2.50],"a":null}`))
	if err != nil || string(got) != `{"a":null,"b":[{"a":"<é>","z":1},2.50]}` {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestEncodeParsesBack(t *testing.T) {
	d, err := Parse([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	b, err := Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Parse(b)
	if err != nil || e.Name != "a" {
		t.Fatalf("%s: %v", b, err)
	}
	if c, _ := Canonical(b); !bytes.Equal(b, c) {
		t.Error("Encode is not canonical")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(`{"manifest_version":"3","name":"a","runner":"bash","requirements":{"gpu_policy":{"a":1}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Parse(b)
		if err != nil {
			return
		}
		if !bytes.Equal(d.Raw(), b) {
			t.Fatal("bytes were not kept")
		}
		if !json.Valid(b) {
			t.Fatal("accepted invalid JSON")
		}
		if _, err := d.GPUPolicyHash(); err != nil {
			t.Fatalf("accepted, but the gpu policy cannot be hashed: %v", err)
		}
	})
}
