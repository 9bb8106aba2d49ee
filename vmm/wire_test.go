package vmm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// call asks the reference's API.
func (n *node) call(method, path, body string) (int, string) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), method, "http://"+n.vmm.Addr()+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	token, err := EnsureToken(n.cfg.TokenFile)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(b))
}

// withID replaces what differs from run to run.
var changing = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|"timestamp":\d+|"uptime":"[^"]*"|"mac":"[0-9a-f:]{17}"|"exited_at":"[^"]*"`)

func steady(s string) string {
	return changing.ReplaceAllStringFunc(s, func(m string) string {
		if name, _, ok := strings.Cut(m, ":"); ok && m[0] == '"' {
			return name + `:X`
		}
		return "ID"
	})
}

// TestReferenceWire is the reference's RPC, request by request: what our document of
// it says goes in and comes out (dstack-host-and-edge B.1, dstack-core 0).
func TestReferenceWire(t *testing.T) {
	d := dry.New(dry.Config{LogDir: t.TempDir()})
	n := newNode(t, d, func(c *Config) {
		c.Gateway = Gateway{URLs: []string{"https://gw.example:9202"}, BaseDomain: "apps.example", Port: 443}
		c.Ports = Ports{Enabled: true, Address: loopback(), Ranges: []vmmapi.PortRange{{Protocol: "tcp", From: 20000, To: 20100}}}
	})
	sum := sha256.Sum256([]byte(composeDoc))
	hash, app := hex.EncodeToString(sum[:]), hex.EncodeToString(sum[:20])
	compose, _ := json.Marshal(composeDoc)
	create := fmt.Sprintf(`{"name":"hello","image":"phala-1","compose_file":%s,"vcpu":1,"memory":512,"disk_size":2,"encrypted_env":"0xC0ffee","user_config":"u","ports":[{"protocol":"tcp","host_port":20001,"vm_port":80,"host_address":""}],"kms_urls":["https://kms.example:9201"],"stopped":true,"unknown_field":1}`, compose)
	code, body := n.call("POST", "/prpc/CreateVm", create)
	var id struct{ ID string }
	if err := json.Unmarshal([]byte(body), &id); code != 200 || err != nil || id.ID == "" {
		t.Fatalf("CreateVm: %d %s", code, body)
	}
	vm, err := n.c.Get(t.Context(), id.ID)
	if err != nil || string(vm.Spec.App.EncryptedEnv) != "\xc0\xff\xee" || vm.Spec.AppID.String() != app || vm.Spec.Resources.DiskMiB != 2048 || vm.State != vmmapi.StateCreated || vm.Spec.GatewayURLs[0] != "https://gw.example:9202" {
		t.Fatalf("%+v %v", vm, err)
	}
	idBody := `{"id":"` + id.ID + `"}`
	configuration := fmt.Sprintf(`{"name":"hello","image":"phala-1","compose_file":%s,"vcpu":1,"memory":512,"disk_size":2,"ports":[{"protocol":"tcp","host_port":20001,"vm_port":80,"host_address":""}],"encrypted_env":"c0ffee","app_id":%q,"user_config":"u","hugepages":false,"pin_numa":false,"gpus":null,"kms_urls":["https://kms.example:9201"],"gateway_urls":["https://gw.example:9202"],"stopped":false,"no_tee":false,"networking":null,"networks":[],"simulated_tee":false}`, compose, app)
	info := func(status, progress, exited, events, conf string) string {
		return fmt.Sprintf(`{"id":"ID","name":"hello","status":%q,"uptime":X,"app_url":null,"app_id":%q,"instance_id":null,"configuration":%s,"exited_at":%s,"boot_progress":%q,"boot_error":"","shutdown_progress":"","image_version":"","events":%s,"interfaces":[{"mode":"user","backend":"slirp","mac":X,"bridge_name":null,"netdev_id":"net0"}]}`, status, app, conf, exited, progress, events)
	}
	for _, c := range []struct{ method, path, body, want string }{
		{"POST", "/prpc/Vmm.GetInfo", `{"id":"nope"}`, `{"found":false,"info":null}`},
		{"POST", "/prpc/Status?json", `{"brief":true}`, `{"vms":[` + info("stopped", "", "null", "[]", "null") + `],"port_mapping_enabled":true,"total":1}`},
		{"GET", "/prpc/Teepod.Status?keyword=nothing", "", `{"vms":[],"port_mapping_enabled":true,"total":0}`},
		{"GET", "/prpc/Teepod.Status?page=2&page_size=1&brief=true", "", `{"vms":[],"port_mapping_enabled":true,"total":1}`},
		{"POST", "/prpc/GetInfo", idBody, `{"found":true,"info":` + info("stopped", "", "null", `[{"event":"created","body":"created","timestamp":X}]`, configuration) + `}`},
		{"POST", "/prpc/GetComposeHash", create, `{"hash":"` + hash + `"}`},
		{"POST", "/prpc/UpdateVm", `{"id":"` + id.ID + `","user_config":"v","memory":1024}`, `{"id":""}`},
		{"POST", "/prpc/Teepod.UpgradeApp", `{"id":"` + id.ID + `","compose_file":` + string(compose) + `}`, `{"id":"` + app + `"}`},
		{"POST", "/prpc/ResizeVm", `{"id":"` + id.ID + `","disk_size":3}`, `null`},
		{"POST", "/prpc/StartVm", idBody, `null`},
		{"GET", "/prpc/ListImages", "", `{"images":[]}`},
		{"GET", "/prpc/GetMeta", "", `{"kms":{"url":"","urls":[]},"gateway":{"url":"https://gw.example:9202","base_domain":"apps.example","port":443,"agent_port":8090,"urls":["https://gw.example:9202"]},"resources":{"max_cvm_number":1000,"max_allocable_vcpu":4,"max_allocable_memory_in_mb":4096},"networking":{"supported_modes":["user"],"default_mode":"user","default_bridge":""}}`},
		{"GET", "/prpc/ListGpus", "", `{"gpus":[],"allow_attach_all":false}`},
		{"POST", "/prpc/ReloadVms", "", `{"loaded":0,"updated":0,"removed":0}`},
		{"GET", "/prpc/ListRegistryImages", "", `{"images":[]}`},
	} {
		code, got := n.call(c.method, c.path, c.body)
		if got = steady(strings.ReplaceAll(got, `"uptime":""`, `"uptime":"x"`)); code != 200 || got != steadyWant(c.want) {
			t.Errorf("%s %s: %d\n got %s\nwant %s", c.method, c.path, code, got, c.want)
		}
	}
	n.waitOther(id.ID, vmmapi.StateRunning)
	if _, got := n.call("POST", "/prpc/Status", `{"ids":["`+id.ID+`"]}`); !strings.Contains(got, `"status":"running"`) || !strings.Contains(got, `"boot_progress":"done"`) || !strings.Contains(got, `"memory":1024,"disk_size":3`) || !strings.Contains(got, `"user_config":"v"`) {
		t.Errorf("running: %s", got)
	}
	if _, got := n.call("GET", "/prpc/SvList", ""); !strings.Contains(got, `"name":"hello","status":"running","pid":null`) {
		t.Errorf("SvList: %s", got)
	}
	n.referenceGuest(id.ID)
	for _, step := range []struct{ path, want, state string }{
		{"/prpc/SvStop", `null`, vmmapi.StateStopped}, {"/prpc/SvRemove", `null`, ""},
		{"/prpc/StartVm", `null`, vmmapi.StateRunning}, {"/prpc/ShutdownVm", `null`, vmmapi.StateStopped},
		{"/prpc/StartVm", `null`, vmmapi.StateRunning}, {"/guest/Shutdown", `null`, vmmapi.StateStopped},
		{"/prpc/RemoveVm", `null`, ""},
	} {
		if code, got := n.call("POST", step.path, idBody); code != 200 || got != step.want {
			t.Fatalf("%s: %d %s", step.path, code, got)
		}
		if step.state != "" {
			n.waitOther(id.ID, step.state)
		}
	}
}

func steadyWant(s string) string { return strings.ReplaceAll(s, `"uptime":"x"`, `"uptime":X`) }

func loopback() netip.Addr { return netip.MustParseAddr("127.0.0.1") }

// referenceGuest checks ProxiedGuestApi and GET /logs of a running VM.
func (n *node) referenceGuest(id string) {
	n.t.Helper()
	body := `{"id":"` + id + `"}`
	for path, want := range map[string]string{
		"/guest/ListContainers":          `{"containers":[]}`,
		"/guest/ProxiedGuestApi.SysInfo": `"os_name":"dry"`,
		"/guest/GuestApi.NetworkInfo":    "{\n  \"error\": \"the guest agent of VM " + id + " does not offer /v1/network\"\n}",
	} {
		if _, got := n.call("POST", path, body); !strings.Contains(got, want) {
			n.t.Errorf("%s: %s", path, got)
		}
	}
	if err := n.drive.Print(id, "\x1b[31mred\x1b[0m\n"); err != nil {
		n.t.Fatal(err)
	}
	for q, want := range map[string]string{
		"id=" + id + "&ansi=false":                "dry guest of hello\nred",
		"id=" + id + "&lines=1":                   "\x1b[31mred\x1b[0m",
		"id=" + id + "&ch=stdout":                 "dry machine of hello",
		"id=" + id + "&ch=x":                      `want serial, stdout or stderr`,
		"id=" + id + "&lines=x":                   `want a number`,
		"ch=serial":                               `id: missing`,
		"id=" + id + "&ansi=perhaps":              `want true or false`,
		"id=0b7d5f86-6c55-4b6a-9d0a-7a8f54c6d999": `no VM`,
	} {
		if _, got := n.call("GET", "/logs?"+q, ""); !strings.Contains(got, want) {
			n.t.Errorf("/logs?%s: %q, want %q", q, got, want)
		}
	}
}

// TestReferenceRefusals: what is refused changes nothing, and says so in the
// reference's shape.
func TestReferenceRefusals(t *testing.T) {
	n := newNode(t, dry.New(dry.Config{}), nil)
	n.must(n.c.Put(t.Context(), spec()))
	before := n.must(n.c.Get(t.Context(), vmID))
	id := `"id":"` + vmID + `"`
	compose, _ := json.Marshal(composeDoc)
	good := `"name":"x","image":"i","vcpu":1,"memory":512,"disk_size":2,"compose_file":` + string(compose)
	for _, c := range []struct{ method, path, body, want string }{
		{"POST", "/prpc/Nothing", "", "Service not found: Nothing"},
		{"POST", "/guest/Nothing", "", "Service not found: Nothing"},
		{"GET", "/prpc/StopVm?id=" + vmID, "", "use POST"},
		{"PUT", "/prpc/Status", "", "not allowed"},
		{"POST", "/prpc/StartVm", `{`, "request body"},
		{"POST", "/prpc/StartVm", ``, "id: missing"},
		{"POST", "/prpc/RemoveVm", `{"id":"nope"}`, "VM not found: nope"},
		{"POST", "/prpc/CreateVm", `{"name":"x","compose_file":"{"}`, "compose_file"},
		{"POST", "/prpc/CreateVm", `{` + good + `,"app_id":"zz"}`, "app_id"},
		{"POST", "/prpc/CreateVm", `{` + good + `,"encrypted_env":"zz"}`, "not a hex string"},
		{"POST", "/prpc/CreateVm", `{` + good + `,"vcpu":9}`, "vcpu: 9 wanted"}, // stopped is false: it cannot start
		{"POST", "/prpc/CreateVm", `{` + good + `,"simulated_tee":true}`, "simulated_tee"},
		{"POST", "/prpc/CreateVm", `{` + good + `,"ports":[{"protocol":"tcp","host_port":70000,"vm_port":1}]}`, "at most 65535"},
		{"POST", "/prpc/CreateVm", `{` + good + `,"ports":[{"protocol":"tcp","host_port":80,"vm_port":80}]}`, "no ports of the host"},
		{"POST", "/prpc/UpdateVm", `{` + id + `,"update_ports":true,"ports":[{"protocol":"tcp","host_port":80,"vm_port":80}],"user_config":"new"}`, "no ports of the host"},
		{"POST", "/prpc/UpdateVm", `{` + id + `,"user_config":"new","compose_file":"{"}`, "compose_file"},
		{"POST", "/prpc/UpdateVm", `{` + id + `,"user_config":"new","clear_user_config":true}`, "exclude a new value"},
		{"POST", "/prpc/UpdateVm", `{` + id + `,"user_config":"new","disk_size":1}`, "does not shrink"},
		{"POST", "/prpc/UpdateVm", `{` + id + `,"encrypted_env":"aa","vcpu":0}`, "resources.vcpu 0"},
		{"POST", "/prpc/ResizeVm", `{` + id + `,"memory":1}`, "memory_mib"},
		{"POST", "/prpc/GetAppEnvEncryptPubKey", `{"app_id":"` + strings.Repeat("00", 20) + `"}`, "knows no KMS"},
		{"POST", "/prpc/PullRegistryImage", `{"tag":"1.2"}`, "no registry of its own"},
		{"POST", "/prpc/DeleteImage", `{"id":"../x"}`, "error"},
		{"POST", "/guest/Info", `{` + id + `}`, "not running"},
	} {
		code, got := n.call(c.method, c.path, c.body)
		var e struct{ Error string }
		if err := json.Unmarshal([]byte(got), &e); code != http.StatusBadRequest || err != nil || !strings.Contains(got, c.want) || e.Error == "" {
			t.Errorf("%s %s %s: %d %s, want %q", c.method, c.path, c.body, code, got, c.want)
		}
	}
	if after := n.must(n.c.Get(t.Context(), vmID)); fmt.Sprintf("%+v", after) != fmt.Sprintf("%+v", before) {
		t.Fatalf("refused calls changed the VM\n%+v\n%+v", before, after)
	}
	list := func() int { l, _ := n.c.List(t.Context()); return len(l) }
	n.waitTrue("the VM that could not start is gone", func() bool { return list() == 1 })
	// Fields are cleared when that is said.
	if _, got := n.call("POST", "/prpc/UpdateVm", `{`+id+`,"clear_encrypted_env":true}`); got != `{"id":""}` {
		t.Fatal(got)
	}
	if vm := n.must(n.c.Get(t.Context(), vmID)); len(vm.Spec.App.EncryptedEnv) != 0 {
		t.Fatal("the environment was not cleared")
	}
	res, err := http.Post("http://"+n.vmm.Addr()+"/prpc/Status", "application/json", strings.NewReader("{}"))
	if err != nil || res.StatusCode != http.StatusUnauthorized {
		t.Fatalf("without a token: %v %v", res, err)
	}
}

func (n *node) waitTrue(what string, ok func() bool) {
	n.t.Helper()
	deadline := time.Now().Add(90 * time.Second) // a loaded machine; only failures wait for it
	for !ok() {
		if time.Now().After(deadline) {
			n.t.Fatal("never: " + what)
		}
		time.Sleep(2 * time.Millisecond) // polling with a deadline
	}
}
