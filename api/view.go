package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
)

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// parsed reads a stored app-compose; it was parsed before it was stored.
func parsed(c store.CVM) *appcompose.Document {
	d, err := appcompose.Parse(c.AppCompose)
	if err != nil {
		return &appcompose.Document{}
	}
	return d
}

// url is where a port of an app or instance is reached; port 0 is the bare name.
func (s *Server) url(id string, port int) string {
	if port != 0 {
		id = fmt.Sprintf("%s-%d", id, port)
	}
	return "https://" + id + "." + s.cfg.baseDomain()
}

// endpoints are the URLs of the ports that the compose file publishes.
func (s *Server) endpoints(c store.CVM) []cloudapi.Endpoint {
	out := []cloudapi.Endpoint{}
	for _, port := range s.faces.of(c).Ports {
		e := cloudapi.Endpoint{App: s.url(c.AppID, port)}
		if c.InstanceID != "" {
			e.Instance = s.url(c.InstanceID, port)
		}
		out = append(out, e)
	}
	return out
}

// vm is the answer of calls that change something; seq is the last event before.
func (s *Server) vm(_ context.Context, c store.CVM, seq int64) cloudapi.VM {
	d := parsed(c)
	v := cloudapi.VM{
		ID: c.ID, Name: c.Name, Status: c.Status, TeepodID: int(c.NodeID), Teepod: s.teepod(c), UserID: ptr(c.UserID), AppID: c.AppID,
		VMUUID: ptr(c.UUID), InstanceID: opt(c.InstanceID), BaseImage: opt(c.Image), VCPU: c.VCPU, Memory: c.MemoryMiB, DiskSize: c.DiskGB,
		ManifestVersion: ptr(int(d.ManifestVersion)), Runner: opt(d.Runner), DockerComposeFile: opt(d.DockerComposeFile), Features: d.Features,
		CreatedAt: stamp(c.CreatedAt), AppAuthContractAddress: opt(c.ContractAddress), DeployerAddress: opt(c.DeployerAddress),
		Generation: c.Generation, EventSeq: seq,
	}
	if e := s.endpoints(c); len(e) > 0 {
		v.AppURL = ptr(e[0].App)
	}
	return v
}

func (s *Server) teepod(c store.CVM) *cloudapi.TeepodRef {
	n := s.nodes.byID[c.NodeID]
	if n == nil {
		return nil
	}
	return &cloudapi.TeepodRef{ID: int(c.NodeID), Name: n.name(), RegionIdentifier: opt(n.region())}
}

// info is a CVM as lists show it.
func (s *Server) info(p store.Principal, c store.CVM, ops []store.Operation) cloudapi.CVMInfo {
	f := s.faces.of(c)
	v := cloudapi.CVMInfo{
		ID: store.HashID(c.UUID), Name: c.Name, AppID: ptr(c.AppID), VMUUID: ptr(c.UUID), InstanceID: opt(c.InstanceID),
		Resource: s.resource(c), NodeInfo: s.nodeRef(c.NodeID), OS: s.os(c), KMSType: ptr(s.cfg.kmsType()), KMSInfo: s.cvmKMS(c),
		Status: c.Status, ComposeHash: ptr(c.ComposeHash), Gateway: cloudapi.Gateway{BaseDomain: ptr(s.cfg.baseDomain())}, Services: []any{},
		Endpoints: s.endpoints(c), PublicLogs: f.PublicLogs, PublicSysinfo: f.PublicSysinfo, PublicTCBInfo: f.PublicTCB,
		GatewayOn: f.Gateway, SecureTime: f.SecureTime, Listed: c.Listed, StorageFS: f.StorageFS,
		Workspace: &cloudapi.WorkspaceRef{ObjectType: "workspace", ID: workspaceID(p), Name: p.WorkspaceName, Slug: ptr(p.WorkspaceSlug)},
		Creator:   &cloudapi.UserRef{ObjectType: "user", ID: ptr(fmt.Sprintf("usr_%d", c.UserID)), Username: ptr(p.Username)},
		CreatedAt: stamp(c.CreatedAt), UpdatedAt: stamp(c.UpdatedAt), BootProgress: c.BootProgress, Error: c.Error,
		Generation: c.Generation, HasEnv: len(c.EncryptedEnv) > 0, EnvSigned: c.EnvSignature != nil, Simulated: s.simulated(c),
	}
	if c.EnvSignature != nil {
		v.EnvCounter = c.EnvSignature.Counter
	}
	if len(ops) > 0 {
		o := ops[len(ops)-1]
		v.Progress = &cloudapi.Progress{Target: ptr(target(o.Kind)), StartedAt: ptr(stamp(o.CreatedAt)), CorrelationID: ptr(o.CorrelationID)}
	}
	return v
}

// target is the status that an operation leads to.
func target(kind string) string {
	switch kind {
	case store.Stop, store.Shutdown:
		return cloudapi.StatusStopped
	case store.Delete:
		return cloudapi.StatusDeleted
	}
	return cloudapi.StatusRunning
}

func (s *Server) resource(c store.CVM) cloudapi.Resource {
	r := cloudapi.Resource{InstanceType: opt(c.InstanceType), VCPU: ptr(c.VCPU), MemoryInGB: ptr(float64(c.MemoryMiB) / 1024), DiskInGB: ptr(c.DiskGB),
		GPUs: ptr(c.GPUs), BillingPeriod: ptr("skip")}
	if t, ok := s.cfg.instanceType(c.InstanceType); ok {
		r.ComputeBillingPrice = ptr(t.HourlyRate)
	}
	return r
}

func (s *Server) os(c store.CVM) *cloudapi.OSInfo {
	o := &cloudapi.OSInfo{Name: opt(c.Image)}
	n := s.nodes.byID[c.NodeID]
	if n == nil {
		return o
	}
	_, images, _ := n.facts()
	for _, i := range images {
		if i.Name == c.Image || c.Image == "" && len(images) == 1 {
			return &cloudapi.OSInfo{Name: ptr(i.Name), Version: ptr(i.Version), OSImageHash: ptr(i.Hash.String()), IsDev: ptr(i.IsDev)}
		}
	}
	return o
}

func (s *Server) simulated(c store.CVM) bool {
	n := s.nodes.byID[c.NodeID]
	if n == nil {
		return false
	}
	info, _, _ := n.facts()
	return info.Simulated
}

func (s *Server) cvmKMS(c store.CVM) *cloudapi.CVMKMSInfo {
	k := &cloudapi.CVMKMSInfo{}
	if s.cfg.Chain.ID != 0 {
		k.ChainID, k.DstackKMSAddress, k.RPCEndpoint = ptr(s.cfg.Chain.ID), ptr(s.cfg.Chain.Contract), opt(s.cfg.Chain.RPCURL)
		k.DstackAppAddress, k.DeployerAddress = ptr("0x"+c.AppID), opt(c.DeployerAddress)
	}
	return k
}

// envPubkeyTimeout bounds the question to the KMS: a CVM is shown without the key
// rather than not at all.
const envPubkeyTimeout = 3 * time.Second

// envPubkey is the key that a CVM's environment is encrypted to. With a chain,
// clients ask the KMS themselves and this stays empty.
func (s *Server) envPubkey(ctx context.Context, c store.CVM) *string {
	app, err := cvm.ParseAppID(c.AppID)
	if err != nil || s.cfg.Chain.ID != 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, envPubkeyTimeout)
	defer cancel()
	k, err := s.keys.EnvKey(ctx, app)
	if err != nil {
		s.log.Warn("no environment key from the KMS", "app", c.AppID, "err", err)
		return nil
	}
	return ptr(hex.EncodeToString(k.PublicKey))
}

// legacyDetail is GET /cvms/{id} in the 2025-10-28 shape.
func (s *Server) legacyDetail(c store.CVM, ops []store.Operation) map[string]any {
	f := s.faces.of(c)
	return map[string]any{
		"id": c.ID, "name": c.Name, "status": c.Status, "in_progress": len(ops) > 0, "teepod_id": c.NodeID, "teepod": s.teepod(c),
		"app_id": c.AppID, "vm_uuid": c.UUID, "instance_id": opt(c.InstanceID), "vcpu": c.VCPU, "memory": c.MemoryMiB, "disk_size": c.DiskGB,
		"base_image": opt(c.Image), "encrypted_env_pubkey": nil, "listed": c.Listed, "instance_type": opt(c.InstanceType),
		"public_sysinfo": f.PublicSysinfo, "public_logs": f.PublicLogs, "dapp_dashboard_url": nil, "syslog_endpoint": nil, "kms_info": s.cfg.kms(),
		"contract_address": opt(c.ContractAddress), "deployer_address": opt(c.DeployerAddress), "scheduled_delete_at": scheduled(c),
		"public_urls": s.endpoints(c), "gateway_domain": s.cfg.baseDomain(), "updated_at": stamp(c.UpdatedAt),
		"machine_info": map[string]any{"vcpu": c.VCPU, "memory": c.MemoryMiB, "disk_size": c.DiskGB},
	}
}

func scheduled(c store.CVM) *string {
	if c.DeleteAt.IsZero() {
		return nil
	}
	return ptr(stamp(c.DeleteAt))
}

// legacyInfo is a CVM in lists in the 2025-10-28 shape.
func (s *Server) legacyInfo(p store.Principal, c store.CVM, ops []store.Operation) map[string]any {
	urls := s.endpoints(c)
	var appURL any
	if len(urls) > 0 {
		appURL = urls[0].App
	}
	return map[string]any{
		"hosted": map[string]any{"id": c.UUID, "name": c.Name, "status": c.Status, "uptime": uptime(c, time.Now()), "app_url": appURL, "app_id": c.AppID,
			"instance_id": opt(c.InstanceID), "exited_at": nil, "boot_progress": opt(c.BootProgress), "boot_error": bootError(c), "shutdown_progress": nil, "image_version": opt(c.Image)},
		"name": c.Name, "managed_user": map[string]any{"id": c.UserID, "username": p.Username}, "node": s.teepod(c), "listed": c.Listed, "status": c.Status,
		"in_progress": len(ops) > 0, "dapp_dashboard_url": nil, "syslog_endpoint": nil, "allow_upgrade": true, "project_id": nil, "project_type": nil,
		"billing_period": "skip", "kms_info": s.cfg.kms(), "vcpu": c.VCPU, "memory": c.MemoryMiB, "disk_size": c.DiskGB, "gateway_domain": s.cfg.baseDomain(),
		"public_urls": urls, "machine_info": nil, "updated_at": stamp(c.UpdatedAt),
	}
}

func bootError(c store.CVM) *string {
	if c.Error == nil || c.Status == cloudapi.StatusRunning { // one that runs says why its update failed
		return nil
	}
	return ptr(c.Error.Message)
}

// uptime is how long a running CVM has been up, in words.
func uptime(c store.CVM, now time.Time) string {
	if c.Status != cloudapi.StatusRunning || c.StartedAt.IsZero() {
		return ""
	}
	return now.Sub(c.StartedAt).Truncate(time.Second).String()
}

func (s *Server) detail(ctx context.Context, p store.Principal, c store.CVM) (cloudapi.CVMDetail, error) {
	ops, err := s.store.OpenOps(ctx, c.ID)
	if err != nil {
		return cloudapi.CVMDetail{}, err
	}
	i := s.info(p, c, ops)
	i.KMSInfo.EncryptedEnvPubkey = s.envPubkey(ctx, c)
	return cloudapi.CVMDetail{CVMInfo: i, ComposeFile: json.RawMessage(c.AppCompose)}, nil
}
