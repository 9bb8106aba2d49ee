package ethereum

import (
	"bytes"
	"context"
	"errors"
	"math/big"
	"strings"
	"unicode"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"
	"golang.org/x/sync/errgroup"

	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/governance/ethereum/contracts"
)

// AuthorizeApp implements governance.Authority (DstackKms.isAppAllowed).
func (r *Reader) AuthorizeApp(ctx context.Context, b governance.BootRequest) (governance.Decision, error) {
	return r.authorize(ctx, question{b, false})
}

// AuthorizeKMS implements governance.Authority (DstackKms.isKmsAllowed).
func (r *Reader) AuthorizeKMS(ctx context.Context, b governance.BootRequest) (governance.Decision, error) {
	return r.authorize(ctx, question{b, true})
}

func (r *Reader) authorize(ctx context.Context, q question) (governance.Decision, error) {
	v, head, final, err := r.view(ctx)
	if err != nil {
		return governance.Decision{}, err
	}
	d := governance.Decision{View: v}
	ok, reason, err := r.ask(ctx, q, head.Hash())
	if err != nil {
		return governance.Decision{}, err
	}
	if !ok { // a deny counts as soon as the head has it
		d.Reason = reason
		return d, nil
	}
	if final.Hash() != head.Hash() {
		ok, reason, err = r.ask(ctx, q, final.Hash())
		if err != nil {
			return governance.Decision{}, err
		}
		if !ok {
			d.Reason = reason + " (allowed at the head, not final yet: wait for block " + head.Number.String() + " to be final)"
			return d, nil
		}
	}
	if d.GatewayAppID, err = r.gateway(ctx, head, final); err != nil {
		return governance.Decision{}, err
	}
	d.Allowed = true
	return d, r.checkTime(v) // asking took time too
}

// gateway names the gateway app if the head and the final block agree on it: a
// gateway that was just replaced is named no more, its successor not yet.
func (r *Reader) gateway(ctx context.Context, head, final *types.Header) (string, error) {
	a, err := r.gatewayAt(ctx, head.Hash())
	if err != nil || head.Hash() == final.Hash() {
		return a, err
	}
	b, err := r.gatewayAt(ctx, final.Hash())
	if err != nil || a != b {
		return "", err
	}
	return a, nil
}

func (r *Reader) gatewayAt(ctx context.Context, block common.Hash) (string, error) {
	kms := contracts.NewDstackKms()
	out, err := r.call(ctx, kms.PackGatewayAppId(), block)
	if err != nil {
		return "", err
	}
	id, err := kms.UnpackGatewayAppId(out)
	if err != nil {
		return "", refused(ReasonUnreachable, "contract %s does not answer as DstackKms", r.contract)
	}
	return clean(id, 80), nil
}

// Info implements governance.Authority.
func (r *Reader) Info(ctx context.Context) (governance.Info, error) {
	v, head, final, err := r.view(ctx)
	if err != nil {
		return governance.Info{}, err
	}
	info := governance.Info{Source: v.Source, ChainID: v.ChainID, Contract: v.Contract, View: v}
	if info.GatewayAppID, err = r.gateway(ctx, head, final); err != nil {
		return info, err
	}
	kms := contracts.NewDstackKms()
	out, err := r.call(ctx, kms.PackAppImplementation(), final.Hash())
	if err != nil {
		return info, err
	}
	impl, err := kms.UnpackAppImplementation(out)
	if err != nil {
		return info, refused(ReasonUnreachable, "contract %s does not answer as DstackKms", r.contract)
	}
	info.AppImplementation = impl.Hex()
	return info, nil
}

// DecisionAt asks again what the contract said at an old block, which all
// endpoints must have under the given hash: how a verifier replays a decision.
// contract "" is the configured one; kms asks isKmsAllowed. Old state needs
// archive nodes.
func (r *Reader) DecisionAt(ctx context.Context, b governance.BootRequest, kms bool, block governance.BlockRef) (allowed bool, reason string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	n := new(big.Int).SetUint64(block.Number)
	for _, e := range r.endpoints {
		h, err := header(ctx, e, n)
		if err != nil {
			return false, "", err
		}
		if block.Hash != "" && !strings.EqualFold(h.Hash().Hex(), block.Hash) {
			return false, "", refused(ReasonDisagrees, "%s has %s at block %d, not %s", e.name, h.Hash().Hex(), block.Number, block.Hash)
		}
		block.Hash = h.Hash().Hex()
	}
	return r.ask(ctx, question{b, kms}, common.HexToHash(block.Hash))
}

// question is one of the two that a DstackKms answers.
type question struct {
	boot governance.BootRequest
	kms  bool
}

func (r *Reader) ask(ctx context.Context, q question, block common.Hash) (bool, string, error) {
	kms := contracts.NewDstackKms()
	info := contracts.IAppAuthAppBootInfo{
		AppId: common.Address(q.boot.AppID), ComposeHash: q.boot.ComposeHash, InstanceId: common.Address(q.boot.InstanceID),
		DeviceId: q.boot.DeviceID, MrAggregated: q.boot.MRAggregated, MrSystem: q.boot.MRSystem,
		OsImageHash: q.boot.OSImageHash, TcbStatus: q.boot.TCBStatus, AdvisoryIds: q.boot.AdvisoryIDs,
	}
	data := kms.PackIsAppAllowed(info)
	if q.kms {
		data = kms.PackIsKmsAllowed(info)
	}
	out, err := r.call(ctx, data, block)
	var rev *reverted
	if errors.As(err, &rev) {
		return false, "the contract refused to answer: " + rev.reason, nil
	}
	if err != nil {
		return false, "", err
	}
	return unpackDecision(kms, q.kms, out)
}

// unpackDecision reads (bool, string) strictly: the binding panics at nothing, and
// anything else than two well-formed values is no answer.
func unpackDecision(kms *contracts.DstackKms, isKMS bool, out []byte) (bool, string, error) {
	var (
		ok     bool
		reason string
		err    error
	)
	if isKMS {
		var o contracts.IsKmsAllowedOutput
		o, err = kms.UnpackIsKmsAllowed(out)
		ok, reason = o.IsAllowed, o.Reason
	} else {
		var o contracts.KmsIsAppAllowedOutput
		o, err = kms.UnpackIsAppAllowed(out)
		ok, reason = o.IsAllowed, o.Reason
	}
	if err != nil {
		return false, "", refused(ReasonUnreachable, "the contract's answer cannot be read: no DstackKms there at that block?")
	}
	reason = clean(reason, 200)
	if !ok && reason == "" {
		reason = "denied without a reason"
	}
	return ok, reason, nil
}

type reverted struct{ reason string }

func (e *reverted) Error() string { return "execution reverted: " + e.reason }

// call makes the same call at every endpoint; the answers must be the same bytes.
func (r *Reader) call(ctx context.Context, data []byte, block common.Hash) ([]byte, error) {
	outs := make([][]byte, len(r.endpoints))
	reverts := make([]*reverted, len(r.endpoints))
	g, ctx := errgroup.WithContext(ctx)
	for i, e := range r.endpoints {
		g.Go(func() error {
			out, err := e.CallContractAtHash(ctx, ethereum.CallMsg{To: &r.contract, Data: data}, block)
			if rv := asRevert(err); rv != nil {
				reverts[i] = rv
				return nil //nolint:nilerr // a revert is the contract's answer
			}
			if err != nil {
				return unreachable(err, e.name+": calling the contract")
			}
			outs[i] = out
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i := range outs {
		if (reverts[i] == nil) != (reverts[0] == nil) || !bytes.Equal(outs[i], outs[0]) {
			return nil, refused(ReasonDisagrees, "%s and %s answer differently at block %s", r.endpoints[0].name, r.endpoints[i].name, block)
		}
	}
	if reverts[0] != nil {
		return nil, reverts[0]
	}
	if len(outs[0]) == 0 {
		return nil, refused(ReasonUnreachable, "there is no contract at %s in block %s", r.contract, block)
	}
	return outs[0], nil
}

// asRevert recognises the answer "execution reverted" (JSON-RPC code 3).
func asRevert(err error) *reverted {
	var de rpc.DataError
	var ec rpc.Error
	if !errors.As(err, &de) || !errors.As(err, &ec) || ec.ErrorCode() != 3 {
		return nil
	}
	s, _ := de.ErrorData().(string)
	text, uerr := abi.UnpackRevert(common.FromHex(s))
	if uerr != nil {
		text = "execution reverted"
	}
	return &reverted{clean(text, 200)}
}

// clean bounds text from a contract, which anyone may have written.
func clean(s string, limit int) string {
	var b strings.Builder
	for _, c := range s {
		if b.Len() >= limit {
			break
		}
		if unicode.IsPrint(c) {
			b.WriteRune(c)
		}
	}
	return b.String()
}
