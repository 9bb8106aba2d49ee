package collateral_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/simtee"
)

func set(t testing.TB) collateral.Set {
	t.Helper()
	hw, err := simtee.New(simtee.Config{Seed: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := hw.Collateral(time.Date(2026, 11, 21, 3, 30, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBundle(t *testing.T) {
	s := set(t)
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var again collateral.Set
	if err := json.Unmarshal(b, &again); err != nil || !bytes.Equal(again.TCBInfo, s.TCBInfo) || !bytes.Equal(again.RootCRL, s.RootCRL) {
		t.Errorf("%v", err)
	}
	sum, err := collateral.Summarize(s)
	if want := time.Date(2026, 12, 21, 2, 0, 0, 0, time.UTC); err != nil || !sum.Until.Equal(want) {
		t.Errorf("%s %v", sum.Until, err)
	}
}

// Values come from the exact signed bytes; a lenient decoder would let each of
// these change them.
func TestSignedRefusals(t *testing.T) {
	good := string(set(t).TCBInfo)
	inner := good[len(`{"tcbInfo":`):strings.LastIndex(good, `,"signature"`)]
	sig := good[strings.LastIndex(good, `,"signature"`)+1 : len(good)-1]
	for name, body := range map[string]string{
		"empty": "", "null": "null", "array": "[]", "no signature": `{"tcbInfo":` + inner + `}`,
		"case variant":           `{"tcbInfo":` + inner + `,"TCBINFO":` + inner + `,` + sig + `}`,
		"only a case variant":    `{"TcbInfo":` + inner + `,` + sig + `}`,
		"repeated":               `{"tcbInfo":` + inner + `,"tcbInfo":` + inner + `,` + sig + `}`,
		"repeated signature":     `{"tcbInfo":` + inner + `,` + sig + `,` + sig + `}`,
		"another member":         good[:len(good)-1] + `,"x":1}`,
		"data after":             good + `{}`,
		"inner repeated":         strings.Replace(good, `"fmspc":`, `"FMSPC":"000000000000","fmspc":`, 1),
		"inner Unicode fold":     strings.Replace(good, `"issueDate":`, `"iſsueDate":"2020-01-01T00:00:00Z","issueDate":`, 1),
		"escaped repeat":         strings.Replace(good, `"fmspc":`, `"\u0066mspc":"000000000000","fmspc":`, 1),
		"string instead":         `{"tcbInfo":"x",` + sig + `}`,
		"short signature":        `{"tcbInfo":` + inner + `,"signature":"00"}`,
		"signature not a string": `{"tcbInfo":` + inner + `,"signature":1}`,
		"deep":                   `{"tcbInfo":` + strings.Repeat(`{"a":`, 40) + `1` + strings.Repeat(`}`, 40) + `,` + sig + `}`,
		"huge":                   `{"tcbInfo":{"a":"` + strings.Repeat("x", collateral.MaxBody) + `"},` + sig + `}`,
	} {
		if _, err := collateral.ParseTCBInfo([]byte(body)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := collateral.ParseTCBInfo([]byte(good)); err != nil {
		t.Fatal(err)
	}
}

func TestTCBInfoRefusals(t *testing.T) {
	good := string(set(t).TCBInfo)
	for _, tc := range [][2]string{
		{`"id":"TDX"`, `"id":"SGX"`}, {`"version":3`, `"version":2`}, {`"tcbType":0`, `"tcbType":1`}, {`"fmspc":"50`, `"fmspc":"5`},
		{`"pceId":"0000"`, `"pceId":"00"`}, {`"issueDate":"2026`, `"issueDate":"2036`}, {`"nextUpdate":"`, `"nextUpdate":"x`},
		{`"sgxtcbcomponents":[{"svn":7},`, `"sgxtcbcomponents":[`}, {`{"svn":7}`, `{"svn":256}`}, {`{"svn":7}`, `{"svn":-1}`},
		{`"pcesvn":11`, `"pcesvn":65536`}, {`"pcesvn":11,`, ``}, {`"isvsvn":5`, `"isvsvn":-5`}, {`"tdxModule":{`, `"tdxModuleX":{`},
		{`"tcbEvaluationDataNumber":17`, `"tcbEvaluationDataNumber":0`},
	} {
		bad := strings.Replace(good, tc[0], tc[1], 1)
		if bad == good {
			t.Fatalf("%s is not in the TCB info", tc[0])
		}
		if _, err := collateral.ParseTCBInfo([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", tc[1])
		}
	}
}

func TestChainIsCanonical(t *testing.T) {
	chain := string(set(t).TCBInfoIssuerChain)
	for name, text := range map[string]string{"as given": chain, "no last line end": chain[:len(chain)-1], "NUL": chain + "\x00"} {
		if c, err := collateral.ParseChain([]byte(text), 2); err != nil || len(c) != 2 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "junk before": "x\n" + chain, "junk after": chain + "x", "junk between": strings.Replace(chain, "-----\n-----BEGIN", "-----\nx\n-----BEGIN", 1),
		"CRLF": strings.ReplaceAll(chain, "\n", "\r\n"), "two NULs": chain + "\x00\x00", "blank line": chain + "\n", "three": chain + chain[:strings.Index(chain, "-----END")] + "-----END CERTIFICATE-----\n",
		"other type": strings.ReplaceAll(chain, "CERTIFICATE", "X509 CRL"), "one": chain[strings.LastIndex(chain, "-----BEGIN"):],
		"header": strings.Replace(chain, "CERTIFICATE-----\n", "CERTIFICATE-----\nA: b\n\n", 1),
	} {
		if _, err := collateral.ParseChain([]byte(text), 2); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParseTCBInfo(f *testing.F) {
	f.Add(set(f).TCBInfo)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := collateral.ParseTCBInfo(b)
		if err != nil {
			return
		}
		if !bytes.Contains(b, v.Bytes) {
			t.Fatal("signed bytes are not those of the body")
		}
		if err := collateral.Alike(true, v.Bytes); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzParseQEIdentity(f *testing.F) {
	f.Add(set(f).QEIdentity)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := collateral.ParseQEIdentity(b)
		if err != nil {
			return
		}
		if !bytes.Contains(b, v.Bytes) {
			t.Fatal("signed bytes are not those of the body")
		}
		if err := collateral.Alike(false, v.Bytes); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzParseCRL(f *testing.F) {
	f.Add(set(f).PCKCRL)
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = collateral.ParseCRL(b) })
}

func FuzzParseChain(f *testing.F) {
	f.Add(set(f).TCBInfoIssuerChain)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := collateral.ParseChain(b, 2); err == nil && len(c) != 2 {
			t.Fatal("wrong number")
		}
	})
}

// What is accepted as a certificate's PEM is what encoding/pem writes for it, and all of that is.
func FuzzCanonicalPEM(f *testing.F) {
	chain := set(f).TCBInfoIssuerChain
	one := chain[bytes.LastIndex(chain, []byte("-----BEGIN")):]
	for _, b := range [][]byte{one, one[:len(one)-1], append(bytes.Clone(one), 0), chain,
		bytes.Replace(one, []byte("\n"), []byte("\r\n"), 2), bytes.Replace(one, []byte("E-----\nM"), []byte("E-----\n\nM"), 1)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		want, whole := false, b
		b = bytes.TrimSuffix(b, []byte{0})
		if block, rest := pem.Decode(b); block != nil && len(rest) == 0 && block.Type == "CERTIFICATE" {
			text := pem.EncodeToMemory(block)
			_, err := x509.ParseCertificate(block.Bytes)
			want = err == nil && len(block.Headers) == 0 && (bytes.Equal(text, b) || bytes.Equal(text[:len(text)-1], b))
		}
		if _, err := collateral.ParseChain(whole, 1); (err == nil) != want {
			t.Fatalf("%v, encoding/pem says %v", err, want)
		}
	})
}
