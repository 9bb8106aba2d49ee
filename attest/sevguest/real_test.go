package sevguest_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	pb "github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/testdata"
	"github.com/google/go-sev-guest/verify/trust"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/sevguest"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/cvm"
)

// recorded is when the recorded certificate is valid (2022-09 to 2029-09).
var recorded = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// lines is a chain with the line ends that ours wants: Turin's are recorded with
// CRLF. attest/fetch brings what it fetches into this form.
func lines(text []byte) []byte {
	return append(bytes.TrimSpace(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))), '\n')
}

// The pinned roots are those that AMD publishes, each for its own product.
func TestPinnedRootsAreAMDs(t *testing.T) {
	var spki []attest.Root
	for _, c := range []struct{ vcek, vlek []byte }{
		{trust.AskArkMilanVcekBytes, trust.AskArkMilanVlekBytes}, {trust.AskArkGenoaVcekBytes, trust.AskArkGenoaVlekBytes}, {trust.AskArkTurinVcekBytes, trust.AskArkTurinVlekBytes},
	} {
		vcek, err := collateral.ParseChain(lines(c.vcek), 2)
		if err != nil {
			t.Fatal(err)
		}
		vlek, err := collateral.ParseChain(lines(c.vlek), 2)
		if err != nil {
			t.Fatal(err)
		}
		if !vcek[1].Equal(vlek[1]) {
			t.Errorf("two roots under %s", vcek[1].Subject)
		}
		spki = append(spki, attest.Root{SPKI: collateral.SPKIHash(vcek[1]), Platform: cvm.PlatformSEVSNP})
	}
	for i, r := range attest.AMDRoots() {
		if r != spki[i] {
			t.Errorf("root %d: %x, want %x", i, r.SPKI, spki[i].SPKI)
		}
	}
}

// real is the recorded evidence: AMD's chain, no list (none was recorded).
func real() (attest.Evidence, collateral.Set, attest.Policy) {
	ev := attest.Evidence{Variant: cvm.VariantSNP, Report: testdata.AttestationBytes}
	copy(ev.ReportData[:], ev.Report[sevsnp.ReportDataOffset:])
	p := attest.Policy{Roots: attest.AMDRoots(), TCBStatus: []string{sevsnp.UpToDate}, AnyReportData: true, Phases: []claim.Phase{claim.PhaseUnproven},
		SNP: attest.SNPPolicy{Admit: true, Products: []string{sevsnp.Milan}, MinTCB: map[string]sevsnp.TCB{sevsnp.Milan: {BootLoader: 2, SNP: 5, Microcode: 68}},
			Guest: sevsnp.Guest{Allow: []string{"smt"}, PlatformAllow: []string{"smt"}}}}
	return ev, collateral.Set{AMD: &collateral.AMD{Leaf: testdata.VcekBytes, Chain: trust.AskArkMilanVcekBytes}}, p
}

// A real report of a real chip: everything that AMD signed holds, as the library
// says too; what the VM was launched with is refused.
func TestRecordedMilanReport(t *testing.T) {
	ev, set, p := real()
	v, checks, err := attest.Verify(ev, set, p, recorded)
	var r *claim.Rejection
	if v.Valid() || !errors.As(err, &r) || !r.Genuine {
		t.Fatalf("not genuine, or accepted: %v", err)
	}
	refused := map[string]bool{claim.CRLFresh: true, claim.SNPDebug: true, claim.SNPHostData: true, claim.ImageMeasurement: true}
	skipped := map[string]bool{claim.CRLRevoked: true, claim.CollateralFloor: true, claim.SNPIdentity: true}
	for _, c := range checks {
		want := claim.Passed
		if refused[c.Name] {
			want = claim.Failed
		} else if skipped[c.Name] {
			want = claim.Skipped
		}
		if c.Verdict != want {
			t.Errorf("%s: %s, want %s (%s)", c.Name, c.Verdict, want, c.Reason)
		}
	}
	if c := r.Unverified; c.Platform != cvm.PlatformSEVSNP || c.SNP.Product != sevsnp.Milan || c.SNP.Signer != "vcek" || !c.Debug || c.TCB.Status != sevsnp.UpToDate {
		t.Errorf("claims: %+v %+v", c.Platform, c.SNP)
	}
	report, err := abi.ReportToProto(ev.Report)
	if err != nil {
		t.Fatal(err)
	}
	ask, ark := decodeChain(t, set.AMD.Chain)
	a := &pb.Attestation{Report: report, CertificateChain: &pb.CertificateChain{VcekCert: set.AMD.Leaf, AskCert: ask, ArkCert: ark}}
	if err := verify.SnpAttestation(a, &verify.Options{DisableCertFetching: true, Now: recorded}); err != nil {
		t.Errorf("the library refuses it: %v", err)
	}
}

func decodeChain(t *testing.T, text []byte) (ask, ark []byte) {
	t.Helper()
	c, err := collateral.ParseChain(text, 2)
	if err != nil {
		t.Fatal(err)
	}
	return c[0].Raw, c[1].Raw
}

// The same with one thing changed is not genuine.
func TestRecordedMilanReportChanged(t *testing.T) {
	for name, edit := range map[string]func(*attest.Evidence, *collateral.Set, *attest.Policy, *time.Time){
		"a bit of the report": func(ev *attest.Evidence, _ *collateral.Set, _ *attest.Policy, _ *time.Time) {
			ev.Report = bytes.Clone(ev.Report)
			ev.Report[0x90] ^= 1
		},
		"another product's chain": func(_ *attest.Evidence, c *collateral.Set, _ *attest.Policy, _ *time.Time) {
			c.AMD.Chain = trust.AskArkGenoaVcekBytes
		},
		"the chain of VLEKs": func(_ *attest.Evidence, c *collateral.Set, _ *attest.Policy, _ *time.Time) {
			c.AMD.Chain = trust.AskArkMilanVlekBytes
		},
		"Intel's root only": func(_ *attest.Evidence, _ *collateral.Set, p *attest.Policy, _ *time.Time) {
			p.Roots = attest.IntelRoots()
		},
		"AMD's root as custom": func(_ *attest.Evidence, _ *collateral.Set, p *attest.Policy, _ *time.Time) {
			p.Roots = []attest.Root{{SPKI: attest.AMDRoots()[0].SPKI, Platform: cvm.PlatformCustom}}
		},
		"Genoa's root only": func(_ *attest.Evidence, _ *collateral.Set, p *attest.Policy, _ *time.Time) {
			p.Roots = attest.AMDRoots()[1:2]
		},
		"before the certificate": func(_ *attest.Evidence, _ *collateral.Set, _ *attest.Policy, at *time.Time) {
			*at = recorded.AddDate(-3, 0, 0)
		},
		"after the certificate": func(_ *attest.Evidence, _ *collateral.Set, _ *attest.Policy, at *time.Time) {
			*at = recorded.AddDate(6, 0, 0)
		},
	} {
		ev, set, p := real()
		when := recorded
		edit(&ev, &set, &p, &when)
		_, _, err := attest.Verify(ev, set, p, when)
		var r *claim.Rejection
		if !errors.As(err, &r) || r.Genuine {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// source is a device that hands out what was recorded.
type source struct {
	report, table, key []byte
	err                error
}

func (s source) Report(context.Context, [64]byte, uint) (report, table []byte, err error) {
	return s.report, s.table, s.err
}
func (s source) DerivedKey(context.Context, uint64) ([]byte, error) { return s.key, s.err }

// recordedData is the report data of the recorded report.
func recordedData() (rd [64]byte) {
	copy(rd[:], testdata.AttestationBytes[sevsnp.ReportDataOffset:])
	return rd
}

func TestDevice(t *testing.T) {
	ctx, rd := t.Context(), recordedData()
	of := func(table []byte) source { return source{report: testdata.AttestationBytes, table: table} }
	report, certs, err := sevguest.New(of((&abi.CertTable{Entries: []abi.CertTableEntry{}}).Marshal())).Report(ctx, rd)
	if err != nil || !bytes.Equal(report, testdata.AttestationBytes) || certs != nil {
		t.Errorf("%d bytes, %d certificates: %v", len(report), len(certs), err)
	}
	ask, ark := decodeChain(t, trust.AskArkMilanVcekBytes)
	table := abi.CertsFromProto(&pb.CertificateChain{VcekCert: testdata.VcekBytes, AskCert: ask, ArkCert: ark}).Marshal()
	if _, certs, err = sevguest.New(of(table)).Report(ctx, rd); err != nil || len(certs) != 3 {
		t.Errorf("%d certificates: %v", len(certs), err)
	}
	if _, certs, err = sevguest.New(of([]byte{1, 2, 3})).Report(ctx, rd); err != nil || certs != nil {
		t.Errorf("a damaged table: %v", err)
	}
	if _, _, err = sevguest.New(of(nil)).Report(ctx, [64]byte{1}); cvm.ReasonOf(err) != "tee-busy" {
		t.Errorf("a report over other data: %v", err)
	}
	if _, _, err = sevguest.New(source{report: make([]byte, 100)}).Report(ctx, rd); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("short: %v", err)
	}
	if _, _, err = sevguest.New(source{err: errors.New("no")}).Report(ctx, rd); cvm.CodeOf(err) != cvm.Unavailable {
		t.Errorf("failing: %v", err)
	}
	if _, err := os.Stat(sevguest.DeviceNode); err == nil {
		t.Skip("SKIPPED the rest: this machine is a SEV-SNP guest")
	}
	if _, _, err := sevguest.New(sevguest.Linux(sevguest.Config{})).Report(ctx, rd); cvm.ReasonOf(err) != "tee-missing" {
		t.Errorf("a device on a machine that has none: %v", err)
	}
}
