package differential

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

func noon() time.Time { return time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC) }

// sample is one input that all verifiers are asked about.
type sample struct {
	label string // what was done, for reports
	quote []byte
	set   collateral.Set
	at    time.Time
}

// scene is a vendor and a platform in one state of health.
type scene struct {
	name   string
	quotes [][]byte // of two TDs
	set    collateral.Set
	old    collateral.Set // expired by now
	next   collateral.Set // not yet begun
}

func vendor(t testing.TB, seed byte, cfg simtee.Config) *simtee.Hardware {
	t.Helper()
	cfg.Seed = bytes.Repeat([]byte{seed}, 32)
	hw, err := simtee.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return hw
}

func newScene(t testing.TB, name string, hw *simtee.Hardware) scene {
	t.Helper()
	s := scene{name: name}
	for i, n := range []string{"a", "b"} {
		td, err := hw.NewTD(n, simtee.Shape{MRTD: cvm.Measurement{byte(i + 1)}})
		if err != nil {
			t.Fatal(err)
		}
		q, err := td.Quote(context.Background(), [64]byte{byte(i + 1)})
		if err != nil {
			t.Fatal(err)
		}
		s.quotes = append(s.quotes, q)
	}
	for dst, at := range map[*collateral.Set]time.Time{&s.set: noon(), &s.old: noon().AddDate(0, 0, -40), &s.next: noon().AddDate(0, 0, 2)} {
		c, err := hw.Collateral(at)
		if err != nil {
			t.Fatal(err)
		}
		*dst = c
	}
	return s
}

// health lists what the simulated vendor and platform can be wrong about.
func health() map[string]simtee.Config {
	f := func(f simtee.Faults) simtee.Config { return simtee.Config{Faults: f} }
	all := map[string]simtee.Config{
		"sound": {}, "version 5": {QuoteVersion: 5}, "another machine": {Machine: "two"}, "upper-case FMSPC": {FMSPC: "50806000ABCD"},
		"SW hardening needed": f(simtee.Faults{TCBStatus: "SWHardeningNeeded", Advisories: []string{"INTEL-SA-00615"}}),
		"configuration":       f(simtee.Faults{TCBStatus: "ConfigurationNeeded"}), "platform out of date": f(simtee.Faults{TCBStatus: "OutOfDate"}),
		"configuration and SW":       f(simtee.Faults{TCBStatus: "ConfigurationAndSWHardeningNeeded"}),
		"out of date, configuration": f(simtee.Faults{TCBStatus: "OutOfDateConfigurationNeeded"}),
		"platform revoked":           f(simtee.Faults{TCBStatus: "Revoked"}), "unknown status": f(simtee.Faults{TCBStatus: "Splendid"}),
		"relaunch advised":   f(simtee.Faults{TCBStatus: "TDRelaunchAdvised"}),
		"module out of date": f(simtee.Faults{ModuleStatus: "OutOfDate"}), "module revoked": f(simtee.Faults{ModuleStatus: "Revoked"}),
		"QE out of date": f(simtee.Faults{QEStatus: "OutOfDate"}), "QE revoked": f(simtee.Faults{QEStatus: "Revoked"}),
		"PCK revoked": f(simtee.Faults{RevokePCK: true}), "CA revoked": f(simtee.Faults{RevokeCA: true}), "TCB signer revoked": f(simtee.Faults{RevokeTCB: true}),
		"no level": f(simtee.Faults{NoMatchingTCB: true}), "expired": f(simtee.Faults{Expired: true}), "of the future": f(simtee.Faults{Future: true}),
		"other FMSPC": f(simtee.Faults{OtherFMSPC: true}), "other PCEID": f(simtee.Faults{OtherPCEID: true}), "signed by the CA": f(simtee.Faults{SignedByCA: true}),
		"other signer name": f(simtee.Faults{SignerName: "Intel SGX Something"}), "module signer": f(simtee.Faults{SeamSigner: true}),
		"module attributes": f(simtee.Faults{SeamAttribute: 1}), "unknown module": f(simtee.Faults{ModuleMajor: 9}),
	}
	for _, q := range []simtee.QEFault{simtee.QEDebug, simtee.QEOtherSigner, simtee.QEProduct, simtee.QETooOld, simtee.QEVendor, simtee.QEReportData} {
		all["QE "+string(q)] = f(simtee.Faults{QE: q})
	}
	for name, edit := range statements() {
		all[name] = f(simtee.Faults{Statement: edit})
	}
	for name, c := range all { // each on both quote versions
		if c.QuoteVersion == 0 {
			c.QuoteVersion = 5
			all[name+" (v5)"] = c
		}
	}
	return all
}

// statements are signed oddities.
func statements() map[string]func(string, []byte) []byte {
	repl := func(name, old, with string) func(string, []byte) []byte {
		return func(n string, b []byte) []byte {
			if n != name {
				return b
			}
			return bytes.Replace(b, []byte(old), []byte(with), 1)
		}
	}
	return map[string]func(string, []byte) []byte{
		"signed SGX TCB info":      repl("tcbInfo", `"id":"TDX"`, `"id":"SGX"`),
		"signed SGX QE identity":   repl("enclaveIdentity", `"id":"TD_QE"`, `"id":"QE"`),
		"signed case variant":      repl("tcbInfo", `"tcbType":0`, `"tcbType":0,"TCBTYPE":0`),
		"signed duplicate":         repl("tcbInfo", `"tcbType":0`, `"tcbType":0,"tcbType":0`),
		"signed TCB version 2":     repl("tcbInfo", `"version":3`, `"version":2`),
		"signed TCB type 1":        repl("tcbInfo", `"tcbType":0`, `"tcbType":1`),
		"signed 15 components":     repl("tcbInfo", `"sgxtcbcomponents":[{"svn":7},`, `"sgxtcbcomponents":[`),
		"signed 17 TDX components": repl("tcbInfo", `"tdxtcbcomponents":[`, `"tdxtcbcomponents":[{"svn":0},`),
		"signed higher PCE":        repl("tcbInfo", `"pcesvn":11`, `"pcesvn":12`),
		"signed higher module":     repl("tcbInfo", `"isvsvn":5`, `"isvsvn":6`),
		"signed TDX component 0":   repl("tcbInfo", `"tdxtcbcomponents":[{"svn":0}`, `"tdxtcbcomponents":[{"svn":200}`),
		"signed evaluation 0":      repl("tcbInfo", `"tcbEvaluationDataNumber":17`, `"tcbEvaluationDataNumber":0`),
		"signed MISCSELECT":        repl("enclaveIdentity", `"miscselect":"00`, `"miscselect":"01`),
		"signed debug identity":    repl("enclaveIdentity", `"attributes":"11`, `"attributes":"13`),
		"signed lower-case signer": func(n string, b []byte) []byte { return bytes.Replace(b, []byte(`"FBFF`), []byte(`"fbff`), 1) },
		"signed unknown member":    repl("tcbInfo", `"tcbType":0`, `"tcbType":0,"news":[1]`),
		"signed fractional time":   repl("tcbInfo", `:00:00Z","nextUpdate"`, `:00:00.5Z","nextUpdate"`),
	}
}

// pool is what mutations draw from.
type pool struct {
	scenes  []scene // the first is sound
	foreign scene   // another vendor of the same names
	root    []byte  // PEM of the admitted root
	spki    [32]byte
}

func newPool(t testing.TB) pool {
	t.Helper()
	hw := vendor(t, 1, simtee.Config{})
	p := pool{root: hw.RootPEM(), spki: hw.RootSPKI(), foreign: newScene(t, "foreign", vendor(t, 2, simtee.Config{}))}
	all := health()
	names := make([]string, 0, len(all))
	for n := range all {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		if (a == "sound") != (b == "sound") {
			if a == "sound" {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	for _, n := range names {
		p.scenes = append(p.scenes, newScene(t, n, vendor(t, 1, all[n])))
	}
	return p
}

// plain is every scene as it is.
func (p pool) plain() (out []sample) {
	for _, s := range append(slices.Clone(p.scenes), p.foreign) {
		out = append(out, sample{s.name, s.quotes[0], s.set, noon()})
	}
	return out
}

// draw makes one mutated sample.
func (p pool) draw(r *rand.Rand) sample {
	s := p.scenes[0]
	switch r.IntN(4) {
	case 0: // a platform in another state
		s = p.scenes[r.IntN(len(p.scenes))]
	case 1: // version 5
		s = p.scenes[slices.IndexFunc(p.scenes, func(s scene) bool { return s.name == "version 5" })]
	}
	c := sample{label: s.name, quote: bytes.Clone(s.quotes[0]), set: s.set, at: noon()}
	for range 1 + r.IntN(3)/2 {
		kind := mutators()[r.IntN(len(mutators()))]
		c.label += ", " + kind.name
		kind.do(p, r, &c)
		if len(c.quote) < 1024 || len(c.set.TCBInfo) < 512 {
			break // cut: nothing left to mutate
		}
	}
	return c
}

type mutator struct {
	name string
	do   func(p pool, r *rand.Rand, c *sample)
}

func mutators() []mutator {
	return []mutator{
		{"bit", func(_ pool, r *rand.Rand, c *sample) { c.quote[r.IntN(len(c.quote))] ^= 1 << r.IntN(8) }},
		{"bit of the body", func(_ pool, r *rand.Rand, c *sample) { c.quote[r.IntN(700)] ^= 1 << r.IntN(8) }},
		{"bytes", func(_ pool, r *rand.Rand, c *sample) {
			i := r.IntN(len(c.quote))
			for range 1 + r.IntN(8) {
				c.quote[i] = byte(r.IntN(256)) //nolint:gosec // a byte
				i = min(i+1, len(c.quote)-1)
			}
		}},
		{"length field", lengthField}, {"cut", func(_ pool, r *rand.Rand, c *sample) { c.quote = c.quote[:r.IntN(len(c.quote))] }},
		{"zeros after", func(_ pool, r *rand.Rand, c *sample) { c.quote = append(c.quote, make([]byte, r.IntN(80))...) }},
		{"bytes after", func(_ pool, r *rand.Rand, c *sample) { c.quote = append(c.quote, byte(1+r.IntN(255))) }}, //nolint:gosec // a byte
		{"splice", splice}, {"PEM text", pemText}, {"PCK chain", pckChain}, {"n-s", otherHalf},
		{"TCB info text", func(p pool, r *rand.Rand, c *sample) { c.set.TCBInfo = editJSON(r, c.set.TCBInfo) }},
		{"QE identity text", func(p pool, r *rand.Rand, c *sample) { c.set.QEIdentity = editJSON(r, c.set.QEIdentity) }},
		{"statement of elsewhere", elsewhere}, {"issuer chain", issuerChain}, {"list", list},
		{"time", func(_ pool, r *rand.Rand, c *sample) {
			c.at = c.at.Add(time.Duration(r.IntN(120)-60) * 24 * time.Hour)
		}},
	}
}

// offsets of the length fields of a quote by its version.
func offsets(q []byte) []int {
	data := 48 + 584 + 4
	if q[0] == 5 {
		data = 48 + 6 + 648 + 4
	}
	return []int{data - 4, data + 130, data + 134 + 448, data + 134 + 450 + 32 + 2}
}

func lengthField(_ pool, r *rand.Rand, c *sample) {
	o := offsets(c.quote)
	i := r.IntN(len(o))
	if o[i]+4 > len(c.quote) {
		return
	}
	if i == 2 { // two bytes wide
		v := binary.LittleEndian.Uint16(c.quote[o[i]:])
		binary.LittleEndian.PutUint16(c.quote[o[i]:], []uint16{v + 1, v - 1, 0, 0xffff, uint16(r.Uint32())}[r.IntN(5)]) //nolint:gosec // any value
		return
	}
	v := binary.LittleEndian.Uint32(c.quote[o[i]:])
	binary.LittleEndian.PutUint32(c.quote[o[i]:], []uint32{v + 1, v - 1, 0, 0xffffffff, 0x80000000, r.Uint32N(8192)}[r.IntN(6)])
}

// splice overlays a run of another quote at the same place.
func splice(p pool, r *rand.Rand, c *sample) {
	from := p.scenes[r.IntN(len(p.scenes))].quotes[r.IntN(2)]
	if r.IntN(4) == 0 {
		from = p.foreign.quotes[0]
	}
	bounds := append([]int{0, 48, 184, 368, 568, 632}, offsets(from)...)
	bounds = append(bounds, 636+64, 636+128, 636+134, 636+134+384, len(from))
	a, b := bounds[r.IntN(len(bounds))], bounds[r.IntN(len(bounds))]
	if a > b {
		a, b = b, a
	}
	b = min(b, len(from), len(c.quote))
	if a < b {
		copy(c.quote[a:b], from[a:b])
	}
}

// certificates splits a quote before its chain, into the PEM blocks and what follows.
func certificates(q []byte) (head []byte, certs [][]byte, tail []byte, ok bool) {
	at := bytes.Index(q, []byte("-----BEGIN"))
	end := bytes.LastIndex(q, []byte("-----END CERTIFICATE-----\n"))
	if at < 0 || end < at {
		return nil, nil, nil, false
	}
	end += len("-----END CERTIFICATE-----\n")
	for _, c := range bytes.SplitAfter(q[at:end], []byte("-----END CERTIFICATE-----\n")) {
		if len(c) > 0 {
			certs = append(certs, c)
		}
	}
	return q[:at], certs, q[end:], true
}

// rebuild joins a quote with another chain and mends the lengths around it.
func rebuild(c *sample, head, chain, tail []byte) {
	o := offsets(head)
	if o[3]+4 != len(head) {
		return // mutated before
	}
	out := slices.Concat(head, chain, tail)
	grown := uint32(len(out) - len(c.quote)) //nolint:gosec // wraps on purpose when it shrinks
	for _, f := range []int{o[0], o[1], o[3]} {
		binary.LittleEndian.PutUint32(out[f:], binary.LittleEndian.Uint32(out[f:])+grown)
	}
	c.quote = out
}

func pemText(_ pool, r *rand.Rand, c *sample) {
	head, certs, tail, ok := certificates(c.quote)
	if !ok {
		return
	}
	chain := bytes.Join(certs, nil)
	junk := []byte(fmt.Sprintf("junk %d\n", r.IntN(10)))
	switch r.IntN(5) {
	case 0:
		chain = append(junk, chain...)
	case 1:
		chain = append(chain, junk...)
	case 2:
		chain = bytes.ReplaceAll(chain, []byte("\n"), []byte("\r\n"))
	case 3:
		chain = bytes.Replace(chain, []byte("-----\n-----BEGIN"), []byte("-----\n\n-----BEGIN"), 1)
	case 4:
		tail = nil // no NUL
	}
	rebuild(c, head, chain, tail)
}

// pckChain orders, drops, repeats or exchanges the certificates of a quote.
func pckChain(p pool, r *rand.Rand, c *sample) {
	head, certs, tail, ok := certificates(c.quote)
	_, other, _, ok2 := certificates(p.foreign.quotes[0])
	if !ok || !ok2 || len(certs) != 3 {
		return
	}
	switch r.IntN(6) {
	case 0:
		certs = certs[:2]
	case 1:
		certs = append(certs, certs[2])
	case 2:
		i := r.IntN(3)
		certs[i] = other[i]
	case 3:
		certs = other
	case 4:
		r.Shuffle(3, func(i, j int) { certs[i], certs[j] = certs[j], certs[i] })
	case 5:
		certs[1] = certs[2]
	}
	rebuild(c, head, bytes.Join(certs, nil), tail)
}
