package cli

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/internal/profile"
	"github.com/confidential-cloud/phala/internal/wallet"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/verify"
)

// deployed is the answer of deploy --json.
type deployed struct {
	Action      string   `json:"action"` // created, updated, unchanged
	Name        string   `json:"name"`
	AppID       string   `json:"app_id"`
	VMUUID      string   `json:"vm_uuid"`
	Status      string   `json:"status"`
	ComposeHash string   `json:"compose_hash"`
	EnvCounter  uint64   `json:"env_counter,omitempty"`
	URLs        []string `json:"urls"`
	Simulated   bool     `json:"simulated"`
}

func (a *app) runDeploy(ctx context.Context, j *job) error {
	p, err := a.plan(ctx, j)
	if err != nil {
		return err
	}
	a.showPlan(j, p)
	if j.f.dryRun {
		if a.json {
			return a.printJSON(p.json(j))
		}
		return nil
	}
	if j.f.prepare {
		return a.prepareDeploy(ctx, j, p)
	}
	if p.old != nil && !p.change && !j.envSet {
		return a.finishDeploy(ctx, j, p, deployed{Action: "unchanged", Status: p.old.Status}, p.ref(), -1)
	}
	owner, w, err := a.owner(ctx, j.s, p.trust, j.f.rpcURL)
	if err != nil {
		return err
	}
	if !strings.EqualFold(w.Info().Address, p.owner) {
		return cvm.Errorf(cvm.Conflict, "the wallet changed while deploying")
	}
	app, err := a.onChain(ctx, j, p, owner)
	if err != nil {
		return err
	}
	sealed, err := a.seal(ctx, j.s, j.steps, p.trust, p.kms, app, j.env, j.envSet && (len(j.env) > 0 || p.old != nil), p.counter(), w)
	if err != nil {
		return err
	}
	if p.old == nil {
		return a.commitNew(ctx, j, p, app, sealed)
	}
	return a.commitUpdate(ctx, j, p, sealed)
}

func (p *plan) counter() uint64 {
	if p.old == nil {
		return 0
	}
	return p.old.EnvCounter
}

// onChain makes the rules allow what will boot, and returns when they are final.
func (a *app) onChain(ctx context.Context, j *job, p *plan, o *ethereum.Owner) (app cvm.AppID, err error) {
	show := a.chainProgress(j.steps)
	if p.old != nil {
		if app, err = cvm.ParseAppID(str(p.old.AppID)); err != nil {
			return app, err
		}
		return app, a.allow(ctx, j, p, o, app, show)
	}
	key := j.s.api.Base + " " + j.name
	var pending profile.Pending
	if err := profile.Update(j.s.dir, func(s *profile.State) error { pending = s.Pending[key]; return nil }); err != nil {
		return app, err
	}
	if pending.AppID != "" && strings.EqualFold(pending.Owner, p.owner) {
		// A contract of a chain that was forgotten is not continued with.
		if app, err = cvm.ParseAppID(pending.AppID); err == nil && owns(ctx, o, app, p.owner) {
			a.say("continuing with the app contract 0x%s that an earlier deploy made", app)
			return app, a.allow(ctx, j, p, o, app, show)
		}
	}
	j.steps.start("registering the app on %s", chainText(p.trust.Chain.ID))
	app, err = o.DeployApp(ctx, ethereum.AppParams{Device: p.device, ComposeHash: p.hash}, show)
	if err != nil {
		return app, err
	}
	j.steps.ok(fmt.Sprintf("app 0x%s registered and final on %s", app, chainText(p.trust.Chain.ID)))
	return app, profile.Update(j.s.dir, func(s *profile.State) error {
		s.Pending[key] = profile.Pending{AppID: app.String(), ComposeHash: p.hash.String(), Owner: p.owner}
		return nil
	})
}

func owns(ctx context.Context, o *ethereum.Owner, app cvm.AppID, owner string) bool {
	who, err := o.AppOwner(ctx, app)
	return err == nil && strings.EqualFold(who.Hex(), owner)
}

func (a *app) allow(ctx context.Context, j *job, p *plan, o *ethereum.Owner, app cvm.AppID, show func(ethereum.Progress)) error {
	j.steps.start("allowing compose hash %s on %s", short(p.hash.String()), chainText(p.trust.Chain.ID))
	if err := o.Apply(ctx, show, ethereum.AllowCompose(app, p.hash), ethereum.AllowDevice(app, p.device)); err != nil {
		return err
	}
	j.steps.ok("compose hash " + short(p.hash.String()) + " allowed and final on " + chainText(p.trust.Chain.ID))
	return nil
}

func (a *app) chainProgress(st *steps) func(ethereum.Progress) {
	return func(p ethereum.Progress) {
		switch {
		case p.Stage == ethereum.StageSent:
			st.news("transaction %s sent", short(p.TxHash))
		case p.Stage == ethereum.StageIncluded && p.Final == 0:
			st.news("in block %d, waiting for finality", p.Block)
		case p.Stage == ethereum.StageIncluded:
			st.news("in block %d, final is %d, head is %d", p.Block, p.Final, p.Head)
		}
	}
}

// sealed is an environment that only the app can read and only the owner can make.
type sealed struct {
	blob string // hex; "" when the environment is not touched
	keys []string
	sig  *cloudapi.EnvSignature
}

// seal encrypts to the app's key, after checking that the pinned KMS vouches for
// that key, and signs with a counter above every earlier one.
func (a *app) seal(ctx context.Context, s *session, st *steps, t *verify.Profile, kms *cloudapi.KMS, app cvm.AppID,
	env []keys.EnvVar, wanted bool, cloudCounter uint64, w *wallet.Wallet) (sealed, error) {
	if !wanted {
		return sealed{}, nil
	}
	st.start("encrypting the environment to the app")
	blob, err := a.encrypt(ctx, s, t, kms, app, env)
	if err != nil {
		return sealed{}, err
	}
	counter, err := profile.NextCounter(s.dir, app, cloudCounter)
	if err != nil {
		return sealed{}, err
	}
	sig, err := keys.SignEnv(w.Secret(), app, counter, sha256.Sum256(blob))
	if err != nil {
		return sealed{}, fmt.Errorf("signing the environment: %w", err)
	}
	st.ok(fmt.Sprintf("environment encrypted to the app's key (vouched for by the pinned KMS), signed with counter %d", counter))
	return sealed{blob: hex.EncodeToString(blob), keys: envNames(env), sig: &cloudapi.EnvSignature{
		Counter: counter, Signer: strings.ToLower(w.Info().Address), Signature: hex.EncodeToString(sig)}}, nil
}

// encrypt encrypts env to the app's key. The key comes through the cloud, which
// could send its own: the pinned KMS key must have signed it, for this app, now.
func (a *app) encrypt(ctx context.Context, s *session, t *verify.Profile, kms *cloudapi.KMS, app cvm.AppID, env []keys.EnvVar) ([]byte, error) {
	k, err := s.api.EnvKey(ctx, first(str(kms.Slug), kms.ID), app.String())
	if err != nil {
		return nil, err
	}
	pub, err1 := hex.DecodeString(strings.TrimPrefix(k.PublicKey, "0x"))
	sig, err2 := hex.DecodeString(strings.TrimPrefix(k.SignatureV1, "0x"))
	root, err3 := hex.DecodeString(strings.TrimPrefix(t.KMS.K256PubKey, "0x"))
	if err1 != nil || err2 != nil || err3 != nil {
		return nil, cvm.Errorf(cvm.Unavailable, "the app's environment key is not hex: the environment was not sent")
	}
	if err := keys.VerifyEnvKey(app, pub, k.Timestamp, sig, root, a.Now()); err != nil {
		return nil, err
	}
	return keys.EncryptEnv(rand.Reader, pub, env)
}

func (a *app) commitNew(ctx context.Context, j *job, p *plan, app cvm.AppID, e sealed) error {
	vm, err := j.s.api.Commit(ctx, cloudapi.CommitRequest{
		AppID: app.String(), ComposeHash: p.hash.String(), EncryptedEnv: e.blob, EnvKeys: e.keys, EnvSignature: e.sig,
		KMSID: p.kms.ID, ContractAddress: "0x" + app.String(), DeployerAddress: p.owner,
	})
	if err != nil {
		return err
	}
	out := deployed{Action: "created", Status: vm.Status}
	if e.sig != nil {
		out.EnvCounter = e.sig.Counter
	}
	return a.finishDeploy(ctx, j, p, out, first(str(vm.VMUUID), vm.Name), vm.EventSeq)
}

func (a *app) commitUpdate(ctx context.Context, j *job, p *plan, e sealed) error {
	out := deployed{Action: "updated"}
	var acc cloudapi.Accepted
	var err error
	if p.change {
		replace := e.blob != ""
		acc, err = j.s.api.UpdateCompose(ctx, p.ref(), cloudapi.ComposeUpdate{ComposeHash: p.hash.String(), EncryptedEnv: e.blob,
			EnvKeys: e.keys, UpdateEnvVars: &replace, EnvSignature: e.sig})
	} else {
		acc, err = j.s.api.UpdateEnvs(ctx, p.ref(), cloudapi.EnvsUpdate{EncryptedEnv: e.blob, EnvKeys: e.keys,
			ComposeHash: p.hash.String(), EnvSignature: e.sig})
	}
	if err != nil {
		return err
	}
	if e.sig != nil {
		out.EnvCounter = e.sig.Counter
	}
	out.Status = cloudapi.StatusUpdating
	return a.finishDeploy(ctx, j, p, out, p.ref(), acc.EventSeq)
}

// finishDeploy follows the CVM until it serves (seq < 0: it was not touched), and
// says where it is.
func (a *app) finishDeploy(ctx context.Context, j *job, p *plan, out deployed, ref string, seq int64) error {
	if err := profile.Update(j.s.dir, func(s *profile.State) error {
		delete(s.Pending, j.s.api.Base+" "+j.name) // it has a CVM now
		return nil
	}); err != nil {
		return err
	}
	if seq >= 0 && !j.f.noWait {
		want := []string{cloudapi.StatusRunning}
		if p.old != nil && p.old.Status == cloudapi.StatusStopped {
			want = append(want, cloudapi.StatusStopped) // an update does not have to start it
		}
		status, err := a.follow(ctx, j.s, ref, seq, "starting "+j.name, want...)
		if err != nil {
			return err
		}
		out.Status = status
	}
	var v cloudapi.CVMDetail
	err := a.patiently(ctx, j.steps, func() (err error) { v, err = j.s.api.CVM(ctx, ref); return err })
	if err != nil {
		return err
	}
	out.Name, out.AppID, out.VMUUID, out.Simulated = v.Name, str(v.AppID), str(v.VMUUID), v.Simulated
	out.ComposeHash, out.URLs = p.hash.String(), []string{}
	for _, e := range v.Endpoints {
		out.URLs = append(out.URLs, e.App)
	}
	// An untouched CVM may still be on its way up (its host just started).
	coming := v.Status != cloudapi.StatusStopped
	if coming && !j.f.noWait && len(out.URLs) > 0 {
		if err := a.waitURL(ctx, j, p.trust, out.URLs[0]); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(out)
	}
	a.summary(j, p, out)
	return nil
}

func (a *app) summary(j *job, p *plan, out deployed) {
	if out.Action == "unchanged" {
		a.say("%s", a.good(out.Name+" runs this app-compose already; nothing was changed"))
	}
	for _, u := range out.URLs {
		a.printf("%s\n", u)
	}
	a.say("\napp %s, CVM %s, %s", out.AppID, out.Name, out.Status)
	if out.Simulated {
		a.say("%s", a.warn("SIMULATED TEE: no hardware protects this CVM"))
	}
	if out.Status == cloudapi.StatusStopped {
		a.say("next: phala cvms start %s", out.Name)
	}
	a.say("next: phala verify %s", first(firstOf(out.URLs), out.AppID))
	a.say("      phala logs -f --cvm-id %s", out.Name)
	if ca, _, err := a.localCA(j.s); err == nil && len(out.URLs) > 0 {
		a.say("      curl --cacert %s %s", ca, out.URLs[0])
	}
}

func firstOf(ss []string) string {
	if len(ss) == 0 {
		return ""
	}
	return ss[0]
}
