package verify

import (
	"bytes"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

func TestPlatform(t *testing.T) {
	nonce := bytes.Repeat([]byte{7}, 64)
	for _, x := range []struct {
		name, want string
		do         func(w *world, nonce, doc *[]byte, ev *guestapi.Evidence)
	}{
		{"a genuine answer", "", nil},
		{"an answer to another nonce", "reportdata", func(_ *world, nonce, _ *[]byte, _ *guestapi.Evidence) { *nonce = bytes.Repeat([]byte{8}, 64) }},
		{"the evidence of another app", checkCompose, func(_ *world, _, doc *[]byte, _ *guestapi.Evidence) { *doc = append(*doc, ' ') }},
		{"a root that is not admitted", "root.admitted", func(w *world, _, _ *[]byte, _ *guestapi.Evidence) {
			r := newHardware(t, 2).RootSPKI()
			w.profile.TEE.Roots[0].SPKI = hexOf(r[:])
		}},
		{"a TCB that is not admitted", "tcb", func(w *world, _, _ *[]byte, _ *guestapi.Evidence) { w.profile.TEE.TCBStatus = []string{"OutOfDate"} }},
		{"another image's registers", "image.measurement", func(_ *world, _, _ *[]byte, ev *guestapi.Evidence) {
			e, err := attest.ParseEvidence(ev.Attestation)
			if err != nil {
				t.Fatal(err)
			}
			e.Config = strings.Replace(e.Config, `"cpu_count":1`, `"cpu_count":2`, 1)
			if ev.Attestation, err = e.Marshal(); err != nil {
				t.Fatal(err)
			}
		}},
		{"no evidence", "evidence.parsed", func(_ *world, _, _ *[]byte, ev *guestapi.Evidence) { ev.Attestation = []byte("junk") }},
	} {
		w := newWorld(t, nil)
		n, doc, ev := bytes.Clone(nonce), []byte(w.app.doc), w.guestEvidence("app", w.app, nonce, nil)
		if x.do != nil {
			x.do(w, &n, &doc, &ev)
		}
		c, checks, err := Platform(t.Context(), w.profile, Sources{Collateral: w}, ev, n, doc)
		if x.want == "" {
			if err != nil || c.DeviceID == (cvm.DeviceID{}) || c.Platform != cvm.PlatformSimulated || len(checks) < 10 {
				t.Errorf("%s: %v, device %s", x.name, err, c.DeviceID)
			}
			continue
		}
		if cvm.ReasonOf(err) != "platform-unproved" || !strings.Contains(err.Error(), x.want) || c.DeviceID != (cvm.DeviceID{}) {
			t.Errorf("%s: want %s, got %v (device %s)", x.name, x.want, err, c.DeviceID)
		}
	}
	w := newWorld(t, nil)
	if _, _, err := Platform(t.Context(), w.profile, Sources{Collateral: w}, w.guestEvidence("app", w.app, nonce, nil), nonce[:16], []byte(w.app.doc)); err == nil {
		t.Error("a short nonce was taken")
	}
}
