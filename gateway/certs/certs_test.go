package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

const domain = "dev.localhost"

func storageKey(n byte) keys.Secret { return keys.NewSecret(bytes.Repeat([]byte{n}, 32)) }

func config(t testing.TB, dir string) Config {
	t.Helper()
	ca, err := EnsureCA(filepath.Join(dir, "ca"), domain)
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Domain: domain, Dir: filepath.Join(dir, "certs"), StorageKey: storageKey(1), Issuer: IssuerFileCA,
		CACert: ca.CertFile, CAKey: ca.KeyFile,
		Allow: func(_ context.Context, name string) error {
			if strings.HasPrefix(name, "bad") {
				return errors.New("not connected")
			}
			return nil
		},
	}
}

func keeper(t testing.TB, c Config) *Keeper {
	t.Helper()
	k, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// shake serves get to a client that trusts only the CA, and returns what it saw.
func shake(t *testing.T, ca string, get func(*tls.ClientHelloInfo) (*tls.Certificate, error), name string) (*x509.Certificate, error) {
	t.Helper()
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		b, err := ln.Accept()
		if err != nil {
			return
		}
		defer b.Close()
		_ = tls.Server(b, &tls.Config{GetCertificate: get}).HandshakeContext(t.Context())
	}()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	c := tls.Client(a, &tls.Config{ServerName: name, RootCAs: pool})
	if err := c.HandshakeContext(t.Context()); err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0], nil
}

func TestLocalCA(t *testing.T) {
	dir := t.TempDir()
	c := config(t, dir)
	k := keeper(t, c)
	for _, name := range []string{"x." + domain, "gateway." + domain, domain} {
		leaf, err := shake(t, c.CACert, k.Certificate, name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(leaf.RawSubjectPublicKeyInfo, k.SPKI()) {
			t.Errorf("%s: not the serving key", name)
		}
	}
	leaf, err := shake(t, c.CACert, k.Exact, "one-g."+domain)
	if err != nil || len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != "one-g."+domain {
		t.Fatalf("%v %v", leaf, err)
	}
	if _, err := shake(t, c.CACert, k.Exact, "bad."+domain); err == nil {
		t.Fatal("a name that is not allowed got a certificate")
	}
	k.Close()

	// The next start has the same CA, the same key and the same certificate.
	ca, err := os.ReadFile(c.CACert)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := shake(t, c.CACert, k.Certificate, "x."+domain)
	again := keeper(t, config(t, dir))
	second, err := shake(t, c.CACert, again.Certificate, "x."+domain)
	if err != nil || !first.Equal(second) || !bytes.Equal(k.SPKI(), again.SPKI()) {
		t.Fatalf("the restart changed the certificate: %v", err)
	}
	if now, _ := os.ReadFile(c.CACert); !bytes.Equal(ca, now) {
		t.Fatal("the restart changed the CA")
	}
}

// Trusting the local CA trusts it for the base domain only.
func TestLocalCAIsConstrained(t *testing.T) {
	dir := t.TempDir()
	c := config(t, dir)
	if _, err := EnsureCA(filepath.Join(dir, "ca"), "other.example"); cvm.CodeOf(err) != cvm.Precondition {
		t.Fatalf("another domain with the old CA: %v", err)
	}
	if _, err := EnsureCA(filepath.Join(dir, "ca"), "sub."+domain); err != nil {
		t.Fatal(err)
	}
	c.Domain = "example.org"
	if _, err := New(t.Context(), c); cvm.CodeOf(err) != cvm.Precondition {
		t.Fatalf("a gateway for another domain: %v", err)
	}
	if i, err := os.Stat(c.CAKey); err != nil || i.Mode().Perm() != 0o600 {
		t.Fatalf("CA key: %v %v", i.Mode(), err)
	}
	// Even a certificate that the CA signs by mistake is refused by clients.
	i, err := loadCA(c.CACert, c.CAKey)
	if err != nil {
		t.Fatal(err)
	}
	k := &Keeper{cfg: c}
	store, err := newSealed(t.TempDir(), storageKey(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.loadKey(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{DNSNames: []string{"bank.example"}}, k.key)
	if err != nil {
		t.Fatal(err)
	}
	req, _ := x509.ParseCertificateRequest(csr)
	out, err := i.Issue(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	forged := func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		der, _ := readPEMBytes(out.Certificate)
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k.key}, nil
	}
	var constraint x509.CertificateInvalidError
	if _, err := shake(t, c.CACert, forged, "bank.example"); !errors.As(err, &constraint) {
		t.Fatalf("want a name constraint error, got %v", err)
	}
}

func readPEMBytes(b []byte) ([]byte, error) {
	f, err := os.CreateTemp("", "pem")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, _ = f.Write(b)
	_ = f.Close()
	return readPEM(f.Name(), "CERTIFICATE")
}

// Nothing readable of a key lies on the disk.
func TestStoreIsEncrypted(t *testing.T) {
	dir := t.TempDir()
	c := config(t, dir)
	k := keeper(t, c)
	if _, err := shake(t, c.CACert, k.Exact, "one-g."+domain); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k.key)
	if err != nil {
		t.Fatal(err)
	}
	scalar := k.key.D.FillBytes(make([]byte, 32)) //nolint:staticcheck // the bytes to look for
	files := 0
	err = filepath.WalkDir(c.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, leak := range [][]byte{der, scalar, []byte("PRIVATE KEY"), []byte("BEGIN")} {
			if bytes.Contains(b, leak) {
				t.Errorf("%s is readable", path)
			}
		}
		return nil
	})
	if err != nil || files < 5 {
		t.Fatalf("%d files, %v", files, err)
	}
	// Another app's key does not open it.
	other := c
	other.StorageKey = storageKey(2)
	if _, err := New(t.Context(), other); cvm.CodeOf(err) != cvm.Precondition {
		t.Fatalf("another key: %v", err)
	}
	other.StorageKey = keys.NewSecret([]byte("short"))
	if _, err := New(t.Context(), other); cvm.CodeOf(err) != cvm.Invalid {
		t.Fatalf("short key: %v", err)
	}
}

func TestStoredValuesCannotBeSwapped(t *testing.T) {
	dir := t.TempDir()
	s, err := newSealed(dir, storageKey(1))
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for _, n := range []string{"a/key", "b/key"} {
		if err := s.Store(ctx, n, []byte("secret of "+n)); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := s.Load(ctx, "a/key"); err != nil || string(v) != "secret of a/key" {
		t.Fatalf("%q %v", v, err)
	}
	if i, err := s.Stat(ctx, "a/key"); err != nil || i.Size != int64(len("secret of a/key")) {
		t.Fatalf("%+v %v", i, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "b", "key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"another name's": b, "plain": []byte("-----BEGIN PRIVATE KEY-----"), "short": {1, 2}, "empty": nil,
	} {
		if err := os.WriteFile(filepath.Join(dir, "a", "key"), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if v, err := s.Load(ctx, "a/key"); cvm.CodeOf(err) != cvm.Precondition {
			t.Errorf("%s: %q %v", name, v, err)
		}
	}
	if _, err := s.Load(ctx, "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestBadConfigs(t *testing.T) {
	dir := t.TempDir()
	good := config(t, dir)
	change := func(f func(*Config)) Config { c := good; f(&c); return c }
	other, err := EnsureCA(filepath.Join(dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	tsig := filepath.Join(dir, "tsig")
	if err := os.WriteFile(tsig, []byte("not base64!"), 0o600); err != nil {
		t.Fatal(err)
	}
	acme := ACME{Directory: "https://acme.example/dir", AgreeTOS: true}
	for name, c := range map[string]Config{
		"no issuer":        change(func(c *Config) { c.Issuer = "" }),
		"no allow":         change(func(c *Config) { c.Allow = nil }),
		"no domain":        change(func(c *Config) { c.Domain = "" }),
		"another CA's key": change(func(c *Config) { c.CAKey = other.KeyFile }),
		"key as cert":      change(func(c *Config) { c.CACert = c.CAKey }),
		"acme: http": change(func(c *Config) {
			c.Issuer, c.ACME = IssuerACME, ACME{Directory: "http://acme.example/dir", AgreeTOS: true}
		}),
		"acme: terms": change(func(c *Config) { c.Issuer, c.ACME = IssuerACME, ACME{Directory: "https://acme.example/dir"} }),
		"acme: no roots": change(func(c *Config) {
			c.Issuer, c.ACME = IssuerACME, acme
			c.ACME.RootsFile = filepath.Join(dir, "none")
		}),
		"acme: unsigned updates": change(func(c *Config) {
			c.Issuer, c.ACME = IssuerACME, acme
			c.ACME.DNS = DNS{Server: "127.0.0.1:53"}
		}),
		"acme: bad key": change(func(c *Config) {
			c.Issuer, c.ACME = IssuerACME, acme
			c.ACME.DNS = DNS{Server: "127.0.0.1:53", KeyName: "k", KeyFile: tsig}
		}),
	} {
		k, err := New(t.Context(), c)
		if err == nil {
			k.Close()
			t.Errorf("%s: accepted", name)
		} else if cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
