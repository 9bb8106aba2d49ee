package compat

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

// runs is the one CVM of this name, with the image that it was told to run.
func (s *stack) runs(t *testing.T, name, image string) cloudapi.CVMDetail {
	t.Helper()
	d, err := s.Client.CVM(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if status, text := s.curl(t, "GET", "/cvms/"+name+"/docker-compose.yml", s.Key, nil); status != http.StatusOK || !strings.Contains(string(text), image) {
		t.Fatalf("%s: %d %s, want %s", name, status, text, image)
	}
	if d.Status != cloudapi.StatusRunning {
		t.Fatalf("%s is %s", name, d.Status)
	}
	return d
}

// curl asks as curl does: nothing of our client is in it. body is JSON, or nil.
func (s *stack) curl(t *testing.T, method, path, key string, body any) (int, []byte) {
	t.Helper()
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), method, s.front+cloudapi.Prefix+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("X-API-Key", key)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, out
}

// asks wants a status and returns the answer's object.
func (s *stack) asks(t *testing.T, want int, method, path string, body any) (out map[string]any) {
	t.Helper()
	status, b := s.curl(t, method, path, s.Key, body)
	if status != want || json.Unmarshal(b, &out) != nil {
		t.Fatalf("%s %s: %d %s, want %d", method, path, status, b, want)
	}
	return out
}

func word(v any) string { w, _ := v.(string); return w }

// The documented flows of the API: create, update, replica and attestation.
func TestREST(t *testing.T) {
	s := newStack(t, nil)
	file := map[string]any{"docker_compose_file": "services:\n  web:\n    image: web:one\n", "allowed_envs": []string{"TOKEN"}}
	p := s.asks(t, 200, "POST", "/cvms/provision", map[string]any{"name": "rest-app", "compose_file": file, "instance_type": "tdx.small", "env_keys": []string{"TOKEN"}})
	vm := s.asks(t, 200, "POST", "/cvms", map[string]any{"app_id": p["app_id"], "compose_hash": p["compose_hash"], "encrypted_env": s.seal(t, p)})
	if vm["name"] != "rest-app" || vm["status"] != "creating" {
		t.Errorf("created: %v", vm)
	}
	id := word(vm["vm_uuid"])
	s.watch(t, id)

	next := s.asks(t, 200, "POST", "/cvms/"+id+"/compose_file/provision", map[string]any{"docker_compose_file": "services:\n  web:\n    image: web:two\n"})
	if status, b := s.curl(t, "PATCH", "/cvms/"+id+"/compose_file", s.Key, map[string]any{"compose_hash": next["compose_hash"]}); status != 202 && status != 200 {
		t.Fatalf("compose file: %d %s", status, b)
	}
	s.watch(t, id)
	s.runs(t, "rest-app", "web:two")
	a := s.asks(t, 202, "PATCH", "/cvms/"+id, map[string]any{"docker_compose_file": "services:\n  web:\n    image: web:three\n"})
	if a["correlation_id"] == "" {
		t.Errorf("accepted: %v", a)
	}
	if status, b := s.curl(t, "GET", "/cvms/"+id+"/operation-status", s.Key, nil); status != 200 {
		t.Errorf("operation-status: %d %s", status, b)
	}
	s.watch(t, id)
	s.runs(t, "rest-app", "web:three")

	app := word(p["app_id"])
	replica := s.asks(t, 200, "POST", "/apps/"+app+"/cvms/"+id+"/replicas", map[string]any{})
	if replica["app_id"] != app || replica["vm_uuid"] == id {
		t.Errorf("replica: %v", replica)
	}
	s.watch(t, word(replica["vm_uuid"]))
	status, b := s.curl(t, "GET", "/apps/"+app+"/attestations", "", nil) // without a key
	var att struct {
		Instances []struct {
			VMUUID string `json:"vm_uuid"`
		} `json:"instances"`
	}
	if err := json.Unmarshal(b, &att); status != 200 || err != nil || len(att.Instances) != 2 {
		t.Errorf("attestations: %d %v %s", status, err, b)
	}
	for path, body := range map[string]any{"/cvms/provision": map[string]any{"name": "rest-app", "compose_file": file}, "/cvms/nothing-here/stop": nil} {
		if status, b := s.curl(t, "POST", path, s.Key, body); status != 409 && status != 404 || !bytes.Contains(b, []byte("ERR-0")) {
			t.Errorf("%s: %d %s", path, status, b)
		}
		if status, _ := s.curl(t, "POST", path, "phak_nobody", body); status != 401 {
			t.Errorf("%s with a wrong key: %d", path, status)
		}
	}
}

// seal checks who vouches for the app's key, and encrypts to it.
func (s *stack) seal(t *testing.T, p map[string]any) string {
	t.Helper()
	k := s.asks(t, 200, "GET", "/kms/phala/pubkey/"+word(p["app_id"]), nil)
	app, err := cvm.ParseAppID(word(p["app_id"]))
	if err != nil {
		t.Fatal(err)
	}
	pub, err1 := hex.DecodeString(word(p["app_env_encrypt_pubkey"]))
	sig, err2 := hex.DecodeString(strings.TrimPrefix(word(k["signature"]), "0x"))
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if signer, err := keys.RecoverEnvKeySigner(app, pub, nil, sig); err != nil || !bytes.Equal(signer, s.Root.K256Public()) {
		t.Fatalf("the app's key is vouched for by %x, %v", signer, err)
	}
	b, err := keys.EncryptEnv(rand.Reader, pub, []keys.EnvVar{{Key: "TOKEN", Value: "secret"}})
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}

// watch reads the stream of states until it says that the CVM runs.
func (s *stack) watch(t *testing.T, id string) {
	t.Helper()
	status, b := s.curl(t, "GET", "/cvms/"+id+"/state?target=running&interval=5&timeout=60", s.Key, nil)
	if status != 200 || !bytes.Contains(b, []byte("event: complete")) {
		t.Fatalf("stream: %d %s", status, b)
	}
}
