package attest

import (
	"context"
	"encoding/pem"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/abi"
	pb "github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

func snpOps(t *testing.T) []op {
	t.Helper()
	a, err := simtee.NewAMD(simtee.AMDConfig{Seed: make([]byte, 32), Clock: at})
	if err != nil {
		t.Fatal(err)
	}
	ev, err := a.Evidence(simtee.Launch{Measurement: cvm.Measurement{1}, Config: attest.MRConfig{AppID: strings.Repeat("0a", 20), ComposeHash: strings.Repeat("0b", 32),
		InstanceID: strings.Repeat("0c", 20), KeyProvider: "kms", KeyProviderID: "3059", Version: 3}}, [64]byte{4})
	if err != nil {
		t.Fatal(err)
	}
	set, err := a.Collateral(at())
	if err != nil {
		t.Fatal(err)
	}
	check := func(c *sevsnp.Cache) func() error {
		o := sevsnp.Options{
			Admitted: func(string, [32]byte) bool { return true }, Products: []string{sevsnp.Milan},
			MinTCB: map[string]sevsnp.TCB{sevsnp.Milan: simtee.DefaultTCB(sevsnp.Milan)}, Cache: c,
		}
		return func() error {
			rec := &claim.Recorder{Variant: cvm.VariantSNP}
			if r := sevsnp.Verify(ev.Report, set.AMD, o, at(), rec); !rec.Passed(sevsnp.Genuine()...) || !rec.Passed(claim.CRLRevoked) || r.TCB.Status == "" {
				return fmt.Errorf("%w: %+v", errRefused, rec.Checks())
			}
			return nil
		}
	}
	return []op{
		{name: "SNP cold", per: p384, n: 1, run: check(nil)},
		{name: "SNP warm", note: " (chain and list seen)", per: p384, n: 1, run: check(sevsnp.NewCache(16))},
		{name: "go-sev-guest", note: ", chain and CRL", per: p384, n: 1, run: goSEV(t, ev.Report, set.AMD)},
	}
}

// list answers every request with one revocation list.
type list []byte

func (l list) Get(string) ([]byte, error)                         { return l, nil }
func (l list) GetContext(context.Context, string) ([]byte, error) { return l, nil }

func goSEV(t *testing.T, raw []byte, s *collateral.AMD) func() error {
	t.Helper()
	ask, rest := pem.Decode(s.Chain)
	ark, _ := pem.Decode(rest)
	if ask == nil || ark == nil {
		t.Fatal("no chain")
	}
	roots := trust.AMDRootCertsProduct(sevsnp.Milan)
	roots.ProductCerts = &trust.ProductCerts{}
	if err := roots.ProductCerts.FromKDSCertBytes(s.Chain); err != nil {
		t.Fatal(err)
	}
	return func() error {
		report, err := abi.ReportToProto(raw)
		if err != nil {
			return err
		}
		return verify.SnpAttestation(&pb.Attestation{Report: report, CertificateChain: &pb.CertificateChain{ArkCert: ark.Bytes, AskCert: ask.Bytes, VcekCert: s.Leaf}},
			&verify.Options{CheckRevocations: true, DisableCertFetching: true, Getter: list(s.CRL), Now: at(),
				TrustedRoots: map[string][]*trust.AMDRootCerts{sevsnp.Milan: {roots}}})
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
