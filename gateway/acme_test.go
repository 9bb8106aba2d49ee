package gateway

import (
	"crypto/x509"
	"encoding/base64"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"

	"github.com/confidential-cloud/phala/gateway/certs"
)

const (
	acmeDomain = "apps.example.com"
	tsigName   = "update.key."
)

// zone is a name server: every A is loopback, TXT records come by signed updates.
type zone struct {
	addr    string
	secret  string
	mu      sync.Mutex
	txt     map[string][]string
	updates int
	refused int
}

func newZone(t *testing.T) *zone {
	t.Helper()
	z := &zone{txt: map[string][]string{}, secret: base64.StdEncoding.EncodeToString([]byte("a TSIG key for one test only 32b"))}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z.addr = ln.Addr().String()
	pc, err := net.ListenPacket("udp", z.addr)
	if err != nil {
		t.Fatal(err)
	}
	accept := func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept } // updates too
	for _, s := range []*dns.Server{
		{Listener: ln, Handler: z, TsigSecret: map[string]string{tsigName: z.secret}, MsgAcceptFunc: accept},
		{PacketConn: pc, Handler: z, TsigSecret: map[string]string{tsigName: z.secret}, MsgAcceptFunc: accept},
	} {
		go func() { _ = s.ActivateAndServe() }()
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return z
}

func (z *zone) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	if r.Opcode == dns.OpcodeUpdate {
		z.update(w, r, m)
		_ = w.WriteMsg(m)
		return
	}
	q := r.Question[0]
	name := strings.ToLower(q.Name)
	hdr := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 1}
	soa := &dns.SOA{Hdr: dns.RR_Header{Name: "example.com.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 1}, Ns: "ns.example.com.", Mbox: "x.example.com.", Serial: 1}
	switch q.Qtype {
	case dns.TypeA:
		m.Answer = append(m.Answer, &dns.A{Hdr: hdr, A: net.IPv4(127, 0, 0, 1)})
	case dns.TypeTXT:
		for _, v := range z.txt[name] {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: hdr, Txt: []string{v}})
		}
	case dns.TypeSOA:
		if name == "example.com." {
			m.Answer = append(m.Answer, soa)
		} else {
			m.Ns = append(m.Ns, soa)
		}
	}
	_ = w.WriteMsg(m)
}

func (z *zone) update(w dns.ResponseWriter, r, m *dns.Msg) {
	if r.IsTsig() == nil || w.TsigStatus() != nil {
		z.refused++
		m.Rcode = dns.RcodeNotAuth
		return
	}
	z.updates++
	for _, rr := range r.Ns {
		t, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		name := strings.ToLower(t.Hdr.Name)
		if t.Hdr.Class == dns.ClassNONE { // this record, not its name's others: two orders may be under way
			z.txt[name] = slices.DeleteFunc(z.txt[name], func(v string) bool { return slices.Contains(t.Txt, v) })
		} else {
			z.txt[name] = append(z.txt[name], t.Txt...)
		}
	}
	m.SetTsig(tsigName, dns.HmacSHA256, 300, time.Now().Unix())
}

// pebble is a real ACME server in this process. It validates against the given
// port, with names from the zone.
func pebble(t *testing.T, tlsPort int, z *zone) (directory, rootsFile string, issued *x509.CertPool) {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0")
	logger := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	authority := ca.New(logger, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {}})
	front := wfe.New(logger, store, va.New(logger, 1, tlsPort, true, z.addr, store), authority, []string{"pebble.test"}, true, false, 1, 1)
	srv := httptest.NewTLSServer(front.Handler())
	t.Cleanup(srv.Close)
	rootsFile = filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(rootsFile, []byte(pemOf("CERTIFICATE", srv.Certificate().Raw)), 0o600); err != nil {
		t.Fatal(err)
	}
	issued = x509.NewCertPool()
	issued.AppendCertsFromPEM(authority.GetRootCert(0).PEM())
	return srv.URL + wfe.DirectoryPath, rootsFile, issued
}

func freePort(t *testing.T) (string, int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String(), ln.Addr().(*net.TCPAddr).Port
}

func acmeWorld(t *testing.T, withDNS bool) (*world, *zone) {
	t.Helper()
	z := newZone(t)
	listen, port := freePort(t)
	directory, roots, issued := pebble(t, port, z)
	key := filepath.Join(t.TempDir(), "tsig")
	if err := os.WriteFile(key, []byte(z.secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *Config) {
		c.Domain, c.Listen = acmeDomain, listen
		c.Certs = Certs{Issuer: certs.IssuerACME, ACME: certs.ACME{Directory: directory, RootsFile: roots, AgreeTOS: true, Email: "a@example.com"}}
		if withDNS {
			c.Certs.ACME.DNS = certs.DNS{Server: z.addr, KeyName: tsigName, KeyFile: key, Resolvers: []string{z.addr}}
		}
	})
	w.ca = issued
	return w, z
}

// Without DNS: one certificate per name, by TLS-ALPN-01 through the gateway's own
// listener, for connected apps only.
func TestACMEByTLSALPN(t *testing.T) {
	w, _ := acmeWorld(t, false)
	eventually(t, "the gateway's own certificate", func() bool {
		c, err := w.tlsTo("gateway." + acmeDomain)
		if err != nil {
			return false
		}
		return string(c.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo) == string(w.g.keeper.SPKI())
	})
	g := w.newGuest(appID(1), instanceID(1), map[uint16]string{80: backend(t, "a", false)}).join(time.Minute, "")
	name := g.app.String() + "." + acmeDomain
	c := w.http(false)
	c.Timeout = time.Minute
	eventually(t, "the app's certificate", func() bool {
		res, err := c.Get("https://" + name + "/")
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == 200
	})
	if _, err := w.tlsTo(appID(7).String() + "." + acmeDomain); err == nil {
		t.Fatal("an app that is not connected got a certificate")
	}
}

// With DNS: the wildcard, by signed updates; the challenge's record goes again.
func TestACMEWildcardByDNS(t *testing.T) {
	w, z := acmeWorld(t, true)
	var leaf *x509.Certificate
	eventually(t, "the wildcard certificate", func() bool {
		c, err := w.tlsTo(appID(9).String() + "." + acmeDomain)
		if err != nil {
			return false
		}
		leaf = c.ConnectionState().PeerCertificates[0]
		return true
	})
	if len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != "*."+acmeDomain {
		t.Fatalf("names %v", leaf.DNSNames)
	}
	eventually(t, "the record is gone", func() bool {
		z.mu.Lock()
		defer z.mu.Unlock()
		return z.updates >= 2 && len(z.txt["_acme-challenge."+acmeDomain+"."]) == 0
	})
	if z.refused != 0 {
		t.Fatalf("%d unsigned updates", z.refused)
	}
}
