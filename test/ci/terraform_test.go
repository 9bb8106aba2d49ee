package ci

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/test/drycloud"
)

// contract is templates/ci/terraform/contract.json.
type contract struct {
	Resources map[string]map[string]json.RawMessage `json:"resources"`
	Sources   map[string][]call                     `json:"data_sources"`
}

// call is one request and what must come of it.
type call struct {
	Call   string            `json:"call"` // METHOD /path
	Body   any               `json:"body"`
	Status int               `json:"status"`
	Save   map[string]string `json:"save"`   // name: path in the answer
	Expect map[string]string `json:"expect"` // path: value; * is any, null is none
	Until  map[string]string `json:"until"`  // as expect, asked again until it is so
	Text   string            `json:"text"`   // of an answer that is no JSON
}

// provider is a provider with the state of one configuration.
type provider struct {
	c     *drycloud.Cloud
	state map[string]string
}

// order is what a provider does in the life of a configuration. Everything of the
// contract is in it.
var order = []string{
	"phala_ssh_key create", "phala_ssh_key read",
	"phala_app create", "phala_app wait_for_ready", "phala_app read", "phala_app import", "data_sources",
	"phala_app scale", "phala_app update docker_compose", "phala_app read", "phala_app update env", "phala_app read",
	"phala_app update size", "phala_app update disk_size",
	"phala_cvm_power stop", "phala_cvm_power start", "phala_cvm_power restart",
	"phala_app delete", "phala_app not there", "phala_ssh_key delete",
}

func TestTerraform(t *testing.T) {
	b, err := os.ReadFile("../../templates/ci/terraform/contract.json")
	if err != nil {
		t.Fatal(err)
	}
	var c contract
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	todo := map[string]bool{"data_sources": true}
	for r, ops := range c.Resources {
		for op := range ops {
			todo[r+" "+op] = op != "attributes"
		}
	}
	p := &provider{c: drycloud.Start(t), state: configuration(t)}
	for _, step := range order {
		r, op, _ := strings.Cut(step, " ")
		var calls []call
		if r == "data_sources" {
			calls = sources(c)
		} else if err := json.Unmarshal(c.Resources[r][op], &calls); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		todo[step] = false
		if !t.Run(step, func(t *testing.T) { p.do(t, calls) }) {
			t.FailNow()
		}
		p.drift(t, step)
	}
	for name, left := range todo {
		if left {
			t.Errorf("%s is in the contract, and no test makes it", name)
		}
	}
}

func sources(c contract) []call {
	var out []call
	for _, s := range c.Sources {
		out = append(out, s...)
	}
	return out
}

const firstCompose = "services:\n  web:\n    image: nginx:1.27\n    ports: [\"8080:80\"]\n    environment:\n      SECRET: ${SECRET}\n"

func configuration(t *testing.T) map[string]string {
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"name": "terraform-app", "size": "tdx.small", "new_size": "tdx.medium", "region": drycloud.Region, "image": drycloud.Image, "disk_size": "40",
		"docker_compose": firstCompose, "new_compose": firstCompose + "    restart: always\n", "env_name": "SECRET",
		"key_name": "laptop", "public_key": strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))}
}

// drift holds the state that a provider keeps to what was changed outside of it.
func (p *provider) drift(t *testing.T, step string) {
	switch step {
	case "phala_app update docker_compose":
		p.state["docker_compose"] = p.state["new_compose"]
	case "phala_app update size":
		p.state["size"] = p.state["new_size"]
	case "phala_app wait_for_ready": // somebody else changes it: a read must show that
		id := p.state["id"]
		before := p.state["compose_hash"]
		p.do(t, []call{
			{Call: "PATCH /cvms/{id}/visibility", Body: map[string]any{"public_sysinfo": false, "public_logs": false}, Status: 200},
			{Call: "GET /cvms/{id}", Status: 200, Until: map[string]string{"public_logs": "false", "status": "running", "progress": "null"}, Save: map[string]string{"compose_hash": "compose_hash"}},
		})
		if p.state["compose_hash"] == before {
			t.Errorf("CVM %s was changed outside, and its compose hash does not show it", id)
		}
	}
}

// fill puts attributes and saved values in. A value that is one placeholder of a
// number becomes a number.
func (p *provider) fill(t *testing.T, v any) any {
	switch v := v.(type) {
	case string:
		name := strings.TrimSuffix(strings.TrimPrefix(v, "{"), "}")
		switch v {
		case "{encrypted_env}", "{new_env}":
			return p.encrypt(t, v)
		case "{disk_size}":
			n, err := strconv.Atoi(p.state[name])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		return p.text(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = p.fill(t, v[i])
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k := range v {
			out[k] = p.fill(t, v[k])
		}
		return out
	}
	return v
}

func (p *provider) text(s string) string {
	for k, v := range p.state {
		s = strings.ReplaceAll(s, "{"+k+"}", v)
	}
	return s
}

func (p *provider) encrypt(t *testing.T, value string) string {
	pub, err := hex.DecodeString(strings.TrimPrefix(p.state["env_key"], "0x"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := keys.EncryptEnv(rand.Reader, pub, []keys.EnvVar{{Key: "SECRET", Value: value}})
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}

func (p *provider) do(t *testing.T, calls []call) {
	t.Helper()
	for _, c := range calls {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		err := p.once(ctx, t, c)
		for tick := time.NewTicker(100 * time.Millisecond); err != nil && c.Until != nil; {
			select {
			case <-tick.C:
				if again := p.once(ctx, t, c); again == nil || ctx.Err() == nil { // else the last answer says more
					err = again
				}
				continue
			case <-ctx.Done():
			}
			tick.Stop()
			break
		}
		cancel()
		if err != nil {
			t.Fatalf("%s: %v", p.text(c.Call), err)
		}
	}
}

func (p *provider) once(ctx context.Context, t *testing.T, c call) error {
	method, path, _ := strings.Cut(p.text(c.Call), " ")
	var body io.Reader
	if c.Body != nil {
		b, err := json.Marshal(p.fill(t, c.Body))
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, p.c.Prefix()+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("X-API-Key", p.c.Key)
	req.Header.Set("X-Phala-Version", "2026-01-21")
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != c.Status {
		return fmt.Errorf("%s, want %d: %.400s", res.Status, c.Status, b)
	}
	if c.Text != "" {
		if want := p.text(c.Text); string(b) != want {
			return fmt.Errorf("%q, want %q", b, want)
		}
		return nil
	}
	return p.answer(c, b)
}

func (p *provider) answer(c call, b []byte) error {
	if len(c.Expect)+len(c.Until)+len(c.Save) == 0 {
		return nil
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return fmt.Errorf("%w: %.300s", err, b)
	}
	for _, m := range []map[string]string{c.Expect, c.Until} {
		for path, want := range m {
			if got, ok := at(v, path); !ok || want == "*" && got == null || want != "*" && got != p.text(want) {
				return fmt.Errorf("%s is %q, want %q in %.600s", path, got, p.text(want), b)
			}
		}
	}
	for name, path := range c.Save {
		got, ok := at(v, path)
		if !ok || got == "" || got == null {
			return fmt.Errorf("no %s in %.400s", path, b)
		}
		p.state[name] = got
	}
	return nil
}

// null is how a contract names the value that JSON calls so.
const null = "null"

// at follows names and indexes.
func at(v any, path string) (string, bool) {
	for key := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			next, there := x[key]
			if !there {
				return "", false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(x) {
				return "", false
			}
			v = x[i]
		default:
			return "", false
		}
	}
	if v == nil {
		return null, true
	}
	return fmt.Sprint(v), true
}
