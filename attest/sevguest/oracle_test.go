package sevguest_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	pb "github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/validate"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

var (
	at     = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	vendor = sync.OnceValues(func() (*simtee.AMD, error) { return simtee.NewAMD(simtee.AMDConfig{Seed: make([]byte, 32)}) })
)

// scene is one piece of evidence for both verifiers.
type scene struct {
	report  []byte
	amd     *collateral.AMD
	trusted [][]byte // PEM: the sound vendor's chains
	root    [32]byte
	product string
	at      time.Time
	cache   *sevsnp.Cache
}

func newScene(t testing.TB, edit func(*simtee.AMDConfig)) (*scene, *simtee.AMD) {
	t.Helper()
	v, err := vendor()
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{product: sevsnp.Milan, at: at}
	machine := make([]*simtee.AMD, 3) // the one in question; sound ones with VCEK and VLEK
	for i := range machine {
		machine[i], err = v.With(func(c *simtee.AMDConfig) {
			if edit != nil {
				edit(c)
			}
			if c.Product != "" {
				s.product = c.Product
			}
			if i > 0 {
				c.Faults, c.VLEK = simtee.AMDFaults{}, []string{"", "", "example-cloud"}[i]
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		set, err := machine[i].Collateral(at)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			s.amd = set.AMD
		} else {
			s.trusted = append(s.trusted, set.AMD.Chain)
		}
	}
	s.root = machine[1].RootSPKI()
	if s.report, err = machine[0].Report(cvm.Measurement{1}, [32]byte{2}, 0, [64]byte{3}); err != nil {
		t.Fatal(err)
	}
	return s, machine[0]
}

// ours is our verdict with the strictest policy; nil accepts, else the failed checks.
func (s *scene) ours() []string {
	rec := &claim.Recorder{Variant: cvm.VariantSNP}
	r := sevsnp.Verify(s.report, s.amd, sevsnp.Options{
		Admitted: func(_ string, spki [32]byte) bool { return spki == s.root }, Products: []string{s.product}, CSPs: []string{"example-cloud"},
		MinTCB: map[string]sevsnp.TCB{s.product: simtee.DefaultTCB(s.product)}, Cache: s.cache,
	}, s.at, rec)
	if r.Report != nil {
		sevsnp.CheckGuest(r.Report, sevsnp.Guest{}, rec)
	}
	var failed []string
	for _, c := range rec.Checks() {
		if c.Verdict == claim.Failed {
			failed = append(failed, c.Name)
		}
	}
	if failed == nil && r.TCB.Status != sevsnp.UpToDate {
		failed = append(failed, claim.TCBStatus)
	}
	return failed
}

// oracle is go-sev-guest's verdict, verify and validate together, with revocation
// and with the same expectations as far as it has them.
func (s *scene) oracle() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("PANIC: %v", p)
		}
	}()
	report, err := abi.ReportToProto(s.report)
	if err != nil {
		return err
	}
	roots := trust.AMDRootCertsProduct(s.product)
	roots.ProductCerts = &trust.ProductCerts{}
	for _, c := range s.trusted {
		if err := roots.ProductCerts.FromKDSCertBytes(c); err != nil {
			return err
		}
	}
	ask, rest := pem.Decode(s.amd.Chain)
	ark, _ := pem.Decode(rest)
	if ask == nil || ark == nil {
		return errors.New("no chain")
	}
	chain := &pb.CertificateChain{ArkCert: ark.Bytes, AskCert: ask.Bytes, VcekCert: s.amd.Leaf, VlekCert: s.amd.Leaf}
	a := &pb.Attestation{Report: report, CertificateChain: chain}
	err = verify.SnpAttestation(a, &verify.Options{CheckRevocations: true, DisableCertFetching: true, Getter: list(s.amd.CRL), Now: s.at,
		TrustedRoots: map[string][]*trust.AMDRootCerts{s.product: {roots}}})
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	vmpl := 0
	t := simtee.DefaultTCB(s.product)
	o := &validate.Options{GuestPolicy: abi.SnpPolicy{}, VMPL: &vmpl, PlatformInfo: &abi.SnpPlatformInfo{TSMEEnabled: true}}
	o.MinimumTCB.BlSpl, o.MinimumTCB.TeeSpl, o.MinimumTCB.SnpSpl, o.MinimumTCB.UcodeSpl = t.BootLoader, t.TEE, t.SNP, t.Microcode
	o.MinimumLaunchTCB = o.MinimumTCB
	if err := validate.SnpAttestation(a, o); err != nil {
		return fmt.Errorf("validate: %w", err)
	}
	return nil
}

// list answers every request with one revocation list.
type list []byte

func (l list) Get(string) ([]byte, error)                         { return l, nil }
func (l list) GetContext(context.Context, string) ([]byte, error) { return l, nil }
