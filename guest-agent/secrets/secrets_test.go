package secrets

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// DO NOT CHANGE: the reference's vector (dstack-core E).
func TestOpenVector(t *testing.T) {
	key, _ := hex.DecodeString("7c282bf94b35dc47801dc953bfa0896fc2bd313381d3e8eca4e42f6536d2a96f")
	blob, _ := hex.DecodeString("0bd18749612f4c8b9dd583c7d6a646b90abd34e3c731a7708d0caf9039095641e1f0948e775f0b7351788db7f246d51806954626dcccb6a60d64665ca3715c6bef75616cab476d27bba04080361200d6a58cec")
	vars, dropped, err := Open(keys.NewSecret(key), blob, []string{""})
	if err != nil || len(vars) != 0 || len(dropped) != 0 {
		t.Errorf("%v %v %v", vars, dropped, err)
	}
	blob[60] ^= 1
	if _, _, err := Open(keys.NewSecret(key), blob, nil); cvm.ReasonOf(err) != ReasonEnv {
		t.Errorf("a changed blob: %v", err)
	}
}

func sealed(t *testing.T, env ...keys.EnvVar) (keys.Secret, []byte) {
	t.Helper()
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	priv := keys.NewSecret(b)
	pub, err := keys.EnvPublicKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := keys.EncryptEnv(rand.Reader, pub, env)
	if err != nil {
		t.Fatal(err)
	}
	return priv, blob
}

func TestOpenFilters(t *testing.T) {
	priv, blob := sealed(t, keys.EnvVar{Key: "A", Value: "1"}, keys.EnvVar{Key: "LD_PRELOAD", Value: "x"}, keys.EnvVar{Key: "A", Value: "2"},
		keys.EnvVar{Key: "1BAD", Value: "x"}, keys.EnvVar{Key: "", Value: ""})
	vars, dropped, err := Open(priv, blob, []string{"A", "1BAD"})
	if err != nil || len(vars) != 1 || vars[0].Value != "2" || strings.Join(dropped, " ") != "LD_PRELOAD 1BAD" {
		t.Errorf("%v %v %v", vars, dropped, err)
	}
	// No list is no permission.
	if vars, _, _ := Open(priv, blob, nil); len(vars) != 0 {
		t.Errorf("without allowed_envs: %v", vars)
	}
	priv, blob = sealed(t, keys.EnvVar{Key: "A", Value: "x\x00y"})
	if _, _, err := Open(priv, blob, []string{"A"}); err == nil || strings.Contains(err.Error(), "x\x00y") {
		t.Errorf("a zero byte: %v", err)
	}
}

func TestSignature(t *testing.T) {
	key := keys.NewSecret([]byte(strings.Repeat("k", 32)))
	app, blob := cvm.AppID{1}, []byte("blob")
	sig, err := keys.SignEnv(key, app, 7, sha256.Sum256(blob))
	if err != nil {
		t.Fatal(err)
	}
	pub, _ := keys.K256Public(key)
	addr, _ := keys.Address(pub)
	good := vmmapi.EnvSignature{Counter: 7, Signer: addr, Signature: hex.EncodeToString(sig)}
	other := good
	other.Counter = 8
	broken := good
	broken.Signature = "zz"
	tests := []struct {
		name    string
		signers []string
		sig     *vmmapi.EnvSignature
		app     cvm.AppID
		blob    []byte
		ok      bool
	}{
		{"good", []string{"0x" + strings.Repeat("0", 40), strings.ToUpper(addr[2:])}, &good, app, blob, true},
		{"0x-prefixed", []string{addr}, &vmmapi.EnvSignature{Counter: 7, Signature: "0x" + good.Signature}, app, blob, true},
		{"nobody named", nil, nil, app, blob, true},
		{"no environment", []string{addr}, nil, app, nil, true},
		{"missing", []string{addr}, nil, app, blob, false},
		{"other blob", []string{addr}, &good, app, []byte("blob2"), false},
		{"other app", []string{addr}, &good, cvm.AppID{2}, blob, false},
		{"other counter", []string{addr}, &other, app, blob, false},
		{"other signer", []string{"0x" + strings.Repeat("0", 40)}, &good, app, blob, false},
		{"not hex", []string{addr}, &broken, app, blob, false},
	}
	for _, tt := range tests {
		err := CheckSignature(tt.signers, tt.sig, tt.app, tt.blob)
		if (err == nil) != tt.ok || (err != nil && cvm.ReasonOf(err) != ReasonSignature) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// The shell reads back what was written, whatever is in it.
func TestShellFile(t *testing.T) {
	for _, v := range []string{"plain", "it's", `"$HOME" \ ` + "`id`", "two\nlines", "-n", "ünïcode"} {
		file := ShellFile([]keys.EnvVar{{Key: "A", Value: v}})
		out, err := exec.Command("/bin/sh", "-c", string(file)+`printf %s "$A"`).Output()
		if err != nil || string(out) != v {
			t.Errorf("%q came back as %q (%v)", v, out, err)
		}
	}
}

func TestLogin(t *testing.T) {
	u, p := keys.EnvVar{Key: EnvUsername, Value: "me"}, keys.EnvVar{Key: EnvPassword, Value: "pass-word"}
	if l, err := LoginOf(nil); l != nil || err != nil {
		t.Errorf("%v %v", l, err)
	}
	for _, half := range [][]keys.EnvVar{{u}, {p}, {u, p, {Key: EnvRegistry, Value: "a@b"}}} {
		if _, err := LoginOf(half); cvm.ReasonOf(err) != ReasonEnv {
			t.Errorf("%v: %v", half, err)
		}
	}
	for reg, want := range map[string]string{"": "https://index.docker.io/v1/", "docker.io": "https://index.docker.io/v1/", "ghcr.io": "ghcr.io", "https://10.0.0.1:5000/": "10.0.0.1:5000"} {
		l, err := LoginOf([]keys.EnvVar{u, p, {Key: EnvRegistry, Value: reg}})
		if err != nil {
			t.Fatal(err)
		}
		doc, err := l.DockerConfig()
		if err != nil || string(doc) != `{"auths":{"`+want+`":{"auth":"bWU6cGFzcy13b3Jk"}}}` {
			t.Errorf("%q: %s %v", reg, doc, err)
		}
		if s := fmt.Sprintf("%v %+v %#v", l, l, l); strings.Contains(s, "pass-word") {
			t.Errorf("the password shows: %s", s)
		}
	}
}
