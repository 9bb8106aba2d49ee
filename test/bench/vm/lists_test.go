package vm

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
)

// TestWholeLists: answers about all CVMs of a workspace are read and written some at a
// time, and hold each of them once.
func TestWholeLists(t *testing.T) {
	const nodes, cvms = 100, 1000 // twice what is read at once
	f := newFleet(t)
	c := childConfig{Dir: t.TempDir()}
	c.Token = filepath.Join(c.Dir, "token")
	if err := os.WriteFile(c.Token, []byte("token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		c.Nodes = append(c.Nodes, f.url(i))
	}
	seed(t, c, f, 0, cvms)
	s, err := api.New(apiConfig(c))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	key, err := s.NewAdminKey(t.Context(), "bench")
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	read := func(path string, into any) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+cloudapi.Prefix+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-API-Key", key)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err == nil {
			err = json.Unmarshal(b, into)
		}
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %.200s %v", path, res.Status, b, err)
		}
	}
	var all []cloudapi.CVMInfo
	read("/cvms", &all)
	if len(all) != cvms {
		t.Fatalf("%d CVMs of %d", len(all), cvms)
	}
	for i, v := range all {
		if want := seededName(cvms - 1 - i); v.Name != want {
			t.Fatalf("CVM %d is %s, want %s", i, v.Name, want)
		}
	}
	var first cloudapi.AvailableNodes
	read("/nodes", &first)
	for query, want := range map[string]struct{ total, first int }{
		"page=1&page_size=30&instance_type=tdx.small":                               {cvms, cvms - 1},
		"page=30&page_size=30&instance_type=tdx.small":                              {cvms, cvms - 1 - 29*30},
		"page=40&page_size=30&instance_type=tdx.small":                              {cvms, -1},
		"page=1&page_size=30&listed=true":                                           {0, -1},
		fmt.Sprintf("page=1&page_size=3&node=%d", first.Nodes[7].TeepodID):          {perNode, 8*perNode - 1},
		fmt.Sprintf("page=2&page_size=3&node=%d", first.Nodes[7].TeepodID):          {perNode, 8*perNode - 4},
		fmt.Sprintf("page=1&page_size=3&region=here&search=%s", seededName(cvms-1)): {1, cvms - 1},
	} {
		var apps cloudapi.Apps
		read("/apps?"+query, &apps)
		got := -1
		if len(apps.DstackApps) > 0 {
			_, _ = fmt.Sscanf(apps.DstackApps[0].Name, "seeded-%d", &got)
		}
		if apps.Total != want.total || got != want.first {
			t.Errorf("%s: %d in all, the first is %d; want %+v", query, apps.Total, got, want)
		}
	}
}
