package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

type resourcesInput struct {
	IDInput
	Body cloudapi.ResourcesPatch
}

// resize gives a CVM another size. A running one restarts, a stopped one stays down.
func (s *Server) resize(ctx context.Context, in *resourcesInput) (out cloudapi.Accepted, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	r := in.Body
	var bad problems
	allowed, given := flag(r.AllowRestart)
	if r.AllowRestart != nil && !given {
		bad.add("allow_restart", "bool_parsing", "want true, false, 1 or 0", "")
	}
	if r.VCPU == nil && r.Memory == nil && r.DiskSize == nil && r.InstanceType == nil {
		bad.add("instance_type", "missing", "there is no size to change to", "send vcpu, memory, disk_size or instance_type")
	}
	if err := bad.err(); err != nil {
		return out, err
	}
	p, err := s.sizePatch(ctx, c, r.InstanceType, r.VCPU, r.Memory, r.DiskSize)
	if err != nil {
		return out, err
	}
	if given && !allowed && c.Status != cloudapi.StatusStopped {
		return out, fail(http.StatusUnprocessableEntity, errBadRequest, cvm.Precondition, "needs-restart", "a CVM takes another size when it restarts, and allow_restart is false",
			"allow the restart, or stop the CVM first")
	}
	return s.apply(ctx, c, change{kind: store.Resize, patch: p})
}

// flag reads a boolean as clients write it: true, 1, "true".
func flag(v any) (value, ok bool) {
	switch x := v.(type) {
	case bool:
		return x, true
	case float64:
		return x == 1, x == 0 || x == 1
	case string:
		b, err := strconv.ParseBool(x)
		return b, err == nil
	}
	return false, false
}

// sizePatch checks another size against the limits and the room on the CVM's node.
func (s *Server) sizePatch(ctx context.Context, c store.CVM, typ *string, vcpu, memory, disk *int) (p store.Patch, err error) {
	if typ == nil && vcpu == nil && memory == nil && disk == nil {
		return p, nil
	}
	var bad problems
	z := bodySize(&c.Body)
	if err := s.sameGPUs(c, typ, vcpu, memory); err != nil {
		return p, err
	}
	if c.GPUs == 0 && (vcpu != nil || memory != nil) {
		z.typ = ""
	}
	if typ != nil && *typ != "" {
		t, known := s.cfg.instanceType(*typ)
		if !known {
			return p, fail(http.StatusUnprocessableEntity, errInstanceType, cvm.Invalid, "unknown-instance-type", fmt.Sprintf("instance_type %q does not exist", *typ),
				"list them: GET /instance-types")
		}
		z.typ, z.vcpu, z.memory = t.ID, t.VCPU, t.MemoryMB
	}
	take := func(field string, v *int, into *int, least, most int) {
		if v == nil {
			return
		}
		if *into = *v; *v < least || *v > most {
			bad.add(field, "value_error", fmt.Sprintf("%s %d is outside %d..%d", field, *v, least, most), "")
		}
	}
	take("vcpu", vcpu, &z.vcpu, 1, 1024)
	take("memory", memory, &z.memory, 512, 16<<20)
	take("disk_size", disk, &z.disk, s.cfg.Disk.MinGB, s.cfg.Disk.MaxGB)
	if err := bad.err(); err != nil {
		return p, err
	}
	if z.disk < c.DiskGB {
		return p, shrinks(z.disk, c.DiskGB)
	}
	if err := s.fits(ctx, c, z); err != nil {
		return p, err
	}
	return store.Patch{InstanceType: ptr(z.typ), VCPU: z.vcpu, MemoryMiB: z.memory, DiskGB: z.disk}, nil
}

// sameGPUs refuses what would give a CVM other cards, or its own at another price: the
// price of cards is in that of the instance type.
func (s *Server) sameGPUs(c store.CVM, typ *string, vcpu, memory *int) error {
	other := typ != nil && *typ != "" && *typ != c.InstanceType
	var p problems
	if t, _ := s.cfg.instanceType(word(typ)); other && c.GPUs == 0 && t.GPUs > 0 {
		p.add("instance_type", "value_error", "a CVM gets its GPUs when it is made: "+t.ID+" has some, this CVM has none", "deploy a new CVM with this instance_type")
	}
	if c.GPUs > 0 && (other || vcpu != nil && *vcpu != c.VCPU || memory != nil && *memory != c.MemoryMiB) {
		p.add("instance_type", "value_error", fixedSize(c.InstanceType), "change disk_size only, or deploy a new CVM with the instance_type you want")
	}
	return p.err()
}

// fits tells whether the CVM's node has room for what it would have more.
func (s *Server) fits(ctx context.Context, c store.CVM, z size) error {
	node := s.nodes.byID[c.NodeID]
	if node == nil {
		return nil // its job will say so
	}
	n, err := s.placed(ctx, node)
	if err != nil {
		return err
	}
	held := bodySize(&c.Body)
	if c.Status == cloudapi.StatusStopped || c.Status == cloudapi.StatusFailed {
		held.vcpu, held.memory = 0, 0
	}
	for _, x := range []struct {
		what       string
		more, free int
	}{{"vCPU", z.vcpu - held.vcpu, n.Free.VCPU}, {"MiB memory", z.memory - held.memory, n.Free.MemoryMiB}, {"GB disk", z.disk - held.disk, n.Free.DiskGB}} {
		if x.more > 0 && x.more > x.free {
			return fail(http.StatusConflict, errNodeCapacity, cvm.Exhausted, "no-capacity", fmt.Sprintf("node %s has %d %s free, %d more needed", n.Name, max(x.free, 0), x.what, x.more),
				"choose a smaller size, or make a replica on another node")
		}
	}
	return nil
}

type visibilityInput struct {
	IDInput
	Approval
	Origin
	Body cloudapi.VisibilityPatch
}

// visibility is in the app-compose: what is public is measured. The answer has the
// older shape, whatever version is asked for.
func (s *Server) visibility(ctx context.Context, in *visibilityInput) (any, error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	keys := map[string]any{}
	for k, v := range map[string]*bool{"public_sysinfo": in.Body.PublicSysinfo, "public_logs": in.Body.PublicLogs, "public_tcbinfo": in.Body.PublicTCBInfo} {
		if v != nil {
			keys[k] = *v
		}
	}
	if len(keys) == 0 && in.ComposeHash == "" {
		return nil, badText("there is nothing to change: send public_sysinfo or public_logs")
	}
	var p store.Patch
	if len(keys) > 0 {
		if p, _, err = s.composePatch(c, keys); err != nil {
			return nil, err
		}
	}
	if p.AppCompose != nil && p.ComposeHash != c.ComposeHash || in.ComposeHash != "" {
		if _, err := s.apply(ctx, c, change{kind: store.Update, patch: p, approval: in.Approval, base: in.base}); err != nil {
			return nil, err
		}
		if c, err = s.store.CVM(ctx, c.ID); err != nil {
			return nil, err
		}
	}
	ops, err := s.store.OpenOps(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	return s.legacyDetail(c, ops), nil
}

type imageInput struct {
	IDInput
	Body cloudapi.OSImagePatch
}

func (s *Server) patchImage(ctx context.Context, in *imageInput) (out cloudapi.Accepted, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	name, err := s.imageOf(c, in.Body.OSImageName)
	if err != nil {
		return out, err
	}
	return s.apply(ctx, c, change{kind: store.Upgrade, patch: store.Patch{Image: name}})
}

// imageOf finds an image on the CVM's node.
func (s *Server) imageOf(c store.CVM, name string) (string, error) {
	n := s.nodes.byID[c.NodeID]
	if n == nil {
		return "", gone()
	}
	_, images, _ := n.facts()
	var names []string
	for _, i := range images {
		if i.Name == name {
			return name, nil
		}
		names = append(names, i.Name)
	}
	return "", fail(http.StatusBadRequest, errImageNotFound, cvm.NotFound, "image-not-found", fmt.Sprintf("the CVM's node has no image %q", name),
		"choose one of "+strings.Join(names, ", "))
}

// availableImages are the images of the CVM's node, newest version first.
func (s *Server) availableImages(ctx context.Context, in *IDInput) ([]cloudapi.AvailableImage, error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	s.nodes.refresh(ctx, fresh)
	out := []cloudapi.AvailableImage{}
	n := s.nodes.byID[c.NodeID]
	if n == nil {
		return out, nil
	}
	_, images, _ := n.facts()
	for _, i := range images {
		v := versionOf(i.Version)
		at := slices.IndexFunc(out, func(a cloudapi.AvailableImage) bool { return slices.Equal(a.Version, v) })
		if at < 0 {
			at, out = len(out), append(out, cloudapi.AvailableImage{Version: v})
		}
		variant := &cloudapi.ImageVariant{Name: i.Name, Slug: i.Name, OSImageHash: ptr(i.Hash.String()), IsCurrent: i.Name == c.Image || c.Image == "" && len(images) == 1}
		if i.IsDev {
			out[at].Dev = variant
		} else {
			out[at].Prod = variant
		}
	}
	slices.SortFunc(out, func(a, b cloudapi.AvailableImage) int { return slices.Compare(b.Version, a.Version) })
	return out, nil
}

// versionOf reads 1.2.3 or 1.2.3.4; what is no number counts as 0.
func versionOf(s string) []int {
	v := []int{}
	for p := range strings.SplitSeq(strings.TrimPrefix(s, "v"), ".") {
		digits := p[:len(p)-len(strings.TrimLeft(p, "0123456789"))]
		n, _ := strconv.Atoi(digits)
		v = append(v, n)
	}
	for len(v) < 3 {
		v = append(v, 0)
	}
	return v[:min(len(v), 4)]
}

type nameInput struct {
	IDInput
	Body cloudapi.NamePatch
}

func (s *Server) rename(ctx context.Context, in *nameInput) (struct{}, error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return struct{}{}, err
	}
	var p problems
	if checkName(&p, in.Body.Name); p.err() != nil {
		return struct{}{}, p.err()
	}
	_, err = s.set(ctx, c, "renamed to "+in.Body.Name, func(x *store.Change) { x.CVM.Name = in.Body.Name })
	return struct{}{}, err
}

// set changes what only the cloud keeps of a CVM; its VM notices nothing.
func (s *Server) set(ctx context.Context, c store.CVM, what string, fn func(*store.Change)) (store.CVM, error) {
	return s.store.Change(ctx, c.ID, nil, func(x *store.Change) error {
		if !x.CVM.Live() {
			return missing()
		}
		fn(x)
		x.Emit(cloudapi.Event{Kind: cloudapi.EventOperation, Message: what + " by " + who(ctx).Username})
		return nil
	})
}

type listedInput struct {
	IDInput
	Body cloudapi.ListedPatch
}

func (s *Server) patchListed(ctx context.Context, in *listedInput) (out cloudapi.VM, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	what := "not listed publicly any more"
	if in.Body.Listed {
		what = "listed publicly"
	}
	c, err = s.set(ctx, c, what, func(x *store.Change) { x.CVM.Listed = in.Body.Listed })
	if err != nil {
		return out, err
	}
	return s.vm(ctx, c, 0), nil
}

type scheduleInput struct {
	IDInput
	Body cloudapi.ScheduledDelete
}

// scheduleDelete sets when a CVM is deleted, or calls it off.
func (s *Server) scheduleDelete(ctx context.Context, in *scheduleInput) (out cloudapi.VM, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	var when time.Time
	what := "the scheduled deletion was called off"
	if v := in.Body.ScheduledDeleteAt; v != nil {
		var p problems
		if when, err = parseWhen(*v); err != nil {
			p.add("scheduled_delete_at", "datetime_parsing", err.Error(), "")
		} else if !when.After(s.now()) {
			p.add("scheduled_delete_at", "value_error", "the time is past", "to delete it now: DELETE /cvms/{id}")
		}
		if err := p.err(); err != nil {
			return out, err
		}
		when = when.Truncate(time.Millisecond)
		what = "deletion was scheduled for " + stamp(when)
	}
	c, err = s.set(ctx, c, what, func(x *store.Change) { x.CVM.DeleteAt = when })
	if err != nil {
		return out, err
	}
	return s.vm(ctx, c, 0), nil
}

func (s *Server) userConfig(ctx context.Context, in *IDInput) (out cloudapi.UserConfig, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	_ = json.Unmarshal([]byte(c.UserConfig), &out) // any text is allowed; what is no such object shows nothing
	if out.SSHAuthorizedKeys == nil {
		out.SSHAuthorizedKeys = []string{}
	}
	return out, nil
}
