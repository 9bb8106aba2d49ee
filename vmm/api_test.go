package vmm

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// book collects log lines.
type book struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestRolesAndAudit(t *testing.T) {
	dir, lines := t.TempDir(), &book{}
	reader, operator := "reader-token-0123456789", "operator-token-0123456789"
	if err := os.WriteFile(filepath.Join(dir, "people"), []byte("# who\nread eve "+reader+"\noperate bob "+operator+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, dry.New(dry.Config{}), func(c *Config) {
		c.Tokens, c.Log = dir, slog.New(slog.NewTextHandler(lines, nil))
	})
	eve, bob := vmmapi.NewClient("http://"+n.vmm.Addr(), reader, nil), vmmapi.NewClient("http://"+n.vmm.Addr(), operator, nil)
	n.must(bob.Put(t.Context(), spec()))
	n.must(eve.Get(t.Context(), vmID))
	for what, err := range map[string]error{
		"put":    failure(eve.Put(t.Context(), spec())),
		"start":  failure(eve.Start(t.Context(), vmID)),
		"update": failure(eve.Update(t.Context(), vmID, vmmapi.UpdateRequest{App: app("x")})),
		"delete": eve.Delete(t.Context(), vmID, false),
	} {
		if cvm.CodeOf(err) != cvm.Denied || cvm.ReasonOf(err) != "read-only" {
			t.Errorf("eve may %s: %v", what, err)
		}
	}
	for path, want := range map[string]int{"/prpc/Status": 200, "/prpc/RemoveVm": 403, "/prpc/Unknown": 403, "/guest/Shutdown": 403} {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://"+n.vmm.Addr()+path, strings.NewReader(`{"id":"`+vmID+`"}`))
		req.Header.Set("Authorization", "Bearer "+reader)
		res, err := http.DefaultClient.Do(req)
		if err != nil || res.StatusCode != want {
			t.Errorf("eve %s: %v %v, want %d", path, res, err, want)
		}
	}
	got := lines.String()
	for _, want := range []string{"msg=audit caller=bob role=operate method=PUT path=/v1/vms/" + vmID, "caller=eve role=read method=DELETE", "reason=read-only", "path=/prpc/RemoveVm"} {
		if !strings.Contains(got, want) {
			t.Errorf("no audit line with %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "path=/prpc/Status") || strings.Contains(got, reader) || strings.Contains(got, operator) || strings.Contains(got, "ciphertext") {
		t.Errorf("the audit says too much:\n%s", got)
	}
}

func TestTokenFileRefusals(t *testing.T) {
	for want, c := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"can be read by others": {"read eve 0123456789abcdef", 0o640},
		"line 2":                {"read eve 0123456789abcdef\nroot bob 0123456789abcdeg", 0o600},
		"at least 16":           {"read eve short", 0o600},
		"used twice":            {"read eve 0123456789abcdef\noperate bob 0123456789abcdef", 0o600},
		"line 1":                {"0123456789abcdef", 0o600},
	} {
		path := filepath.Join(t.TempDir(), "tokens")
		if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := loadTokens(filepath.Join(t.TempDir(), "token"), path)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "0123456789abcde") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// authority signs certificates for the test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.key = newKey(t)
	a.cert = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	a.write("ca", a.cert, a.key)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (a *authority) write(name string, c *x509.Certificate, k *ecdsa.PrivateKey) (cert, key string) {
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &k.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pk, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, key = filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key")
	err = errors.Join(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk}), 0o600))
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) leaf(name string) (cert, key string) {
	return a.write(name, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, newKey(a.t))
}

func (a *authority) client(cert, key string) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(must2(a.t, func() (*x509.Certificate, error) {
		b, _ := os.ReadFile(filepath.Join(a.dir, "ca.crt"))
		p, _ := pem.Decode(b)
		return x509.ParseCertificate(p.Bytes)
	}))
	c := &tls.Config{RootCAs: pool}
	if cert != "" {
		c.Certificates = []tls.Certificate{must2(a.t, func() (tls.Certificate, error) { return tls.LoadX509KeyPair(cert, key) })}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: c}}
}

func must2[T any](t *testing.T, fn func() (T, error)) T {
	t.Helper()
	v, err := fn()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestMutualTLS(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	n := newNode(t, dry.New(dry.Config{}), func(c *Config) {
		c.Listen = "0.0.0.0:0" // allowed with TLS only
		c.TLS = TLS{ClientCAFile: filepath.Join(a.dir, "ca.crt"), Operate: []string{"cloud"}, Read: []string{"monitor"}}
		c.TLS.CertFile, c.TLS.KeyFile = a.leaf("node")
	})
	_, port, _ := net.SplitHostPort(n.vmm.Addr())
	base := "https://127.0.0.1:" + port
	as := func(name string) *vmmapi.Client {
		cert, key := a.leaf(name)
		h := a.client(cert, key)
		h.Transport = withoutToken{h.Transport}
		return vmmapi.NewClient(base, "", h)
	}
	n.must(as("cloud").Put(t.Context(), spec()))
	n.must(as("monitor").Get(t.Context(), vmID))
	if _, err := as("monitor").Start(t.Context(), vmID); cvm.ReasonOf(err) != "read-only" {
		t.Errorf("monitor starts: %v", err)
	}
	if _, err := as("somebody").Get(t.Context(), vmID); cvm.ReasonOf(err) != "no-role" {
		t.Errorf("a certificate without a role: %v", err)
	}
	token, _ := EnsureToken(n.cfg.TokenFile)
	if _, err := vmmapi.NewClient(base, token, a.client("", "")).Get(t.Context(), vmID); err != nil {
		t.Errorf("a token over TLS: %v", err)
	}
	if _, err := vmmapi.NewClient(base, "wrong", a.client("", "")).Get(t.Context(), vmID); cvm.CodeOf(err) != cvm.Unauthenticated {
		t.Errorf("neither: %v", err)
	}
	cert, key := stranger.leaf("cloud")
	h := a.client(cert, key)
	h.Transport = withoutToken{h.Transport}
	if _, err := vmmapi.NewClient(base, "", h).Get(t.Context(), vmID); cvm.CodeOf(err) != cvm.Unavailable {
		t.Errorf("the certificate of another CA: %v", err)
	}
}

// TestSecretsOfTheAPIAreNotRead when others can read them too.
func TestSecretsOfTheAPIAreNotRead(t *testing.T) {
	a := newAuthority(t)
	c := TLS{}
	c.CertFile, c.KeyFile = a.leaf("node")
	if _, err := c.config(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(c.KeyFile, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := c.config(); cvm.CodeOf(err) != cvm.Denied || !strings.Contains(err.Error(), "tls.key_file") {
		t.Errorf("tls.key_file: %v", err)
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef0123"), 0o604); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(token, 0o604); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureToken(token); cvm.CodeOf(err) != cvm.Denied {
		t.Errorf("token_file: %v", err)
	}
}

type withoutToken struct{ http.RoundTripper }

func (w withoutToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Del("Authorization")
	return w.RoundTripper.RoundTrip(r)
}

func TestEventsByCursor(t *testing.T) {
	d := dry.New(dry.Config{})
	n := newNode(t, d, nil)
	n.must(n.c.Put(t.Context(), spec()))
	seen := make(chan vmmapi.Event, 100)
	done := make(chan error, 1)
	go func() {
		done <- n.c.FollowEvents(context.Background(), vmID, 0, func(e vmmapi.Event) error { seen <- e; return nil })
	}()
	n.must(n.c.Start(t.Context(), vmID))
	n.waitState(vmmapi.StateRunning)
	all, err := n.c.Events(t.Context(), vmID)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if e := <-seen; e.Seq != all[i].Seq || e.Kind != all[i].Kind {
			t.Fatalf("event %d: followed %+v, stored %+v", i, e, all[i])
		}
	}
	page, err := n.c.EventsAfter(t.Context(), vmID, 2, 2)
	if err != nil || len(page) != 2 || page[0].Seq != 3 || page[1].Seq != 4 {
		t.Fatalf("%+v %v", page, err)
	}
	for _, q := range []string{"after=x", "after=-1", "limit=0", "limit=99999", "follow=perhaps"} {
		if code, _ := n.call("GET", "/v1/vms/"+vmID+"/events?"+q, ""); code != http.StatusBadRequest {
			t.Errorf("%s: %d", q, code)
		}
	}
	if err := n.c.Delete(t.Context(), vmID, false); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil { // the stream ends with the VM
		t.Fatal(err)
	}
}

// TestEventsAreBounded: a guest that talks without end costs a bounded file, and
// what the VMM did stays.
func TestEventsAreBounded(t *testing.T) {
	s := store{dir: t.TempDir()}
	if err := os.MkdirAll(s.vmDir("x"), 0o700); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("é", 8000)
	for i := range 3000 {
		kind := "boot.progress"
		if i%100 == 0 {
			kind = "crashed"
		}
		if err := s.appendEvent("x", vmmapi.Event{Seq: int64(i + 1), Kind: kind, Message: long}); err != nil {
			t.Fatal(err)
		}
	}
	st, err := os.Stat(s.eventFile("x"))
	if err != nil || st.Size() > 2*maxEventFile {
		t.Fatalf("%d bytes, %v", st.Size(), err)
	}
	all, err := s.events("x", cursor{limit: maxEvents})
	if err != nil {
		t.Fatal(err)
	}
	facts := 0
	for i, e := range all {
		if i > 0 && e.Seq <= all[i-1].Seq {
			t.Fatalf("seq %d after %d", e.Seq, all[i-1].Seq)
		}
		if e.Kind == "crashed" {
			facts++
		}
		if len(e.Message) > maxEventText+4 {
			t.Fatalf("a message of %d bytes", len(e.Message))
		}
	}
	if facts != 30 || all[len(all)-1].Seq != 3000 {
		t.Fatalf("%d facts of 30, last %d", facts, all[len(all)-1].Seq)
	}
}

// What a guest says grows sixfold as JSON, and some of it counts as a fact: even so
// compaction makes the file short, or each later message would rewrite all of it.
func TestCompactedEventsAreShort(t *testing.T) {
	for _, kind := range []string{"boot.progress", "instance.info"} {
		s := store{dir: t.TempDir()}
		if err := os.MkdirAll(s.vmDir("x"), 0o700); err != nil {
			t.Fatal(err)
		}
		long, compacted := strings.Repeat("\x01", maxEventText), false
		for i := range 400 {
			if err := s.appendEvent("x", vmmapi.Event{Seq: int64(i + 1), Kind: kind, Message: long}); err != nil {
				t.Fatal(err)
			}
			st, err := os.Stat(s.eventFile("x"))
			if err != nil || st.Size() > maxEventFile+keepBytes {
				t.Fatalf("%s: %d bytes after %d events, %v", kind, st.Size(), i+1, err)
			}
			compacted = compacted || st.Size() < maxEventFile && i > 300
		}
		if all, err := s.events("x", cursor{limit: maxEvents}); err != nil || len(all) == 0 || all[len(all)-1].Seq != 400 || !compacted {
			t.Fatalf("%s: %d events, %v", kind, len(all), err)
		}
	}
}

func TestSerial(t *testing.T) {
	d := dry.New(dry.Config{LogDir: t.TempDir()})
	n := newNode(t, d, nil)
	n.must(n.c.Put(t.Context(), spec()))
	n.must(n.c.Start(t.Context(), vmID))
	n.waitState(vmmapi.StateRunning)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	rc, err := n.c.Log(ctx, vmID, vmmapi.LogQuery{Tail: 0, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Print(vmID, "\x1b[31mred\x1b[0m\nlast\n"); err != nil {
		t.Fatal(err)
	}
	want := "dry guest of hello\n\x1b[31mred\x1b[0m\nlast\n"
	b := make([]byte, len(want))
	if _, err := io.ReadFull(rc, b); err != nil || string(b) != want {
		t.Fatalf("followed %q %v", b, err)
	}
	cancel()
	for q, want := range map[string]string{
		"tail=1":            "last",
		"ansi=false&tail=2": "red\nlast",
		"since=2000-01-01T00:00:00Z&until=2000-01-01T00:00:01Z": "",
		"since=1h&tail=1":     "last",
		"channel=stdout":      "dry machine of hello",
		"channel=stderr":      "dry driver: no machine runs",
		"channel=x":           "want serial",
		"since=yesterday":     "RFC 3339",
		"timestamps=1&tail=1": "Z last",
	} {
		if _, got := n.call("GET", "/v1/vms/"+vmID+"/serial?"+q, ""); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", q, got, want)
		}
	}
	n.must(n.c.Stop(t.Context(), vmID))
	n.waitState(vmmapi.StateStopped)
	n.stop()
	n.start()
	if _, got := n.call("GET", "/v1/vms/"+vmID+"/serial?tail=1", ""); got != "last" {
		t.Errorf("after the VM and the VMM ended: %q", got)
	}

	bare := newNode(t, dry.New(dry.Config{}), nil) // its machines write no files
	bare.must(bare.c.Put(t.Context(), spec()))
	bare.must(bare.c.Start(t.Context(), vmID))
	bare.waitState(vmmapi.StateRunning)
	if rc, err := bare.c.Log(t.Context(), vmID, vmmapi.LogQuery{Channel: "stdout"}); cvm.CodeOf(err) != cvm.Unsupported || cvm.ReasonOf(err) != "no-channel" {
		t.Errorf("a channel that there is not: %v %v", rc, err)
	}
}

func TestBootsKeepTheirStages(t *testing.T) {
	stage := guestapi.Stage{Stage: "keys", Name: "requesting keys", Number: 4, Of: 10, DurationMS: 1500}
	d := dry.New(dry.Config{Script: func(machine.Machine) []guestapi.Notify {
		return []guestapi.Notify{{Event: "boot.progress", Payload: "3/10 closing"}, {Event: "boot.progress", Payload: "4/10 requesting keys"},
			{Event: "boot.progress", Payload: "4/10 requesting keys (waiting)"}, stage.Notify(), {Event: "boot.stage", Payload: "{"}, {Event: "ready"}}
	}})
	n := newNode(t, d, nil)
	n.must(n.c.Put(t.Context(), spec()))
	n.must(n.c.Start(t.Context(), vmID))
	n.waitState(vmmapi.StateRunning)
	for range 2 {
		boots, err := n.c.Boots(t.Context(), vmID)
		if err != nil || len(boots) != 1 || len(boots[0].Stages) != 2 || boots[0].ReadyAt.IsZero() || boots[0].ComposeHash == (cvm.ComposeHash{}) {
			t.Fatalf("%+v %v", boots, err)
		}
		if s := boots[0].Stages[1]; s.Name != "4/10 requesting keys" || s.Duration != 1.5 || !s.Measured || boots[0].Stages[0].Measured {
			t.Fatalf("%+v", boots[0].Stages)
		}
		n.stop() // kept over a restart of the VMM
		n.start()
	}
	n.must(n.c.Stop(t.Context(), vmID))
	n.waitState(vmmapi.StateStopped)
	if boots, _ := n.c.Boots(t.Context(), vmID); boots[0].EndedAt.IsZero() || boots[0].Exit == "" {
		t.Fatalf("%+v", boots)
	}
	r := record{}
	r.beginBoot(time.Time{})
	for i := range 10 * maxStages {
		r.noteStage("boot.progress", fmt.Sprintf("%d/1000 %s", i, strings.Repeat("é", 1000)), time.Time{})
	}
	if b := r.History[0]; len(b.Stages) != maxStages || len(b.Stages[0].Name) > maxStageName {
		t.Fatalf("a guest makes the record grow: %d stages, name of %d bytes", len(b.Stages), len(b.Stages[0].Name))
	}
}

func TestRestartsAreCountedOverVMMs(t *testing.T) {
	d := dry.New(dry.Config{Script: func(machine.Machine) []guestapi.Notify { return nil }})
	n := newNode(t, d, nil)
	n.must(n.c.Put(t.Context(), spec()))
	n.must(n.c.Start(t.Context(), vmID))
	for i := range maxFirstAttempts {
		n.waitTrue("launched", func() bool { return d.Launches(vmID) == i+1 && n.alive() })
		n.stop()
		n.start() // a new VMM must not begin to count anew
		n.waitTrue("adopted", n.alive)
		d.Crash(vmID, machine.Exit{Code: 1, Detail: "exit code 1"})
	}
	n.waitState(vmmapi.StateFailed)
	n.waitTrue("the event", func() bool { return n.count(eventExhausted) == 1 })
	if d.Launches(vmID) != maxFirstAttempts {
		t.Fatalf("%d launches", d.Launches(vmID))
	}
}
