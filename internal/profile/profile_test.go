package profile

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
)

func TestPutAndFind(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	in := Login{Token: "phak_secret", APIPrefix: "http://127.0.0.1:8730/api/v1", Workspace: Workspace{Name: "My Space", Slug: "space"}}
	if err := Put(dir, "dev", in, Extra{Trust: "/t", Wallet: "/w"}); err != nil {
		t.Fatal(err)
	}
	c, err := LoadCredentials(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dev", "space", "My Space"} {
		if n, l, ok := c.Find(name); !ok || n != "dev" || l.Token != in.Token {
			t.Errorf("%s: found %v %v", name, n, ok)
		}
	}
	if _, _, ok := c.Find("other"); ok {
		t.Error("found a profile that is not there")
	}
	x, err := LoadExtras(dir)
	if err != nil || x.Profiles["dev"].Trust != "/t" || c.Current != "dev" {
		t.Errorf("extras %+v, current %q, %v", x, c.Current, err)
	}
	for _, f := range []string{"credentials.json", "extras.toml"} {
		if st, err := os.Stat(filepath.Join(dir, f)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, st.Mode(), err)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v", c.Profiles["dev"], c.Profiles["dev"], c.Profiles["dev"]); strings.Contains(s, "phak_") {
		t.Errorf("the token prints: %s", s)
	}
}

func TestDamagedCredentialsDoNotShow(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "credentials.json"), []byte(`{"profiles":{"a":{"token":"phak_secret",}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := LoadCredentials(dir)
	if err == nil || strings.Contains(err.Error(), "phak_") {
		t.Errorf("error is %v", err)
	}
}

func TestNextCounter(t *testing.T) {
	dir := t.TempDir()
	var app cvm.AppID
	step := func(cloud, want uint64) {
		t.Helper()
		if got, err := NextCounter(dir, app, cloud); err != nil || got != want {
			t.Fatalf("cloud %d: got %d, %v; want %d", cloud, got, err, want)
		}
	}
	step(0, 1)
	step(7, 8)  // another machine signed 7
	step(2, 9)  // the cloud went back: we do not
	step(9, 10) // ours arrived
	if _, err := NextCounter(dir, app, math.MaxUint64); cvm.ReasonOf(err) != "env-counter-implausible" {
		t.Errorf("a counter at its end was believed: %v", err)
	}
	step(0, 11)
}

func TestNextCounterConcurrent(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			n, err := NextCounter(dir, cvm.AppID{}, 0)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[n] {
				t.Errorf("counter %d twice, or %v", n, err)
			}
			seen[n] = true
		})
	}
	wg.Wait()
}

func TestDamagedStateRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "deploys.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := NextCounter(dir, cvm.AppID{}, 0); err == nil {
		t.Errorf("a damaged file gave counter %d", n)
	}
}
