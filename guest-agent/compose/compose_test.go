package compose

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

func engine(t *testing.T) *Engine {
	t.Helper()
	e, err := New(Config{Log: slog.New(slog.DiscardHandler), Daemon: "dockerd", Compose: "docker-compose", Sock: "/run/x.sock", Project: "dstack",
		WorkDir: t.TempDir(), DataDir: t.TempDir(), StopTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestRegistriesWithoutTLS(t *testing.T) {
	ok := []string{"172.31.77.1:5080", "10.0.2.2:5000", "192.168.1.1", "127.0.0.1:5000", "[fd00::1]:5000"}
	bad := []string{"registry.example:5000", "8.8.8.8:5000", "1.2.3.4", "localhost:5000", "0.0.0.0:1", "10.0.0.0/8", "", "169.254.169.254:80", "10.0.0.1.example:5"}
	for _, r := range ok {
		e := engine(t)
		e.cfg.Insecure = []string{r}
		if _, err := e.writeDaemonConfig("/x"); err != nil {
			t.Errorf("%s: %v", r, err)
		}
	}
	for _, r := range bad {
		e := engine(t)
		e.cfg.Insecure = []string{r}
		if _, err := e.writeDaemonConfig("/x"); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("insecure registry %q was taken: %v", r, err)
		}
	}
	for m, good := range map[string]bool{"https://mirror.example": true, "http://172.31.77.1:5080": true, "http://mirror.example": false, "http://8.8.8.8": false, "file:///x": false, "mirror": false} {
		e := engine(t)
		e.cfg.Mirror = m
		if _, err := e.writeDaemonConfig("/x"); (err == nil) != good {
			t.Errorf("mirror %q: %v", m, err)
		}
	}
}

// Containers of an earlier boot must not start with dockerd.
func TestDisarm(t *testing.T) {
	root := t.TempDir()
	put := func(id, doc string) {
		if err := os.MkdirAll(filepath.Join(root, "containers", id), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "containers", id, "hostconfig.json"), []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("a", `{"Binds":["x:/y"],"RestartPolicy":{"Name":"always","MaximumRetryCount":0},"ShmSize":67108864}`)
	put("b", `{"RestartPolicy":{"Name":"no","MaximumRetryCount":0}}`)
	put("c", `{"RestartPolicy":{"Name":"unless-stopped"}}`)
	if err := os.MkdirAll(filepath.Join(root, "containers", "d"), 0o700); err != nil { // half-made
		t.Fatal(err)
	}
	e := engine(t)
	if err := e.disarm(root); err != nil {
		t.Fatal(err)
	}
	if len(e.kept) != 2 || e.kept["a"] != "always" || e.kept["c"] != "unless-stopped" {
		t.Errorf("kept %v", e.kept)
	}
	for _, id := range []string{"a", "b", "c"} {
		b, _ := os.ReadFile(filepath.Join(root, "containers", id, "hostconfig.json"))
		var h struct {
			Binds         []string
			ShmSize       int
			RestartPolicy struct{ Name string }
		}
		if err := json.Unmarshal(b, &h); err != nil || h.RestartPolicy.Name != "no" {
			t.Errorf("%s: %s", id, b)
		}
		if id == "a" && (len(h.Binds) != 1 || h.ShmSize != 67108864) {
			t.Errorf("other fields changed: %s", b)
		}
	}
	put("e", `{"RestartPolicy":`)
	if err := e.disarm(root); err == nil {
		t.Error("a container that cannot be read was passed over: it might start")
	}
}

func TestCommandEnvironment(t *testing.T) {
	e := engine(t)
	env := []keys.EnvVar{{Key: "SECRET", Value: "hush-hush"}, {Key: "DOCKER_CONFIG", Value: "/elsewhere"}, {Key: "PATH", Value: "/evil"}}
	out, err := e.command(t.Context(), env, "/bin/sh", "-c", `echo "$SECRET|$DOCKER_CONFIG|$PATH|$(pwd)"; exit 3`)
	if err == nil {
		t.Error("exit 3 is an error")
	}
	if strings.Contains(out, "hush") || strings.Contains(out, "elsewhere") || strings.Contains(out, "evil") || !strings.Contains(out, e.cfg.WorkDir) {
		t.Errorf("output %q", out)
	}
	err = e.Script(t.Context(), "pre_launch_script", "echo the value is $SECRET\nexit 4", env)
	if cvm.ReasonOf(err) != ReasonScript || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), "[redacted]") {
		t.Errorf("script: %v", err)
	}
}

func TestLogOptions(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	q, _ := url.ParseQuery("since=5m&until=999999&tail=20&follow&text=true&timestamps=0")
	o, err := ParseLogOptions(q, now)
	if err != nil || o != (LogOptions{Since: "999700", Until: "999999", Tail: "20", Follow: true, Text: true}) {
		t.Errorf("%+v %v", o, err)
	}
	if o, _ := ParseLogOptions(url.Values{}, now); o.Tail != "1000" || o.Since != "" {
		t.Errorf("defaults %+v", o)
	}
	q, _ = url.ParseQuery("since=1970-01-12T15:46:40%2B02:00&until=1970-01-12T13:46:39.5Z")
	if o, err := ParseLogOptions(q, now); err != nil || o.Since != "1000000.000000000" || o.Until != "999999.500000000" {
		t.Errorf("RFC 3339: %+v %v", o, err)
	}
	for _, bad := range []string{"since=yesterday", "since=1970-01-12", "until=0001-01-01T00:00:00Z", "until=-1", "tail=-5", "tail=x", "follow=maybe", "since=5y", "since=5m5s"} {
		q, _ := url.ParseQuery(bad)
		if _, err := ParseLogOptions(q, now); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestLogWriter(t *testing.T) {
	line := "\x1b[31mred\x1b[0m \xff\n"
	for _, tt := range []struct {
		o    LogOptions
		want string
	}{
		{LogOptions{}, `{"channel":"stdout","message":"cmVkIP8K"}` + "\n"},
		{LogOptions{Text: true}, `{"channel":"stdout","message":"red \ufffd\n"}` + "\n"},
		{LogOptions{Bare: true}, "red \xff\n"},
		{LogOptions{Bare: true, ANSI: true}, line},
	} {
		var b bytes.Buffer
		w := &logWriter{w: &b, o: tt.o, channel: "stdout"}
		if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
			t.Errorf("%d %v", n, err)
		}
		got := strings.ReplaceAll(b.String(), "\uFFFD", `\ufffd`)
		if got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.o, got, tt.want)
		}
	}
}

func FuzzLogOptions(f *testing.F) {
	f.Add("since=5m&tail=all&follow=1")
	f.Add("since=2026-01-02T03:04:05.678Z")
	f.Fuzz(func(t *testing.T, s string) {
		q, err := url.ParseQuery(s)
		if err != nil {
			return
		}
		o, err := ParseLogOptions(q, time.Unix(1_700_000_000, 0))
		if err == nil && strings.ContainsAny(o.Since+o.Until+strings.TrimPrefix(o.Tail, "all"), " \n&/") {
			t.Errorf("%+v", o)
		}
	})
}

func FuzzHostConfig(f *testing.F) {
	f.Add([]byte(`{"RestartPolicy":{"Name":"always"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, out, err := withoutRestart(b)
		if err != nil {
			return
		}
		was, _, err := withoutRestart(out)
		if err != nil || was != "no" {
			t.Errorf("%q stayed %q, %v", b, was, err)
		}
	})
}
