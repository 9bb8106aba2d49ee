package attest_test

import (
	"flag"
	"testing"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/tdx"
)

var everyBit = flag.Bool("everybit", false, "flip every bit of accepted quotes, not a sample of them")

// stride is the distance between the bits that are flipped.
func stride() int {
	switch {
	case *everyBit:
		return 1
	case testing.Short():
		return 211
	}
	return 17
}

// Every bit of an accepted quote counts, every truncation refuses and so does any
// byte after it. A verifier with warm caches judges, and the pure one a sample of
// the same: what is cached may not make a bit count less.
func TestEveryBit(t *testing.T) {
	for _, version := range []int{4, 5} {
		s := newScene(t, func(s *scene) { s.cfg.QuoteVersion = version })
		warm := attest.NewVerifier(4)
		if v, _, err := warm.Verify(s.ev, s.coll, s.policy, s.at); err != nil || !v.Valid() {
			t.Fatal(err)
		}
		sound := s.ev.Quote
		asked := 0
		verify := func(q []byte, what string, i int) {
			t.Helper()
			s.ev.Quote = q
			if v, _, _ := warm.Verify(s.ev, s.coll, s.policy, s.at); v.Valid() {
				t.Fatalf("version %d: %s %d is accepted", version, what, i)
			}
			if asked++; asked%29 == 0 {
				if v, _, _ := s.verify(); v.Valid() {
					t.Fatalf("version %d: %s %d is accepted by the pure verifier", version, what, i)
				}
			}
		}
		flipped := append([]byte{}, sound...)
		for bit := 0; bit < 8*len(sound); bit += stride() {
			flipped[bit/8] ^= 1 << (bit % 8)
			verify(flipped, "flipped bit", bit)
			flipped[bit/8] ^= 1 << (bit % 8)
		}
		for n := 0; n < len(sound); n += stride() {
			verify(sound[:n:n], "the quote cut to byte", n)
		}
		for b := 1; b < 256; b++ {
			verify(append(sound[:len(sound):len(sound)], byte(b)), "a byte after it,", b)
		}
		s.ev.Quote = sound
		if v, _, err := warm.Verify(s.ev, s.coll, s.policy, s.at); !v.Valid() {
			t.Fatalf("the sound quote after all of this: %v", err)
		}
	}
}

// The same of the quote alone, where no event log or image stands behind it: the
// vendor's checks see every bit by themselves.
func TestEveryBitByVendorRules(t *testing.T) {
	s := newScene(t, nil)
	cache := tdx.NewCache(4)
	judge := func(q []byte) bool {
		rec := &claim.Recorder{}
		cache.Verify(q, s.coll, func(k [32]byte) bool { return k == s.hw.RootSPKI() }, s.at, rec)
		return rec.Passed(append(tdx.Genuine(), claim.CollateralParse, claim.CollateralSigned, claim.CRLRevoked, claim.QEIdentity, claim.TDXModule, claim.TCBMatch)...)
	}
	if !judge(s.ev.Quote) {
		t.Fatal("the sound quote is refused")
	}
	for bit := 0; bit < 8*len(s.ev.Quote); bit += stride() {
		s.ev.Quote[bit/8] ^= 1 << (bit % 8)
		if judge(s.ev.Quote) {
			t.Fatalf("bit %d of byte %d does not count", bit%8, bit/8)
		}
		s.ev.Quote[bit/8] ^= 1 << (bit % 8)
	}
}
