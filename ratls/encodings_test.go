package ratls_test

import (
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"math/big"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/ratls"
)

// Both of the reference's encodings travel in the extension and are verified.
func TestBothEncodings(t *testing.T) {
	e := newTEE(t, 1)
	v2 := tee{e.hw, must(e.hw.Boot(t.Context(), simtee.Boot{Name: "v2", AppID: cvm.AppID{7}, Version: 2, Phase: claim.PhaseRunning}))(t)}
	for name, tc := range map[string]struct {
		tee
		encoding attest.Encoding
		first    byte // of the extension's value
	}{
		"V0, chosen":                           {e, attest.EncodingAuto, 0},
		"V0":                                   {e, attest.EncodingV0, 0},
		"V1":                                   {e, attest.EncodingV1, 0x83},
		"V1, chosen for events with digest V2": {v2, attest.EncodingAuto, 0x83},
	} {
		k := key(t)
		ev := must(tc.guest.Evidence(t.Context(), ratls.ReportData(spki(t, k))))(t)
		ev.Encoding = tc.encoding
		c := must(ratls.NewCertificate(k, ev, template("x", ratls.Extensions{})))(t)
		got := must(ratls.ParseExtensions(c.Leaf))(t).Attestation
		if got[0] != tc.first {
			t.Errorf("%s: begins with %#x", name, got[0])
		}
		if _, err := shake(t, serve(c), ratls.ClientConfig(nil, tc.verify, time.Now)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// legacyCert is what old images show: the quote and the JSON event log in
// extensions of their own.
func legacyCert(t *testing.T, e tee, quote, log []byte) *x509.Certificate {
	t.Helper()
	k := key(t)
	var ext []pkix.Extension
	for n, v := range map[int][]byte{1: quote, 2: log} {
		if v != nil {
			ext = append(ext, pkix.Extension{Id: []int{1, 3, 6, 1, 4, 1, 62397, 1, n}, Value: octets(t, v)})
		}
	}
	tm := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Minute), ExtraExtensions: ext}
	der, err := x509.CreateCertificate(nil, tm, tm, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	return must(x509.ParseCertificate(der))(t)
}

func octets(t *testing.T, v []byte) []byte {
	t.Helper()
	return must(asn1.Marshal(v))(t)
}

func zipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	buf.WriteString("ELGZv1")
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// The extensions of old images are read as the reference reads them.
func TestLegacyExtensions(t *testing.T) {
	e := newTEE(t, 1)
	ev := must(e.guest.Evidence(t.Context(), [64]byte{5}))(t)
	log := must(json.Marshal(ev.EventLog))(t)
	big := must(json.Marshal(ev.EventLog))(t)
	for len(big) <= 16<<10 {
		big = append(big, make([]byte, 1024)...)
	}
	for name, tc := range map[string]struct {
		quote, log []byte
		code       cvm.Code // "" accepts
		reason     string
	}{
		"plain":                  {ev.Quote, log, "", ""},
		"compressed":             {ev.Quote, zipped(t, log), "", ""},
		"no event log":           {ev.Quote, nil, cvm.Invalid, "attestation-missing"},
		"no quote":               {nil, log, cvm.Unauthenticated, "attestation-missing"},
		"too large when opened":  {ev.Quote, zipped(t, big), cvm.Invalid, ""},
		"not gzip":               {ev.Quote, []byte("ELGZv1x"), cvm.Invalid, ""},
		"bytes after the stream": {ev.Quote, append(zipped(t, log), 0), cvm.Invalid, ""},
		"two streams":            {ev.Quote, append(zipped(t, log), zipped(t, nil)[6:]...), cvm.Invalid, ""},
		"truncated stream":       {ev.Quote, zipped(t, log)[:60], cvm.Invalid, ""},
		"no JSON":                {ev.Quote, []byte("x"), cvm.Invalid, ""},
		"truncated quote":        {ev.Quote[:600], log, cvm.Invalid, ""},
	} {
		got, _, err := ratls.FromCertificate(legacyCert(t, e, tc.quote, tc.log))
		if tc.code != "" {
			if cvm.CodeOf(err) != tc.code || cvm.ReasonOf(err) != tc.reason {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || !bytes.Equal(got.Quote, ev.Quote) || got.ReportData != ev.ReportData || len(got.RuntimeEvents) != len(ev.RuntimeEvents) || len(got.EventLog) != len(ev.EventLog) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
