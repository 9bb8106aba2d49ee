package api_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/api/cloudapi"
)

// watching opens a state stream and reads its first event.
func (w *world) watching(query string) (status int, first string, rest io.ReadCloser) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), "GET", w.url+cloudapi.Prefix+"/cvms/my-app/state?"+query, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("X-API-Key", w.key)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	first, err = bufio.NewReader(res.Body).ReadString('\n')
	if err != nil {
		w.t.Fatalf("%d %q %v", res.StatusCode, first, err)
	}
	return res.StatusCode, first, res.Body
}

// TestStateStreamsAreBounded: a user has five, which end by their own time or when the
// client leaves, and then there is room for another.
func TestStateStreamsAreBounded(t *testing.T) {
	t.Parallel() // one stream lasts the shortest time there is, ten seconds
	w := newWorld(t, offChain)
	w.offChainApp("my-app", nil)
	const wait = "target=stopped&interval=30&timeout="
	var open []io.ReadCloser
	for _, timeout := range []string{"10", "600", "600", "600", "600"} {
		status, first, body := w.watching(wait + timeout)
		if status != 200 || first != "event: state\n" {
			t.Fatalf("%d %q", status, first)
		}
		defer body.Close()
		open = append(open, body)
	}
	refused(w, 429, "too-many-streams", "GET", "/cvms/my-app/state?"+wait+"600", nil, nil)
	if status, _ := w.raw("GET", "/cvms/my-app/state", nil, nil); status != 200 { // one answer is no stream
		t.Errorf("%d", status)
	}
	_ = open[4].Close()
	w.until("the one that was left is free", func() bool {
		status, _, body := w.watching(wait + "600")
		open[4] = body
		return status == 200
	})
	defer open[4].Close()
	all, err := io.ReadAll(open[0])
	if err != nil || !strings.Contains(string(all), "event: timeout\n") {
		t.Errorf("%q %v", all, err)
	}
	w.until("the one that ended is free", func() bool {
		status, _, body := w.watching(wait + "600")
		defer body.Close()
		return status == 200
	})
}
