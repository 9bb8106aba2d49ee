package cli_test

import (
	"bytes"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/confidential-cloud/phala/cli"
	"github.com/confidential-cloud/phala/internal/profile"
	"github.com/confidential-cloud/phala/verify"
)

// What ssh runs as its ProxyCommand dials the address that the trust profile pins and
// takes no certificate but one of the gateway's authority, for the app's name.
func TestSSHPipe(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write([]byte("from behind the gateway"))
	}))
	defer s.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	pipe := func(host string, gw verify.GatewayPin) (int, string, string) {
		t.Helper()
		dir := t.TempDir()
		prof, err := trustProfile(newFakeCloud(t), []string{"http://127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		gw.AppID, gw.Port, gw.Address = prof.Gateway.AppID, 443, s.Listener.Addr().String()
		prof.Gateway = gw
		b, err := prof.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "trust.toml")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		x := &profile.Extras{Profiles: map[string]profile.Extra{"default": {Trust: file}}}
		if err := x.Save(dir); err != nil {
			t.Fatal(err)
		}
		var out, errOut bytes.Buffer
		code := cli.Run(t.Context(), cli.Config{
			Args:  []string{"ssh", "--tls-pipe", host},
			Stdin: strings.NewReader("GET / HTTP/1.0\r\n\r\n"), Stdout: &out, Stderr: &errOut, Workdir: dir,
			Getenv: func(k string) string { return map[string]string{"PHALA_CLOUD_DIR": dir}[k] },
		})
		return code, out.String(), errOut.String()
	}
	if code, out, errOut := pipe("app-22.example.com:443", verify.GatewayPin{Domain: "example.com", CAPEM: ca}); code != 0 || !strings.HasSuffix(out, "from behind the gateway") {
		t.Errorf("exit %d: %q %s", code, out, errOut)
	}
	before := asked.Load()
	for _, tc := range []struct {
		name, host, says string
		gw               verify.GatewayPin
		code             int
	}{
		{"another authority", "app-22.example.com:443", "certificate signed by unknown authority", verify.GatewayPin{Domain: "example.com"}, cli.ExitUnavailable},
		{"another name", "app-22.example.org:443", "certificate is valid for", verify.GatewayPin{Domain: "example.org", CAPEM: ca}, cli.ExitUnavailable},
		{"no port", "app-22.example.com", "want host:port", verify.GatewayPin{Domain: "example.com", CAPEM: ca}, cli.ExitInvalid},
		{"an option", "-oProxyCommand=x:1", "want host:port", verify.GatewayPin{Domain: "example.com", CAPEM: ca}, cli.ExitInvalid},
	} {
		if code, out, errOut := pipe(tc.host, tc.gw); code != tc.code || out != "" || !strings.Contains(errOut, tc.says) {
			t.Errorf("%s: exit %d: %q %s", tc.name, code, out, errOut)
		}
	}
	if asked.Load() != before {
		t.Error("bytes went to a server that is not the gateway")
	}
}
