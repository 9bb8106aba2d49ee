package verify

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/refvalue"
	"github.com/confidential-cloud/phala/attest/sevguest"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/ledger"
)

const snpVM = `{"os_image_hash":"0100000000000000000000000000000000000000000000000000000000000000","cpu_count":1,"memory_size":1073741824,"tdx_attestation_variant":"container"}`

// snpClaims are those of a launch on a simulated SEV-SNP machine under a profile.
func snpClaims(t *testing.T, hw *simtee.AMD, p Profile) (claim.Claims, error) {
	t.Helper()
	doc, err := attest.MRConfig{Version: 3, ComposeHash: hex.EncodeToString(make([]byte, 32)), KeyProvider: "kms"}.Document()
	if err != nil {
		t.Fatal(err)
	}
	digest, _, err := measure.ContainerSNP(snpVM)
	if err != nil {
		t.Fatal(err)
	}
	rd := [64]byte{1}
	report, certs, err := sevguest.New(hw.Launch(simtee.SNPShape{Measurement: digest, HostData: attest.HostData(doc)})).Report(context.Background(), rd)
	if err != nil {
		t.Fatal(err)
	}
	ev := attest.Evidence{Variant: cvm.VariantSNP, Report: report, CertChain: certs, MRConfig: doc, ReportData: rd, Config: snpVM}
	set, err := hw.Collateral(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return verified(ev, set, p)
}

func verified(ev attest.Evidence, set collateral.Set, p Profile) (claim.Claims, error) {
	v, _, err := attest.Verify(ev, set, p.policy(ev.Variant, ev.ReportData, refvalue.Builtin()), time.Now())
	if err != nil {
		return claim.Claims{}, err
	}
	return v.Claims(), nil
}

// SEV-SNP is admitted by a profile that says so, and by no other; TDX evidence never
// profits from it. The ledger's entry must be of this very launch.
func TestSNP(t *testing.T) {
	hw, err := simtee.NewAMD(simtee.AMDConfig{Seed: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	root := hw.RootSPKI()
	p := Profile{TEE: TEEPins{Roots: []RootPin{{hex.EncodeToString(root[:]), cvm.PlatformSimulated}}, TCBStatus: []string{sevsnp.UpToDate}, ImageVariants: []string{measure.VariantContainer}}}
	var rej *claim.Rejection
	if _, err := snpClaims(t, hw, p); !errors.As(err, &rej) {
		t.Fatalf("without tee.snp: %v", err)
	}
	p.TEE.SNP = &attest.SNPPolicy{Admit: true, Products: []string{sevsnp.Milan}, MinTCB: map[string]sevsnp.TCB{sevsnp.Milan: {SNP: 1}}}
	c, err := snpClaims(t, hw, p)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.policy(cvm.VariantTDX, [64]byte{}, refvalue.Builtin()).Phases; !slices.Equal(got, []claim.Phase{claim.PhaseRunning}) {
		t.Errorf("phases of TDX evidence: %q", got)
	}
	other, err := snpClaims(t, hw, p)
	if err != nil {
		t.Fatal(err)
	}
	req := governance.RequestAtBoot(c)
	leaf := ledger.Leaf{Kind: ledger.KindAllow, AppID: c.AppID.String(), ComposeHash: c.ComposeHash.String(), ImageHash: c.OSImageHash.String(), DeviceID: c.DeviceID.String(),
		MRAggregate: hex.EncodeToString(c.MRAggregated[:]), MRSystem: hex.EncodeToString(c.MRSystem[:]), Platform: string(c.Platform)}
	note := func(launch string) json.RawMessage {
		b, _ := json.Marshal(ledger.LaunchNote{Phase: "unproven", Launch: launch})
		return b
	}
	for launch, same := range map[string]bool{c.LaunchID(): true, other.LaunchID(): false, "": false} {
		leaf.Note = note(launch)
		if d := leafDiffers(leaf, c, req); (d == "") != same {
			t.Errorf("launch %.8s: %q", launch, d)
		}
	}
	leaf.Note = nil
	if d := leafDiffers(leaf, c, req); d == "" {
		t.Error("a leaf that names no launch is taken for this one's")
	}
}
