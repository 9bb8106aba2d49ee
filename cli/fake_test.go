package cli_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

const goodKey = "phak_good"

// fakeCloud is a cloud API that keeps CVMs in memory, with a real KMS root behind
// its environment keys. Its faults are switched on by tests.
type fakeCloud struct {
	t    testing.TB
	srv  *httptest.Server
	root *keys.Root

	mu       sync.Mutex
	cvms     map[string]*fakeCVM // by name
	kms      cloudapi.KMS
	requests []string // "METHOD path", in order
	deleted  []string // query strings

	swapCompose   bool       // answer with another app-compose
	impostor      *keys.Root // signs environment keys instead of root
	bootError     *cloudapi.CVMError
	breaks        int      // progress streams that break after their first event
	after         []string // of each progress request
	failCommit    bool
	polls         int    // of the device login
	deviceDefault string // what device logins end with; "" is a key
	lastHash      string // of the app-compose it built last
	prepared      string // compose hash of a prepared change that is not the CVM's
	keys          []cloudapiSSHKey
	committed     []map[string]any // bodies of commits
	url           string           // of the app
	gpus          int              // of the instance type
}

type fakeCVM struct {
	app     string
	compose string
	env     []byte
	sig     *cloudapi.EnvSignature
	status  string
	counter uint64
	seq     int64
}

func newFakeCloud(t testing.TB) *fakeCloud {
	root, err := keys.ImportRoot(0, keys.NewSecret(seed("ca")), keys.NewSecret(seed("k256")))
	if err != nil {
		t.Fatal(err)
	}
	chain, contract := uint64(31337), "0x00000000000000000000000000000000000000aa"
	f := &fakeCloud{t: t, root: root, cvms: map[string]*fakeCVM{},
		kms: cloudapi.KMS{ID: "kms_1", URL: "https://kms", ChainID: &chain, KMSContractAddress: &contract}}
	f.srv = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.srv.Close)
	return f
}

func seed(s string) []byte { h := sha256.Sum256([]byte(s)); return h[:] }

func (f *fakeCloud) prefix() string { return f.srv.URL + "/api/v1" }

func (f *fakeCloud) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path, ok := strings.CutPrefix(r.URL.Path, "/api/v1")
	if !ok {
		http.NotFound(w, r)
		return
	}
	f.requests = append(f.requests, r.Method+" "+path)
	if r.Header.Get("X-API-Key") != goodKey && path != "/instance-types" && !strings.HasPrefix(path, "/auth/device/") && !strings.HasSuffix(path, "/commit-update") {
		answer(w, 401, map[string]any{"detail": "invalid or missing API key"})
		return
	}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case path == "/auth/me":
		slug := "test-space"
		answer(w, 200, cloudapi.CurrentUser{User: cloudapi.User{Username: "tester", Email: "t@example.com"}, Workspace: cloudapi.Workspace{Name: "Test Space", Slug: &slug}})
	case path == "/instance-types":
		cpu := "cpu"
		it := []cloudapi.InstanceType{{ID: "tdx.small", Name: "tdx.small", VCPU: 1, MemoryMB: 2048, HourlyRate: "0.058", DefaultDiskSizeGB: 20, Family: &cpu, Description: "small", GPUs: f.gpus}}
		answer(w, 200, cloudapi.InstanceTypes{Result: []cloudapi.InstanceFamily{{Name: "cpu", Items: it, Total: 1}}})
	case path == "/kms":
		answer(w, 200, cloudapi.Page[cloudapi.KMS]{Items: []cloudapi.KMS{f.kms}, Total: 1})
	case len(parts) == 4 && parts[0] == "kms" && parts[2] == "pubkey":
		f.envKey(w, parts[3])
	case path == "/cvms" && r.Method == "GET":
		out := []cloudapi.CVMInfo{}
		for n := range f.cvms {
			out = append(out, f.detail(n).CVMInfo)
		}
		answer(w, 200, out)
	case path == "/cvms/provision":
		f.provision(w, r)
	case path == "/cvms" && r.Method == "POST":
		f.commit(w, r)
	case parts[0] == "cvms" && len(parts) >= 2:
		f.one(w, r, parts[1], strings.Join(parts[2:], "/"))
	default:
		f.more(w, r, path)
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (f *fakeCloud) envKey(w http.ResponseWriter, id string) {
	app, err := cvm.ParseAppID(id)
	if err != nil {
		answer(w, 422, map[string]any{"detail": err.Error()})
		return
	}
	root := f.root
	if f.impostor != nil {
		root = f.impostor
	}
	priv, _ := root.EnvKey(app)
	pub, _ := keys.EnvPublicKey(priv)
	at := uint64(time.Now().Unix())
	v0, v1, err := root.SignEnvKey(app, pub, at)
	if err != nil {
		f.t.Error(err)
	}
	answer(w, 200, cloudapi.EnvKey{PublicKey: hex.EncodeToString(pub), Signature: hex.EncodeToString(v0), SignatureV1: hex.EncodeToString(v1), Timestamp: at})
}

var device = strings.Repeat("d", 64)

func (f *fakeCloud) provision(w http.ResponseWriter, r *http.Request) {
	var req struct {
		cloudapi.ProvisionRequest
		ComposeFile json.RawMessage `json:"compose_file"`
	}
	_ = json.NewDecoder(r.Body).Decode(&req)
	switch {
	case req.InstanceType != "" && req.InstanceType != "tdx.small":
		answer(w, 400, map[string]any{"detail": cloudapi.ErrorDetail{ErrorCode: "ERR-02-001", Message: "unknown instance type \"" + req.InstanceType + "\"", Suggestions: []string{"phala instance-types lists them"}}})
		return
	case req.DiskSize != 0 && req.DiskSize < 10:
		answer(w, 422, map[string]any{"detail": []cloudapi.Validation{{Loc: []any{"body", "disk_size"}, Msg: fmt.Sprintf("%d GB is below the minimum of 10 GB", req.DiskSize), Type: "value_error"}}})
		return
	}
	raw, hash := f.canonical(req.ComposeFile)
	f.cvms["provisioned "+hash] = &fakeCVM{compose: raw}
	answer(w, 200, cloudapi.Provisioned{ComposeHash: hash, AppCompose: raw, KMSInfo: &f.kms, DeviceID: &device, InstanceType: ptr("tdx.small"), KMSID: &f.kms.ID})
}

// canonical is what the server makes of a compose object; a dishonest one adds to it.
func (f *fakeCloud) canonical(in json.RawMessage) (string, string) {
	if f.swapCompose {
		in = json.RawMessage(strings.Replace(string(in), "image:", "image: evil #", 1))
	}
	raw, err := appcompose.Canonical(in)
	if err != nil {
		f.t.Error(err)
	}
	h := sha256.Sum256(raw)
	f.lastHash = hex.EncodeToString(h[:])
	return string(raw), f.lastHash
}

func ptr[T any](v T) *T { return &v }

func (f *fakeCloud) commit(w http.ResponseWriter, r *http.Request) {
	var req cloudapi.CommitRequest
	_ = json.NewDecoder(r.Body).Decode(&req)
	p := f.cvms["provisioned "+req.ComposeHash]
	if p == nil || f.failCommit {
		answer(w, 503, map[string]any{"detail": "the cloud is busy"})
		return
	}
	delete(f.cvms, "provisioned "+req.ComposeHash)
	var doc struct {
		Name string `json:"name"`
	}
	_ = json.Unmarshal([]byte(p.compose), &doc)
	env, _ := hex.DecodeString(req.EncryptedEnv)
	c := &fakeCVM{app: req.AppID, compose: p.compose, env: env, sig: req.EnvSignature, status: cloudapi.StatusRunning, seq: 3}
	if c.sig != nil {
		c.counter = c.sig.Counter
	}
	f.cvms[doc.Name] = c
	answer(w, 200, cloudapi.VM{Name: doc.Name, Status: cloudapi.StatusCreating, AppID: c.app, VMUUID: ptr(uuidOf(doc.Name)), EventSeq: c.seq})
}

func uuidOf(name string) string {
	return fmt.Sprintf("00000000-0000-4000-8000-%012x", seed(name)[:6])
}

func (f *fakeCloud) detail(name string) cloudapi.CVMDetail {
	c := f.cvms[name]
	_, hash := f.canonicalOf(c.compose)
	var doc any
	_ = json.Unmarshal([]byte(c.compose), &doc)
	var ends []cloudapi.Endpoint
	if f.url != "" {
		ends = []cloudapi.Endpoint{{App: f.url, Instance: f.url}}
	}
	return cloudapi.CVMDetail{ComposeFile: doc, CVMInfo: cloudapi.CVMInfo{ID: "cvm_" + name, Name: name, AppID: &c.app, VMUUID: ptr(uuidOf(name)), Status: c.status,
		ComposeHash: &hash, EnvCounter: c.counter, EnvSigned: c.sig != nil, HasEnv: len(c.env) > 0, Simulated: true, Endpoints: ends, Resource: cloudapi.Resource{InstanceType: ptr("tdx.small")}}}
}

func (f *fakeCloud) canonicalOf(s string) (string, string) {
	h := sha256.Sum256([]byte(s))
	return s, hex.EncodeToString(h[:])
}

func (f *fakeCloud) find(id string) string {
	for n := range f.cvms {
		if n == id || uuidOf(n) == id {
			return n
		}
	}
	return ""
}

func (f *fakeCloud) one(w http.ResponseWriter, r *http.Request, id, rest string) {
	name := f.find(id)
	if name == "" {
		answer(w, 404, map[string]any{"detail": cloudapi.ErrorDetail{ErrorCode: "ERR-03-001", Message: "CVM not found"}})
		return
	}
	c := f.cvms[name]
	switch r.Method + " " + rest {
	case "GET ":
		answer(w, 200, f.detail(name))
	case "POST stop", "POST start", "POST shutdown", "POST restart":
		c.status = map[string]string{"stop": "stopped", "shutdown": "stopped"}[rest]
		if c.status == "" {
			c.status = "running"
		}
		answer(w, 200, cloudapi.VM{Name: name, Status: "starting", AppID: c.app, VMUUID: ptr(uuidOf(name))})
	case "GET logs":
		fmt.Fprintf(w, "container=%s tail=%s follow=%s\n", r.URL.Query().Get("container"), r.URL.Query().Get("tail"), r.URL.Query().Get("follow"))
	case "GET serial-logs":
		fmt.Fprintln(w, strings.TrimSpace("console of "+name+" "+r.URL.Query().Encode()))
	case "GET composition":
		answer(w, 200, cloudapi.Composition{IsOnline: c.status == cloudapi.StatusRunning, Error: ptr("the CVM is " + c.status),
			Containers: []cloudapi.Container{{Names: []string{"/app-web-1"}, Image: "web", State: "running", Status: "Up 2 minutes"}},
			Images:     []cloudapi.ImageUse{{Service: "web", Image: "web"}, {Service: "db", Image: "db@sha256:00", Pinned: true}}})
	case "GET events":
		answer(w, 200, []cloudapi.Event{{Seq: 7}})
	case "DELETE ":
		f.deleted = append(f.deleted, r.URL.RawQuery)
		c.status = cloudapi.StatusDeleted
		w.WriteHeader(204)
	case "GET progress":
		f.progress(w, r, c)
	case "POST compose_file/provision":
		var in json.RawMessage
		_ = json.NewDecoder(r.Body).Decode(&in)
		raw, hash := f.canonical(in)
		f.cvms["provisioned "+hash] = &fakeCVM{compose: raw}
		answer(w, 200, cloudapi.ComposeProvisioned{AppID: &c.app, DeviceID: &device, ComposeHash: hash, KMSInfo: &f.kms, AppCompose: raw, Changed: raw != c.compose})
	case "PATCH compose_file":
		var u cloudapi.ComposeUpdate
		_ = json.NewDecoder(r.Body).Decode(&u)
		c.compose = f.cvms["provisioned "+u.ComposeHash].compose
		f.setEnv(c, u.EncryptedEnv, u.EnvSignature)
		answer(w, 202, cloudapi.Accepted{Status: "in_progress", EventSeq: c.seq})
	case "PATCH envs":
		var u cloudapi.EnvsUpdate
		_ = json.NewDecoder(r.Body).Decode(&u)
		f.setEnv(c, u.EncryptedEnv, u.EnvSignature)
		answer(w, 202, cloudapi.Accepted{Status: "in_progress", EventSeq: c.seq})
	default:
		f.moreOf(w, r, name, rest)
	}
}

func (f *fakeCloud) setEnv(c *fakeCVM, blob string, sig *cloudapi.EnvSignature) {
	if blob == "" {
		return
	}
	c.env, _ = hex.DecodeString(blob)
	if c.sig = sig; sig != nil {
		c.counter = sig.Counter
	}
}

func (f *fakeCloud) progress(w http.ResponseWriter, r *http.Request, c *fakeCVM) {
	f.after = append(f.after, r.URL.Query().Get("after"))
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(kind string, v any) {
		b, _ := json.Marshal(v)
		fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, b)
	}
	if f.after[len(f.after)-1] != "8" {
		send("event", cloudapi.Event{Seq: 8, Kind: cloudapi.EventProgress, Message: "4/10 keys"})
	}
	if f.breaks > 0 {
		f.breaks--
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	done := cloudapi.Done{Status: c.status, Seq: 9}
	if f.bootError != nil {
		done.Status, done.Error = cloudapi.StatusFailed, f.bootError
		send("event", cloudapi.Event{Seq: 9, Kind: cloudapi.EventError, Status: done.Status, Message: done.Error.Message, Error: done.Error})
		send("event", cloudapi.Event{Seq: 10, Kind: cloudapi.EventStatus, Status: done.Status, Message: "failed: " + done.Error.Message, Error: done.Error})
	}
	send("done", done)
}
