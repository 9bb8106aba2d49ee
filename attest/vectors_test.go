package attest_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/tdx"
)

// vector reads a recorded file that is not part of the repository: from
// $PHALA_VECTORS, or ../shared/vectors beside some parent directory.
func vector(t testing.TB, name string) []byte {
	t.Helper()
	dirs := []string{os.Getenv("PHALA_VECTORS")}
	if dirs[0] == "" {
		dirs = nil
		wd, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for d := wd; d != filepath.Dir(d); d = filepath.Dir(d) {
			dirs = append(dirs, filepath.Join(filepath.Dir(d), "shared", "vectors"))
		}
	}
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(d, name))
		if err == nil {
			return b
		}
		if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	t.Skipf("SKIPPED: the recorded vector %s is not here (set PHALA_VECTORS)", name)
	return nil
}

func liteVector(t testing.TB) []byte {
	t.Helper()
	var doc struct {
		Attestation string `json:"attestation"`
	}
	if err := json.Unmarshal(vector(t, "tdx-lite-attestation.json"), &doc); err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(doc.Attestation)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Recorded on real machines; what they must say is from the reference. DO NOT CHANGE.
func TestRecordedEvidence(t *testing.T) {
	for _, tc := range []struct {
		name                   string
		raw                    func(testing.TB) []byte
		events, runtime        int
		app, compose, instance string
	}{
		{"simulator", func(t testing.TB) []byte { return vector(t, "simulator/attestation.bin") }, 33, 9,
			"5bb4ff9a3837357f19dc176407a5709c62eb6c56", "c143116fef3940e7f776bfc0919c256232ae5338a6e948c96b711e0b2383483a", "1691ed1b47506cad7d08834668691d88246f5b1f"},
		{"lite", liteVector, 12, 9, "", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			raw := tc.raw(t)
			ev, err := attest.ParseEvidence(raw)
			if err != nil {
				t.Fatal(err)
			}
			again, err := ev.Marshal()
			if err != nil || !bytes.Equal(again, raw) {
				t.Fatalf("does not re-encode to the same bytes: %v", err)
			}
			if len(ev.EventLog) != tc.events || len(ev.RuntimeEvents) != tc.runtime {
				t.Fatalf("%d events, %d runtime events", len(ev.EventLog), len(ev.RuntimeEvents))
			}
			q, err := tdx.ParseQuote(ev.Quote)
			if err != nil {
				t.Fatal(err)
			}
			replays(t, ev, q.Body)
			l, err := eventlog.ReadLaunch(ev.RuntimeEvents)
			if err != nil {
				t.Fatal(err)
			}
			if l.Phase != claim.PhaseRunning || l.StorageFS != "zfs" {
				t.Errorf("%+v", l)
			}
			if tc.app != "" && (l.AppID.String() != tc.app || l.ComposeHash.String() != tc.compose || l.InstanceID.String() != tc.instance) {
				t.Errorf("%+v", l)
			}
		})
	}
}

func replays(t *testing.T, ev attest.Evidence, b tdx.Body) {
	t.Helper()
	mr, err := eventlog.ReplayRuntime(ev.RuntimeEvents)
	if err != nil || mr != b.RTMR[3] {
		t.Errorf("RTMR3 replays to %s, quoted %s: %v", mr, b.RTMR[3], err)
	}
	if err := eventlog.CheckRuntime(ev.EventLog, ev.RuntimeEvents); err != nil {
		t.Error(err)
	}
	if len(ev.EventLog) < 20 {
		return // stripped
	}
	for i := range uint32(3) {
		if mr, ok := eventlog.ReplayBoot(ev.EventLog, i); !ok || mr != b.RTMR[i] {
			t.Errorf("RTMR%d replays to %s, quoted %s", i, mr, b.RTMR[i])
		}
	}
}

// A V0 attestation says the same in V1.
func TestRecordedEvidenceInV1(t *testing.T) {
	ev, err := attest.ParseEvidence(vector(t, "simulator/attestation.bin"))
	if err != nil {
		t.Fatal(err)
	}
	ev.Encoding = attest.EncodingV1
	b, err := ev.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if b[0] != 0x83 {
		t.Errorf("first byte %#x", b[0])
	}
	again, err := attest.ParseEvidence(b)
	if err != nil {
		t.Fatal(err)
	}
	if again.Encoding != attest.EncodingV1 || again.Config != ev.Config || !bytes.Equal(again.Quote, ev.Quote) || len(again.EventLog) != len(ev.EventLog) {
		t.Error("V1 differs")
	}
}

// The lite fixture of a real machine: MRTD and RTMR0-2 are recomputed from its
// vm_config, and every signature up to Intel's root holds. Its collateral was not
// recorded, which is the only thing a verification may miss.
func TestRecordedLite(t *testing.T) {
	ev, err := attest.ParseEvidence(liteVector(t))
	if err != nil {
		t.Fatal(err)
	}
	q, err := tdx.ParseQuote(ev.Quote)
	if err != nil {
		t.Fatal(err)
	}
	p := measure.Policy{Variants: []string{measure.VariantLite}, AnyACPI: true}
	got, err := measure.Expected(p, ev.Config, ev.EventLog)
	if err != nil {
		t.Fatal(err)
	}
	if got.Registers.MRTD != q.Body.MRTD || !slices.Equal(got.Registers.RTMR[:], q.Body.RTMR[:3]) {
		t.Fatalf("recomputed %+v, quoted %s %s", got.Registers, q.Body.MRTD, q.Body.RTMR)
	}
	if !got.ACPIUnchecked || got.Config.OSImageHash.String()[:8] != "e6f5cfec" {
		t.Errorf("%+v", got)
	}
	policy := attest.Policy{Roots: attest.IntelRoots(), TCBStatus: []string{"UpToDate"}, AnyReportData: true, TD: attest.StrictTD(),
		Phases: []claim.Phase{claim.PhaseRunning}, Image: p}
	_, _, err = attest.Verify(ev, collateral.Set{}, policy, now())
	rejected(t, err, true, claim.CollateralParse)
	t.Run("ACPI tables must be listed", func(t *testing.T) {
		policy.Image.AnyACPI = false
		_, _, err := attest.Verify(ev, collateral.Set{}, policy, now())
		rejected(t, err, true, claim.CollateralParse, claim.ImageMeasurement)
		acpi, err := eventlog.ACPIDigests(ev.EventLog)
		if err != nil {
			t.Fatal(err)
		}
		c, err := measure.ParseVMConfig(ev.Config)
		if err != nil {
			t.Fatal(err)
		}
		policy.Image.ACPI = append(policy.Image.ACPI, measure.ACPI{Topology: c.Topology, Loader: acpi[0], RSDP: acpi[1], Tables: acpi[2]})
		_, _, err = attest.Verify(ev, collateral.Set{}, policy, now())
		rejected(t, err, true, claim.CollateralParse)
	})
	t.Run("other memory", func(t *testing.T) {
		ev.Config = string(bytes.Replace([]byte(ev.Config), []byte("2147483648"), []byte("4294967296"), 1))
		_, _, err := attest.Verify(ev, collateral.Set{}, policy, now())
		rejected(t, err, true, claim.CollateralParse, claim.ImageMeasurement)
	})
	t.Run("other image", func(t *testing.T) {
		ev.Config = string(bytes.Replace([]byte(ev.Config), []byte("e6f5cfec"), []byte("e6f5cfed"), 1))
		_, _, err := attest.Verify(ev, collateral.Set{}, policy, now())
		rejected(t, err, true, claim.CollateralParse, claim.ImageMeasurement)
	})
}

// A recorded genuine quote with the padding that guests hand out.
func TestRecordedQuote(t *testing.T) {
	raw := vector(t, "tdx_quote.bin")
	q, err := tdx.ParseQuote(raw)
	if err != nil {
		t.Fatal(err)
	}
	if q.Size() != len(raw)-70 {
		t.Errorf("size %d of %d", q.Size(), len(raw))
	}
	policy := attest.Policy{Roots: attest.IntelRoots(), AnyReportData: true, TD: attest.StrictTD()}
	_, checks, err := attest.Verify(attest.Evidence{Quote: raw, ReportData: q.Body.ReportData}, collateral.Set{}, policy, now())
	var r *claim.Rejection
	if !errors.As(err, &r) || !r.Genuine {
		t.Fatalf("not genuine: %v", err)
	}
	for _, name := range []string{claim.PCKChain, claim.RootAdmitted, claim.QuoteSignature, claim.TDDebug, claim.TDAttributes, claim.TDXFAM} {
		if !slices.ContainsFunc(checks, func(c claim.Check) bool { return c.Name == name && c.Verdict == claim.Passed }) {
			t.Errorf("%s did not pass: %v", name, err)
		}
	}
}
