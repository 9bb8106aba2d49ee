package fetch

import (
	"bytes"
	"net/url"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
)

// FuzzFile: no panic, and what is accepted encodes to the same bytes.
func FuzzFile(f *testing.F) {
	p := &part{key: "intel/x/qe", body: []byte("body"), chain: []byte("chain"), from: "https://h", fetched: time.Date(2026, 11, 21, 3, 0, 0, 1, time.UTC)}
	b, err := p.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(bytes.Replace(b, []byte(`"chain":5`), []byte(`"chain":-1`), 1))
	f.Add(bytes.Replace(b, []byte(`"body":4`), []byte(`"BODY":4`), 1))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePart(b)
		if err != nil {
			return
		}
		again, err := p.encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q: %v", again, err)
		}
	})
}

// The file of a statement, byte for byte. DO NOT CHANGE: caches of other versions
// are read too.
func TestFileVector(t *testing.T) {
	const want = `{"format":"phala collateral statement 1","key":"intel/x/qe","from":"https://h","fetched":"2026-11-21T03:00:00.000000001Z","chain":5,"body":4,` +
		`"sha256":"38980a3925d3b4e054b30e6168096b3801cd1430f3cef44bf716ee612e7fc953"}` + "\nchainbody"
	p := &part{key: "intel/x/qe", body: []byte("body"), chain: []byte("chain"), from: "https://h", fetched: time.Date(2026, 11, 21, 3, 0, 0, 1, time.UTC)}
	b, err := p.encode()
	if err != nil || string(b) != want {
		t.Errorf("%s\n%v", b, err)
	}
	if _, err := parsePart([]byte(want)); err != nil {
		t.Error(err)
	}
}

// FuzzChainHeader: no panic, bounded, and what comes out is canonical: it comes out
// of itself again.
func FuzzChainHeader(f *testing.F) {
	const cert = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
	f.Add(url.PathEscape(cert + cert))
	f.Add(url.QueryEscape(cert))
	f.Add(url.PathEscape("\r\n" + cert + "junk"))
	f.Add("%zz")
	f.Fuzz(func(t *testing.T, v string) {
		out, err := decodeChain(v)
		if err != nil {
			return
		}
		if len(out) == 0 || len(out) > 2*collateral.MaxChain {
			t.Errorf("%d bytes", len(out))
		}
		again, err := decodeChain(url.PathEscape(string(out)))
		if err != nil || !bytes.Equal(again, out) {
			t.Errorf("%q, then %q: %v", out, again, err)
		}
	})
}

// FuzzListEncoding: no panic, and a list that was unpacked is left as it is.
func FuzzListEncoding(f *testing.F) {
	f.Add([]byte{0x30, 0})
	f.Add([]byte("3000"))
	f.Add([]byte(`"3000"` + "\n"))
	f.Add([]byte("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := decodeCRL(b)
		if err != nil || len(out) == 0 || out[0] != 0x30 {
			return
		}
		if again, err := decodeCRL(out); err != nil || !bytes.Equal(again, out) {
			t.Errorf("%x, then %x: %v", out, again, err)
		}
	})
}
