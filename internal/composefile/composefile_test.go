package composefile

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
)

const hello = `services:
  hello:
    image: 127.0.0.1:5080/hello:latest
    ports:
      - "80:8080"
    volumes:
      - /var/run/dstack.sock:/var/run/dstack.sock
    environment:
      SECRET: ${SECRET}
`

const twoServices = `name: shop
services:
  db:
    image: postgres@sha256:0123456789012345678901234567890123456789012345678901234567890123
    restart: "no"
    environment:
      - POSTGRES_PASSWORD
    volumes:
      - data:/var/lib/postgresql/data
    healthcheck:
      test: ["CMD", "pg_isready"]
      interval: 5s
  web:
    image: web@sha256:0123456789012345678901234567890123456789012345678901234567890123
    depends_on:
      db:
        condition: service_healthy
    ports:
      - "${WEB_PORT:-8080}:80"
      - target: 9000
        published: "9001"
    environment:
      GREETING: ${GREETING:-hello ${NAME:-you}}
      TOKEN: ${TOKEN:?give it}
      PRICE: $$5
    configs:
      - source: page
        target: /page.html
volumes:
  data:
configs:
  page:
    content: |
      <h1>${TITLE}</h1>
`

func TestHello(t *testing.T) {
	f, err := Parse([]byte(hello))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Services(); len(got) != 1 || got[0] != (Service{"hello", "127.0.0.1:5080/hello:latest", 2}) {
		t.Errorf("services: %+v", got)
	}
	if got := f.Ports(); len(got) != 1 || got[0] != (Port{"hello", 80, 8080, "tcp", "", 5}) {
		t.Errorf("ports: %+v", got)
	}
	if got := f.EnvNames(); !slices.Equal(got, []string{"SECRET"}) {
		t.Errorf("envs: %v", got)
	}
	got := f.Lint()
	if len(got) != 1 || got[0].Severity != Warning || got[0].Line != 3 || !strings.Contains(got[0].Fix, "127.0.0.1:5080/hello@sha256:") {
		t.Errorf("findings: %+v", got)
	}
	if err := f.Check(); err != nil {
		t.Errorf("a warning refuses: %v", err)
	}
}

func TestTwoServices(t *testing.T) {
	f, err := Parse([]byte(twoServices))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Lint(); len(got) != 0 {
		t.Errorf("findings: %+v", got)
	}
	want := []Port{{"web", 8080, 80, "tcp", "", 19}, {"web", 9001, 9000, "tcp", "", 20}}
	if got := f.Ports(); !slices.Equal(got, want) {
		t.Errorf("ports: %+v", got)
	}
	envs := []Env{
		{Name: "GREETING", Default: "hello ${NAME:-you}", HasValue: true, Line: 23},
		{Name: "NAME", Default: "you", HasValue: true, Line: 23},
		{Name: "POSTGRES_PASSWORD", HasValue: true, Line: 7},
		{Name: "TITLE", Line: 33},
		{Name: "TOKEN", Required: true, Line: 24},
		{Name: "WEB_PORT", Default: "8080", HasValue: true, Line: 19},
	}
	if got := f.Envs(); !slices.Equal(got, envs) {
		t.Errorf("envs: %+v", got)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"empty":             {"", "line 1: the file is empty"},
		"comment only":      {"# nothing\n", "the file is empty"},
		"zero byte":         {"services:\x00", "it is not text"},
		"broken yaml":       {"services:\n  web:\n    image: \"nginx\n    ports: [80]\n", "line 3, column 12"},
		"bad indent":        {"services:\n  web:\n    image: nginx\n   ports:\n      - 80\n", "line 4, column 4"},
		"tab":               {"services:\n\tweb:\n", "line 2, column 1"},
		"list":              {"- a\n", "line 1, column 1: the top level must be a mapping"},
		"two documents":     {"services: {a: {image: x}}\n---\nservices: {}\n", "line 2: a second YAML document"},
		"duplicate key":     {"services:\n  a: {image: x}\n  a: {image: y}\n", "line 3"},
		"no services":       {"version: \"3\"\nvolumes:\n  a:\n", "no services"},
		"services empty":    {"services:\n", "line 1, column 1: no services"},
		"no service's name": {"services:\n  image: x\n  ports: [\"80:80\"]\n", "line 2, column 3: services.image is not a service: the line with the service's name is missing"},
		"null service":      {"services:\n  web:\n", "line 2, column 3: services.web is not a service"},
		"services list":     {"services: [a]\n", "services must be a mapping"},
		"only profiles":     {"services:\n  a:\n    image: x\n    profiles: [debug]\n", "every service has a profile"},
		"port 70000":        {"services:\n  a:\n    image: x\n    ports:\n      - \"70000:80\"\n", "line 5, column 9: service \"a\": port \"70000:80\" is not valid: ports go from 1 to 65535"},
		"container 70000":   {"services:\n  a:\n    image: x\n    ports:\n      - 80:70000\n", "line 5, column 9"},
		"long form 70000":   {"services:\n  a:\n    image: x\n    ports:\n      - target: 80\n        published: 70000\n", "line 5"},
		"long target 70000": {"services:\n  a:\n    image: x\n    ports:\n      - target: 70000\n", "target port 70000"},
		"huge range":        {"services:\n  a:\n    image: x\n    ports: [\"1-65535:1-65535\"]\n", "line 4, column 13: service \"a\": more than 256 published ports"},
		"huge by extends":   {"services:\n  a:\n    image: x\n    ports: [\"1000-1200:1000-1200\"]\n  b:\n    extends: {service: a}\n", "more than 256"},
		"huge by default":   {"services:\n  a:\n    image: x\n    ports: [\"${P:-1-65535}:1-65535\"]\n", "more than 256"},
		"huge long form":    {"services:\n  a:\n    image: x\n    ports: [{target: 80, published: 1-65535}]\n", "more than 256"},
		"huge by merge":     {"x-a: &a\n  ports: [\"1-65535:1-65535\"]\nservices:\n  a:\n    image: x\n    <<: *a\n", "more than 256"},
		"unknown key":       {"services:\n  a:\n    imagee: x\n", "line 3, column 5"},
		"wrong type":        {"services:\n  a:\n    image: x\n    ports: 80\n", "line 4, column 5"},
		"no image":          {"services:\n  a:\n    command: x\n", "line 2, column 3"},
		"bad template":      {"services:\n  a:\n    image: ${}\n", "line 3, column 5"},
		"unknown depends":   {"services:\n  a:\n    image: x\n    depends_on: [b]\n", "line 2, column 3"},
		"unknown volume":    {"services:\n  a:\n    image: x\n    volumes: [\"data:/v\"]\n", "line 2, column 3"},
		"include":           {"include: [/etc/passwd]\nservices:\n  a: {image: x}\n", "line 1, column 1: include"},
		"extends file":      {"services:\n  a:\n    extends: {file: /etc/passwd, service: x}\n", "line 3, column 5: service \"a\" extends another file"},
		"extends by merge":  {"x-a: &a\n  extends: {file: /etc/passwd, service: x}\nservices:\n  a:\n    <<: *a\n", "extends another file"},
		"reset":             {"services:\n  a:\n    image: !reset x\n", "line 3, column 12: !reset"},
		"too big":           {"#" + strings.Repeat("x", MaxSize), "the limit is 204800"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(c.in))
			var p *Position
			if err == nil || cvm.CodeOf(err) != cvm.Invalid || cvm.ReasonOf(err) != ReasonInvalid || !errors.As(err, &p) {
				t.Fatalf("error is %v", err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestLint(t *testing.T) {
	const pinned = "x@sha256:0123456789012345678901234567890123456789012345678901234567890123"
	for name, c := range map[string]struct {
		in   string
		sev  Severity
		line int
		want string
	}{
		"build":           {"    build: .\n", Error, 3, "built from source"},
		"privileged":      {"    image: " + pinned + "\n    privileged: true\n", Warning, 4, "privileged"},
		"host network":    {"    image: " + pinned + "\n    network_mode: host\n", Warning, 4, "own network"},
		"host pid":        {"    image: " + pinned + "\n    pid: host\n", Warning, 4, "pid namespace"},
		"bind absolute":   {"    image: " + pinned + "\n    volumes:\n      - /etc:/etc\n", Warning, 5, "mounts /etc"},
		"bind sneaky":     {"    image: " + pinned + "\n    volumes:\n      - /var/run/dstack.sock/../../../etc:/etc\n", Warning, 5, "CVM's own path"},
		"bind relative":   {"    image: " + pinned + "\n    volumes:\n      - ./conf:/etc/x\n", Warning, 5, "only the compose file is sent"},
		"unpinned":        {"    image: nginx\n", Warning, 3, "not pinned"},
		"image from env":  {"    image: $IMAGE\n", Warning, 3, "depends on the environment"},
		"env_file":        {"    image: " + pinned + "\n    env_file: .env\n", Error, 4, "reads the file"},
		"label_file":      {"    image: " + pinned + "\n    label_file: l\n", Error, 4, "reads the file"},
		"agent port":      {"    image: " + pinned + "\n    ports: [\"8090:80\"]\n", Error, 4, "guest agent"},
		"agent port 0.0":  {"    image: " + pinned + "\n    ports: [\"0.0.0.0:8090:80\"]\n", Error, 4, "guest agent"},
		"udp":             {"    image: " + pinned + "\n    ports: [\"53:53/udp\"]\n", Warning, 4, "TCP only"},
		"loopback":        {"    image: " + pinned + "\n    ports: [\"127.0.0.1:80:80\"]\n", Warning, 4, "bound to 127.0.0.1"},
		"twice":           {"    image: " + pinned + "\n    ports: [\"80:80\", \"80:81\"]\n", Error, 4, "published twice"},
		"random port":     {"    image: " + pinned + "\n    ports: [\"80\"]\n", Warning, 4, "known only at run time"},
		"port from env":   {"    image: " + pinned + "\n    ports: [\"${P}:80\"]\n", Warning, 4, "known only at run time"},
		"no port":         {"    image: " + pinned + "\n", Warning, 0, "no port is published"},
		"config file":     {"    image: " + pinned + "\nconfigs:\n  c:\n    file: ./c\n", Error, 6, "comes from the file"},
		"secret file":     {"    image: " + pinned + "\nsecrets:\n  c:\n    file: ./c\n", Error, 6, "comes from the file"},
		"built inline":    {"    build: {dockerfile_inline: FROM x}\n", Warning, 3, "is built in the CVM: what its Dockerfile"},
		"built elsewhere": {"    build: https://example.org/x.git\n", Warning, 3, "built in the CVM from https://example.org/x.git"},
		"inline, files":   {"    build: {context: ./app, dockerfile_inline: FROM x}\n", Error, 3, "no source tree"},
		"other processor": {"    image: " + pinned + "\n    platform: linux/arm64/v8\n", Error, 4, "a CVM is linux/amd64"},
		"for another":     {"    image: arm64v8/nginx@sha256:0123456789012345678901234567890123456789012345678901234567890123\n", Warning, 3, "another processor"},
		"tag for another": {"    image: web:1.2-arm64\n", Warning, 3, "another processor"},
		"amd64":           {"    image: " + pinned + "\n    platform: linux/amd64\n    ports: [\"80:80\"]\n", "", 0, ""},
		"platform by env": {"    image: " + pinned + "\n    platform: $P\n    ports: [\"80:80\"]\n", "", 0, ""},
		"charm":           {"    image: charmed/arms@sha256:0123456789012345678901234567890123456789012345678901234567890123\n    ports: [\"80:80\"]\n", "", 0, ""},
		"lock":            {"    image: " + pinned + "\n    volumes: [\"/var/run/tappd.sock.lock:/x\"]\n", Warning, 4, "mounts /var/run/tappd.sock.lock, which is not in a CVM"},
		"ssh":             {"    image: " + pinned + "\n    ports: [\"22:80\"]\n", Warning, 4, "port 22 is the CVM's own ssh"},
		"written out":     {"    image: " + pinned + "\n    environment: {X: 1, DB_PASSWORD: hunter2}\n", Warning, 4, "DB_PASSWORD is written out"},
		"written in list": {"    image: " + pinned + "\n    environment:\n      - X=1\n      - API_KEY=abc\n", Warning, 6, "API_KEY is written out"},
		"by its looks":    {"    image: " + pinned + "\n    environment:\n      X: postgres://u:pw@db/x\n", Warning, 5, "X is written out"},
		"in a config":     {"    image: " + pinned + "\nconfigs:\n  c:\n    content: \"-----BEGIN EC PRIVATE KEY-----\"\n", Warning, 6, "config \"c\" has a secret"},
		"by merge":        {"    image: " + pinned + "\n    environment: &e {MY_TOKEN: abc}\n  b:\n    image: " + pinned + "\n    environment: {<<: *e}\n", Warning, 7, "service \"b\": MY_TOKEN"},
		"not written out": {"    image: " + pinned + "\n    ports: [\"80:80\"]\n    environment: {A_TOKEN: $T, B_SECRET: \"\", MAX_TOKENS: 3, P_PASSWORD: \"x${Q:-}\", URL: \"http://u:${P}@h/\", KEY_FILE: /k}\n", "", 0, ""},
		"docker.sock":     {"    image: " + pinned + "\n    volumes: [\"/var/run/docker.sock:/var/run/docker.sock\"]\n    ports: [\"80:80\"]\n", "", 0, ""},
		"optional envs":   {"    image: " + pinned + "\n    env_file: [{path: .env, required: false}]\n    ports: [\"80:80\"]\n", "", 0, ""},
		"nothing to say":  {"    image: " + pinned + "\n    ports: [\"80:80\"]\n", "", 0, ""},
		"old version key": {"    image: " + pinned + "\n    ports: [\"80:80\"]\nversion: \"3.8\"\n", "", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Parse([]byte("services:\n  a:\n" + c.in))
			if err != nil {
				t.Fatal(err)
			}
			got := f.Lint()
			if c.want == "" {
				if len(got) != 0 {
					t.Errorf("findings: %+v", got)
				}
				return
			}
			if !slices.ContainsFunc(got, func(x Finding) bool {
				return x.Severity == c.sev && x.Line == c.line && strings.Contains(x.Message, c.want)
			}) {
				t.Errorf("no %s at line %d with %q in %+v", c.sev, c.line, c.want, got)
			}
			if err := f.Check(); (err != nil) != (c.sev == Error) {
				t.Errorf("Check: %v", err)
			}
		})
	}
}

func TestGPUs(t *testing.T) {
	type want struct{ n, line int }
	devices := func(d string) string { return "    deploy: {resources: {reservations: {devices: [" + d + "]}}}" }
	for text, want := range map[string]want{
		devices("{capabilities: [gpu], count: 1}"):                                                  {1, 4},
		devices("{driver: nvidia, capabilities: []}"):                                               {1, 4},
		devices("{capabilities: [gpu]}"):                                                            {1, 4}, // all there are
		devices("{capabilities: [gpu], count: all}"):                                                {1, 4},
		devices("{capabilities: [gpu], count: 4}"):                                                  {4, 4},
		devices("{capabilities: [gpu], count: \"4\"}"):                                              {4, 4},
		devices("{capabilities: [gpu], count: $N}"):                                                 {1, 4}, // only the guest knows
		devices("{capabilities: [gpu], count: \"${N:-3}\"}"):                                        {3, 4},
		devices("{capabilities: [gpu], device_ids: [\"0\", \"3\"]}"):                                {4, 4},
		devices("{capabilities: [gpu], device_ids: [GPU-a, GPU-b]}"):                                {2, 4},
		devices("{capabilities: [gpu], device_ids: [\"99999999999\"]}"):                             {1, 4},
		devices("{driver: x, capabilities: [tpu], count: 7}, {capabilities: [gpu], count: 2}"):      {2, 4},
		devices("{driver: x, capabilities: [tpu], count: 7}"):                                       {0, 0},
		devices("{capabilities: [gpu]}") + "\n  b:\n    image: x\n    gpus: [{count: 2}]":           {2, 7}, // who needs the most
		devices("{capabilities: [gpu], count: 2}") + "\n  b:\n    image: x\n    gpus: [{count: 2}]": {2, 4}, // they share them
		"    gpus: all":       {1, 4},
		"    runtime: nvidia": {1, 4},
		"    runtime: runc":   {0, 0},
		"    deploy: {resources: {limits: {cpus: \"1\"}}}": {0, 0},
	} {
		f, err := Parse([]byte("services:\n  a:\n    image: x\n" + text + "\n"))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		n, at := f.GPUs()
		if at == nil {
			at = &Position{}
		}
		if n != want.n || at.Line != want.line {
			t.Errorf("%s: %d, line %d, want %+v", text, n, at.Line, want)
		}
	}
}

// What every app is given is nobody's to send.
func TestBuiltinVariables(t *testing.T) {
	f, err := Parse([]byte("services:\n  a:\n    image: x\n    environment:\n      - DSTACK_APP_ID\n      - U=https://${DSTACK_APP_DOMAIN}/${MINE}.${DSTACK_GATEWAY_DOMAIN}\n"))
	if err != nil || !slices.Equal(f.EnvNames(), []string{"MINE"}) {
		t.Errorf("%v %v", f.EnvNames(), err)
	}
}

// An image that is a variable and nothing else must have a value.
func TestImageVariable(t *testing.T) {
	for image, want := range map[string]bool{"$I": true, "${I}": true, "${I:-x}": false, "x:${I}": false, "${I}:1": false, "${I:?}": true, "${J:-x}${I}": false} {
		f, err := Parse([]byte("services:\n  a:\n    image: " + image + "\n    command: $I\n"))
		if err != nil {
			t.Errorf("%s: %v", image, err)
			continue
		}
		got := slices.ContainsFunc(f.Envs(), func(e Env) bool { return e.Name == "I" && e.Required })
		if got != want {
			t.Errorf("%s: required %v", image, got)
		}
	}
}

func TestPortRange(t *testing.T) {
	f, err := Parse([]byte("services:\n  a:\n    image: x\n    ports: [\"8000-8002:80-82\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Ports(); len(got) != 3 || got[2] != (Port{"a", 8002, 82, "tcp", "", 4}) {
		t.Errorf("ports: %+v", got)
	}
}

// An alias bomb must end quickly, with an error or without.
func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("x-0: &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 9; i++ {
		b.WriteString("x-" + string(rune('0'+i)) + ": &a" + string(rune('0'+i)) + " [")
		b.WriteString(strings.Repeat("*a"+string(rune('0'+i-1))+", ", 8) + "x]\n")
	}
	b.WriteString("services:\n  a:\n    image: x\n    command: *a8\n")
	if _, err := Parse([]byte(b.String())); err == nil {
		t.Error("accepted")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{hello, twoServices, "services: {a: {image: x, ports: [80]}}", "a: &a [*a]", "services:\n  a:\n    <<: &x {image: y}\n    extends: {service: a}\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := Parse(b)
		if err != nil {
			var p *Position
			if !errors.As(err, &p) {
				t.Fatalf("no position in %v", err)
			}
			return
		}
		if len(x.Services()) == 0 {
			t.Fatal("accepted without a service")
		}
		for _, p := range x.Ports() {
			if p.Published < 1 || p.Published > 65535 || p.Target < 1 || p.Target > 65535 {
				t.Fatalf("accepted port %+v", p)
			}
		}
	})
}
