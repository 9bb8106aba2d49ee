package collateral_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest/collateral"
)

// edit is a change to a statement and the words that must explain the refusal.
type edit struct{ old, repl, words string }

func refuses(t *testing.T, good []byte, parse func([]byte) error, edits []edit) {
	t.Helper()
	if err := parse(good); err != nil {
		t.Fatal(err)
	}
	for _, e := range edits {
		bad := strings.Replace(string(good), e.old, e.repl, 1)
		if bad == string(good) {
			t.Fatalf("%s is not in the statement", e.old)
		}
		if err := parse([]byte(bad)); err == nil || !strings.Contains(err.Error(), e.words) {
			t.Errorf("%.80s instead of %.80s: %v, want %q", e.repl, e.old, err, e.words)
		}
	}
}

// many is a JSON array of n times the element.
func many(element string, n int) string {
	return "[" + strings.Repeat(element+",", n-1) + element + "]"
}

func TestTCBInfoRefusalsByName(t *testing.T) {
	const (
		levels   = `"tcbLevels":[{"tcb":{"pcesvn"`
		platform = `"tcbStatus":"UpToDate"}],"tcbType"`
		module   = `"tcbStatus":"UpToDate"}]}],"version"`
	)
	good := set(t).TCBInfo
	inner := string(good)
	// The order of members is json.Marshal's: by name.
	i, j := strings.Index(inner, levels), strings.Index(inner, `,"tcbType"`)
	level := strings.TrimSuffix(strings.TrimPrefix(inner[i:j], `"tcbLevels":[`), "]")
	m := inner[strings.Index(inner, `"tdxModuleIdentities":[`)+len(`"tdxModuleIdentities":[`) : strings.Index(inner, `],"version"`)]
	parse := func(b []byte) error { _, err := collateral.ParseTCBInfo(b); return err }
	refuses(t, good, parse, []edit{
		{inner[i:j], `"tcbLevels":[]`, "tcbLevels missing"},
		{inner[i:j], `"tcbLevels":` + many(level, 257), "too many"},
		{m, strings.Trim(many(m, 257), "[]"), "too many"},
		{m, m + "," + strings.Replace(m, "TDX_01", "tdx_01", 1), "appears twice"},
		{`"id":"TDX"`, `"id":"SGX"`, "want TDX"}, {`"version":3`, `"version":4`, "version 4"}, {`"tcbType":0`, `"tcbType":1`, "type 1"},
		{`"version":3`, `"version":"3"`, "tcbInfo:"}, {`"tcbEvaluationDataNumber":17`, `"tcbEvaluationDataNumber":0`, "missing"},
		{`"tdxModule":`, `"noModule":`, "missing"},
		{`"issueDate":"2`, `"issueDate":"x`, "want two times"}, {`"nextUpdate":"2`, `"nextUpdate":"x`, "want two times"},
		{`"issueDate":"2026`, `"issueDate":"2036`, "in order"},
		{`"fmspc":"50`, `"fmspc":"5x`, "fmspc"}, {`"pceId":"00`, `"pceId":"`, "pceId"},
		{`"tdxtcbcomponents":[`, `"tdxtcbcomponents":[{"svn":0},`, "16 TDX components"},
		{`"sgxtcbcomponents":[`, `"sgxtcbcomponents":[{"svn":0},`, "16 SGX"},
		{`"pcesvn":11,`, ``, "PCE SVN"}, {`"pcesvn":11`, `"pcesvn":-1`, "pcesvn out of range"}, {`"pcesvn":11`, `"pcesvn":65536`, "pcesvn out of range"},
		{`"tdxtcbcomponents":[{"svn":0}`, `"tdxtcbcomponents":[{"svn":-1}`, "component 0 out of range"},
		{`"tdxtcbcomponents":[{"svn":0}`, `"tdxtcbcomponents":[{"svn":256}`, "component 0 out of range"},
		{`"sgxtcbcomponents":[{"svn":7}`, `"sgxtcbcomponents":[{"svn":-1}`, "component 0 out of range"},
		{`"sgxtcbcomponents":[{"svn":7}`, `"sgxtcbcomponents":[{"svn":256}`, "component 0 out of range"},
		{platform, `"advisoryIDs":` + many(`"a"`, 257) + `,` + platform, "want 16 SGX"},
		{platform, `"advisoryIDs":"INTEL-SA-1",` + platform, "tcbInfo:"},
		{module, `"advisoryIDs":` + many(`"a"`, 257) + `,` + module, "proper isvsvn"},
		{`"isvsvn":5`, `"isvsvn":-1`, "proper isvsvn"}, {`"isvsvn":5`, `"isvsvn":65536`, "proper isvsvn"}, {`"isvsvn":5`, `"other":5`, "proper isvsvn"},
		{`"tcbLevels":[{"tcb":{"isvsvn":5}`, `"tcbLevels":[],"x":[{"tcb":{"isvsvn":5}`, "0 levels"},
		{`"attributes":"00`, `"attributes":"0x`, "attributes"},
		{`"tcbType":0`, `"tcbType":null`, "an integer"}, {`"tcbType":0`, `"tcbType":0.0`, "an integer"}, {`"tcbType":0`, `"tcbType":0e1`, "an integer"},
		{`"tcbType":0`, `"tcbType":99999999999999999999`, "an integer"}, {`"fmspc":"`, `"FMSPC":"`, "fmspc"},
		{`"id":"TDX"`, `"id":null`, "a string"}, {`"tdxtcbcomponents":[{"svn":0}`, `"tdxtcbcomponents":[{"x":0}`, "component 0 out of range"},
		{`"sgxtcbcomponents":[{"svn":7}`, `"sgxtcbcomponents":[7`, "want {"}, {`"tdxModuleIdentities":[`, `"tdxModuleIdentities":null,"x":[`, "want ["},
	})
	refuses(t, good, parse, []edit{
		{`"tdxModuleIdentities":[{"attributes":"00`, `"tdxModuleIdentities":[{"attributes":"`, "tdxModuleIdentities: attributes"},
		{`"tdxModule":{"attributes":"00`, `"tdxModule":{"attributes":"`, "tdxModule: attributes"},
	})
}

func TestQEIdentityRefusals(t *testing.T) {
	good := set(t).QEIdentity
	inner := string(good)
	levels := inner[strings.Index(inner, `"tcbLevels":`):strings.Index(inner, `,"version"`)]
	level := strings.TrimSuffix(strings.TrimPrefix(levels, `"tcbLevels":[`), "]")
	parse := func(b []byte) error { _, err := collateral.ParseQEIdentity(b); return err }
	refuses(t, good, parse, []edit{
		{`"enclaveIdentity":`, `"tcbInfo":`, "exactly the members"},
		{`"id":"TD_QE"`, `"id":"QE"`, "want TD_QE"}, {`"version":2`, `"version":3`, "version 3"}, {`"version":2`, `"version":"2"`, "enclaveIdentity:"},
		{`"tcbEvaluationDataNumber":17`, `"tcbEvaluationDataNumber":0`, "evaluation number"}, {`"isvprodid":2,`, ``, "isvprodid"},
		{`"isvprodid":2`, `"isvprodid":-1`, "isvprodid"}, {`"isvprodid":2`, `"isvprodid":65536`, "isvprodid"},
		{`"issueDate":"2`, `"issueDate":"x`, "want two times"}, {`"nextUpdate":"2`, `"nextUpdate":"x`, "want two times"},
		{`"mrsigner":"`, `"mrsigner":"00`, "mrsigner"}, {`"miscselect":"0`, `"miscselect":"`, "miscselect"}, {`"miscselectMask":"F`, `"miscselectMask":"`, "miscselectMask"},
		{`"attributes":"1`, `"attributes":"x`, "attributes"}, {`"attributesMask":"FB`, `"attributesMask":"`, "attributesMask"},
		{levels, `"tcbLevels":[]`, "0 levels"}, {levels, `"tcbLevels":` + many(level, 257), "257 levels"},
		{`"isvsvn":4`, `"isvsvn":65536`, "proper isvsvn"}, {`"isvsvn":4`, `"isvsvn":-1`, "proper isvsvn"}, {`"isvsvn":4`, `"x":4`, "proper isvsvn"},
	})
}

func TestSignedRefusalsByName(t *testing.T) {
	good := set(t).TCBInfo
	parse := func(b []byte) error { _, err := collateral.ParseTCBInfo(b); return err }
	nested := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	refuses(t, good, parse, []edit{
		{`"tcbType":0`, `"tcbType":0,"x":` + nested(16), "nested deeper"},
		{`"tcbType":0`, `"tcbType":0,"\u0001x":1`, "not ASCII"}, {`"tcbType":0`, `"tcbType":0,"\u007fx":1`, "not ASCII"},
		{`"tcbType":0`, `"tcbType":0,"TCBTYPE":0`, "differs only in case"},
		{`{"tcbInfo":`, `{"x":1,"tcbInfo":`, "exactly the members"}, {`,"signature":"`, `,"signature":["`, "tcbInfo:"},
		{`,"signature":"`, `,"sig":"`, "exactly the members"},
	})
	if err := parse(nil); err == nil || !strings.Contains(err.Error(), "tcbInfo is missing") {
		t.Errorf("nothing: %v", err)
	}
	if err := parse(bytes.Replace(good, []byte(`"tcbType":0`), []byte(`"tcbType":0,"x":`+nested(13)), 1)); err != nil {
		t.Errorf("a member that is unknown and not too deep: %v", err)
	}
	if err := parse(append(bytes.Clone(good), bytes.Repeat([]byte{' '}, collateral.MaxBody)...)); err == nil {
		t.Error("a body over the limit is accepted")
	}
	cut := bytes.Clone(good)
	if err := parse(cut[:len(cut)-3]); err == nil {
		t.Error("a cut body is accepted")
	}
	short := bytes.Replace(good, good[len(good)-4:], []byte(`"}`), 1)
	if err := parse(short); err == nil || !strings.Contains(err.Error(), "64 bytes") {
		t.Errorf("a signature of 63 bytes: %v", err)
	}
}

func TestVerifyRawRefusals(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	msg := []byte("message")
	digest := sha256.Sum256(msg)
	der, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		t.Fatal(err)
	}
	sig := append(rs.R.FillBytes(make([]byte, 32)), rs.S.FillBytes(make([]byte, 32))...)
	if !collateral.VerifyRaw(&key.PublicKey, msg, sig) {
		t.Fatal("a good signature is refused")
	}
	padded := append(append(bytes.Clone(sig[:32]), 0), sig[32:]...) // s with a leading zero
	for name, bad := range map[string]func() bool{
		"no key":   func() bool { return collateral.VerifyRaw(nil, msg, sig) },
		"65 bytes": func() bool { return collateral.VerifyRaw(&key.PublicKey, msg, padded) },
		"empty":    func() bool { return collateral.VerifyRaw(&key.PublicKey, msg, nil) },
		"other":    func() bool { return collateral.VerifyRaw(&key.PublicKey, []byte("messagf"), sig) },
		"zeros":    func() bool { return collateral.VerifyRaw(&key.PublicKey, msg, make([]byte, 64)) },
		"r and s swap": func() bool {
			return collateral.VerifyRaw(&key.PublicKey, msg, append(bytes.Clone(sig[32:]), sig[:32]...))
		},
	} {
		if bad() {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestChainRefusalsByName(t *testing.T) {
	chain := set(t).TCBInfoIssuerChain
	one := chain[bytes.LastIndex(chain, []byte("-----BEGIN")):]
	for _, tc := range []struct {
		name, words string
		text        []byte
	}{
		{"10,000 blocks", "at most", bytes.Repeat(one, 10_000)},
		{"three where two are wanted", "more than 2", append(bytes.Clone(chain), one...)},
		{"one", "1 certificates, want 2", one},
		{"not DER", "certificate 0", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")},
		{"text", "not PEM", []byte("text")},
	} {
		if _, err := collateral.ParseChain(tc.text, 2); err == nil || !strings.Contains(err.Error(), tc.words) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.words)
		}
	}
}
