package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/test/simtrust"
	"github.com/confidential-cloud/phala/verify"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// prove is what a prover of the machine answers.
func (x *machine) prove(t *testing.T, nonce []byte) []byte {
	t.Helper()
	doc, err := vmmapi.ProverApp()
	if err != nil {
		t.Fatal(err)
	}
	b, err := simtrust.Evidence(x.hw, hex.EncodeToString(nonce[:16]), doc, nonce)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// joins is a cloud whose node's VMM speaks TLS, and its machine.
type joins struct {
	*world
	x     *machine
	front *httptest.Server
	clock atomic.Int64 // how far the cloud's clock is ahead

	certs   [2]tls.Certificate
	turn    atomic.Bool  // the second certificate answers
	reached atomic.Int64 // requests that it got
}

func (j *joins) cert() tls.Certificate {
	if j.turn.Load() {
		return j.certs[1]
	}
	return j.certs[0]
}

func newJoins(t *testing.T) *joins {
	t.Helper()
	j := &joins{x: newMachine(t, 7, simtee.Faults{})}
	f := newVMM()
	f.device = j.x.hw.DeviceID()
	f.node = func(n *vmmapi.Node) { n.Simulated = false }
	j.certs = [2]tls.Certificate{selfSigned(t), selfSigned(t)}
	j.front = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if j.turn.Load() {
			j.reached.Add(1)
		}
		f.ServeHTTP(rw, r)
	}))
	j.front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	j.front.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{j.cert()}}, nil
	}}
	j.front.StartTLS()
	t.Cleanup(j.front.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	var both []byte
	for _, c := range j.certs {
		both = append(both, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})...)
	}
	if err := os.WriteFile(ca, both, 0o600); err != nil {
		t.Fatal(err)
	}
	j.world = newWorld(t, func(c *api.Config) {
		offChain(c)
		c.TrustProfile = simtrust.Profile(t, j.x.hw, nil)
		c.Nodes[0].URL, c.Nodes[0].CAFile = j.front.URL, ca
		c.Now = func() time.Time { return time.Now().Add(time.Duration(j.clock.Load())) }
	})
	j.vmm = f
	return j
}

func (j *joins) key() [32]byte { return sha256.Sum256(j.cert().Leaf.RawSubjectPublicKeyInfo) }

// shown is a proof that answers a new challenge.
func (j *joins) shown() cloudapi.NodeJoin {
	j.t.Helper()
	c := call[cloudapi.NodeChallenge](j.world, 200, "POST", "/nodes/1/challenge", nil, nil)
	fresh, err := hex.DecodeString(c.Fresh)
	if err != nil || len(fresh) != 32 {
		j.t.Fatalf("%+v %v", c, err)
	}
	key := j.key()
	return cloudapi.NodeJoin{Challenge: c.Challenge, Attestation: j.x.prove(j.t, vmmapi.JoinNonceOf([32]byte(fresh), key)), TLSKey: hex.EncodeToString(key[:])}
}

func (j *joins) node() cloudapi.AvailableNode {
	j.t.Helper()
	return call[cloudapi.AvailableNode](j.world, 200, "GET", "/nodes/1", nil, nil)
}

func (j *joins) kinds() (out []string) {
	j.t.Helper()
	for _, e := range call[[]cloudapi.NodeEvent](j.world, 200, "GET", "/nodes/1/events", nil, nil) {
		out = append(out, e.Kind)
	}
	return out
}

// TestNodeJoins: the cloud verifies the proof itself, keeps the evidence for everybody,
// counts the node as what it proved until the proof ends, and tells the end once.
func TestNodeJoins(t *testing.T) {
	j := newJoins(t)
	if n := j.node(); n.Confidence != "unverified" || n.Proof != nil || !strings.Contains(n.ConfidenceWhy, "not proved") {
		t.Fatalf("before: %+v", n)
	}
	refused(j.world, 404, "not-joined", "GET", "/nodes/1/evidence", nil, nil)
	shown := j.shown()
	p := call[cloudapi.NodeProof](j.world, 200, "POST", "/nodes/1/join", shown, nil)
	device := j.x.hw.DeviceID()
	if !p.Simulated || p.Platform != "simulated" || p.DeviceID != device.String() || p.TLSKey != shown.TLSKey || p.Profile != "test cloud" || p.TCB.Status != "UpToDate" || p.JoinedBy != "admin" || !p.ExpiresAt.After(time.Now()) {
		t.Errorf("%+v", p)
	}
	n := j.node()
	if n.Confidence != "simulated" || !n.Simulated || n.Proof == nil || n.Proof.Expired || n.Proof.DeviceID != p.DeviceID || *n.DeviceID != p.DeviceID || !n.Online {
		t.Errorf("joined: %+v", n)
	}
	ev := call[cloudapi.NodeEvidence](j.world, 200, "GET", "/nodes/1/evidence", nil, nil)
	if !slices.Equal(ev.Attestation, shown.Attestation) || len(ev.Checks) < 10 || ev.Name != "node-1" || ev.DeviceID != p.DeviceID {
		t.Errorf("evidence: %d bytes, %d checks, %s", len(ev.Attestation), len(ev.Checks), ev.DeviceID)
	}
	refused(j.world, 409, "it proved a simulated platform", "POST", "/cvms/provision", cloudapi.ProvisionRequest{Name: "sure-app", MinConfidence: "unverified", ComposeFile: compose(nil)}, nil)

	again := call[cloudapi.NodeProof](j.world, 200, "POST", "/nodes/1/join", j.shown(), nil)
	j.stop()
	j.start() // what was proved outlives the process
	if n := j.node(); n.Proof == nil || !n.Proof.JoinedAt.Equal(again.JoinedAt) || n.Confidence != "simulated" {
		t.Errorf("after a restart: %+v", n.Proof)
	}
	j.clock.Store(int64(time.Until(again.ExpiresAt) + time.Second))
	j.until("the proof's end", func() bool { return slices.Contains(j.kinds(), cloudapi.NodeExpired) })
	if n := j.node(); n.Confidence != "simulated" || !n.Proof.Expired { // the end makes nothing more sure
		t.Errorf("expired: %s %+v", n.Confidence, n.Proof)
	}
	if k := j.kinds(); !slices.Equal(k, []string{cloudapi.NodeJoined, cloudapi.NodeJoined, cloudapi.NodeExpired}) {
		t.Errorf("events %v", k)
	}
	if status, body := j.raw("DELETE", "/nodes/1/join", nil, nil); status != 204 {
		t.Errorf("leave: %d %s", status, body)
	}
	refused(j.world, 404, "not-joined", "DELETE", "/nodes/1/join", nil, nil)
	if n := j.node(); n.Proof != nil {
		t.Errorf("left: %+v", n.Proof)
	}
	audit := call[cloudapi.AuditPage](j.world, 200, "GET", "/audit?limit=1000", nil, nil)
	if !slices.ContainsFunc(audit.Items, func(e cloudapi.AuditEntry) bool {
		return e.Action == "post-nodes-node-id-join" && strings.HasSuffix(e.Target, "/nodes/1/join") && e.User == "admin" && e.Outcome == cloudapi.AuditDone
	}) {
		t.Errorf("no audit line of the join: %+v", audit.Items)
	}
}

// TestNodeJoinRefusals: what is not proved to the cloud changes nothing.
func TestNodeJoinRefusals(t *testing.T) {
	j := newJoins(t)
	good := j.shown()
	join := func(status int, word string, change func(*cloudapi.NodeJoin)) {
		t.Helper()
		r := good
		change(&r)
		refused(j.world, status, word, "POST", "/nodes/1/join", r, nil)
	}
	fresh := func(key [32]byte) []byte {
		c, err := hex.DecodeString(good.Challenge)
		if err != nil {
			t.Fatal(err)
		}
		return vmmapi.JoinNonceOf(sha256.Sum256(c), key)
	}
	join(422, "challenge", func(r *cloudapi.NodeJoin) { r.Challenge = strings.Repeat("ab", 48) })
	join(422, "challenge", func(r *cloudapi.NodeJoin) { r.Challenge = "" })
	join(403, "platform-unproved", func(r *cloudapi.NodeJoin) { r.Attestation = []byte("junk") })
	join(403, "platform-unproved", func(r *cloudapi.NodeJoin) { r.Attestation = j.shown().Attestation }) // to another challenge
	join(403, "platform-unproved", func(r *cloudapi.NodeJoin) { r.Attestation = j.x.prove(t, fresh([32]byte{1})) })
	join(403, "tls-key-changed", func(r *cloudapi.NodeJoin) { r.TLSKey = strings.Repeat("ab", 32) })
	join(403, "tls-key-changed", func(r *cloudapi.NodeJoin) { r.TLSKey = "" })
	other := newMachine(t, 8, simtee.Faults{})
	join(403, "platform-unproved", func(r *cloudapi.NodeJoin) { r.Attestation = other.prove(t, fresh(j.key())) }) // a root that the profile does not admit
	j.vmm.mu.Lock()
	j.vmm.device = cvm.DeviceID{9}
	j.vmm.mu.Unlock()
	j.until("the node says another device", func() bool { return *j.node().DeviceID == (cvm.DeviceID{9}).String() })
	join(403, "device-differs", func(*cloudapi.NodeJoin) {})
	j.clock.Store(int64(31 * time.Minute))
	join(422, "too old", func(*cloudapi.NodeJoin) {})
	refused(j.world, 404, "node-not-found", "POST", "/nodes/99/join", good, nil)
	stranger := map[string]string{"X-API-Key": j.srv.KeyOfNewWorkspace(t, "stranger")}
	for _, path := range []string{"POST /nodes/1/challenge", "POST /nodes/1/join", "DELETE /nodes/1/join", "GET /nodes/1/drain", "POST /nodes/1/drain", "POST /nodes/1/undrain"} {
		method, p, _ := strings.Cut(path, " ")
		refused(j.world, 403, "operates", method, p, map[string]any{"challenge": good.Challenge, "attestation": good.Attestation}, stranger)
	}
	if k := j.kinds(); len(k) != 0 || j.node().Proof != nil {
		t.Errorf("something was taken: %v", k)
	}

	for name, mod := range map[string]func(*api.Config){
		"no-trust-profile": func(c *api.Config) { c.TrustProfile = "" },
		"trust-profile":    func(c *api.Config) { c.TrustProfile = filepath.Join(t.TempDir(), "gone.toml") },
	} {
		w := newWorld(t, func(c *api.Config) { offChain(c); mod(c) })
		if status, body := w.raw("POST", "/nodes/1/challenge", nil, nil); status < 500 || !strings.Contains(body, name) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	strict := newWorld(t, func(c *api.Config) {
		offChain(c)
		c.TrustProfile = simtrust.Profile(t, j.x.hw, func(p *verify.Profile) { p.TEE.TCBStatus = []string{"OutOfDate"} })
	})
	c := call[cloudapi.NodeChallenge](strict, 200, "POST", "/nodes/1/challenge", nil, nil)
	sum, err := hex.DecodeString(c.Fresh)
	if err != nil {
		t.Fatal(err)
	}
	refused(strict, 403, "platform-unproved", "POST", "/nodes/1/join",
		cloudapi.NodeJoin{Challenge: c.Challenge, Attestation: j.x.prove(t, vmmapi.JoinNonce([32]byte(sum), nil))}, nil)
}

// TestNodeKeyIsPinned: once joined, a node whose VMM answers with another key gets
// nothing, the token least of all, until it joins again.
func TestNodeKeyIsPinned(t *testing.T) {
	j := newJoins(t)
	call[cloudapi.NodeProof](j.world, 200, "POST", "/nodes/1/join", j.shown(), nil)
	j.until("the node answers", func() bool { return j.node().Online })
	// The node's CA vouches for the other certificate too: only the key tells.
	j.turn.Store(true)
	j.front.CloseClientConnections()
	j.until("another key answers", func() bool { return slices.Contains(j.kinds(), cloudapi.NodeKeyChanged) })
	if n := j.node(); n.Online || !strings.Contains(n.Problem, "another TLS key") {
		t.Errorf("%+v", n)
	}
	refused(j.world, 409, "another TLS key", "POST", "/cvms/provision", cloudapi.ProvisionRequest{Name: "some-app", ComposeFile: compose(nil)}, nil)
	if n := j.reached.Load(); n != 0 {
		t.Errorf("%d requests reached who has another key", n)
	}
	// The old key's proof does not bring the new key in.
	old := j.shown()
	refused(j.world, 403, "tls-key-changed", "POST", "/nodes/1/join", cloudapi.NodeJoin{Challenge: old.Challenge, Attestation: old.Attestation, TLSKey: hexKey(j.certs[0])}, nil)
	p := call[cloudapi.NodeProof](j.world, 200, "POST", "/nodes/1/join", old, nil)
	if p.TLSKey != hexKey(j.certs[1]) {
		t.Errorf("%+v", p)
	}
	j.until("the new key counts", func() bool { return j.reached.Load() > 0 && j.node().Online })
}

func hexKey(c tls.Certificate) string {
	h := sha256.Sum256(c.Leaf.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(h[:])
}

// selfSigned is a certificate for 127.0.0.1.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vmm"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TestNodeDrains: the operator drains a node through the cloud; everybody sees why, and
// the scheduler says it.
func TestNodeDrains(t *testing.T) {
	w := newWorld(t, offChain)
	hour := int64(3600)
	d := call[cloudapi.NodeDrain](w, 200, "POST", "/nodes/1/drain", cloudapi.NodeDrainRequest{Reason: "new fans", StopAfterSeconds: &hour}, nil)
	if !d.Draining || d.Reason != "new fans" || d.StopAt == nil || d.Since == nil || d.Running == nil || d.NodeID != 1 {
		t.Errorf("%+v", d)
	}
	n := call[cloudapi.AvailableNode](w, 200, "GET", "/nodes/1", nil, nil)
	if !n.Draining || !strings.Contains(n.Problem, "drained (new fans)") || n.Maintenance == nil || n.Maintenance.Reason != "new fans" || n.Maintenance.StopAt == nil {
		t.Errorf("%+v", n)
	}
	refs := call[cloudapi.Page[cloudapi.NodeRef]](w, 200, "GET", "/workspaces/default/nodes", nil, nil)
	if *refs.Items[0].Status != "MAINTENANCE" {
		t.Errorf("%+v", refs)
	}
	refused(w, 409, "is being drained (new fans) and takes no new CVMs", "POST", "/cvms/provision", cloudapi.ProvisionRequest{Name: "some-app", ComposeFile: compose(nil)}, nil)
	if s := call[cloudapi.NodeDrain](w, 200, "GET", "/nodes/1/drain", nil, nil); !s.Draining {
		t.Errorf("%+v", s)
	}
	if s := call[cloudapi.NodeDrain](w, 200, "POST", "/nodes/1/undrain", cloudapi.NodeUndrainRequest{Start: true}, nil); s.Draining {
		t.Errorf("%+v", s)
	}
	if n := call[cloudapi.AvailableNode](w, 200, "GET", "/nodes/1", nil, nil); n.Draining || n.Maintenance != nil || n.Problem != "" {
		t.Errorf("%+v", n)
	}
	var kinds []string
	for _, e := range call[[]cloudapi.NodeEvent](w, 200, "GET", "/nodes/1/events", nil, nil) {
		kinds = append(kinds, e.Kind+" "+e.By)
	}
	if !slices.Equal(kinds, []string{"node.drained admin", "node.undrained admin"}) {
		t.Errorf("events %v", kinds)
	}
	refused(w, 422, "stop_after_seconds", "POST", "/nodes/1/drain", map[string]any{"stop_after_seconds": -1}, nil)
	refused(w, 422, "reason", "POST", "/nodes/1/drain", map[string]any{"reason": strings.Repeat("x", 201)}, nil)
	w.vmm.down.Store(true)
	refused(w, 503, "unavailable", "POST", "/nodes/1/drain", nil, nil)
}

// TestNodesShowTheTier: the workspace's own tier and what it allows, not a constant.
func TestNodesShowTheTier(t *testing.T) {
	w := newWorld(t, offChain)
	if n, err := w.c.Nodes(t.Context()); err != nil || n.Tier != "self-hosted" || n.Capacity.MaxVCPU != nil {
		t.Errorf("%+v %v", n, err)
	}
	call[cloudapi.Balance](w, 200, "PUT", "/operator/workspaces/default/terms", map[string]any{"tier": "tier-1"}, nil)
	n, err := w.c.Nodes(t.Context())
	if err != nil || n.Tier != "tier-1" || *n.Capacity.MaxInstances != 8 || *n.Capacity.MaxVCPU != 16 || *n.Capacity.MaxMemory != 32768 || *n.Capacity.MaxDisk != 160 {
		t.Errorf("%+v %v", n, err)
	}
	if all := call[cloudapi.Workspaces](w, 200, "GET", "/workspaces", nil, nil); all.Data[0].Tier != "tier-1" {
		t.Errorf("%+v", all)
	}
}
