package attest_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/simtee/simdev"
	"github.com/confidential-cloud/phala/cvm"
)

// nitroScene is evidence of a simulated AWS hypervisor, and a policy that admits it.
type nitroScene struct {
	hw  *simdev.Nitro
	ev  attest.Evidence
	set collateral.Set
	p   attest.Policy
	at  time.Time
}

func nitroEvents() []eventlog.Runtime {
	return []eventlog.Runtime{
		{Name: eventlog.SystemPreparing}, {Name: eventlog.AppID, Payload: bytes.Repeat([]byte{7}, 20)}, {Name: eventlog.ComposeHash, Payload: bytes.Repeat([]byte{8}, 32)},
		{Name: eventlog.GPUPolicyHash, Payload: make([]byte, 32)}, {Name: eventlog.InstanceID, Payload: make([]byte, 20)}, {Name: eventlog.BootMRDone},
	}
}

// newNitroScene is accepted as it stands; edit changes the hypervisor before it signs.
func newNitroScene(t *testing.T, variant string, edit func(*simdev.Nitro)) *nitroScene {
	t.Helper()
	s := &nitroScene{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	tpm := variant == claim.VariantNitroTPM
	hw, err := simdev.NewNitro("a", s.at, tpm)
	if err != nil {
		t.Fatal(err)
	}
	s.hw = hw
	s.ev = attest.Evidence{Variant: variant, ReportData: [64]byte{1, 2, 3}, Config: "{}"}
	hw.Document.UserData = s.ev.ReportData[:]
	which := []int{0, 1, 2}
	s.p.Phases = []claim.Phase{claim.PhaseUnproven}
	if tpm {
		which, s.ev.RuntimeEvents, s.p.Phases = []int{4, 7, 12}, nitroEvents(), []claim.Phase{claim.PhaseRelease}
		if hw.Document.PCRs[14], err = eventlog.ReplayBank(nitroEvents(), crypto.SHA384); err != nil {
			t.Fatal(err)
		}
	}
	if edit != nil {
		edit(hw)
	}
	var image []byte
	for _, i := range which {
		image = append(image, hw.Document.PCRs[i]...)
	}
	rd := s.ev.ReportData
	s.p.Roots, s.p.ReportData = []attest.Root{attest.SimulatedRoot(hw.PKI.Root())}, &rd
	s.p.Nitro = attest.NitroPolicy{MaxAge: 60, Images: []cvm.ImageHash{sha256.Sum256(image)}}
	crls, err := hw.PKI.CRLs(s.at)
	if err != nil {
		t.Fatal(err)
	}
	s.set.AWS = &collateral.AWS{CRLs: crls}
	if s.ev.Document, err = hw.Sign(); err != nil {
		t.Fatal(err)
	}
	return s
}

// verify goes over the wire first.
func (s *nitroScene) verify(t *testing.T) (attest.Verified, error) {
	t.Helper()
	b, err := s.ev.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	ev, err := attest.ParseEvidence(b)
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := attest.NewVerifier(1).Verify(ev, s.set, s.p, s.at)
	return v, err
}

func TestNitroVerified(t *testing.T) {
	for _, variant := range []string{claim.VariantNitroEnclave, claim.VariantNitroTPM} {
		s := newNitroScene(t, variant, nil)
		v, err := s.verify(t)
		if err != nil {
			t.Fatal(err)
		}
		c := v.Claims()
		if c.Platform != cvm.PlatformSimulated || c.Variant != variant || c.OSImageHash != s.p.Nitro.Images[0] || c.Nitro == nil || c.Nitro.ModuleID != "i-0123-enc4567" ||
			c.DeviceID != sha256.Sum256([]byte("i-0123")) || !bytes.Equal(c.ReportData, s.ev.ReportData[:]) || c.VMConfig != "" || c.Expires.IsZero() {
			t.Errorf("%s: %+v", variant, c)
		}
		wantPhase, wantApp := claim.PhaseUnproven, cvm.AppID{}
		if variant == claim.VariantNitroTPM {
			wantPhase, wantApp = claim.PhaseRelease, cvm.AppID(bytes.Repeat([]byte{7}, 20))
		}
		if c.Phase != wantPhase || c.AppID != wantApp {
			t.Errorf("%s: phase %s, app %s", variant, c.Phase, c.AppID)
		}
	}
}

// Each line of the policy and of the binding, taken away, refuses by its name.
func TestNitroRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		variant string
		check   string
		make    func(*simdev.Nitro)
		edit    func(*nitroScene)
	}{
		"no root":              {claim.VariantNitroEnclave, claim.RootAdmitted, nil, func(s *nitroScene) { s.p.Roots = nil }},
		"AWS's root alone":     {claim.VariantNitroEnclave, claim.RootAdmitted, nil, func(s *nitroScene) { s.p.Roots = attest.AWSRoots() }},
		"called genuine":       {claim.VariantNitroEnclave, claim.RootAdmitted, nil, func(s *nitroScene) { s.p.Roots[0].Platform = cvm.PlatformNitro }},
		"no age":               {claim.VariantNitroEnclave, claim.DocumentFresh, nil, func(s *nitroScene) { s.p.Nitro.MaxAge = 0 }},
		"too old":              {claim.VariantNitroEnclave, claim.DocumentFresh, nil, func(s *nitroScene) { s.at = s.at.Add(61 * time.Second) }},
		"no image":             {claim.VariantNitroEnclave, claim.DocumentImage, nil, func(s *nitroScene) { s.p.Nitro.Images = nil }},
		"another image":        {claim.VariantNitroTPM, claim.DocumentImage, nil, func(s *nitroScene) { s.p.Nitro.Images[0][0] ^= 1 }},
		"no phase":             {claim.VariantNitroEnclave, claim.PhaseCheck, nil, func(s *nitroScene) { s.p.Phases = nil }},
		"release of enclave":   {claim.VariantNitroEnclave, claim.PhaseCheck, nil, func(s *nitroScene) { s.p.Phases = []claim.Phase{claim.PhaseRelease} }},
		"TPM: another phase":   {claim.VariantNitroTPM, claim.PhaseCheck, nil, func(s *nitroScene) { s.p.Phases = []claim.Phase{claim.PhaseUnproven} }},
		"TPM: another log":     {claim.VariantNitroTPM, claim.EventlogReplay, nil, func(s *nitroScene) { s.ev.RuntimeEvents[1].Payload[0] ^= 1 }},
		"no report data":       {claim.VariantNitroEnclave, claim.DocumentNonce, nil, func(s *nitroScene) { s.p.ReportData = nil }},
		"a value and any":      {claim.VariantNitroEnclave, claim.DocumentNonce, nil, func(s *nitroScene) { s.p.AnyReportData = true }},
		"another request":      {claim.VariantNitroEnclave, claim.DocumentNonce, nil, func(s *nitroScene) { s.p.ReportData[63] ^= 1 }},
		"evidence says other":  {claim.VariantNitroEnclave, claim.DocumentNonce, nil, func(s *nitroScene) { s.ev.ReportData[0] ^= 1; *s.p.ReportData = s.ev.ReportData }},
		"says other, any will": {claim.VariantNitroEnclave, claim.DocumentNonce, nil, func(s *nitroScene) { s.ev.ReportData[0] ^= 1; s.p.ReportData, s.p.AnyReportData = nil, true }},
		"no lists":             {claim.VariantNitroEnclave, claim.CRLRevoked, nil, func(s *nitroScene) { s.set.AWS = nil }},
		"revoked":              {claim.VariantNitroEnclave, claim.CRLRevoked, nil, func(s *nitroScene) { s.set.AWS.CRLs, _ = s.hw.PKI.CRLs(s.at, s.hw.PKI.Certs[0]) }},
		"debug":                {claim.VariantNitroEnclave, claim.DocumentDebug, func(n *simdev.Nitro) { n.Document.PCRs[0] = make([]byte, 48) }, nil},
		"a key":                {claim.VariantNitroEnclave, claim.DocumentBinding, func(n *simdev.Nitro) { n.Document.PublicKey = []byte("k") }, nil},
		"an enclave as TPM":    {claim.VariantNitroEnclave, claim.DocumentParse, nil, func(s *nitroScene) { s.ev.Variant = claim.VariantNitroTPM }},
		"no document":          {claim.VariantNitroEnclave, claim.DocumentParse, nil, func(s *nitroScene) { s.ev.Document = nil }},
		"cut":                  {claim.VariantNitroEnclave, claim.DocumentParse, nil, func(s *nitroScene) { s.ev.Document = s.ev.Document[:100] }},
	} {
		s := newNitroScene(t, tc.variant, tc.make)
		if tc.edit != nil {
			tc.edit(s)
		}
		_, err := s.verify(t)
		var r *claim.Rejection
		if !errors.As(err, &r) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, c := range r.Checks {
			if c.Verdict == claim.Failed {
				got = append(got, c.Name)
			}
		}
		if !slices.Equal(got, []string{tc.check}) {
			t.Errorf("%s: failed %v, want %s", name, got, tc.check)
		}
		if rootless := slices.Contains([]string{claim.RootAdmitted, claim.DocumentParse}, tc.check); r.Genuine == rootless {
			t.Errorf("%s: genuine %v", name, r.Genuine)
		}
	}
	s := newNitroScene(t, claim.VariantNitroEnclave, nil)
	if _, _, err := attest.Verify(s.ev, s.set, attest.Policy{}, s.at); err == nil {
		t.Error("the zero policy admits AWS Nitro")
	}
	if p := attest.Strict(claim.PhaseRelease); p.Nitro.MaxAge != 0 || slices.Contains(p.Roots, attest.AWSRoots()[0]) {
		t.Error("the strict policy admits AWS Nitro")
	}
	for _, doc := range []string{`{"nitro":{"images":[]}}`, `{"nitro":{"images":["` + cvm.ImageHash{}.String() + `"],"any_image":true}}`, `{"nitro":{"max_age":-1}}`, `{"nitro":{"age":1}}`} {
		if _, err := attest.ParsePolicy([]byte(doc)); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", doc, err)
		}
	}
	p, err := attest.ParsePolicy([]byte(`{"roots":["aws"],"report_data":"any","nitro":{"max_age":60,"any_image":true}}`))
	if err != nil || !slices.Equal(p.Roots, attest.AWSRoots()) || !p.Nitro.AnyImage {
		t.Errorf("%+v, %v", p, err)
	}
	again, err := p.MarshalJSON()
	if q, perr := attest.ParsePolicy(again); err != nil || perr != nil || q.Nitro.MaxAge != 60 {
		t.Errorf("%s: %v %v", again, err, perr)
	}
}
