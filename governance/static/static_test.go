package static

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance"
)

func list(t *testing.T, s string) *Authority {
	t.Helper()
	p := filepath.Join(t.TempDir(), "list.json")
	if err := os.WriteFile(p, []byte(s), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := New(Config{Path: p, Now: func() time.Time { return time.Unix(1, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var (
	app     = cvm.AppID{0xaa}
	image   = cvm.ImageHash{1}
	compose = cvm.ComposeHash{2}
	device  = cvm.DeviceID{3}
	mr      = [32]byte{4}
)

func request() governance.BootRequest {
	return governance.BootRequest{AppID: app, ComposeHash: compose, DeviceID: device, MRAggregated: mr, OSImageHash: image, TCBStatus: "UpToDate"}
}

func full() string {
	return `{"gatewayAppId":"0x01","osImages":["0x` + strings.ToUpper(image.String()) + `"],"allowedAdvisoryIds":["INTEL-SA-1"],
	 "kms":{"mrAggregated":["` + cvm.ImageHash(mr).String() + `"],"devices":["` + device.String() + `"]},
	 "apps":{"0xAA` + strings.Repeat("0", 38) + `":{"composeHashes":["` + compose.String() + `"],"devices":["` + device.String() + `"]}}}`
}

func TestReasons(t *testing.T) {
	a := list(t, full())
	if d, err := a.AuthorizeApp(t.Context(), request()); err != nil || !d.Allowed || d.GatewayAppID != "0x01" || d.View.Source != "static" {
		t.Fatalf("%+v, %v", d, err)
	}
	if d, err := a.AuthorizeKMS(t.Context(), request()); err != nil || !d.Allowed {
		t.Fatalf("%+v, %v", d, err)
	}
	for want, change := range map[string]func(*governance.BootRequest){
		"TCB status is not allowed":                 func(r *governance.BootRequest) { r.TCBStatus = "OutOfDate" },
		"advisory ID is not allowed":                func(r *governance.BootRequest) { r.AdvisoryIDs = []string{"INTEL-SA-2"} },
		"OS image is not allowed":                   func(r *governance.BootRequest) { r.OSImageHash = cvm.ImageHash{} },
		"app not registered":                        func(r *governance.BootRequest) { r.AppID = cvm.AppID{} },
		"compose hash not allowed":                  func(r *governance.BootRequest) { r.ComposeHash = cvm.ComposeHash{} },
		"app is not allowed to boot on this device": func(r *governance.BootRequest) { r.DeviceID = cvm.DeviceID{} },
	} {
		r := request()
		change(&r)
		if d, err := a.AuthorizeApp(t.Context(), r); err != nil || d.Allowed || d.Reason != want {
			t.Errorf("%+v, %v, want %q", d, err, want)
		}
	}
	for want, change := range map[string]func(*governance.BootRequest){
		"TCB status is not allowed":                 func(r *governance.BootRequest) { r.TCBStatus = "" },
		"aggregated MR not allowed":                 func(r *governance.BootRequest) { r.MRAggregated = [32]byte{} },
		"KMS is not allowed to boot on this device": func(r *governance.BootRequest) { r.DeviceID = cvm.DeviceID{} },
	} {
		r := request()
		change(&r)
		if d, err := a.AuthorizeKMS(t.Context(), r); err != nil || d.Allowed || d.Reason != want {
			t.Errorf("%+v, %v, want %q", d, err, want)
		}
	}
}

// T9: what is absent allows nothing.
func TestEmptyListsRefuse(t *testing.T) {
	a := list(t, `{}`)
	if d, err := a.AuthorizeApp(t.Context(), request()); err != nil || d.Allowed {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := a.AuthorizeKMS(t.Context(), request()); err != nil || d.Allowed {
		t.Errorf("%+v, %v", d, err)
	}
	a = list(t, strings.Replace(full(), `,"devices":["`+device.String()+`"]}}}`, `}}}`, 1))
	if d, _ := a.AuthorizeApp(t.Context(), request()); d.Allowed {
		t.Error("an empty device list allows any device")
	}
	a = list(t, full())
	if err := os.Remove(a.path); err != nil {
		t.Fatal(err)
	}
	if d, err := a.AuthorizeApp(t.Context(), request()); d.Allowed || cvm.CodeOf(err) != cvm.Unavailable {
		t.Errorf("a list that went away: %+v, %v", d, err)
	}
}

// An edit is in force at once.
func TestReadAgain(t *testing.T) {
	a := list(t, full())
	if err := os.WriteFile(a.path, []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := a.AuthorizeApp(t.Context(), request()); err != nil || d.Allowed {
		t.Errorf("%+v, %v", d, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full()))
	f.Add([]byte(`{"apps":{"x":null}}`))
	f.Add([]byte(`{"unknown":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Parse(b)
		if err != nil {
			return
		}
		for id, r := range l.Apps {
			if _, err := cvm.ParseAppID(id); err != nil || r == nil {
				t.Fatalf("accepted app %q", id)
			}
		}
	})
}
