package netplane

import (
	"net/netip"
	"testing"
)

// DO NOT CHANGE: guests of the reference keep their addresses by this rule. The
// digests are sha256sum's.
func TestNamesAreFrozen(t *testing.T) {
	const id = "0b7d5f86-6c55-4b6a-9d0a-7a8f54c6d001" // 0792023fd3cf..., with ":1" 90b24ee90689...
	for i, want := range []string{"06:92:02:3f:d3:cf", "92:b2:4e:e9:06:89"} {
		if got := MAC(id, i).String(); got != want {
			t.Errorf("card %d: %s, want %s", i, got, want)
		}
	}
	if a, b := TapName(id, 0), TapName(id, 1); a != "pt0792023fd3cf" || b != "pt0792023fd3cf1" || len(TapName(id, maxNICs-1)) > 15 {
		t.Errorf("%s %s", a, b)
	}
	if a := eui64(netip.MustParsePrefix("fd00:77::1/64"), MAC(id, 0)); a != netip.MustParseAddr("fd00:77::492:2ff:fe3f:d3cf") {
		t.Errorf("%s", a)
	}
}
