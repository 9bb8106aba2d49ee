package fetch_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

// vendor is made once: its RSA keys take long.
var vendor = sync.OnceValues(func() (*simtee.AMD, error) { return simtee.NewAMD(simtee.AMDConfig{Seed: make([]byte, 32)}) })

// chip is a simulated SEV-SNP machine, what it shows, and its vendor's root.
func chip(t *testing.T, b *bench, c simtee.AMDConfig) (*simtee.AMD, attest.Evidence, []attest.Root) {
	t.Helper()
	vendor, err := vendor()
	if err != nil {
		t.Fatal(err)
	}
	m, err := vendor.With(func(to *simtee.AMDConfig) { *to = c; to.Clock = b.clock })
	if err != nil {
		t.Fatal(err)
	}
	report, err := m.Report(cvm.Measurement{1}, [32]byte{}, 0, [64]byte{})
	if err != nil {
		t.Fatal(err)
	}
	return m, attest.Evidence{Variant: cvm.VariantSNP, Report: report}, []attest.Root{attest.SimulatedRoot(m.RootSPKI())}
}

// kds notes what it is asked.
type kds struct {
	http.Handler
	mu    sync.Mutex
	asked []string
}

func (k *kds) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	k.asked = append(k.asked, r.URL.Path+"?"+r.URL.RawQuery)
	k.mu.Unlock()
	k.Handler.ServeHTTP(w, r)
}

func (k *kds) client(t *testing.T, b *bench, roots []attest.Root, c fetch.Config) *fetch.Client {
	t.Helper()
	c.KDS, c.Roots, c.Transport = []string{"http://kds"}, roots, byHost{t, map[string]http.Handler{"http://kds": k}}
	if c.Clock == nil {
		c.Clock = b.clock
	}
	return client(t, c)
}

// The requests of each product are those of AMD 57230; the answer is what the
// verifier needs. AMD's own service is not reached from here.
func TestKDS(t *testing.T) {
	for product, query := range map[string]string{
		sevsnp.Milan: "blSPL=4&teeSPL=1&snpSPL=23&ucodeSPL=213",
		sevsnp.Genoa: "blSPL=4&teeSPL=1&snpSPL=23&ucodeSPL=213",
		sevsnp.Turin: "fmcSPL=1&blSPL=4&teeSPL=1&snpSPL=23&ucodeSPL=213",
	} {
		t.Run(product, func(t *testing.T) {
			b := newBench(t)
			m, ev, roots := chip(t, b, simtee.AMDConfig{Product: product})
			k := &kds{Handler: m.Handler()}
			dir := t.TempDir()
			f := k.client(t, b, roots, fetch.Config{Dir: dir})
			a, err := f.Ask(context.Background(), ev)
			want, werr := m.Collateral(b.clock())
			if err != nil || werr != nil || !sameAMD(a.Set, want) || a.Stale {
				t.Fatalf("%v %v", err, werr)
			}
			name := hexOfChip(m.ChipID(), product)
			expect := []string{"/vcek/v1/" + product + "/" + name + "?" + query, "/vcek/v1/" + product + "/cert_chain?", "/vcek/v1/" + product + "/crl?"}
			slices.Sort(k.asked)
			slices.Sort(expect)
			if !slices.Equal(k.asked, expect) {
				t.Errorf("asked %q\nwant %q", k.asked, expect)
			}
			// Certificates never change: a day later, in another process, only the list is asked for.
			b.pass(24 * time.Hour)
			k.asked = nil
			f = k.client(t, b, roots, fetch.Config{Dir: dir, MaxAge: 4 * time.Hour})
			if _, err := f.For(context.Background(), ev); err != nil || !slices.Equal(k.asked, []string{"/vcek/v1/" + product + "/crl?"}) {
				t.Errorf("asked %q: %v", k.asked, err)
			}
			bundled(t, b, a, ev, roots)
		})
	}
}

// bundled: the answer works offline.
func bundled(t *testing.T, b *bench, a fetch.Answer, ev attest.Evidence, roots []attest.Root) {
	t.Helper()
	bundle, err := collateral.Merge(collateral.Bundle{Entries: []collateral.Entry{a.Entry()}})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := bundle.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if bundle, err = collateral.ParseBundle(raw); err != nil {
		t.Fatal(err)
	}
	off, err := fetch.Offline(fetch.Config{Roots: roots, Clock: b.clock}, bundle)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := off.For(context.Background(), ev); err != nil || !sameAMD(got, a.Set) {
		t.Errorf("offline: %v", err)
	}
}

func sameAMD(a, b collateral.Set) bool {
	return a.AMD != nil && b.AMD != nil && string(a.AMD.Leaf) == string(b.AMD.Leaf) && string(a.AMD.Chain) == string(b.AMD.Chain) && string(a.AMD.CRL) == string(b.AMD.CRL)
}

func hexOfChip(id [64]byte, product string) string {
	return hexString(id[:sevsnp.HWIDSize(product)])
}

// A certificate that comes with the report is used when it is the right one, and
// AMD is not asked for it; a wrong one is no reason to fail.
func TestProverBringsCertificate(t *testing.T) {
	b := newBench(t)
	m, ev, roots := chip(t, b, simtee.AMDConfig{})
	set, err := m.Collateral(b.clock())
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := m.With(func(c *simtee.AMDConfig) { c.Faults.OtherChip = true })
	if err != nil {
		t.Fatal(err)
	}
	other, err := wrong.Collateral(b.clock())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		hints [][]byte
		leafs int
	}{
		"the right one":         {[][]byte{{1, 2}, set.AMD.Leaf}, 0},
		"another chip's":        {[][]byte{other.AMD.Leaf}, 1},
		"none that is readable": {[][]byte{{}, {0x30}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			k := &kds{Handler: m.Handler()}
			f := k.client(t, b, roots, fetch.Config{})
			e := ev
			e.CertChain = c.hints
			got, err := f.For(context.Background(), e)
			if err != nil || string(got.AMD.Leaf) != string(set.AMD.Leaf) || len(k.asked) != 2+c.leafs {
				t.Errorf("asked %q: %v", k.asked, err)
			}
			if got, err = f.For(context.Background(), ev); err != nil || string(got.AMD.Leaf) != string(set.AMD.Leaf) || len(k.asked) != 2+c.leafs {
				t.Errorf("without it, asked %q: %v", k.asked, err)
			}
		})
	}
	e := ev
	e.CertChain = make([][]byte, 9)
	if _, err := (&kds{Handler: m.Handler()}).client(t, b, roots, fetch.Config{}).For(context.Background(), e); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("nine certificates: %v", err)
	}
}

// AMD gives out no VLEK, and none for a masked chip: they come with the report or not at all.
func TestNotAMDsToGive(t *testing.T) {
	b := newBench(t)
	for name, c := range map[string]simtee.AMDConfig{
		"VLEK":   {VLEK: "cloud"},
		"masked": {Faults: simtee.AMDFaults{Report: func(r *sevsnp.Report) { r.ChipID = [64]byte{} }}},
	} {
		t.Run(name, func(t *testing.T) {
			m, ev, roots := chip(t, b, c)
			k := &kds{Handler: m.Handler()}
			f := k.client(t, b, roots, fetch.Config{})
			if _, err := f.For(context.Background(), ev); cvm.ReasonOf(err) != fetch.ReasonUnavailable {
				t.Errorf("%v", err)
			}
			for _, a := range k.asked {
				if !strings.HasSuffix(a, "/cert_chain?") && !strings.HasSuffix(a, "/crl?") {
					t.Errorf("asked %s", a)
				}
			}
			set, err := m.Collateral(b.clock())
			if err != nil {
				t.Fatal(err)
			}
			ev.CertChain = [][]byte{set.AMD.Leaf}
			if got, err := f.For(context.Background(), ev); err != nil || !sameAMD(got, set) {
				t.Errorf("with it: %v", err)
			}
			ev.CertChain = append(ev.CertChain, set.AMD.Leaf) // from memory or not
			if got, err := f.For(context.Background(), ev); err != nil || !sameAMD(got, set) {
				t.Errorf("with it: %v", err)
			}
		})
	}
}

// Another vendor's KDS, a wrong certificate and an old list are refused.
func TestHostileKDS(t *testing.T) {
	b := newBench(t)
	m, ev, roots := chip(t, b, simtee.AMDConfig{})
	for name, edit := range map[string]func(*simtee.AMDConfig){
		"another chip":   func(c *simtee.AMDConfig) { c.Faults.OtherChip = true },
		"ended list":     func(c *simtee.AMDConfig) { c.Faults.Expired = true },
		"list to come":   func(c *simtee.AMDConfig) { c.Faults.Future = true },
		"list of an ASK": func(c *simtee.AMDConfig) { c.Faults.OtherList = true },
	} {
		bad, err := m.With(edit)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (&kds{Handler: bad.Handler()}).client(t, b, roots, fetch.Config{}).For(context.Background(), ev); cvm.ReasonOf(err) != fetch.ReasonUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	old, err := m.With(func(c *simtee.AMDConfig) { c.Faults.OtherTCB = true })
	if err != nil {
		t.Fatal(err)
	}
	superseded, err := old.Collateral(b.clock())
	if err != nil {
		t.Fatal(err)
	}
	tcb := &kds{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.RawQuery, "blSPL") {
			_, _ = w.Write(superseded.AMD.Leaf)
			return
		}
		m.Handler().ServeHTTP(w, r)
	})}
	if _, err := tcb.client(t, b, roots, fetch.Config{}).For(context.Background(), ev); cvm.ReasonOf(err) != fetch.ReasonUnavailable || !strings.Contains(err.Error(), "the certificate is for TCB") {
		t.Errorf("another TCB: %v", err)
	}
	if _, err := (&kds{Handler: m.Handler()}).client(t, b, attest.AMDRoots(), fetch.Config{}).For(context.Background(), ev); cvm.ReasonOf(err) != fetch.ReasonUnavailable {
		t.Errorf("a root that is not admitted: %v", err)
	}
	for name, r := range map[string][]byte{"no report": nil, "unsigned": unsigned(t, m)} {
		if _, err := (&kds{Handler: m.Handler()}).client(t, b, roots, fetch.Config{}).For(context.Background(), attest.Evidence{Variant: cvm.VariantSNP, Report: r}); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func unsigned(t *testing.T, m *simtee.AMD) []byte {
	t.Helper()
	none, err := m.With(func(c *simtee.AMDConfig) { c.Faults.Report = func(r *sevsnp.Report) { r.SigningKey = sevsnp.KeyNone } })
	if err != nil {
		t.Fatal(err)
	}
	r, err := none.Report(cvm.Measurement{}, [32]byte{}, 0, [64]byte{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A service that says Retry-After is waited for within the timeout; one that asks
// for more is left alone until then.
func TestRateLimit(t *testing.T) {
	b := newBench(t)
	m, ev, roots := chip(t, b, simtee.AMDConfig{})
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		clock := func() time.Time { return b.now.Add(time.Since(start)) }
		var until time.Time
		retry := "9"
		k := &kds{}
		k.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if time.Now().Before(until) {
				w.Header().Set("Retry-After", retry)
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			m.Handler().ServeHTTP(w, r)
		})
		until = time.Now().Add(8 * time.Second)
		f := k.client(t, b, roots, fetch.Config{Clock: clock})
		if _, err := f.For(context.Background(), ev); err != nil {
			t.Errorf("it did not wait: %v", err)
		}
		if d := time.Since(start); d < 8*time.Second || d > 15*time.Second {
			t.Errorf("it took %s", d)
		}
		// Too long: refused at once, and nobody asks before it is over.
		f.Forget()
		k.asked, retry, until = nil, "600", time.Now().Add(500*time.Second)
		for range 20 {
			if _, err := f.For(context.Background(), ev); cvm.ReasonOf(err) != fetch.ReasonUnavailable {
				t.Fatalf("%v", err)
			}
			time.Sleep(10 * time.Second) // virtual time
		}
		if len(k.asked) != 1 {
			t.Errorf("asked %d times while it wants to be left alone", len(k.asked))
		}
		time.Sleep(10 * time.Minute) // virtual time
		if _, err := f.For(context.Background(), ev); err != nil {
			t.Error(err)
		}
	})
}
