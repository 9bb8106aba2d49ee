package cli

import (
	"context"
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
	doc    *appcompose.Document
	raw    []byte          // exact app-compose bytes, built here
	hash   cvm.ComposeHash // of raw
	kms    *cloudapi.KMS   // as the cloud named it, checked
	device cvm.DeviceID    // machine the app may run on
	place  string          // why there
	size   *string         // instance type
	change bool            // the app-compose differs from what runs

	changes []string // against what runs, in words
	notes   []string // what was asked for and has no part in it
	price   string   // per hour
	gpus    int      // of the instance type
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
		p.old, j.name = &old, old.Name
	case j.ref != "" && cvm.CodeOf(err) == cvm.NotFound:
		return nil, cvm.Errorf(cvm.NotFound, "there is no CVM %q to update", j.ref).WithFix("phala cvms list shows them; -n NAME deploys a new one")
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
	if err := a.describe(ctx, j, p); err != nil {
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
	yes, no := true, false
	d := &appcompose.Document{
		ManifestVersion: 2, Name: j.name, Runner: appcompose.RunnerDockerCompose,
		DockerComposeFile: j.text, PreLaunchScript: j.script,
		PublicLogs: j.f.publicLogs && !j.f.noPublicLogs, PublicSysinfo: j.f.publicSys && !j.f.noPublicSys, PublicTCBInfo: &yes,
		KMSEnabled: true, GatewayEnabled: true,
		KeyProvider: appcompose.ProviderKMS, KeyProviderID: strings.ToLower(p.trust.KMS.RootSPKI),
		AllowedEnvs: envNames(j.env), EnvSigners: []string{p.owner}, StorageFS: j.f.fs,
		SecureTime: &no, // the cloud's default; absent says true, and a machine without a way to a time server refuses
	}
	if p.old != nil {
		was, err := composeOf(*p.old)
		if err != nil {
			return cvm.Errorf(cvm.Unavailable, "the cloud's app-compose of %s is not readable: %w", j.name, err)
		}
		d.StorageFS = first(j.f.fs, was.StorageFS) // a data disk keeps its filesystem
		d.SecureTime = was.SecureTime
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
	p.doc, p.raw, p.hash = d, raw, doc.Hash()
	return nil
}

func (a *app) provisionNew(ctx context.Context, j *job, p *plan) error {
	req := cloudapi.ProvisionRequest{
		Name: j.name, InstanceType: j.f.instanceType, DiskSize: j.diskGB, NodeID: j.nodeID, Region: j.f.region,
		Image: j.f.image, ComposeFile: json.RawMessage(p.raw), Listed: j.listed(), KMS: j.f.kms, KMSID: j.f.kmsID, EnvKeys: envNames(j.env),
		VCPU: j.f.vcpu, Memory: j.f.memory,
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
	if j.f.vcpu+j.f.memory > 0 || j.f.instanceType != "" && j.f.instanceType != str(p.old.Resource.InstanceType) || j.diskGB != 0 && num(p.old.Resource.DiskInGB) != fmt.Sprint(j.diskGB) {
		return cvm.Errorf(cvm.Unsupported, "an update does not change the size of %s", j.name).WithFix("phala cvms resize " + j.name + " does; leave the sizes out here")
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

func (j *job) listed() bool {
	if j.s.project.Listed != nil && !j.f.noListed {
		return j.f.listed || *j.s.project.Listed
	}
	return j.f.listed && !j.f.noListed
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

func maybe(format, s string) string {
	if s == "" {
		return ""
	}
	return fmt.Sprintf(format, s)
}
