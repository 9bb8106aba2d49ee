package boot

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/hostshare"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

const vmConfig = `{"os_image_hash":"0100000000000000000000000000000000000000000000000000000000000000","cpu_count":1,"memory_size":1073741824,"tdx_attestation_variant":"container"}`

const pin = "3059"

type recordingHost struct {
	sent []guestapi.Notify
	fail string // event that is not taken
}

func (h *recordingHost) Notify(_ context.Context, n guestapi.Notify) error {
	if n.Event == h.fail {
		return errors.New("host is not there")
	}
	h.sent = append(h.sent, n)
	return nil
}

func (h *recordingHost) last(event string) string {
	for _, n := range slices.Backward(h.sent) {
		if n.Event == event {
			return n.Payload
		}
	}
	return ""
}

type fixture struct {
	hw    *simtee.Hardware
	deps  Deps
	host  *recordingHost
	rec   *Recorder
	calls []string // "<stage call> @ <events so far>"
	undo  int
}

func newFixture(t *testing.T, compose string, instance guestapi.InstanceInfo) *fixture {
	t.Helper()
	return newFixtureOn(t, simtee.Config{}, func(td *simtee.TD) TEE { return td }, compose, instance)
}

// newFixtureOn boots on a machine of one's own, through the device that wrap makes of the TD.
func newFixtureOn(t *testing.T, machine simtee.Config, wrap func(*simtee.TD) TEE, compose string, instance guestapi.InstanceInfo) *fixture {
	t.Helper()
	machine.Seed = make([]byte, 32)
	hw, err := simtee.New(machine)
	if err != nil {
		t.Fatal(err)
	}
	regs, err := measure.Container(vmConfig)
	if err != nil {
		t.Fatal(err)
	}
	ccel, err := measure.ContainerCCEL(vmConfig)
	if err != nil {
		t.Fatal(err)
	}
	td, err := hw.NewTD("td", simtee.Shape{MRTD: regs.MRTD, RTMR: regs.RTMR, CCEL: ccel})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{host: &recordingHost{}, hw: hw}
	if f.rec, err = NewRecorder(wrap(td), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	call := func(name string) {
		ev := f.rec.Events()
		f.calls = append(f.calls, name+" @ "+ev[len(ev)-1].Name)
	}
	image := cvm.ImageHash{7}
	f.deps = Deps{
		Log: slog.New(slog.DiscardHandler), Now: time.Now, Rand: zeros{}, Events: f.rec, Host: f.host,
		Read: func() (*Shared, error) {
			d, err := appcompose.Parse([]byte(compose))
			return &Shared{Compose: d, Sys: guestapi.SysConfig{VMConfig: vmConfig}, Instance: instance}, err
		},
		KMS: func(context.Context, *State, func(string)) (Keys, error) {
			call("kms")
			return Keys{Provider: "kms", RootSPKI: []byte{0x30, 0x59}, OSImageHash: &image, Disk: keys.NewSecret(make([]byte, 32))}, nil
		},
		Local: func(context.Context, *State) (Keys, error) { call("local"); return Keys{Provider: "none"}, nil },
		Disk: func(_ context.Context, s *State) (string, error) {
			call("disk")
			return "ext4", nil
		},
		Env:      func(context.Context, *State) error { call("env"); return nil },
		Gateway:  func(context.Context, *State) error { call("gateway"); return nil },
		Run:      func(context.Context, *State) error { call("run"); return nil },
		Rollback: func() { f.undo++ },
	}
	return f
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

const kmsApp = `{"manifest_version":2,"name":"t","runner":"docker-compose","docker_compose_file":"services: {}","key_provider":"kms","key_provider_id":"` + pin + `","init_script":["echo 1","echo 2"]}`

func TestOrder(t *testing.T) {
	f := newFixture(t, kmsApp, guestapi.InstanceInfo{AppID: strings.Repeat("ab", 20), Seed: strings.Repeat("00", 20)})
	s, err := Run(t.Context(), f.deps)
	if err != nil {
		t.Fatal(err)
	}
	// Keys are asked for while the log ends exactly at boot-mr-done; nothing of the
	// app runs before system-ready.
	want := []string{"kms @ boot-mr-done", "disk @ key-provider", "env @ system-ready", "gateway @ system-ready", "run @ system-ready"}
	if !slices.Equal(f.calls, want) {
		t.Errorf("calls:\n got %q\nwant %q", f.calls, want)
	}
	if f.undo != 0 {
		t.Error("a boot that succeeded was undone")
	}
	var progress []string
	for _, n := range f.host.sent {
		if n.Event == "boot.progress" {
			progress = append(progress, strings.Fields(n.Payload)[0])
		}
	}
	if want := []string{"1/10", "2/10", "3/10", "4/10", "5/10", "6/10", "7/10", "8/10", "9/10", "10/10"}; !slices.Equal(progress, want) {
		t.Errorf("progress %q", progress)
	}
	if want := []string{"host-shared", "measure", "boot-mr-done", "keys", "key-provider", "disk", "system-ready", "environment", "gateway", "containers"}; !slices.Equal(Stages(), want) {
		t.Errorf("stages %q", Stages())
	}
	if s.InstanceID.IsZero() || s.AppID.String() != strings.Repeat("ab", 20) {
		t.Errorf("identity %s %s", s.AppID, s.InstanceID)
	}
}

// DO NOT CHANGE: what RTMR3 must be for this compose. A change here is a change of
// every measurement.
var goldenEvents = []string{
	"system-preparing ",
	"app-id abababababababababababababababababababab",
	"compose-hash 02e1671e4f5cf394132966719eed5cf20a46a884d8b486cba640cc6530deb424",
	"init-script-hash 8ff76b84557c1745fe2003155f68de27f0c501ccceefd947b5746fe7a7de831e",
	"init-script-hash 9f8f29bb80830f069e821de502ec94200481550c208751d49bc7465815fff4f5",
	"gpu-policy-hash 44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
	"instance-id 7bb500486a9bc31fd5cd2ddcaef76dfa7ef53e4c",
	"boot-mr-done ",
	"os-image-hash 0700000000000000000000000000000000000000000000000000000000000000",
	"key-provider 7b226e616d65223a226b6d73222c226964223a2233303539227d",
	"storage-fs 65787434",
	"system-ready ",
}

func TestEventsGolden(t *testing.T) {
	f := newFixture(t, kmsApp, guestapi.InstanceInfo{AppID: strings.Repeat("ab", 20), Seed: strings.Repeat("00", 20)})
	if _, err := Run(t.Context(), f.deps); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range f.rec.Events() {
		got = append(got, e.Name+" "+hex.EncodeToString(e.Payload))
	}
	if !slices.Equal(got, goldenEvents) {
		t.Errorf("events:\n%s", strings.Join(got, "\n"))
	}
	ev, err := f.rec.Evidence(t.Context(), [64]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	l, err := eventlog.ReadLaunch(ev.RuntimeEvents)
	if err != nil || l.Phase != claim.PhaseRunning {
		t.Errorf("verifier's reading: %v phase %s", err, l.Phase)
	}
	if got, want := len(ev.EventLog), len(goldenEvents); got <= want {
		t.Errorf("event log has %d entries; the firmware's are missing", got)
	}
	checkLogFile(t, f.rec)
}

// checkLogFile: the file of A.4 says what the recorder remembers.
func checkLogFile(t *testing.T, r *Recorder) {
	t.Helper()
	path := filepath.Join(r.dir, "runtime_events.log")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	st, _ := os.Stat(path)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if lines[0] != `{"event":"system-preparing","payload":""}` {
		t.Errorf("first line %s", lines[0])
	}
	var rt []eventlog.Runtime
	for _, l := range lines {
		var e struct {
			Event   string
			Payload []byte
			Version int
		}
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatal(err)
		}
		rt = append(rt, eventlog.Runtime{Name: e.Event, Payload: e.Payload, Version: e.Version})
	}
	a, _ := eventlog.ReplayRuntime(rt)
	if b, _ := eventlog.ReplayRuntime(r.Events()); a != b {
		t.Error("the log file replays to another register")
	}
}

func TestNoInstanceAndNoKMS(t *testing.T) {
	f := newFixture(t, `{"manifest_version":2,"name":"t","runner":"none","key_provider":"none","no_instance_id":true}`, guestapi.InstanceInfo{})
	s, err := Run(t.Context(), f.deps)
	if err != nil {
		t.Fatal(err)
	}
	if f.calls[0] != "local @ boot-mr-done" {
		t.Errorf("calls %q", f.calls)
	}
	h := s.App.Hash()
	if hex.EncodeToString(h[:20]) != s.AppID.String() {
		t.Error("without .instance_info the app id is the start of the compose hash")
	}
	for _, e := range f.rec.Events() {
		if e.Name == eventlog.OSImageHash {
			t.Error("os-image-hash without a KMS")
		}
		if e.Name == eventlog.InstanceID && len(e.Payload) != 0 {
			t.Error("an instance id where the app asks for none")
		}
		if e.Name == eventlog.KeyProvider && string(e.Payload) != `{"name":"none","id":""}` {
			t.Errorf("key provider %s", e.Payload)
		}
	}
}

func TestEventLogVersion2(t *testing.T) {
	f := newFixture(t, `{"manifest_version":2,"name":"t","runner":"none","event_log_version":2}`, guestapi.InstanceInfo{})
	if _, err := Run(t.Context(), f.deps); err != nil {
		t.Fatal(err)
	}
	for _, e := range f.rec.Events() {
		if e.Version != 2 {
			t.Fatalf("%s is version %d", e.Name, e.Version)
		}
	}
}

// A failing stage stops the boot, is undone, and reaches the host with its stage,
// reason and fix.
func TestFailures(t *testing.T) {
	boom := cvm.Errorf(cvm.Denied, "Compose hash not allowed").WithReason("governance-denied").WithFix("allow it")
	tests := []struct {
		stage string
		hook  func(*Deps)
	}{
		{"host-shared", func(d *Deps) { d.Read = func() (*Shared, error) { return nil, boom } }},
		{"keys", func(d *Deps) {
			d.KMS = func(context.Context, *State, func(string)) (Keys, error) { return Keys{}, boom }
		}},
		{"disk", func(d *Deps) { d.Disk = func(context.Context, *State) (string, error) { return "", boom } }},
		{"environment", func(d *Deps) { d.Env = func(context.Context, *State) error { return boom } }},
		{"containers", func(d *Deps) { d.Run = func(context.Context, *State) error { return boom } }},
	}
	for _, tt := range tests {
		t.Run(tt.stage, func(t *testing.T) {
			f := newFixture(t, kmsApp, guestapi.InstanceInfo{})
			tt.hook(&f.deps)
			_, err := Run(t.Context(), f.deps)
			var be *Error
			if !errors.As(err, &be) || be.Stage != tt.stage {
				t.Fatalf("error %v", err)
			}
			var v vmmapi.VMError
			if err := json.Unmarshal([]byte(f.host.last("boot.error")), &v); err != nil {
				t.Fatal(err)
			}
			want := vmmapi.VMError{Stage: tt.stage, Reason: "governance-denied", Message: "Compose hash not allowed", Fix: "allow it"}
			if v != want {
				t.Errorf("host was told %+v", v)
			}
			if f.undo != 1 {
				t.Errorf("undone %d times", f.undo)
			}
			if tt.stage != "containers" && slices.ContainsFunc(f.calls, func(c string) bool { return strings.HasPrefix(c, "run") }) {
				t.Error("containers were started")
			}
		})
	}
}

// A KMS that refuses must leave nothing in the log: os-image-hash is measured only
// for an answer that was accepted.
func TestRefusalMeasuresNothing(t *testing.T) {
	f := newFixture(t, kmsApp, guestapi.InstanceInfo{})
	f.deps.KMS = func(context.Context, *State, func(string)) (Keys, error) {
		return Keys{OSImageHash: &cvm.ImageHash{}}, errors.New("no")
	}
	_, _ = Run(t.Context(), f.deps)
	ev := f.rec.Events()
	if last := ev[len(ev)-1].Name; last != eventlog.BootMRDone {
		t.Errorf("the log ends at %s", last)
	}
}

func TestUnsupported(t *testing.T) {
	tests := map[string]struct{ doc, reason string }{
		"kms without pin": {`{"manifest_version":2,"name":"t","runner":"docker-compose","key_provider":"kms"}`, ReasonUnpinned},
		"kms by flag":     {`{"manifest_version":2,"name":"t","runner":"docker-compose","kms_enabled":true}`, ReasonUnpinned},
		"local provider":  {`{"manifest_version":2,"name":"t","runner":"docker-compose","key_provider":"local"}`, ReasonUnsupported},
		"tpm":             {`{"manifest_version":2,"name":"t","runner":"docker-compose","key_provider":"tpm"}`, ReasonUnsupported},
		"nerdctl":         {`{"manifest_version":2,"name":"t","runner":"nerdctl-compose"}`, ReasonUnsupported},
		"bash":            {`{"manifest_version":2,"name":"t","runner":"bash"}`, ReasonUnsupported},
		"verity":          {`{"manifest_version":2,"name":"t","runner":"none","verity_volumes":[{"source":"x","verity_root":"` + strings.Repeat("ab", 32) + `","target":"/v"}]}`, ReasonUnsupported},
		"swap":            {`{"manifest_version":2,"name":"t","runner":"none","swap_size":1073741824}`, ReasonUnsupported},
		"swap in words":   {`{"manifest_version":2,"name":"t","runner":"none","swap_size":"1G"}`, ReasonUnsupported},
		"gpu policy":      {`{"manifest_version":"3","name":"t","runner":"none","requirements":{"gpu_policy":{"attest_gpu":true}}}`, ReasonUnsupported},
		"launch token":    {`{"manifest_version":"3","name":"t","runner":"none","requirements":{"launch_token_hash":"00"}}`, ReasonUnsupported},
		"other platform":  {`{"manifest_version":"3","name":"t","runner":"none","requirements":{"platforms":["dstack-amd-sev-snp"]}}`, ReasonUnsupported},
		"no platform":     {`{"manifest_version":"3","name":"t","runner":"none","requirements":{"platforms":[]}}`, ReasonUnsupported},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, tt.doc, guestapi.InstanceInfo{})
			_, err := Run(t.Context(), f.deps)
			if got := cvm.ReasonOf(err); got != tt.reason {
				t.Errorf("reason %q, error %v", got, err)
			}
			if len(f.rec.Events()) != 0 {
				t.Error("something was measured")
			}
		})
	}
}

func TestUnpinnedNeedsConfig(t *testing.T) {
	f := newFixture(t, `{"manifest_version":2,"name":"t","runner":"none","key_provider":"kms"}`, guestapi.InstanceInfo{})
	f.deps.AllowUnpinned = true
	if _, err := Run(t.Context(), f.deps); err != nil {
		t.Fatal(err)
	}
}

func TestNewInstanceMustBeKept(t *testing.T) {
	f := newFixture(t, kmsApp, guestapi.InstanceInfo{})
	f.host.fail = "instance.info"
	_, err := Run(t.Context(), f.deps)
	if cvm.ReasonOf(err) != ReasonHost {
		t.Errorf("a lost seed was accepted: %v", err)
	}
	// A host that has it already may be away.
	f = newFixture(t, kmsApp, guestapi.InstanceInfo{Seed: strings.Repeat("11", 20)})
	f.host.fail = "instance.info"
	if _, err := Run(t.Context(), f.deps); err != nil {
		t.Errorf("known instance: %v", err)
	}
}

func TestReadShared(t *testing.T) {
	good := func(t *testing.T) string {
		dir := t.TempDir()
		write(t, dir, "app-compose.json", kmsApp)
		return dir
	}
	t.Run("minimal", func(t *testing.T) {
		s, err := ReadShared(good(t))
		if err != nil || s.EncryptedEnv != nil || s.EnvSignature != nil || string(s.Compose.Raw()) != kmsApp {
			t.Fatalf("%+v %v", s, err)
		}
	})
	t.Run("all", func(t *testing.T) {
		dir := good(t)
		write(t, dir, ".sys-config.json", `{"kms_urls":["https://k"],"vm_config":"{}","mr_config":null,"nvidia_attestation_proxy_url":"https://n"}`)
		write(t, dir, ".env-signature.json", `{"counter":3,"signer":"0x1","signature":"00"}`)
		write(t, dir, ".encrypted-env", "blob")
		s, err := ReadShared(dir)
		if err != nil || s.Sys.KMSURLs[0] != "https://k" || s.EnvSignature.Counter != 3 || string(s.EncryptedEnv) != "blob" {
			t.Fatalf("%+v %v", s, err)
		}
	})
	refused := map[string]func(dir string){
		"missing compose": func(dir string) { _ = os.Remove(filepath.Join(dir, "app-compose.json")) },
		"symlink": func(dir string) {
			_ = os.Remove(filepath.Join(dir, "app-compose.json"))
			_ = os.Symlink("/etc/passwd", filepath.Join(dir, "app-compose.json"))
		},
		"symlinked env": func(dir string) { _ = os.Symlink("/etc/passwd", filepath.Join(dir, ".encrypted-env")) },
		"fifo":          func(dir string) { _ = syscall.Mkfifo(filepath.Join(dir, ".encrypted-env"), 0o600) },
		"directory":     func(dir string) { _ = os.Mkdir(filepath.Join(dir, ".encrypted-env"), 0o700) },
		"env too large": func(dir string) {
			write(t, dir, ".encrypted-env", strings.Repeat("x", int(hostshare.Limit(hostshare.EncryptedEnv))+1))
		},
		"sys too large": func(dir string) {
			write(t, dir, ".sys-config.json", strings.Repeat(" ", int(hostshare.Limit(hostshare.SysConfig))+1))
		},
		"sys, a key that is not known":      func(dir string) { write(t, dir, ".sys-config.json", `{"vm_config":"{}","not_known":1}`) },
		"sys, something after it":           func(dir string) { write(t, dir, ".sys-config.json", `{"vm_config":"{}"}{}`) },
		"instance, a key that is not known": func(dir string) { write(t, dir, ".instance_info", `{"app_id":"","x":1}`) },
		"signature, an unknown key":         func(dir string) { write(t, dir, ".env-signature.json", `{"counter":1,"x":1}`) },
		"sys not JSON":                      func(dir string) { write(t, dir, ".sys-config.json", "{") },
		"compose too large": func(dir string) {
			write(t, dir, "app-compose.json", strings.Repeat(" ", appcompose.MaxSize+1))
		},
	}
	for name, spoil := range refused {
		t.Run(name, func(t *testing.T) {
			dir := good(t)
			spoil(dir)
			if _, err := ReadShared(dir); err == nil || cvm.CodeOf(err) != cvm.Invalid {
				t.Errorf("error %v", err)
			}
		})
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func FuzzReadShared(f *testing.F) {
	f.Add([]byte(kmsApp), []byte(`{"vm_config":"{}"}`), []byte(`{"instance_id_seed":"00"}`), []byte(`{"counter":1}`))
	f.Fuzz(func(t *testing.T, compose, sys, instance, sig []byte) {
		dir := t.TempDir()
		for name, b := range map[string][]byte{"app-compose.json": compose, ".sys-config.json": sys, ".instance_info": instance, ".env-signature.json": sig} {
			write(t, dir, name, string(b))
		}
		s, err := ReadShared(dir)
		if err != nil {
			return
		}
		if string(s.Compose.Raw()) != string(compose) {
			t.Error("the exact bytes were not kept")
		}
		_, _, seed, _, err := identity(s, zeros{}, cvm.VariantTDX)
		if err == nil && seed != nil && len(seed) != 20 {
			t.Errorf("seed of %d bytes", len(seed))
		}
	})
}
