package drycloud

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/confidential-cloud/phala/devcloud/chain"
	"github.com/confidential-cloud/phala/internal/wallet"
	"github.com/confidential-cloud/phala/test/simtrust"
	"github.com/confidential-cloud/phala/verify"
)

// edge answers under every app's name, as the gateway would.
type edge struct {
	srv  *httptest.Server
	root []byte // PEM
}

func newEdge(t testing.TB, h http.Handler) *edge {
	t.Helper()
	if h == nil {
		h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprintln(w, r.Host) })
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "dry cloud root"}, DNSNames: []string{"*." + Domain},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{root: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	e.srv = httptest.NewUnstartedServer(h)
	e.srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	e.srv.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	e.srv.StartTLS()
	t.Cleanup(e.srv.Close)
	return e
}

func (e *edge) port() int { return e.srv.Listener.Addr().(*net.TCPAddr).Port }

// onChain is the chain that apps are registered on.
type onChain struct {
	chain          *chain.Chain
	name, contract string
}

func newChain(t testing.TB, as Chain) *onChain {
	t.Helper()
	c, err := chain.New(chain.Config{Dir: filepath.Join(t.TempDir(), "chain"), Listen: "127.0.0.1:0", ChainID: as.ID, Multicall3: true})
	if err != nil {
		t.Fatal(err)
	}
	live(t, c.Run)
	owner, err := wallet.OpenDev(filepath.Join(t.TempDir(), "cloud.json"))
	if err != nil {
		t.Fatal(err)
	}
	contracts, err := c.DeployContracts(t.Context(), owner, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &onChain{c, as.Name, contracts.KMS.Hex()}
}

// Owner makes a funded key for the chain, as 64 hex digits: whoever deploys with it
// owns the apps.
func (c *Cloud) Owner(t testing.TB) string {
	t.Helper()
	key, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.chain.chain.EnsureFunds(t.Context(), crypto.PubkeyToAddress(key.PublicKey), 10_000_000_000); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(crypto.FromECDSA(key))
}

// Trust writes this cloud's trust profile into a file and returns its path.
func (c *Cloud) Trust(t testing.TB) string {
	t.Helper()
	p, err := simtrust.New(c.Root, [32]byte{0xab}, "http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	p.Chain = verify.Chains{ID: c.chain.chain.ChainID(), RPCURLs: []string{c.RPC}, KMSContract: c.chain.contract}
	p.Gateway.Port, p.Gateway.Address, p.Gateway.CAPEM = c.edge.port(), c.edge.srv.Listener.Addr().String(), string(c.CA)
	return simtrust.Write(t, p)
}
