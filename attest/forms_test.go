package attest_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/cvm"
)

// snpEvidence has every field of the SEV-SNP forms.
func snpEvidence() attest.Evidence {
	return attest.Evidence{Variant: cvm.VariantSNP, Report: []byte{1, 2, 200}, CertChain: [][]byte{{3}, {4, 255}}, MRConfig: `{"version":3}`,
		RuntimeEvents: []eventlog.Runtime{{Name: "app-id", Payload: []byte{5}}}, ReportData: [64]byte{6}, Config: "{}"}
}

// The bytes are written down from the reference's description (dstack-core D.3). DO NOT CHANGE.
func TestSNPForms(t *testing.T) {
	rd := "06" + strings.Repeat("00", 63)
	mc := hex.EncodeToString([]byte(`{"version":3}`))
	v0 := "0003" + "0c0102c8" + "08" + "0403" + "0804ff" + "34" + mc + "04" + "18" + "6170702d6964" + "0405" + rd + "08" + "7b7d"
	str := func(s string) string {
		return hex.EncodeToString([]byte{0xa0 | byte(len(s))}) + hex.EncodeToString([]byte(s))
	}
	v1 := "83" + str("version") + "01" + str("platform") + "82" + str("kind") + str("sev-snp") + str("data") +
		"83" + str("report") + "930102ccc8" + str("cert_chain") + "92" + "9103" + "9204ccff" + str("mr_config") + str(`{"version":3}`) +
		str("stack") + "82" + str("kind") + str("dstack") + str("data") +
		"83" + str("report_data") + "dc0040" + rd + str("runtime_events") + "91" + "82" + str("event") + str("app-id") + str("payload") + "c40105" + str("config") + str("{}")
	for _, tc := range []struct {
		name string
		form attest.Encoding
		want string
	}{{"V0", attest.EncodingV0, v0}, {"V1", attest.EncodingV1, v1}} {
		ev := snpEvidence()
		ev.Encoding = tc.form
		b, err := ev.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(b); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
		}
		again, err := attest.ParseEvidence(b)
		if err != nil || !reflect.DeepEqual(again, ev) {
			t.Errorf("%s: %+v, %v", tc.name, again, err)
		}
		for i := range b {
			if _, err := attest.ParseEvidence(b[:i]); err == nil {
				t.Errorf("%s cut at %d is accepted", tc.name, i)
			}
		}
		if _, err := attest.ParseEvidence(append(bytes.Clone(b), 0)); err == nil {
			t.Errorf("%s with a byte after it is accepted", tc.name)
		}
	}
	auto := snpEvidence()
	if b, err := auto.Marshal(); err != nil || b[0] != 0 {
		t.Errorf("chosen form: % x, %v", b[:1], err)
	}
	auto.RuntimeEvents[0].Version = 2
	if b, err := auto.Marshal(); err != nil || b[0] != 0x83 {
		t.Errorf("V2 events: % x, %v", b[:1], err)
	}
}

// The bytes are written down from the reference's description (dstack-core D.3). DO NOT CHANGE.
func TestNitroForms(t *testing.T) {
	rd := "06" + strings.Repeat("00", 63)
	str := func(s string) string {
		return hex.EncodeToString([]byte{0xa0 | byte(len(s))}) + hex.EncodeToString([]byte(s))
	}
	v1 := func(kind, member string) string {
		return "83" + str("version") + "01" + str("platform") + "82" + str("kind") + str(kind) + str("data") + "81" + str(member) + "9301ccff02" +
			str("stack") + "82" + str("kind") + str("dstack") + str("data") +
			"83" + str("report_data") + "dc0040" + rd + str("runtime_events") + "91" + "82" + str("event") + str("app-id") + str("payload") + "c40105" + str("config") + str("{}")
	}
	tail := "04" + "18" + "6170702d6964" + "0405" + rd + "08" + "7b7d"
	for _, tc := range []struct {
		variant string
		form    attest.Encoding
		want    string
	}{
		{claim.VariantNitroEnclave, attest.EncodingV0, "0002" + "0c01ff02" + tail},
		{claim.VariantNitroTPM, attest.EncodingV0, "0004" + "0c01ff02" + tail},
		{claim.VariantNitroEnclave, attest.EncodingV1, v1("nitro-enclave", "nsm_quote")},
		{claim.VariantNitroTPM, attest.EncodingV1, v1("aws-nitro-tpm", "attestation_doc")},
	} {
		ev := nitroEvidence(tc.variant)
		ev.Encoding = tc.form
		b, err := ev.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(b); got != tc.want {
			t.Errorf("%s %d:\n got %s\nwant %s", tc.variant, tc.form, got, tc.want)
		}
		again, err := attest.ParseEvidence(b)
		if err != nil || !reflect.DeepEqual(again, ev) {
			t.Errorf("%s %d: %+v, %v", tc.variant, tc.form, again, err)
		}
		for i := range b {
			if _, err := attest.ParseEvidence(b[:i]); err == nil {
				t.Errorf("%s %d cut at %d is accepted", tc.variant, tc.form, i)
			}
		}
	}
}

// nitroEvidence has every field of the forms of AWS.
func nitroEvidence(variant string) attest.Evidence {
	return attest.Evidence{Variant: variant, Document: []byte{1, 255, 2}, RuntimeEvents: []eventlog.Runtime{{Name: "app-id", Payload: []byte{5}}}, ReportData: [64]byte{6}, Config: "{}"}
}

// A pod's payload is kept only where report_data is its hash: nothing rests on
// words that the quote does not cover.
func TestPodForm(t *testing.T) {
	payload := `{"pod":1}`
	ev := attest.Evidence{Variant: cvm.VariantTDX, Quote: []byte{1}, PodPayload: &payload, ReportData: sha512.Sum512([]byte("app-data:" + payload))}
	b, err := ev.Marshal()
	if err != nil || b[0] != 0x83 || !bytes.Contains(b, []byte("report_data_payload")) {
		t.Fatalf("% x, %v", b, err)
	}
	again, err := attest.ParseEvidence(b)
	if err != nil || again.PodPayload == nil || *again.PodPayload != payload {
		t.Fatalf("%+v, %v", again, err)
	}
	other := bytes.Replace(b, []byte(`{"pod":1}`), []byte(`{"pod":2}`), 1)
	if _, err := attest.ParseEvidence(other); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("a payload that the quote does not cover: %v", err)
	}
	ev.Encoding = attest.EncodingV0
	if _, err := ev.Marshal(); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("V0 has no place for the payload: %v", err)
	}
}

// What is not read is refused by its name, and a form never loses a part silently.
func TestFormRefusals(t *testing.T) {
	gcp := "83a776657273696f6e01a8706c6174666f726d82a46b696e64a7" + hex.EncodeToString([]byte("gcp-tdx")) + "a464617461"
	for _, h := range []string{"0001", gcp} {
		b, _ := hex.DecodeString(h)
		if _, err := attest.ParseEvidence(b); cvm.CodeOf(err) != cvm.Unsupported || cvm.ReasonOf(err) != "tee-unsupported" || !strings.Contains(err.Error(), "gcp-tdx") {
			t.Errorf("%s: %v", h, err)
		}
	}
	if _, err := attest.ParseEvidence([]byte{0, 5}); cvm.CodeOf(err) != cvm.Unsupported {
		t.Errorf("V0 variant 5: %v", err)
	}
	for name, spoil := range map[string]func(*attest.Evidence){
		"a quote in SNP evidence":      func(e *attest.Evidence) { e.Quote = []byte{1} },
		"an event log in SNP evidence": func(e *attest.Evidence) { e.EventLog = []eventlog.Event{{IMR: 3}} },
		"a report in TDX evidence":     func(e *attest.Evidence) { e.Variant, e.CertChain, e.MRConfig = cvm.VariantTDX, nil, "" },
		"certificates in TDX evidence": func(e *attest.Evidence) { e.Variant, e.Report, e.MRConfig = "", nil, "" },
		"a document in TDX evidence":   func(e *attest.Evidence) { e.Variant, e.Report, e.CertChain = "", nil, nil },
		"a report too large":           func(e *attest.Evidence) { e.Report = make([]byte, 16<<10+1) },
		"too many certificates":        func(e *attest.Evidence) { e.CertChain = make([][]byte, 9) },
		"a certificate too large":      func(e *attest.Evidence) { e.CertChain[0] = make([]byte, 16<<10+1) },
		"a document too large":         func(e *attest.Evidence) { e.MRConfig = strings.Repeat("x", 1<<20+1) },
		"AWS's document in SNP's":      func(e *attest.Evidence) { e.Document = []byte{1} },
		"AWS's document in TDX's":      func(e *attest.Evidence) { *e = attest.Evidence{Document: []byte{1}} },
		"a report in AWS evidence":     func(e *attest.Evidence) { e.Variant = claim.VariantNitroEnclave },
		"a quote in AWS evidence":      func(e *attest.Evidence) { *e = attest.Evidence{Variant: claim.VariantNitroTPM, Quote: []byte{1}} },
		"a long AWS document": func(e *attest.Evidence) {
			*e = attest.Evidence{Variant: claim.VariantNitroTPM, Document: make([]byte, 32<<10+1)}
		},
	} {
		ev := snpEvidence()
		spoil(&ev)
		if _, err := ev.Marshal(); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	ev := snpEvidence()
	ev.Variant = "dstack-other"
	if _, err := ev.Marshal(); cvm.CodeOf(err) != cvm.Unsupported {
		t.Errorf("unknown variant: %v", err)
	}
}
