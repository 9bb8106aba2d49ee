package cli

import (
	"context"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
)

// replicaFlags are the flags of cvms replicate and instances add.
type replicaFlags struct {
	commitFlags
	node, app, compose, preLaunch string
	envs                          []string
	noWait                        bool
}

func (f *replicaFlags) add(c *cobra.Command, envName string) {
	s := c.Flags()
	s.StringVar(&f.node, "node-id", "", "node, by id or name (phala nodes)")
	s.StringVar(&f.node, "teepod-id", "", "the same as --node-id")
	s.StringArrayVarP(&f.envs, envName, "e", nil, "environment: a file, or KEY=VALUE (repeatable; default: the app's)")
	s.StringVar(&f.composeHash, "compose-hash", "", "revision to run, where the app has several")
	s.BoolVar(&f.prepare, "prepare-only", false, "prepare and print a commit token; put nothing on chain")
	s.BoolVar(&f.commit, "commit", false, "commit what was prepared (with --token, --compose-hash, --transaction-hash)")
	s.StringVar(&f.token, "token", "", "commit token of --prepare-only")
	s.StringVar(&f.transaction, "transaction-hash", "", "transaction that allowed it, or "+alreadyRegistered)
	s.StringVar(&f.rpcURL, "rpc-url", "", "RPC URL of the chain (default: the trust profile's)")
	s.StringVar(&f.trust, "trust", "", "trust profile (default: the login's)")
	s.StringVar(&f.privateKey, "private-key", "", "")
	s.BoolVar(&f.noWait, "no-wait", false, "return when the cloud has accepted it")
	_, _ = s.MarkHidden("private-key"), s.MarkHidden("teepod-id")
}

func (a *app) replicateCmd() *cobra.Command {
	var f replicaFlags
	c := &cobra.Command{Use: "replicate [cvm]", Short: "Run another instance of a CVM's app", Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			if err := f.check(true); err != nil {
				return err
			}
			return a.withCVM(c.Context(), as, func(ctx context.Context, s *session, id string) error {
				v, err := s.api.CVM(ctx, id)
				if err != nil {
					return err
				}
				base := "/cvms/" + first(str(v.VMUUID), id)
				return a.newInstance(ctx, s, &f, &v, instanceCall{create: base + "/replicas", commit: base + "/commit-replica", again: "phala cvms replicate " + v.Name})
			})
		}}
	f.add(c, "env-file")
	return c
}

func sameHash(a, b string) bool {
	return b != "" && strings.EqualFold(strings.TrimPrefix(a, "0x"), strings.TrimPrefix(b, "0x"))
}

func (a *app) instancesAddCmd() *cobra.Command {
	var f replicaFlags
	c := &cobra.Command{Use: "add", Short: "Run another instance of an app", Args: args(cobra.NoArgs),
		Example: "  phala instances add --app-id ID --node-id 2\n  phala instances add --app-id ID --compose-file docker-compose.yml --prepare-only",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(true); err != nil {
				return err
			}
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			return a.explain(s, a.addInstance(c.Context(), s, &f))
		}}
	f.add(c, "env-file")
	c.Flags().StringVar(&f.app, "app-id", "", "app id (default: phala.toml's)")
	c.Flags().StringVarP(&f.compose, "compose-file", "c", "", "another Docker Compose file (its hash must be allowed on chain)")
	c.Flags().StringVar(&f.preLaunch, "pre-launch-script", "", "file with a script that runs before compose")
	return c
}

func (a *app) addInstance(ctx context.Context, s *session, f *replicaFlags) error {
	app, err := a.appID(s, f.app)
	if err != nil {
		return err
	}
	all, err := s.instances(ctx, app)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return cvm.Errorf(cvm.NotFound, "app %s has no instance here to take after", app).WithFix("phala deploy makes the first")
	}
	source, err := s.api.CVM(ctx, first(str(all[0].VMUUID), all[0].Name))
	if err != nil {
		return err
	}
	path := "/apps/" + app.String() + "/instances"
	return a.newInstance(ctx, s, f, &source, instanceCall{create: path, commit: path, again: "phala instances add --app-id " + app.String()})
}

// instanceCall is where an instance is asked for.
type instanceCall struct {
	create, commit, again string
}

// newInstance asks for an instance, allows on chain what it needs, and follows it.
func (a *app) newInstance(ctx context.Context, s *session, f *replicaFlags, source *cloudapi.CVMDetail, call instanceCall) error {
	st := a.steps()
	var vm cloudapi.VM
	if f.commit {
		if err := s.api.Do(ctx, "POST", call.commit, f.body(), &vm); err != nil {
			return err
		}
		return a.followInstance(ctx, s, f, vm)
	}
	body, err := a.instanceBody(ctx, s, st, f, source)
	if err != nil {
		return err
	}
	err = send(ctx, s, "POST", call.create, prepareHeader(f.prepare), body, &vm)
	p, wanted := approvalOf(err)
	switch {
	case err == nil:
		return a.followInstance(ctx, s, f, vm)
	case !wanted:
		return err
	case f.prepare:
		return a.showApproval(p, call.again)
	}
	app, err := cvm.ParseAppID(str(source.AppID))
	if err != nil {
		return err
	}
	tx, err := a.approve(ctx, s, st, p, approver{app: app, hash: f.composeHash, rpc: f.rpcURL, trust: f.trust})
	if err != nil {
		return err
	}
	f.token, f.composeHash, f.transaction = p.CommitToken, p.ComposeHash, tx
	if err := s.api.Do(ctx, "POST", call.commit, f.body(), &vm); err != nil {
		return err
	}
	return a.followInstance(ctx, s, f, vm)
}

// prepareHeader asks for a preparation only.
func prepareHeader(prepare bool) http.Header {
	if !prepare {
		return nil
	}
	return http.Header{"X-Prepare-Only": {"true"}}
}

func (a *app) instanceBody(ctx context.Context, s *session, st *steps, f *replicaFlags, source *cloudapi.CVMDetail) (map[string]any, error) {
	body := map[string]any{}
	node, err := nodeID(ctx, s, f.node)
	if err != nil {
		return nil, err
	}
	if node > 0 {
		body["node_id"] = node
	}
	if f.composeHash != "" {
		body["compose_hash"] = f.composeHash
	}
	for key, file := range map[string]string{"docker_compose_file": f.compose, "pre_launch_script": f.preLaunch} {
		if file == "" {
			continue
		}
		b, err := os.ReadFile(a.path(file))
		if err != nil {
			return nil, cvm.Errorf(cvm.Invalid, "reading %s: %w", file, err)
		}
		body[key] = string(b)
	}
	if len(f.envs) > 0 {
		e, err := a.envTarget(ctx, s, first(str(source.VMUUID), source.Name), f.trust, f.envs)
		if err != nil {
			return nil, err
		}
		w, err := a.openWallet(s)
		if err != nil {
			return nil, err
		}
		sealed, err := a.seal(ctx, s, st, e.trust, e.kms, e.app, e.env, true, e.v.EnvCounter, w)
		if err != nil {
			st.fail()
			return nil, err
		}
		body["encrypted_env"], body["env_keys"], body["env_signature"] = sealed.blob, sealed.keys, sealed.sig
	}
	return body, nil
}

// nodeID resolves a node's name; 0 leaves the choice to the cloud.
func nodeID(ctx context.Context, s *session, node string) (int, error) {
	if node == "" {
		return 0, nil
	}
	if n, err := strconv.Atoi(node); err == nil {
		if n < 1 {
			return 0, usage("--node-id %d is not a node", n)
		}
		return n, nil
	}
	all, err := s.api.Nodes(ctx)
	if err != nil {
		return 0, err
	}
	for _, n := range all.Nodes {
		if n.Name == node {
			return n.TeepodID, nil
		}
	}
	return 0, cvm.Errorf(cvm.NotFound, "there is no node %q", node).WithFix("phala nodes lists them")
}

func (a *app) followInstance(ctx context.Context, s *session, f *replicaFlags, vm cloudapi.VM) error {
	status := vm.Status
	if !f.noWait {
		var err error
		if status, err = a.follow(ctx, s, first(str(vm.VMUUID), vm.Name), vm.EventSeq, "starting "+vm.Name, cloudapi.StatusRunning); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(map[string]any{"name": vm.Name, "app_id": vm.AppID, "vm_uuid": vm.VMUUID, "status": status})
	}
	a.printf("%s %s %s\n", str(vm.VMUUID), vm.Name, status)
	return nil
}
