package vmm

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// TestGuestProxyPassesOnNoMore: headers, statuses and sizes of a guest that is nobody's friend.
func TestGuestProxyPassesOnNoMore(t *testing.T) {
	answer := func(w http.ResponseWriter, _ *http.Request) {}
	d := dry.New(dry.Config{Guest: func(machine.Machine) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r) })
	}})
	n := newNode(t, d, nil)
	n.must(n.c.Put(t.Context(), spec()))
	n.must(n.c.Start(t.Context(), vmID))
	n.waitState(vmmapi.StateRunning)
	token, _ := EnsureToken(n.cfg.TokenFile)
	ask := func(fn http.HandlerFunc, change func(http.Header)) (*http.Response, string, error) {
		t.Helper()
		answer = fn
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.vmm.Addr()+"/v1/vms/"+vmID+"/guest/info", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		if change != nil {
			change(req.Header)
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return res, string(b), err
	}
	res, body, err := ask(func(w http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			if name != "User-Agent" && name != "Connection" { // our client's own
				t.Errorf("the guest gets the header %s", name)
			}
		}
		for _, h := range []string{"Set-Cookie", "Access-Control-Allow-Origin", "Location", "Strict-Transport-Security", "Clear-Site-Data", "Link", "X-Anything", "Www-Authenticate", "Content-Encoding", "Server"} {
			w.Header().Set(h, "evil")
		}
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "X-Later")
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<script>1</script>")
		w.Header().Set("X-Later", "evil")
	}, func(h http.Header) { h.Set("Cookie", "session=1"); h.Set("X-Forwarded-For", "1.2.3.4") })
	if err != nil || res.StatusCode != http.StatusOK || body != "<script>1</script>" || res.Header.Get("Content-Type") != "application/octet-stream" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%v %v %q %v", res.Status, res.Header, body, err)
	}
	for name, v := range res.Header {
		if slices.Contains(v, "evil") || len(res.Trailer) > 0 {
			t.Errorf("the guest's %s is passed on: %v, trailers %v", name, v, res.Trailer)
		}
	}
	for _, status := range []int{http.StatusUnauthorized, http.StatusProxyAuthRequired, http.StatusTeapot, http.StatusFound, http.StatusNoContent} {
		res, body, _ := ask(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/v1/containers")
			w.WriteHeader(status)
		}, nil)
		if res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, ReasonGuestAnswer) {
			t.Errorf("status %d: %d %s", status, res.StatusCode, body)
		}
	}
	if res, body, _ := ask(func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: evil\r\n\r\n")
			_ = rw.Flush()
			_ = conn.Close()
		}
	}, func(h http.Header) { h.Set("Connection", "Upgrade"); h.Set("Upgrade", "evil") }); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("another protocol: %d %s", res.StatusCode, body)
	}
	if res, body, _ := ask(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Long", strings.Repeat("x", 65<<10)) }, nil); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("long headers: %d %s", res.StatusCode, body)
	}
	if res, body, _ := ask(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(rpc.MaxBody+1))
		_, _ = w.Write(make([]byte, rpc.MaxBody+1))
	}, nil); res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, ReasonGuestAnswer) {
		t.Errorf("a long answer: %d %.200s", res.StatusCode, body)
	}
	if _, body, err := ask(func(w http.ResponseWriter, _ *http.Request) {
		for range 12 {
			_, _ = w.Write(make([]byte, 1<<20))
		}
	}, nil); err == nil || len(body) > rpc.MaxBody {
		t.Errorf("an endless answer: %d bytes, %v", len(body), err)
	}
}
