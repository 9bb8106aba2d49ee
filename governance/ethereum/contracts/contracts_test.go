package contracts

import (
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/accounts/abi/bind/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient/simulated"
	"github.com/ethereum/go-ethereum/rpc"
)

type world struct {
	t            *testing.T
	b            *simulated.Backend
	owner, other *ecdsa.PrivateKey
	kms, appImpl common.Address
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	w.owner, _ = crypto.GenerateKey()
	w.other, _ = crypto.GenerateKey()
	rich := types.Account{Balance: new(big.Int).Lsh(big.NewInt(1), 100)}
	w.b = simulated.NewBackend(types.GenesisAlloc{addr(w.owner): rich, addr(w.other): rich})
	t.Cleanup(func() { _ = w.b.Close() })
	w.appImpl = w.deploy(common.FromHex(DstackAppMetaData.Bin))
	impl := w.deploy(common.FromHex(DstackKmsMetaData.Bin))
	w.kms = w.proxy(impl, NewDstackKms().PackInitialize(addr(w.owner), w.appImpl))
	return w
}

func addr(k *ecdsa.PrivateKey) common.Address { return crypto.PubkeyToAddress(k.PublicKey) }

func (w *world) opts(k *ecdsa.PrivateKey) *bind.TransactOpts {
	o := bind.NewKeyedTransactor(k, big.NewInt(1337))
	o.Context = w.t.Context()
	return o
}

func (w *world) deploy(code []byte) common.Address {
	w.t.Helper()
	a, _, err := bind.DeployContract(w.opts(w.owner), code, w.b.Client(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.b.Commit()
	return a
}

func (w *world) proxy(impl common.Address, data []byte) common.Address {
	w.t.Helper()
	return w.deploy(append(common.FromHex(ERC1967ProxyMetaData.Bin), NewERC1967Proxy().PackConstructor(impl, data)...))
}

// send returns the receipt, or what the contract said.
func (w *world) send(k *ecdsa.PrivateKey, to common.Address, data []byte) (*types.Receipt, string) {
	w.t.Helper()
	tx, err := bind.Transact(bind.NewBoundContract(to, abi.ABI{}, w.b.Client(), w.b.Client(), nil), w.opts(k), data)
	if err != nil {
		return nil, reason(w.t, err)
	}
	w.b.Commit()
	r, err := w.b.Client().TransactionReceipt(w.t.Context(), tx.Hash())
	if err != nil || r.Status != 1 {
		w.t.Fatalf("receipt: %+v, %v", r, err)
	}
	return r, ""
}

func (w *world) must(k *ecdsa.PrivateKey, to common.Address, data []byte) *types.Receipt {
	w.t.Helper()
	r, why := w.send(k, to, data)
	if why != "" {
		w.t.Fatalf("refused: %s", why)
	}
	return r
}

func (w *world) call(to common.Address, data []byte) ([]byte, string) {
	w.t.Helper()
	out, err := w.b.Client().CallContract(w.t.Context(), ethereum.CallMsg{To: &to, Data: data}, nil)
	if err != nil {
		return nil, reason(w.t, err)
	}
	return out, ""
}

// reason is a revert's text, or the name of the custom error.
func reason(t *testing.T, err error) string {
	t.Helper()
	var de rpc.DataError
	if !errors.As(err, &de) {
		return err.Error()
	}
	s, _ := de.ErrorData().(string)
	data := common.FromHex(s)
	if text, err := abi.UnpackRevert(data); err == nil {
		return text
	}
	switch u, _ := NewDstackKms().UnpackError(data); u.(type) {
	case *DstackKmsOwnableUnauthorizedAccount:
		return "OwnableUnauthorizedAccount"
	case *DstackKmsInvalidInitialization:
		return "InvalidInitialization"
	}
	return err.Error()
}

func (w *world) newApp(tcb, anyDevice bool, device, compose [32]byte, frozen bool) common.Address {
	w.t.Helper()
	r := w.must(w.owner, w.kms, NewDstackKms().PackDeployAndRegisterApp0(addr(w.owner), frozen, tcb, anyDevice, device, compose))
	for _, l := range r.Logs {
		if e, err := NewDstackKms().UnpackAppDeployedViaFactoryEvent(l); err == nil {
			if e.Deployer != addr(w.owner) {
				w.t.Errorf("deployer is %s", e.Deployer)
			}
			return e.AppId
		}
	}
	w.t.Fatal("no AppDeployedViaFactory event")
	return common.Address{}
}

var (
	image, device, compose, mr = [32]byte{1}, [32]byte{2}, [32]byte{3}, [32]byte{4}
)

func boot(app common.Address) IAppAuthAppBootInfo {
	return IAppAuthAppBootInfo{AppId: app, ComposeHash: compose, DeviceId: device, MrAggregated: mr, OsImageHash: image, TcbStatus: "UpToDate", AdvisoryIds: []string{}}
}

func (w *world) appAllowed(b IAppAuthAppBootInfo) (bool, string) {
	w.t.Helper()
	out, why := w.call(w.kms, NewDstackKms().PackIsAppAllowed(b))
	if why != "" {
		w.t.Fatal(why)
	}
	o, err := NewDstackKms().UnpackIsAppAllowed(out)
	if err != nil {
		w.t.Fatal(err)
	}
	return o.IsAllowed, o.Reason
}

// Each deny in the reference's order: every step repairs one and meets the next.
func TestAppReasonsInOrder(t *testing.T) {
	w := newWorld(t)
	k, a := NewDstackKms(), NewDstackApp()
	expect := func(b IAppAuthAppBootInfo, want string) {
		t.Helper()
		ok, why := w.appAllowed(b)
		if why != want || ok != (want == "") {
			t.Fatalf("allowed %t, reason %q, want %q", ok, why, want)
		}
	}
	b := boot(common.Address{})
	b.TcbStatus = "OutOfDate"
	expect(b, "App not registered")
	eoa := common.Address{0xee}
	w.must(w.other, w.kms, k.PackRegisterApp(eoa)) // anyone may
	b.AppId = eoa
	expect(b, "OS image is not allowed")
	w.must(w.owner, w.kms, k.PackAddOsImageHash(image))
	expect(b, "App not deployed or invalid address")
	b.AppId = w.newApp(true, false, [32]byte{}, [32]byte{}, false)
	expect(b, "TCB status is not up to date")
	b.TcbStatus = "UpToDate"
	expect(b, "Compose hash not allowed")
	w.must(w.owner, b.AppId, a.PackAddComposeHash(compose))
	expect(b, "Device not allowed")
	w.must(w.owner, b.AppId, a.PackAddDevice(device))
	expect(b, "")
	// And back.
	w.must(w.owner, b.AppId, a.PackRemoveDevice(device))
	expect(b, "Device not allowed")
	w.must(w.owner, b.AppId, a.PackSetAllowAnyDevice(true))
	expect(b, "")
	w.must(w.owner, b.AppId, a.PackSetRequireTcbUpToDate(false))
	b.TcbStatus = "Revoked"
	expect(b, "")
	w.must(w.owner, b.AppId, a.PackRemoveComposeHash(compose))
	expect(b, "Compose hash not allowed")
	w.must(w.owner, w.kms, k.PackRemoveOsImageHash(image))
	expect(b, "OS image is not allowed")
}

func TestKMSReasonsInOrder(t *testing.T) {
	w := newWorld(t)
	k := NewDstackKms()
	b := boot(common.Address{})
	expect := func(want string) {
		t.Helper()
		out, why := w.call(w.kms, k.PackIsKmsAllowed(b))
		if why != "" {
			t.Fatal(why)
		}
		o, err := k.UnpackIsKmsAllowed(out)
		if err != nil || o.Reason != want || o.IsAllowed != (want == "") {
			t.Fatalf("%+v, %v, want %q", o, err, want)
		}
	}
	b.TcbStatus = ""
	expect("TCB status is not up to date")
	b.TcbStatus = "UpToDate"
	expect("OS image is not allowed")
	w.must(w.owner, w.kms, k.PackAddOsImageHash(image))
	expect("Aggregated MR not allowed")
	w.must(w.owner, w.kms, k.PackAddKmsAggregatedMr(mr))
	expect("KMS is not allowed to boot on this device")
	w.must(w.owner, w.kms, k.PackAddKmsDevice(device))
	expect("")
	w.must(w.owner, w.kms, k.PackRemoveKmsDevice(device))
	expect("KMS is not allowed to boot on this device")
	w.must(w.owner, w.kms, k.PackRemoveKmsAggregatedMr(mr))
	expect("Aggregated MR not allowed")
}

func TestOnlyTheOwnerMay(t *testing.T) {
	w := newWorld(t)
	k, a := NewDstackKms(), NewDstackApp()
	app := w.newApp(false, true, [32]byte{}, compose, false)
	for name, data := range map[string][]byte{
		"setKmsInfo": k.PackSetKmsInfo(DstackKmsKmsInfo{}), "setKmsQuote": k.PackSetKmsQuote(nil), "setKmsEventlog": k.PackSetKmsEventlog(nil),
		"setGatewayAppId": k.PackSetGatewayAppId("x"), "setAppImplementation": k.PackSetAppImplementation(w.appImpl),
		"addKmsAggregatedMr": k.PackAddKmsAggregatedMr(mr), "removeKmsAggregatedMr": k.PackRemoveKmsAggregatedMr(mr),
		"addKmsDevice": k.PackAddKmsDevice(device), "removeKmsDevice": k.PackRemoveKmsDevice(device),
		"addOsImageHash": k.PackAddOsImageHash(image), "removeOsImageHash": k.PackRemoveOsImageHash(image),
		"transferOwnership": k.PackTransferOwnership(addr(w.other)), "renounceOwnership": k.PackRenounceOwnership(),
		"upgradeToAndCall": k.PackUpgradeToAndCall(w.appImpl, nil),
	} {
		if _, why := w.send(w.other, w.kms, data); why != "OwnableUnauthorizedAccount" {
			t.Errorf("DstackKms.%s by a stranger: %q", name, why)
		}
	}
	for name, data := range map[string][]byte{
		"addComposeHash": a.PackAddComposeHash(compose), "removeComposeHash": a.PackRemoveComposeHash(compose),
		"addDevice": a.PackAddDevice(device), "removeDevice": a.PackRemoveDevice(device),
		"setAllowAnyDevice": a.PackSetAllowAnyDevice(true), "setRequireTcbUpToDate": a.PackSetRequireTcbUpToDate(true),
		"disableUpgrades": a.PackDisableUpgrades(), "transferOwnership": a.PackTransferOwnership(addr(w.other)),
		"upgradeToAndCall": a.PackUpgradeToAndCall(w.appImpl, nil),
	} {
		if _, why := w.send(w.other, app, data); why != "OwnableUnauthorizedAccount" {
			t.Errorf("DstackApp.%s by a stranger: %q", name, why)
		}
	}
	// A transfer takes two steps.
	w.must(w.owner, app, a.PackTransferOwnership(addr(w.other)))
	if _, why := w.send(w.other, app, a.PackAddDevice(device)); why == "" {
		t.Error("the new owner owns before accepting")
	}
	w.must(w.other, app, a.PackAcceptOwnership())
	w.must(w.other, app, a.PackAddDevice(device))
	if _, why := w.send(w.owner, app, a.PackAddDevice(device)); why != "OwnableUnauthorizedAccount" {
		t.Errorf("the old owner still owns: %q", why)
	}
}

func TestUpgrades(t *testing.T) {
	w := newWorld(t)
	a := NewDstackApp()
	next := w.deploy(common.FromHex(DstackAppMetaData.Bin))
	app := w.newApp(false, true, [32]byte{}, compose, false)
	r := w.must(w.owner, app, a.PackUpgradeToAndCall(next, nil))
	want := crypto.Keccak256Hash([]byte("implementation-upgrade"))
	found := false
	for _, l := range r.Logs {
		if e, err := a.UnpackPolicyChangedEvent(l); err == nil && e.Policy == want && e.Value == common.BytesToHash(next[:]) {
			found = true
		}
	}
	if !found {
		t.Error("an upgrade leaves no PolicyChanged event")
	}
	if ok, why := w.appAllowed(boot(app)); why != "OS image is not allowed" {
		t.Errorf("after the upgrade: %t %q", ok, why)
	}
	w.must(w.owner, app, a.PackDisableUpgrades())
	if _, why := w.send(w.owner, app, a.PackUpgradeToAndCall(next, nil)); why != "Upgrades are permanently disabled" {
		t.Errorf("upgrade after disableUpgrades: %q", why)
	}
	frozen := w.newApp(false, true, [32]byte{}, compose, true)
	if _, why := w.send(w.owner, frozen, a.PackUpgradeToAndCall(next, nil)); why != "Upgrades are permanently disabled" {
		t.Errorf("upgrade of an app that was made frozen: %q", why)
	}
}

func TestRequires(t *testing.T) {
	w := newWorld(t)
	k, a := NewDstackKms(), NewDstackApp()
	cases := []struct {
		name string
		to   common.Address
		data []byte
		want string
	}{
		{"register zero", w.kms, k.PackRegisterApp(common.Address{}), "Invalid app ID"},
		{"zero implementation", w.kms, k.PackSetAppImplementation(common.Address{}), "Invalid implementation address"},
		{"app without owner", w.kms, k.PackDeployAndRegisterApp(common.Address{}, false, true, device, compose), "Invalid owner address"},
		{"initialize again", w.kms, k.PackInitialize(addr(w.owner), w.appImpl), "InvalidInitialization"},
		{"initialize the implementation", w.appImpl, a.PackInitialize(addr(w.owner), false, true, device, compose), "InvalidInitialization"},
	}
	for _, c := range cases {
		if _, why := w.send(w.owner, c.to, c.data); why != c.want {
			t.Errorf("%s: %q, want %q", c.name, why, c.want)
		}
	}
	bare := w.proxy(w.deploy(common.FromHex(DstackKmsMetaData.Bin)), k.PackInitialize(addr(w.owner), common.Address{}))
	if _, why := w.send(w.owner, bare, k.PackDeployAndRegisterApp(addr(w.owner), false, true, device, compose)); why != "DstackApp implementation not set" {
		t.Errorf("factory without an implementation: %q", why)
	}
}

// DO NOT CHANGE: the ids by which the reference's tools recognise the contracts.
func TestInterfaceIDs(t *testing.T) {
	w := newWorld(t)
	app := w.newApp(false, true, [32]byte{}, compose, false)
	appAuth, basic, erc165, none := [4]byte{0x1e, 0x07, 0x91, 0x98}, [4]byte{0x8f, 0xd3, 0x75, 0x27}, [4]byte{0x01, 0xff, 0xc9, 0xa7}, [4]byte{0xff, 0xff, 0xff, 0xff}
	for _, c := range []struct {
		to   common.Address
		id   [4]byte
		want bool
	}{{w.kms, appAuth, true}, {w.kms, basic, false}, {w.kms, erc165, true}, {w.kms, none, false},
		{app, appAuth, true}, {app, basic, true}, {app, erc165, true}, {app, none, false}} {
		out, why := w.call(c.to, NewDstackKms().PackSupportsInterface(c.id))
		got, err := NewDstackKms().UnpackSupportsInterface(out)
		if why != "" || err != nil || got != c.want {
			t.Errorf("supportsInterface(%x) at %s = %t, want %t (%s)", c.id, c.to, got, c.want, why)
		}
	}
	// The literals are what the functions give.
	parsed, err := DstackAppMetaData.ParseABI()
	if err != nil {
		t.Fatal(err)
	}
	if id := parsed.Methods["isAppAllowed"].ID; string(id) != string(appAuth[:]) {
		t.Errorf("isAppAllowed has selector %x", id)
	}
	var x [4]byte
	for _, n := range []string{"addComposeHash", "removeComposeHash", "addDevice", "removeDevice"} {
		for i, b := range parsed.Methods[n].ID {
			x[i] ^= b
		}
	}
	t.Logf("the four management functions give %x", x)
	out, _ := w.call(app, NewDstackApp().PackVersion())
	if v, err := NewDstackApp().UnpackVersion(out); err != nil || v.Int64() != 2 {
		t.Errorf("version = %v, %v", v, err)
	}
}

// DO NOT CHANGE: proxies in use are upgraded in place, so that a variable may
// never move (dstack-core B.8).
func TestStorageOrder(t *testing.T) {
	for file, want := range map[string]string{
		"DstackKms": "0+0 kmsInfo,4+0 gatewayAppId,5+0 registeredApps,6+0 kmsAllowedAggregatedMrs,7+0 kmsAllowedDeviceIds,8+0 allowedOsImages,9+0 appImplementation,10+0 __gap",
		"DstackApp": "0+0 allowedComposeHashes,1+0 _upgradesDisabled,1+1 allowAnyDevice,2+0 allowedDeviceIds,3+0 requireTcbUpToDate,4+0 __gap",
	} {
		b, err := os.ReadFile("artifacts/" + file + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var a struct {
			Storage []string `json:"storage"`
		}
		if err := json.Unmarshal(b, &a); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(a.Storage, ","); got != want {
			t.Errorf("%s:\n got %s\nwant %s", file, got, want)
		}
	}
}

func TestPolicyEvents(t *testing.T) {
	w := newWorld(t)
	k := NewDstackKms()
	r := w.must(w.owner, w.kms, k.PackAddOsImageHash(image))
	e, err := k.UnpackPolicyChangedEvent(r.Logs[1])
	if err != nil || e.Actor != addr(w.owner) || e.Policy != crypto.Keccak256Hash([]byte("os-image")) || e.Value != image || !e.Enabled {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := k.UnpackOsImageHashAddedEvent(r.Logs[0]); err != nil || e.OsImageHash != image {
		t.Errorf("%+v, %v", e, err)
	}
	// The quote and the event log change silently, as in the reference.
	if r := w.must(w.owner, w.kms, k.PackSetKmsQuote([]byte{1})); len(r.Logs) != 0 {
		t.Errorf("setKmsQuote emits %d events", len(r.Logs))
	}
}

func TestMulticall3(t *testing.T) {
	code, err := Multicall3Code()
	if err != nil || len(code) == 0 {
		t.Fatalf("%d bytes, %v", len(code), err)
	}
	w := newWorld(t)
	mc := w.deploy(common.FromHex(Multicall3MetaData.Bin))
	m := NewMulticall3()
	out, why := w.call(mc, m.PackAggregate3([]Multicall3Call3{
		{Target: w.kms, CallData: NewDstackKms().PackOwner()},
		{Target: w.kms, AllowFailure: true, CallData: []byte{1, 2, 3, 4}},
	}))
	if why != "" {
		t.Fatal(why)
	}
	res, err := m.UnpackAggregate3(out)
	if err != nil || len(res) != 2 || !res[0].Success || res[1].Success {
		t.Fatalf("%+v, %v", res, err)
	}
	if o, err := NewDstackKms().UnpackOwner(res[0].ReturnData); err != nil || o != addr(w.owner) {
		t.Errorf("owner through multicall: %s, %v", o, err)
	}
	if _, why := w.call(mc, m.PackAggregate3([]Multicall3Call3{{Target: w.kms, CallData: []byte{1, 2, 3, 4}}})); why != "Multicall3: call failed" {
		t.Errorf("a failing call that may not fail: %q", why)
	}
}
