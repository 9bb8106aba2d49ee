package compose

import (
	"maps"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

func values(env []keys.EnvVar) map[string]string {
	out := map[string]string{}
	for _, v := range env {
		out[v.Key] = v.Value
	}
	return out
}

func TestBuiltin(t *testing.T) {
	own := []keys.EnvVar{{Key: "A", Value: "1"}, {Key: "DSTACK_APP_ID", Value: "another"}}
	for _, tt := range []struct {
		app, domain string
		env         []keys.EnvVar
		want        map[string]string
	}{
		{"aa", "x.test:1", own, map[string]string{"A": "1", "DSTACK_APP_ID": "aa", "DSTACK_GATEWAY_DOMAIN": "x.test:1", "DSTACK_APP_DOMAIN": "aa.x.test:1"}},
		{"aa", "", own, map[string]string{"A": "1", "DSTACK_APP_ID": "aa"}},
		{"aa", "x.test", []keys.EnvVar{{Key: "DSTACK_GATEWAY_DOMAIN", Value: "mine.test"}},
			map[string]string{"DSTACK_APP_ID": "aa", "DSTACK_GATEWAY_DOMAIN": "mine.test", "DSTACK_APP_DOMAIN": "aa.mine.test"}},
	} {
		if got := values(Builtin(tt.app, tt.domain, tt.env)); !maps.Equal(got, tt.want) {
			t.Errorf("%v, want %v", got, tt.want)
		}
	}
	if len(own) != 2 || own[1].Value != "another" {
		t.Error("the argument was changed")
	}
}

// TestPreLaunchExports: what the script exports reaches the compose file, what it
// unsets does not, and what our processes are given stays ours.
func TestPreLaunchExports(t *testing.T) {
	e := engine(t)
	env := []keys.EnvVar{{Key: "KEEP", Value: "a\nb"}, {Key: "ROOT_PASSWORD", Value: "hush-hush"}}
	script := "unset ROOT_PASSWORD\nexport MADE=\"$KEEP!\"\nexport PATH=/evil DOCKER_HOST=tcp://evil\nLOCAL=1\nexit 0\n"
	got, err := e.preLaunch(t.Context(), script, env)
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"KEEP": "a\nb", "MADE": "a\nb!"}; !maps.Equal(values(got), want) {
		t.Errorf("%q", values(got))
	}
	_, err = e.preLaunch(t.Context(), "echo the value is $ROOT_PASSWORD\nexit 4", env)
	if cvm.ReasonOf(err) != ReasonScript || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), "[redacted]") {
		t.Errorf("a script that fails: %v", err)
	}
	if _, err = e.preLaunch(t.Context(), "trap - EXIT; exit 0", env); cvm.ReasonOf(err) != ReasonScript {
		t.Errorf("a script that leaves nothing: %v", err)
	}
}

func FuzzExports(f *testing.F) {
	f.Add([]byte("A=1\x00PATH=/x\x00B=\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		env, err := exports(b)
		if err != nil {
			return
		}
		for _, v := range env {
			if ours(v.Key) || strings.ContainsRune(v.Key+v.Value, 0) || v.Key == "" {
				t.Errorf("%q", v)
			}
		}
	})
}

// TestWhatIsMadeHere: the real Compose's model says which service is built and which
// needs a GPU.
func TestWhatIsMadeHere(t *testing.T) {
	e := realCompose(t)
	for text, want := range map[string]struct {
		builds bool
		gpu    string
	}{
		"image: x": {}, "build: {dockerfile_inline: FROM x}": {builds: true},
		"{image: x, runtime: nvidia}": {gpu: "a"},
		"{image: x, deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}}":                     {gpu: "a"},
		"{image: x, deploy: {resources: {reservations: {devices: [{driver: nvidia, capabilities: [compute]}]}}}}": {gpu: "a"},
		"{image: x, deploy: {resources: {reservations: {memory: 1M}}}}":                                           {},
	} {
		if !strings.HasPrefix(text, "{") {
			text = "{" + text + "}"
		}
		m := e.modelOf(t, "services: {a: "+text+"}\n")
		if m.builds() != want.builds || m.gpu() != want.gpu {
			t.Errorf("%s: builds %v, GPU %q", text, m.builds(), m.gpu())
		}
	}
}
