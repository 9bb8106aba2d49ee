package cli_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/confidential-cloud/phala/cli"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// nodeVMM is a VMM whose machines are dry, with the flags that name it.
func nodeVMM(t *testing.T, change func(*vmm.Config)) (flags []string, c *vmmapi.Client) {
	t.Helper()
	dir := t.TempDir()
	run, err := os.MkdirTemp("", "vmm") // short: sockets
	if err != nil {
		t.Fatal(err)
	}
	cfg := vmm.Default()
	cfg.Listen, cfg.TokenFile, cfg.Dir, cfg.RunDir, cfg.ImagesDir = "127.0.0.1:0", filepath.Join(dir, "token"), filepath.Join(dir, "vmm"), run, filepath.Join(dir, "images")
	cfg.Driver, cfg.Machines, cfg.ImageRegistry.KeepFreeMiB = "dry", dry.New(dry.Config{}), 1
	cfg.Capacity = vmm.Capacity{VCPU: 4, MemoryMiB: 4096, DiskMiB: 10000}
	change(&cfg)
	m, err := vmm.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; _ = os.RemoveAll(run) })
	select {
	case <-m.Ready():
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	token, err := os.ReadFile(cfg.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + m.Addr()
	return []string{"--vmm", url, "--vmm-token-file", cfg.TokenFile}, vmmapi.NewClient(url, strings.TrimSpace(string(token)), nil)
}

// phala runs the command and returns its JSON answer.
func phala(t *testing.T, code int, args ...string) map[string]any {
	t.Helper()
	var out, errs bytes.Buffer
	env := map[string]string{"PHALA_CLOUD_DIR": t.TempDir()}
	got := cli.Run(t.Context(), cli.Config{Args: append(args, "--json"), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
		Getenv: func(k string) string { return env[k] }, Workdir: t.TempDir()})
	if got != code {
		t.Fatalf("phala %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out.String(), errs.String())
	}
	answer := map[string]any{}
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		t.Fatalf("phala %s: %v: %s", strings.Join(args, " "), err, out.String())
	}
	return answer
}

func imageDir(t *testing.T, version string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "image")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"rootfs.tar": []byte("root of " + version), image.MetadataFile: []byte(`{"rootfs":"rootfs.tar","version":"` + version + `"}`)}
	var sums bytes.Buffer
	for n, b := range files {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b), n)
	}
	files[image.SumsFile], files[image.DigestFile] = sums.Bytes(), fmt.Appendf(nil, "%x\n", sha256.Sum256(sums.Bytes()))
	for n, b := range files {
		if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// keyFiles writes an Ed25519 pair.
func keyFiles(t *testing.T) (priv, pub string) {
	t.Helper()
	q, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	priv, pub = filepath.Join(dir, "image.key"), filepath.Join(dir, "image.pub")
	kd, err1 := x509.MarshalPKCS8PrivateKey(k)
	qd, err2 := x509.MarshalPKIXPublicKey(q)
	if err1 != nil || err2 != nil || os.WriteFile(priv, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kd}), 0o600) != nil ||
		os.WriteFile(pub, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: qd}), 0o600) != nil {
		t.Fatal("keys")
	}
	return priv, pub
}

// TestImageCommands: published, signed, pulled, listed, collected.
func TestImageCommands(t *testing.T) {
	reg := httptest.NewServer(gcr.New(gcr.Logger(log.New(io.Discard, "", 0))))
	defer reg.Close()
	repo := strings.TrimPrefix(reg.URL, "http://") + "/os/phala"
	priv, pub := keyFiles(t)
	flags, _ := nodeVMM(t, func(c *vmm.Config) { c.ImageRegistry.Keys = []string{pub} })
	node := func(args ...string) []string { return append(args, flags...) }

	phala(t, cli.ExitConflict, "image", "push", t.TempDir(), repo+":1")
	pushed := phala(t, cli.ExitOK, "image", "push", imageDir(t, "1"), repo+":1", "--sign", priv)
	plain := phala(t, cli.ExitOK, "image", "push", imageDir(t, "2"), repo+":2")
	if pushed["signed"] != true || plain["signed"] != false || pushed["digest"] == plain["digest"] {
		t.Fatalf("%v %v", pushed, plain)
	}
	if r := phala(t, cli.ExitConflict, node("image", "pull", plain["ref"].(string))...); r["reason"] != "image-signature" {
		t.Errorf("%v", r)
	}
	if r := phala(t, cli.ExitConflict, node("image", "pull", repo+":1", "--hash", plain["os_image_hash"].(string))...); r["reason"] != "image-hash" {
		t.Errorf("%v", r)
	}
	phala(t, cli.ExitInvalid, node("image", "pull", repo+":1", "--hash", "abc")...)
	if r := phala(t, cli.ExitOK, node("image", "pull", repo+":1")...); r["name"] != "phala-1" || r["signed_by"] != "image.pub" || r["hash"] != pushed["os_image_hash"] {
		t.Errorf("%v", r)
	}
	if r := phala(t, cli.ExitOK, node("image", "list")...); r["total"] != 1.0 {
		t.Errorf("%v", r)
	}
	if r := phala(t, cli.ExitOK, node("image", "gc", "--keep", "0", "--dry-run")...); fmt.Sprint(r["removed"]) != "[phala-1]" {
		t.Errorf("%v", r)
	}
	phala(t, cli.ExitOK, node("image", "rm", "phala-1")...)
	phala(t, cli.ExitNotFound, node("image", "rm", "phala-1")...)
	if r := phala(t, cli.ExitOK, node("image", "gc")...); len(r["removed"].([]any)) != 0 {
		t.Errorf("%v", r)
	}
}

func TestNodeDrainCommands(t *testing.T) {
	flags, c := nodeVMM(t, func(*vmm.Config) {})
	node := func(args ...string) []string { return append(append([]string{"node"}, args...), flags...) }
	if r := phala(t, cli.ExitOK, node("drain", "--reason", "new fans", "--stop-after", "1h")...); r["draining"] != true || r["stop_at"] == nil || r["reason"] != "new fans" {
		t.Errorf("%v", r)
	}
	spec := vmmapi.Spec{ID: "0b7d5f86-6c55-4b6a-9d0a-7a8f54c6d001", Name: "x", AppID: cvm.AppID{1}, Resources: vmmapi.Resources{VCPU: 1, MemoryMiB: 512, DiskMiB: 2048},
		App: vmmapi.App{AppCompose: []byte(`{"manifest_version":2,"name":"hello","runner":"docker-compose","docker_compose_file":"services: {}"}`)}, KMSURLs: []string{"https://172.31.77.1:8701"}}
	if _, err := c.Put(t.Context(), spec); cvm.ReasonOf(err) != "node-draining" {
		t.Errorf("%v", err)
	}
	if r := phala(t, cli.ExitOK, node("drain", "--status")...); r["draining"] != true {
		t.Errorf("%v", r)
	}
	if r := phala(t, cli.ExitOK, node("undrain", "--start")...); r["draining"] != false {
		t.Errorf("%v", r)
	}
	phala(t, cli.ExitInvalid, node("drain", "--stop-after", "-1h")...)
	phala(t, cli.ExitInvalid, "node", "drain", "--vmm", "http://192.0.2.1:8720", "--vmm-token-file", flags[3]) // the token in clear
	phala(t, cli.ExitInvalid, "node", "drain", "--vmm", flags[1], "--vmm-token-file", "/does/not/exist")
	wrong := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(wrong, []byte("not the token"), 0o600); err != nil {
		t.Fatal(err)
	}
	phala(t, cli.ExitDenied, "node", "drain", "--vmm", flags[1], "--vmm-token-file", wrong)
}

// TestNodeDoctorCommand: an empty directory is no host; this machine is examined.
func TestNodeDoctorCommand(t *testing.T) {
	r := phala(t, cli.ExitFailed, "node", "doctor", "--root", t.TempDir(), "--want", "tdx")
	findings := r["findings"].([]any)
	if r["success"] != false || r["result"] != "fail" || len(findings) < 30 {
		t.Errorf("%v", r)
	}
	if f := findings[0].(map[string]any); f["code"] != "HOST-CPU-001" || f["result"] != "fail" || f["remedy"] == "" {
		t.Errorf("%v", f)
	}
	phala(t, cli.ExitInvalid, "node", "doctor", "--want", "sgx")
}
