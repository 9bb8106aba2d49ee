package api_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/dry"
)

const (
	h200 = "10de:2335"
	b200 = "10de:2901"
)

// cards is a sysfs with GPUs of one product that vfio-pci has already.
func cards(t *testing.T, device string, n int) string {
	t.Helper()
	root := t.TempDir()
	for i := range n {
		slot := fmt.Sprintf("0000:%02x:00.0", 0x3b+i)
		dir := filepath.Join(root, "bus/pci/devices", slot)
		group := filepath.Join(root, fmt.Sprintf("kernel/iommu_groups/%d/devices", i))
		for _, d := range []string{dir, group} {
			if err := os.MkdirAll(d, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		for path, text := range map[string]string{dir + "/vendor": "0x10de", dir + "/device": "0x" + device, dir + "/class": "0x030200",
			dir + "/numa_node": "0", filepath.Join(group, slot): ""} {
			if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for link, to := range map[string]string{"driver": "../../drivers/vfio-pci", "iommu_group": fmt.Sprintf("../../../../kernel/iommu_groups/%d", i)} {
			if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

// gpuCloud is an API over two dry nodes: the first has two H200, the second one B200.
func gpuCloud(t *testing.T) *cloudapi.Client {
	t.Helper()
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	ac := api.DefaultConfig()
	for i, sysfs := range []string{cards(t, "2335", 2), cards(t, "2901", 1)} {
		sock, err := os.MkdirTemp("", "api") // short: sockets
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(sock) })
		name := fmt.Sprint("vmm", i)
		vc := vmm.Default()
		vc.Listen, vc.TokenFile, vc.Dir, vc.RunDir, vc.ImagesDir = freeAddr(t), filepath.Join(dir, name+".token"), filepath.Join(dir, name), sock, filepath.Join(dir, "images")
		vc.Driver, vc.Machines, vc.Log = "dry", dry.New(dry.Config{}), log
		vc.Capacity = vmm.Capacity{VCPU: 16, MemoryMiB: 65536, DiskMiB: 400 << 10}
		vc.Sysfs, vc.GPUs.Products = sysfs, []string{h200, b200}
		_, p := startVMM(t, vc)
		t.Cleanup(func() { p.stop(t) })
		ac.Nodes = append(ac.Nodes, api.NodeConfig{URL: "http://" + vc.Listen, TokenFile: vc.TokenFile})
	}
	ac.InstanceTypes = append(ac.InstanceTypes,
		api.InstanceType{ID: "h200.1", Name: "1 H200", Family: "gpu", VCPU: 2, MemoryMB: 4096, HourlyRate: "3.5", DiskGB: 20, GPUs: 1, GPU: h200, GPUName: "NVIDIA H200"},
		api.InstanceType{ID: "h200.2", Name: "2 H200", Family: "gpu", VCPU: 4, MemoryMB: 8192, HourlyRate: "7", DiskGB: 20, GPUs: 2, GPU: h200, GPUName: "NVIDIA H200"},
		api.InstanceType{ID: "b200.1", Name: "1 B200", Family: "gpu", VCPU: 2, MemoryMB: 4096, HourlyRate: "6", DiskGB: 20, GPUs: 1, GPU: b200, GPUName: "NVIDIA B200"})
	ac.Dir, ac.Log, ac.Keys, ac.KMS.RootSPKI = filepath.Join(dir, "api"), log, noKMS{}, "3059"
	ac.KMS.URLs, ac.KMS.GuestURLs = []string{"https://172.31.77.1:8701"}, []string{"https://172.31.77.1:8701"}
	ac.Gateway = api.GatewayConfig{Domain: "dev.localhost", Port: 8443, GuestURLs: []string{"https://172.31.77.1:8740"}}
	ac.Chain = api.ChainConfig{ID: 31337, Name: "dev", Contract: "0x1111111111111111111111111111111111111111"}
	ac.Poll, ac.Sync = 20*time.Millisecond, 100*time.Millisecond
	s, err := api.New(ac)
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.NewAdminKey(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ap := begin(func(ctx context.Context) error { return s.Serve(ctx, l) })
	t.Cleanup(func() { ap.stop(t) })
	return &cloudapi.Client{Base: "http://" + l.Addr().String() + cloudapi.Prefix, Key: key}
}

// gpuCompose asks for cards: "count: 1", say.
func gpuCompose(cards string) string {
	return "services:\n  web:\n    image: nginx:1.27\n    deploy:\n      resources:\n        reservations:\n          devices:\n            - driver: nvidia\n              " + cards + "\n              capabilities: [gpu]\n"
}

// A CVM with GPUs goes where its kind of card is free, has it for itself, and gives
// it back when it is deleted.
func TestCVMsWithGPUs(t *testing.T) {
	c := gpuCloud(t)
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	provision := func(name, typ string) (cloudapi.Provisioned, error) {
		return c.Provision(ctx, cloudapi.ProvisionRequest{Name: name, InstanceType: typ, DiskSize: 20, ComposeFile: map[string]any{"docker_compose_file": gpuCompose("count: 1"), "name": name}})
	}
	refused := func(err error, want ...string) {
		t.Helper()
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%v, want %q in it", err, w)
			}
		}
	}
	n := byte(0)
	deploy := func(name, typ string) cloudapi.VM {
		t.Helper()
		p, err := provision(name, typ)
		if err != nil {
			t.Fatal(err)
		}
		n++
		vm, err := c.Commit(ctx, cloudapi.CommitRequest{AppID: cvm.AppID{n}.String(), ComposeHash: p.ComposeHash})
		if err != nil {
			t.Fatal(err)
		}
		if done, err := c.Progress(ctx, *vm.VMUUID, vm.EventSeq, nil); err != nil || done.Status != cloudapi.StatusRunning {
			t.Fatalf("%s: %+v, %v", name, done, err)
		}
		return vm
	}
	free := func(want string) {
		t.Helper()
		list, err := c.Nodes(ctx)
		if err != nil || len(list.Nodes) != 2 {
			t.Fatalf("%+v, %v", list, err)
		}
		if got := fmt.Sprint(list.Nodes[0].GPUs, list.Nodes[1].GPUs); got != want {
			t.Errorf("free cards %s, want %s", got, want)
		}
	}
	free("[10de:2335 10de:2335] [10de:2901]")
	_, err := provision("plain-app", "tdx.small")
	refused(err, `service "web" needs a GPU`, "instance type h200.1 has 1 (NVIDIA H200)")
	_, err = c.Provision(ctx, cloudapi.ProvisionRequest{Name: "odd-app", InstanceType: "h200.1", VCPU: 1, ComposeFile: map[string]any{"docker_compose_file": gpuCompose("count: 1")}})
	refused(err, "h200.1", "price")
	for cards, want := range map[string]string{"count: 2": "needs 2 GPUs, and this CVM has 1; instance type h200.2 has 2", `device_ids: ["1"]`: "needs 2 GPUs", "count: 3": "no instance type of this cloud has as many"} {
		_, err = c.Provision(ctx, cloudapi.ProvisionRequest{Name: "greedy-app", InstanceType: "h200.1", ComposeFile: map[string]any{"docker_compose_file": gpuCompose(cards)}})
		var e *cloudapi.APIError
		if refused(err, want); !errors.As(err, &e) || e.Status != 422 || e.ErrorCode != "ERR-02-006" || len(e.Details) != 1 || e.Details[0].Field != "gpus" {
			t.Errorf("%s: %+v", cards, e)
		}
	}

	b := deploy("app-b200", "b200.1")
	one := deploy("app-h200", "h200.1")
	if b.TeepodID != 2 || one.TeepodID != 1 {
		t.Errorf("placed on %d and %d", b.TeepodID, one.TeepodID)
	}
	free("[10de:2335] []")
	d, err := c.CVM(ctx, "app-h200")
	if err != nil || d.Resource.GPUs == nil || *d.Resource.GPUs != 1 || *d.Resource.ComputeBillingPrice != "3.5" {
		t.Errorf("%+v, %v", d.Resource, err)
	}
	_, err = provision("app-two", "h200.2")
	refused(err, "1 GPU(s) 10de:2335 free, 2 needed", "0 GPU(s) 10de:2335 free, 2 needed")
	_, err = provision("app-b-two", "b200.1")
	refused(err, "0 GPU(s) 10de:2901 free, 1 needed")
	more := map[string]any{"docker_compose_file": gpuCompose("count: 2"), "name": "app-h200"}
	_, err = c.ProvisionCompose(ctx, "app-h200", more)
	refused(err, "needs 2 GPUs, and this CVM has 1")
	refused(c.Do(ctx, "PATCH", "/cvms/app-h200", map[string]any{"docker_compose_file": gpuCompose("count: 2")}, nil), "needs 2 GPUs, and this CVM has 1")
	if _, err := c.ProvisionCompose(ctx, "app-h200", map[string]any{"docker_compose_file": gpuCompose("count: all"), "name": "app-h200"}); err != nil {
		t.Errorf("all there are: %v", err)
	}
	for _, size := range []map[string]any{{"vcpu": 1}, {"memory": 2048}, {"instance_type": "tdx.small"}, {"instance_type": "h200.2"}} {
		refused(c.Do(ctx, "PATCH", "/cvms/app-h200/resources", size, nil), "price covers")
	}
	var a cloudapi.Accepted
	if err := c.Do(ctx, "PATCH", "/cvms/app-h200/resources", map[string]any{"disk_size": 30}, &a); err != nil {
		t.Fatal(err)
	}
	if done, err := c.Progress(ctx, "app-h200", a.EventSeq, nil); err != nil || done.Error != nil {
		t.Fatalf("%+v, %v", done, err)
	}
	if d, err = c.CVM(ctx, "app-h200"); err != nil || *d.Resource.InstanceType != "h200.1" || *d.Resource.DiskInGB != 30 || *d.Resource.GPUs != 1 {
		t.Errorf("a larger disk: %+v, %v", d.Resource, err)
	}
	free("[10de:2335] []")
	if err := c.Delete(ctx, "app-h200", "delete"); err != nil {
		t.Fatal(err)
	}
	if done, err := c.Progress(ctx, *one.VMUUID, 0, nil); err != nil || done.Status != cloudapi.StatusDeleted {
		t.Fatalf("%+v, %v", done, err)
	}
	free("[10de:2335 10de:2335] []")
	if two := deploy("app-two", "h200.2"); two.TeepodID != 1 {
		t.Errorf("placed on %d", two.TeepodID)
	}
	free("[] []")
}
