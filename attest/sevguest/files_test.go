package sevguest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/verify/testdata"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/sevguest"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/simtee/teefs"
	"github.com/confidential-cloud/phala/cvm"
)

// The guest's own code over faked kernel files gives evidence that the verifier takes
// under the simulated vendor's root, and at another level does not.
func TestOverFakedFiles(t *testing.T) {
	hw, err := simtee.NewAMD(simtee.AMDConfig{Seed: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	launch := simtee.Launch{Measurement: cvm.Measurement{5}, Config: attest.MRConfig{Version: 3, AppID: strings.Repeat("07", 20), ComposeHash: strings.Repeat("08", 32), KeyProvider: "none"}}
	guest, err := hw.Start(launch)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files, err := teefs.MountReports(dir, guest)
	if err != nil {
		if _, serr := os.Stat("/dev/fuse"); serr != nil || os.Geteuid() != 0 {
			t.Skipf("SKIPPED: no FUSE here: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := files.Close(); err != nil {
			t.Error(err)
		}
	})
	reports := filepath.Join(dir, teefs.ConfigFS, "tsm/report")
	linux := sevguest.Linux(sevguest.Config{Reports: reports, Node: filepath.Join(dir, "nowhere")})
	at := time.Now()
	set, err := hw.Collateral(at)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := launch.Config.Document()
	if err != nil {
		t.Fatal(err)
	}
	rd := [64]byte{1, 2, 3}
	p := attest.Policy{Roots: []attest.Root{attest.SimulatedRoot(hw.RootSPKI())}, TCBStatus: []string{sevsnp.UpToDate}, ReportData: &rd, Phases: []claim.Phase{claim.PhaseUnproven},
		SNP: attest.SNPPolicy{Admit: true, Products: []string{sevsnp.Milan}, MinTCB: map[string]sevsnp.TCB{sevsnp.Milan: {SNP: 1}}}}
	for level, want := range []claim.Verdict{claim.Passed, claim.Failed, claim.Failed, claim.Failed} {
		report, certs, err := sevguest.New(atLevel{linux, uint(level)}).Report(t.Context(), rd)
		if err != nil || len(certs) != 3 {
			t.Fatalf("level %d: %d certificates, %v", level, len(certs), err)
		}
		if !bytes.Equal(certs[0], set.AMD.Leaf) {
			t.Error("the host's table holds another certificate than AMD gives")
		}
		ev := attest.Evidence{Variant: cvm.VariantSNP, Report: report, CertChain: certs, MRConfig: doc, ReportData: rd}
		_, checks, _ := attest.Verify(ev, set, p, at)
		for _, c := range checks {
			switch {
			case c.Name == claim.ImageMeasurement: // no image stands behind this digest
			case c.Name == claim.SNPVMPL && c.Verdict != want:
				t.Errorf("level %d: %s is %s", level, c.Name, c.Verdict)
			case c.Name != claim.SNPVMPL && c.Verdict != claim.Passed:
				t.Errorf("level %d: %s is %s: %s", level, c.Name, c.Verdict, c.Reason)
			}
		}
	}
	if left, err := os.ReadDir(reports); err != nil || len(left) != 0 {
		t.Errorf("report entries stay: %v %v", left, err)
	}
	bare := sevguest.New(sevguest.Linux(sevguest.Config{Reports: filepath.Join(dir, "nowhere")}))
	if _, _, err := bare.Report(t.Context(), rd); cvm.CodeOf(err) != cvm.Precondition || cvm.ReasonOf(err) != "tee-missing" {
		t.Errorf("no kernel: %v", err)
	}
	if _, err := sevguest.New(linux).SealKey(t.Context(), nil); cvm.CodeOf(err) != cvm.Precondition || cvm.ReasonOf(err) != "tee-missing" {
		t.Errorf("no device node: %v", err)
	}
	if _, _, err := sevguest.New(atLevel{linux, 4}).Report(t.Context(), rd); err == nil {
		t.Error("a level that does not exist")
	}
}

// atLevel asks at another privilege level than the device does.
type atLevel struct {
	sevguest.Source
	level uint
}

func (a atLevel) Report(ctx context.Context, rd [64]byte, _ uint) (report, table []byte, err error) {
	return a.Source.Report(ctx, rd, a.level)
}

// The table is the host's: whatever is in it, the report comes through.
func TestDamagedTable(t *testing.T) {
	entry := func(offset, length uint32) []byte {
		b := append(bytes.Repeat([]byte{7}, 16), 0, 0, 0, 0, 0, 0, 0, 0)
		binary.LittleEndian.PutUint32(b[16:], offset)
		binary.LittleEndian.PutUint32(b[20:], length)
		return append(b, make([]byte, 24)...)
	}
	for name, table := range map[string][]byte{
		"none": nil, "short": {1, 2, 3}, "beyond": entry(48, 1), "sum wraps": entry(0xfffffff0, 0x20), "huge": entry(0, 0xffffffff),
		"more than a certificate": append(entry(48, 17<<10), make([]byte, 17<<10)...),
	} {
		report, certs, err := sevguest.New(source{report: testdata.AttestationBytes, table: table}).Report(t.Context(), recordedData())
		if err != nil || len(report) != abi.ReportSize || len(certs) != 0 {
			t.Errorf("%s: %d bytes, %d certificates, %v", name, len(report), len(certs), err)
		}
	}
}

// FuzzTable: the host's table never stops a report, nor brings in more than certificates
// may be.
func FuzzTable(f *testing.F) {
	f.Add([]byte{})
	f.Add((&abi.CertTable{Entries: []abi.CertTableEntry{}}).Marshal())
	f.Add(append(bytes.Repeat([]byte{0xff}, 48), make([]byte, 24)...))
	f.Fuzz(func(t *testing.T, table []byte) {
		_, certs, err := sevguest.New(source{report: testdata.AttestationBytes, table: table}).Report(context.Background(), recordedData())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range certs {
			if len(c) == 0 || len(c) > 16<<10 {
				t.Errorf("a certificate of %d bytes", len(c))
			}
		}
	})
}
