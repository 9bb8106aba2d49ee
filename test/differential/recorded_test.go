package differential

import (
	"bytes"
	"encoding/hex"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tdxtesting "github.com/google/go-tdx-guest/testing"
	"github.com/google/go-tdx-guest/testing/testdata"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/tdx"
)

// intel admits the pinned root of genuine TDX.
func intel(spki [32]byte) bool { return spki == attest.IntelRoots()[0].SPKI }

// recordedSet is Intel's collateral as go-tdx-guest's tests keep it.
func recordedSet(t *testing.T, tcbInfo []byte) collateral.Set {
	t.Helper()
	chain := func(h map[string][]string) []byte {
		for _, v := range h {
			text, err := url.QueryUnescape(v[0])
			if err != nil {
				t.Fatal(err)
			}
			return []byte(text)
		}
		t.Fatal("no issuer chain")
		return nil
	}
	return collateral.Set{
		TCBInfo: tcbInfo, TCBInfoIssuerChain: chain(tdxtesting.TcbInfoHeader), QEIdentity: testdata.QeIdentityBody,
		QEIdentityIssuerChain: chain(tdxtesting.QeIdentityHeader), RootCRL: testdata.RootCrlBody, PCKCRL: testdata.PckCrlBody,
		PCKCRLIssuerChain: chain(tdxtesting.PckCrlHeader),
	}
}

// moduleFile reads a file of go-tdx-guest's test data from the module cache.
func moduleFile(t *testing.T, name string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/google/go-tdx-guest")
	out, err := cmd.Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Skipf("SKIPPED: %s is not compared: the module cache does not hold go-tdx-guest: %v", name, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "testing", "testdata", name))
	if err != nil {
		t.Skipf("SKIPPED: %s is not compared: %v", name, err)
	}
	return b
}

// recordedV4 is the version 4 quote without the words that its owners wrote after it.
func recordedV4(t *testing.T) []byte {
	t.Helper()
	i := strings.LastIndex(string(testdata.RawQuote), "\nextra bytes")
	if i < 0 {
		t.Fatal("the recorded quote has no words after it any more")
	}
	return testdata.RawQuote[:i]
}

// recorded is what ours must say of a quote from a real host.
type recorded struct {
	name        string
	quote       []byte
	set         collateral.Set
	at          time.Time
	version     uint16
	size        int    // without padding
	fmspc, svn  string // hex; svn is TEE_TCB_SVN's first three bytes
	mrtd        string // its beginning
	attrs, xfam uint64
	fails       []string // of the vendor's checks, with this collateral at this time
}

// The vendor's key stands behind each of them. DO NOT CHANGE.
func recordings(t *testing.T) []recorded {
	july, february := time.Date(2023, 7, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 2, 15, 0, 0, 0, 0, time.UTC)
	return []recorded{
		{"SPR E4, with Intel's collateral of its day", recordedV4(t), recordedSet(t, testdata.TcbInfoBody), july, 4, 4935, "50806f000000", "030004", "6363b804", 1 << 30, 0x61ae7,
			[]string{claim.TCBMatch}}, // newer than any level that was recorded with it
		{"SPR E4, three years later", recordedV4(t), recordedSet(t, testdata.TcbInfoBody), february, 4, 4935, "50806f000000", "030004", "6363b804", 1 << 30, 0x61ae7,
			[]string{claim.CollateralChain, claim.CRLFresh}}, // Intel's signer of then ended in 2025
		{"TD 1.5, version 5, with lists of 2023", testdata.RawQuoteV5, recordedSet(t, testdata.TcbInfoBodyV5), february, 5, 5006, "90c06f000000", "0b0104", "7348651a", 1 << 28, 0x602e7,
			[]string{claim.CollateralChain, claim.CRLFresh}},
		{"COS 113", moduleFile(t, filepath.Join("ccel", "cos-113-tdx-quote.dat")), collateral.Set{}, february, 4, 4935, "00806f050000", "040107", "dae67181", 1 << 28, 0x600e7,
			[]string{claim.CollateralParse}}, // none was recorded
	}
}

func TestRecordedQuotes(t *testing.T) {
	for _, tc := range recordings(t) {
		t.Run(tc.name, func(t *testing.T) {
			rec := &claim.Recorder{}
			res := tdx.Verify(tc.quote, tc.set, intel, tc.at, rec)
			if !rec.Passed(tdx.Genuine()...) {
				t.Fatalf("not genuine: %+v", rec.Checks())
			}
			b := res.Quote.Body
			if res.Quote.Version != tc.version || res.Quote.Size() != tc.size || hex.EncodeToString(res.PCK.FMSPC[:]) != tc.fmspc ||
				hex.EncodeToString(b.TEETCBSVN[:3]) != tc.svn || !strings.HasPrefix(b.MRTD.String(), tc.mrtd) || b.TDAttributes != tc.attrs || b.XFAM != tc.xfam {
				t.Errorf("version %d, %d bytes, FMSPC %x, SVN %x, MRTD %s, attributes %#x, XFAM %#x",
					res.Quote.Version, res.Quote.Size(), res.PCK.FMSPC, b.TEETCBSVN[:3], b.MRTD.String()[:8], b.TDAttributes, b.XFAM)
			}
			for _, c := range rec.Checks() {
				if (c.Verdict == claim.Failed) != slices.Contains(tc.fails, c.Name) {
					t.Errorf("%s %s: %s", c.Name, c.Verdict, c.Reason)
				}
			}
		})
	}
	rec := &claim.Recorder{}
	if tdx.Verify(testdata.RawQuote, collateral.Set{}, intel, noon(), rec); rec.Passed(claim.QuoteParse) {
		t.Error("words after a quote are accepted")
	}
}

// The firmware's log of the COS machine replays to the registers of its quote.
func TestRecordedCCEL(t *testing.T) {
	events, err := eventlog.ParseCCEL(moduleFile(t, filepath.Join("ccel", "ccel_data.dat")))
	if err != nil {
		t.Fatal(err)
	}
	q, err := tdx.ParseQuote(moduleFile(t, filepath.Join("ccel", "cos-113-tdx-quote.dat")))
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != 43 {
		t.Errorf("%d events", len(events))
	}
	for i := range uint32(3) {
		if mr, ok := eventlog.ReplayBoot(events, i); !ok || mr != q.Body.RTMR[i] {
			t.Errorf("RTMR%d replays to %s, quoted %s", i, mr, q.Body.RTMR[i])
		}
	}
	if nonce := moduleFile(t, filepath.Join("ccel", "nonce.dat")); !bytes.Equal(nonce, q.Body.ReportData[:]) {
		t.Errorf("report data %x is not the nonce", q.Body.ReportData)
	}
}
