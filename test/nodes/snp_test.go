package nodes

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cli"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/test/simtrust"
	"github.com/confidential-cloud/phala/verify"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// prover is the guest of a SEV-SNP host: the machine as the VMM launched it, which
// answers as it is told.
type prover struct {
	mu     sync.Mutex
	last   machine.Machine
	says   device          // of the host
	answer simtrust.Answer // nil: as it is
}

type device = cvm.DeviceID

func (p *prover) evidence(hw *simtee.AMD) simtrust.Answer {
	return func(m machine.Machine, compose, nonce []byte) ([]byte, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.last = m
		if p.answer != nil {
			return p.answer(m, compose, nonce)
		}
		return simtrust.SNPEvidence(hw, m, 0, nonce)
	}
}

// host is a SEV-SNP host that says which device it is.
type host struct {
	simtrust.SNPHost
	p *prover
}

func (h host) Describe(ctx context.Context) (machine.Description, error) {
	d, err := h.SNPHost.Describe(ctx)
	h.p.mu.Lock()
	defer h.p.mu.Unlock()
	d.DeviceID = h.p.says
	return d, err
}

func startSNP(t *testing.T) (*cloud, *prover, *simtee.AMD) {
	t.Helper()
	hw, p := hardware(t, 5), &prover{}
	amd := hw.AMD()
	machines := host{simtrust.SNPHost{Driver: dry.New(dry.Config{Guest: simtrust.ProverOf(t, p.evidence(amd))})}, p}
	return startWith(t, hw, machines, simtrust.AdmitSNP(t, amd)), p, amd
}

// join is phala node join.
func (c *cloud) join(code int, trust string, more ...string) map[string]any {
	c.t.Helper()
	args := []string{"node", "join", "--trust", trust, "--vmm", c.vmmURL, "--vmm-token-file", c.tokenFile}
	return c.phala(code, c.key, append(args, more...)...)
}

// A SEV-SNP host joins as a TDX host does: known by its chip, checked again by anybody
// who trusts its vendor, by nobody else.
func TestSNPNode(t *testing.T) {
	c, p, amd := startSNP(t)
	id := amd.DeviceID().String()
	chip := amd.ChipID()
	if sum := sha256.Sum256(chip[:]); hex.EncodeToString(sum[:]) != id {
		t.Fatalf("the device id is not that of the chip id")
	}
	file := filepath.Join(t.TempDir(), "proof.json")
	r := c.join(cli.ExitOK, c.trust, "--out", file)
	kept, _ := r["cloud"].(map[string]any)
	if r["device_id"] != id || r["simulated"] != true || kept["device_id"] != id || kept["simulated"] != true || kept["platform"] != "simulated" {
		t.Errorf("joined %v, the cloud keeps %v", r["device_id"], kept)
	}
	n := c.phala(cli.ExitOK, c.key, "node", "show", "1")
	if n["confidence"] != "simulated" || !strings.Contains(fmt.Sprint(n["confidence_why"]), "simulated platform") {
		t.Errorf("%v (%v)", n["confidence"], n["confidence_why"])
	}
	for _, what := range [][]string{{"1"}, {"--file", file}} {
		if r := c.phala(cli.ExitOK, c.key, append([]string{"node", "check", "--trust", c.trust}, what...)...); r["verified"] != true || r["device_id"] != id {
			t.Errorf("checked %v: %v", what, r)
		}
	}
	strict := simtrust.Profile(t, hardware(t, 5), func(v *verify.Profile) { // its root, for TDX alone
		simtrust.AdmitSNP(t, amd)(v)
		v.TEE.SNP = nil
	})
	if r := c.phala(cli.ExitDenied, c.key, "node", "check", "1", "--trust", strict); r["reason"] != "platform-unproved" {
		t.Errorf("a profile that does not admit SEV-SNP: %v", r)
	}
	if r := c.join(cli.ExitDenied, strict, "--cloud=false"); r["reason"] != "platform-unproved" || !strings.Contains(fmt.Sprint(r), claim.SNPAdmitted) {
		t.Errorf("a profile that does not admit SEV-SNP: %v", r)
	}
	p.mu.Lock()
	p.says = device{9}
	p.mu.Unlock()
	c.phala(cli.ExitOK, c.key, "node", "leave", "1")
	if r := c.join(cli.ExitDenied, c.trust); r["reason"] != "device-differs" {
		t.Errorf("a host that says it is another device: %v", r)
	}
	p.mu.Lock()
	p.says = amd.DeviceID()
	p.mu.Unlock()
	if r := c.join(cli.ExitOK, c.trust); r["device_id"] != id {
		t.Errorf("a host that says which device it is: %v", r)
	}
}

// TestSNPNodeRefusals: what does not prove the platform is refused by who joins the node,
// and by the cloud when it is asked directly.
func TestSNPNodeRefusals(t *testing.T) {
	c, p, amd := startSNP(t)
	c.join(cli.ExitOK, c.trust, "--cloud=false") // so that there is a launch to replay
	launched := p.last
	with := func(edit func(*simtee.AMDConfig)) *simtee.AMD {
		hw, err := amd.With(edit)
		if err != nil {
			t.Fatal(err)
		}
		return hw
	}
	of := func(hw *simtee.AMD, policy sevsnp.GuestPolicy) simtrust.Answer {
		return func(m machine.Machine, _, nonce []byte) ([]byte, error) {
			return simtrust.SNPEvidence(hw, m, policy, nonce)
		}
	}
	edited := func(old, new string) simtrust.Answer {
		return func(m machine.Machine, _, nonce []byte) ([]byte, error) {
			ev, err := shown(amd, m, nonce)
			ev.MRConfig, ev.Config = strings.Replace(ev.MRConfig, old, new, 1), strings.Replace(ev.Config, old, new, 1)
			return must(ev.Marshal())(err)
		}
	}
	masked := func(a *simtee.AMDConfig) { a.Faults.Report = func(r *sevsnp.Report) { r.ChipID = [64]byte{} } }
	vlek := func(a *simtee.AMDConfig) { a.VLEK = "example-cloud" }
	before, err := simtrust.SNPEvidence(amd, launched, 0, make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		check  string
		answer simtrust.Answer
	}{
		"another chip, which names this one": {claim.QuoteSignature, of(with(func(a *simtee.AMDConfig) {
			a.Machine = "another"
			a.Faults.Report = func(r *sevsnp.Report) { r.ChipID = amd.ChipID() }
		}), 0)},
		"a chip that is masked":          {claim.SNPChip, of(with(masked), 0)},
		"a cloud provider's key":         {claim.SNPSigner, of(with(vlek), 0)},
		"another vendor's chip":          {"collateral.fetched", of(hardware(t, 6).AMD(), 0)},
		"a guest that can be debugged":   {claim.SNPDebug, of(amd, simtee.DefaultGuestPolicy|sevsnp.GuestDebug)},
		"a guest with a migration agent": {claim.SNPGuest, of(amd, simtee.DefaultGuestPolicy|sevsnp.GuestMigrationAgent)},
		"firmware below the profile's": {claim.TCBStatus, of(with(func(a *simtee.AMDConfig) {
			a.TCB = simtee.DefaultTCB(sevsnp.Milan)
			a.TCB.SNP--
		}), 0)},
		"evidence of before": {claim.ReportData, func(machine.Machine, []byte, []byte) ([]byte, error) { return before, nil }},
		"evidence over another key": {claim.ReportData, func(m machine.Machine, _, nonce []byte) ([]byte, error) {
			return simtrust.SNPEvidence(amd, m, 0, vmmapi.JoinNonce([32]byte(nonce), []byte("another key")))
		}},
		"a launch for another app": {"identity.compose", func(m machine.Machine, _, nonce []byte) ([]byte, error) {
			doc, err := attest.MRConfig{Version: 3, ComposeHash: strings.Repeat("ab", 32), KeyProvider: "none"}.Document()
			m.MRConfig = doc
			h := attest.HostData(doc)
			copy(m.MRConfigID[1:], h[:])
			return must(simtrust.SNPEvidence(amd, m, 0, nonce))(err)
		}},
		"a document that it was not launched for": {claim.SNPHostData, edited(`"none"`, `"kms"`)},
		"another machine than was measured":       {claim.ImageMeasurement, edited(`"cpu_count":1`, `"cpu_count":2`)},
	} {
		t.Run(name, func(t *testing.T) {
			p.mu.Lock()
			p.answer = x.answer
			p.mu.Unlock()
			c := *c
			c.t = t
			if r := c.join(cli.ExitDenied, c.trust, "--cloud=false"); r["reason"] != "platform-unproved" || !strings.Contains(fmt.Sprint(r), x.check+": ") {
				t.Errorf("who joins it: want %s, got %v", x.check, r)
			}
			if err := c.give(x.answer, launched); cvm.ReasonOf(err) != "platform-unproved" || !strings.Contains(err.Error(), x.check+": ") {
				t.Errorf("the cloud: want %s, got %v", x.check, err)
			}
		})
	}
	// A profile may admit masked chips and a provider's key. Then nothing names the device.
	anybody := simtrust.Profile(t, hardware(t, 5), func(v *verify.Profile) {
		simtrust.AdmitSNP(t, amd)(v)
		v.TEE.SNP.CSPs, v.TEE.SNP.AnyMaskedChip = []string{"example-cloud"}, true
	})
	p.mu.Lock()
	p.answer = of(with(func(a *simtee.AMDConfig) { masked(a); vlek(a) }), 0)
	p.mu.Unlock()
	if r := c.join(cli.ExitDenied, anybody, "--cloud=false"); r["reason"] != "platform-unproved" || !strings.Contains(fmt.Sprint(r), "identity.device: ") {
		t.Errorf("evidence of no device: %v", r)
	}
	p.mu.Lock()
	p.answer = nil
	p.mu.Unlock()
	as := func(m machine.Machine, _, nonce []byte) ([]byte, error) {
		return simtrust.SNPEvidence(amd, m, 0, nonce)
	}
	if n := c.phala(cli.ExitOK, c.key, "node", "show", "1"); n["proof"] != nil {
		t.Errorf("the cloud took something: %v", n["proof"])
	}
	if err := c.give(as, launched); err != nil { // the refusals were not about how it is asked
		t.Error(err)
	}
}

// give gives the cloud the answer to a challenge of its own.
func (c *cloud) give(answer simtrust.Answer, m machine.Machine) error {
	c.t.Helper()
	api := cloudapi.Client{Base: c.url, Key: c.key}
	ch, err := api.ChallengeNode(c.t.Context(), 1)
	if err != nil {
		c.t.Fatal(err)
	}
	fresh, err := hex.DecodeString(ch.Fresh)
	if err != nil || len(fresh) != 32 {
		c.t.Fatalf("%q: %v", ch.Fresh, err)
	}
	b, err := answer(m, nil, vmmapi.JoinNonce([32]byte(fresh), nil))
	if err != nil {
		c.t.Fatal(err)
	}
	_, err = api.JoinNode(c.t.Context(), 1, cloudapi.NodeJoin{Challenge: ch.Challenge, Attestation: b})
	return err
}

// shown is what the hardware's guest shows, taken apart.
func shown(hw *simtee.AMD, m machine.Machine, nonce []byte) (ev attest.Evidence, err error) {
	b, err := simtrust.SNPEvidence(hw, m, 0, nonce)
	if err != nil {
		return ev, err
	}
	return attest.ParseEvidence(b)
}

// must is a result unless an earlier step failed.
func must(b []byte, err error) func(error) ([]byte, error) {
	return func(earlier error) ([]byte, error) { return b, errors.Join(earlier, err) }
}
