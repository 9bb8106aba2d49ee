package prpc

import (
	"context"
	"math"

	"github.com/google/uuid"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// createVM defines a VM and starts it unless stopped is set. If it cannot be
// started now it is not left behind.
func (s *Service) createVM(ctx context.Context, c VMConfiguration) (ID, error) {
	spec, err := s.spec(ctx, &c)
	if err != nil {
		return ID{}, err
	}
	if _, err := s.cfg.VMs.Put(spec); err != nil {
		return ID{}, err
	}
	if c.Stopped {
		return ID{spec.ID}, nil
	}
	if err := s.cfg.VMs.Order(ctx, spec.ID, Start); err != nil {
		_ = s.cfg.VMs.Order(context.WithoutCancel(ctx), spec.ID, Remove)
		return ID{}, err
	}
	return ID{spec.ID}, nil
}

// spec translates a configuration; what it leaves open is the node's.
func (s *Service) spec(ctx context.Context, c *VMConfiguration) (vmmapi.Spec, error) {
	doc, err := appcompose.Parse([]byte(c.ComposeFile))
	if err != nil {
		return vmmapi.Spec{}, cvm.Errorf(cvm.Invalid, "compose_file: %w", err)
	}
	out := vmmapi.Spec{
		ID: uuid.NewString(), Name: c.Name, Image: c.Image, AppID: defaultAppID(doc),
		Resources: vmmapi.Resources{VCPU: int(c.VCPU), MemoryMiB: int(c.Memory), DiskMiB: gib(c.DiskSize)},
		App:       vmmapi.App{AppCompose: []byte(c.ComposeFile), EncryptedEnv: c.EncryptedEnv, UserConfig: []byte(c.UserConfig)},
		KMSURLs:   c.KMSURLs, GatewayURLs: c.GatewayURLs, Hugepages: c.Hugepages, PinNUMA: c.PinNUMA, NoTEE: c.NoTEE,
		GPUs: gpus(c.GPUs),
	}
	if c.AppID != nil && *c.AppID != "" {
		if err := out.AppID.UnmarshalText(trim0x(*c.AppID)); err != nil {
			return out, cvm.Errorf(cvm.Invalid, "app_id: %w", err)
		}
	}
	if out.Ports, err = ports(c.Ports); err != nil {
		return out, err
	}
	nets := c.Networks
	if len(nets) == 0 && c.Networking != nil {
		nets = []Networking{*c.Networking}
	}
	out.Networks = networks(nets)
	if c.SimulatedTEE {
		return out, cvm.Errorf(cvm.Unsupported, "simulated_tee: whether a TEE is simulated is the node's own setting, not a VM's")
	}
	return out, s.defaults(ctx, &out)
}

// defaults fills URLs that the caller left out.
func (s *Service) defaults(ctx context.Context, out *vmmapi.Spec) error {
	if s.cfg.Meta == nil || len(out.KMSURLs) > 0 && len(out.GatewayURLs) > 0 {
		return nil
	}
	m, err := s.cfg.Meta(ctx)
	if err != nil {
		return err
	}
	if len(out.KMSURLs) == 0 {
		out.KMSURLs = m.KMS.URLs
	}
	if len(out.GatewayURLs) == 0 {
		out.GatewayURLs = m.Gateway.URLs
	}
	return nil
}

func trim0x(s string) []byte {
	if len(s) > 2 && s[:2] == "0x" {
		s = s[2:]
	}
	return []byte(s)
}

// defaultAppID is the reference's: the first 20 bytes of the compose hash.
func defaultAppID(doc *appcompose.Document) (id cvm.AppID) {
	h := doc.Hash()
	copy(id[:], h[:])
	return id
}

func gib(n uint32) int { return int(min(n, math.MaxInt32>>10)) << 10 }

func gpus(g *GPUConfig) *vmmapi.GPUs {
	if g == nil || len(g.GPUs) == 0 && g.AttachMode != "all" {
		return nil
	}
	out := &vmmapi.GPUs{AttachMode: g.AttachMode}
	if out.AttachMode == "" {
		out.AttachMode = "listed"
	}
	for _, x := range g.GPUs {
		out.Slots = append(out.Slots, x.Slot)
	}
	return out
}

func ports(in []Port) (out []vmmapi.PortMap, err error) {
	for i, p := range in {
		if p.HostPort > math.MaxUint16 || p.VMPort > math.MaxUint16 {
			return nil, cvm.Errorf(cvm.Invalid, "ports[%d]: %d -> %d: a port is at most 65535", i, p.HostPort, p.VMPort)
		}
		out = append(out, vmmapi.PortMap{Protocol: p.Protocol, HostAddress: p.HostAddress, HostPort: uint16(p.HostPort), VMPort: uint16(p.VMPort)})
	}
	return out, nil
}

func networks(in []Networking) (out []vmmapi.Network) {
	for _, n := range in {
		out = append(out, vmmapi.Network{Mode: n.Mode, Bridge: n.BridgeName})
	}
	return out
}

// updateVM answers with the new app id when the compose changed, as the reference
// does; the VM keeps its own.
func (s *Service) updateVM(ctx context.Context, q UpdateVMRequest) (ID, error) {
	if err := wantID(q.ID); err != nil {
		return ID{}, err
	}
	var out ID
	if q.ComposeFile != "" {
		doc, err := appcompose.Parse([]byte(q.ComposeFile))
		if err != nil {
			return ID{}, cvm.Errorf(cvm.Invalid, "compose_file: %w", err)
		}
		out.ID = defaultAppID(doc).String()
	}
	if q.ClearEncryptedEnv && len(q.EncryptedEnv) > 0 || q.ClearUserConfig && q.UserConfig != "" {
		return ID{}, cvm.Errorf(cvm.Invalid, "clear_encrypted_env and clear_user_config exclude a new value")
	}
	mapped, err := ports(q.Ports)
	if err != nil {
		return ID{}, err
	}
	_, err = s.cfg.VMs.Respec(ctx, q.ID, func(spec *vmmapi.Spec) error {
		q.apply(spec, mapped)
		return nil
	})
	if err != nil {
		return ID{}, err
	}
	return out, nil
}

// apply changes a copy: the whole is checked before it counts.
func (q *UpdateVMRequest) apply(spec *vmmapi.Spec, mapped []vmmapi.PortMap) {
	if q.ComposeFile != "" {
		spec.App.AppCompose = []byte(q.ComposeFile)
	}
	if len(q.EncryptedEnv) > 0 || q.ClearEncryptedEnv {
		spec.App.EncryptedEnv, spec.App.EnvSignature = q.EncryptedEnv, nil // the signature was of the old one
	}
	if q.UserConfig != "" || q.ClearUserConfig {
		spec.App.UserConfig = []byte(q.UserConfig)
	}
	if q.UpdatePorts {
		spec.Ports = mapped
	}
	if q.UpdateKMSURLs {
		spec.KMSURLs = q.KMSURLs
	}
	if q.UpdateGatewayURLs {
		spec.GatewayURLs = q.GatewayURLs
	}
	if q.GPUs != nil && q.GPUs.AttachMode != "count" { // ours, sent back as it was read: it stays
		spec.GPUs = gpus(q.GPUs)
	}
	if q.NoTEE != nil {
		spec.NoTEE = *q.NoTEE
	}
	if q.UpdateNetworking {
		spec.Networks = networks(q.Networks)
	}
	ResizeVMRequest{VCPU: q.VCPU, Memory: q.Memory, DiskSize: q.DiskSize, Image: q.Image}.apply(spec)
}

func (q ResizeVMRequest) apply(spec *vmmapi.Spec) {
	if q.VCPU != nil {
		spec.Resources.VCPU = int(*q.VCPU)
	}
	if q.Memory != nil {
		spec.Resources.MemoryMiB = int(*q.Memory)
	}
	if q.DiskSize != nil {
		spec.Resources.DiskMiB = gib(*q.DiskSize)
	}
	if q.Image != nil && *q.Image != "" {
		spec.Image = *q.Image
	}
}

func (s *Service) resizeVM(ctx context.Context, q ResizeVMRequest) (empty, error) {
	if err := wantID(q.ID); err != nil {
		return empty{}, err
	}
	_, err := s.cfg.VMs.Respec(ctx, q.ID, func(spec *vmmapi.Spec) error {
		q.apply(spec)
		return nil
	})
	return empty{}, err
}
