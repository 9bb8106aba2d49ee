package cli

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/wallet"
	"github.com/confidential-cloud/phala/verify"
)

// plan is what a deploy will do, agreed with the cloud and checked against the pins.
type plan struct {
	trust  *verify.Profile
	owner  string              // 0x-address that owns the app and signs its environment
	old    *cloudapi.CVMDetail // nil: a new CVM
	raw    []byte              // exact app-compose bytes, built here
	hash   cvm.ComposeHash     // of raw
	kms    *cloudapi.KMS       // as the cloud named it, checked
	device cvm.DeviceID        // machine the app may run on
	place  string              // why there
	size   *string             // instance type
	change bool                // the app-compose differs from what runs
}

// plan finds out whether the name exists, builds the app-compose here and has the
// cloud build it too.
func (a *app) plan(ctx context.Context, j *job) (*plan, error) {
	t, _, err := a.trust(j.s, j.f.trust)
	if err != nil {
		return nil, err
	}
	j.s.gateway(t)
	info, err := wallet.Inspect(j.s.walletPath())
	if err != nil {
		return nil, err
	}
	p := &plan{trust: t, owner: strings.ToLower(info.Address)}
	j.steps.start("asking the cloud about %s", j.name)
	old, err := j.s.api.CVM(ctx, j.name)
	switch {
	case err == nil:
		p.old = &old
	case cvm.CodeOf(err) != cvm.NotFound:
		return nil, err
	}
	warnings, err := a.envUse(j, p)
	if err != nil {
		return nil, err
	}
	if err := a.build(j, p); err != nil {
		return nil, err
	}
	if p.old == nil {
		err = a.provisionNew(ctx, j, p)
	} else {
		err = a.provisionUpdate(ctx, j, p)
	}
	if err != nil {
		return nil, err
	}
	j.steps.ok("app-compose built here and by the cloud: the same bytes, hash " + short(p.hash.String()))
	for _, w := range warnings {
		a.say("%s", a.warn(w))
	}
	return p, nil
}

// envUse checks the environment against the compose file; an update without -e
// keeps the values that are there.
func (a *app) envUse(j *job, p *plan) ([]string, error) {
	if p.old != nil && !j.envSet {
		return nil, nil
	}
	return checkEnvUse(j.file, j.env)
}

// build makes the exact app-compose bytes.
func (a *app) build(j *job, p *plan) error {
	yes := true
	d := &appcompose.Document{
		ManifestVersion: 2, Name: j.name, Runner: appcompose.RunnerDockerCompose,
		DockerComposeFile: j.text, PreLaunchScript: j.script,
		PublicLogs: j.f.publicLogs && !j.f.noPublicLogs, PublicSysinfo: j.f.publicSys && !j.f.noPublicSys, PublicTCBInfo: &yes,
		KMSEnabled: true, GatewayEnabled: true,
		KeyProvider: appcompose.ProviderKMS, KeyProviderID: strings.ToLower(p.trust.KMS.RootSPKI),
		AllowedEnvs: envNames(j.env), EnvSigners: []string{p.owner}, StorageFS: j.f.fs,
	}
	if p.old != nil {
		was, err := composeOf(*p.old)
		if err != nil {
			return cvm.Errorf(cvm.Unavailable, "the cloud's app-compose of %s is not readable: %w", j.name, err)
		}
		d.StorageFS = first(j.f.fs, was.StorageFS) // a data disk keeps its filesystem
		if !j.envSet {
			d.AllowedEnvs = was.AllowedEnvs
		}
	}
	if j.s.project.PublicLogs != nil && !j.f.noPublicLogs {
		d.PublicLogs = *j.s.project.PublicLogs
	}
	if j.s.project.PublicSysinfo != nil && !j.f.noPublicSys {
		d.PublicSysinfo = *j.s.project.PublicSysinfo
	}
	if d.AllowedEnvs == nil {
		d.AllowedEnvs = []string{}
	}
	slices.Sort(d.AllowedEnvs)
	raw, err := appcompose.Encode(d)
	if err != nil {
		return fmt.Errorf("building the app-compose: %w", err)
	}
	doc, err := appcompose.Parse(raw)
	if err != nil {
		return err
	}
	p.raw, p.hash = raw, doc.Hash()
	return nil
}

func (a *app) provisionNew(ctx context.Context, j *job, p *plan) error {
	req := cloudapi.ProvisionRequest{
		Name: j.name, InstanceType: j.f.instanceType, DiskSize: j.diskGB, NodeID: j.nodeID, Region: j.f.region,
		Image: j.f.image, ComposeFile: json.RawMessage(p.raw), Listed: j.f.listed, KMS: j.f.kms, EnvKeys: envNames(j.env),
	}
	if j.f.devOS || j.f.noDevOS {
		req.PreferDev = &j.f.devOS
	}
	pv, err := j.s.api.Provision(ctx, req)
	if err != nil {
		return err
	}
	p.change, p.place, p.size, p.kms = true, pv.Placement, pv.InstanceType, pv.KMSInfo
	if err := sameBytes(p, pv.ComposeHash, pv.AppCompose); err != nil {
		return err
	}
	return p.check(pv.DeviceID)
}

func (a *app) provisionUpdate(ctx context.Context, j *job, p *plan) error {
	if j.f.instanceType != "" && j.f.instanceType != str(p.old.Resource.InstanceType) || j.diskGB != 0 && num(p.old.Resource.DiskInGB) != fmt.Sprint(j.diskGB) {
		return cvm.Errorf(cvm.Unsupported, "an update does not change the size of %s", j.name).WithFix("leave --instance-type and --disk-size out, or deploy under another name")
	}
	pv, err := j.s.api.ProvisionCompose(ctx, p.ref(), json.RawMessage(p.raw))
	if err != nil {
		return err
	}
	p.change, p.size, p.kms = pv.Changed, p.old.Resource.InstanceType, pv.KMSInfo
	if err := sameBytes(p, pv.ComposeHash, pv.AppCompose); err != nil {
		return err
	}
	if p.old.ComposeHash != nil {
		p.change = strings.TrimPrefix(*p.old.ComposeHash, "0x") != p.hash.String()
	}
	return p.check(pv.DeviceID)
}

// ref names the CVM of an update beyond doubt.
func (p *plan) ref() string { return first(str(p.old.VMUUID), p.old.ID, p.old.Name) }

// sameBytes is the reason why the cloud cannot swap the app: what goes on chain is
// the hash of the bytes built here.
func sameBytes(p *plan, hash, raw string) error {
	if strings.EqualFold(strings.TrimPrefix(hash, "0x"), p.hash.String()) && (raw == "" || raw == string(p.raw)) {
		return nil
	}
	return cvm.Errorf(cvm.Denied, "the cloud's app-compose hash is %s, the one built here is %s; nothing was put on chain", short(hash), short(p.hash.String())).
		WithReason(reasonCloudChanged).WithFix("compare them: phala deploy --dry-run --json prints ours; do not deploy to this cloud until it is explained")
}

// check compares what the cloud named with the trust profile.
func (p *plan) check(device *string) error {
	if p.kms == nil || p.kms.ChainID == nil || p.kms.KMSContractAddress == nil {
		return cvm.Errorf(cvm.Unsupported, "the cloud's KMS takes its rules from no chain, and this CLI registers apps on chain only")
	}
	if *p.kms.ChainID != p.trust.Chain.ID || !strings.EqualFold(*p.kms.KMSContractAddress, p.trust.Chain.KMSContract) {
		return cvm.Errorf(cvm.Denied, "the cloud names DstackKms %s on chain %d; the trust profile names %s on chain %d",
			*p.kms.KMSContractAddress, *p.kms.ChainID, p.trust.Chain.KMSContract, p.trust.Chain.ID).
			WithReason(reasonWrongCloud).WithFix("use the trust profile of this cloud (phala trust use FILE), if you trust it")
	}
	if device == nil {
		return cvm.Errorf(cvm.Unavailable, "the cloud did not say which machine would run it")
	}
	var err error
	p.device, err = cvm.ParseDeviceID(*device)
	return err
}

// planJSON is the answer of --dry-run --json.
type planJSON struct {
	Action      string   `json:"action"`
	Name        string   `json:"name"`
	ComposeHash string   `json:"compose_hash"`
	AppCompose  string   `json:"app_compose"`
	Owner       string   `json:"owner"`
	ChainID     uint64   `json:"chain_id"`
	Contract    string   `json:"kms_contract"`
	DeviceID    string   `json:"device_id"`
	EnvNames    []string `json:"env_names"`
	Ports       []int    `json:"ports"`
	Changed     bool     `json:"changed"`
	Findings    any      `json:"findings"`
}

func (p *plan) json(j *job) planJSON {
	out := planJSON{Action: p.action(), Name: j.name, ComposeHash: p.hash.String(), AppCompose: string(p.raw), Owner: p.owner,
		ChainID: p.trust.Chain.ID, Contract: p.trust.Chain.KMSContract, DeviceID: hex.EncodeToString(p.device[:]),
		EnvNames: envNames(j.env), Ports: []int{}, Changed: p.change, Findings: j.file.Lint()}
	for _, port := range j.file.Ports() {
		out.Ports = append(out.Ports, port.Published)
	}
	return out
}

func (p *plan) action() string {
	if p.old == nil {
		return "create"
	}
	return "update"
}

func (a *app) showPlan(j *job, p *plan) {
	a.say("")
	if p.old == nil {
		a.say("Plan: create CVM %s%s", j.name, maybe(" (%s)", str(p.size)))
	} else {
		a.say("Plan: update CVM %s in place (app %s)", j.name, str(p.old.AppID))
	}
	for _, s := range j.file.Services() {
		a.say("  service      %s  %s", s.Name, s.Image)
	}
	for _, port := range j.file.Ports() {
		if port.Reachable() {
			a.say("  port         %d -> %s:%d", port.Published, port.Service, port.Target)
		}
	}
	a.say("  app-compose  %s", p.hash)
	switch {
	case j.envSet && len(j.env) > 0:
		a.say("  environment  %s: encrypted to the app, signed by %s", strings.Join(envNames(j.env), ", "), p.owner)
	case p.old != nil && p.old.HasEnv:
		a.say("  environment  stays as it is")
	}
	a.say("  machine      %s%s", short(p.device.String()), maybe("  %s", p.place))
	switch {
	case p.old == nil:
		a.say("  on chain     make the app's contract with this hash (chain %d, DstackKms %s, owner %s)", p.trust.Chain.ID, p.trust.Chain.KMSContract, p.owner)
	case p.change:
		a.say("  on chain     allow this hash for app %s (chain %d)", str(p.old.AppID), p.trust.Chain.ID)
	default:
		a.say("  on chain     nothing: the app-compose is the one that runs")
	}
	a.say("")
}

func maybe(format, s string) string {
	if s == "" {
		return ""
	}
	return fmt.Sprintf(format, s)
}
