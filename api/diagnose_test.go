package api_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
)

// zone is a DNS server with these records; long answers need TCP.
func zone(t *testing.T, records ...string) string {
	t.Helper()
	byName := map[string][]dns.RR{}
	for _, r := range records {
		rr, err := dns.NewRR(r)
		if err != nil {
			t.Fatal(err)
		}
		byName[rr.Header().Name] = append(byName[rr.Header().Name], rr)
	}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		all := byName[strings.ToLower(q.Question[0].Name)]
		if all == nil {
			m.Rcode = dns.RcodeNameError
		}
		for _, rr := range all {
			if rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			m.Truncate(dns.MinMsgSize)
		}
		_ = w.WriteMsg(m)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{Listener: l, Handler: h}, {PacketConn: p, Handler: h}} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { _ = s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return l.Addr().String()
}

func TestDiagnoseDomain(t *testing.T) {
	var resolver string
	w := newWorld(t, func(c *api.Config) {
		offChain(c)
		resolver = zone(t)
		c.DNSResolver = resolver
	})
	vm := w.offChainApp("my-app", nil)
	w.stop()
	long := strings.Repeat("x", 200)
	w.cfg.DNSResolver = zone(t,
		"good.example.com. 60 IN CNAME _.dev.localhost.", "_dstack-app-address.good.example.com. 60 IN TXT \""+vm.AppID+":8080\"",
		"example.com. 60 IN CAA 0 issue \"letsencrypt.org; accounturi=https://acme.example/acct/1\"",
		"loose.example.net. 60 IN CNAME evil.dev.localhost.attacker.org.", "_dstack-app-address.loose.example.net. 60 IN TXT \"0000000000000000000000000000000000000000:8080\"",
		"example.net. 60 IN CAA 0 issue \"letsencrypt.org\"",
		"bare.example.org. 60 IN A 192.0.2.1", "_dstack-app-address.bare.example.org. 60 IN TXT \""+vm.AppID+":8080\"",
		"_dstack-app-address.many.example.org. 60 IN TXT \""+vm.AppID+":8080\"", "_dstack-app-address.many.example.org. 60 IN TXT \""+long+"\"",
		"_dstack-app-address.many.example.org. 60 IN TXT \""+long+"y\"", "_dstack-app-address.many.example.org. 60 IN TXT \""+long+"z\"",
	)
	w.start()
	ask := func(domain string, port int) cloudapi.DomainDiagnosis {
		t.Helper()
		d := call[cloudapi.Diagnosis](w, 200, "POST", "/cvms/my-app/customize-domain-diagnose", m{"domains": []any{m{"domain": domain, "port": port}}}, nil)
		return d.Results[0]
	}
	good := ask("Good.Example.com.", 8080)
	if !good.IsValid || good.CAACheck == nil || !good.CAACheck.IsMatch || *good.CAACheck.AccountURI != "https://acme.example/acct/1" || len(good.Records) != 2 {
		t.Errorf("a good domain: %+v %+v", good, good.CAACheck)
	}
	if d := ask("good.example.com", 9090); d.IsValid || !d.Records[0].IsValid || d.Records[1].IsValid || d.Records[1].ExpectedValue != vm.AppID+":9090" {
		t.Errorf("another port: %+v", d)
	}
	if d := ask("loose.example.net", 8080); d.IsValid || d.Records[0].IsValid || d.Records[1].IsValid || d.CAACheck.IsMatch || d.CAACheck.InfoMessage == nil {
		t.Errorf("of another gateway and app: %+v", d)
	}
	if d := ask("bare.example.org", 8080); d.IsValid || *d.Records[0].ActualValue != "192.0.2.1" || d.Records[0].WarningMessage == nil || !d.Records[1].IsValid || d.CAACheck != nil {
		t.Errorf("with an address: %+v", d)
	}
	if d := ask("many.example.org", 8080); d.Records[1].IsValid || d.Records[1].WarningMessage == nil || !strings.Contains(*d.Records[1].ActualValue, long+"z") {
		t.Errorf("several records, too long for UDP: %+v", d)
	}
	if d := ask("nothing.example.org", 8080); d.IsValid || d.Records[0].ActualValue != nil {
		t.Errorf("a domain that is not there: %+v", d)
	}
	for _, bad := range []string{"", "localhost", "a..b", "-a.example.com", "http://example.com", "192.0.2.1", "exa mple.com"} {
		if code, body := w.raw("POST", "/cvms/my-app/customize-domain-diagnose", m{"domains": []any{m{"domain": bad, "port": 1}}}, nil); code != 422 || !strings.Contains(body, "no domain") {
			t.Errorf("%q: %d %s", bad, code, body)
		}
	}
	if code, _ := w.raw("POST", "/cvms/"+nobody+"/customize-domain-diagnose", m{"domains": []any{m{"domain": "a.example.com", "port": 1}}}, nil); code != 404 {
		t.Errorf("of nothing: %d", code)
	}
}

func TestReferencePage(t *testing.T) {
	w := newWorld(t, nil)
	res, err := http.Get(w.url + cloudapi.Prefix + "/docs")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	body := string(raw)
	if res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") || !strings.HasPrefix(res.Header.Get("Content-Security-Policy"), "default-src 'none'; style-src 'nonce-") {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	for path, methods := range w.openapi().Paths {
		if n := strings.Count(body, `<span class="path">`+path+`</span>`); n != len(methods) {
			t.Errorf("%s has %d methods, the page shows %d", path, len(methods), n)
		}
	}
	for _, bad := range []string{"<script", "http://", "https://", "<img", "<link", "@import", "url("} {
		if strings.Contains(body, bad) {
			t.Errorf("the page holds %s", bad)
		}
	}
	if !strings.Contains(body, "Role member or more, key scope cvms:write.") || !strings.Contains(body, "docker_compose_file") {
		t.Error("the page lacks who may do what, or fields")
	}
}
