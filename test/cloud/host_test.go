package cloud

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/devcloud"
	"github.com/confidential-cloud/phala/ratls"
	"github.com/confidential-cloud/phala/vmm/image"
)

// What a host that cheats brings along.

// falseKMS is a server whose certificate chain is a KMS's in everything but the root.
type falseKMS struct {
	url                  string
	handshakes, requests atomic.Int64
}

func newFalseKMS(t *testing.T) *falseKMS {
	t.Helper()
	guestsSee := theCloud.Bridge()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	root, err := ratls.NewRoot(key(), ratls.Template{CommonName: "Dstack KMS CA", NotBefore: from, NotAfter: to})
	if err != nil {
		t.Fatal(err)
	}
	leaf := key()
	der, err := root.Issue(&leaf.PublicKey, ratls.Template{
		CommonName: "Dstack KMS", AltNames: []string{guestsSee}, ServerAuth: true, NotBefore: from, NotAfter: to,
		Extensions: ratls.Extensions{Usage: ratls.UsageKMSRPC},
	})
	if err != nil {
		t.Fatal(err)
	}
	f := &falseKMS{}
	l, err := net.Listen("tcp", net.JoinHostPort(listenHost(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { f.requests.Add(1) }))
	s.Listener.Close()
	s.Listener = l
	s.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der, root.Cert.Raw}, PrivateKey: leaf}}, ClientAuth: tls.RequestClientCert,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { f.handshakes.Add(1); return nil, nil },
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	f.url = "https://" + net.JoinHostPort(guestsSee, port)
	return f
}

// listenHost is where a server must listen that guests reach at theCloud.Bridge().
func listenHost() string {
	if theCfg.Driver == devcloud.DriverQEMU {
		return "127.0.0.1" // user-mode networking leads to this host's loopback
	}
	return theCloud.Bridge()
}

// anotherImage puts an image beside the cloud's: the same files, another version,
// so another digest, which nobody has allowed.
func anotherImage(t *testing.T) *image.Image {
	t.Helper()
	base := theCloud.Image()
	dir := filepath.Join(filepath.Dir(base.Dir), fmt.Sprintf("refused-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, f := range []string{base.Meta.Rootfs, base.Meta.Overlay} {
		if err := os.Link(filepath.Join(base.Dir, f), filepath.Join(dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	meta := base.Meta
	meta.Version += "-other"
	b, err := json.Marshal(meta)
	if err != nil {
		t.Fatal(err)
	}
	sums := fmt.Sprintf("%s  %s\n%s  %s\n%x  %s\n", base.SHA256(meta.Rootfs), meta.Rootfs, base.SHA256(meta.Overlay), meta.Overlay,
		sha256.Sum256(b), image.MetadataFile)
	digest := sha256.Sum256([]byte(sums))
	for name, text := range map[string]string{
		image.MetadataFile: string(b), image.SumsFile: sums, image.DigestFile: fmt.Sprintf("%x\n", digest),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	im, err := image.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // what the engine imported of it; a layer or two over the same base
		out, err := exec.Command("docker", "image", "ls", "-q", "--filter", "reference=phala-guest:"+im.Hash.String()).Output()
		if id := strings.TrimSpace(string(out)); err == nil && id != "" {
			_ = exec.Command("docker", "image", "rm", "phala-guest:"+im.Hash.String()).Run()
		}
	})
	return im
}
