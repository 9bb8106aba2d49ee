package ethereum

import (
	"context"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance/ethereum/contracts"
)

// AppView is what an app's contract says at the head of one endpoint. It is for
// showing, and for deciding what is left to do; release of keys asks Reader.
type AppView struct {
	Owner     common.Address
	AnyDevice bool
	Devices   map[cvm.DeviceID]bool // of those that were asked for
	Composes  map[cvm.ComposeHash]bool
}

// ReadApp asks an app's contract about devices and compose hashes. It needs no wallet.
func ReadApp(ctx context.Context, c Client, chainID uint64, app cvm.AppID, devices []cvm.DeviceID, composes []cvm.ComposeHash) (AppView, error) {
	v := AppView{Devices: map[cvm.DeviceID]bool{}, Composes: map[cvm.ComposeHash]bool{}}
	id, _, err := Detect(ctx, c)
	if err != nil {
		return v, err
	}
	if id != chainID {
		return v, cvm.Errorf(cvm.Precondition, "the RPC endpoint is on chain %d, not %d", id, chainID).WithFix("check the profile's chain_id and rpc_urls")
	}
	a, to := contracts.NewDstackApp(), common.Address(app)
	ask := func(data []byte) ([]byte, error) {
		out, err := c.CallContract(ctx, ethereum.CallMsg{To: &to, Data: data}, nil)
		if err != nil {
			return nil, unreachable(err, "asking the app's contract")
		}
		if len(out) == 0 {
			return nil, cvm.Errorf(cvm.NotFound, "there is no app contract at 0x%s on chain %d", app, chainID)
		}
		return out, nil
	}
	boolOf := func(data []byte, unpack func([]byte) (bool, error)) (bool, error) {
		out, err := ask(data)
		if err != nil {
			return false, err
		}
		return unpack(out)
	}
	out, err := ask(a.PackOwner())
	if err != nil {
		return v, err
	}
	if v.Owner, err = a.UnpackOwner(out); err != nil {
		return v, err
	}
	if v.AnyDevice, err = boolOf(a.PackAllowAnyDevice(), a.UnpackAllowAnyDevice); err != nil {
		return v, err
	}
	for _, d := range devices {
		if v.Devices[d], err = boolOf(a.PackAllowedDeviceIds(d), a.UnpackAllowedDeviceIds); err != nil {
			return v, err
		}
	}
	for _, h := range composes {
		if v.Composes[h], err = boolOf(a.PackAllowedComposeHashes(h), a.UnpackAllowedComposeHashes); err != nil {
			return v, err
		}
	}
	return v, nil
}
