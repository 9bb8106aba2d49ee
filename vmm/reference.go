package vmm

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/logs"
	"github.com/confidential-cloud/phala/vmm/netplane"
	"github.com/confidential-cloud/phala/vmm/prpc"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// KMS that callers of the reference's API ask for environment keys through this
// node, and the default of specs made through it.
type KMS struct {
	URLs     []string `toml:"urls"`      // https, of members
	RootSPKI string   `toml:"root_spki"` // hex: the pinned root key (key_provider_id)
}

// Gateway is what the reference's API says about the gateway.
type Gateway struct {
	URLs       []string `toml:"urls"`
	BaseDomain string   `toml:"base_domain"`
	Port       uint16   `toml:"port"`
}

func (k *KMS) validate() (errs []error) {
	if (len(k.URLs) > 0) != (k.RootSPKI != "") {
		errs = append(errs, cvm.Errorf(cvm.Invalid, "kms: urls and root_spki go together: an unpinned KMS proves nothing"))
	}
	if len(k.URLs) > 0 {
		if _, err := kmsapi.New(kmsapi.Config{URLs: k.URLs, RootSPKI: k.RootSPKI}); err != nil {
			errs = append(errs, cvm.Errorf(cvm.Invalid, "kms: %w", err))
		}
	}
	return errs
}

// agentPort is where a guest's public page is.
const agentPort = 8090

// reference is the VMM as package prpc needs it.
type reference struct{ m *VMM }

func (m *VMM) reference() *prpc.Service {
	x := reference{m}
	cfg := prpc.Config{VMs: x, Images: x, Details: x.details, Meta: x.meta, Reload: x.reload, Guest: x.guest, Logs: x.logs, Version: buildVersion(), Now: m.now}
	cfg.GPUs = x.gpus
	cfg.PortsEnabled = m.cfg.Ports.Enabled
	if k := m.cfg.KMS; len(k.URLs) > 0 {
		if c, err := kmsapi.New(kmsapi.Config{URLs: k.URLs, RootSPKI: k.RootSPKI}); err == nil { // Validate checked it
			cfg.EnvKey = c.EnvKey
		}
	}
	return prpc.New(cfg)
}

func buildVersion() (v prpc.Version) {
	if b, ok := debug.ReadBuildInfo(); ok {
		v.Version = b.Main.Version
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				v.Rev = s.Value
			}
		}
	}
	return v
}

func (x reference) Put(s vmmapi.Spec) (vmmapi.VM, error) { return x.m.put(s) }
func (x reference) List() []vmmapi.VM                    { return x.m.list() }

func (x reference) Respec(ctx context.Context, id string, change func(*vmmapi.Spec) error) (vmmapi.VM, error) {
	return x.m.respec(ctx, target{id: id}, change)
}

func (x reference) Order(ctx context.Context, id, what string) (err error) {
	t := target{id: id}
	switch what {
	case prpc.Start:
		_, err = x.m.start(ctx, t)
	case prpc.Stop:
		_, err = x.m.stopVM(ctx, t)
	case prpc.Remove:
		err = x.m.remove(t, false)
	case prpc.Forget:
		_, err = x.m.edit(ctx, t, func(v *vm) error {
			if v.alive() {
				return cvm.Errorf(cvm.Conflict, "the machine of VM %s runs", id).WithReason("vm-running").WithFix("stop it first")
			}
			v.last = nil
			return nil
		})
	default:
		err = cvm.Errorf(cvm.Internal, "no such order: %s", what)
	}
	return err
}

func (x reference) Images() []prpc.ImageInfo {
	all, err := image.List(x.m.cfg.ImagesDir)
	if err != nil {
		x.m.log.Warn("guest images", "error", err)
	}
	out := []prpc.ImageInfo{}
	for _, im := range all {
		b, err := json.Marshal(im.Meta)
		if err != nil {
			continue // plain data
		}
		out = append(out, prpc.ImageInfo{Name: im.Name, Description: string(b), Version: im.Meta.Version, IsDev: im.Meta.IsDev})
	}
	return out
}

func (x reference) Pull(_ context.Context, ref string) error {
	_, err := x.m.puller.Start(x.m.ctx(), vmmapi.PullRequest{Ref: ref}) // it lives longer than the request
	return err
}

func (x reference) Pulls() []prpc.RegistryImage {
	out := []prpc.RegistryImage{}
	for _, p := range x.m.puller.Pulls() {
		r := prpc.RegistryImage{Tag: p.Ref, Local: p.Phase == vmmapi.PullDone, Pulling: !p.Ended()}
		if p.Error != nil {
			r.Error = p.Error.Message
		}
		out = append(out, r)
	}
	return out
}

func (x reference) DeleteImage(name string) error { return x.m.deleteImage(name) }

func (x reference) details(id string, brief bool) (d prpc.Details) {
	v, err := x.m.find(id)
	if err != nil {
		return d
	}
	v.mu.Lock()
	d.HasRun, d.Alive = v.last != nil, v.inst != nil
	for _, b := range v.rec.History {
		if !b.EndedAt.IsZero() {
			d.ExitedAt, d.Exit = b.EndedAt, b.Exit
		}
	}
	d.Interfaces = interfaces(&v.rec)
	v.mu.Unlock()
	if !brief {
		d.Events, _ = x.m.store.events(id, cursor{limit: 100})
	}
	return d
}

// guest calls the guest API of a running VM.
func (x reference) guest(ctx context.Context, id, path string, out any) error {
	v, err := x.m.settled(ctx, id)
	if err != nil {
		return err
	}
	v.mu.Lock()
	inst, state := v.inst, v.rec.VM.State
	v.mu.Unlock()
	if inst == nil {
		return cvm.Errorf(cvm.Precondition, "VM %s is not running (%s)", id, state).WithReason("vm-not-running")
	}
	return x.m.guestCall(ctx, inst, http.MethodGet, path, out)
}

func (x reference) logs(ctx context.Context, id string, q prpc.LogQuery) (io.ReadCloser, error) {
	o := logs.Options{Tail: q.Lines, Follow: q.Follow, KeepANSI: q.KeepANSI}
	if q.Follow {
		o.Heartbeat = prpc.Heartbeat
	}
	return x.m.openLog(ctx, id, logRequest{q.Channel, o})
}

func (x reference) meta(context.Context) (out prpc.Meta, err error) {
	c := &x.m.cfg
	capacity := x.m.pool.Capacity()
	out.KMS.URLs, out.Gateway.URLs = orEmpty(c.KMS.URLs), orEmpty(c.Gateway.URLs)
	if len(c.KMS.URLs) > 0 {
		out.KMS.URL = c.KMS.URLs[0]
	}
	if len(c.Gateway.URLs) > 0 {
		out.Gateway.URL = c.Gateway.URLs[0]
	}
	out.Gateway.BaseDomain, out.Gateway.Port, out.Gateway.AgentPort = c.Gateway.BaseDomain, uint32(c.Gateway.Port), agentPort
	out.Resources = prpc.MetaResources{MaxCVMNumber: uint32(c.Limits.MaxVMs), MaxAllocableVCPU: uint32(capacity.VCPU), MaxAllocableMemoryMiB: uint32(capacity.MemoryMiB)} // #nosec G115 -- capacities of one host
	out.Networking.SupportedModes = []string{}
	for i, n := range x.host().Networks {
		if !slices.Contains(out.Networking.SupportedModes, n.Mode) {
			out.Networking.SupportedModes = append(out.Networking.SupportedModes, n.Mode)
		}
		if i == 0 {
			out.Networking.DefaultMode = n.Mode
		}
		if out.Networking.DefaultBridge == "" {
			out.Networking.DefaultBridge = n.Bridge
		}
	}
	return out, nil
}

// host is what GET /v1/node says about the host.
func (x reference) host() (n vmmapi.Node) {
	x.m.describeHost(&n)
	return n
}

func (x reference) gpus(context.Context) (prpc.GPUList, error) {
	out := prpc.GPUList{GPUs: []prpc.GPU{}, AllowAttachAll: x.m.cfg.GPUs.AllowAll}
	for _, g := range x.host().GPUs {
		if !g.Switch {
			out.GPUs = append(out.GPUs, prpc.GPU{Slot: g.Slot, ProductID: g.Product, Description: "NUMA node " + strconv.Itoa(g.Node), IsFree: g.HeldBy == ""})
		}
	}
	return out, nil
}

// interfaces are a VM's cards as they are, or will be at its next start.
func interfaces(r *record) []prpc.Interface {
	out := []prpc.Interface{}
	for i, n := range r.Place.NICs {
		dev := "net" + strconv.Itoa(i)
		x := prpc.Interface{Mode: n.Mode, Backend: "slirp", MAC: n.MAC, NetdevID: &dev}
		if n.Mode != netplane.ModeUser {
			bridge := n.Bridge
			x.Backend, x.BridgeName = "tap_bridge", &bridge
		}
		out = append(out, x)
	}
	return out
}

// reload takes up VMs whose records were put into the directory (from a backup, or
// from another host) since the start. Records that this VMM holds are its own:
// there is nothing newer on disk.
func (x reference) reload(context.Context) (out prpc.Reloaded, err error) {
	m := x.m
	entries, err := os.ReadDir(filepath.Join(m.cfg.Dir, "vms"))
	if err != nil {
		return out, cvm.Errorf(cvm.Internal, "reading the records: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range entries {
		if m.vms[e.Name()] != nil {
			continue
		}
		r, found, err := m.store.read(e.Name())
		if err != nil {
			return out, err
		}
		if !found {
			continue
		}
		if len(m.vms) >= m.cfg.Limits.MaxVMs {
			return out, cvm.Errorf(cvm.Exhausted, "this node has its %d VMs", m.cfg.Limits.MaxVMs).WithReason("node-full")
		}
		v := m.newVM(r)
		if err := v.reserve(v.rec); err != nil {
			return out, err
		}
		m.vms[e.Name()] = v
		loops := m.ctx()
		m.wg.Go(func() { v.loop(loops) })
		out.Loaded++
	}
	return out, nil
}
