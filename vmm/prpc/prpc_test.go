package prpc

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// table is VMs in memory.
type table struct{ vms []vmmapi.VM }

func (x *table) Put(s vmmapi.Spec) (vmmapi.VM, error) {
	vm := vmmapi.VM{Spec: s, State: vmmapi.StateCreated}
	x.vms = append(x.vms[:min(len(x.vms), 3)], vm)
	return vm, nil
}
func (x *table) List() []vmmapi.VM { return x.vms }
func (x *table) Respec(_ context.Context, id string, change func(*vmmapi.Spec) error) (vmmapi.VM, error) {
	for i := range x.vms {
		if x.vms[i].Spec.ID == id {
			return x.vms[i], change(&x.vms[i].Spec)
		}
	}
	return vmmapi.VM{}, notFound(id)
}
func (x *table) Order(context.Context, string, string) error { return nil }

func service() (*Service, *table) {
	x := &table{vms: []vmmapi.VM{{Spec: vmmapi.Spec{ID: "a", Name: "one"}, State: vmmapi.StateRunning}}}
	return New(Config{VMs: x, Details: func(string, bool) Details { return Details{} }, Now: func() time.Time { return time.Time{} }}), x
}

func ask(s *Service, method, target, body string) (int, string) {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestWhatOnlyReads(t *testing.T) {
	s, _ := service()
	for name := range s.vmm {
		change := strings.HasSuffix(name, "Vm") || strings.HasPrefix(name, "Sv") && name != "SvList" || strings.HasPrefix(name, "Pull") || strings.HasPrefix(name, "Delete") || name == "UpgradeApp" || name == "ReloadVms"
		for _, prefix := range []string{"", "Vmm.", "Teepod.", "Teepod.Vmm.Teepod."} {
			if ReadOnly(MountVmm+prefix+name) == change {
				t.Errorf("%s%s: changes something: %v", prefix, name, change)
			}
		}
		if code, got := ask(s, http.MethodGet, MountVmm+name, ""); change && (code != http.StatusBadRequest || !strings.Contains(got, "use POST")) {
			t.Errorf("GET %s: %d %s", name, code, got)
		}
	}
	if ReadOnly(MountVmm+"Unknown") || ReadOnly(MountGuest+"Shutdown") || !ReadOnly(MountGuest+"ProxiedGuestApi.Info") || ReadOnly(MountGuest+"Status") || ReadOnly(MountVmm+"SysInfo") || !ReadOnly(PathLogs) {
		t.Error("what is not known to read only counts as changing")
	}
	if Owns("/v1/vms") || Owns("/logs/x") || !Owns("/prpc/x") || !Owns("/guest/x") {
		t.Error("Owns")
	}
}

func TestEnvKey(t *testing.T) {
	s, _ := service()
	app := strings.Repeat("ab", 20)
	if code, got := ask(s, "POST", "/prpc/GetAppEnvEncryptPubKey", `{"app_id":"`+app+`"}`); code != 400 || !strings.Contains(got, "knows no KMS") {
		t.Errorf("%d %s", code, got)
	}
	s.cfg.EnvKey = func(_ context.Context, a cvm.AppID) (kmsapi.EnvKey, error) {
		if a.String() != app {
			t.Errorf("asked for %s", a)
		}
		return kmsapi.EnvKey{PublicKey: []byte{1}, Signature: []byte{2}, SignatureV1: []byte{3}, Timestamp: 4}, nil
	}
	want := `{"public_key":"01","signature":"02","timestamp":4,"signature_v1":"03"}`
	for _, q := range []string{`{"app_id":"0x` + app + `"}`, `{"app_id":"` + app + `"}`} {
		if code, got := ask(s, "POST", "/prpc/GetAppEnvEncryptPubKey", q); code != 200 || got != want {
			t.Errorf("%s: %d %s", q, code, got)
		}
	}
	if code, got := ask(s, "GET", "/prpc/Vmm.GetAppEnvEncryptPubKey?app_id="+app, ""); code != 200 || got != want {
		t.Errorf("GET: %d %s", code, got)
	}
	if code, got := ask(s, "POST", "/prpc/GetAppEnvEncryptPubKey", `{"app_id":"ab"}`); code != 400 || !strings.Contains(got, "1 bytes, want 20") {
		t.Errorf("short id: %d %s", code, got)
	}
}

func TestInternalErrorsKeepTheirText(t *testing.T) {
	s, _ := service()
	s.cfg.EnvKey = func(context.Context, cvm.AppID) (kmsapi.EnvKey, error) { return kmsapi.EnvKey{}, context.Canceled }
	if _, got := ask(s, "POST", "/prpc/GetAppEnvEncryptPubKey", `{"app_id":"`+strings.Repeat("ab", 20)+`"}`); strings.Contains(got, "cancel") {
		t.Error(got)
	}
}

func TestProtobufIsRefusedClearly(t *testing.T) {
	s, _ := service()
	r := httptest.NewRequest("POST", "/prpc/StartVm", strings.NewReader("\x0a\x01a"))
	r.Header.Set("Content-Type", "application/octet-stream")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != 400 || !strings.Contains(w.Body.String(), "protobuf is not spoken") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestHumanTime(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", -time.Hour: "0s", 59*time.Second + 999*time.Millisecond: "59s",
		25*time.Hour + 61*time.Second: "1day 1h 1m 1s", 48 * time.Hour: "2days"} {
		if got := humanTime(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

// FuzzWire: whatever is sent, the answer is JSON with 200 or 400.
func FuzzWire(f *testing.F) {
	f.Add("CreateVm", []byte(`{"name":"x","compose_file":"{}","vcpu":1}`), "")
	f.Add("UpdateVm", []byte(`{"id":"a","update_ports":true,"ports":[{"host_port":1}],"disk_size":4294967295}`), "")
	f.Add("Vmm.Teepod.Status", []byte(`{"page":4294967295,"page_size":4294967295}`), "")
	f.Add("Status", []byte(nil), "ids[0]=a&brief=true&page=-1")
	f.Fuzz(func(t *testing.T, name string, body []byte, query string) {
		s, x := service()
		for _, method := range []string{"POST", "GET"} {
			r := httptest.NewRequest(method, "/prpc/x", bytes.NewReader(body))
			r.URL = &url.URL{Path: MountVmm + name, RawQuery: query}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != http.StatusOK && w.Code != http.StatusBadRequest || !json.Valid(w.Body.Bytes()) {
				t.Fatalf("%s %q: %d %s", name, body, w.Code, w.Body)
			}
		}
		for _, vm := range x.vms {
			if vm.Spec.Resources.DiskMiB < 0 || vm.Spec.Resources.VCPU < 0 {
				t.Fatalf("sizes overflowed: %+v", vm.Spec.Resources)
			}
		}
	})
}
