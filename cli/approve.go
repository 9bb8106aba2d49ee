package cli

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/verify"
)

// alreadyRegistered stands for a transaction where the chain allowed it before.
const alreadyRegistered = "already-registered"

// statusApproval is the status of an answer that something must be allowed on chain
// before the cloud goes on.
const statusApproval = 465

// approval is such an answer: what is to be allowed, and the token to go on with.
type approval struct {
	ComposeHash  string        `json:"compose_hash"`
	AppID        string        `json:"app_id"`
	DeviceID     string        `json:"device_id"`
	KMS          *cloudapi.KMS `json:"kms_info"`
	CommitToken  string        `json:"commit_token"`
	CommitURL    string        `json:"commit_url,omitempty"`
	APICommitURL string        `json:"api_commit_url,omitempty"`
	OnChain      any           `json:"onchain_status,omitempty"`
}

// approvalOf reads one from an error.
func approvalOf(err error) (*approval, bool) {
	var e *cloudapi.APIError
	if !errors.As(err, &e) || e.Status != statusApproval {
		return nil, false
	}
	fields := map[string]any{}
	for _, d := range e.Details {
		fields[d.Field] = d.Value
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return nil, false
	}
	var out approval
	if json.Unmarshal(b, &out) != nil || out.ComposeHash == "" {
		return nil, false
	}
	return &out, true
}

// show prints what a prepared change waits for.
func (a *app) showApproval(p *approval, commit string) error {
	if a.json {
		return a.printJSON(p)
	}
	a.printFields([]field{{"Compose hash", p.ComposeHash}, {"App", p.AppID}, {"Device", p.DeviceID}, {"Commit token", p.CommitToken}, {"Approve at", p.CommitURL}})
	a.say("next: the app's owner allows hash and device on chain, then (no login needed; the token is valid for 14 days)")
	a.say("      %s --commit --token %s --compose-hash %s --transaction-hash 0x...", commit, p.CommitToken, p.ComposeHash)
	return nil
}

// approver is what an approval may be given for.
type approver struct {
	app   cvm.AppID
	hash  string // the only hash that this machine's user named or built; "": none, the chain must allow it already
	rpc   string
	trust string // flags
}

// approve allows on chain, with the owner's wallet, what the cloud asks for. A hash
// that only the cloud vouches for is never signed: it must be the one named or built
// here, or stand on chain already. It returns the transaction to prove it with.
func (a *app) approve(ctx context.Context, s *session, st *steps, p *approval, by approver) (tx string, err error) {
	t, _, err := a.trust(s, by.trust)
	if err != nil {
		return "", err
	}
	hash, err := cvm.ParseComposeHash(strings.ToLower(p.ComposeHash))
	if err != nil {
		return "", err
	}
	switch {
	case p.KMS == nil || p.KMS.ChainID == nil || *p.KMS.ChainID != t.Chain.ID:
		return "", cvm.Errorf(cvm.Denied, "the cloud asks for an approval on another chain than the trust profile's, chain %d", t.Chain.ID).WithReason(reasonWrongCloud)
	case !sameHash(p.AppID, by.app.String()):
		return "", cvm.Errorf(cvm.Denied, "the cloud asks for an approval of another app than %s; nothing was put on chain", by.app).WithReason(reasonWrongCloud)
	case by.hash != "" && !sameHash(by.hash, hash.String()):
		return "", notOurs(hash)
	case by.hash == "":
		if err := a.allowedAlready(ctx, t, by, hash); err != nil {
			return "", err
		}
	}
	var ops []ethereum.Op
	if p.DeviceID != "" {
		d, err := cvm.ParseDeviceID(strings.ToLower(p.DeviceID))
		if err != nil {
			return "", err
		}
		ops = append(ops, ethereum.AllowDevice(by.app, d))
	}
	return a.allowOps(ctx, s, st, t, by.rpc, append(ops, ethereum.AllowCompose(by.app, hash)))
}

func notOurs(hash cvm.ComposeHash) error {
	return cvm.Errorf(cvm.Denied, "the cloud asks to allow compose hash %s, which was not built here and is not on chain; nothing was put on chain", hash).
		WithReason(reasonCloudChanged).WithFix("phala deploy builds and allows a new app-compose; or name the hash you checked: --compose-hash")
}

// allowedAlready asks the chain, not the cloud, whether the hash is an allowed one.
func (a *app) allowedAlready(ctx context.Context, t *verify.Profile, by approver, hash cvm.ComposeHash) error {
	v, err := a.readApp(ctx, t, by.rpc, by.app, nil, []cvm.ComposeHash{hash})
	if err != nil {
		return err
	}
	if !v.Composes[hash] {
		return notOurs(hash)
	}
	return nil
}

// readApp reads an app's contract at the trust profile's chain; no wallet is opened.
func (a *app) readApp(ctx context.Context, t *verify.Profile, rpc string, app cvm.AppID, devices []cvm.DeviceID, hashes []cvm.ComposeHash) (ethereum.AppView, error) {
	c, err := ethereum.Dial(ctx, first(rpc, a.Getenv("ETH_RPC_URL"), t.Chain.RPCURLs[0]))
	if err != nil {
		return ethereum.AppView{}, err
	}
	defer c.Close()
	return ethereum.ReadApp(ctx, c, t.Chain.ID, app, devices, hashes)
}

// allowOps sends what is not in force yet. The last one's transaction is returned.
func (a *app) allowOps(ctx context.Context, s *session, st *steps, t *verify.Profile, rpc string, ops []ethereum.Op) (tx string, err error) {
	o, _, err := a.owner(ctx, s, t, rpc)
	if err != nil {
		return "", err
	}
	tx = alreadyRegistered
	show := a.chainProgress(st)
	st.start("%s on %s", ops[len(ops)-1].Name, chainText(t.Chain.ID))
	err = o.Apply(ctx, func(e ethereum.Progress) {
		if e.Stage == ethereum.StageSent && e.Name == ops[len(ops)-1].Name {
			tx = e.TxHash
		}
		show(e)
	}, ops...)
	if err != nil {
		st.fail()
		return "", err
	}
	st.ok("in force and final on " + chainText(t.Chain.ID))
	return tx, nil
}

// commitFlags are the flags of two-phase changes.
type commitFlags struct {
	prepare, commit                 bool
	token, composeHash, transaction string
	privateKey, rpcURL, trust       string
}

// check refuses combinations that mean nothing; all says that --commit needs every
// fact, not the token only.
func (f *commitFlags) check(all bool) error {
	switch {
	case f.privateKey != "":
		return usage("--private-key is not taken: other users of this machine can read arguments\nfix: phala wallet import FILE")
	case f.prepare && f.commit:
		return usage("--prepare-only and --commit exclude each other")
	case !f.commit && (f.token != "" || f.transaction != ""):
		return usage("--token and --transaction-hash go with --commit")
	case f.commit && f.token == "":
		return usage("--commit needs --token, which --prepare-only printed")
	case f.commit && all && (f.composeHash == "" || f.transaction == ""):
		return usage("--commit needs --compose-hash and --transaction-hash (%s, if the chain allows it already)", alreadyRegistered)
	}
	return nil
}

// body is what a commit sends.
func (f *commitFlags) body() map[string]any {
	return map[string]any{"token": f.token, "compose_hash": f.composeHash, "transaction_hash": f.transaction}
}
