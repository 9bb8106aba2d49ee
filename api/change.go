package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

// Approval is how a request stands to governance: headers of the public contract.
type Approval struct {
	PrepareOnly string `header:"X-Prepare-Only" doc:"true: only prepare, and answer 465 with a commit token"`
	ComposeHash string `header:"X-Compose-Hash" doc:"commits the change that was prepared with this hash"`
	Transaction string `header:"X-Transaction-Hash" doc:"the transaction that registered the hash, or already-registered"`
}

// Origin is where people reach this API, for links in answers.
type Origin struct{ base string }

// Resolve is huma.Resolver.
func (o *Origin) Resolve(hc huma.Context) []error {
	base, _ := hc.Context().Value(originKey{}).(string)
	o.base = base + cloudapi.Prefix
	return nil
}

// change is one update that somebody wants of a CVM.
type change struct {
	kind     string
	patch    store.Patch
	approval Approval
	base     string
	redo     bool // of a revision: named by its hash, proven by a transaction
}

// apply does a change, prepares it, or commits the one that was prepared.
func (s *Server) apply(ctx context.Context, c store.CVM, ch change) (out cloudapi.Accepted, err error) {
	a := ch.approval
	prepareOnly := strings.EqualFold(a.PrepareOnly, "true") || a.PrepareOnly == "1"
	revises := ch.patch.AppCompose != nil && ch.patch.ComposeHash != c.ComposeHash
	switch {
	case !s.governed() && (prepareOnly || a.Transaction != ""):
		return out, fail(http.StatusUnprocessableEntity, errBadRequest, cvm.Invalid, "not-on-chain", "this cloud's KMS is not on a chain: there is nothing to prepare or to prove",
			"send the update without X-Prepare-Only and transaction hash")
	case a.ComposeHash != "" && s.governed():
		return s.confirm(ctx, c, ch)
	case !s.governed() || !revises && !prepareOnly:
		return s.begins(ctx, c, ch, nil)
	}
	device := word(s.deviceID(c))
	if ch.redo && a.Transaction != "" {
		if err := s.prove(ctx, c.AppID, ch.patch.ComposeHash, device, a.Transaction); err != nil {
			return out, err
		}
		return s.begins(ctx, c, ch, nil)
	}
	hash := c.ComposeHash
	if revises {
		hash = ch.patch.ComposeHash
	}
	if st := s.chainStatus(ctx, c.AppID, hash, device); st == nil || !st.IsAllowed || prepareOnly {
		return out, s.needsChain(ctx, waiting{cvm: c, patch: ch.patch, hash: hash, device: device, slot: slotUpdate, base: ch.base, status: st})
	}
	return s.begins(ctx, c, ch, nil)
}

// begins starts the operation that does a change; prep is the prepared change that
// it commits.
func (s *Server) begins(ctx context.Context, c store.CVM, ch change, prep *store.Prepared) (out cloudapi.Accepted, err error) {
	body := store.OperationBody{StayDown: ch.kind != store.Update && c.Status == cloudapi.StatusStopped}
	_, limits, err := s.limits(ctx, c.WorkspaceID)
	if err != nil {
		return out, err
	}
	var seq int64
	c, seq, err = s.begin(ctx, c, ch.kind, cloudapi.StatusUpdating, body, func(x *store.Change) error {
		if prep != nil {
			if prep.Base != x.CVM.ComposeHash {
				return superseded()
			}
			x.Spend = prep.ID
		}
		if body.StayDown && x.CVM.Status != cloudapi.StatusStopped {
			return fail(http.StatusConflict, "", cvm.Conflict, "busy", "the CVM started meanwhile", "send the request again")
		}
		if sig, has := ch.patch.EnvSignature, x.CVM.EnvSignature; sig != nil && has != nil && sig.Counter <= has.Counter {
			var p problems
			p.add("env_signature.counter", "value_error", fmt.Sprintf("counter %d does not grow: the present environment has %d", sig.Counter, has.Counter), "sign again with a higher counter")
			return p.err()
		}
		if ch.patch.DiskGB != 0 && ch.patch.DiskGB < x.CVM.DiskGB {
			return shrinks(ch.patch.DiskGB, x.CVM.DiskGB)
		}
		if p := ch.patch; p.VCPU > x.CVM.VCPU || p.MemoryMiB > x.CVM.MemoryMiB || p.DiskGB > x.CVM.DiskGB {
			x.Limits = &limits // who has too much may still make it less
		}
		x.Revised = ch.patch.Apply(&x.CVM.Body)
		x.CVM.Face = s.faces.of(x.CVM)
		return nil
	})
	if err != nil {
		return out, err
	}
	return s.begun(ctx, c.ID, c.Generation, seq)
}

func shrinks(want, has int) error {
	var p problems
	p.add("disk_size", "value_error", fmt.Sprintf("disk_size %d GB: a disk does not shrink, it has %d GB", want, has), "choose at least what it has")
	return p.err()
}

func (s *Server) begun(ctx context.Context, id int64, generation int, seq int64) (cloudapi.Accepted, error) {
	o, err := s.store.Operation(ctx, id, generation)
	return cloudapi.Accepted{Status: "in_progress", Message: "the update has started", CorrelationID: o.CorrelationID, Generation: generation, EventSeq: seq}, err
}

// composePatch lays keys over a CVM's app-compose; a nil value removes one.
func (s *Server) composePatch(c store.CVM, keys map[string]any) (p store.Patch, next composed, err error) {
	m, err := object(c.AppCompose)
	if err != nil {
		return p, next, err
	}
	for k, v := range keys {
		if m[k] = v; v == nil {
			delete(m, k)
		}
	}
	if next, err = s.composeOf(m, c.GPUs); err != nil {
		return p, next, err
	}
	if sameJSON(c.AppCompose, next.doc.Raw()) { // our canonical form is not the client's: nothing changed
		if next, err = s.compose(c.AppCompose, c.Name, nil, c.GPUs); err != nil {
			return p, next, err
		}
		return store.Patch{AppCompose: c.AppCompose, ComposeHash: c.ComposeHash}, next, nil
	}
	return store.Patch{AppCompose: next.doc.Raw(), ComposeHash: next.hash()}, next, nil
}

func sameJSON(a, b []byte) bool {
	x, errX := object(a)
	y, errY := object(b)
	if errX != nil || errY != nil {
		return false
	}
	p, _ := json.Marshal(x) // decoded JSON encodes; map keys are sorted
	q, _ := json.Marshal(y)
	return bytes.Equal(p, q)
}

// withEnv adds an environment to a patch, checked against the app-compose that it is for.
func (s *Server) withEnv(c store.CVM, p *store.Patch, next composed, hexEnv *string, sig *cloudapi.EnvSignature) error {
	if hexEnv == nil && sig == nil {
		return nil
	}
	app, err := cvm.ParseAppID(c.AppID)
	if err != nil {
		return err
	}
	var last uint64
	if c.EnvSignature != nil {
		last = c.EnvSignature.Counter
	}
	e, err := readEnv(next.doc, app, word(hexEnv), sig, last)
	if err != nil {
		return err
	}
	if e.blob != nil {
		p.SetEnv, p.EncryptedEnv, p.EnvSignature = true, e.blob, e.sig
	}
	return nil
}

type patchInput struct {
	IDInput
	Approval
	Origin
	Body cloudapi.CVMPatch
}

// maxUserConfig is the VMM's limit, in bytes.
const maxUserConfig = 4 << 20

func (s *Server) patchCVM(ctx context.Context, in *patchInput) (out cloudapi.Accepted, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	r, keys := in.Body, map[string]any{}
	set := func(k string, v *bool) {
		if v != nil {
			keys[k] = *v
		}
	}
	set("public_logs", r.PublicLogs)
	set("public_sysinfo", r.PublicSysinfo)
	set("public_tcbinfo", r.PublicTCBInfo)
	if r.DockerComposeFile != nil {
		keys["docker_compose_file"] = *r.DockerComposeFile
	}
	if r.PreLaunchScript != nil {
		keys["pre_launch_script"] = script(*r.PreLaunchScript)
	}
	if r.AllowedEnvs != nil {
		keys["allowed_envs"] = anys(r.AllowedEnvs)
	}
	p, err := s.sizePatch(ctx, c, r.InstanceType, r.VCPU, r.Memory, r.DiskSize)
	if err != nil {
		return out, err
	}
	if err := checkPatch(r); err != nil {
		return out, err
	}
	if r.Image != nil {
		if p.Image, err = s.imageOf(c, *r.Image); err != nil {
			return out, err
		}
	}
	made, next, err := s.composePatch(c, keys)
	if err != nil {
		return out, err
	}
	if len(keys) > 0 {
		p.AppCompose, p.ComposeHash = made.AppCompose, made.ComposeHash
	}
	if err := s.withEnv(c, &p, next, r.EncryptedEnv, r.EnvSignature); err != nil {
		return out, err
	}
	p.UserConfig = r.UserConfig
	if in.ComposeHash == "" && isEmpty(p) {
		var bad problems
		bad = append(bad, cloudapi.Validation{Loc: []any{"body"}, Msg: "there is nothing to change", Type: "value_error", Fix: "send at least one field"})
		return out, bad.err()
	}
	return s.apply(ctx, c, change{kind: store.Update, patch: p, approval: in.Approval, base: in.base})
}

func isEmpty(p store.Patch) bool {
	return p.AppCompose == nil && !p.SetEnv && p.UserConfig == nil && p.InstanceType == nil && p.VCPU == 0 && p.MemoryMiB == 0 && p.DiskGB == 0 && p.Image == ""
}

func checkPatch(r cloudapi.CVMPatch) error {
	var p problems
	if r.UserConfig != nil && (len(*r.UserConfig) > maxUserConfig || !utf8.ValidString(*r.UserConfig)) {
		p.add("user_config", "value_error", fmt.Sprintf("want text of at most %d bytes", maxUserConfig), "")
	}
	if t := r.ShutdownTimeout; t != nil && (*t < 10 || *t > 1200) {
		p.add("shutdown_timeout", "value_error", "want 10 to 1200 seconds", "")
	}
	if wantsGPU(r.GPUs) {
		p.add("gpus", "value_error", "a CVM has the GPUs of its instance_type, from the beginning: none are attached later", "leave gpus out, or deploy a new CVM with an instance_type that has GPUs")
	}
	return p.err()
}

// wantsGPU reads {"gpus": [...]}; an empty list asks for none.
func wantsGPU(v any) bool {
	m, ok := v.(map[string]any)
	if !ok {
		return v != nil
	}
	list, isList := m["gpus"].([]any)
	return m["gpus"] != nil && (!isList || len(list) > 0)
}

func anys(names []string) []any {
	out := make([]any, len(names))
	for i, n := range names {
		out[i] = n
	}
	return out
}

// script is the app-compose's value for a pre-launch script: an empty one and none
// are the same to a guest, but not to the hash.
func script(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// textInput is a file as the raw body, or as the part "file" of a form.
type textInput struct {
	IDInput
	Approval
	Origin
	ContentType string `header:"Content-Type"`
	RawBody     []byte `contentType:"text/plain"`
}

func (in *textInput) text() (string, error) {
	raw := in.RawBody
	kind, params, err := mime.ParseMediaType(in.ContentType)
	if err == nil && kind == "multipart/form-data" {
		f, err := multipart.NewReader(bytes.NewReader(raw), params["boundary"]).ReadForm(maxRequest)
		if err != nil || len(f.File["file"]) != 1 {
			return "", badText("the form wants one part called file")
		}
		part, err := f.File["file"][0].Open()
		if err != nil {
			return "", fmt.Errorf("opening the form's file: %w", err)
		}
		defer part.Close()
		if raw, err = io.ReadAll(part); err != nil {
			return "", fmt.Errorf("reading the form's file: %w", err)
		}
	}
	if !utf8.Valid(raw) {
		return "", badText("the body is not UTF-8 text")
	}
	return string(raw), nil
}

func badText(msg string) error {
	return &apiError{http.StatusUnprocessableEntity, []cloudapi.Validation{{Loc: []any{"body"}, Msg: msg, Type: "value_error"}}}
}

func (s *Server) patchDockerCompose(ctx context.Context, in *textInput) (cloudapi.Accepted, error) {
	return s.patchText(ctx, in, "docker_compose_file", func(t string) any { return t })
}

func (s *Server) patchScript(ctx context.Context, in *textInput) (cloudapi.Accepted, error) {
	return s.patchText(ctx, in, "pre_launch_script", script)
}

func (s *Server) patchText(ctx context.Context, in *textInput, key string, value func(string) any) (out cloudapi.Accepted, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	t, err := in.text()
	if err != nil {
		return out, err
	}
	ch := change{kind: store.Update, approval: in.Approval, base: in.base}
	if t != "" || in.ComposeHash == "" { // the second phase may leave the text out
		if ch.patch, _, err = s.composePatch(c, map[string]any{key: value(t)}); err != nil {
			return out, err
		}
	}
	return s.apply(ctx, c, ch)
}

type replaceInput struct {
	IDInput
	Approval
	Origin
	Body    cloudapi.ComposeReplace
	RawBody []byte
}

// replaceCompose takes a whole app-compose whose hash the client has computed.
func (s *Server) replaceCompose(ctx context.Context, in *replaceInput) (out cloudapi.Accepted, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	base, err := object(c.AppCompose)
	if err != nil {
		return out, err
	}
	next, err := s.compose(raw(in.RawBody, "compose_file"), c.Name, base, c.GPUs)
	if err != nil {
		return out, err
	}
	if bare(in.Body.ComposeHash) != next.hash() {
		return out, fail(http.StatusBadRequest, errBadCompose, cvm.Invalid, "compose-hash-mismatch",
			"compose_hash is not the hash of this compose_file: that is "+next.hash(), "hash the canonical app-compose, or use compose_file/provision")
	}
	if in.Body.EnvKeys != nil && !sameSet(next.doc.AllowedEnvs, in.Body.EnvKeys) {
		var p problems
		p.add("env_keys", "value_error", "env_keys are not the compose_file's allowed_envs", "make them the same")
		return out, p.err()
	}
	p := store.Patch{AppCompose: next.doc.Raw(), ComposeHash: next.hash()}
	if err := s.withEnv(c, &p, next, in.Body.EncryptedEnv, in.Body.EnvSignature); err != nil {
		return out, err
	}
	return s.apply(ctx, c, change{kind: store.Update, patch: p, approval: in.Approval, base: in.base})
}

// parseWhen reads RFC 3339; a time without a zone is UTC.
func parseWhen(v string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999"} {
		if t, err := time.Parse(layout, v); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: want RFC 3339, for example 2026-01-02T15:04:05Z", v)
}
