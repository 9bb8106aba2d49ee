package prpc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/prpc"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// maxVMEvents of a VMInfo, as many as the reference keeps.
const maxVMEvents = 20

func (s *Service) composeHash(_ context.Context, c VMConfiguration) (ComposeHash, error) {
	sum := sha256.Sum256([]byte(c.ComposeFile))
	return ComposeHash{hex.EncodeToString(sum[:])}, nil
}

func (s *Service) status(ctx context.Context, q StatusRequest) (StatusResponse, error) {
	out := StatusResponse{VMs: []VMInfo{}, PortMappingEnabled: s.cfg.PortsEnabled}
	var found []vmmapi.VM
	for _, vm := range s.cfg.VMs.List() {
		if q.matches(&vm) {
			found = append(found, vm)
		}
	}
	out.Total = uint32(len(found)) // #nosec G115 -- limits.max_vms
	if size := uint64(q.PageSize); size > 0 {
		all := uint64(len(found))
		from := min(all, (uint64(max(q.Page, 1))-1)*size) // 32 bits times 32 bits fit
		found = found[from:min(all, from+size)]
	}
	meta := s.meta(ctx)
	for _, vm := range found {
		out.VMs = append(out.VMs, s.vmInfo(&vm, q.Brief, meta))
	}
	return out, nil
}

func (q *StatusRequest) matches(vm *vmmapi.VM) bool {
	if len(q.IDs) > 0 {
		listed := false
		for _, id := range q.IDs {
			listed = listed || id == vm.Spec.ID
		}
		if !listed {
			return false
		}
	}
	k := strings.ToLower(q.Keyword)
	for _, in := range []string{vm.Spec.Name, vm.Spec.ID, vm.Spec.AppID.String(), vm.InstanceID.String()} {
		if strings.Contains(strings.ToLower(in), k) {
			return true
		}
	}
	return false
}

func (s *Service) info(ctx context.Context, q ID) (GetInfoResponse, error) {
	vm, ok := s.find(q.ID)
	if !ok {
		return GetInfoResponse{}, nil
	}
	info := s.vmInfo(&vm, false, s.meta(ctx))
	return GetInfoResponse{true, &info}, nil
}

func (s *Service) meta(ctx context.Context) (m Meta) {
	if s.cfg.Meta != nil {
		m, _ = s.cfg.Meta(ctx) // without it there is no app_url
	}
	return m
}

// statusWord is the reference's word for our state.
func statusWord(vm *vmmapi.VM) string {
	switch {
	case vm.Deleting:
		return "removing"
	case vm.State == vmmapi.StateStopping:
		return "stopping"
	case vm.State == vmmapi.StateRunning, vm.State == vmmapi.StateBooting:
		return "running"
	case vm.State == vmmapi.StateStarting && vm.Error == nil:
		return "running"
	case vm.State == vmmapi.StateStarting, vm.State == vmmapi.StateFailed:
		return "exited"
	}
	return "stopped"
}

func (s *Service) vmInfo(vm *vmmapi.VM, brief bool, meta Meta) VMInfo {
	d := s.cfg.Details(vm.Spec.ID, brief)
	out := VMInfo{
		ID: vm.Spec.ID, Name: vm.Spec.Name, Status: statusWord(vm), AppID: vm.Spec.AppID.String(), BootProgress: vm.BootProgress,
		Events: []Event{}, Interfaces: d.Interfaces, ImageVersion: s.imageVersion(vm.Spec.Image),
	}
	if out.Interfaces == nil {
		out.Interfaces = []Interface{}
	}
	if out.Status == "running" || out.Status == "stopping" {
		out.Uptime = humanTime(s.cfg.Now().Sub(vm.StartedAt))
	} else if !d.ExitedAt.IsZero() {
		at := d.ExitedAt.UTC().Format(time.RFC3339)
		out.ExitedAt = &at
	}
	if vm.State == vmmapi.StateRunning {
		out.BootProgress = "done"
	}
	if vm.Error != nil {
		out.BootError = vm.Error.Message
	}
	if !vm.InstanceID.IsZero() {
		id := vm.InstanceID.String()
		out.InstanceID = &id
		if g := meta.Gateway; g.BaseDomain != "" {
			url := fmt.Sprintf("https://%s-%d.%s", id, g.AgentPort, g.BaseDomain)
			if g.Port != 443 && g.Port != 0 {
				url += fmt.Sprintf(":%d", g.Port)
			}
			out.AppURL = &url
		}
	}
	for _, e := range d.Events[max(0, len(d.Events)-maxVMEvents):] {
		out.Events = append(out.Events, Event{e.Kind, e.Message, uint64(max(0, e.Time.UnixMilli()))}) // #nosec G115 -- not negative
		if e.Kind == "shutdown.progress" && vm.State == vmmapi.StateStopping {
			out.ShutdownProgress = e.Message
		}
	}
	if !brief {
		out.Configuration = configuration(&vm.Spec)
	}
	return out
}

func (s *Service) imageVersion(name string) string {
	if s.cfg.Images == nil {
		return ""
	}
	for _, im := range s.cfg.Images.Images() {
		if im.Name == name {
			return im.Version
		}
	}
	return ""
}

// humanTime is a duration as the reference writes it: "2days 3h 4m 5s".
func humanTime(d time.Duration) string {
	sec := int64(max(0, d) / time.Second)
	var out []string
	for _, u := range []struct {
		word string
		n    int64
	}{{"day", sec / 86400}, {"h", sec / 3600 % 24}, {"m", sec / 60 % 60}, {"s", sec % 60}} {
		word := u.word
		if word == "day" && u.n > 1 {
			word = "days"
		}
		if u.n > 0 {
			out = append(out, fmt.Sprintf("%d%s", u.n, word))
		}
	}
	if len(out) == 0 {
		return "0s"
	}
	return strings.Join(out, " ")
}

// configuration is a spec as CreateVm would take it.
func configuration(s *vmmapi.Spec) *VMConfiguration {
	app := s.AppID.String()
	c := &VMConfiguration{
		Name: s.Name, Image: s.Image, ComposeFile: string(s.App.AppCompose), VCPU: uint32(s.Resources.VCPU), // #nosec G115 -- checked in the spec
		Memory: uint32(s.Resources.MemoryMiB), DiskSize: uint32((s.Resources.DiskMiB + 1023) >> 10), // #nosec G115 -- checked in the spec
		Ports: []Port{}, EncryptedEnv: s.App.EncryptedEnv, AppID: &app, UserConfig: string(s.App.UserConfig), Hugepages: s.Hugepages,
		PinNUMA: s.PinNUMA, KMSURLs: orEmpty(s.KMSURLs), GatewayURLs: orEmpty(s.GatewayURLs), NoTEE: s.NoTEE, Networks: []Networking{},
	}
	for _, p := range s.Ports {
		c.Ports = append(c.Ports, Port{p.Protocol, uint32(p.HostPort), uint32(p.VMPort), p.HostAddress})
	}
	for _, n := range s.Networks {
		c.Networks = append(c.Networks, Networking{n.Mode, n.Bridge})
	}
	if len(c.Networks) > 0 {
		c.Networking = &c.Networks[0]
	}
	if s.GPUs != nil {
		c.GPUs = &GPUConfig{AttachMode: s.GPUs.AttachMode, GPUs: []GPUSlot{}}
		for _, slot := range s.GPUs.Slots {
			c.GPUs.GPUs = append(c.GPUs.GPUs, GPUSlot{slot})
		}
	}
	return c
}

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func (s *Service) envKey(ctx context.Context, q AppID) (PublicKey, error) {
	if s.cfg.EnvKey == nil {
		return PublicKey{}, cvm.Errorf(cvm.Unsupported, "this node knows no KMS").WithFix("set [kms] urls and root_spki in the VMM's configuration")
	}
	var app cvm.AppID
	if len(q.AppID) != len(app) {
		return PublicKey{}, cvm.Errorf(cvm.Invalid, "app_id: %d bytes, want %d", len(q.AppID), len(app))
	}
	copy(app[:], q.AppID)
	k, err := s.cfg.EnvKey(ctx, app)
	if err != nil {
		return PublicKey{}, err
	}
	return PublicKey{k.PublicKey, k.Signature, k.Timestamp, k.SignatureV1}, nil
}

// processes lists the machines that run or whose last run is remembered.
func (s *Service) processes(context.Context) (ProcessList, error) {
	out := ProcessList{Processes: []Process{}}
	for _, vm := range s.cfg.VMs.List() {
		d := s.cfg.Details(vm.Spec.ID, true)
		if !d.HasRun {
			continue
		}
		p := Process{ID: vm.Spec.ID, Name: vm.Spec.Name, Status: "running", Command: "phala-vmm machine " + vm.Spec.ID, Note: vm.BootProgress}
		switch {
		case d.Alive:
		case vm.State == vmmapi.StateFailed && vm.Error != nil:
			p.Status = "error(" + vm.Error.Message + ")"
		case vm.Desired == "running":
			p.Status = "exited(" + d.Exit + ")"
		default:
			p.Status = "stopped"
		}
		out.Processes = append(out.Processes, p)
	}
	return out, nil
}

func (s *Service) images() (Images, error) {
	if s.cfg.Images == nil {
		return nil, cvm.Errorf(cvm.Unsupported, "this node does not offer images")
	}
	return s.cfg.Images, nil
}

func (s *Service) listImages(context.Context) (ImageList, error) {
	im, err := s.images()
	if err != nil {
		return ImageList{}, err
	}
	return ImageList{im.Images()}, nil
}

func (s *Service) listPulls(context.Context) (RegistryImageList, error) {
	im, err := s.images()
	if err != nil {
		return RegistryImageList{}, err
	}
	return RegistryImageList{im.Pulls()}, nil
}

func (s *Service) pull(ctx context.Context, q PullRequest) (empty, error) {
	im, err := s.images()
	if err != nil {
		return empty{}, err
	}
	if !strings.Contains(q.Tag, "/") {
		return empty{}, cvm.Errorf(cvm.Invalid, "tag %q: this node has no registry of its own", q.Tag).WithFix("name the image as host/repository@sha256:... or host/repository:tag")
	}
	return empty{}, im.Pull(ctx, q.Tag)
}

func (s *Service) deleteImage(_ context.Context, q ID) (empty, error) {
	im, err := s.images()
	if err == nil {
		err = wantID(q.ID)
	}
	if err != nil {
		return empty{}, err
	}
	return empty{}, im.DeleteImage(q.ID)
}

// guestInfo is GuestApi.Info: a part of what the guest says.
type guestInfo struct {
	Version    string       `json:"version"`
	AppID      guestapi.Hex `json:"app_id"`
	InstanceID guestapi.Hex `json:"instance_id"`
	AppCert    string       `json:"app_cert"`
	TCBInfo    string       `json:"tcb_info"`
	DeviceID   guestapi.Hex `json:"device_id"`
}

func (s *Service) guestInfo(ctx context.Context, q ID) (out guestInfo, err error) {
	return out, s.askGuest(ctx, q.ID, "/v1/info", &out)
}

func (s *Service) askGuest(ctx context.Context, id, path string, out any) error {
	if err := wantID(id); err != nil {
		return err
	}
	if s.cfg.Guest == nil {
		return cvm.Errorf(cvm.Unsupported, "this node does not reach its guests")
	}
	err := s.cfg.Guest(ctx, id, path, out)
	if cvm.CodeOf(err) == cvm.NotFound && cvm.ReasonOf(err) != "vm-not-found" {
		return cvm.Errorf(cvm.Unsupported, "the guest agent of VM %s does not offer %s", id, path)
	}
	return err
}

// proxy passes the guest's answer on as it is.
func (s *Service) proxy(path string) prpc.Method {
	return prpc.Unary(func(ctx context.Context, q ID) (any, error) {
		var out any
		err := s.askGuest(ctx, q.ID, path, &out)
		return out, err
	})
}
