package ethereum

import (
	"github.com/ethereum/go-ethereum/common"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance/ethereum/contracts"
)

// Op is one change of policy. An Op knows how to see whether it is in force
// already, so that doing it twice costs nothing.
type Op struct {
	Name string // for progress: "allow OS image 07a2…"

	app    *cvm.AppID // the contract to call; nil: DstackKms
	data   []byte
	query  []byte // a view call ...
	wanted func(out []byte) bool
}

func boolean(unpack func([]byte) (bool, error), want bool) func([]byte) bool {
	return func(out []byte) bool {
		v, err := unpack(out)
		return err == nil && v == want
	}
}

// AllowOSImage lets VMs boot from an image.
func AllowOSImage(h cvm.ImageHash) Op {
	k := contracts.NewDstackKms()
	return Op{Name: "allow OS image " + h.String(), data: k.PackAddOsImageHash(h),
		query: k.PackAllowedOsImages(h), wanted: boolean(k.UnpackAllowedOsImages, true)}
}

// DenyOSImage takes that back.
func DenyOSImage(h cvm.ImageHash) Op {
	k := contracts.NewDstackKms()
	return Op{Name: "remove OS image " + h.String(), data: k.PackRemoveOsImageHash(h),
		query: k.PackAllowedOsImages(h), wanted: boolean(k.UnpackAllowedOsImages, false)}
}

// AllowKMS lets members with this mr_aggregated hold root secrets.
func AllowKMS(mrAggregated [32]byte) Op {
	k := contracts.NewDstackKms()
	return Op{Name: "allow KMS measurement " + short(mrAggregated), data: k.PackAddKmsAggregatedMr(mrAggregated),
		query: k.PackKmsAllowedAggregatedMrs(mrAggregated), wanted: boolean(k.UnpackKmsAllowedAggregatedMrs, true)}
}

// DenyKMS takes that back.
func DenyKMS(mrAggregated [32]byte) Op {
	k := contracts.NewDstackKms()
	return Op{Name: "remove KMS measurement " + short(mrAggregated), data: k.PackRemoveKmsAggregatedMr(mrAggregated),
		query: k.PackKmsAllowedAggregatedMrs(mrAggregated), wanted: boolean(k.UnpackKmsAllowedAggregatedMrs, false)}
}

// AllowKMSDevice lets KMS members run on a machine.
func AllowKMSDevice(d cvm.DeviceID) Op {
	k := contracts.NewDstackKms()
	return Op{Name: "allow KMS on device " + d.String(), data: k.PackAddKmsDevice(d),
		query: k.PackKmsAllowedDeviceIds(d), wanted: boolean(k.UnpackKmsAllowedDeviceIds, true)}
}

// DenyKMSDevice takes that back.
func DenyKMSDevice(d cvm.DeviceID) Op {
	k := contracts.NewDstackKms()
	return Op{Name: "remove KMS device " + d.String(), data: k.PackRemoveKmsDevice(d),
		query: k.PackKmsAllowedDeviceIds(d), wanted: boolean(k.UnpackKmsAllowedDeviceIds, false)}
}

// SetGateway names the app that terminates TLS: lowercase hex without 0x.
func SetGateway(id cvm.AppID) Op {
	k := contracts.NewDstackKms()
	return Op{Name: "name the gateway app " + id.String(), data: k.PackSetGatewayAppId(id.String()),
		query: k.PackGatewayAppId(), wanted: func(out []byte) bool {
			v, err := k.UnpackGatewayAppId(out)
			return err == nil && v == id.String()
		}}
}

// KMSInfo is the KMS's published identity.
type KMSInfo struct {
	K256PubKey []byte // compressed, 33 bytes
	CAPubKey   []byte // DER SubjectPublicKeyInfo of the root CA
	Quote      []byte
	EventLog   []byte
}

// SetKMSInfo publishes it.
func SetKMSInfo(i KMSInfo) Op {
	k := contracts.NewDstackKms()
	info := contracts.DstackKmsKmsInfo{K256Pubkey: i.K256PubKey, CaPubkey: i.CAPubKey, Quote: i.Quote, Eventlog: i.EventLog}
	return Op{Name: "publish the KMS's identity", data: k.PackSetKmsInfo(info),
		query: k.PackKmsInfo(), wanted: func(out []byte) bool {
			v, err := k.UnpackKmsInfo(out)
			return err == nil && string(v.K256Pubkey) == string(i.K256PubKey) && string(v.CaPubkey) == string(i.CAPubKey) &&
				string(v.Quote) == string(i.Quote) && string(v.Eventlog) == string(i.EventLog)
		}}
}

// RegisterApp makes DstackKms know an app contract that was deployed by hand.
func RegisterApp(id cvm.AppID) Op {
	k := contracts.NewDstackKms()
	return Op{Name: "register app " + id.String(), data: k.PackRegisterApp(common.Address(id)),
		query: k.PackRegisteredApps(common.Address(id)), wanted: boolean(k.UnpackRegisteredApps, true)}
}

// AllowCompose lets an app run a compose hash.
func AllowCompose(app cvm.AppID, h cvm.ComposeHash) Op {
	a := contracts.NewDstackApp()
	return Op{Name: "allow compose hash " + h.String(), app: &app, data: a.PackAddComposeHash(h),
		query: a.PackAllowedComposeHashes(h), wanted: boolean(a.UnpackAllowedComposeHashes, true)}
}

// DenyCompose takes that back: running instances stop within lease and poll (T5).
func DenyCompose(app cvm.AppID, h cvm.ComposeHash) Op {
	a := contracts.NewDstackApp()
	return Op{Name: "remove compose hash " + h.String(), app: &app, data: a.PackRemoveComposeHash(h),
		query: a.PackAllowedComposeHashes(h), wanted: boolean(a.UnpackAllowedComposeHashes, false)}
}

// AllowDevice lets an app run on a machine.
func AllowDevice(app cvm.AppID, d cvm.DeviceID) Op {
	a := contracts.NewDstackApp()
	return Op{Name: "allow device " + d.String(), app: &app, data: a.PackAddDevice(d),
		query: a.PackAllowedDeviceIds(d), wanted: boolean(a.UnpackAllowedDeviceIds, true)}
}

// DenyDevice takes that back.
func DenyDevice(app cvm.AppID, d cvm.DeviceID) Op {
	a := contracts.NewDstackApp()
	return Op{Name: "remove device " + d.String(), app: &app, data: a.PackRemoveDevice(d),
		query: a.PackAllowedDeviceIds(d), wanted: boolean(a.UnpackAllowedDeviceIds, false)}
}

// SetAllowAnyDevice lets an app run on every machine, or on the listed ones only.
func SetAllowAnyDevice(app cvm.AppID, any bool) Op {
	a := contracts.NewDstackApp()
	return Op{Name: "set whether any device may run the app", app: &app, data: a.PackSetAllowAnyDevice(any),
		query: a.PackAllowAnyDevice(), wanted: boolean(a.UnpackAllowAnyDevice, any)}
}

// SetRequireTCB makes an app refuse machines whose TCB is not up to date.
func SetRequireTCB(app cvm.AppID, require bool) Op {
	a := contracts.NewDstackApp()
	return Op{Name: "set whether the TCB must be up to date", app: &app, data: a.PackSetRequireTcbUpToDate(require),
		query: a.PackRequireTcbUpToDate(), wanted: boolean(a.UnpackRequireTcbUpToDate, require)}
}

// DisableUpgrades freezes an app contract's code for ever.
func DisableUpgrades(app cvm.AppID) Op {
	a := contracts.NewDstackApp()
	return Op{Name: "disable upgrades for ever", app: &app, data: a.PackDisableUpgrades()}
}

// TransferApp offers an app to a new owner, who must accept (AcceptApp).
func TransferApp(app cvm.AppID, to common.Address) Op {
	a := contracts.NewDstackApp()
	return Op{Name: "offer the app to " + to.Hex(), app: &app, data: a.PackTransferOwnership(to),
		query: a.PackPendingOwner(), wanted: func(out []byte) bool {
			v, err := a.UnpackPendingOwner(out)
			return err == nil && v == to
		}}
}

// AcceptApp takes over an app that was offered to this wallet.
func AcceptApp(app cvm.AppID) Op {
	return Op{Name: "accept the app", app: &app, data: contracts.NewDstackApp().PackAcceptOwnership()}
}

// TransferKMS offers DstackKms to a new owner, who must accept (AcceptKMS).
func TransferKMS(to common.Address) Op {
	k := contracts.NewDstackKms()
	return Op{Name: "offer DstackKms to " + to.Hex(), data: k.PackTransferOwnership(to),
		query: k.PackPendingOwner(), wanted: func(out []byte) bool {
			v, err := k.UnpackPendingOwner(out)
			return err == nil && v == to
		}}
}

// AcceptKMS takes over DstackKms when it was offered to this wallet.
func AcceptKMS() Op {
	return Op{Name: "accept DstackKms", data: contracts.NewDstackKms().PackAcceptOwnership()}
}

func short(h [32]byte) string { return cvm.ComposeHash(h).String() }
