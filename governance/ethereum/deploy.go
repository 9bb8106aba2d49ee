package ethereum

import (
	"context"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/accounts/abi/bind/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance/ethereum/contracts"
)

var noABI abi.ABI // calls are packed by the bindings; BoundContract wants one all the same

// Contracts are the addresses of a deployment.
type Contracts struct {
	KMS               common.Address `json:"kms"` // DstackKms: the proxy
	KMSImplementation common.Address `json:"kms_implementation"`
	AppImplementation common.Address `json:"app_implementation"`
}

// AppParams say how a new app starts. Zero hashes add none.
type AppParams struct {
	Owner           common.Address // zero: the wallet's own address
	DisableUpgrades bool
	RequireTCB      bool // refuse machines whose TCB is not UpToDate
	AllowAnyDevice  bool
	Device          cvm.DeviceID
	ComposeHash     cvm.ComposeHash
}

// DeployKMS deploys the implementations and the DstackKms proxy, owned by this
// wallet, waits until they are final, and writes to that proxy from now on.
func (o *Owner) DeployKMS(ctx context.Context, progress func(Progress)) (Contracts, error) {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Timeout)
	defer cancel()
	if progress == nil {
		progress = func(Progress) {}
	}
	var c Contracts
	var sent []pending
	deploy := func(name string, code []byte) (common.Address, error) {
		a, p, err := o.deploy(ctx, name, code)
		if err != nil {
			return a, err
		}
		progress(Progress{Name: name, Stage: StageSent, TxHash: p.tx.Hash().Hex()})
		r, err := o.included(ctx, p)
		if err != nil {
			return a, err
		}
		progress(Progress{Name: name, Stage: StageIncluded, TxHash: p.tx.Hash().Hex(), Block: r.BlockNumber.Uint64()})
		sent = append(sent, p)
		return a, nil
	}
	var err error
	if c.AppImplementation, err = deploy("deploy the app implementation", common.FromHex(contracts.DstackAppMetaData.Bin)); err != nil {
		return c, err
	}
	if c.KMSImplementation, err = deploy("deploy the KMS implementation", common.FromHex(contracts.DstackKmsMetaData.Bin)); err != nil {
		return c, err
	}
	initData := contracts.NewDstackKms().PackInitialize(o.signer.Address(), c.AppImplementation)
	code := append(common.FromHex(contracts.ERC1967ProxyMetaData.Bin), contracts.NewERC1967Proxy().PackConstructor(c.KMSImplementation, initData)...)
	if c.KMS, err = deploy("deploy DstackKms", code); err != nil {
		return c, err
	}
	if err := o.waitFinal(ctx, 0, sent, progress); err != nil {
		return c, err
	}
	o.kms = c.KMS
	return c, nil
}

func (o *Owner) deploy(ctx context.Context, name string, code []byte) (common.Address, pending, error) {
	opts, err := o.signer.TransactOpts(o.cfg.ChainID, o.dev)
	if err != nil {
		return common.Address{}, pending{}, err
	}
	opts.Context = ctx
	a, tx, err := bind.DeployContract(opts, code, o.client, nil)
	return a, pending{name, tx}, o.sendError(ctx, name, a, err)
}

// DeployApp deploys an app through the factory and waits until it is final. The
// app's id is its contract's address.
func (o *Owner) DeployApp(ctx context.Context, p AppParams, progress func(Progress)) (cvm.AppID, error) {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Timeout)
	defer cancel()
	if progress == nil {
		progress = func(Progress) {}
	}
	if p.Owner == (common.Address{}) {
		p.Owner = o.signer.Address()
	}
	const name = "register the app"
	data := contracts.NewDstackKms().PackDeployAndRegisterApp0(p.Owner, p.DisableUpgrades, p.RequireTCB, p.AllowAnyDevice, p.Device, p.ComposeHash)
	tx, err := o.send(ctx, name, o.kms, data)
	if err != nil {
		return cvm.AppID{}, err
	}
	progress(Progress{Name: name, Stage: StageSent, TxHash: tx.Hash().Hex()})
	sent := pending{name, tx}
	r, err := o.included(ctx, sent)
	if err != nil {
		return cvm.AppID{}, err
	}
	progress(Progress{Name: name, Stage: StageIncluded, TxHash: tx.Hash().Hex(), Block: r.BlockNumber.Uint64()})
	if err := o.waitFinal(ctx, r.BlockNumber.Uint64(), []pending{sent}, progress); err != nil {
		return cvm.AppID{}, err
	}
	// Read the receipt again: before finality it could still have been another.
	if r, err = o.included(ctx, sent); err != nil {
		return cvm.AppID{}, err
	}
	return o.deployedApp(r)
}

func (o *Owner) deployedApp(r *types.Receipt) (cvm.AppID, error) {
	k := contracts.NewDstackKms()
	for _, l := range r.Logs {
		if l.Address != o.kms {
			continue
		}
		if e, err := k.UnpackAppDeployedViaFactoryEvent(l); err == nil {
			return cvm.AppID(e.AppId), nil
		}
	}
	return cvm.AppID{}, cvm.Errorf(cvm.Internal, "transaction %s has no AppDeployedViaFactory event of %s", r.TxHash, o.kms)
}

// AppOwner is who owns an app, at the head.
func (o *Owner) AppOwner(ctx context.Context, app cvm.AppID) (common.Address, error) {
	a := contracts.NewDstackApp()
	to := common.Address(app)
	out, err := o.client.CallContract(ctx, ethereum.CallMsg{To: &to, Data: a.PackOwner()}, nil)
	if err != nil {
		return common.Address{}, unreachable(err, "asking for the app's owner")
	}
	owner, err := a.UnpackOwner(out)
	if err != nil {
		return owner, cvm.Errorf(cvm.NotFound, "there is no app contract at 0x%s on chain %d", app, o.cfg.ChainID)
	}
	return owner, nil
}
