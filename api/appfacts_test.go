package api_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

func TestAppFacts(t *testing.T) {
	w := newWorld(t, nil)
	w.chain.strict = true
	vm, _ := w.deploy("my-app", 1, nil)
	f := call[cloudapi.AppFilters](w, 200, "GET", "/apps/filter-options", nil, nil)
	if fmt.Sprint(f) != "{[running] [phala-1.0.0] [tdx.small] [kms] [base] [here] [node-1]}" {
		t.Errorf("filters %v", f)
	}
	k := call[cloudapi.AppKMSInfo](w, 200, "GET", "/apps/"+vm.AppID+"/kms-info", nil, nil)
	if !k.IsOnchainKMS || *k.ChainID != 31337 || *k.AppContractAddress != "0x"+vm.AppID || k.DeployerType != nil {
		t.Errorf("kms info %+v", k)
	}
	// A prepared update is pending, and is on chain as soon as the contract allows it.
	code, body := w.raw("PATCH", "/cvms/my-app", map[string]any{"docker_compose_file": composeYAML + "# two\n", "pre_launch_script": "echo 2"}, nil)
	if code != 465 {
		t.Fatalf("%d %s", code, body)
	}
	pending := call[cloudapi.PendingUpdates](w, 200, "GET", "/apps/app_"+vm.AppID+"/pending-updates", nil, nil)
	if len(pending.Items) != 1 || pending.Items[0].VMUUID != *vm.VMUUID || pending.Items[0].OnChain {
		t.Fatalf("pending %+v", pending)
	}
	hash := pending.Items[0].ComposeHash
	w.chain.allow(hash)
	if p := call[cloudapi.PendingUpdates](w, 200, "GET", "/apps/"+vm.AppID+"/pending-updates", nil, nil); !p.Items[0].OnChain {
		t.Errorf("pending after the contract allows it: %+v", p)
	}
	preview := "/apps/" + vm.AppID + "/pending-updates/" + *vm.VMUUID + "/" + hash + "/preview"
	v := call[cloudapi.PendingPreview](w, 200, "GET", preview, nil, nil)
	if *v.CurrentDockerCompose != composeYAML || *v.PendingDockerCompose != composeYAML+"# two\n" || v.CurrentPreLaunchScript != nil || *v.PendingPreLaunchScript != "echo 2" {
		t.Errorf("preview %+v", v)
	}
	if code, _ := w.raw("GET", strings.ReplaceAll(preview, hash, strings.Repeat("0", 64)), nil, nil); code != 404 {
		t.Errorf("preview of what is not pending: %d", code)
	}
	stranger := map[string]string{"X-API-Key": w.srv.KeyOfNewWorkspace(t, "stranger")}
	for _, path := range []string{preview, "/apps/" + vm.AppID + "/pending-updates", "/apps/" + vm.AppID + "/kms-info", "/apps/" + vm.AppID + "/revisions/1"} {
		if code, body := w.raw("GET", path, nil, stranger); code != 404 || body != `{"detail":"App not found"}`+"\n" {
			t.Errorf("a stranger at %s: %d %s", path, code, body)
		}
	}
	if f := call[cloudapi.AppFilters](w, 200, "GET", "/apps/filter-options", nil, stranger); len(f.Statuses)+len(f.Nodes) != 0 {
		t.Errorf("a stranger's filters: %+v", f)
	}
}

func TestRevisionDetail(t *testing.T) {
	w := newWorld(t, offChain)
	vm := w.offChainApp("my-app", nil)
	a := call[cloudapi.Accepted](w, 202, "PATCH", "/cvms/my-app", map[string]any{"docker_compose_file": composeYAML + "# two\n", "user_config": "{}"}, nil)
	w.wait("my-app", a.EventSeq)
	list := call[cloudapi.Revisions](w, 200, "GET", "/apps/"+vm.AppID+"/revisions", nil, nil)
	if len(list.Revisions) != 2 {
		t.Fatalf("revisions %+v", list)
	}
	at := func(i int, query string) cloudapi.RevisionDetail {
		return call[cloudapi.RevisionDetail](w, 200, "GET", "/apps/"+vm.AppID+"/revisions/"+list.Revisions[i].RevisionID+query, nil, nil)
	}
	now, before := at(0, ""), at(1, "?raw_compose_file=true")
	if m, ok := now.ComposeFile.(map[string]any); !ok || m["docker_compose_file"] != composeYAML+"# two\n" || now.UserConfig != "{}" || now.ComposeHash != list.Revisions[0].ComposeHash {
		t.Errorf("the present revision: %+v", now)
	}
	if text, ok := before.ComposeFile.(string); !ok || !strings.HasPrefix(text, `{"allowed_envs"`) || before.UserConfig != "" {
		t.Errorf("an older revision: %+v", before)
	}
	for _, id := range []string{"99", "x", "-1"} {
		if code, _ := w.raw("GET", "/apps/"+vm.AppID+"/revisions/"+id, nil, nil); code != 404 {
			t.Errorf("revision %s: %d", id, code)
		}
	}
}

func TestHostNetwork(t *testing.T) {
	w := newWorld(t, func(c *api.Config) {
		offChain(c)
		c.KMS.GuestURLs, c.Gateway.GuestURLs = []string{"https://kms"}, []string{"https://gw"}
	})
	vm := w.offChainApp("my-app", map[string]any{"port_policy": map[string]any{"restrict_mode": true, "ports": []any{map[string]any{"port": 8080}}}})
	w.vmm.mu.Lock()
	w.vmm.vms[*vm.VMUUID].Spec.Ports = []vmmapi.PortMap{{Protocol: "tcp", HostAddress: "127.0.0.1", HostPort: 13306, VMPort: 3306}}
	w.vmm.mu.Unlock()
	n := call[cloudapi.NetworkConfig](w, 200, "GET", "/cvms/my-app/network-config", nil, nil)
	if fmt.Sprint(n) != "{[https://kms] [https://gw] [{ 13306 3306 tcp 127.0.0.1}]}" {
		t.Errorf("network config %+v", n)
	}
	call[cloudapi.NetworkConfig](w, 200, "PATCH", "/cvms/my-app/network-config", map[string]any{"kms_urls": []string{"https://kms"}}, nil)
	ports := call[[]cloudapi.PortMapping](w, 200, "GET", "/cvms/my-app/ports", nil, nil)
	if len(ports) != 1 || ports[0].ID == "" || ports[0].HostPort != 13306 {
		t.Errorf("ports %+v", ports)
	}
	call[[]cloudapi.PortMapping](w, 200, "PUT", "/cvms/my-app/ports", map[string]any{"ports": []any{map[string]any{"vm_port": 3306}}}, nil)
	before := w.vmm.count("")
	for _, x := range []struct {
		method, path string
		body         map[string]any
		status       int
		says         string
	}{
		{"PATCH", "/network-config", m{}, 422, "nothing to change"},
		{"PATCH", "/network-config", m{"kms_urls": []string{"https://evil"}}, 403, "kms-urls-are-the-clouds"},
		{"PATCH", "/network-config", m{"kms_urls": []string{}}, 403, "kms-urls-are-the-clouds"},
		{"PATCH", "/network-config", m{"gateway_urls": []string{"https://gw", "https://evil"}}, 403, "gateway-urls-are-the-clouds"},
		{"PUT", "/ports", m{"ports": []any{m{"vm_port": 8080}}}, 403, "host-ports-are-the-nodes"},
		{"PUT", "/ports", m{"ports": []any{}}, 403, "host-ports-are-the-nodes"},
		{"PUT", "/ports", m{"ports": []any{m{"vm_port": 9000}}}, 403, "another compose hash"},
		{"PUT", "/ports", m{"ports": []any{m{"vm_port": 3306, "protocol": "udp"}}}, 403, "port-policy"},
		{"PUT", "/ports", m{"ports": []any{m{"vm_port": 0}}}, 422, "vm_port"},
		{"PUT", "/ports", m{"ports": []any{m{"vm_port": 1, "protocol": "sctp"}}}, 422, "protocol"},
	} {
		if code, body := w.raw(x.method, "/cvms/my-app"+x.path, x.body, nil); code != x.status || !strings.Contains(body, x.says) {
			t.Errorf("%s %s %v: %d %s", x.method, x.path, x.body, code, body)
		}
	}
	if after := w.vmm.count(""); after != before {
		t.Errorf("what was refused changed something: %v", w.vmm.calls[before:])
	}
	if f := call[cloudapi.FirewallStatus](w, 200, "GET", "/cvms/my-app/firewall-status", nil, nil); f.Available || f.Reason == nil {
		t.Errorf("firewall %+v", f)
	}
	w.vmm.mu.Lock()
	w.vmm.networks = []vmmapi.NodeNetwork{{Mode: "bridge", Managed: true}}
	w.vmm.mu.Unlock()
	w.until("the node to be asked again", func() bool {
		return call[cloudapi.FirewallStatus](w, 200, "GET", "/cvms/my-app/firewall-status", nil, nil).Available
	})
	w.vmm.down.Store(true)
	if code, body := w.raw("GET", "/cvms/my-app/network-config", nil, nil); code != 503 {
		t.Errorf("of a node that is away: %d %s", code, body)
	}
}

func legacyBody(mod m) m {
	b := m{"teepod_id": 1, "name": "old-app", "image": "phala-1.0.0", "vcpu": 1, "memory": 2048, "disk_size": 40, "listed": false,
		"compose_manifest": m{"docker_compose_file": composeYAML, "docker_config": m{"url": "", "username": "", "password": ""}, "features": []string{"kms", "tproxy-net"},
			"kms_enabled": true, "manifest_version": 2, "name": "old-app", "public_logs": true, "public_sysinfo": false, "runner": "docker-compose", "tproxy_enabled": true}}
	for k, v := range mod {
		b[k] = v
	}
	return b
}

// The two requests of `phala cvms create`, and the one of `phala cvms upgrade`.
func TestLegacyCreateAndUpgrade(t *testing.T) {
	w := newWorld(t, offChain)
	k := call[cloudapi.LegacyKey](w, 200, "POST", "/cvms/pubkey/from_cvm_configuration", legacyBody(nil), nil)
	if len(k.AppEnvEncryptPubkey) != 64 || len(k.AppIDSalt) != 32 {
		t.Fatalf("key %+v", k)
	}
	empty := strings.Repeat("00", 70) // an encrypted {"env":[]} has this size
	good := m{"encrypted_env": empty, "app_env_encrypt_pubkey": k.AppEnvEncryptPubkey, "app_id_salt": k.AppIDSalt}
	with := func(mod m) m {
		b := legacyBody(good)
		for k, v := range mod {
			b[k] = v
		}
		return b
	}
	login := legacyBody(nil)["compose_manifest"].(m)
	login["docker_config"] = m{"username": "u", "password": "hunter2"}
	other := legacyBody(nil)["compose_manifest"].(m)
	other["docker_compose_file"] = composeYAML + "#\n"
	for says, body := range map[string]m{
		"app_id_salt":            with(m{"app_id_salt": "x"}),
		"app_env_encrypt_pubkey": with(m{"app_env_encrypt_pubkey": strings.Repeat("0", 64)}),
		"send the same":          with(m{"compose_manifest": other}),
		"allowed_envs":           with(m{"encrypted_env": strings.Repeat("00", 90)}),
		"docker_config":          with(m{"compose_manifest": login}),
		"name":                   with(m{"name": "x"}),
	} {
		if code, text := w.raw("POST", "/cvms/from_cvm_configuration", body, nil); code != 422 || !strings.Contains(text, says) || strings.Contains(text, "hunter2") {
			t.Errorf("%s: %d %s", says, code, text)
		}
	}
	if all, err := w.c.CVMs(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("what was refused made %d CVMs, %v", len(all), err)
	}
	vm := call[cloudapi.VM](w, 200, "POST", "/cvms/from_cvm_configuration", with(nil), nil)
	if done := w.wait("old-app", 0); done.Status != cloudapi.StatusRunning {
		t.Fatalf("ended %+v", done)
	}
	d := call[cloudapi.CVMDetail](w, 200, "GET", "/cvms/app_"+vm.AppID, nil, nil)
	if d.PublicSysinfo || !d.PublicLogs || *d.Resource.DiskInGB != 40 {
		t.Errorf("made %+v", d)
	}
	up := m{"compose_manifest": m{"docker_compose_file": composeYAML + "# two\n", "manifest_version": 1, "runner": "docker-compose", "version": "1.0.0",
		"features": []string{"kms"}, "name": "app_" + vm.AppID, "allowed_envs": []string{"A"}}, "allow_restart": true, "env_keys": []string{"A"}}
	up["allow_restart"] = false
	if code, text := w.raw("PUT", "/cvms/app_"+vm.AppID+"/compose", up, nil); code != 422 || !strings.Contains(text, "needs-restart") {
		t.Errorf("without a restart: %d %s", code, text)
	}
	up["allow_restart"] = true
	a := call[cloudapi.LegacyUpgraded](w, 202, "PUT", "/cvms/app_"+vm.AppID+"/compose", up, nil)
	if a.Detail == "" {
		t.Errorf("upgrade: %+v", a)
	}
	w.wait("old-app", a.EventSeq)
	text := string(w.vmOf(*vm.VMUUID).Spec.App.AppCompose)
	if !strings.Contains(text, "# two") || !strings.Contains(text, `"allowed_envs":["A"]`) || !strings.Contains(text, `"name":"old-app"`) || !strings.Contains(text, k.AppIDSalt) {
		t.Errorf("the VM has %s", text)
	}
	if code, _ := w.raw("PUT", "/cvms/"+nobody+"/compose", up, nil); code != 404 {
		t.Errorf("upgrade of nothing: %d", code)
	}
}

func TestLegacyCreateNeedsNoChain(t *testing.T) {
	w := newWorld(t, nil)
	if code, text := w.raw("POST", "/cvms/pubkey/from_cvm_configuration", legacyBody(nil), nil); code != 465 || !strings.Contains(text, "phala deploy") {
		t.Errorf("on a chain: %d %s", code, text)
	}
}

// TestAppsFilters: each condition that the public CLI can send is one; what no CVM meets
// shows nothing, and pages count what is shown.
func TestAppsFilters(t *testing.T) {
	w := newWorld(t, nil)
	vm, _ := w.deploy("my-app", 1, nil)
	w.deploy("other-app", 2, map[string]any{"public_logs": false})
	get := func(query string) cloudapi.Apps {
		t.Helper()
		return call[cloudapi.Apps](w, 200, "GET", "/apps?"+query, nil, nil)
	}
	all := "listed=false&base_image=phala-1.0.0&instance_type=tdx.small&kms_slug=KMS&kms_type=base&node=node-1&region=here&status=running"
	if a := get(all); a.Total != 2 || len(a.DstackApps) != 2 {
		t.Errorf("%+v", a)
	}
	if a := get(all + "&node=1&search=my-app"); a.Total != 1 || a.DstackApps[0].AppID != vm.AppID {
		t.Errorf("%+v", a)
	}
	if a := get(all + "&page=2&page_size=1"); a.Total != 2 || a.TotalPages != 2 || len(a.DstackApps) != 1 || a.DstackApps[0].AppID != vm.AppID {
		t.Errorf("second page: %+v", a)
	}
	if a := get(all + "&page=3&page_size=1"); a.Total != 2 || len(a.DstackApps) != 0 {
		t.Errorf("third page: %+v", a)
	}
	for _, none := range []string{"listed=true", "base_image=other", "instance_type=tdx.large", "kms_slug=other", "kms_type=phala", "node=node-2", "node=2", "region=there", "status=stopped"} {
		if a := get(none); a.Total != 0 || len(a.DstackApps) != 0 {
			t.Errorf("%s: %+v", none, a)
		}
	}
	if code, body := w.raw("GET", "/apps?listed=perhaps", nil, nil); code != 422 {
		t.Errorf("%d %s", code, body)
	}
}

// TestOwnAppID: without a chain nobody chooses an app's id.
func TestOwnAppID(t *testing.T) {
	w := newWorld(t, offChain)
	body := cliDeploy("my-app", "nginx:1.27", nil)
	p := call[cloudapi.Provisioned](w, 200, "POST", "/cvms/provision", body, cliHeader)
	body["app_id"], body["nonce"] = strings.Repeat("12", 20), 7
	refused(w, 422, "leave app_id out", "POST", "/cvms/provision", body, cliHeader)
	body["app_id"] = "0x" + strings.ToUpper(*p.AppID)
	if again := call[cloudapi.Provisioned](w, 200, "POST", "/cvms/provision", body, cliHeader); *again.AppID != *p.AppID {
		t.Errorf("%+v", again)
	}
	delete(body, "app_id")
	w.cliCommit(body, "")
	body["app_id"] = strings.Repeat("12", 20) // of an update by name too
	refused(w, 422, "leave app_id out", "POST", "/cvms/provision", body, cliHeader)
}
