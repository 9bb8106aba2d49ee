package attest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tdx-guest/verify"
	"github.com/google/logger"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

func at() time.Time { return time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC) }

var errRefused = errors.New("refused")

// node is one simulated machine with evidence.
type node struct {
	hw  *simtee.Hardware
	ev  attest.Evidence
	set collateral.Set
}

func newNode(t testing.TB, name string, edit func([]byte)) node {
	t.Helper()
	hw, err := simtee.New(simtee.Config{Seed: make([]byte, 32), Machine: name, Clock: at, Faults: simtee.Faults{QEReport: edit}})
	if err != nil {
		t.Fatal(err)
	}
	g, err := hw.Boot(context.Background(), simtee.Boot{Name: "app", AppID: cvm.AppID{1}, ComposeHash: cvm.ComposeHash{2}, InstanceID: cvm.InstanceID{3}})
	if err != nil {
		t.Fatal(err)
	}
	n := node{hw: hw}
	if n.ev, err = g.Evidence(context.Background(), [64]byte{4}); err != nil {
		t.Fatal(err)
	}
	if n.set, err = hw.Collateral(at()); err != nil {
		t.Fatal(err)
	}
	return n
}

func admitted([32]byte) bool { return true }

// vendor makes the vendor's checks: what the other libraries make too.
func (n node) vendor(c *tdx.Cache) error {
	rec := &claim.Recorder{}
	if c.Verify(n.ev.Quote, n.set, admitted, at(), rec); !rec.Passed(tdx.Genuine()...) || !rec.Passed(claim.TCBMatch) {
		return errRefused
	}
	return nil
}

func bare(t testing.TB, curve elliptic.Curve, n int) func() error {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	msg := make([]byte, 632)
	digest := func() []byte { h := sha256.Sum256(msg); return h[:] }
	if curve == elliptic.P384() {
		digest = func() []byte { h := sha512.Sum384(msg); return h[:] }
	}
	sig, err := ecdsa.SignASN1(rand.Reader, k, digest())
	if err != nil {
		t.Fatal(err)
	}
	return func() error {
		for range n {
			if !ecdsa.VerifyASN1(&k.PublicKey, digest(), sig) {
				return errRefused
			}
		}
		return nil
	}
}

const (
	one, two, nine = "1 P-256", "2 P-256", "9 P-256"
	p384           = "1 P-384"
)

func tdxOps(t testing.TB) []op {
	t.Helper()
	known, fresh := newNode(t, "", nil), newNode(t, "another", nil)
	other := newNode(t, "", func(r []byte) { r[64] ^= 1 }) // the machine's next quoting enclave
	var c *tdx.Cache
	after := func(n node) func() {
		return func() {
			c = tdx.NewCache(16)
			if err := n.vendor(c); err != nil {
				t.Fatal(err)
			}
		}
	}
	hot := tdx.NewCache(16)
	whole := attest.NewVerifier(16)
	policy := known.hw.Policy(known.ev.ReportData, claim.PhaseRelease)
	full := func(v *attest.Verifier) func() error {
		return func() error {
			_, _, err := v.Verify(known.ev, known.set, policy, at())
			return err
		}
	}
	return append([]op{
		{name: one, run: bare(t, elliptic.P256(), 1)},
		{name: two, run: bare(t, elliptic.P256(), 2)},
		{name: nine, run: bare(t, elliptic.P256(), 9)},
		{name: p384, run: bare(t, elliptic.P384(), 1)},
		{name: "TDX parse", run: func() error { _, err := tdx.ParseQuote(known.ev.Quote); return err }},
		{name: "TDX cold", per: nine, n: 9, run: func() error { return known.vendor(nil) }},
		{name: "TDX new host", note: " (CA and collateral seen)", per: two, n: 2, prepare: after(known), run: func() error { return fresh.vendor(c) }},
		{name: "TDX warm", note: " (chain and collateral seen)", per: two, n: 2, prepare: after(known), run: func() error { return other.vendor(c) }},
		{name: "TDX hot", note: " (QE report seen too)", per: one, n: 1, run: func() error { return known.vendor(hot) }},
		{name: "attest.Verify", note: ", cold: with event log, image and policy", per: nine, n: 9, run: full(nil)},
		{name: "Verifier.Verify", note: ", hot: the same", per: one, n: 1, run: full(whole)},
	}, goTDXOps(known)...)
}

// getter answers go-tdx-guest's requests from a set.
type getter struct{ collateral.Set }

func (s getter) Get(raw string) (map[string][]string, []byte, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, nil, err
	}
	header := func(name string, chain []byte) map[string][]string {
		return map[string][]string{http.CanonicalHeaderKey(name): {strings.ReplaceAll(url.QueryEscape(string(chain)), "+", "%20")}}
	}
	switch p := u.Path; {
	case strings.HasSuffix(p, "/tdx/certification/v4/tcb"):
		return header("TCB-Info-Issuer-Chain", s.TCBInfoIssuerChain), s.TCBInfo, nil
	case strings.HasSuffix(p, "/qe/identity"):
		return header("SGX-Enclave-Identity-Issuer-Chain", s.QEIdentityIssuerChain), s.QEIdentity, nil
	case strings.HasSuffix(p, "/pckcrl"):
		return header("SGX-PCK-CRL-Issuer-Chain", s.PCKCRLIssuerChain), s.PCKCRL, nil
	case strings.HasSuffix(p, ".der"):
		return nil, s.RootCRL, nil
	}
	return nil, nil, fmt.Errorf("nothing at %s", u.Path)
}

func goTDXOps(n node) (out []op) {
	logger.Init("", false, false, io.Discard) // it warns on stdout at every call
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(n.hw.RootPEM())
	for _, x := range []struct {
		name             string
		collateral, list bool
	}{{"go-tdx-guest, chain only", false, false}, {"go-tdx-guest, collateral", true, false}, {"go-tdx-guest, collateral and CRL", true, true}} {
		out = append(out, op{name: x.name, per: nine, n: 9, run: func() error {
			return verify.RawTdxQuote(n.ev.Quote, &verify.Options{GetCollateral: x.collateral, CheckRevocations: x.list, Getter: getter{n.set}, TrustedRoots: roots,
				Now: &verify.TimeSet{PckCertChain: at(), TcbInfo: at(), QeIdentity: at(), PckCrl: at(), RootCaCrl: at()}})
		}})
	}
	return out
}

// distribution runs hot verifications on one core and on two, and a flood of
// distinct hosts against a bounded memory.
func distribution(t *testing.T, out *strings.Builder) {
	t.Helper()
	n := newNode(t, "", nil)
	out.WriteString("| under load | p10 µs | p50 µs | p99 µs | per second |\n|---|---|---|---|---|\n")
	for _, cores := range []int{1, 2} {
		c := tdx.NewCache(16)
		done := make(chan []time.Duration)
		start := time.Now()
		for range cores {
			go func() {
				var times []time.Duration
				for range 20 * *rounds {
					begin := time.Now()
					if n.vendor(c) != nil {
						break
					}
					times = append(times, time.Since(begin))
				}
				done <- times
			}()
		}
		var all []time.Duration
		for range cores {
			all = append(all, <-done...)
		}
		if len(all) != cores*20**rounds {
			t.Fatal(errRefused)
		}
		fmt.Fprintf(out, "| TDX hot, %d at once | %s | %.0f |\n", cores, quantiles(all), float64(len(all))/time.Since(start).Seconds())
	}
	flood(t, out)
}

// maxHosts bounds the memory of the flood.
const maxHosts = 1024

func flood(t *testing.T, out *strings.Builder) {
	t.Helper()
	c := tdx.NewCache(maxHosts)
	var times []time.Duration
	var busy time.Duration
	early := uint64(0)
	vendor := newNode(t, "", nil) // all machines are of one vendor and model
	for i := range *hosts {
		n := node{set: vendor.set, ev: attest.Evidence{Quote: quoteOf(t, strconv.Itoa(i))}}
		start := time.Now()
		if err := n.vendor(c); err != nil {
			t.Fatal(err)
		}
		d := time.Since(start)
		times, busy = append(times, d), busy+d
		if c.Hosts() > maxHosts {
			t.Fatalf("%d hosts are remembered, at most %d may be", c.Hosts(), maxHosts)
		}
		if i == maxHosts || i == *hosts-1 && early == 0 {
			early = heap()
		}
	}
	fmt.Fprintf(out, "| TDX, %d distinct hosts, %d remembered | %s | %.0f |\n", *hosts, c.Hosts(), quantiles(times), float64(len(times))/busy.Seconds())
	fmt.Fprintf(out, "\nHeap when the memory was full: %d KiB; after all %d hosts: %d KiB.\n", early>>10, *hosts, heap()>>10)
	runtime.KeepAlive(c)
}

// quoteOf is a quote of one more machine, made in the cheapest way.
func quoteOf(t *testing.T, machine string) []byte {
	t.Helper()
	hw, err := simtee.New(simtee.Config{Seed: make([]byte, 32), Machine: machine, Clock: at})
	if err != nil {
		t.Fatal(err)
	}
	td, err := hw.NewTD("app", simtee.Shape{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := td.Quote(context.Background(), [64]byte{})
	if err != nil {
		t.Fatal(err)
	}
	return q
}
