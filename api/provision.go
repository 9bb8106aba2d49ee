package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/scheduler"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

// provisionAge is how long a prepared app-compose waits for its commit.
const provisionAge = 14 * 24 * time.Hour

func sha(b []byte) [32]byte { return sha256.Sum256(b) }

type provisionInput struct {
	Versioned
	Body    cloudapi.ProvisionRequest
	RawBody []byte
}

// raw is one key of a body as the client wrote it.
func raw(body []byte, key string) json.RawMessage {
	var m map[string]json.RawMessage
	_ = json.Unmarshal(body, &m) // huma has parsed it already
	return m[key]
}

func (s *Server) provision(ctx context.Context, in *provisionInput) (out cloudapi.Provisioned, err error) {
	r := in.Body
	size, err := s.sizeOf(r)
	if err != nil {
		return out, err
	}
	if !s.cfg.isKMS(r.KMS) || !s.cfg.isKMS(r.KMSID) {
		return out, s.noKMS()
	}
	if c, err := s.named(ctx, in); err != nil {
		return out, err
	} else if c != nil {
		if err := ownID(r.AppID, c.AppID); err != nil {
			return out, err
		}
		return s.provisionNamed(ctx, *c, in)
	}
	c, err := s.compose(raw(in.RawBody, "compose_file"), r.Name, defaults(), size.gpus)
	if err != nil {
		return out, err
	}
	if err := s.nameFree(ctx, r.Name); err != nil {
		return out, err
	}
	if err := s.admits(ctx, who(ctx).WorkspaceID, size); err != nil {
		return out, err
	}
	app := ""
	if s.cfg.Chain.ID == 0 {
		app = appOf(c.hash()).String()
		if err := ownID(r.AppID, app); err != nil {
			return out, err
		}
	}
	node, image, why, err := s.pick(ctx, r, size, app)
	if err != nil {
		return out, err
	}
	err = s.store.PutProvision(ctx, store.Provision{
		WorkspaceID: who(ctx).WorkspaceID, ComposeHash: c.hash(), ExpiresAt: s.now().Add(provisionAge),
		ProvisionBody: store.ProvisionBody{Name: r.Name, AppCompose: c.doc.Raw(), InstanceType: size.typ, VCPU: size.vcpu, MemoryMiB: size.memory,
			DiskGB: size.disk, GPUs: size.gpus, GPU: size.gpu, Image: image, NodeID: node.ID, Region: r.Region, Listed: r.Listed, MinConfidence: r.MinConfidence, Chosen: r.TeepodID == 0 && r.NodeID == 0},
	})
	if err != nil {
		return out, err
	}
	return s.provisioned(ctx, c, size, node, image, why)
}

func (s *Server) provisioned(ctx context.Context, c composed, size size, node scheduler.Node, image, why string) (out cloudapi.Provisioned, err error) {
	n := s.nodes.byID[node.ID]
	_, images, _ := n.facts()
	out = cloudapi.Provisioned{
		ComposeHash: c.hash(), KMSInfo: ptr(s.cfg.kms()), DeviceID: ptr(n.device().String()), InstanceType: opt(size.typ),
		KMSID: ptr(s.cfg.KMS.ID), TeepodID: ptr(int(node.ID)), NodeID: ptr(int(node.ID)),
		AppCompose: string(c.doc.Raw()), Placement: why, Warnings: c.warnings,
	}
	for _, i := range images {
		if i.Name == image || image == "" && len(images) == 1 {
			out.OSImageHash = ptr(i.Hash.String())
		}
	}
	if s.cfg.Chain.ID != 0 {
		return out, nil // the chain will give the app id
	}
	app := appOf(c.hash())
	k, err := s.keys.EnvKey(ctx, app)
	if err != nil {
		return out, err
	}
	out.AppID, out.AppEnvEncryptPubkey = ptr(app.String()), ptr(hex.EncodeToString(k.PublicKey))
	return out, nil
}

// ownID refuses an app id that somebody chose (--custom-app-id): without a chain the
// compose hash alone gives it. On a chain the app's contract is the id.
func ownID(asked, app string) error {
	if id := strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(asked), "app_"), "0x"); id != "" && id != app {
		return invalid("app_id", "without a chain an app's id is the first 20 bytes of its compose hash, here "+app+": leave app_id out")
	}
	return nil
}

// appOf is the app id of an app without a chain: the hash's first 20 bytes.
func appOf(hash string) (a cvm.AppID) {
	b, _ := hex.DecodeString(hash) // our own hex
	copy(a[:], b)
	return a
}

type size struct {
	typ                string
	vcpu, memory, disk int // memory in MiB, disk in GB
	gpus               int
	gpu                string // their product
}

// bodySize is the size that a CVM has.
func bodySize(b *store.Body) size {
	return size{b.InstanceType, b.VCPU, b.MemoryMiB, b.DiskGB, b.GPUs, b.GPU}
}

func (s size) need() scheduler.Resources {
	return scheduler.Resources{VCPU: s.vcpu, MemoryMiB: s.memory, DiskGB: s.disk}
}

// nameForm is the contract's, its look-ahead (no two dashes in a row) apart.
var nameForm = regexp.MustCompile(`^[a-zA-Z]([a-zA-Z0-9-]*[a-zA-Z0-9])?$`)

func checkName(p *problems, name string) {
	switch n := len(name); {
	case n < 5:
		p.add("name", "string_too_short", fmt.Sprintf("name %q is too short: want 5 to 63 characters, got %d", name, n), "for example: my-"+strings.Trim(name, "-")+"-app")
	case n > 63:
		p.add("name", "string_too_long", fmt.Sprintf("name is too long: want 5 to 63 characters, got %d", n), "shorten the name")
	case !nameForm.MatchString(name) || strings.Contains(name, "--"):
		p.add("name", "string_pattern_mismatch", fmt.Sprintf("name %q: want a letter, then letters, digits and single dashes, and no dash at the end", name), "for example: my-app-1")
	}
}

// sizeOf finds the size a request means, and tells all that is wrong with it and
// the name at once.
func (s *Server) sizeOf(r cloudapi.ProvisionRequest) (z size, err error) {
	var p problems
	checkName(&p, r.Name)
	z = size{typ: r.InstanceType, vcpu: r.VCPU, memory: r.Memory, disk: r.DiskSize}
	if z.typ == "" && z.vcpu == 0 && z.memory == 0 {
		z.typ = s.cfg.InstanceTypes[0].ID
	}
	t, known := s.cfg.instanceType(z.typ)
	switch {
	case known:
		if t.GPUs > 0 && (z.vcpu != 0 && z.vcpu != t.VCPU || z.memory != 0 && z.memory != t.MemoryMB) {
			p.add("instance_type", "value_error", fixedSize(t.ID), "leave vcpu and memory out, or choose another instance_type")
		}
		z.vcpu, z.memory, z.gpus, z.gpu = t.VCPU, t.MemoryMB, t.GPUs, t.GPU
	case z.typ == "" && z.vcpu < 1:
		p.add("vcpu", "value_error", "want at least 1 vCPU", "name an instance_type instead")
	case z.typ == "" && z.memory < 512:
		p.add("memory", "value_error", "want at least 512 MB memory", "name an instance_type instead")
	}
	if z.disk == 0 {
		z.disk = s.cfg.Disk.DefaultGB
	}
	if d := s.cfg.Disk; z.disk < d.MinGB || z.disk > d.MaxGB {
		p.add("disk_size", "value_error", fmt.Sprintf("disk_size %d GB is outside %d..%d GB", z.disk, d.MinGB, d.MaxGB), fmt.Sprintf("use at least %d GB", d.MinGB))
	}
	if err := p.err(); err != nil {
		return z, err
	}
	if z.typ != "" && !known {
		var ids []string
		for _, t := range s.cfg.InstanceTypes {
			ids = append(ids, t.ID)
		}
		return z, fail(http.StatusUnprocessableEntity, errInstanceType, cvm.Invalid, "unknown-instance-type",
			fmt.Sprintf("instance_type %q does not exist", z.typ), "choose one of "+strings.Join(ids, ", "))
	}
	return z, nil
}

func fixedSize(typ string) string {
	return fmt.Sprintf("a CVM with GPUs has the vCPU, the memory and the cards of its instance_type (%s), whose price covers them", typ)
}

func (s *Server) nameFree(ctx context.Context, name string) error {
	taken, err := s.store.NameTaken(ctx, who(ctx).WorkspaceID, name)
	if err == nil && taken {
		return store.ErrNameTaken
	}
	return err
}

type commitInput struct {
	Body cloudapi.CommitRequest
}

func (s *Server) commit(ctx context.Context, in *commitInput) (out cloudapi.VM, err error) {
	r, p := in.Body, who(ctx)
	hash := strings.ToLower(strings.TrimPrefix(r.ComposeHash, "0x"))
	app, err := cvm.ParseAppID(r.AppID)
	if err != nil {
		var bad problems
		bad.add("app_id", "value_error", err.Error(), "use the address that registering the app gave")
		return out, bad.err()
	}
	if c, prov, err := s.namedUpdate(ctx, app, hash); err != nil {
		return out, err
	} else if c != nil {
		return s.commitNamed(ctx, *c, prov, r)
	}
	prov, err := s.provisionOf(ctx, 0, hash)
	if err != nil {
		return out, err
	}
	if s.cfg.Chain.ID == 0 && app != appOf(hash) {
		return out, fail(http.StatusUnprocessableEntity, errBadRequest, cvm.Invalid, "app-id-mismatch", "without a chain the app id is the compose hash's first 20 bytes: "+appOf(hash).String())
	}
	// Asking again after a lost answer gets the same CVM.
	if prov.CommittedCVM != 0 {
		c, err := s.store.CVM(ctx, prov.CommittedCVM)
		if err != nil {
			return out, err
		}
		if c.Live() && c.AppID == app.String() {
			return s.vm(ctx, c, 0), nil
		}
	}
	c, err := s.compose(prov.AppCompose, prov.Name, nil, prov.GPUs)
	if err != nil {
		return out, err
	}
	e, err := readEnv(c.doc, app, r.EncryptedEnv, r.EnvSignature, 0)
	if err != nil {
		return out, err
	}
	limits, err := s.mayMake(ctx, p.WorkspaceID)
	if err != nil {
		return out, err
	}
	at, err := s.placeProvisioned(ctx, prov, app.String())
	if err != nil {
		return out, err
	}
	defer s.drop(ctx, at)
	made, err := s.store.Create(ctx, store.CVM{
		WorkspaceID: p.WorkspaceID, UserID: p.UserID, UUID: uuid.NewString(), Name: prov.Name, AppID: app.String(), NodeID: at.node.ID,
		Status: cloudapi.StatusCreating,
		Body: store.Body{InstanceType: prov.InstanceType, VCPU: prov.VCPU, MemoryMiB: prov.MemoryMiB, DiskGB: prov.DiskGB, GPUs: prov.GPUs, GPU: prov.GPU, Image: prov.Image, Listed: prov.Listed,
			AppCompose: prov.AppCompose, ComposeHash: hash, EncryptedEnv: e.blob, EnvSignature: e.sig,
			ContractAddress: r.ContractAddress, DeployerAddress: r.DeployerAddress, Face: s.faces.of(store.CVM{Body: store.Body{AppCompose: prov.AppCompose}})},
	}, s.jobs.Enqueue, func(c *store.Change) error {
		c.Limits = limits
		c.Begin(store.Deploy, store.OperationBody{CorrelationID: uuid.NewString(), By: p.Username})
		c.Emit(cloudapi.Event{Kind: cloudapi.EventSchedule, Status: c.CVM.Status, Message: "placed on " + at.why})
		c.Reservation = at.holdID
		c.Revised = true
		return nil
	})
	if errors.Is(err, store.ErrReservationGone) {
		return out, tooLate()
	}
	if err != nil {
		return out, err
	}
	return s.vm(ctx, made, 0), nil
}

// placeProvisioned holds room on the node that the provision named. Where it is full
// by now another will do, unless the client asked for it, or a chain is there: then its
// device may be the one that was allowed.
func (s *Server) placeProvisioned(ctx context.Context, prov store.Provision, app string) (room, error) {
	confidence, err := minConfidence(prov.MinConfidence)
	if err != nil {
		return room{}, err
	}
	want := scheduler.Request{Need: scheduler.Resources{VCPU: prov.VCPU, MemoryMiB: prov.MemoryMiB, DiskGB: prov.DiskGB}, GPUs: prov.GPUs, GPU: prov.GPU, NodeID: prov.NodeID, Image: prov.Image, Confidence: confidence}
	at, err := s.place(ctx, want, app)
	if err != nil && prov.Chosen && s.cfg.Chain.ID == 0 {
		want.NodeID, want.Region = 0, prov.Region
		at, err = s.place(ctx, want, app)
	}
	return at, err
}

// minConfidence reads a request's; none asks for nothing.
func minConfidence(word string) (scheduler.Confidence, error) {
	if word == "" {
		return scheduler.Simulated, nil
	}
	return scheduler.ParseConfidence(word)
}

// provisionOf finds a prepared app-compose.
func (s *Server) provisionOf(ctx context.Context, cvmID int64, hash string) (store.Provision, error) {
	p, err := s.store.Provision(ctx, who(ctx).WorkspaceID, cvmID, hash)
	if err == nil {
		return p, nil
	}
	if err != store.ErrNotFound { //nolint:errorlint // the store returns it bare
		return p, err
	}
	return p, fail(statusHashUnknown, errHashUnknown, cvm.Precondition, "compose-hash-unknown",
		"no app-compose with this hash was prepared here in the last 14 days", "provision it again, then commit")
}
