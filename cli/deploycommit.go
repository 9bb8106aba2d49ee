package cli

import (
	"context"
	"net/url"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
)

// prepareDeploy has the cloud keep an update until the app's owner (a multisig, say)
// has allowed it. What it keeps must be what was built here.
func (a *app) prepareDeploy(ctx context.Context, j *job, p *plan) error {
	if p.old == nil {
		return cvm.Errorf(cvm.Unsupported, "--prepare-only is for updates: %s is new, and its contract is made by its first deploy", j.name).WithFix("phala deploy -n " + j.name)
	}
	body := map[string]any{"docker_compose_file": j.text, "pre_launch_script": j.script, "public_logs": p.doc.PublicLogs, "public_sysinfo": p.doc.PublicSysinfo}
	if j.envSet {
		app, err := cvm.ParseAppID(str(p.old.AppID))
		if err != nil {
			return err
		}
		w, err := a.openWallet(j.s)
		if err != nil {
			return err
		}
		e, err := a.seal(ctx, j.s, j.steps, p.trust, p.kms, app, j.env, true, p.old.EnvCounter, w)
		if err != nil {
			return err
		}
		body["encrypted_env"], body["env_keys"], body["env_signature"], body["allowed_envs"] = e.blob, e.keys, e.sig, p.doc.AllowedEnvs
	}
	var acc cloudapi.Accepted
	err := send(ctx, j.s, "PATCH", "/cvms/"+p.ref(), prepareHeader(true), body, &acc)
	if err == nil {
		a.say("the chain allows this already: the update runs")
		return a.finishDeploy(ctx, j, p, deployed{Action: "updated", Status: acc.Status}, p.ref(), acc.EventSeq)
	}
	waits, ok := approvalOf(err)
	if !ok {
		return err
	}
	if !sameHash(waits.ComposeHash, p.hash.String()) {
		return sameBytes(p, waits.ComposeHash, "")
	}
	return a.showApproval(waits, "phala deploy --cvm-id "+p.ref())
}

// commitPrepared finishes a prepared update. The token is the credential: whoever
// has allowed the update on chain needs no login.
func (a *app) commitPrepared(ctx context.Context, f *deployFlags) error {
	s, err := a.session()
	if err != nil {
		return err
	}
	id := first(a.cvmID, f.uuid, f.name, s.project.cvm())
	if id == "" {
		return usage("which CVM? --cvm-id, as --prepare-only printed it")
	}
	public, err := newClient(s.api.Base, "")
	if err != nil {
		return err
	}
	var acc cloudapi.Accepted
	if err := public.Do(ctx, "POST", "/cvms/"+url.PathEscape(id)+"/commit-update", f.body(), &acc); err != nil {
		return a.explain(s, err)
	}
	status := acc.Status
	if s.api.Key != "" && !f.noWait && acc.EventSeq > 0 {
		if status, err = a.follow(ctx, s, id, acc.EventSeq, "updating "+id, cloudapi.StatusRunning); err != nil {
			return a.explain(s, err)
		}
	}
	return a.done(map[string]any{"correlation_id": acc.CorrelationID, "status": status}, "update committed: "+first(status, "accepted"))
}
