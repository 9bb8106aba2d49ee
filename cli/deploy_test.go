package cli_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cli"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/devcloud/chain"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/internal/profile"
	"github.com/confidential-cloud/phala/internal/wallet"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/verify"
)

const secretValue = "a-very-secret-value"

const composeV1 = `services:
  web:
    image: web@sha256:0123456789012345678901234567890123456789012345678901234567890123
    ports: ["8080:80"]
    environment:
      SECRET: ${SECRET}
`

// bench is a person at a machine with a real chain, a real KMS root and a fake API.
type bench struct {
	t     *testing.T
	cloud *fakeCloud
	dir   string // logins
	wd    string
	owner *ethereum.Owner
	addr  string
	stdin string
	tty   bool
}

func newBench(t *testing.T) *bench {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	b := &bench{t: t, cloud: newFakeCloud(t), dir: filepath.Join(t.TempDir(), "home"), wd: t.TempDir()}
	w, err := wallet.OpenDev(filepath.Join(b.dir, "wallet.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := chain.New(chain.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(run) }()
	t.Cleanup(func() { stop(); <-ended })
	con, err := c.DeployContracts(ctx, w, nil)
	if err != nil {
		t.Fatal(err)
	}
	contract := con.KMS.Hex()
	b.cloud.kms.KMSContractAddress = &contract
	if err := prepare(b.cloud, b.dir, b.cloud.prefix(), []string{c.Endpoint()}); err != nil {
		t.Fatal(err)
	}
	b.addr = strings.ToLower(w.Info().Address)
	b.owner, err = ethereum.NewOwner(ctx, ethereum.OwnerConfig{RPCURL: c.Endpoint(), ChainID: 31337, KMSContract: contract}, w)
	if err != nil {
		t.Fatal(err)
	}
	b.write("docker-compose.yml", composeV1)
	return b
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.wd, name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

type result struct {
	code        int
	out, stderr string
	json        map[string]any
}

func (b *bench) phala(args ...string) result {
	b.t.Helper()
	var out, stderr bytes.Buffer
	env := map[string]string{"PHALA_CLOUD_DIR": b.dir, "NO_COLOR": "1"}
	code := cli.Run(b.t.Context(), cli.Config{
		Args: append(args, "--profile", "space"), Stdin: strings.NewReader(b.stdin), Stdout: &out, Stderr: &stderr,
		Getenv: func(k string) string { return env[k] }, Workdir: b.wd, TTY: b.tty, Now: time.Now,
	})
	r := result{code: code, out: out.String(), stderr: stderr.String()}
	if slices.Contains(args, "--json") {
		if err := json.Unmarshal(out.Bytes(), &r.json); err != nil {
			b.t.Fatalf("phala %v: not one JSON object on stdout: %v\n%s\n%s", args, err, r.out, r.stderr)
		}
	}
	if strings.Contains(r.out+r.stderr, secretValue) {
		b.t.Errorf("phala %v prints the secret", args)
	}
	return r
}

// works fails the test unless the command succeeds.
func (b *bench) works(args ...string) result {
	b.t.Helper()
	r := b.phala(args...)
	if r.code != 0 {
		b.t.Fatalf("phala %v: exit code %d\n%s%s", args, r.code, r.out, r.stderr)
	}
	return r
}

// allowed reports whether a compose hash is in force on chain for an app.
func (b *bench) allowed(app, hash string) bool {
	b.t.Helper()
	id, err1 := cvm.ParseAppID(app)
	h, err2 := cvm.ParseComposeHash(hash)
	if err1 != nil || err2 != nil {
		b.t.Fatal(err1, err2)
	}
	inForce := false
	err := b.owner.Apply(b.t.Context(), func(p ethereum.Progress) { inForce = inForce || p.Stage == ethereum.StageInForce }, ethereum.AllowCompose(id, h))
	if err != nil {
		b.t.Fatal(err)
	}
	return inForce
}

// env opens the stored environment as the app would, and checks who signed it.
func (b *bench) env(name string) (map[string]string, uint64) {
	b.t.Helper()
	c := b.cloud.cvms[name]
	app, err := cvm.ParseAppID(c.app)
	if err != nil {
		b.t.Fatal(err)
	}
	priv, err := b.cloud.root.EnvKey(app)
	if err != nil {
		b.t.Fatal(err)
	}
	vars, err := keys.DecryptEnv(priv, c.env)
	if err != nil {
		b.t.Fatal(err)
	}
	if c.sig == nil {
		b.t.Fatal("the environment is not signed")
	}
	sig, _ := hex.DecodeString(c.sig.Signature)
	who, err := keys.RecoverEnvSigner(sig, app, c.sig.Counter, sha256.Sum256(c.env))
	if err != nil || !keys.SameAddress(who, b.addr) {
		b.t.Errorf("signed by %s, %v; want %s", who, err, b.addr)
	}
	out := map[string]string{}
	for _, v := range vars {
		out[v.Key] = v.Value
	}
	return out, c.sig.Counter
}

// A plan says how many GPUs the app needs and gets, and nothing of GPUs where it needs none.
func TestPlanOfGPUs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if r := b.works("deploy", "-n", "hello", "-e", "SECRET=x", "--plan"); strings.Contains(r.out+r.stderr, "GPUs") {
		t.Errorf("%s%s", r.out, r.stderr)
	}
	b.cloud.gpus = 2
	b.write("docker-compose.yml", composeV1+"    gpus: [{count: 2}]\n")
	if r := b.works("deploy", "-n", "hello", "-e", "SECRET=x", "--plan"); !strings.Contains(r.out+r.stderr, "GPUs         2 needed, tdx.small has 2") {
		t.Errorf("%s%s", r.out, r.stderr)
	}
	if r := b.works("deploy", "-n", "hello", "-e", "SECRET=x", "--plan", "--json"); r.json["gpus"] != 2.0 || r.json["gpus_needed"] != 2.0 {
		t.Error(r.out)
	}
}

// The life of an app: deploy, the same again, update, new environment, counters.
func TestDeployAndUpdate(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	dry := b.works("deploy", "-n", "hello", "-e", "SECRET="+secretValue, "--dry-run", "--json")
	if dry.json["action"] != "create" || len(b.cloud.cvms) != 1 { // the provisioned one
		t.Errorf("dry run: %v, %d CVMs", dry.json["action"], len(b.cloud.cvms))
	}

	r := b.works("deploy", "-n", "hello", "-e", "SECRET="+secretValue, "--json")
	app, hash := r.json["app_id"].(string), r.json["compose_hash"].(string)
	if r.json["success"] != true || r.json["action"] != "created" || r.json["status"] != "running" || r.json["simulated"] != true {
		t.Errorf("answer: %s", r.out)
	}
	if hash != dry.json["compose_hash"] {
		t.Error("the dry run showed another compose hash")
	}
	if !b.allowed(app, hash) {
		t.Error("the compose hash was not put on chain")
	}
	var doc struct {
		EnvSigners    []string `json:"env_signers"`
		AllowedEnvs   []string `json:"allowed_envs"`
		KeyProviderID string   `json:"key_provider_id"`
	}
	if err := json.Unmarshal([]byte(b.cloud.cvms["hello"].compose), &doc); err != nil {
		t.Fatal(err)
	}
	spki, _ := b.cloud.root.CASPKI()
	if !slices.Equal(doc.EnvSigners, []string{b.addr}) || !slices.Equal(doc.AllowedEnvs, []string{"SECRET"}) || doc.KeyProviderID != hex.EncodeToString(spki) {
		t.Errorf("app-compose pins %+v", doc)
	}
	if env, n := b.env("hello"); env["SECRET"] != secretValue || n != 1 {
		t.Errorf("environment %v, counter %d", len(env), n)
	}

	err := filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte(secretValue)) {
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	if r := b.works("deploy", "-n", "hello", "--json"); r.json["action"] != "unchanged" {
		t.Errorf("the same again: %s", r.out)
	}
	b.write("docker-compose.yml", strings.Replace(composeV1, "8080", "9090", 1))
	r = b.works("deploy", "-n", "hello", "--json")
	if r.json["action"] != "updated" || r.json["app_id"] != app || r.json["compose_hash"] == hash {
		t.Errorf("update: %s", r.out)
	}
	if !b.allowed(app, r.json["compose_hash"].(string)) {
		t.Error("the new hash was not put on chain")
	}
	if env, n := b.env("hello"); env["SECRET"] != secretValue || n != 1 {
		t.Errorf("an update without -e changed the environment (counter %d)", n)
	}

	b.works("deploy", "-n", "hello", "-e", "SECRET=second")
	if env, n := b.env("hello"); env["SECRET"] != "second" || n != 2 {
		t.Errorf("environment %v, counter %d", env, n)
	}
	b.cloud.cvms["hello"].counter = 0 // the cloud forgets (or lies): we do not
	b.works("envs", "update", "hello", "-e", "SECRET=third")
	if env, n := b.env("hello"); env["SECRET"] != "third" || n != 3 {
		t.Errorf("environment %v, counter %d", env, n)
	}
	b.cloud.cvms["hello"].counter = 41 // another machine signed
	b.works("envs", "update", "hello", "-e", "SECRET=fourth")
	if _, n := b.env("hello"); n != 42 {
		t.Errorf("counter %d, want 42", n)
	}
	if r := b.phala("envs", "update", "hello", "-e", "OTHER=x"); r.code != cli.ExitInvalid || !strings.Contains(r.stderr, "OTHER is not among the names") {
		t.Errorf("a name outside allowed_envs: %d %s", r.code, r.stderr)
	}
}

// committed reports whether the cloud was asked to run something.
func (b *bench) committed() bool {
	return slices.ContainsFunc(b.cloud.requests, func(r string) bool { return r == "POST /cvms" || strings.HasPrefix(r, "PATCH ") })
}

// A cloud that lies is refused before anything of value is sent.
func TestDeployRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	impostor, err := keys.ImportRoot(0, keys.NewSecret(seed("ca")), keys.NewSecret(seed("another")))
	if err != nil {
		t.Fatal(err)
	}
	good := b.cloud.kms
	wrong, chainID := "0x00000000000000000000000000000000000000bb", uint64(1)
	for _, c := range []struct {
		name   string
		set    func(*fakeCloud)
		reason string
		word   string
	}{
		{"another compose", func(f *fakeCloud) { f.swapCompose = true }, "cloud-changed-compose", "nothing was put on chain"},
		{"another contract", func(f *fakeCloud) { f.kms.KMSContractAddress = &wrong }, "cloud-not-in-trust-profile", wrong},
		{"another chain", func(f *fakeCloud) { f.kms.ChainID = &chainID }, "cloud-not-in-trust-profile", "chain 1;"},
		{"another KMS's env key", func(f *fakeCloud) { f.impostor = impostor }, "env-key-wrong-signer", "not by the pinned KMS key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			b.cloud.swapCompose, b.cloud.kms, b.cloud.impostor, b.cloud.requests = false, good, nil, nil
			c.set(b.cloud)
			r := b.phala("deploy", "-n", "hello", "-e", "SECRET="+secretValue, "--json")
			if r.code != cli.ExitDenied || r.json["reason"] != c.reason || r.json["success"] != false || !strings.Contains(r.out, c.word) {
				t.Errorf("exit code %d\n%s", r.code, r.out)
			}
			if b.committed() {
				t.Error("the cloud was asked to run it all the same")
			}
		})
	}
}

// What the KMS refuses is told with its reason and what to do; a deploy that broke
// off after the chain goes on with the same app.
func TestDeployFailsAndContinues(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.cloud.failCommit = true
	if r := b.phala("deploy", "-n", "hello", "-e", "SECRET="+secretValue); r.code != cli.ExitUnavailable {
		t.Fatalf("exit code %d\n%s", r.code, r.stderr)
	}
	b.cloud.failCommit = false
	var pending profile.Pending
	if err := profile.Update(b.dir, func(s *profile.State) error {
		for _, p := range s.Pending {
			pending = p
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b.cloud.bootError = &cloudapi.CVMError{Reason: kmsapi.ReasonGovernance, Message: "KMS refused: OS image is not allowed", Stage: "4/10 keys", Fix: "allow the image on chain"}
	r := b.phala("deploy", "-n", "hello", "-e", "SECRET="+secretValue)
	for _, want := range []string{"OS image is not allowed", "4/10 keys", "the rules on chain do not allow this", "governance-denied", "fix: allow the image on chain"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("%q is missing in:\n%s", want, r.stderr)
		}
	}
	if n := strings.Count(r.stderr, "KMS refused"); n != 2 { // when it happened, and as the result
		t.Errorf("said %d times:\n%s", n, r.stderr)
	}
	if r.code != cli.ExitConflict {
		t.Errorf("exit code %d", r.code)
	}
	if got := b.cloud.cvms["hello"].app; pending.AppID == "" || got != pending.AppID {
		t.Errorf("a second app contract: %s, the first was %s", got, pending.AppID)
	}
}

// The URL is asked at the gateway's pinned address, under its own name, against the
// pinned CA; the gateway's "not yet" is waited out.
func TestDeployWaitsForTheURL(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var asked atomic.Int32
	var sni atomic.Value
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sni.Store(r.TLS.ServerName)
		if asked.Add(1) < 3 {
			w.Header().Set(gatewayapi.HeaderReason, "no-route")
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable) // the app's own answer counts
	}))
	app.StartTLS()
	t.Cleanup(app.Close)
	ca := filepath.Join(b.wd, "ca.pem")
	b.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: app.Certificate().Raw})))
	trust := filepath.Join(b.dir, "trust.toml")
	p, err := verify.LoadProfile(trust)
	if err != nil {
		t.Fatal(err)
	}
	p.Gateway.Domain, p.Gateway.Address, p.Gateway.CAFile = "example.com", app.Listener.Addr().String(), ca
	text, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := profile.WriteFile(trust, text); err != nil {
		t.Fatal(err)
	}
	b.cloud.url = "https://abc-8080.example.com:8443"
	r := b.works("deploy", "-n", "hello", "-e", "SECRET=x")
	if asked.Load() != 3 || sni.Load() != "abc-8080.example.com" {
		t.Errorf("asked %d times, as %v", asked.Load(), sni.Load())
	}
	if r.out != b.cloud.url+"\n" || !strings.Contains(r.stderr, "phala verify "+b.cloud.url) {
		t.Errorf("stdout %q\n%s", r.out, r.stderr)
	}
}

func TestOneCVM(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.write("app.env", "# a comment\nexport SECRET = 'quoted # not a comment'\n\nSECRET=\"later wins\"\n")
	b.works("deploy", "-n", "hello", "-e", "app.env", "--no-wait")
	if env, _ := b.env("hello"); env["SECRET"] != "later wins" || len(env) != 1 {
		t.Errorf("environment %v", env)
	}
	for _, c := range []struct{ args, want string }{
		{"ps hello", "app-web-1"},
		{"logs web -n 5 -f --cvm-id hello", "container=web tail=5 follow=true\n"},
		{"cvms logs hello -c db", "container=db tail= follow=\n"},
		{"logs --serial --cvm-id hello", "console of hello\n"},
		{"cvms get hello", "encrypted, signed by the owner (counter 1)"},
		{"cvms get hello", "SIMULATED TEE"},
		{"cvms list --search ell", "hello"},
		{"cvms stop hello", "hello stopped\n"},
		{"cvms start hello", "hello running\n"},
		{"cvms restart hello --json", "\"status\": \"running\""},
	} {
		if r := b.works(strings.Fields(c.args)...); !strings.Contains(r.out, c.want) {
			t.Errorf("phala %s: %q is missing in\n%s", c.args, c.want, r.out)
		}
	}
	b.works("cvms", "stop", "hello")
	if r := b.phala("ps", "hello"); r.code != cli.ExitConflict || !strings.Contains(r.stderr, "the CVM is stopped") {
		t.Errorf("ps of a stopped CVM: %d %s", r.code, r.stderr)
	}
	// encrypt prints what only the app can open
	r := b.works("envs", "encrypt", "hello", "-e", "SECRET="+secretValue)
	blob, err := hex.DecodeString(strings.TrimSpace(r.out))
	if err != nil {
		t.Fatal(err)
	}
	b.cloud.cvms["hello"].env = blob
	app, _ := cvm.ParseAppID(b.cloud.cvms["hello"].app)
	priv, _ := b.cloud.root.EnvKey(app)
	if vars, err := keys.DecryptEnv(priv, blob); err != nil || vars[0].Value != secretValue {
		t.Errorf("envs encrypt: %v", err)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.works("deploy", "-n", "hello", "-e", "SECRET=x")
	if r := b.phala("cvms", "delete", "hello"); r.code != cli.ExitInvalid || !strings.Contains(r.stderr, "--volumes delete") || b.cloud.deleted != nil {
		t.Errorf("without a terminal: %d %s", r.code, r.stderr)
	}
	b.tty, b.stdin = true, "keep\nno\n"
	if r := b.phala("cvms", "delete", "hello"); r.code != cli.ExitConflict || b.cloud.deleted != nil {
		t.Errorf("answered no: %d %s", r.code, r.stderr)
	}
	b.stdin = "delete\nyes\n"
	r := b.works("cvms", "delete", "hello")
	if !slices.Equal(b.cloud.deleted, []string{"volumes=delete"}) || !strings.Contains(r.stderr, "DELETED for good") {
		t.Errorf("asked for %v\n%s", b.cloud.deleted, r.stderr)
	}
	b.tty, b.stdin, b.cloud.deleted = false, "", nil
	r = b.works("cvms", "delete", "hello", "--yes", "--json")
	if !slices.Equal(b.cloud.deleted, []string{"volumes=keep"}) || r.json["volumes"] != "keep" {
		t.Errorf("asked for %v", b.cloud.deleted)
	}
}
