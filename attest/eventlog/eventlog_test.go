package eventlog_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/cvm"
)

// Frozen: guests and verifiers in the field compute these. DO NOT CHANGE.
func TestDigestVectors(t *testing.T) {
	for _, tc := range []struct {
		e    eventlog.Runtime
		want string
	}{
		{eventlog.Runtime{Name: "system-preparing"}, "f9974020ef507068183313d0ca808e0d1ca9b2d1ad0c61f5784e7157c362c06536f5ddacdad4451693f48fcc72fff624"},
		{eventlog.Runtime{Name: "app-id", Payload: bytes.Repeat([]byte{0xab}, 20)}, "8d307f7640651e8345e61eecbdc3919c4c41e0ebc6f7125e7a5d96fec0a098b4d298be86afd5fe8c9b365d1701889861"},
		{eventlog.Runtime{Name: "app-id", Payload: bytes.Repeat([]byte{0xab}, 20), Version: 2}, "f74fdc42a21e55eb5f31eb413e69fd039d740884581d3042ef73718b6c28d3dfb26e81b1a2cf8dcb751aa5ef3f2be988"},
	} {
		if got := tc.e.Digest().String(); got != tc.want {
			t.Errorf("%s version %d: %s", tc.e.Name, tc.e.Version, got)
		}
	}
	e := eventlog.Runtime{Name: "app-id", Payload: []byte{1, 0xfe}, Version: 2}
	if got, want := string(e.Preimage()), `{"name":"app-id","payload":"01fe","type":134217729}`; got != want {
		t.Errorf("preimage %s", got)
	}
}

// V1 joins name and payload with ':': these two would share a digest.
func TestV1AmbiguityIsClosed(t *testing.T) {
	a := eventlog.Runtime{Name: "key-provider", Payload: []byte(`{"name":"local"}`)}
	b := eventlog.Runtime{Name: `key-provider:{"name"`, Payload: []byte(`"local"}`)}
	if a.Digest() != b.Digest() {
		t.Fatal("the ambiguity this test is about is gone")
	}
	if err := b.Validate(); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("accepted: %v", err)
	}
	if _, err := eventlog.ReplayRuntime([]eventlog.Runtime{b}); err == nil {
		t.Error("replayed")
	}
	for _, name := range []string{"", "UPPER", "under_score", "ä", strings.Repeat("a", eventlog.MaxName+1), "a b", "a:b"} {
		if (eventlog.Runtime{Name: name}).Validate() == nil {
			t.Errorf("name %q accepted", name)
		}
	}
}

func launch() []eventlog.Runtime {
	return []eventlog.Runtime{
		{Name: eventlog.SystemPreparing},
		{Name: eventlog.AppID, Payload: bytes.Repeat([]byte{1}, 20)},
		{Name: eventlog.ComposeHash, Payload: bytes.Repeat([]byte{2}, 32)},
		{Name: eventlog.InitScriptHash, Payload: bytes.Repeat([]byte{3}, 32)},
		{Name: eventlog.InitScriptHash, Payload: bytes.Repeat([]byte{4}, 32)},
		{Name: eventlog.GPUPolicyHash, Payload: bytes.Repeat([]byte{5}, 32)},
		{Name: eventlog.InstanceID, Payload: bytes.Repeat([]byte{6}, 20)},
		{Name: eventlog.BootMRDone},
		{Name: eventlog.OSImageHash, Payload: bytes.Repeat([]byte{7}, 32)},
		{Name: eventlog.KeyProvider, Payload: []byte(`{"name":"kms"}`)},
		{Name: eventlog.StorageFS, Payload: []byte("ext4")},
		{Name: eventlog.SystemReady},
		{Name: "my-event", Payload: []byte("x")},
		{Name: "my-event", Payload: []byte("x")},
	}
}

func TestPhases(t *testing.T) {
	all := launch()
	for n := range len(all) + 1 {
		l, err := eventlog.ReadLaunch(all[:n])
		if err != nil {
			t.Fatalf("%d events: %v", n, err)
		}
		want := claim.PhaseEarly
		switch {
		case n >= 12:
			want = claim.PhaseRunning
		case n > 8:
			want = claim.PhaseBooting
		case n == 8:
			want = claim.PhaseRelease
		}
		if l.Phase != want {
			t.Errorf("%d events: phase %s, want %s", n, l.Phase, want)
		}
		if (l.BootEvents == 8) != (n >= 8) {
			t.Errorf("%d events: boot-mr-done at %d", n, l.BootEvents)
		}
	}
	l, _ := eventlog.ReadLaunch(all)
	if l.AppID != cvm.AppID(bytes.Repeat([]byte{1}, 20)) || len(l.InitScripts) != 2 || l.StorageFS != "ext4" || l.InstanceID.IsZero() {
		t.Errorf("%+v", l)
	}
}

// No event may be doubled, moved before another, or be unknown before
// system-ready; none of the launch's names may come after it.
func TestLaunchRefusesEveryDoublingAndSwap(t *testing.T) {
	all := launch()
	const ready = 11
	for i := range ready + 1 {
		if all[i].Name == eventlog.InitScriptHash {
			continue // may repeat
		}
		if _, err := eventlog.ReadLaunch(slices.Insert(slices.Clone(all), i, all[i])); err == nil {
			t.Errorf("%s twice", all[i].Name)
		}
		if _, err := eventlog.ReadLaunch(append(slices.Clone(all), all[i])); err == nil {
			t.Errorf("%s after system-ready", all[i].Name)
		}
		if _, err := eventlog.ReadLaunch(slices.Insert(slices.Clone(all), i, eventlog.Runtime{Name: "other"})); err == nil {
			t.Errorf("unknown event before %s", all[i].Name)
		}
		for j := range i {
			if all[j].Name == all[i].Name {
				continue
			}
			swapped := slices.Clone(all)
			swapped[i], swapped[j] = swapped[j], swapped[i]
			if _, err := eventlog.ReadLaunch(swapped); err == nil {
				t.Errorf("%s and %s swapped", all[i].Name, all[j].Name)
			}
		}
	}
	if _, err := eventlog.ReadLaunch(slices.Insert(slices.Clone(all), 3, all[3], all[3], all[3], all[3])); err == nil {
		t.Error("six init scripts")
	}
	for i, e := range all[:12] {
		bad := slices.Clone(all)
		bad[i].Payload = append([]byte("xxx"), e.Payload...)
		if _, err := eventlog.ReadLaunch(bad); err == nil && e.Name != eventlog.KeyProvider && e.Name != eventlog.StorageFS {
			t.Errorf("%s with a payload of %d bytes", e.Name, len(bad[i].Payload))
		}
	}
}

func TestJSONForm(t *testing.T) {
	events := []eventlog.Event{
		{IMR: 0, Type: 0x0a, Digest: bytes.Repeat([]byte{1}, 48), Name: "acpi-loader", Payload: []byte("ACPI DATA")},
		eventlog.Runtime{Name: "app-id", Payload: []byte{1}}.Event(),
		eventlog.Runtime{Name: "app-id", Payload: []byte{1}, Version: 2}.Event(),
	}
	b, err := eventlog.EncodeJSON(events)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(b), `[{"imr":0,"event_type":10,"digest":"0101`) || !strings.Contains(string(b), `"event":"acpi-loader","event_payload":"414350`) ||
		!strings.Contains(string(b), `"version":2,"preimage":"7b22`) {
		t.Errorf("%s", b)
	}
	again, err := eventlog.ParseJSON(b)
	if err != nil || len(again) != 3 || !bytes.Equal(again[2].Preimage, events[2].Preimage) {
		t.Errorf("%v %v", again, err)
	}
	if b, _ := eventlog.EncodeJSON(nil); string(b) != "[]" {
		t.Errorf("empty log is %s", b)
	}
	for _, bad := range []string{`{}`, `[] []`, `[{"imr":4}]`, `[{"imr":0,"digest":"00"}]`, `[{"imr":0,"digest":"zz"}]`, `[{"extra":1}]`, `[{"imr":3,"version":3}]`, ``, `[`, `[{"imr":0}`, `[{"imr":0},`} {
		if _, err := eventlog.ParseJSON([]byte(bad)); err == nil {
			t.Errorf("accepted %s", bad)
		}
	}
}

func TestStrip(t *testing.T) {
	events := []eventlog.Event{
		{IMR: 0, Type: 1, Digest: make([]byte, 48), Payload: []byte("x")},
		{IMR: 0, Type: 0x0a, Digest: make([]byte, 48), Payload: []byte("ACPI DATA")},
		eventlog.Runtime{Name: "a", Payload: []byte{1}}.Event(),
		eventlog.Runtime{Name: "b", Version: 2}.Event(),
	}
	got := eventlog.Strip(events)
	if got[0].Payload != nil || got[0].Digest == nil || got[1].Payload == nil || got[2].Digest != nil || got[2].Payload == nil || got[3].Digest == nil || got[3].Preimage == nil {
		t.Errorf("%+v", got)
	}
	if n := len(eventlog.StripForCert(events)); n != 3 {
		t.Errorf("%d events for a certificate", n)
	}
	if events[0].Payload == nil || events[2].Digest == nil {
		t.Error("the input was changed")
	}
}

func vector(t testing.TB, name string) []byte {
	t.Helper()
	dirs := []string{os.Getenv("PHALA_VECTORS")}
	if dirs[0] == "" {
		wd, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for d := wd; d != filepath.Dir(d); d = filepath.Dir(d) {
			dirs = append(dirs, filepath.Join(filepath.Dir(d), "shared", "vectors"))
		}
	}
	for _, d := range dirs {
		if b, err := os.ReadFile(filepath.Join(d, name)); err == nil {
			return b
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	t.Skipf("SKIPPED: the recorded vector %s is not here (set PHALA_VECTORS)", name)
	return nil
}

func TestRecordedCCEL(t *testing.T) {
	events, err := eventlog.ParseCCEL(vector(t, "ccel.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != 18 {
		t.Fatalf("%d events", len(events))
	}
	if _, err := eventlog.ACPIDigests(events); err != nil {
		t.Error(err)
	}
	var names []string
	for _, e := range events {
		if e.Name != "" {
			names = append(names, e.Name)
		}
	}
	if !slices.Equal(names, []string{"acpi-loader", "acpi-rsdp", "acpi-tables"}) {
		t.Errorf("%q", names)
	}
	b, err := eventlog.EncodeCCEL(events)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(vector(t, "ccel.bin"), b) {
		t.Error("does not re-encode to the same bytes")
	}
}

func TestCCELRefusals(t *testing.T) {
	good, err := eventlog.EncodeCCEL([]eventlog.Event{{IMR: 0, Type: 1, Digest: make([]byte, 48), Payload: []byte("hello")}})
	if err != nil {
		t.Fatal(err)
	}
	const first = 32 + 33 // where the second entry begins
	at := func(i int, b ...byte) []byte {
		out := slices.Clone(good)
		copy(out[i:], b)
		return out
	}
	for name, b := range map[string][]byte{
		"empty": {}, "truncated": good[:len(good)-1], "junk after": append(slices.Clone(good), 1, 2, 3),
		"mixed padding": append(slices.Clone(good), 0, 0xff), "register 4": at(first, 5), "two digests": at(first+8, 2),
		"other algorithm": at(first+12, 0x0b), "no Spec ID": at(32, 'X'), "SHA-256 log": at(32+28, 0x0b), "payload length": at(first+62, 0xff, 0xff, 0xff, 0xff),
	} {
		if _, err := eventlog.ParseCCEL(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, pad := range []byte{0, 0xff} {
		if ev, err := eventlog.ParseCCEL(append(slices.Clone(good), bytes.Repeat([]byte{pad}, 100)...)); err != nil || len(ev) != 1 {
			t.Errorf("padding %#x: %v", pad, err)
		}
	}
}

func FuzzParseCCEL(f *testing.F) {
	good, err := eventlog.EncodeCCEL([]eventlog.Event{{IMR: 1, Type: 7, Digest: make([]byte, 48), Payload: []byte("x")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		events, err := eventlog.ParseCCEL(b)
		if err != nil {
			return
		}
		if _, err := eventlog.ReadLaunch(eventlog.Runtimes(events)); err == nil && len(b) == 0 {
			t.Error("empty log accepted")
		}
		for i := range uint32(4) {
			eventlog.ReplayBoot(events, i)
		}
	})
}

func FuzzParseJSON(f *testing.F) {
	f.Add([]byte(`[{"imr":3,"event_type":134217729,"digest":"","event":"app-id","event_payload":"01","version":2}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		events, err := eventlog.ParseJSON(b)
		if err != nil {
			return
		}
		out, err := eventlog.EncodeJSON(events)
		if err != nil {
			t.Fatal(err)
		}
		again, err := eventlog.ParseJSON(out)
		if err != nil || len(again) != len(events) {
			t.Fatalf("re-encoding is not accepted: %v", err)
		}
	})
}
