package serve

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

func TestNetworkInfo(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"etc/resolv.conf": "# comment\nsearch x\nnameserver 10.0.2.3\nnameserver fd00::3\nnameserver\n",
		"proc/net/route": "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
			"eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\neth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\neth0\t00000000\tzz\t0003\t0\t0\t0\t00000000\t0\t0\t0\n",
		"proc/net/ipv6_route": strings.Repeat("0", 32) + " 00 " + strings.Repeat("0", 32) + " 00 fe800000000000000000000000000002 00000400 00000001 00000000 00450003 eth0\n" +
			strings.Repeat("0", 32) + " 00 " + strings.Repeat("0", 32) + " 00 " + strings.Repeat("0", 32) + " ffffffff 00000001 00000000 00200200 lo\n",
		"sys/class/net/lo/statistics/rx_bytes":  "42\n",
		"sys/class/net/lo/statistics/tx_errors": "7\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	n := NetworkInfo(root, []net.Interface{*lo})
	if !slices.Equal(n.DNSServers, []string{"10.0.2.3", "fd00::3"}) || len(n.Gateways) != 2 || n.Gateways[0].Address != "10.0.2.2" || n.Gateways[1].Address != "fe80::2" {
		t.Errorf("%+v", n)
	}
	if len(n.Interfaces) != 1 || n.Interfaces[0].RxBytes != 42 || n.Interfaces[0].TxErrors != 7 || !slices.Contains(n.Interfaces[0].Addresses, guestapi.IPAddress{Address: "127.0.0.1", Prefix: 8}) {
		t.Errorf("%+v", n.Interfaces)
	}
	b, err := json.Marshal(NetworkInfo(t.TempDir(), nil))
	if want := `{"dns_servers":[],"gateways":[],"interfaces":[],"wg_info":""}`; err != nil || string(b) != want {
		t.Errorf("nothing known: %s, want %s", b, want)
	}
}

// The host may ask for it once the guest is up.
func TestNetworkOverTheGuestAPI(t *testing.T) {
	for want, b := range map[int]*Backend{http.StatusOK: {}, http.StatusPreconditionFailed: nil} {
		g := &Guest{Backend: func() *Backend { return b }}
		w := httptest.NewRecorder()
		g.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, guestapi.PathNetwork, nil))
		if w.Code != want {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}
