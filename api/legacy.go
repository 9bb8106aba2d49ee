package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

// legacyRoutes are what the deprecated commands of the public CLI call: provision
// and commit, and update, in the words of an older contract.
func (s *Server) legacyRoutes(api huma.API) {
	write := writes("cvms")
	register(s, api, op{method: "POST", path: "/cvms/pubkey/from_cvm_configuration", summary: "Deprecated, see /cvms/provision: the key of an app to be made", access: write}, s.legacyKey)
	register(s, api, op{method: "POST", path: "/cvms/from_cvm_configuration", summary: "Deprecated, see /cvms: make a CVM", access: write}, s.legacyCreate)
	register(s, api, op{method: "PUT", path: "/cvms/{id}/compose", summary: "Deprecated, see PATCH /cvms/{id}: replace the compose file", status: 202, access: write}, s.legacyUpgrade)
}

// emptyEnv is the size of an encrypted environment without a variable, in bytes.
const emptyEnv = minEnv + len(`{"env":[]}`)

var saltForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

type legacyInput struct {
	Body cloudapi.LegacyCreate
}

func (s *Server) legacyKey(ctx context.Context, in *legacyInput) (out cloudapi.LegacyKey, err error) {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	in.Body.AppIDSalt = hex.EncodeToString(salt)
	p, err := s.legacyProvision(ctx, in.Body)
	if err != nil {
		return out, err
	}
	return cloudapi.LegacyKey{AppEnvEncryptPubkey: word(p.AppEnvEncryptPubkey), AppIDSalt: in.Body.AppIDSalt}, nil
}

// legacyProvision makes the same app-compose of the same request and salt, so that
// both calls mean the same app.
func (s *Server) legacyProvision(ctx context.Context, r cloudapi.LegacyCreate) (out cloudapi.Provisioned, err error) {
	if s.governed() {
		return out, fail(statusNeedsChain, errNeedsChain, cvm.Precondition, "needs-on-chain", "an app of this cloud needs a contract first, which this command cannot make", "use phala deploy")
	}
	if err := noLogin(r.ComposeManifest); err != nil {
		return out, err
	}
	keys := legacyKeys(r.ComposeManifest)
	keys["salt"] = r.AppIDSalt
	b, err := json.Marshal(map[string]any{"compose_file": keys})
	if err != nil {
		return out, fmt.Errorf("encoding app-compose: %w", err)
	}
	return s.provision(ctx, &provisionInput{RawBody: b, Body: cloudapi.ProvisionRequest{Name: r.Name, VCPU: r.VCPU, Memory: r.Memory, DiskSize: r.DiskSize,
		TeepodID: r.TeepodID, Image: r.Image, Listed: r.Listed}})
}

// noLogin refuses a registry's password in the app-compose: that is public.
func noLogin(m cloudapi.LegacyManifest) error {
	if c := m.DockerConfig; c != nil && (c.Username != "" || c.Password != "") {
		var p problems
		p.add("compose_manifest.docker_config", "value_error", "an app-compose is public, so it holds no registry login", "put DSTACK_DOCKER_USERNAME and DSTACK_DOCKER_PASSWORD into the encrypted environment: phala deploy -e")
		return p.err()
	}
	return nil
}

// legacyKeys are the app-compose's keys that an old manifest gives.
func legacyKeys(m cloudapi.LegacyManifest) map[string]any {
	keys := map[string]any{"docker_compose_file": m.DockerComposeFile}
	if m.AllowedEnvs != nil {
		keys["allowed_envs"] = anys(m.AllowedEnvs)
	}
	if m.PreLaunchScript != nil {
		keys["pre_launch_script"] = script(*m.PreLaunchScript)
	}
	if m.PublicLogs != nil {
		keys["public_logs"] = *m.PublicLogs
	}
	if m.PublicSysinfo != nil {
		keys["public_sysinfo"] = *m.PublicSysinfo
	}
	return keys
}

func (s *Server) legacyCreate(ctx context.Context, in *legacyInput) (out cloudapi.VM, err error) {
	var bad problems
	if !saltForm.MatchString(in.Body.AppIDSalt) {
		bad.add("app_id_salt", "value_error", "this is no app_id_salt of ours", "take the one that /cvms/pubkey/from_cvm_configuration gave")
	}
	if len(strings.TrimPrefix(in.Body.EncryptedEnv, "0x")) > 2*emptyEnv && len(in.Body.ComposeManifest.AllowedEnvs) == 0 {
		bad.add("compose_manifest.allowed_envs", "missing", "there is an environment, and a guest drops variables that the app-compose does not name", "use phala deploy -e, which names them")
	}
	if err := bad.err(); err != nil {
		return out, err
	}
	p, err := s.legacyProvision(ctx, in.Body)
	if err != nil {
		return out, err
	}
	if !strings.EqualFold(bare(in.Body.AppEnvEncryptPubkey), word(p.AppEnvEncryptPubkey)) {
		bad.add("app_env_encrypt_pubkey", "value_error", "this is not the key of the app that this request makes: the request differs from the one that asked for the key", "send the same compose_manifest twice")
		return out, bad.err()
	}
	return s.commit(ctx, &commitInput{Body: cloudapi.CommitRequest{AppID: word(p.AppID), ComposeHash: p.ComposeHash, EncryptedEnv: in.Body.EncryptedEnv}})
}

type legacyUpgradeInput struct {
	IDInput
	Approval
	Origin
	Body cloudapi.LegacyUpgrade
}

func (s *Server) legacyUpgrade(ctx context.Context, in *legacyUpgradeInput) (out cloudapi.LegacyUpgraded, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	r := in.Body
	if err := noLogin(r.ComposeManifest); err != nil {
		return out, err
	}
	allowed, given := flag(r.AllowRestart)
	var bad problems
	if r.AllowRestart != nil && !given {
		bad.add("allow_restart", "bool_parsing", "want true, false, 1 or 0", "")
		return out, bad.err()
	}
	if given && !allowed && c.Status != cloudapi.StatusStopped {
		return out, fail(http.StatusUnprocessableEntity, errBadRequest, cvm.Precondition, "needs-restart", "a CVM takes another compose file when it restarts, and allow_restart is false",
			"allow the restart, or stop the CVM first")
	}
	keys := legacyKeys(r.ComposeManifest)
	if r.ComposeManifest.AllowedEnvs == nil && r.EnvKeys != nil {
		keys["allowed_envs"] = anys(r.EnvKeys)
	}
	p, next, err := s.composePatch(c, keys)
	if err != nil {
		return out, err
	}
	if word(r.EncryptedEnv) != "" {
		if err := s.withEnv(c, &p, next, r.EncryptedEnv, nil); err != nil {
			return out, err
		}
	}
	a, err := s.apply(ctx, c, change{kind: store.Update, patch: p, approval: in.Approval, base: in.base})
	return cloudapi.LegacyUpgraded{Accepted: a, Detail: a.Message}, err
}
