// Code generated via abigen V2 - DO NOT EDIT.
// This file is a generated binding and any manual changes will be lost.

package contracts

import (
	"bytes"
	"errors"
	"math/big"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/accounts/abi/bind/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
)

// Reference imports to suppress errors if they are not otherwise used.
var (
	_ = bytes.Equal
	_ = errors.New
	_ = big.NewInt
	_ = common.Big1
	_ = types.BloomLookup
	_ = abi.ConvertType
)

// DstackKmsKmsInfo is an auto generated low-level Go binding around an user-defined struct.
type DstackKmsKmsInfo struct {
	K256Pubkey []byte
	CaPubkey   []byte
	Quote      []byte
	Eventlog   []byte
}

// IAppAuthAppBootInfo is an auto generated low-level Go binding around an user-defined struct.
type IAppAuthAppBootInfo struct {
	AppId        common.Address
	ComposeHash  [32]byte
	InstanceId   common.Address
	DeviceId     [32]byte
	MrAggregated [32]byte
	MrSystem     [32]byte
	OsImageHash  [32]byte
	TcbStatus    string
	AdvisoryIds  []string
}

// Multicall3Call is an auto generated low-level Go binding around an user-defined struct.
type Multicall3Call struct {
	Target   common.Address
	CallData []byte
}

// Multicall3Call3 is an auto generated low-level Go binding around an user-defined struct.
type Multicall3Call3 struct {
	Target       common.Address
	AllowFailure bool
	CallData     []byte
}

// Multicall3Result is an auto generated low-level Go binding around an user-defined struct.
type Multicall3Result struct {
	Success    bool
	ReturnData []byte
}

// DstackAppMetaData contains all meta data concerning the DstackApp contract.
var DstackAppMetaData = bind.MetaData{
	ABI: "[{\"inputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"constructor\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"target\",\"type\":\"address\"}],\"name\":\"AddressEmptyCode\",\"type\":\"error\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"implementation\",\"type\":\"address\"}],\"name\":\"ERC1967InvalidImplementation\",\"type\":\"error\"},{\"inputs\":[],\"name\":\"ERC1967NonPayable\",\"type\":\"error\"},{\"inputs\":[],\"name\":\"FailedCall\",\"type\":\"error\"},{\"inputs\":[],\"name\":\"InvalidInitialization\",\"type\":\"error\"},{\"inputs\":[],\"name\":\"NotInitializing\",\"type\":\"error\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"owner\",\"type\":\"address\"}],\"name\":\"OwnableInvalidOwner\",\"type\":\"error\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"account\",\"type\":\"address\"}],\"name\":\"OwnableUnauthorizedAccount\",\"type\":\"error\"},{\"inputs\":[],\"name\":\"UUPSUnauthorizedCallContext\",\"type\":\"error\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"slot\",\"type\":\"bytes32\"}],\"name\":\"UUPSUnsupportedProxiableUUID\",\"type\":\"error\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"bool\",\"name\":\"allowAny\",\"type\":\"bool\"}],\"name\":\"AllowAnyDeviceSet\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"bytes32\",\"name\":\"composeHash\",\"type\":\"bytes32\"}],\"name\":\"ComposeHashAdded\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"bytes32\",\"name\":\"composeHash\",\"type\":\"bytes32\"}],\"name\":\"ComposeHashRemoved\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"bytes32\",\"name\":\"deviceId\",\"type\":\"bytes32\"}],\"name\":\"DeviceAdded\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"bytes32\",\"name\":\"deviceId\",\"type\":\"bytes32\"}],\"name\":\"DeviceRemoved\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"uint64\",\"name\":\"version\",\"type\":\"uint64\"}],\"name\":\"Initialized\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":true,\"internalType\":\"address\",\"name\":\"previousOwner\",\"type\":\"address\"},{\"indexed\":true,\"internalType\":\"address\",\"name\":\"newOwner\",\"type\":\"address\"}],\"name\":\"OwnershipTransferStarted\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":true,\"internalType\":\"address\",\"name\":\"previousOwner\",\"type\":\"address\"},{\"indexed\":true,\"internalType\":\"address\",\"name\":\"newOwner\",\"type\":\"address\"}],\"name\":\"OwnershipTransferred\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":true,\"internalType\":\"address\",\"name\":\"actor\",\"type\":\"address\"},{\"indexed\":true,\"internalType\":\"bytes32\",\"name\":\"policy\",\"type\":\"bytes32\"},{\"indexed\":true,\"internalType\":\"bytes32\",\"name\":\"value\",\"type\":\"bytes32\"},{\"indexed\":false,\"internalType\":\"bool\",\"name\":\"enabled\",\"type\":\"bool\"}],\"name\":\"PolicyChanged\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"bool\",\"name\":\"requireUpToDate\",\"type\":\"bool\"}],\"name\":\"RequireTcbUpToDateSet\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":true,\"internalType\":\"address\",\"name\":\"implementation\",\"type\":\"address\"}],\"name\":\"Upgraded\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[],\"name\":\"UpgradesDisabled\",\"type\":\"event\"},{\"inputs\":[],\"name\":\"UPGRADE_INTERFACE_VERSION\",\"outputs\":[{\"internalType\":\"string\",\"name\":\"\",\"type\":\"string\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"acceptOwnership\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"composeHash\",\"type\":\"bytes32\"}],\"name\":\"addComposeHash\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"deviceId\",\"type\":\"bytes32\"}],\"name\":\"addDevice\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"allowAnyDevice\",\"outputs\":[{\"internalType\":\"bool\",\"name\":\"\",\"type\":\"bool\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"\",\"type\":\"bytes32\"}],\"name\":\"allowedComposeHashes\",\"outputs\":[{\"internalType\":\"bool\",\"name\":\"\",\"type\":\"bool\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"\",\"type\":\"bytes32\"}],\"name\":\"allowedDeviceIds\",\"outputs\":[{\"internalType\":\"bool\",\"name\":\"\",\"type\":\"bool\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"disableUpgrades\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"initialOwner\",\"type\":\"address\"},{\"internalType\":\"bool\",\"name\":\"disableUpgrades_\",\"type\":\"bool\"},{\"internalType\":\"bool\",\"name\":\"allowAnyDevice_\",\"type\":\"bool\"},{\"internalType\":\"bytes32\",\"name\":\"initialDeviceId\",\"type\":\"bytes32\"},{\"internalType\":\"bytes32\",\"name\":\"initialComposeHash\",\"type\":\"bytes32\"}],\"name\":\"initialize\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"initialOwner\",\"type\":\"address\"},{\"internalType\":\"bool\",\"name\":\"disableUpgrades_\",\"type\":\"bool\"},{\"internalType\":\"bool\",\"name\":\"requireTcbUpToDate_\",\"type\":\"bool\"},{\"internalType\":\"bool\",\"name\":\"allowAnyDevice_\",\"type\":\"bool\"},{\"internalType\":\"bytes32\",\"name\":\"initialDeviceId\",\"type\":\"bytes32\"},{\"internalType\":\"bytes32\",\"name\":\"initialComposeHash\",\"type\":\"bytes32\"}],\"name\":\"initialize\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"components\":[{\"internalType\":\"address\",\"name\":\"appId\",\"type\":\"address\"},{\"internalType\":\"bytes32\",\"name\":\"composeHash\",\"type\":\"bytes32\"},{\"internalType\":\"address\",\"name\":\"instanceId\",\"type\":\"address\"},{\"internalType\":\"bytes32\",\"name\":\"deviceId\",\"type\":\"bytes32\"},{\"internalType\":\"bytes32\",\"name\":\"mrAggregated\",\"type\":\"bytes32\"},{\"internalType\":\"bytes32\",\"name\":\"mrSystem\",\"type\":\"bytes32\"},{\"internalType\":\"bytes32\",\"name\":\"osImageHash\",\"type\":\"bytes32\"},{\"internalType\":\"string\",\"name\":\"tcbStatus\",\"type\":\"string\"},{\"internalType\":\"string[]\",\"name\":\"advisoryIds\",\"type\":\"string[]\"}],\"internalType\":\"structIAppAuth.AppBootInfo\",\"name\":\"bootInfo\",\"type\":\"tuple\"}],\"name\":\"isAppAllowed\",\"outputs\":[{\"internalType\":\"bool\",\"name\":\"isAllowed\",\"type\":\"bool\"},{\"internalType\":\"string\",\"name\":\"reason\",\"type\":\"string\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"owner\",\"outputs\":[{\"internalType\":\"address\",\"name\":\"\",\"type\":\"address\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"pendingOwner\",\"outputs\":[{\"internalType\":\"address\",\"name\":\"\",\"type\":\"address\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"proxiableUUID\",\"outputs\":[{\"internalType\":\"bytes32\",\"name\":\"\",\"type\":\"bytes32\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"composeHash\",\"type\":\"bytes32\"}],\"name\":\"removeComposeHash\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"deviceId\",\"type\":\"bytes32\"}],\"name\":\"removeDevice\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"renounceOwnership\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"requireTcbUpToDate\",\"outputs\":[{\"internalType\":\"bool\",\"name\":\"\",\"type\":\"bool\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bool\",\"name\":\"allowAny\",\"type\":\"bool\"}],\"name\":\"setAllowAnyDevice\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bool\",\"name\":\"requireUpToDate\",\"type\":\"bool\"}],\"name\":\"setRequireTcbUpToDate\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes4\",\"name\":\"interfaceId\",\"type\":\"bytes4\"}],\"name\":\"supportsInterface\",\"outputs\":[{\"internalType\":\"bool\",\"name\":\"\",\"type\":\"bool\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"newOwner\",\"type\":\"address\"}],\"name\":\"transferOwnership\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"newImplementation\",\"type\":\"address\"},{\"internalType\":\"bytes\",\"name\":\"data\",\"type\":\"bytes\"}],\"name\":\"upgradeToAndCall\",\"outputs\":[],\"stateMutability\":\"payable\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"version\",\"outputs\":[{\"internalType\":\"uint256\",\"name\":\"\",\"type\":\"uint256\"}],\"stateMutability\":\"pure\",\"type\":\"function\"}]",
	ID:  "DstackApp",
	Bin: "0x60a060405230608052348015610013575f5ffd5b5061001c610021565b6100d3565b7ff0c57e16840df040f15088dc2f81fe391c3923bec73e23a9662efc9c229c6a00805468010000000000000000900460ff16156100715760405163f92ee8a960e01b815260040160405180910390fd5b80546001600160401b03908116146100d05780546001600160401b0319166001600160401b0390811782556040519081527fc7f505b2f371ae2175ee4913f4499e1f2633a7b5936321eed1cdaeb6115181d29060200160405180910390a15b50565b6080516119916100f95f395f81816110e70152818161111001526112fe01526119915ff3fe608060405260043610610147575f3560e01c80636e4c7422116100b3578063ad3cb1cc1161006d578063ad3cb1cc14610388578063bf8b211b146103c5578063dfc77223146103f3578063e30c397814610412578063ec66903614610426578063f2fde38b1461043a575f5ffd5b80636e4c7422146102d7578063715018a6146102f657806379ba50971461030a5780637c4beeb81461031e5780638da5cb5b1461033d5780639ed2819314610369575f5ffd5b80632f6622e5116101045780632f6622e5146102245780633440a16a146102525780634f1ef2861461027057806352d1902d1461028357806354fd4d50146102a557806367b3f22c146102b8575f5ffd5b806301ffc9a71461014b5780630aa58c831461017f578063187515ca146101985780631d266200146101b95780631e079198146101d85780632a81972814610205575b5f5ffd5b348015610156575f5ffd5b5061016a61016536600461161a565b610459565b60405190151581526020015b60405180910390f35b34801561018a575f5ffd5b5060035461016a9060ff1681565b3480156101a3575f5ffd5b506101b76101b2366004611672565b6104aa565b005b3480156101c4575f5ffd5b506101b76101d33660046116c3565b6105ac565b3480156101e3575f5ffd5b506101f76101f23660046116da565b61064d565b604051610176929190611740565b348015610210575f5ffd5b506101b761021f3660046116c3565b6107b9565b34801561022f575f5ffd5b5061016a61023e3660046116c3565b5f6020819052908152604090205460ff1681565b34801561025d575f5ffd5b5060015461016a90610100900460ff1681565b6101b761027e366004611776565b610857565b34801561028e575f5ffd5b50610297610876565b604051908152602001610176565b3480156102b0575f5ffd5b506002610297565b3480156102c3575f5ffd5b506101b76102d23660046116c3565b610891565b3480156102e2575f5ffd5b506101b76102f136600461183a565b610923565b348015610301575f5ffd5b506101b76109b4565b348015610315575f5ffd5b506101b76109c7565b348015610329575f5ffd5b506101b761033836600461183a565b610a14565b348015610348575f5ffd5b50610351610ab2565b6040516001600160a01b039091168152602001610176565b348015610374575f5ffd5b506101b7610383366004611853565b610ae6565b348015610393575f5ffd5b506103b8604051806040016040528060058152602001640352e302e360dc1b81525081565b60405161017691906118b5565b3480156103d0575f5ffd5b5061016a6103df3660046116c3565b60026020525f908152604090205460ff1681565b3480156103fe575f5ffd5b506101b761040d3660046116c3565b610be9565b34801561041d575f5ffd5b50610351610c87565b348015610431575f5ffd5b506101b7610caf565b348015610445575f5ffd5b506101b76104543660046118c7565b610d34565b5f6303c0f23360e31b6001600160e01b0319831614806104895750638fd3752760e01b6001600160e01b03198316145b806104a457506301ffc9a760e01b6001600160e01b03198316145b92915050565b5f6104b3610db9565b805490915060ff600160401b820416159067ffffffffffffffff165f811580156104da5750825b90505f8267ffffffffffffffff1660011480156104f65750303b155b905081158015610504575080155b156105225760405163f92ee8a960e01b815260040160405180910390fd5b845467ffffffffffffffff19166001178555831561054c57845460ff60401b1916600160401b1785555b61055a8a8a5f8b8b8b610de1565b83156105a057845460ff60401b19168555604051600181527fc7f505b2f371ae2175ee4913f4499e1f2633a7b5936321eed1cdaeb6115181d29060200160405180910390a15b50505050505050505050565b6105b46110aa565b5f8181526002602052604090819020805460ff19169055517fe0862975ac517b0478d308012afabc4bc37c23874a18144d7f2dfb852ff95c2c906105fb9083815260200190565b60405180910390a16040515f815281907f8e7eff7e4a57bd436b18f220111863326b17773a8b4460f9fabd87a3342330469033905f5160206119515f395f51905f52906020015b60405180910390a450565b6003545f9060609060ff1680156106a657507f8dd11fcce5839087111530125177803569655488ae47b1f980ef0b1a711bf07c61068d60e08501856118e0565b60405161069b92919061192a565b604051809103902014155b156106e857505060408051808201909152601c81527f54434220737461747573206973206e6f7420757020746f20646174650000000060208201525f92909150565b6020808401355f90815290819052604090205460ff1661073f57505060408051808201909152601881527f436f6d706f73652068617368206e6f7420616c6c6f776564000000000000000060208201525f92909150565b600154610100900460ff1615801561076a575060608301355f9081526002602052604090205460ff16155b156107a157505060408051808201909152601281527111195d9a58d9481b9bdd08185b1b1bddd95960721b60208201525f92909150565b505060408051602081019091525f8152600192909150565b6107c16110aa565b5f8181526002602052604090819020805460ff19166001179055517f67fc71ab96fe3fa3c6f78e9a00e635d591b7333ce611c0380bc577aac702243b9061080b9083815260200190565b60405180910390a16040516001815281907f8e7eff7e4a57bd436b18f220111863326b17773a8b4460f9fabd87a3342330469033905f5160206119515f395f51905f5290602001610642565b61085f6110dc565b61086882611180565b6108728282611232565b5050565b5f61087f6112f3565b505f5160206119715f395f51905f5290565b6108996110aa565b5f8181526020818152604091829020805460ff1916905590518281527f755b79bd4b0eeab344d032284a99003b2ddc018b646752ac72d681593a6e8947910160405180910390a16040515f815281907f56bdf4352a9ceb1ba8f5c68066725c095e69c1d3f8a437290f0ac1da8fb4e19c9033905f5160206119515f395f51905f5290602001610642565b61092b6110aa565b6003805460ff19168215159081179091556040519081527fafae60561b2481a349b45b3a47357f70eef6ae67e5b6e1749d74de7f19a25aa19060200160405180910390a160405181151581525f907feb206ee4e1c06549322091bfcf2a5ff8658edc40901aa7f3af6f571a159471fb9033905f5160206119515f395f51905f5290602001610642565b6109bc6110aa565b6109c55f61133c565b565b33806109d1610c87565b6001600160a01b031614610a085760405163118cdaa760e01b81526001600160a01b03821660048201526024015b60405180910390fd5b610a118161133c565b50565b610a1c6110aa565b600180548215156101000261ff00199091161790556040517fbb2cdb6c7b362202d40373f87bc4788301cca658f91711ac1662e1ad2cba4a2090610a6590831515815260200190565b60405180910390a160405181151581525f907f560720bbc77afadfad8faeab0a79cf66b13e5433c09dd9182d5d36413084a84e9033905f5160206119515f395f51905f5290602001610642565b5f807f9016d09d72d40fdae2fd8ceac6b6234c7706214fd39c1cd1e609a0528c1993005b546001600160a01b031692915050565b5f610aef610db9565b805490915060ff600160401b820416159067ffffffffffffffff165f81158015610b165750825b90505f8267ffffffffffffffff166001148015610b325750303b155b905081158015610b40575080155b15610b5e5760405163f92ee8a960e01b815260040160405180910390fd5b845467ffffffffffffffff191660011785558315610b8857845460ff60401b1916600160401b1785555b610b968b8b8b8b8b8b610de1565b8315610bdc57845460ff60401b19168555604051600181527fc7f505b2f371ae2175ee4913f4499e1f2633a7b5936321eed1cdaeb6115181d29060200160405180910390a15b5050505050505050505050565b610bf16110aa565b5f8181526020819052604090819020805460ff19166001179055517ffecb34306dd9d8b785b54d65489d06afc8822a0893ddacedff40c50a4942d0af90610c3b9083815260200190565b60405180910390a16040516001815281907f56bdf4352a9ceb1ba8f5c68066725c095e69c1d3f8a437290f0ac1da8fb4e19c9033905f5160206119515f395f51905f5290602001610642565b5f807f237e158222e3e6968b72b9db0d8043aacf074ad9f650f0d1606b4d82ee432c00610ad6565b610cb76110aa565b6001805460ff1916811790556040517f0e5daa943fcd7e7182d0e893d180695c2ea9f6f1b4a1c5432faf14cf17b774e8905f90a1604051600181525f907ff6943036509aad7f2319e01f7ed528873bcbdaaf6d25921b03e395124e6a46d39033905f5160206119515f395f51905f529060200160405180910390a4565b610d3c6110aa565b7f237e158222e3e6968b72b9db0d8043aacf074ad9f650f0d1606b4d82ee432c0080546001600160a01b0319166001600160a01b0383169081178255610d80610ab2565b6001600160a01b03167f38d16b8cac22d99fc7c124b9cd0de2d3fa1faef420bfe791d8c362d765e2270060405160405180910390a35050565b5f807ff0c57e16840df040f15088dc2f81fe391c3923bec73e23a9662efc9c229c6a006104a4565b6001600160a01b038616610e2f5760405162461bcd60e51b8152602060048201526015602482015274496e76616c6964206f776e6572206164647265737360581b60448201526064016109ff565b610e3886611374565b610e40611385565b610e48611385565b6001805460ff19168615801591909117909155610ea757604051600181525f907ff6943036509aad7f2319e01f7ed528873bcbdaaf6d25921b03e395124e6a46d39033905f5160206119515f395f51905f529060200160405180910390a45b6003805460ff19168515159081179091556040519081525f907feb206ee4e1c06549322091bfcf2a5ff8658edc40901aa7f3af6f571a159471fb9033905f5160206119515f395f51905f529060200160405180910390a4600180548415156101000261ff00199091161790556040515f907f560720bbc77afadfad8faeab0a79cf66b13e5433c09dd9182d5d36413084a84e9033905f5160206119515f395f51905f5290610f5a90881515815260200190565b60405180910390a48115611002575f8281526002602052604090819020805460ff19166001179055517f67fc71ab96fe3fa3c6f78e9a00e635d591b7333ce611c0380bc577aac702243b90610fb29084815260200190565b60405180910390a16040516001815282907f8e7eff7e4a57bd436b18f220111863326b17773a8b4460f9fabd87a3342330469033905f5160206119515f395f51905f529060200160405180910390a45b80156110a2575f8181526020819052604090819020805460ff19166001179055517ffecb34306dd9d8b785b54d65489d06afc8822a0893ddacedff40c50a4942d0af906110529083815260200190565b60405180910390a16040516001815281907f56bdf4352a9ceb1ba8f5c68066725c095e69c1d3f8a437290f0ac1da8fb4e19c9033905f5160206119515f395f51905f529060200160405180910390a45b505050505050565b336110b3610ab2565b6001600160a01b0316146109c55760405163118cdaa760e01b81523360048201526024016109ff565b306001600160a01b037f000000000000000000000000000000000000000000000000000000000000000016148061116257507f00000000000000000000000000000000000000000000000000000000000000006001600160a01b03166111565f5160206119715f395f51905f52546001600160a01b031690565b6001600160a01b031614155b156109c55760405163703e46dd60e11b815260040160405180910390fd5b6111886110aa565b60015460ff16156111e55760405162461bcd60e51b815260206004820152602160248201527f557067726164657320617265207065726d616e656e746c792064697361626c656044820152601960fa1b60648201526084016109ff565b604051600181526001600160a01b038216907fdd3079240d4e002c905dcbcaf6b06d77e782afb127bbb837120b8c7fc6703da39033905f5160206119515f395f51905f5290602001610642565b816001600160a01b03166352d1902d6040518163ffffffff1660e01b8152600401602060405180830381865afa92505050801561128c575060408051601f3d908101601f1916820190925261128991810190611939565b60015b6112b457604051634c9c8ce360e01b81526001600160a01b03831660048201526024016109ff565b5f5160206119715f395f51905f5281146112e457604051632a87526960e21b8152600481018290526024016109ff565b6112ee838361138d565b505050565b306001600160a01b037f000000000000000000000000000000000000000000000000000000000000000016146109c55760405163703e46dd60e11b815260040160405180910390fd5b7f237e158222e3e6968b72b9db0d8043aacf074ad9f650f0d1606b4d82ee432c0080546001600160a01b0319168155610872826113e2565b61137c611452565b610a1181611477565b6109c5611452565b611396826114a8565b6040516001600160a01b038316907fbc7cd75a20ee27fd9adebab32041f755214dbc6bffa90cc0225b39da2e5c2d3b905f90a28051156113da576112ee828261150b565b6108726115ab565b7f9016d09d72d40fdae2fd8ceac6b6234c7706214fd39c1cd1e609a0528c19930080546001600160a01b031981166001600160a01b03848116918217845560405192169182907f8be0079c531659141344cd1fd0a4f28419497f9722a3daafe3b4186f6b6457e0905f90a3505050565b61145a6115ca565b6109c557604051631afcd79f60e31b815260040160405180910390fd5b61147f611452565b6001600160a01b038116610a0857604051631e4fbdf760e01b81525f60048201526024016109ff565b806001600160a01b03163b5f036114dd57604051634c9c8ce360e01b81526001600160a01b03821660048201526024016109ff565b5f5160206119715f395f51905f5280546001600160a01b0319166001600160a01b0392909216919091179055565b60605f61151884846115e3565b905080801561153957505f3d118061153957505f846001600160a01b03163b115b1561154e576115466115f6565b9150506104a4565b801561157857604051639996b31560e01b81526001600160a01b03851660048201526024016109ff565b3d1561158b5761158661160f565b6115a4565b60405163d6bda27560e01b815260040160405180910390fd5b5092915050565b34156109c55760405163b398979f60e01b815260040160405180910390fd5b5f6115d3610db9565b54600160401b900460ff16919050565b5f5f5f835160208501865af49392505050565b6040513d81523d5f602083013e3d602001810160405290565b6040513d5f823e3d81fd5b5f6020828403121561162a575f5ffd5b81356001600160e01b031981168114611641575f5ffd5b9392505050565b80356001600160a01b038116811461165e575f5ffd5b919050565b8035801515811461165e575f5ffd5b5f5f5f5f5f60a08688031215611686575f5ffd5b61168f86611648565b945061169d60208701611663565b93506116ab60408701611663565b94979396509394606081013594506080013592915050565b5f602082840312156116d3575f5ffd5b5035919050565b5f602082840312156116ea575f5ffd5b813567ffffffffffffffff811115611700575f5ffd5b82016101208185031215611641575f5ffd5b5f81518084528060208401602086015e5f602082860101526020601f19601f83011685010191505092915050565b8215158152604060208201525f61175a6040830184611712565b949350505050565b634e487b7160e01b5f52604160045260245ffd5b5f5f60408385031215611787575f5ffd5b61179083611648565b9150602083013567ffffffffffffffff8111156117ab575f5ffd5b8301601f810185136117bb575f5ffd5b803567ffffffffffffffff8111156117d5576117d5611762565b604051601f8201601f19908116603f0116810167ffffffffffffffff8111828210171561180457611804611762565b60405281815282820160200187101561181b575f5ffd5b816020840160208301375f602083830101528093505050509250929050565b5f6020828403121561184a575f5ffd5b61164182611663565b5f5f5f5f5f5f60c08789031215611868575f5ffd5b61187187611648565b955061187f60208801611663565b945061188d60408801611663565b935061189b60608801611663565b9598949750929560808101359460a0909101359350915050565b602081525f6116416020830184611712565b5f602082840312156118d7575f5ffd5b61164182611648565b5f5f8335601e198436030181126118f5575f5ffd5b83018035915067ffffffffffffffff82111561190f575f5ffd5b602001915036819003821315611923575f5ffd5b9250929050565b818382375f9101908152919050565b5f60208284031215611949575f5ffd5b505191905056fe341d3bc64e32172fc5bcf27b0f7f69dc5adc19af64b7aa1dee361e5883c32375360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc",
}

// DstackApp is an auto generated Go binding around an Ethereum contract.
type DstackApp struct {
	abi abi.ABI
}

// NewDstackApp creates a new instance of DstackApp.
func NewDstackApp() *DstackApp {
	parsed, err := DstackAppMetaData.ParseABI()
	if err != nil {
		panic(errors.New("invalid ABI: " + err.Error()))
	}
	return &DstackApp{abi: *parsed}
}

// Instance creates a wrapper for a deployed contract instance at the given address.
// Use this to create the instance object passed to abigen v2 library functions Call, Transact, etc.
func (c *DstackApp) Instance(backend bind.ContractBackend, addr common.Address) *bind.BoundContract {
	return bind.NewBoundContract(addr, c.abi, backend, backend, backend)
}

// PackUPGRADEINTERFACEVERSION is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xad3cb1cc.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function UPGRADE_INTERFACE_VERSION() view returns(string)
func (dstackApp *DstackApp) PackUPGRADEINTERFACEVERSION() []byte {
	enc, err := dstackApp.abi.Pack("UPGRADE_INTERFACE_VERSION")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackUPGRADEINTERFACEVERSION is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xad3cb1cc.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function UPGRADE_INTERFACE_VERSION() view returns(string)
func (dstackApp *DstackApp) TryPackUPGRADEINTERFACEVERSION() ([]byte, error) {
	return dstackApp.abi.Pack("UPGRADE_INTERFACE_VERSION")
}

// UnpackUPGRADEINTERFACEVERSION is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0xad3cb1cc.
//
// Solidity: function UPGRADE_INTERFACE_VERSION() view returns(string)
func (dstackApp *DstackApp) UnpackUPGRADEINTERFACEVERSION(data []byte) (string, error) {
	out, err := dstackApp.abi.Unpack("UPGRADE_INTERFACE_VERSION", data)
	if err != nil {
		return *new(string), err
	}
	out0 := *abi.ConvertType(out[0], new(string)).(*string)
	return out0, nil
}

// PackAcceptOwnership is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x79ba5097.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function acceptOwnership() returns()
func (dstackApp *DstackApp) PackAcceptOwnership() []byte {
	enc, err := dstackApp.abi.Pack("acceptOwnership")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackAcceptOwnership is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x79ba5097.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function acceptOwnership() returns()
func (dstackApp *DstackApp) TryPackAcceptOwnership() ([]byte, error) {
	return dstackApp.abi.Pack("acceptOwnership")
}

// PackAddComposeHash is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xdfc77223.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function addComposeHash(bytes32 composeHash) returns()
func (dstackApp *DstackApp) PackAddComposeHash(composeHash [32]byte) []byte {
	enc, err := dstackApp.abi.Pack("addComposeHash", composeHash)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackAddComposeHash is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xdfc77223.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function addComposeHash(bytes32 composeHash) returns()
func (dstackApp *DstackApp) TryPackAddComposeHash(composeHash [32]byte) ([]byte, error) {
	return dstackApp.abi.Pack("addComposeHash", composeHash)
}

// PackAddDevice is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x2a819728.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function addDevice(bytes32 deviceId) returns()
func (dstackApp *DstackApp) PackAddDevice(deviceId [32]byte) []byte {
	enc, err := dstackApp.abi.Pack("addDevice", deviceId)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackAddDevice is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x2a819728.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function addDevice(bytes32 deviceId) returns()
func (dstackApp *DstackApp) TryPackAddDevice(deviceId [32]byte) ([]byte, error) {
	return dstackApp.abi.Pack("addDevice", deviceId)
}

// PackAllowAnyDevice is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x3440a16a.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function allowAnyDevice() view returns(bool)
func (dstackApp *DstackApp) PackAllowAnyDevice() []byte {
	enc, err := dstackApp.abi.Pack("allowAnyDevice")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackAllowAnyDevice is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x3440a16a.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function allowAnyDevice() view returns(bool)
func (dstackApp *DstackApp) TryPackAllowAnyDevice() ([]byte, error) {
	return dstackApp.abi.Pack("allowAnyDevice")
}

// UnpackAllowAnyDevice is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x3440a16a.
//
// Solidity: function allowAnyDevice() view returns(bool)
func (dstackApp *DstackApp) UnpackAllowAnyDevice(data []byte) (bool, error) {
	out, err := dstackApp.abi.Unpack("allowAnyDevice", data)
	if err != nil {
		return *new(bool), err
	}
	out0 := *abi.ConvertType(out[0], new(bool)).(*bool)
	return out0, nil
}

// PackAllowedComposeHashes is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x2f6622e5.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function allowedComposeHashes(bytes32 ) view returns(bool)
func (dstackApp *DstackApp) PackAllowedComposeHashes(arg0 [32]byte) []byte {
	enc, err := dstackApp.abi.Pack("allowedComposeHashes", arg0)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackAllowedComposeHashes is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x2f6622e5.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function allowedComposeHashes(bytes32 ) view returns(bool)
func (dstackApp *DstackApp) TryPackAllowedComposeHashes(arg0 [32]byte) ([]byte, error) {
	return dstackApp.abi.Pack("allowedComposeHashes", arg0)
}

// UnpackAllowedComposeHashes is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x2f6622e5.
//
// Solidity: function allowedComposeHashes(bytes32 ) view returns(bool)
func (dstackApp *DstackApp) UnpackAllowedComposeHashes(data []byte) (bool, error) {
	out, err := dstackApp.abi.Unpack("allowedComposeHashes", data)
	if err != nil {
		return *new(bool), err
	}
	out0 := *abi.ConvertType(out[0], new(bool)).(*bool)
	return out0, nil
}

// PackAllowedDeviceIds is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xbf8b211b.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function allowedDeviceIds(bytes32 ) view returns(bool)
func (dstackApp *DstackApp) PackAllowedDeviceIds(arg0 [32]byte) []byte {
	enc, err := dstackApp.abi.Pack("allowedDeviceIds", arg0)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackAllowedDeviceIds is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xbf8b211b.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function allowedDeviceIds(bytes32 ) view returns(bool)
func (dstackApp *DstackApp) TryPackAllowedDeviceIds(arg0 [32]byte) ([]byte, error) {
	return dstackApp.abi.Pack("allowedDeviceIds", arg0)
}

// UnpackAllowedDeviceIds is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0xbf8b211b.
//
// Solidity: function allowedDeviceIds(bytes32 ) view returns(bool)
func (dstackApp *DstackApp) UnpackAllowedDeviceIds(data []byte) (bool, error) {
	out, err := dstackApp.abi.Unpack("allowedDeviceIds", data)
	if err != nil {
		return *new(bool), err
	}
	out0 := *abi.ConvertType(out[0], new(bool)).(*bool)
	return out0, nil
}

// PackDisableUpgrades is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xec669036.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function disableUpgrades() returns()
func (dstackApp *DstackApp) PackDisableUpgrades() []byte {
	enc, err := dstackApp.abi.Pack("disableUpgrades")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackDisableUpgrades is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xec669036.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function disableUpgrades() returns()
func (dstackApp *DstackApp) TryPackDisableUpgrades() ([]byte, error) {
	return dstackApp.abi.Pack("disableUpgrades")
}

// PackInitialize is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x187515ca.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function initialize(address initialOwner, bool disableUpgrades_, bool allowAnyDevice_, bytes32 initialDeviceId, bytes32 initialComposeHash) returns()
func (dstackApp *DstackApp) PackInitialize(initialOwner common.Address, disableUpgrades bool, allowAnyDevice bool, initialDeviceId [32]byte, initialComposeHash [32]byte) []byte {
	enc, err := dstackApp.abi.Pack("initialize", initialOwner, disableUpgrades, allowAnyDevice, initialDeviceId, initialComposeHash)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackInitialize is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x187515ca.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function initialize(address initialOwner, bool disableUpgrades_, bool allowAnyDevice_, bytes32 initialDeviceId, bytes32 initialComposeHash) returns()
func (dstackApp *DstackApp) TryPackInitialize(initialOwner common.Address, disableUpgrades bool, allowAnyDevice bool, initialDeviceId [32]byte, initialComposeHash [32]byte) ([]byte, error) {
	return dstackApp.abi.Pack("initialize", initialOwner, disableUpgrades, allowAnyDevice, initialDeviceId, initialComposeHash)
}

// PackInitialize0 is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x9ed28193.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function initialize(address initialOwner, bool disableUpgrades_, bool requireTcbUpToDate_, bool allowAnyDevice_, bytes32 initialDeviceId, bytes32 initialComposeHash) returns()
func (dstackApp *DstackApp) PackInitialize0(initialOwner common.Address, disableUpgrades bool, requireTcbUpToDate bool, allowAnyDevice bool, initialDeviceId [32]byte, initialComposeHash [32]byte) []byte {
	enc, err := dstackApp.abi.Pack("initialize0", initialOwner, disableUpgrades, requireTcbUpToDate, allowAnyDevice, initialDeviceId, initialComposeHash)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackInitialize0 is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x9ed28193.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function initialize(address initialOwner, bool disableUpgrades_, bool requireTcbUpToDate_, bool allowAnyDevice_, bytes32 initialDeviceId, bytes32 initialComposeHash) returns()
func (dstackApp *DstackApp) TryPackInitialize0(initialOwner common.Address, disableUpgrades bool, requireTcbUpToDate bool, allowAnyDevice bool, initialDeviceId [32]byte, initialComposeHash [32]byte) ([]byte, error) {
	return dstackApp.abi.Pack("initialize0", initialOwner, disableUpgrades, requireTcbUpToDate, allowAnyDevice, initialDeviceId, initialComposeHash)
}

// PackIsAppAllowed is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x1e079198.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function isAppAllowed((address,bytes32,address,bytes32,bytes32,bytes32,bytes32,string,string[]) bootInfo) view returns(bool isAllowed, string reason)
func (dstackApp *DstackApp) PackIsAppAllowed(bootInfo IAppAuthAppBootInfo) []byte {
	enc, err := dstackApp.abi.Pack("isAppAllowed", bootInfo)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackIsAppAllowed is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x1e079198.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function isAppAllowed((address,bytes32,address,bytes32,bytes32,bytes32,bytes32,string,string[]) bootInfo) view returns(bool isAllowed, string reason)
func (dstackApp *DstackApp) TryPackIsAppAllowed(bootInfo IAppAuthAppBootInfo) ([]byte, error) {
	return dstackApp.abi.Pack("isAppAllowed", bootInfo)
}

// IsAppAllowedOutput serves as a container for the return parameters of contract
// method IsAppAllowed.
type IsAppAllowedOutput struct {
	IsAllowed bool
	Reason    string
}

// UnpackIsAppAllowed is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x1e079198.
//
// Solidity: function isAppAllowed((address,bytes32,address,bytes32,bytes32,bytes32,bytes32,string,string[]) bootInfo) view returns(bool isAllowed, string reason)
func (dstackApp *DstackApp) UnpackIsAppAllowed(data []byte) (IsAppAllowedOutput, error) {
	out, err := dstackApp.abi.Unpack("isAppAllowed", data)
	outstruct := new(IsAppAllowedOutput)
	if err != nil {
		return *outstruct, err
	}
	outstruct.IsAllowed = *abi.ConvertType(out[0], new(bool)).(*bool)
	outstruct.Reason = *abi.ConvertType(out[1], new(string)).(*string)
	return *outstruct, nil
}

// PackOwner is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x8da5cb5b.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function owner() view returns(address)
func (dstackApp *DstackApp) PackOwner() []byte {
	enc, err := dstackApp.abi.Pack("owner")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackOwner is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x8da5cb5b.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function owner() view returns(address)
func (dstackApp *DstackApp) TryPackOwner() ([]byte, error) {
	return dstackApp.abi.Pack("owner")
}

// UnpackOwner is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x8da5cb5b.
//
// Solidity: function owner() view returns(address)
func (dstackApp *DstackApp) UnpackOwner(data []byte) (common.Address, error) {
	out, err := dstackApp.abi.Unpack("owner", data)
	if err != nil {
		return *new(common.Address), err
	}
	out0 := *abi.ConvertType(out[0], new(common.Address)).(*common.Address)
	return out0, nil
}

// PackPendingOwner is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xe30c3978.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function pendingOwner() view returns(address)
func (dstackApp *DstackApp) PackPendingOwner() []byte {
	enc, err := dstackApp.abi.Pack("pendingOwner")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackPendingOwner is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xe30c3978.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function pendingOwner() view returns(address)
func (dstackApp *DstackApp) TryPackPendingOwner() ([]byte, error) {
	return dstackApp.abi.Pack("pendingOwner")
}

// UnpackPendingOwner is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0xe30c3978.
//
// Solidity: function pendingOwner() view returns(address)
func (dstackApp *DstackApp) UnpackPendingOwner(data []byte) (common.Address, error) {
	out, err := dstackApp.abi.Unpack("pendingOwner", data)
	if err != nil {
		return *new(common.Address), err
	}
	out0 := *abi.ConvertType(out[0], new(common.Address)).(*common.Address)
	return out0, nil
}

// PackProxiableUUID is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x52d1902d.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function proxiableUUID() view returns(bytes32)
func (dstackApp *DstackApp) PackProxiableUUID() []byte {
	enc, err := dstackApp.abi.Pack("proxiableUUID")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackProxiableUUID is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x52d1902d.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function proxiableUUID() view returns(bytes32)
func (dstackApp *DstackApp) TryPackProxiableUUID() ([]byte, error) {
	return dstackApp.abi.Pack("proxiableUUID")
}

// UnpackProxiableUUID is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x52d1902d.
//
// Solidity: function proxiableUUID() view returns(bytes32)
func (dstackApp *DstackApp) UnpackProxiableUUID(data []byte) ([32]byte, error) {
	out, err := dstackApp.abi.Unpack("proxiableUUID", data)
	if err != nil {
		return *new([32]byte), err
	}
	out0 := *abi.ConvertType(out[0], new([32]byte)).(*[32]byte)
	return out0, nil
}

// PackRemoveComposeHash is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x67b3f22c.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function removeComposeHash(bytes32 composeHash) returns()
func (dstackApp *DstackApp) PackRemoveComposeHash(composeHash [32]byte) []byte {
	enc, err := dstackApp.abi.Pack("removeComposeHash", composeHash)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackRemoveComposeHash is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x67b3f22c.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function removeComposeHash(bytes32 composeHash) returns()
func (dstackApp *DstackApp) TryPackRemoveComposeHash(composeHash [32]byte) ([]byte, error) {
	return dstackApp.abi.Pack("removeComposeHash", composeHash)
}

// PackRemoveDevice is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x1d266200.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function removeDevice(bytes32 deviceId) returns()
func (dstackApp *DstackApp) PackRemoveDevice(deviceId [32]byte) []byte {
	enc, err := dstackApp.abi.Pack("removeDevice", deviceId)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackRemoveDevice is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x1d266200.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function removeDevice(bytes32 deviceId) returns()
func (dstackApp *DstackApp) TryPackRemoveDevice(deviceId [32]byte) ([]byte, error) {
	return dstackApp.abi.Pack("removeDevice", deviceId)
}

// PackRenounceOwnership is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x715018a6.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function renounceOwnership() returns()
func (dstackApp *DstackApp) PackRenounceOwnership() []byte {
	enc, err := dstackApp.abi.Pack("renounceOwnership")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackRenounceOwnership is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x715018a6.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function renounceOwnership() returns()
func (dstackApp *DstackApp) TryPackRenounceOwnership() ([]byte, error) {
	return dstackApp.abi.Pack("renounceOwnership")
}

// PackRequireTcbUpToDate is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x0aa58c83.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function requireTcbUpToDate() view returns(bool)
func (dstackApp *DstackApp) PackRequireTcbUpToDate() []byte {
	enc, err := dstackApp.abi.Pack("requireTcbUpToDate")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackRequireTcbUpToDate is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x0aa58c83.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function requireTcbUpToDate() view returns(bool)
func (dstackApp *DstackApp) TryPackRequireTcbUpToDate() ([]byte, error) {
	return dstackApp.abi.Pack("requireTcbUpToDate")
}

// UnpackRequireTcbUpToDate is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x0aa58c83.
//
// Solidity: function requireTcbUpToDate() view returns(bool)
func (dstackApp *DstackApp) UnpackRequireTcbUpToDate(data []byte) (bool, error) {
	out, err := dstackApp.abi.Unpack("requireTcbUpToDate", data)
	if err != nil {
		return *new(bool), err
	}
	out0 := *abi.ConvertType(out[0], new(bool)).(*bool)
	return out0, nil
}

// PackSetAllowAnyDevice is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x7c4beeb8.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function setAllowAnyDevice(bool allowAny) returns()
func (dstackApp *DstackApp) PackSetAllowAnyDevice(allowAny bool) []byte {
	enc, err := dstackApp.abi.Pack("setAllowAnyDevice", allowAny)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackSetAllowAnyDevice is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x7c4beeb8.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function setAllowAnyDevice(bool allowAny) returns()
func (dstackApp *DstackApp) TryPackSetAllowAnyDevice(allowAny bool) ([]byte, error) {
	return dstackApp.abi.Pack("setAllowAnyDevice", allowAny)
}

// PackSetRequireTcbUpToDate is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x6e4c7422.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function setRequireTcbUpToDate(bool requireUpToDate) returns()
func (dstackApp *DstackApp) PackSetRequireTcbUpToDate(requireUpToDate bool) []byte {
	enc, err := dstackApp.abi.Pack("setRequireTcbUpToDate", requireUpToDate)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackSetRequireTcbUpToDate is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x6e4c7422.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function setRequireTcbUpToDate(bool requireUpToDate) returns()
func (dstackApp *DstackApp) TryPackSetRequireTcbUpToDate(requireUpToDate bool) ([]byte, error) {
	return dstackApp.abi.Pack("setRequireTcbUpToDate", requireUpToDate)
}

// PackSupportsInterface is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x01ffc9a7.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function supportsInterface(bytes4 interfaceId) view returns(bool)
func (dstackApp *DstackApp) PackSupportsInterface(interfaceId [4]byte) []byte {
	enc, err := dstackApp.abi.Pack("supportsInterface", interfaceId)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackSupportsInterface is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x01ffc9a7.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function supportsInterface(bytes4 interfaceId) view returns(bool)
func (dstackApp *DstackApp) TryPackSupportsInterface(interfaceId [4]byte) ([]byte, error) {
	return dstackApp.abi.Pack("supportsInterface", interfaceId)
}

// UnpackSupportsInterface is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x01ffc9a7.
//
// Solidity: function supportsInterface(bytes4 interfaceId) view returns(bool)
func (dstackApp *DstackApp) UnpackSupportsInterface(data []byte) (bool, error) {
	out, err := dstackApp.abi.Unpack("supportsInterface", data)
	if err != nil {
		return *new(bool), err
	}
	out0 := *abi.ConvertType(out[0], new(bool)).(*bool)
	return out0, nil
}

// PackTransferOwnership is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xf2fde38b.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function transferOwnership(address newOwner) returns()
func (dstackApp *DstackApp) PackTransferOwnership(newOwner common.Address) []byte {
	enc, err := dstackApp.abi.Pack("transferOwnership", newOwner)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackTransferOwnership is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xf2fde38b.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function transferOwnership(address newOwner) returns()
func (dstackApp *DstackApp) TryPackTransferOwnership(newOwner common.Address) ([]byte, error) {
	return dstackApp.abi.Pack("transferOwnership", newOwner)
}

// PackUpgradeToAndCall is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x4f1ef286.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function upgradeToAndCall(address newImplementation, bytes data) payable returns()
func (dstackApp *DstackApp) PackUpgradeToAndCall(newImplementation common.Address, data []byte) []byte {
	enc, err := dstackApp.abi.Pack("upgradeToAndCall", newImplementation, data)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackUpgradeToAndCall is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x4f1ef286.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function upgradeToAndCall(address newImplementation, bytes data) payable returns()
func (dstackApp *DstackApp) TryPackUpgradeToAndCall(newImplementation common.Address, data []byte) ([]byte, error) {
	return dstackApp.abi.Pack("upgradeToAndCall", newImplementation, data)
}

// PackVersion is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x54fd4d50.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function version() pure returns(uint256)
func (dstackApp *DstackApp) PackVersion() []byte {
	enc, err := dstackApp.abi.Pack("version")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackVersion is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x54fd4d50.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function version() pure returns(uint256)
func (dstackApp *DstackApp) TryPackVersion() ([]byte, error) {
	return dstackApp.abi.Pack("version")
}

// UnpackVersion is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x54fd4d50.
//
// Solidity: function version() pure returns(uint256)
func (dstackApp *DstackApp) UnpackVersion(data []byte) (*big.Int, error) {
	out, err := dstackApp.abi.Unpack("version", data)
	if err != nil {
		return new(big.Int), err
	}
	out0 := abi.ConvertType(out[0], new(big.Int)).(*big.Int)
	return out0, nil
}

// DstackAppAllowAnyDeviceSet represents a AllowAnyDeviceSet event raised by the DstackApp contract.
type DstackAppAllowAnyDeviceSet struct {
	AllowAny bool
	Raw      *types.Log // Blockchain specific contextual infos
}

const DstackAppAllowAnyDeviceSetEventName = "AllowAnyDeviceSet"

// ContractEventName returns the user-defined event name.
func (DstackAppAllowAnyDeviceSet) ContractEventName() string {
	return DstackAppAllowAnyDeviceSetEventName
}

// UnpackAllowAnyDeviceSetEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event AllowAnyDeviceSet(bool allowAny)
func (dstackApp *DstackApp) UnpackAllowAnyDeviceSetEvent(log *types.Log) (*DstackAppAllowAnyDeviceSet, error) {
	event := "AllowAnyDeviceSet"
	if len(log.Topics) == 0 || log.Topics[0] != dstackApp.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackAppAllowAnyDeviceSet)
	if len(log.Data) > 0 {
		if err := dstackApp.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackApp.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackAppComposeHashAdded represents a ComposeHashAdded event raised by the DstackApp contract.
type DstackAppComposeHashAdded struct {
	ComposeHash [32]byte
	Raw         *types.Log // Blockchain specific contextual infos
}

const DstackAppComposeHashAddedEventName = "ComposeHashAdded"

// ContractEventName returns the user-defined event name.
func (DstackAppComposeHashAdded) ContractEventName() string {
	return DstackAppComposeHashAddedEventName
}

// UnpackComposeHashAddedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event ComposeHashAdded(bytes32 composeHash)
func (dstackApp *DstackApp) UnpackComposeHashAddedEvent(log *types.Log) (*DstackAppComposeHashAdded, error) {
	event := "ComposeHashAdded"
	if len(log.Topics) == 0 || log.Topics[0] != dstackApp.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackAppComposeHashAdded)
	if len(log.Data) > 0 {
		if err := dstackApp.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackApp.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackAppComposeHashRemoved represents a ComposeHashRemoved event raised by the DstackApp contract.
type DstackAppComposeHashRemoved struct {
	ComposeHash [32]byte
	Raw         *types.Log // Blockchain specific contextual infos
}

const DstackAppComposeHashRemovedEventName = "ComposeHashRemoved"

// ContractEventName returns the user-defined event name.
func (DstackAppComposeHashRemoved) ContractEventName() string {
	return DstackAppComposeHashRemovedEventName
}

// UnpackComposeHashRemovedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event ComposeHashRemoved(bytes32 composeHash)
func (dstackApp *DstackApp) UnpackComposeHashRemovedEvent(log *types.Log) (*DstackAppComposeHashRemoved, error) {
	event := "ComposeHashRemoved"
	if len(log.Topics) == 0 || log.Topics[0] != dstackApp.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackAppComposeHashRemoved)
	if len(log.Data) > 0 {
		if err := dstackApp.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackApp.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackAppDeviceAdded represents a DeviceAdded event raised by the DstackApp contract.
type DstackAppDeviceAdded struct {
	DeviceId [32]byte
	Raw      *types.Log // Blockchain specific contextual infos
}

const DstackAppDeviceAddedEventName = "DeviceAdded"

// ContractEventName returns the user-defined event name.
func (DstackAppDeviceAdded) ContractEventName() string {
	return DstackAppDeviceAddedEventName
}

// UnpackDeviceAddedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event DeviceAdded(bytes32 deviceId)
func (dstackApp *DstackApp) UnpackDeviceAddedEvent(log *types.Log) (*DstackAppDeviceAdded, error) {
	event := "DeviceAdded"
	if len(log.Topics) == 0 || log.Topics[0] != dstackApp.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackAppDeviceAdded)
	if len(log.Data) > 0 {
		if err := dstackApp.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackApp.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackAppDeviceRemoved represents a DeviceRemoved event raised by the DstackApp contract.
type DstackAppDeviceRemoved struct {
	DeviceId [32]byte
	Raw      *types.Log // Blockchain specific contextual infos
}

const DstackAppDeviceRemovedEventName = "DeviceRemoved"

// ContractEventName returns the user-defined event name.
func (DstackAppDeviceRemoved) ContractEventName() string {
	return DstackAppDeviceRemovedEventName
}

// UnpackDeviceRemovedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event DeviceRemoved(bytes32 deviceId)
func (dstackApp *DstackApp) UnpackDeviceRemovedEvent(log *types.Log) (*DstackAppDeviceRemoved, error) {
	event := "DeviceRemoved"
	if len(log.Topics) == 0 || log.Topics[0] != dstackApp.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackAppDeviceRemoved)
	if len(log.Data) > 0 {
		if err := dstackApp.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackApp.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackAppInitialized represents a Initialized event raised by the DstackApp contract.
type DstackAppInitialized struct {
	Version uint64
	Raw     *types.Log // Blockchain specific contextual infos
}

const DstackAppInitializedEventName = "Initialized"

// ContractEventName returns the user-defined event name.
func (DstackAppInitialized) ContractEventName() string {
	return DstackAppInitializedEventName
}

// UnpackInitializedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event Initialized(uint64 version)
func (dstackApp *DstackApp) UnpackInitializedEvent(log *types.Log) (*DstackAppInitialized, error) {
	event := "Initialized"
	if len(log.Topics) == 0 || log.Topics[0] != dstackApp.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackAppInitialized)
	if len(log.Data) > 0 {
		if err := dstackApp.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackApp.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackAppOwnershipTransferStarted represents a OwnershipTransferStarted event raised by the DstackApp contract.
type DstackAppOwnershipTransferStarted struct {
	PreviousOwner common.Address
	NewOwner      common.Address
	Raw           *types.Log // Blockchain specific contextual infos
}

const DstackAppOwnershipTransferStartedEventName = "OwnershipTransferStarted"

// ContractEventName returns the user-defined event name.
func (DstackAppOwnershipTransferStarted) ContractEventName() string {
	return DstackAppOwnershipTransferStartedEventName
}

// UnpackOwnershipTransferStartedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event OwnershipTransferStarted(address indexed previousOwner, address indexed newOwner)
func (dstackApp *DstackApp) UnpackOwnershipTransferStartedEvent(log *types.Log) (*DstackAppOwnershipTransferStarted, error) {
	event := "OwnershipTransferStarted"
	if len(log.Topics) == 0 || log.Topics[0] != dstackApp.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackAppOwnershipTransferStarted)
	if len(log.Data) > 0 {
		if err := dstackApp.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackApp.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackAppOwnershipTransferred represents a OwnershipTransferred event raised by the DstackApp contract.
type DstackAppOwnershipTransferred struct {
	PreviousOwner common.Address
	NewOwner      common.Address
	Raw           *types.Log // Blockchain specific contextual infos
}

const DstackAppOwnershipTransferredEventName = "OwnershipTransferred"

// ContractEventName returns the user-defined event name.
func (DstackAppOwnershipTransferred) ContractEventName() string {
	return DstackAppOwnershipTransferredEventName
}

// UnpackOwnershipTransferredEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event OwnershipTransferred(address indexed previousOwner, address indexed newOwner)
func (dstackApp *DstackApp) UnpackOwnershipTransferredEvent(log *types.Log) (*DstackAppOwnershipTransferred, error) {
	event := "OwnershipTransferred"
	if len(log.Topics) == 0 || log.Topics[0] != dstackApp.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackAppOwnershipTransferred)
	if len(log.Data) > 0 {
		if err := dstackApp.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackApp.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackAppPolicyChanged represents a PolicyChanged event raised by the DstackApp contract.
type DstackAppPolicyChanged struct {
	Actor   common.Address
	Policy  [32]byte
	Value   [32]byte
	Enabled bool
	Raw     *types.Log // Blockchain specific contextual infos
}

const DstackAppPolicyChangedEventName = "PolicyChanged"

// ContractEventName returns the user-defined event name.
func (DstackAppPolicyChanged) ContractEventName() string {
	return DstackAppPolicyChangedEventName
}

// UnpackPolicyChangedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event PolicyChanged(address indexed actor, bytes32 indexed policy, bytes32 indexed value, bool enabled)
func (dstackApp *DstackApp) UnpackPolicyChangedEvent(log *types.Log) (*DstackAppPolicyChanged, error) {
	event := "PolicyChanged"
	if len(log.Topics) == 0 || log.Topics[0] != dstackApp.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackAppPolicyChanged)
	if len(log.Data) > 0 {
		if err := dstackApp.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackApp.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackAppRequireTcbUpToDateSet represents a RequireTcbUpToDateSet event raised by the DstackApp contract.
type DstackAppRequireTcbUpToDateSet struct {
	RequireUpToDate bool
	Raw             *types.Log // Blockchain specific contextual infos
}

const DstackAppRequireTcbUpToDateSetEventName = "RequireTcbUpToDateSet"

// ContractEventName returns the user-defined event name.
func (DstackAppRequireTcbUpToDateSet) ContractEventName() string {
	return DstackAppRequireTcbUpToDateSetEventName
}

// UnpackRequireTcbUpToDateSetEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event RequireTcbUpToDateSet(bool requireUpToDate)
func (dstackApp *DstackApp) UnpackRequireTcbUpToDateSetEvent(log *types.Log) (*DstackAppRequireTcbUpToDateSet, error) {
	event := "RequireTcbUpToDateSet"
	if len(log.Topics) == 0 || log.Topics[0] != dstackApp.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackAppRequireTcbUpToDateSet)
	if len(log.Data) > 0 {
		if err := dstackApp.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackApp.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackAppUpgraded represents a Upgraded event raised by the DstackApp contract.
type DstackAppUpgraded struct {
	Implementation common.Address
	Raw            *types.Log // Blockchain specific contextual infos
}

const DstackAppUpgradedEventName = "Upgraded"

// ContractEventName returns the user-defined event name.
func (DstackAppUpgraded) ContractEventName() string {
	return DstackAppUpgradedEventName
}

// UnpackUpgradedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event Upgraded(address indexed implementation)
func (dstackApp *DstackApp) UnpackUpgradedEvent(log *types.Log) (*DstackAppUpgraded, error) {
	event := "Upgraded"
	if len(log.Topics) == 0 || log.Topics[0] != dstackApp.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackAppUpgraded)
	if len(log.Data) > 0 {
		if err := dstackApp.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackApp.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackAppUpgradesDisabled represents a UpgradesDisabled event raised by the DstackApp contract.
type DstackAppUpgradesDisabled struct {
	Raw *types.Log // Blockchain specific contextual infos
}

const DstackAppUpgradesDisabledEventName = "UpgradesDisabled"

// ContractEventName returns the user-defined event name.
func (DstackAppUpgradesDisabled) ContractEventName() string {
	return DstackAppUpgradesDisabledEventName
}

// UnpackUpgradesDisabledEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event UpgradesDisabled()
func (dstackApp *DstackApp) UnpackUpgradesDisabledEvent(log *types.Log) (*DstackAppUpgradesDisabled, error) {
	event := "UpgradesDisabled"
	if len(log.Topics) == 0 || log.Topics[0] != dstackApp.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackAppUpgradesDisabled)
	if len(log.Data) > 0 {
		if err := dstackApp.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackApp.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// UnpackError attempts to decode the provided error data using user-defined
// error definitions.
func (dstackApp *DstackApp) UnpackError(raw []byte) (any, error) {
	if bytes.Equal(raw[:4], dstackApp.abi.Errors["AddressEmptyCode"].ID.Bytes()[:4]) {
		return dstackApp.UnpackAddressEmptyCodeError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackApp.abi.Errors["ERC1967InvalidImplementation"].ID.Bytes()[:4]) {
		return dstackApp.UnpackERC1967InvalidImplementationError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackApp.abi.Errors["ERC1967NonPayable"].ID.Bytes()[:4]) {
		return dstackApp.UnpackERC1967NonPayableError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackApp.abi.Errors["FailedCall"].ID.Bytes()[:4]) {
		return dstackApp.UnpackFailedCallError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackApp.abi.Errors["InvalidInitialization"].ID.Bytes()[:4]) {
		return dstackApp.UnpackInvalidInitializationError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackApp.abi.Errors["NotInitializing"].ID.Bytes()[:4]) {
		return dstackApp.UnpackNotInitializingError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackApp.abi.Errors["OwnableInvalidOwner"].ID.Bytes()[:4]) {
		return dstackApp.UnpackOwnableInvalidOwnerError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackApp.abi.Errors["OwnableUnauthorizedAccount"].ID.Bytes()[:4]) {
		return dstackApp.UnpackOwnableUnauthorizedAccountError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackApp.abi.Errors["UUPSUnauthorizedCallContext"].ID.Bytes()[:4]) {
		return dstackApp.UnpackUUPSUnauthorizedCallContextError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackApp.abi.Errors["UUPSUnsupportedProxiableUUID"].ID.Bytes()[:4]) {
		return dstackApp.UnpackUUPSUnsupportedProxiableUUIDError(raw[4:])
	}
	return nil, errors.New("Unknown error")
}

// DstackAppAddressEmptyCode represents a AddressEmptyCode error raised by the DstackApp contract.
type DstackAppAddressEmptyCode struct {
	Target common.Address
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error AddressEmptyCode(address target)
func DstackAppAddressEmptyCodeErrorID() common.Hash {
	return common.HexToHash("0x9996b315c842ff135b8fc4a08ad5df1c344efbc03d2687aecc0678050d2aac89")
}

// UnpackAddressEmptyCodeError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error AddressEmptyCode(address target)
func (dstackApp *DstackApp) UnpackAddressEmptyCodeError(raw []byte) (*DstackAppAddressEmptyCode, error) {
	out := new(DstackAppAddressEmptyCode)
	if err := dstackApp.abi.UnpackIntoInterface(out, "AddressEmptyCode", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackAppERC1967InvalidImplementation represents a ERC1967InvalidImplementation error raised by the DstackApp contract.
type DstackAppERC1967InvalidImplementation struct {
	Implementation common.Address
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error ERC1967InvalidImplementation(address implementation)
func DstackAppERC1967InvalidImplementationErrorID() common.Hash {
	return common.HexToHash("0x4c9c8ce3ceb3130f17f7cdba48d89b5b0129f266a8bac114e6e315a41879b617")
}

// UnpackERC1967InvalidImplementationError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error ERC1967InvalidImplementation(address implementation)
func (dstackApp *DstackApp) UnpackERC1967InvalidImplementationError(raw []byte) (*DstackAppERC1967InvalidImplementation, error) {
	out := new(DstackAppERC1967InvalidImplementation)
	if err := dstackApp.abi.UnpackIntoInterface(out, "ERC1967InvalidImplementation", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackAppERC1967NonPayable represents a ERC1967NonPayable error raised by the DstackApp contract.
type DstackAppERC1967NonPayable struct {
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error ERC1967NonPayable()
func DstackAppERC1967NonPayableErrorID() common.Hash {
	return common.HexToHash("0xb398979fa84f543c8e222f17890372c487baf85e062276c127fef521eea7224b")
}

// UnpackERC1967NonPayableError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error ERC1967NonPayable()
func (dstackApp *DstackApp) UnpackERC1967NonPayableError(raw []byte) (*DstackAppERC1967NonPayable, error) {
	out := new(DstackAppERC1967NonPayable)
	if err := dstackApp.abi.UnpackIntoInterface(out, "ERC1967NonPayable", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackAppFailedCall represents a FailedCall error raised by the DstackApp contract.
type DstackAppFailedCall struct {
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error FailedCall()
func DstackAppFailedCallErrorID() common.Hash {
	return common.HexToHash("0xd6bda27508c0fb6d8a39b4b122878dab26f731a7d4e4abe711dd3731899052a4")
}

// UnpackFailedCallError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error FailedCall()
func (dstackApp *DstackApp) UnpackFailedCallError(raw []byte) (*DstackAppFailedCall, error) {
	out := new(DstackAppFailedCall)
	if err := dstackApp.abi.UnpackIntoInterface(out, "FailedCall", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackAppInvalidInitialization represents a InvalidInitialization error raised by the DstackApp contract.
type DstackAppInvalidInitialization struct {
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error InvalidInitialization()
func DstackAppInvalidInitializationErrorID() common.Hash {
	return common.HexToHash("0xf92ee8a957075833165f68c320933b1a1294aafc84ee6e0dd3fb178008f9aaf5")
}

// UnpackInvalidInitializationError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error InvalidInitialization()
func (dstackApp *DstackApp) UnpackInvalidInitializationError(raw []byte) (*DstackAppInvalidInitialization, error) {
	out := new(DstackAppInvalidInitialization)
	if err := dstackApp.abi.UnpackIntoInterface(out, "InvalidInitialization", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackAppNotInitializing represents a NotInitializing error raised by the DstackApp contract.
type DstackAppNotInitializing struct {
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error NotInitializing()
func DstackAppNotInitializingErrorID() common.Hash {
	return common.HexToHash("0xd7e6bcf8597daa127dc9f0048d2f08d5ef140a2cb659feabd700beff1f7a8302")
}

// UnpackNotInitializingError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error NotInitializing()
func (dstackApp *DstackApp) UnpackNotInitializingError(raw []byte) (*DstackAppNotInitializing, error) {
	out := new(DstackAppNotInitializing)
	if err := dstackApp.abi.UnpackIntoInterface(out, "NotInitializing", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackAppOwnableInvalidOwner represents a OwnableInvalidOwner error raised by the DstackApp contract.
type DstackAppOwnableInvalidOwner struct {
	Owner common.Address
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error OwnableInvalidOwner(address owner)
func DstackAppOwnableInvalidOwnerErrorID() common.Hash {
	return common.HexToHash("0x1e4fbdf7f3ef8bcaa855599e3abf48b232380f183f08f6f813d9ffa5bd585188")
}

// UnpackOwnableInvalidOwnerError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error OwnableInvalidOwner(address owner)
func (dstackApp *DstackApp) UnpackOwnableInvalidOwnerError(raw []byte) (*DstackAppOwnableInvalidOwner, error) {
	out := new(DstackAppOwnableInvalidOwner)
	if err := dstackApp.abi.UnpackIntoInterface(out, "OwnableInvalidOwner", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackAppOwnableUnauthorizedAccount represents a OwnableUnauthorizedAccount error raised by the DstackApp contract.
type DstackAppOwnableUnauthorizedAccount struct {
	Account common.Address
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error OwnableUnauthorizedAccount(address account)
func DstackAppOwnableUnauthorizedAccountErrorID() common.Hash {
	return common.HexToHash("0x118cdaa7a341953d1887a2245fd6665d741c67c8c50581daa59e1d03373fa188")
}

// UnpackOwnableUnauthorizedAccountError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error OwnableUnauthorizedAccount(address account)
func (dstackApp *DstackApp) UnpackOwnableUnauthorizedAccountError(raw []byte) (*DstackAppOwnableUnauthorizedAccount, error) {
	out := new(DstackAppOwnableUnauthorizedAccount)
	if err := dstackApp.abi.UnpackIntoInterface(out, "OwnableUnauthorizedAccount", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackAppUUPSUnauthorizedCallContext represents a UUPSUnauthorizedCallContext error raised by the DstackApp contract.
type DstackAppUUPSUnauthorizedCallContext struct {
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error UUPSUnauthorizedCallContext()
func DstackAppUUPSUnauthorizedCallContextErrorID() common.Hash {
	return common.HexToHash("0xe07c8dba242a06571ac65fe4bbe20522c9fb111cb33599b799ff8039c1ed18f4")
}

// UnpackUUPSUnauthorizedCallContextError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error UUPSUnauthorizedCallContext()
func (dstackApp *DstackApp) UnpackUUPSUnauthorizedCallContextError(raw []byte) (*DstackAppUUPSUnauthorizedCallContext, error) {
	out := new(DstackAppUUPSUnauthorizedCallContext)
	if err := dstackApp.abi.UnpackIntoInterface(out, "UUPSUnauthorizedCallContext", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackAppUUPSUnsupportedProxiableUUID represents a UUPSUnsupportedProxiableUUID error raised by the DstackApp contract.
type DstackAppUUPSUnsupportedProxiableUUID struct {
	Slot [32]byte
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error UUPSUnsupportedProxiableUUID(bytes32 slot)
func DstackAppUUPSUnsupportedProxiableUUIDErrorID() common.Hash {
	return common.HexToHash("0xaa1d49a4c084bfa9aeeee2a0be65267a7f19ba7e1476b114dac513d2c14cb563")
}

// UnpackUUPSUnsupportedProxiableUUIDError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error UUPSUnsupportedProxiableUUID(bytes32 slot)
func (dstackApp *DstackApp) UnpackUUPSUnsupportedProxiableUUIDError(raw []byte) (*DstackAppUUPSUnsupportedProxiableUUID, error) {
	out := new(DstackAppUUPSUnsupportedProxiableUUID)
	if err := dstackApp.abi.UnpackIntoInterface(out, "UUPSUnsupportedProxiableUUID", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackKmsMetaData contains all meta data concerning the DstackKms contract.
var DstackKmsMetaData = bind.MetaData{
	ABI: "[{\"inputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"constructor\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"target\",\"type\":\"address\"}],\"name\":\"AddressEmptyCode\",\"type\":\"error\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"implementation\",\"type\":\"address\"}],\"name\":\"ERC1967InvalidImplementation\",\"type\":\"error\"},{\"inputs\":[],\"name\":\"ERC1967NonPayable\",\"type\":\"error\"},{\"inputs\":[],\"name\":\"FailedCall\",\"type\":\"error\"},{\"inputs\":[],\"name\":\"InvalidInitialization\",\"type\":\"error\"},{\"inputs\":[],\"name\":\"NotInitializing\",\"type\":\"error\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"owner\",\"type\":\"address\"}],\"name\":\"OwnableInvalidOwner\",\"type\":\"error\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"account\",\"type\":\"address\"}],\"name\":\"OwnableUnauthorizedAccount\",\"type\":\"error\"},{\"inputs\":[],\"name\":\"UUPSUnauthorizedCallContext\",\"type\":\"error\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"slot\",\"type\":\"bytes32\"}],\"name\":\"UUPSUnsupportedProxiableUUID\",\"type\":\"error\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":true,\"internalType\":\"address\",\"name\":\"appId\",\"type\":\"address\"},{\"indexed\":true,\"internalType\":\"address\",\"name\":\"deployer\",\"type\":\"address\"}],\"name\":\"AppDeployedViaFactory\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"address\",\"name\":\"implementation\",\"type\":\"address\"}],\"name\":\"AppImplementationSet\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"address\",\"name\":\"appId\",\"type\":\"address\"}],\"name\":\"AppRegistered\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"string\",\"name\":\"gatewayAppId\",\"type\":\"string\"}],\"name\":\"GatewayAppIdSet\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"uint64\",\"name\":\"version\",\"type\":\"uint64\"}],\"name\":\"Initialized\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"bytes32\",\"name\":\"mrAggregated\",\"type\":\"bytes32\"}],\"name\":\"KmsAggregatedMrAdded\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"bytes32\",\"name\":\"mrAggregated\",\"type\":\"bytes32\"}],\"name\":\"KmsAggregatedMrRemoved\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"bytes32\",\"name\":\"deviceId\",\"type\":\"bytes32\"}],\"name\":\"KmsDeviceAdded\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"bytes32\",\"name\":\"deviceId\",\"type\":\"bytes32\"}],\"name\":\"KmsDeviceRemoved\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"bytes\",\"name\":\"k256Pubkey\",\"type\":\"bytes\"}],\"name\":\"KmsInfoSet\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"bytes32\",\"name\":\"osImageHash\",\"type\":\"bytes32\"}],\"name\":\"OsImageHashAdded\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":false,\"internalType\":\"bytes32\",\"name\":\"osImageHash\",\"type\":\"bytes32\"}],\"name\":\"OsImageHashRemoved\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":true,\"internalType\":\"address\",\"name\":\"previousOwner\",\"type\":\"address\"},{\"indexed\":true,\"internalType\":\"address\",\"name\":\"newOwner\",\"type\":\"address\"}],\"name\":\"OwnershipTransferStarted\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":true,\"internalType\":\"address\",\"name\":\"previousOwner\",\"type\":\"address\"},{\"indexed\":true,\"internalType\":\"address\",\"name\":\"newOwner\",\"type\":\"address\"}],\"name\":\"OwnershipTransferred\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":true,\"internalType\":\"address\",\"name\":\"actor\",\"type\":\"address\"},{\"indexed\":true,\"internalType\":\"bytes32\",\"name\":\"policy\",\"type\":\"bytes32\"},{\"indexed\":true,\"internalType\":\"bytes32\",\"name\":\"value\",\"type\":\"bytes32\"},{\"indexed\":false,\"internalType\":\"bool\",\"name\":\"enabled\",\"type\":\"bool\"}],\"name\":\"PolicyChanged\",\"type\":\"event\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":true,\"internalType\":\"address\",\"name\":\"implementation\",\"type\":\"address\"}],\"name\":\"Upgraded\",\"type\":\"event\"},{\"inputs\":[],\"name\":\"UPGRADE_INTERFACE_VERSION\",\"outputs\":[{\"internalType\":\"string\",\"name\":\"\",\"type\":\"string\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"acceptOwnership\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"mrAggregated\",\"type\":\"bytes32\"}],\"name\":\"addKmsAggregatedMr\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"deviceId\",\"type\":\"bytes32\"}],\"name\":\"addKmsDevice\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"osImageHash\",\"type\":\"bytes32\"}],\"name\":\"addOsImageHash\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"\",\"type\":\"bytes32\"}],\"name\":\"allowedOsImages\",\"outputs\":[{\"internalType\":\"bool\",\"name\":\"\",\"type\":\"bool\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"appImplementation\",\"outputs\":[{\"internalType\":\"address\",\"name\":\"\",\"type\":\"address\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"initialOwner\",\"type\":\"address\"},{\"internalType\":\"bool\",\"name\":\"disableUpgrades\",\"type\":\"bool\"},{\"internalType\":\"bool\",\"name\":\"allowAnyDevice\",\"type\":\"bool\"},{\"internalType\":\"bytes32\",\"name\":\"initialDeviceId\",\"type\":\"bytes32\"},{\"internalType\":\"bytes32\",\"name\":\"initialComposeHash\",\"type\":\"bytes32\"}],\"name\":\"deployAndRegisterApp\",\"outputs\":[{\"internalType\":\"address\",\"name\":\"appId\",\"type\":\"address\"}],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"initialOwner\",\"type\":\"address\"},{\"internalType\":\"bool\",\"name\":\"disableUpgrades\",\"type\":\"bool\"},{\"internalType\":\"bool\",\"name\":\"requireTcbUpToDate\",\"type\":\"bool\"},{\"internalType\":\"bool\",\"name\":\"allowAnyDevice\",\"type\":\"bool\"},{\"internalType\":\"bytes32\",\"name\":\"initialDeviceId\",\"type\":\"bytes32\"},{\"internalType\":\"bytes32\",\"name\":\"initialComposeHash\",\"type\":\"bytes32\"}],\"name\":\"deployAndRegisterApp\",\"outputs\":[{\"internalType\":\"address\",\"name\":\"appId\",\"type\":\"address\"}],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"gatewayAppId\",\"outputs\":[{\"internalType\":\"string\",\"name\":\"\",\"type\":\"string\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"initialOwner\",\"type\":\"address\"},{\"internalType\":\"address\",\"name\":\"appImpl\",\"type\":\"address\"}],\"name\":\"initialize\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"components\":[{\"internalType\":\"address\",\"name\":\"appId\",\"type\":\"address\"},{\"internalType\":\"bytes32\",\"name\":\"composeHash\",\"type\":\"bytes32\"},{\"internalType\":\"address\",\"name\":\"instanceId\",\"type\":\"address\"},{\"internalType\":\"bytes32\",\"name\":\"deviceId\",\"type\":\"bytes32\"},{\"internalType\":\"bytes32\",\"name\":\"mrAggregated\",\"type\":\"bytes32\"},{\"internalType\":\"bytes32\",\"name\":\"mrSystem\",\"type\":\"bytes32\"},{\"internalType\":\"bytes32\",\"name\":\"osImageHash\",\"type\":\"bytes32\"},{\"internalType\":\"string\",\"name\":\"tcbStatus\",\"type\":\"string\"},{\"internalType\":\"string[]\",\"name\":\"advisoryIds\",\"type\":\"string[]\"}],\"internalType\":\"structIAppAuth.AppBootInfo\",\"name\":\"bootInfo\",\"type\":\"tuple\"}],\"name\":\"isAppAllowed\",\"outputs\":[{\"internalType\":\"bool\",\"name\":\"isAllowed\",\"type\":\"bool\"},{\"internalType\":\"string\",\"name\":\"reason\",\"type\":\"string\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[{\"components\":[{\"internalType\":\"address\",\"name\":\"appId\",\"type\":\"address\"},{\"internalType\":\"bytes32\",\"name\":\"composeHash\",\"type\":\"bytes32\"},{\"internalType\":\"address\",\"name\":\"instanceId\",\"type\":\"address\"},{\"internalType\":\"bytes32\",\"name\":\"deviceId\",\"type\":\"bytes32\"},{\"internalType\":\"bytes32\",\"name\":\"mrAggregated\",\"type\":\"bytes32\"},{\"internalType\":\"bytes32\",\"name\":\"mrSystem\",\"type\":\"bytes32\"},{\"internalType\":\"bytes32\",\"name\":\"osImageHash\",\"type\":\"bytes32\"},{\"internalType\":\"string\",\"name\":\"tcbStatus\",\"type\":\"string\"},{\"internalType\":\"string[]\",\"name\":\"advisoryIds\",\"type\":\"string[]\"}],\"internalType\":\"structIAppAuth.AppBootInfo\",\"name\":\"bootInfo\",\"type\":\"tuple\"}],\"name\":\"isKmsAllowed\",\"outputs\":[{\"internalType\":\"bool\",\"name\":\"isAllowed\",\"type\":\"bool\"},{\"internalType\":\"string\",\"name\":\"reason\",\"type\":\"string\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"\",\"type\":\"bytes32\"}],\"name\":\"kmsAllowedAggregatedMrs\",\"outputs\":[{\"internalType\":\"bool\",\"name\":\"\",\"type\":\"bool\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"\",\"type\":\"bytes32\"}],\"name\":\"kmsAllowedDeviceIds\",\"outputs\":[{\"internalType\":\"bool\",\"name\":\"\",\"type\":\"bool\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"kmsInfo\",\"outputs\":[{\"internalType\":\"bytes\",\"name\":\"k256Pubkey\",\"type\":\"bytes\"},{\"internalType\":\"bytes\",\"name\":\"caPubkey\",\"type\":\"bytes\"},{\"internalType\":\"bytes\",\"name\":\"quote\",\"type\":\"bytes\"},{\"internalType\":\"bytes\",\"name\":\"eventlog\",\"type\":\"bytes\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"owner\",\"outputs\":[{\"internalType\":\"address\",\"name\":\"\",\"type\":\"address\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"pendingOwner\",\"outputs\":[{\"internalType\":\"address\",\"name\":\"\",\"type\":\"address\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"proxiableUUID\",\"outputs\":[{\"internalType\":\"bytes32\",\"name\":\"\",\"type\":\"bytes32\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"appId\",\"type\":\"address\"}],\"name\":\"registerApp\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"\",\"type\":\"address\"}],\"name\":\"registeredApps\",\"outputs\":[{\"internalType\":\"bool\",\"name\":\"\",\"type\":\"bool\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"mrAggregated\",\"type\":\"bytes32\"}],\"name\":\"removeKmsAggregatedMr\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"deviceId\",\"type\":\"bytes32\"}],\"name\":\"removeKmsDevice\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes32\",\"name\":\"osImageHash\",\"type\":\"bytes32\"}],\"name\":\"removeOsImageHash\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"renounceOwnership\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"implementation\",\"type\":\"address\"}],\"name\":\"setAppImplementation\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"string\",\"name\":\"appId\",\"type\":\"string\"}],\"name\":\"setGatewayAppId\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes\",\"name\":\"eventlog\",\"type\":\"bytes\"}],\"name\":\"setKmsEventlog\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"components\":[{\"internalType\":\"bytes\",\"name\":\"k256Pubkey\",\"type\":\"bytes\"},{\"internalType\":\"bytes\",\"name\":\"caPubkey\",\"type\":\"bytes\"},{\"internalType\":\"bytes\",\"name\":\"quote\",\"type\":\"bytes\"},{\"internalType\":\"bytes\",\"name\":\"eventlog\",\"type\":\"bytes\"}],\"internalType\":\"structDstackKms.KmsInfo\",\"name\":\"info\",\"type\":\"tuple\"}],\"name\":\"setKmsInfo\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes\",\"name\":\"quote\",\"type\":\"bytes\"}],\"name\":\"setKmsQuote\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bytes4\",\"name\":\"interfaceId\",\"type\":\"bytes4\"}],\"name\":\"supportsInterface\",\"outputs\":[{\"internalType\":\"bool\",\"name\":\"\",\"type\":\"bool\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"newOwner\",\"type\":\"address\"}],\"name\":\"transferOwnership\",\"outputs\":[],\"stateMutability\":\"nonpayable\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"newImplementation\",\"type\":\"address\"},{\"internalType\":\"bytes\",\"name\":\"data\",\"type\":\"bytes\"}],\"name\":\"upgradeToAndCall\",\"outputs\":[],\"stateMutability\":\"payable\",\"type\":\"function\"}]",
	ID:  "DstackKms",
	Bin: "0x60a060405230608052348015610013575f5ffd5b5061001c610021565b6100d3565b7ff0c57e16840df040f15088dc2f81fe391c3923bec73e23a9662efc9c229c6a00805468010000000000000000900460ff16156100715760405163f92ee8a960e01b815260040160405180910390fd5b80546001600160401b03908116146100d05780546001600160401b0319166001600160401b0390811782556040519081527fc7f505b2f371ae2175ee4913f4499e1f2633a7b5936321eed1cdaeb6115181d29060200160405180910390a15b50565b608051612ad96100f95f395f81816117100152818161173901526118c50152612ad95ff3fe6080604052600436106101e6575f3560e01c8063715018a6116101085780639a4e1d181161009d578063ad3cb1cc1161006d578063ad3cb1cc14610595578063e067ec9d146105c5578063e30c3978146105e4578063f2fde38b146105f8578063f6fe4f4014610617575f5ffd5b80639a4e1d18146104fb5780639cb9c31f146105295780639e6f311414610548578063a6c4cce914610567575f5ffd5b80638618169d116100d85780638618169d146104885780638da5cb5b146104a75780639425bac6146104bb57806395f51931146104da575f5ffd5b8063715018a614610422578063736ede7a1461043657806379ba5097146104555780637d02535214610469575f5ffd5b80632adee48d1161017e578063485cc9551161014e578063485cc955146103af5780634d5922a1146103ce5780634f1ef286146103ed57806352d1902d14610400575f5ffd5b80632adee48d146103335780633971db27146103525780633ceaaa11146103715780633e32d34614610390575f5ffd5b806317a1d80f116101b957806317a1d80f1461029157806318c1ecb2146102b05780631e079198146102cf57806325a992da146102fc575f5ffd5b806301ffc9a7146101ea57806306a3ae961461021e578063091770631461023f57806313eb977014610263575b5f5ffd5b3480156101f5575f5ffd5b50610209610204366004611d63565b610645565b60405190151581526020015b60405180910390f35b348015610229575f5ffd5b5061023d610238366004611d91565b61067b565b005b34801561024a575f5ffd5b50610253610720565b6040516102159493929190611dd6565b34801561026e575f5ffd5b5061020961027d366004611d91565b60076020525f908152604090205460ff1681565b34801561029c575f5ffd5b5061023d6102ab366004611e3d565b610953565b3480156102bb575f5ffd5b5061023d6102ca366004611e9a565b61095f565b3480156102da575f5ffd5b506102ee6102e9366004611ed8565b610979565b604051610215929190611f0f565b348015610307575f5ffd5b5060095461031b906001600160a01b031681565b6040516001600160a01b039091168152602001610215565b34801561033e575f5ffd5b5061023d61034d366004611d91565b610af1565b34801561035d575f5ffd5b5061023d61036c366004611e9a565b610b8b565b34801561037c575f5ffd5b5061023d61038b366004611e3d565b610c3a565b34801561039b575f5ffd5b5061023d6103aa366004611d91565b610c4b565b3480156103ba575f5ffd5b5061023d6103c9366004611f31565b610ce9565b3480156103d9575f5ffd5b5061023d6103e8366004611d91565b610e5c565b61023d6103fb366004611fcc565b610efa565b34801561040b575f5ffd5b50610414610f19565b604051908152602001610215565b34801561042d575f5ffd5b5061023d610f34565b348015610441575f5ffd5b5061023d610450366004611e9a565b610f47565b348015610460575f5ffd5b5061023d610f5c565b348015610474575f5ffd5b5061023d610483366004612056565b610fa1565b348015610493575f5ffd5b5061031b6104a2366004612099565b61105a565b3480156104b2575f5ffd5b5061031b611073565b3480156104c6575f5ffd5b5061023d6104d5366004611d91565b6110a7565b3480156104e5575f5ffd5b506104ee611141565b60405161021591906120ee565b348015610506575f5ffd5b50610209610515366004611d91565b60086020525f908152604090205460ff1681565b348015610534575f5ffd5b5061031b610543366004612100565b6111cd565b348015610553575f5ffd5b5061023d610562366004611d91565b6111e7565b348015610572575f5ffd5b50610209610581366004611e3d565b60056020525f908152604090205460ff1681565b3480156105a0575f5ffd5b506104ee604051806040016040528060058152602001640352e302e360dc1b81525081565b3480156105d0575f5ffd5b506102ee6105df366004611ed8565b611281565b3480156105ef575f5ffd5b5061031b611407565b348015610603575f5ffd5b5061023d610612366004611e3d565b61142f565b348015610622575f5ffd5b50610209610631366004611d91565b60066020525f908152604090205460ff1681565b5f6303c0f23360e31b6001600160e01b03198316148061067557506301ffc9a760e01b6001600160e01b03198316145b92915050565b6106836114b4565b5f8181526008602052604090819020805460ff19166001179055517f4911843506849c85a5ca6e6e2c01eed2d3ab86baba619517a2aad9d5ab2aeff2906106cd9083815260200190565b60405180910390a16040516001815281907fbc0346dd2a1caffcfdf89515e8a3ad921515d32b39d8e28334b87bd5a1bdb6aa9033905f516020612a4d5f395f51905f52906020015b60405180910390a450565b5f8054819061072e90612168565b80601f016020809104026020016040519081016040528092919081815260200182805461075a90612168565b80156107a55780601f1061077c576101008083540402835291602001916107a5565b820191905f5260205f20905b81548152906001019060200180831161078857829003601f168201915b5050505050908060010180546107ba90612168565b80601f01602080910402602001604051908101604052809291908181526020018280546107e690612168565b80156108315780601f1061080857610100808354040283529160200191610831565b820191905f5260205f20905b81548152906001019060200180831161081457829003601f168201915b50505050509080600201805461084690612168565b80601f016020809104026020016040519081016040528092919081815260200182805461087290612168565b80156108bd5780601f10610894576101008083540402835291602001916108bd565b820191905f5260205f20905b8154815290600101906020018083116108a057829003601f168201915b5050505050908060030180546108d290612168565b80601f01602080910402602001604051908101604052809291908181526020018280546108fe90612168565b80156109495780601f1061092057610100808354040283529160200191610949565b820191905f5260205f20905b81548152906001019060200180831161092c57829003601f168201915b5050505050905084565b61095c816114e6565b50565b6109676114b4565b60026109748284836121f6565b505050565b5f606060058261098c6020860186611e3d565b6001600160a01b0316815260208101919091526040015f205460ff166109de575050604080518082019091526012815271105c1c081b9bdd081c9959da5cdd195c995960721b60208201525f92909150565b60c08301355f9081526008602052604090205460ff16610a2f57505060408051808201909152601781527613d4c81a5b5859d9481a5cc81b9bdd08185b1b1bddd959604a1b60208201525f92909150565b610a3c6020840184611e3d565b6001600160a01b03163b5f03610a6f575f604051806060016040528060238152602001612ab66023913991509150915091565b610a7c6020840184611e3d565b6001600160a01b0316631e079198846040518263ffffffff1660e01b8152600401610aa791906123be565b5f60405180830381865afa158015610ac1573d5f5f3e3d5ffd5b505050506040513d5f823e601f3d908101601f19168201604052610ae8919081019061248a565b91509150915091565b610af96114b4565b5f8181526006602052604090819020805460ff19169055517f54cd662e41eec7ddf0f32f034b2533e481b471dd3ea978222d609ec8fffb1bb090610b409083815260200190565b60405180910390a16040515f815281907f22cfb8b3fc209be958082ecee5badccf8f7ab55e79ec93f5ac413a164feb98ea9033905f516020612a4d5f395f51905f5290602001610715565b610b936114b4565b6004610ba08284836121f6565b507f5b2b64f770ea5266055ebd3ebf205ef06cbfa738e62684edf0e28356e34acf068282604051610bd2929190612512565b60405180910390a18181604051610bea929190612525565b60405190819003812060018252907f6061a738ec69c97ed6ae96633751763d1291f32a6ef6515845ad8ddefda35ec69033905f516020612a4d5f395f51905f529060200160405180910390a45050565b610c426114b4565b61095c816115d0565b610c536114b4565b5f8181526006602052604090819020805460ff19166001179055517f68615a0b92795750b3d180ff73429e1291d225e449eee954a567b91104fd983790610c9d9083815260200190565b60405180910390a16040516001815281907f22cfb8b3fc209be958082ecee5badccf8f7ab55e79ec93f5ac413a164feb98ea9033905f516020612a4d5f395f51905f5290602001610715565b5f610cf26116c4565b805490915060ff600160401b82041615906001600160401b03165f81158015610d185750825b90505f826001600160401b03166001148015610d335750303b155b905081158015610d41575080155b15610d5f5760405163f92ee8a960e01b815260040160405180910390fd5b845467ffffffffffffffff191660011785558315610d8957845460ff60401b1916600160401b1785555b6001600160a01b038716610ddc5760405162461bcd60e51b8152602060048201526015602482015274496e76616c6964206f776e6572206164647265737360581b60448201526064015b60405180910390fd5b610de5876116ec565b610ded6116fd565b610df56116fd565b6001600160a01b03861615610e0d57610e0d866115d0565b8315610e5357845460ff60401b19168555604051600181527fc7f505b2f371ae2175ee4913f4499e1f2633a7b5936321eed1cdaeb6115181d29060200160405180910390a15b50505050505050565b610e646114b4565b5f8181526007602052604090819020805460ff19166001179055517ff2b290637b1193e12eb38ab32b986303639b1687cc2cd1e25f993e6eae2f404190610eae9083815260200190565b60405180910390a16040516001815281907f1a2d46e254225ae2e84638f6fcb742191317930982ce206e0917877506edc3a09033905f516020612a4d5f395f51905f5290602001610715565b610f02611705565b610f0b826117a9565b610f1582826117fe565b5050565b5f610f226118ba565b505f516020612a965f395f51905f5290565b610f3c6114b4565b610f455f611903565b565b610f4f6114b4565b60036109748284836121f6565b3380610f66611407565b6001600160a01b031614610f985760405163118cdaa760e01b81526001600160a01b0382166004820152602401610dd3565b61095c81611903565b610fa96114b4565b805f610fb58282612576565b507f77cdad119a452bbd96c45635758fc4af8a6bde3deaccf3fada634ddf9a1627069050610fe38280612534565b604051610ff1929190612512565b60405180910390a16110038180612534565b604051611011929190612525565b60405190819003812060018252907fadc23d82fa8b20f02103a2405c452d2446e5a589f0182bd71f6d87e3357fbe659033905f516020612a4d5f395f51905f5290602001610715565b5f61106986865f87878761193b565b9695505050505050565b5f807f9016d09d72d40fdae2fd8ceac6b6234c7706214fd39c1cd1e609a0528c1993005b546001600160a01b031692915050565b6110af6114b4565b5f8181526008602052604090819020805460ff19169055517f99b3cee95daf3138d0c982299cd0264f5b7a61aa629b42b92f3ec8966aa7f6fe906110f69083815260200190565b60405180910390a16040515f815281907fbc0346dd2a1caffcfdf89515e8a3ad921515d32b39d8e28334b87bd5a1bdb6aa9033905f516020612a4d5f395f51905f5290602001610715565b6004805461114e90612168565b80601f016020809104026020016040519081016040528092919081815260200182805461117a90612168565b80156111c55780601f1061119c576101008083540402835291602001916111c5565b820191905f5260205f20905b8154815290600101906020018083116111a857829003601f168201915b505050505081565b5f6111dc87878787878761193b565b979650505050505050565b6111ef6114b4565b5f8181526007602052604090819020805460ff19169055517f1a9888a45e3df8b7e6bb3090747d598d2a0d78e61388161a90799f54df8f4434906112369083815260200190565b60405180910390a16040515f815281907f1a2d46e254225ae2e84638f6fcb742191317930982ce206e0917877506edc3a09033905f516020612a4d5f395f51905f5290602001610715565b5f60607f8dd11fcce5839087111530125177803569655488ae47b1f980ef0b1a711bf07c6112b260e0850185612534565b6040516112c0929190612525565b60405180910390201461130a57505060408051808201909152601c81527f54434220737461747573206973206e6f7420757020746f20646174650000000060208201525f92909150565b60c08301355f9081526008602052604090205460ff1661135b57505060408051808201909152601781527613d4c81a5b5859d9481a5cc81b9bdd08185b1b1bddd959604a1b60208201525f92909150565b60808301355f9081526006602052604090205460ff166113b257505060408051808201909152601981527f41676772656761746564204d52206e6f7420616c6c6f7765640000000000000060208201525f92909150565b60608301355f9081526007602052604090205460ff166113ef575f604051806060016040528060298152602001612a6d6029913991509150915091565b505060408051602081019091525f8152600192909150565b5f807f237e158222e3e6968b72b9db0d8043aacf074ad9f650f0d1606b4d82ee432c00611097565b6114376114b4565b7f237e158222e3e6968b72b9db0d8043aacf074ad9f650f0d1606b4d82ee432c0080546001600160a01b0319166001600160a01b038316908117825561147b611073565b6001600160a01b03167f38d16b8cac22d99fc7c124b9cd0de2d3fa1faef420bfe791d8c362d765e2270060405160405180910390a35050565b336114bd611073565b6001600160a01b031614610f455760405163118cdaa760e01b8152336004820152602401610dd3565b6001600160a01b03811661152d5760405162461bcd60e51b815260206004820152600e60248201526d125b9d985b1a5908185c1c08125160921b6044820152606401610dd3565b6001600160a01b0381165f81815260056020908152604091829020805460ff1916600117905590519182527f0d540ad8f39e07d19909687352b9fa017405d93c91a6760981fbae9cf28bfef7910160405180910390a1604051600181526001600160a01b038216907f1a61f88f2e67632c1bf4321c88aec40bbf788e2b1a14b69f1186e6a3a31d90289033905f516020612a4d5f395f51905f5290602001610715565b6001600160a01b0381166116265760405162461bcd60e51b815260206004820152601e60248201527f496e76616c696420696d706c656d656e746174696f6e206164647265737300006044820152606401610dd3565b600980546001600160a01b0319166001600160a01b0383169081179091556040519081527f08bb433f12b5fd81d2d5e0deeb3b4d28371781ddbd80e9d053e7468d2b1aa82d9060200160405180910390a1604051600181526001600160a01b038216907feec6b85dea30e3cb63f324855a4722f1bf23ddd4c142a551610e18744a1937349033905f516020612a4d5f395f51905f5290602001610715565b5f807ff0c57e16840df040f15088dc2f81fe391c3923bec73e23a9662efc9c229c6a00610675565b6116f4611ac9565b61095c81611aee565b610f45611ac9565b306001600160a01b037f000000000000000000000000000000000000000000000000000000000000000016148061178b57507f00000000000000000000000000000000000000000000000000000000000000006001600160a01b031661177f5f516020612a965f395f51905f52546001600160a01b031690565b6001600160a01b031614155b15610f455760405163703e46dd60e11b815260040160405180910390fd5b6117b16114b4565b604051600181526001600160a01b038216907fdd3079240d4e002c905dcbcaf6b06d77e782afb127bbb837120b8c7fc6703da39033905f516020612a4d5f395f51905f5290602001610715565b816001600160a01b03166352d1902d6040518163ffffffff1660e01b8152600401602060405180830381865afa925050508015611858575060408051601f3d908101601f1916820190925261185591810190612692565b60015b61188057604051634c9c8ce360e01b81526001600160a01b0383166004820152602401610dd3565b5f516020612a965f395f51905f5281146118b057604051632a87526960e21b815260048101829052602401610dd3565b6109748383611b1f565b306001600160a01b037f00000000000000000000000000000000000000000000000000000000000000001614610f455760405163703e46dd60e11b815260040160405180910390fd5b7f237e158222e3e6968b72b9db0d8043aacf074ad9f650f0d1606b4d82ee432c0080546001600160a01b0319168155610f1582611b74565b6009545f906001600160a01b03166119955760405162461bcd60e51b815260206004820181905260248201527f44737461636b41707020696d706c656d656e746174696f6e206e6f74207365746044820152606401610dd3565b6001600160a01b0387166119e35760405162461bcd60e51b8152602060048201526015602482015274496e76616c6964206f776e6572206164647265737360581b6044820152606401610dd3565b6009546040516001600160a01b03898116602483015288151560448301528715156064830152861515608483015260a4820186905260c482018590529091169060e40160408051601f198184030181529181526020820180516001600160e01b0316639ed2819360e01b17905251611a5a90611d56565b611a659291906126a9565b604051809103905ff080158015611a7e573d5f5f3e3d5ffd5b509050611a8a816114e6565b60405133906001600160a01b038316907ffd86d7f6962eba3b7a3bf9129c06c0b2f885e1c61ef2c9f0dbb856be0deefdee905f90a39695505050505050565b611ad1611be4565b610f4557604051631afcd79f60e31b815260040160405180910390fd5b611af6611ac9565b6001600160a01b038116610f9857604051631e4fbdf760e01b81525f6004820152602401610dd3565b611b2882611bfd565b6040516001600160a01b038316907fbc7cd75a20ee27fd9adebab32041f755214dbc6bffa90cc0225b39da2e5c2d3b905f90a2805115611b6c576109748282611c60565b610f15611d00565b7f9016d09d72d40fdae2fd8ceac6b6234c7706214fd39c1cd1e609a0528c19930080546001600160a01b031981166001600160a01b03848116918217845560405192169182907f8be0079c531659141344cd1fd0a4f28419497f9722a3daafe3b4186f6b6457e0905f90a3505050565b5f611bed6116c4565b54600160401b900460ff16919050565b806001600160a01b03163b5f03611c3257604051634c9c8ce360e01b81526001600160a01b0382166004820152602401610dd3565b5f516020612a965f395f51905f5280546001600160a01b0319166001600160a01b0392909216919091179055565b60605f611c6d8484611d1f565b9050808015611c8e57505f3d1180611c8e57505f846001600160a01b03163b115b15611ca357611c9b611d32565b915050610675565b8015611ccd57604051639996b31560e01b81526001600160a01b0385166004820152602401610dd3565b3d15611ce057611cdb611d4b565b611cf9565b60405163d6bda27560e01b815260040160405180910390fd5b5092915050565b3415610f455760405163b398979f60e01b815260040160405180910390fd5b5f5f5f835160208501865af49392505050565b6040513d81523d5f602083013e3d602001810160405290565b6040513d5f823e3d81fd5b610380806126cd83390190565b5f60208284031215611d73575f5ffd5b81356001600160e01b031981168114611d8a575f5ffd5b9392505050565b5f60208284031215611da1575f5ffd5b5035919050565b5f81518084528060208401602086015e5f602082860101526020601f19601f83011685010191505092915050565b608081525f611de86080830187611da8565b8281036020840152611dfa8187611da8565b90508281036040840152611e0e8186611da8565b905082810360608401526111dc8185611da8565b80356001600160a01b0381168114611e38575f5ffd5b919050565b5f60208284031215611e4d575f5ffd5b611d8a82611e22565b5f5f83601f840112611e66575f5ffd5b5081356001600160401b03811115611e7c575f5ffd5b602083019150836020828501011115611e93575f5ffd5b9250929050565b5f5f60208385031215611eab575f5ffd5b82356001600160401b03811115611ec0575f5ffd5b611ecc85828601611e56565b90969095509350505050565b5f60208284031215611ee8575f5ffd5b81356001600160401b03811115611efd575f5ffd5b82016101208185031215611d8a575f5ffd5b8215158152604060208201525f611f296040830184611da8565b949350505050565b5f5f60408385031215611f42575f5ffd5b611f4b83611e22565b9150611f5960208401611e22565b90509250929050565b634e487b7160e01b5f52604160045260245ffd5b604051601f8201601f191681016001600160401b0381118282101715611f9e57611f9e611f62565b604052919050565b5f6001600160401b03821115611fbe57611fbe611f62565b50601f01601f191660200190565b5f5f60408385031215611fdd575f5ffd5b611fe683611e22565b915060208301356001600160401b03811115612000575f5ffd5b8301601f81018513612010575f5ffd5b803561202361201e82611fa6565b611f76565b818152866020838501011115612037575f5ffd5b816020840160208301375f602083830101528093505050509250929050565b5f60208284031215612066575f5ffd5b81356001600160401b0381111561207b575f5ffd5b820160808185031215611d8a575f5ffd5b801515811461095c575f5ffd5b5f5f5f5f5f60a086880312156120ad575f5ffd5b6120b686611e22565b945060208601356120c68161208c565b935060408601356120d68161208c565b94979396509394606081013594506080013592915050565b602081525f611d8a6020830184611da8565b5f5f5f5f5f5f60c08789031215612115575f5ffd5b61211e87611e22565b9550602087013561212e8161208c565b9450604087013561213e8161208c565b9350606087013561214e8161208c565b9598949750929560808101359460a0909101359350915050565b600181811c9082168061217c57607f821691505b60208210810361219a57634e487b7160e01b5f52602260045260245ffd5b50919050565b601f821115610974578282111561097457805f5260205f20601f840160051c60208510156121cb57505f5b90810190601f840160051c035f5b818110156121ee575f838201556001016121d9565b505050505050565b6001600160401b0383111561220d5761220d611f62565b6122218361221b8354612168565b836121a0565b5f601f841160018114612252575f851561223b5750838201355b5f19600387901b1c1916600186901b1783556122a9565b5f83815260208120601f198716915b828110156122815786850135825560209485019460019092019101612261565b508682101561229d575f1960f88860031b161c19848701351681555b505060018560011b0183555b5050505050565b5f5f8335601e198436030181126122c5575f5ffd5b83016020810192503590506001600160401b038111156122e3575f5ffd5b803603821315611e93575f5ffd5b81835281816020850137505f828201602090810191909152601f909101601f19169091010190565b5f5f8335601e1984360301811261232e575f5ffd5b83016020810192503590506001600160401b0381111561234c575f5ffd5b8060051b3603821315611e93575f5ffd5b5f8383855260208501945060208460051b820101835f5b868110156123b257838303601f1901885261238f82876122b0565b61239a8582846122f1565b60209a8b019a90955093909301925050600101612374565b50909695505050505050565b602081526123df602082016123d284611e22565b6001600160a01b03169052565b5f5f60208401359050806040840152506123fb60408401611e22565b6001600160a01b038116606084015250606083013560808381019190915283013560a08084019190915283013560c08084019190915283013560e080840191909152612449908401846122b0565b610120610100850152612461610140850182846122f1565b915050612472610100850185612319565b848303601f190161012086015261106983828461235d565b5f5f6040838503121561249b575f5ffd5b82516124a68161208c565b60208401519092506001600160401b038111156124c1575f5ffd5b8301601f810185136124d1575f5ffd5b80516124df61201e82611fa6565b8181528660208385010111156124f3575f5ffd5b8160208401602083015e5f602083830101528093505050509250929050565b602081525f611f296020830184866122f1565b818382375f9101908152919050565b5f5f8335601e19843603018112612549575f5ffd5b8301803591506001600160401b03821115612562575f5ffd5b602001915036819003821315611e93575f5ffd5b6125808283612534565b6001600160401b0381111561259757612597611f62565b6125ab816125a58554612168565b856121a0565b5f601f8211600181146125dc575f83156125c55750838201355b5f19600385901b1c1916600184901b178555612633565b5f85815260208120601f198516915b8281101561260b57868501358255602094850194600190920191016125eb565b5084821015612627575f1960f88660031b161c19848701351681555b505060018360011b0185555b505050506126446020830183612534565b6126528183600186016121f6565b50506126616040830183612534565b61266f8183600286016121f6565b505061267e6060830183612534565b61268c8183600386016121f6565b50505050565b5f602082840312156126a2575f5ffd5b5051919050565b6001600160a01b03831681526040602082018190525f90611f2990830184611da856fe608060405260405161038038038061038083398101604081905261002291610238565b8051610041576040516330a289cf60e21b815260040160405180910390fd5b61004b8282610052565b5050610307565b61005b826100b0565b6040516001600160a01b038316907fbc7cd75a20ee27fd9adebab32041f755214dbc6bffa90cc0225b39da2e5c2d3b905f90a28051156100a45761009f828261012b565b505050565b6100ac6101cc565b5050565b806001600160a01b03163b5f036100ea57604051634c9c8ce360e01b81526001600160a01b03821660048201526024015b60405180910390fd5b7f360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc80546001600160a01b0319166001600160a01b0392909216919091179055565b60605f61013884846101ed565b905080801561015957505f3d118061015957505f846001600160a01b03163b115b1561016e57610166610200565b9150506101c6565b801561019857604051639996b31560e01b81526001600160a01b03851660048201526024016100e1565b3d156101ab576101a6610219565b6101c4565b60405163d6bda27560e01b815260040160405180910390fd5b505b92915050565b34156101eb5760405163b398979f60e01b815260040160405180910390fd5b565b5f5f5f835160208501865af49392505050565b6040513d81523d5f602083013e3d602001810160405290565b6040513d5f823e3d81fd5b634e487b7160e01b5f52604160045260245ffd5b5f5f60408385031215610249575f5ffd5b82516001600160a01b038116811461025f575f5ffd5b60208401519092506001600160401b0381111561027a575f5ffd5b8301601f8101851361028a575f5ffd5b80516001600160401b038111156102a3576102a3610224565b604051601f8201601f19908116603f011681016001600160401b03811182821017156102d1576102d1610224565b6040528181528282016020018710156102e8575f5ffd5b8160208401602083015e5f602083830101528093505050509250929050565b606d806103135f395ff3fe6080604052600a600c565b005b60186014601a565b6050565b565b5f604b7f360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc546001600160a01b031690565b905090565b365f5f375f5f365f845af43d5f5f3e8080156069573d5ff35b3d5ffd341d3bc64e32172fc5bcf27b0f7f69dc5adc19af64b7aa1dee361e5883c323754b4d53206973206e6f7420616c6c6f77656420746f20626f6f74206f6e207468697320646576696365360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc417070206e6f74206465706c6f796564206f7220696e76616c69642061646472657373",
}

// DstackKms is an auto generated Go binding around an Ethereum contract.
type DstackKms struct {
	abi abi.ABI
}

// NewDstackKms creates a new instance of DstackKms.
func NewDstackKms() *DstackKms {
	parsed, err := DstackKmsMetaData.ParseABI()
	if err != nil {
		panic(errors.New("invalid ABI: " + err.Error()))
	}
	return &DstackKms{abi: *parsed}
}

// Instance creates a wrapper for a deployed contract instance at the given address.
// Use this to create the instance object passed to abigen v2 library functions Call, Transact, etc.
func (c *DstackKms) Instance(backend bind.ContractBackend, addr common.Address) *bind.BoundContract {
	return bind.NewBoundContract(addr, c.abi, backend, backend, backend)
}

// PackUPGRADEINTERFACEVERSION is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xad3cb1cc.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function UPGRADE_INTERFACE_VERSION() view returns(string)
func (dstackKms *DstackKms) PackUPGRADEINTERFACEVERSION() []byte {
	enc, err := dstackKms.abi.Pack("UPGRADE_INTERFACE_VERSION")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackUPGRADEINTERFACEVERSION is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xad3cb1cc.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function UPGRADE_INTERFACE_VERSION() view returns(string)
func (dstackKms *DstackKms) TryPackUPGRADEINTERFACEVERSION() ([]byte, error) {
	return dstackKms.abi.Pack("UPGRADE_INTERFACE_VERSION")
}

// UnpackUPGRADEINTERFACEVERSION is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0xad3cb1cc.
//
// Solidity: function UPGRADE_INTERFACE_VERSION() view returns(string)
func (dstackKms *DstackKms) UnpackUPGRADEINTERFACEVERSION(data []byte) (string, error) {
	out, err := dstackKms.abi.Unpack("UPGRADE_INTERFACE_VERSION", data)
	if err != nil {
		return *new(string), err
	}
	out0 := *abi.ConvertType(out[0], new(string)).(*string)
	return out0, nil
}

// PackAcceptOwnership is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x79ba5097.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function acceptOwnership() returns()
func (dstackKms *DstackKms) PackAcceptOwnership() []byte {
	enc, err := dstackKms.abi.Pack("acceptOwnership")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackAcceptOwnership is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x79ba5097.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function acceptOwnership() returns()
func (dstackKms *DstackKms) TryPackAcceptOwnership() ([]byte, error) {
	return dstackKms.abi.Pack("acceptOwnership")
}

// PackAddKmsAggregatedMr is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x3e32d346.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function addKmsAggregatedMr(bytes32 mrAggregated) returns()
func (dstackKms *DstackKms) PackAddKmsAggregatedMr(mrAggregated [32]byte) []byte {
	enc, err := dstackKms.abi.Pack("addKmsAggregatedMr", mrAggregated)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackAddKmsAggregatedMr is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x3e32d346.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function addKmsAggregatedMr(bytes32 mrAggregated) returns()
func (dstackKms *DstackKms) TryPackAddKmsAggregatedMr(mrAggregated [32]byte) ([]byte, error) {
	return dstackKms.abi.Pack("addKmsAggregatedMr", mrAggregated)
}

// PackAddKmsDevice is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x4d5922a1.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function addKmsDevice(bytes32 deviceId) returns()
func (dstackKms *DstackKms) PackAddKmsDevice(deviceId [32]byte) []byte {
	enc, err := dstackKms.abi.Pack("addKmsDevice", deviceId)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackAddKmsDevice is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x4d5922a1.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function addKmsDevice(bytes32 deviceId) returns()
func (dstackKms *DstackKms) TryPackAddKmsDevice(deviceId [32]byte) ([]byte, error) {
	return dstackKms.abi.Pack("addKmsDevice", deviceId)
}

// PackAddOsImageHash is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x06a3ae96.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function addOsImageHash(bytes32 osImageHash) returns()
func (dstackKms *DstackKms) PackAddOsImageHash(osImageHash [32]byte) []byte {
	enc, err := dstackKms.abi.Pack("addOsImageHash", osImageHash)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackAddOsImageHash is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x06a3ae96.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function addOsImageHash(bytes32 osImageHash) returns()
func (dstackKms *DstackKms) TryPackAddOsImageHash(osImageHash [32]byte) ([]byte, error) {
	return dstackKms.abi.Pack("addOsImageHash", osImageHash)
}

// PackAllowedOsImages is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x9a4e1d18.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function allowedOsImages(bytes32 ) view returns(bool)
func (dstackKms *DstackKms) PackAllowedOsImages(arg0 [32]byte) []byte {
	enc, err := dstackKms.abi.Pack("allowedOsImages", arg0)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackAllowedOsImages is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x9a4e1d18.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function allowedOsImages(bytes32 ) view returns(bool)
func (dstackKms *DstackKms) TryPackAllowedOsImages(arg0 [32]byte) ([]byte, error) {
	return dstackKms.abi.Pack("allowedOsImages", arg0)
}

// UnpackAllowedOsImages is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x9a4e1d18.
//
// Solidity: function allowedOsImages(bytes32 ) view returns(bool)
func (dstackKms *DstackKms) UnpackAllowedOsImages(data []byte) (bool, error) {
	out, err := dstackKms.abi.Unpack("allowedOsImages", data)
	if err != nil {
		return *new(bool), err
	}
	out0 := *abi.ConvertType(out[0], new(bool)).(*bool)
	return out0, nil
}

// PackAppImplementation is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x25a992da.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function appImplementation() view returns(address)
func (dstackKms *DstackKms) PackAppImplementation() []byte {
	enc, err := dstackKms.abi.Pack("appImplementation")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackAppImplementation is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x25a992da.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function appImplementation() view returns(address)
func (dstackKms *DstackKms) TryPackAppImplementation() ([]byte, error) {
	return dstackKms.abi.Pack("appImplementation")
}

// UnpackAppImplementation is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x25a992da.
//
// Solidity: function appImplementation() view returns(address)
func (dstackKms *DstackKms) UnpackAppImplementation(data []byte) (common.Address, error) {
	out, err := dstackKms.abi.Unpack("appImplementation", data)
	if err != nil {
		return *new(common.Address), err
	}
	out0 := *abi.ConvertType(out[0], new(common.Address)).(*common.Address)
	return out0, nil
}

// PackDeployAndRegisterApp is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x8618169d.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function deployAndRegisterApp(address initialOwner, bool disableUpgrades, bool allowAnyDevice, bytes32 initialDeviceId, bytes32 initialComposeHash) returns(address appId)
func (dstackKms *DstackKms) PackDeployAndRegisterApp(initialOwner common.Address, disableUpgrades bool, allowAnyDevice bool, initialDeviceId [32]byte, initialComposeHash [32]byte) []byte {
	enc, err := dstackKms.abi.Pack("deployAndRegisterApp", initialOwner, disableUpgrades, allowAnyDevice, initialDeviceId, initialComposeHash)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackDeployAndRegisterApp is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x8618169d.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function deployAndRegisterApp(address initialOwner, bool disableUpgrades, bool allowAnyDevice, bytes32 initialDeviceId, bytes32 initialComposeHash) returns(address appId)
func (dstackKms *DstackKms) TryPackDeployAndRegisterApp(initialOwner common.Address, disableUpgrades bool, allowAnyDevice bool, initialDeviceId [32]byte, initialComposeHash [32]byte) ([]byte, error) {
	return dstackKms.abi.Pack("deployAndRegisterApp", initialOwner, disableUpgrades, allowAnyDevice, initialDeviceId, initialComposeHash)
}

// UnpackDeployAndRegisterApp is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x8618169d.
//
// Solidity: function deployAndRegisterApp(address initialOwner, bool disableUpgrades, bool allowAnyDevice, bytes32 initialDeviceId, bytes32 initialComposeHash) returns(address appId)
func (dstackKms *DstackKms) UnpackDeployAndRegisterApp(data []byte) (common.Address, error) {
	out, err := dstackKms.abi.Unpack("deployAndRegisterApp", data)
	if err != nil {
		return *new(common.Address), err
	}
	out0 := *abi.ConvertType(out[0], new(common.Address)).(*common.Address)
	return out0, nil
}

// PackDeployAndRegisterApp0 is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x9cb9c31f.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function deployAndRegisterApp(address initialOwner, bool disableUpgrades, bool requireTcbUpToDate, bool allowAnyDevice, bytes32 initialDeviceId, bytes32 initialComposeHash) returns(address appId)
func (dstackKms *DstackKms) PackDeployAndRegisterApp0(initialOwner common.Address, disableUpgrades bool, requireTcbUpToDate bool, allowAnyDevice bool, initialDeviceId [32]byte, initialComposeHash [32]byte) []byte {
	enc, err := dstackKms.abi.Pack("deployAndRegisterApp0", initialOwner, disableUpgrades, requireTcbUpToDate, allowAnyDevice, initialDeviceId, initialComposeHash)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackDeployAndRegisterApp0 is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x9cb9c31f.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function deployAndRegisterApp(address initialOwner, bool disableUpgrades, bool requireTcbUpToDate, bool allowAnyDevice, bytes32 initialDeviceId, bytes32 initialComposeHash) returns(address appId)
func (dstackKms *DstackKms) TryPackDeployAndRegisterApp0(initialOwner common.Address, disableUpgrades bool, requireTcbUpToDate bool, allowAnyDevice bool, initialDeviceId [32]byte, initialComposeHash [32]byte) ([]byte, error) {
	return dstackKms.abi.Pack("deployAndRegisterApp0", initialOwner, disableUpgrades, requireTcbUpToDate, allowAnyDevice, initialDeviceId, initialComposeHash)
}

// UnpackDeployAndRegisterApp0 is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x9cb9c31f.
//
// Solidity: function deployAndRegisterApp(address initialOwner, bool disableUpgrades, bool requireTcbUpToDate, bool allowAnyDevice, bytes32 initialDeviceId, bytes32 initialComposeHash) returns(address appId)
func (dstackKms *DstackKms) UnpackDeployAndRegisterApp0(data []byte) (common.Address, error) {
	out, err := dstackKms.abi.Unpack("deployAndRegisterApp0", data)
	if err != nil {
		return *new(common.Address), err
	}
	out0 := *abi.ConvertType(out[0], new(common.Address)).(*common.Address)
	return out0, nil
}

// PackGatewayAppId is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x95f51931.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function gatewayAppId() view returns(string)
func (dstackKms *DstackKms) PackGatewayAppId() []byte {
	enc, err := dstackKms.abi.Pack("gatewayAppId")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackGatewayAppId is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x95f51931.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function gatewayAppId() view returns(string)
func (dstackKms *DstackKms) TryPackGatewayAppId() ([]byte, error) {
	return dstackKms.abi.Pack("gatewayAppId")
}

// UnpackGatewayAppId is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x95f51931.
//
// Solidity: function gatewayAppId() view returns(string)
func (dstackKms *DstackKms) UnpackGatewayAppId(data []byte) (string, error) {
	out, err := dstackKms.abi.Unpack("gatewayAppId", data)
	if err != nil {
		return *new(string), err
	}
	out0 := *abi.ConvertType(out[0], new(string)).(*string)
	return out0, nil
}

// PackInitialize is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x485cc955.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function initialize(address initialOwner, address appImpl) returns()
func (dstackKms *DstackKms) PackInitialize(initialOwner common.Address, appImpl common.Address) []byte {
	enc, err := dstackKms.abi.Pack("initialize", initialOwner, appImpl)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackInitialize is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x485cc955.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function initialize(address initialOwner, address appImpl) returns()
func (dstackKms *DstackKms) TryPackInitialize(initialOwner common.Address, appImpl common.Address) ([]byte, error) {
	return dstackKms.abi.Pack("initialize", initialOwner, appImpl)
}

// PackIsAppAllowed is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x1e079198.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function isAppAllowed((address,bytes32,address,bytes32,bytes32,bytes32,bytes32,string,string[]) bootInfo) view returns(bool isAllowed, string reason)
func (dstackKms *DstackKms) PackIsAppAllowed(bootInfo IAppAuthAppBootInfo) []byte {
	enc, err := dstackKms.abi.Pack("isAppAllowed", bootInfo)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackIsAppAllowed is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x1e079198.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function isAppAllowed((address,bytes32,address,bytes32,bytes32,bytes32,bytes32,string,string[]) bootInfo) view returns(bool isAllowed, string reason)
func (dstackKms *DstackKms) TryPackIsAppAllowed(bootInfo IAppAuthAppBootInfo) ([]byte, error) {
	return dstackKms.abi.Pack("isAppAllowed", bootInfo)
}

// KmsIsAppAllowedOutput serves as a container for the return parameters of contract
// method IsAppAllowed.
type KmsIsAppAllowedOutput struct {
	IsAllowed bool
	Reason    string
}

// UnpackIsAppAllowed is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x1e079198.
//
// Solidity: function isAppAllowed((address,bytes32,address,bytes32,bytes32,bytes32,bytes32,string,string[]) bootInfo) view returns(bool isAllowed, string reason)
func (dstackKms *DstackKms) UnpackIsAppAllowed(data []byte) (KmsIsAppAllowedOutput, error) {
	out, err := dstackKms.abi.Unpack("isAppAllowed", data)
	outstruct := new(KmsIsAppAllowedOutput)
	if err != nil {
		return *outstruct, err
	}
	outstruct.IsAllowed = *abi.ConvertType(out[0], new(bool)).(*bool)
	outstruct.Reason = *abi.ConvertType(out[1], new(string)).(*string)
	return *outstruct, nil
}

// PackIsKmsAllowed is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xe067ec9d.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function isKmsAllowed((address,bytes32,address,bytes32,bytes32,bytes32,bytes32,string,string[]) bootInfo) view returns(bool isAllowed, string reason)
func (dstackKms *DstackKms) PackIsKmsAllowed(bootInfo IAppAuthAppBootInfo) []byte {
	enc, err := dstackKms.abi.Pack("isKmsAllowed", bootInfo)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackIsKmsAllowed is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xe067ec9d.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function isKmsAllowed((address,bytes32,address,bytes32,bytes32,bytes32,bytes32,string,string[]) bootInfo) view returns(bool isAllowed, string reason)
func (dstackKms *DstackKms) TryPackIsKmsAllowed(bootInfo IAppAuthAppBootInfo) ([]byte, error) {
	return dstackKms.abi.Pack("isKmsAllowed", bootInfo)
}

// IsKmsAllowedOutput serves as a container for the return parameters of contract
// method IsKmsAllowed.
type IsKmsAllowedOutput struct {
	IsAllowed bool
	Reason    string
}

// UnpackIsKmsAllowed is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0xe067ec9d.
//
// Solidity: function isKmsAllowed((address,bytes32,address,bytes32,bytes32,bytes32,bytes32,string,string[]) bootInfo) view returns(bool isAllowed, string reason)
func (dstackKms *DstackKms) UnpackIsKmsAllowed(data []byte) (IsKmsAllowedOutput, error) {
	out, err := dstackKms.abi.Unpack("isKmsAllowed", data)
	outstruct := new(IsKmsAllowedOutput)
	if err != nil {
		return *outstruct, err
	}
	outstruct.IsAllowed = *abi.ConvertType(out[0], new(bool)).(*bool)
	outstruct.Reason = *abi.ConvertType(out[1], new(string)).(*string)
	return *outstruct, nil
}

// PackKmsAllowedAggregatedMrs is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xf6fe4f40.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function kmsAllowedAggregatedMrs(bytes32 ) view returns(bool)
func (dstackKms *DstackKms) PackKmsAllowedAggregatedMrs(arg0 [32]byte) []byte {
	enc, err := dstackKms.abi.Pack("kmsAllowedAggregatedMrs", arg0)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackKmsAllowedAggregatedMrs is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xf6fe4f40.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function kmsAllowedAggregatedMrs(bytes32 ) view returns(bool)
func (dstackKms *DstackKms) TryPackKmsAllowedAggregatedMrs(arg0 [32]byte) ([]byte, error) {
	return dstackKms.abi.Pack("kmsAllowedAggregatedMrs", arg0)
}

// UnpackKmsAllowedAggregatedMrs is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0xf6fe4f40.
//
// Solidity: function kmsAllowedAggregatedMrs(bytes32 ) view returns(bool)
func (dstackKms *DstackKms) UnpackKmsAllowedAggregatedMrs(data []byte) (bool, error) {
	out, err := dstackKms.abi.Unpack("kmsAllowedAggregatedMrs", data)
	if err != nil {
		return *new(bool), err
	}
	out0 := *abi.ConvertType(out[0], new(bool)).(*bool)
	return out0, nil
}

// PackKmsAllowedDeviceIds is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x13eb9770.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function kmsAllowedDeviceIds(bytes32 ) view returns(bool)
func (dstackKms *DstackKms) PackKmsAllowedDeviceIds(arg0 [32]byte) []byte {
	enc, err := dstackKms.abi.Pack("kmsAllowedDeviceIds", arg0)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackKmsAllowedDeviceIds is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x13eb9770.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function kmsAllowedDeviceIds(bytes32 ) view returns(bool)
func (dstackKms *DstackKms) TryPackKmsAllowedDeviceIds(arg0 [32]byte) ([]byte, error) {
	return dstackKms.abi.Pack("kmsAllowedDeviceIds", arg0)
}

// UnpackKmsAllowedDeviceIds is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x13eb9770.
//
// Solidity: function kmsAllowedDeviceIds(bytes32 ) view returns(bool)
func (dstackKms *DstackKms) UnpackKmsAllowedDeviceIds(data []byte) (bool, error) {
	out, err := dstackKms.abi.Unpack("kmsAllowedDeviceIds", data)
	if err != nil {
		return *new(bool), err
	}
	out0 := *abi.ConvertType(out[0], new(bool)).(*bool)
	return out0, nil
}

// PackKmsInfo is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x09177063.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function kmsInfo() view returns(bytes k256Pubkey, bytes caPubkey, bytes quote, bytes eventlog)
func (dstackKms *DstackKms) PackKmsInfo() []byte {
	enc, err := dstackKms.abi.Pack("kmsInfo")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackKmsInfo is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x09177063.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function kmsInfo() view returns(bytes k256Pubkey, bytes caPubkey, bytes quote, bytes eventlog)
func (dstackKms *DstackKms) TryPackKmsInfo() ([]byte, error) {
	return dstackKms.abi.Pack("kmsInfo")
}

// KmsInfoOutput serves as a container for the return parameters of contract
// method KmsInfo.
type KmsInfoOutput struct {
	K256Pubkey []byte
	CaPubkey   []byte
	Quote      []byte
	Eventlog   []byte
}

// UnpackKmsInfo is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x09177063.
//
// Solidity: function kmsInfo() view returns(bytes k256Pubkey, bytes caPubkey, bytes quote, bytes eventlog)
func (dstackKms *DstackKms) UnpackKmsInfo(data []byte) (KmsInfoOutput, error) {
	out, err := dstackKms.abi.Unpack("kmsInfo", data)
	outstruct := new(KmsInfoOutput)
	if err != nil {
		return *outstruct, err
	}
	outstruct.K256Pubkey = *abi.ConvertType(out[0], new([]byte)).(*[]byte)
	outstruct.CaPubkey = *abi.ConvertType(out[1], new([]byte)).(*[]byte)
	outstruct.Quote = *abi.ConvertType(out[2], new([]byte)).(*[]byte)
	outstruct.Eventlog = *abi.ConvertType(out[3], new([]byte)).(*[]byte)
	return *outstruct, nil
}

// PackOwner is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x8da5cb5b.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function owner() view returns(address)
func (dstackKms *DstackKms) PackOwner() []byte {
	enc, err := dstackKms.abi.Pack("owner")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackOwner is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x8da5cb5b.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function owner() view returns(address)
func (dstackKms *DstackKms) TryPackOwner() ([]byte, error) {
	return dstackKms.abi.Pack("owner")
}

// UnpackOwner is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x8da5cb5b.
//
// Solidity: function owner() view returns(address)
func (dstackKms *DstackKms) UnpackOwner(data []byte) (common.Address, error) {
	out, err := dstackKms.abi.Unpack("owner", data)
	if err != nil {
		return *new(common.Address), err
	}
	out0 := *abi.ConvertType(out[0], new(common.Address)).(*common.Address)
	return out0, nil
}

// PackPendingOwner is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xe30c3978.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function pendingOwner() view returns(address)
func (dstackKms *DstackKms) PackPendingOwner() []byte {
	enc, err := dstackKms.abi.Pack("pendingOwner")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackPendingOwner is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xe30c3978.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function pendingOwner() view returns(address)
func (dstackKms *DstackKms) TryPackPendingOwner() ([]byte, error) {
	return dstackKms.abi.Pack("pendingOwner")
}

// UnpackPendingOwner is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0xe30c3978.
//
// Solidity: function pendingOwner() view returns(address)
func (dstackKms *DstackKms) UnpackPendingOwner(data []byte) (common.Address, error) {
	out, err := dstackKms.abi.Unpack("pendingOwner", data)
	if err != nil {
		return *new(common.Address), err
	}
	out0 := *abi.ConvertType(out[0], new(common.Address)).(*common.Address)
	return out0, nil
}

// PackProxiableUUID is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x52d1902d.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function proxiableUUID() view returns(bytes32)
func (dstackKms *DstackKms) PackProxiableUUID() []byte {
	enc, err := dstackKms.abi.Pack("proxiableUUID")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackProxiableUUID is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x52d1902d.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function proxiableUUID() view returns(bytes32)
func (dstackKms *DstackKms) TryPackProxiableUUID() ([]byte, error) {
	return dstackKms.abi.Pack("proxiableUUID")
}

// UnpackProxiableUUID is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x52d1902d.
//
// Solidity: function proxiableUUID() view returns(bytes32)
func (dstackKms *DstackKms) UnpackProxiableUUID(data []byte) ([32]byte, error) {
	out, err := dstackKms.abi.Unpack("proxiableUUID", data)
	if err != nil {
		return *new([32]byte), err
	}
	out0 := *abi.ConvertType(out[0], new([32]byte)).(*[32]byte)
	return out0, nil
}

// PackRegisterApp is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x17a1d80f.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function registerApp(address appId) returns()
func (dstackKms *DstackKms) PackRegisterApp(appId common.Address) []byte {
	enc, err := dstackKms.abi.Pack("registerApp", appId)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackRegisterApp is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x17a1d80f.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function registerApp(address appId) returns()
func (dstackKms *DstackKms) TryPackRegisterApp(appId common.Address) ([]byte, error) {
	return dstackKms.abi.Pack("registerApp", appId)
}

// PackRegisteredApps is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xa6c4cce9.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function registeredApps(address ) view returns(bool)
func (dstackKms *DstackKms) PackRegisteredApps(arg0 common.Address) []byte {
	enc, err := dstackKms.abi.Pack("registeredApps", arg0)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackRegisteredApps is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xa6c4cce9.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function registeredApps(address ) view returns(bool)
func (dstackKms *DstackKms) TryPackRegisteredApps(arg0 common.Address) ([]byte, error) {
	return dstackKms.abi.Pack("registeredApps", arg0)
}

// UnpackRegisteredApps is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0xa6c4cce9.
//
// Solidity: function registeredApps(address ) view returns(bool)
func (dstackKms *DstackKms) UnpackRegisteredApps(data []byte) (bool, error) {
	out, err := dstackKms.abi.Unpack("registeredApps", data)
	if err != nil {
		return *new(bool), err
	}
	out0 := *abi.ConvertType(out[0], new(bool)).(*bool)
	return out0, nil
}

// PackRemoveKmsAggregatedMr is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x2adee48d.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function removeKmsAggregatedMr(bytes32 mrAggregated) returns()
func (dstackKms *DstackKms) PackRemoveKmsAggregatedMr(mrAggregated [32]byte) []byte {
	enc, err := dstackKms.abi.Pack("removeKmsAggregatedMr", mrAggregated)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackRemoveKmsAggregatedMr is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x2adee48d.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function removeKmsAggregatedMr(bytes32 mrAggregated) returns()
func (dstackKms *DstackKms) TryPackRemoveKmsAggregatedMr(mrAggregated [32]byte) ([]byte, error) {
	return dstackKms.abi.Pack("removeKmsAggregatedMr", mrAggregated)
}

// PackRemoveKmsDevice is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x9e6f3114.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function removeKmsDevice(bytes32 deviceId) returns()
func (dstackKms *DstackKms) PackRemoveKmsDevice(deviceId [32]byte) []byte {
	enc, err := dstackKms.abi.Pack("removeKmsDevice", deviceId)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackRemoveKmsDevice is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x9e6f3114.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function removeKmsDevice(bytes32 deviceId) returns()
func (dstackKms *DstackKms) TryPackRemoveKmsDevice(deviceId [32]byte) ([]byte, error) {
	return dstackKms.abi.Pack("removeKmsDevice", deviceId)
}

// PackRemoveOsImageHash is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x9425bac6.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function removeOsImageHash(bytes32 osImageHash) returns()
func (dstackKms *DstackKms) PackRemoveOsImageHash(osImageHash [32]byte) []byte {
	enc, err := dstackKms.abi.Pack("removeOsImageHash", osImageHash)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackRemoveOsImageHash is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x9425bac6.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function removeOsImageHash(bytes32 osImageHash) returns()
func (dstackKms *DstackKms) TryPackRemoveOsImageHash(osImageHash [32]byte) ([]byte, error) {
	return dstackKms.abi.Pack("removeOsImageHash", osImageHash)
}

// PackRenounceOwnership is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x715018a6.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function renounceOwnership() returns()
func (dstackKms *DstackKms) PackRenounceOwnership() []byte {
	enc, err := dstackKms.abi.Pack("renounceOwnership")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackRenounceOwnership is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x715018a6.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function renounceOwnership() returns()
func (dstackKms *DstackKms) TryPackRenounceOwnership() ([]byte, error) {
	return dstackKms.abi.Pack("renounceOwnership")
}

// PackSetAppImplementation is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x3ceaaa11.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function setAppImplementation(address implementation) returns()
func (dstackKms *DstackKms) PackSetAppImplementation(implementation common.Address) []byte {
	enc, err := dstackKms.abi.Pack("setAppImplementation", implementation)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackSetAppImplementation is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x3ceaaa11.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function setAppImplementation(address implementation) returns()
func (dstackKms *DstackKms) TryPackSetAppImplementation(implementation common.Address) ([]byte, error) {
	return dstackKms.abi.Pack("setAppImplementation", implementation)
}

// PackSetGatewayAppId is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x3971db27.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function setGatewayAppId(string appId) returns()
func (dstackKms *DstackKms) PackSetGatewayAppId(appId string) []byte {
	enc, err := dstackKms.abi.Pack("setGatewayAppId", appId)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackSetGatewayAppId is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x3971db27.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function setGatewayAppId(string appId) returns()
func (dstackKms *DstackKms) TryPackSetGatewayAppId(appId string) ([]byte, error) {
	return dstackKms.abi.Pack("setGatewayAppId", appId)
}

// PackSetKmsEventlog is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x736ede7a.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function setKmsEventlog(bytes eventlog) returns()
func (dstackKms *DstackKms) PackSetKmsEventlog(eventlog []byte) []byte {
	enc, err := dstackKms.abi.Pack("setKmsEventlog", eventlog)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackSetKmsEventlog is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x736ede7a.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function setKmsEventlog(bytes eventlog) returns()
func (dstackKms *DstackKms) TryPackSetKmsEventlog(eventlog []byte) ([]byte, error) {
	return dstackKms.abi.Pack("setKmsEventlog", eventlog)
}

// PackSetKmsInfo is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x7d025352.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function setKmsInfo((bytes,bytes,bytes,bytes) info) returns()
func (dstackKms *DstackKms) PackSetKmsInfo(info DstackKmsKmsInfo) []byte {
	enc, err := dstackKms.abi.Pack("setKmsInfo", info)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackSetKmsInfo is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x7d025352.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function setKmsInfo((bytes,bytes,bytes,bytes) info) returns()
func (dstackKms *DstackKms) TryPackSetKmsInfo(info DstackKmsKmsInfo) ([]byte, error) {
	return dstackKms.abi.Pack("setKmsInfo", info)
}

// PackSetKmsQuote is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x18c1ecb2.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function setKmsQuote(bytes quote) returns()
func (dstackKms *DstackKms) PackSetKmsQuote(quote []byte) []byte {
	enc, err := dstackKms.abi.Pack("setKmsQuote", quote)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackSetKmsQuote is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x18c1ecb2.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function setKmsQuote(bytes quote) returns()
func (dstackKms *DstackKms) TryPackSetKmsQuote(quote []byte) ([]byte, error) {
	return dstackKms.abi.Pack("setKmsQuote", quote)
}

// PackSupportsInterface is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x01ffc9a7.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function supportsInterface(bytes4 interfaceId) view returns(bool)
func (dstackKms *DstackKms) PackSupportsInterface(interfaceId [4]byte) []byte {
	enc, err := dstackKms.abi.Pack("supportsInterface", interfaceId)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackSupportsInterface is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x01ffc9a7.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function supportsInterface(bytes4 interfaceId) view returns(bool)
func (dstackKms *DstackKms) TryPackSupportsInterface(interfaceId [4]byte) ([]byte, error) {
	return dstackKms.abi.Pack("supportsInterface", interfaceId)
}

// UnpackSupportsInterface is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x01ffc9a7.
//
// Solidity: function supportsInterface(bytes4 interfaceId) view returns(bool)
func (dstackKms *DstackKms) UnpackSupportsInterface(data []byte) (bool, error) {
	out, err := dstackKms.abi.Unpack("supportsInterface", data)
	if err != nil {
		return *new(bool), err
	}
	out0 := *abi.ConvertType(out[0], new(bool)).(*bool)
	return out0, nil
}

// PackTransferOwnership is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xf2fde38b.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function transferOwnership(address newOwner) returns()
func (dstackKms *DstackKms) PackTransferOwnership(newOwner common.Address) []byte {
	enc, err := dstackKms.abi.Pack("transferOwnership", newOwner)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackTransferOwnership is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xf2fde38b.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function transferOwnership(address newOwner) returns()
func (dstackKms *DstackKms) TryPackTransferOwnership(newOwner common.Address) ([]byte, error) {
	return dstackKms.abi.Pack("transferOwnership", newOwner)
}

// PackUpgradeToAndCall is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x4f1ef286.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function upgradeToAndCall(address newImplementation, bytes data) payable returns()
func (dstackKms *DstackKms) PackUpgradeToAndCall(newImplementation common.Address, data []byte) []byte {
	enc, err := dstackKms.abi.Pack("upgradeToAndCall", newImplementation, data)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackUpgradeToAndCall is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x4f1ef286.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function upgradeToAndCall(address newImplementation, bytes data) payable returns()
func (dstackKms *DstackKms) TryPackUpgradeToAndCall(newImplementation common.Address, data []byte) ([]byte, error) {
	return dstackKms.abi.Pack("upgradeToAndCall", newImplementation, data)
}

// DstackKmsAppDeployedViaFactory represents a AppDeployedViaFactory event raised by the DstackKms contract.
type DstackKmsAppDeployedViaFactory struct {
	AppId    common.Address
	Deployer common.Address
	Raw      *types.Log // Blockchain specific contextual infos
}

const DstackKmsAppDeployedViaFactoryEventName = "AppDeployedViaFactory"

// ContractEventName returns the user-defined event name.
func (DstackKmsAppDeployedViaFactory) ContractEventName() string {
	return DstackKmsAppDeployedViaFactoryEventName
}

// UnpackAppDeployedViaFactoryEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event AppDeployedViaFactory(address indexed appId, address indexed deployer)
func (dstackKms *DstackKms) UnpackAppDeployedViaFactoryEvent(log *types.Log) (*DstackKmsAppDeployedViaFactory, error) {
	event := "AppDeployedViaFactory"
	if len(log.Topics) == 0 || log.Topics[0] != dstackKms.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackKmsAppDeployedViaFactory)
	if len(log.Data) > 0 {
		if err := dstackKms.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackKms.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackKmsAppImplementationSet represents a AppImplementationSet event raised by the DstackKms contract.
type DstackKmsAppImplementationSet struct {
	Implementation common.Address
	Raw            *types.Log // Blockchain specific contextual infos
}

const DstackKmsAppImplementationSetEventName = "AppImplementationSet"

// ContractEventName returns the user-defined event name.
func (DstackKmsAppImplementationSet) ContractEventName() string {
	return DstackKmsAppImplementationSetEventName
}

// UnpackAppImplementationSetEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event AppImplementationSet(address implementation)
func (dstackKms *DstackKms) UnpackAppImplementationSetEvent(log *types.Log) (*DstackKmsAppImplementationSet, error) {
	event := "AppImplementationSet"
	if len(log.Topics) == 0 || log.Topics[0] != dstackKms.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackKmsAppImplementationSet)
	if len(log.Data) > 0 {
		if err := dstackKms.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackKms.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackKmsAppRegistered represents a AppRegistered event raised by the DstackKms contract.
type DstackKmsAppRegistered struct {
	AppId common.Address
	Raw   *types.Log // Blockchain specific contextual infos
}

const DstackKmsAppRegisteredEventName = "AppRegistered"

// ContractEventName returns the user-defined event name.
func (DstackKmsAppRegistered) ContractEventName() string {
	return DstackKmsAppRegisteredEventName
}

// UnpackAppRegisteredEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event AppRegistered(address appId)
func (dstackKms *DstackKms) UnpackAppRegisteredEvent(log *types.Log) (*DstackKmsAppRegistered, error) {
	event := "AppRegistered"
	if len(log.Topics) == 0 || log.Topics[0] != dstackKms.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackKmsAppRegistered)
	if len(log.Data) > 0 {
		if err := dstackKms.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackKms.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackKmsGatewayAppIdSet represents a GatewayAppIdSet event raised by the DstackKms contract.
type DstackKmsGatewayAppIdSet struct {
	GatewayAppId string
	Raw          *types.Log // Blockchain specific contextual infos
}

const DstackKmsGatewayAppIdSetEventName = "GatewayAppIdSet"

// ContractEventName returns the user-defined event name.
func (DstackKmsGatewayAppIdSet) ContractEventName() string {
	return DstackKmsGatewayAppIdSetEventName
}

// UnpackGatewayAppIdSetEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event GatewayAppIdSet(string gatewayAppId)
func (dstackKms *DstackKms) UnpackGatewayAppIdSetEvent(log *types.Log) (*DstackKmsGatewayAppIdSet, error) {
	event := "GatewayAppIdSet"
	if len(log.Topics) == 0 || log.Topics[0] != dstackKms.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackKmsGatewayAppIdSet)
	if len(log.Data) > 0 {
		if err := dstackKms.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackKms.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackKmsInitialized represents a Initialized event raised by the DstackKms contract.
type DstackKmsInitialized struct {
	Version uint64
	Raw     *types.Log // Blockchain specific contextual infos
}

const DstackKmsInitializedEventName = "Initialized"

// ContractEventName returns the user-defined event name.
func (DstackKmsInitialized) ContractEventName() string {
	return DstackKmsInitializedEventName
}

// UnpackInitializedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event Initialized(uint64 version)
func (dstackKms *DstackKms) UnpackInitializedEvent(log *types.Log) (*DstackKmsInitialized, error) {
	event := "Initialized"
	if len(log.Topics) == 0 || log.Topics[0] != dstackKms.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackKmsInitialized)
	if len(log.Data) > 0 {
		if err := dstackKms.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackKms.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackKmsKmsAggregatedMrAdded represents a KmsAggregatedMrAdded event raised by the DstackKms contract.
type DstackKmsKmsAggregatedMrAdded struct {
	MrAggregated [32]byte
	Raw          *types.Log // Blockchain specific contextual infos
}

const DstackKmsKmsAggregatedMrAddedEventName = "KmsAggregatedMrAdded"

// ContractEventName returns the user-defined event name.
func (DstackKmsKmsAggregatedMrAdded) ContractEventName() string {
	return DstackKmsKmsAggregatedMrAddedEventName
}

// UnpackKmsAggregatedMrAddedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event KmsAggregatedMrAdded(bytes32 mrAggregated)
func (dstackKms *DstackKms) UnpackKmsAggregatedMrAddedEvent(log *types.Log) (*DstackKmsKmsAggregatedMrAdded, error) {
	event := "KmsAggregatedMrAdded"
	if len(log.Topics) == 0 || log.Topics[0] != dstackKms.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackKmsKmsAggregatedMrAdded)
	if len(log.Data) > 0 {
		if err := dstackKms.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackKms.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackKmsKmsAggregatedMrRemoved represents a KmsAggregatedMrRemoved event raised by the DstackKms contract.
type DstackKmsKmsAggregatedMrRemoved struct {
	MrAggregated [32]byte
	Raw          *types.Log // Blockchain specific contextual infos
}

const DstackKmsKmsAggregatedMrRemovedEventName = "KmsAggregatedMrRemoved"

// ContractEventName returns the user-defined event name.
func (DstackKmsKmsAggregatedMrRemoved) ContractEventName() string {
	return DstackKmsKmsAggregatedMrRemovedEventName
}

// UnpackKmsAggregatedMrRemovedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event KmsAggregatedMrRemoved(bytes32 mrAggregated)
func (dstackKms *DstackKms) UnpackKmsAggregatedMrRemovedEvent(log *types.Log) (*DstackKmsKmsAggregatedMrRemoved, error) {
	event := "KmsAggregatedMrRemoved"
	if len(log.Topics) == 0 || log.Topics[0] != dstackKms.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackKmsKmsAggregatedMrRemoved)
	if len(log.Data) > 0 {
		if err := dstackKms.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackKms.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackKmsKmsDeviceAdded represents a KmsDeviceAdded event raised by the DstackKms contract.
type DstackKmsKmsDeviceAdded struct {
	DeviceId [32]byte
	Raw      *types.Log // Blockchain specific contextual infos
}

const DstackKmsKmsDeviceAddedEventName = "KmsDeviceAdded"

// ContractEventName returns the user-defined event name.
func (DstackKmsKmsDeviceAdded) ContractEventName() string {
	return DstackKmsKmsDeviceAddedEventName
}

// UnpackKmsDeviceAddedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event KmsDeviceAdded(bytes32 deviceId)
func (dstackKms *DstackKms) UnpackKmsDeviceAddedEvent(log *types.Log) (*DstackKmsKmsDeviceAdded, error) {
	event := "KmsDeviceAdded"
	if len(log.Topics) == 0 || log.Topics[0] != dstackKms.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackKmsKmsDeviceAdded)
	if len(log.Data) > 0 {
		if err := dstackKms.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackKms.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackKmsKmsDeviceRemoved represents a KmsDeviceRemoved event raised by the DstackKms contract.
type DstackKmsKmsDeviceRemoved struct {
	DeviceId [32]byte
	Raw      *types.Log // Blockchain specific contextual infos
}

const DstackKmsKmsDeviceRemovedEventName = "KmsDeviceRemoved"

// ContractEventName returns the user-defined event name.
func (DstackKmsKmsDeviceRemoved) ContractEventName() string {
	return DstackKmsKmsDeviceRemovedEventName
}

// UnpackKmsDeviceRemovedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event KmsDeviceRemoved(bytes32 deviceId)
func (dstackKms *DstackKms) UnpackKmsDeviceRemovedEvent(log *types.Log) (*DstackKmsKmsDeviceRemoved, error) {
	event := "KmsDeviceRemoved"
	if len(log.Topics) == 0 || log.Topics[0] != dstackKms.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackKmsKmsDeviceRemoved)
	if len(log.Data) > 0 {
		if err := dstackKms.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackKms.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackKmsKmsInfoSet represents a KmsInfoSet event raised by the DstackKms contract.
type DstackKmsKmsInfoSet struct {
	K256Pubkey []byte
	Raw        *types.Log // Blockchain specific contextual infos
}

const DstackKmsKmsInfoSetEventName = "KmsInfoSet"

// ContractEventName returns the user-defined event name.
func (DstackKmsKmsInfoSet) ContractEventName() string {
	return DstackKmsKmsInfoSetEventName
}

// UnpackKmsInfoSetEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event KmsInfoSet(bytes k256Pubkey)
func (dstackKms *DstackKms) UnpackKmsInfoSetEvent(log *types.Log) (*DstackKmsKmsInfoSet, error) {
	event := "KmsInfoSet"
	if len(log.Topics) == 0 || log.Topics[0] != dstackKms.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackKmsKmsInfoSet)
	if len(log.Data) > 0 {
		if err := dstackKms.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackKms.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackKmsOsImageHashAdded represents a OsImageHashAdded event raised by the DstackKms contract.
type DstackKmsOsImageHashAdded struct {
	OsImageHash [32]byte
	Raw         *types.Log // Blockchain specific contextual infos
}

const DstackKmsOsImageHashAddedEventName = "OsImageHashAdded"

// ContractEventName returns the user-defined event name.
func (DstackKmsOsImageHashAdded) ContractEventName() string {
	return DstackKmsOsImageHashAddedEventName
}

// UnpackOsImageHashAddedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event OsImageHashAdded(bytes32 osImageHash)
func (dstackKms *DstackKms) UnpackOsImageHashAddedEvent(log *types.Log) (*DstackKmsOsImageHashAdded, error) {
	event := "OsImageHashAdded"
	if len(log.Topics) == 0 || log.Topics[0] != dstackKms.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackKmsOsImageHashAdded)
	if len(log.Data) > 0 {
		if err := dstackKms.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackKms.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackKmsOsImageHashRemoved represents a OsImageHashRemoved event raised by the DstackKms contract.
type DstackKmsOsImageHashRemoved struct {
	OsImageHash [32]byte
	Raw         *types.Log // Blockchain specific contextual infos
}

const DstackKmsOsImageHashRemovedEventName = "OsImageHashRemoved"

// ContractEventName returns the user-defined event name.
func (DstackKmsOsImageHashRemoved) ContractEventName() string {
	return DstackKmsOsImageHashRemovedEventName
}

// UnpackOsImageHashRemovedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event OsImageHashRemoved(bytes32 osImageHash)
func (dstackKms *DstackKms) UnpackOsImageHashRemovedEvent(log *types.Log) (*DstackKmsOsImageHashRemoved, error) {
	event := "OsImageHashRemoved"
	if len(log.Topics) == 0 || log.Topics[0] != dstackKms.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackKmsOsImageHashRemoved)
	if len(log.Data) > 0 {
		if err := dstackKms.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackKms.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackKmsOwnershipTransferStarted represents a OwnershipTransferStarted event raised by the DstackKms contract.
type DstackKmsOwnershipTransferStarted struct {
	PreviousOwner common.Address
	NewOwner      common.Address
	Raw           *types.Log // Blockchain specific contextual infos
}

const DstackKmsOwnershipTransferStartedEventName = "OwnershipTransferStarted"

// ContractEventName returns the user-defined event name.
func (DstackKmsOwnershipTransferStarted) ContractEventName() string {
	return DstackKmsOwnershipTransferStartedEventName
}

// UnpackOwnershipTransferStartedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event OwnershipTransferStarted(address indexed previousOwner, address indexed newOwner)
func (dstackKms *DstackKms) UnpackOwnershipTransferStartedEvent(log *types.Log) (*DstackKmsOwnershipTransferStarted, error) {
	event := "OwnershipTransferStarted"
	if len(log.Topics) == 0 || log.Topics[0] != dstackKms.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackKmsOwnershipTransferStarted)
	if len(log.Data) > 0 {
		if err := dstackKms.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackKms.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackKmsOwnershipTransferred represents a OwnershipTransferred event raised by the DstackKms contract.
type DstackKmsOwnershipTransferred struct {
	PreviousOwner common.Address
	NewOwner      common.Address
	Raw           *types.Log // Blockchain specific contextual infos
}

const DstackKmsOwnershipTransferredEventName = "OwnershipTransferred"

// ContractEventName returns the user-defined event name.
func (DstackKmsOwnershipTransferred) ContractEventName() string {
	return DstackKmsOwnershipTransferredEventName
}

// UnpackOwnershipTransferredEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event OwnershipTransferred(address indexed previousOwner, address indexed newOwner)
func (dstackKms *DstackKms) UnpackOwnershipTransferredEvent(log *types.Log) (*DstackKmsOwnershipTransferred, error) {
	event := "OwnershipTransferred"
	if len(log.Topics) == 0 || log.Topics[0] != dstackKms.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackKmsOwnershipTransferred)
	if len(log.Data) > 0 {
		if err := dstackKms.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackKms.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackKmsPolicyChanged represents a PolicyChanged event raised by the DstackKms contract.
type DstackKmsPolicyChanged struct {
	Actor   common.Address
	Policy  [32]byte
	Value   [32]byte
	Enabled bool
	Raw     *types.Log // Blockchain specific contextual infos
}

const DstackKmsPolicyChangedEventName = "PolicyChanged"

// ContractEventName returns the user-defined event name.
func (DstackKmsPolicyChanged) ContractEventName() string {
	return DstackKmsPolicyChangedEventName
}

// UnpackPolicyChangedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event PolicyChanged(address indexed actor, bytes32 indexed policy, bytes32 indexed value, bool enabled)
func (dstackKms *DstackKms) UnpackPolicyChangedEvent(log *types.Log) (*DstackKmsPolicyChanged, error) {
	event := "PolicyChanged"
	if len(log.Topics) == 0 || log.Topics[0] != dstackKms.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackKmsPolicyChanged)
	if len(log.Data) > 0 {
		if err := dstackKms.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackKms.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// DstackKmsUpgraded represents a Upgraded event raised by the DstackKms contract.
type DstackKmsUpgraded struct {
	Implementation common.Address
	Raw            *types.Log // Blockchain specific contextual infos
}

const DstackKmsUpgradedEventName = "Upgraded"

// ContractEventName returns the user-defined event name.
func (DstackKmsUpgraded) ContractEventName() string {
	return DstackKmsUpgradedEventName
}

// UnpackUpgradedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event Upgraded(address indexed implementation)
func (dstackKms *DstackKms) UnpackUpgradedEvent(log *types.Log) (*DstackKmsUpgraded, error) {
	event := "Upgraded"
	if len(log.Topics) == 0 || log.Topics[0] != dstackKms.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(DstackKmsUpgraded)
	if len(log.Data) > 0 {
		if err := dstackKms.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range dstackKms.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// UnpackError attempts to decode the provided error data using user-defined
// error definitions.
func (dstackKms *DstackKms) UnpackError(raw []byte) (any, error) {
	if bytes.Equal(raw[:4], dstackKms.abi.Errors["AddressEmptyCode"].ID.Bytes()[:4]) {
		return dstackKms.UnpackAddressEmptyCodeError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackKms.abi.Errors["ERC1967InvalidImplementation"].ID.Bytes()[:4]) {
		return dstackKms.UnpackERC1967InvalidImplementationError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackKms.abi.Errors["ERC1967NonPayable"].ID.Bytes()[:4]) {
		return dstackKms.UnpackERC1967NonPayableError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackKms.abi.Errors["FailedCall"].ID.Bytes()[:4]) {
		return dstackKms.UnpackFailedCallError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackKms.abi.Errors["InvalidInitialization"].ID.Bytes()[:4]) {
		return dstackKms.UnpackInvalidInitializationError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackKms.abi.Errors["NotInitializing"].ID.Bytes()[:4]) {
		return dstackKms.UnpackNotInitializingError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackKms.abi.Errors["OwnableInvalidOwner"].ID.Bytes()[:4]) {
		return dstackKms.UnpackOwnableInvalidOwnerError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackKms.abi.Errors["OwnableUnauthorizedAccount"].ID.Bytes()[:4]) {
		return dstackKms.UnpackOwnableUnauthorizedAccountError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackKms.abi.Errors["UUPSUnauthorizedCallContext"].ID.Bytes()[:4]) {
		return dstackKms.UnpackUUPSUnauthorizedCallContextError(raw[4:])
	}
	if bytes.Equal(raw[:4], dstackKms.abi.Errors["UUPSUnsupportedProxiableUUID"].ID.Bytes()[:4]) {
		return dstackKms.UnpackUUPSUnsupportedProxiableUUIDError(raw[4:])
	}
	return nil, errors.New("Unknown error")
}

// DstackKmsAddressEmptyCode represents a AddressEmptyCode error raised by the DstackKms contract.
type DstackKmsAddressEmptyCode struct {
	Target common.Address
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error AddressEmptyCode(address target)
func DstackKmsAddressEmptyCodeErrorID() common.Hash {
	return common.HexToHash("0x9996b315c842ff135b8fc4a08ad5df1c344efbc03d2687aecc0678050d2aac89")
}

// UnpackAddressEmptyCodeError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error AddressEmptyCode(address target)
func (dstackKms *DstackKms) UnpackAddressEmptyCodeError(raw []byte) (*DstackKmsAddressEmptyCode, error) {
	out := new(DstackKmsAddressEmptyCode)
	if err := dstackKms.abi.UnpackIntoInterface(out, "AddressEmptyCode", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackKmsERC1967InvalidImplementation represents a ERC1967InvalidImplementation error raised by the DstackKms contract.
type DstackKmsERC1967InvalidImplementation struct {
	Implementation common.Address
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error ERC1967InvalidImplementation(address implementation)
func DstackKmsERC1967InvalidImplementationErrorID() common.Hash {
	return common.HexToHash("0x4c9c8ce3ceb3130f17f7cdba48d89b5b0129f266a8bac114e6e315a41879b617")
}

// UnpackERC1967InvalidImplementationError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error ERC1967InvalidImplementation(address implementation)
func (dstackKms *DstackKms) UnpackERC1967InvalidImplementationError(raw []byte) (*DstackKmsERC1967InvalidImplementation, error) {
	out := new(DstackKmsERC1967InvalidImplementation)
	if err := dstackKms.abi.UnpackIntoInterface(out, "ERC1967InvalidImplementation", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackKmsERC1967NonPayable represents a ERC1967NonPayable error raised by the DstackKms contract.
type DstackKmsERC1967NonPayable struct {
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error ERC1967NonPayable()
func DstackKmsERC1967NonPayableErrorID() common.Hash {
	return common.HexToHash("0xb398979fa84f543c8e222f17890372c487baf85e062276c127fef521eea7224b")
}

// UnpackERC1967NonPayableError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error ERC1967NonPayable()
func (dstackKms *DstackKms) UnpackERC1967NonPayableError(raw []byte) (*DstackKmsERC1967NonPayable, error) {
	out := new(DstackKmsERC1967NonPayable)
	if err := dstackKms.abi.UnpackIntoInterface(out, "ERC1967NonPayable", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackKmsFailedCall represents a FailedCall error raised by the DstackKms contract.
type DstackKmsFailedCall struct {
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error FailedCall()
func DstackKmsFailedCallErrorID() common.Hash {
	return common.HexToHash("0xd6bda27508c0fb6d8a39b4b122878dab26f731a7d4e4abe711dd3731899052a4")
}

// UnpackFailedCallError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error FailedCall()
func (dstackKms *DstackKms) UnpackFailedCallError(raw []byte) (*DstackKmsFailedCall, error) {
	out := new(DstackKmsFailedCall)
	if err := dstackKms.abi.UnpackIntoInterface(out, "FailedCall", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackKmsInvalidInitialization represents a InvalidInitialization error raised by the DstackKms contract.
type DstackKmsInvalidInitialization struct {
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error InvalidInitialization()
func DstackKmsInvalidInitializationErrorID() common.Hash {
	return common.HexToHash("0xf92ee8a957075833165f68c320933b1a1294aafc84ee6e0dd3fb178008f9aaf5")
}

// UnpackInvalidInitializationError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error InvalidInitialization()
func (dstackKms *DstackKms) UnpackInvalidInitializationError(raw []byte) (*DstackKmsInvalidInitialization, error) {
	out := new(DstackKmsInvalidInitialization)
	if err := dstackKms.abi.UnpackIntoInterface(out, "InvalidInitialization", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackKmsNotInitializing represents a NotInitializing error raised by the DstackKms contract.
type DstackKmsNotInitializing struct {
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error NotInitializing()
func DstackKmsNotInitializingErrorID() common.Hash {
	return common.HexToHash("0xd7e6bcf8597daa127dc9f0048d2f08d5ef140a2cb659feabd700beff1f7a8302")
}

// UnpackNotInitializingError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error NotInitializing()
func (dstackKms *DstackKms) UnpackNotInitializingError(raw []byte) (*DstackKmsNotInitializing, error) {
	out := new(DstackKmsNotInitializing)
	if err := dstackKms.abi.UnpackIntoInterface(out, "NotInitializing", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackKmsOwnableInvalidOwner represents a OwnableInvalidOwner error raised by the DstackKms contract.
type DstackKmsOwnableInvalidOwner struct {
	Owner common.Address
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error OwnableInvalidOwner(address owner)
func DstackKmsOwnableInvalidOwnerErrorID() common.Hash {
	return common.HexToHash("0x1e4fbdf7f3ef8bcaa855599e3abf48b232380f183f08f6f813d9ffa5bd585188")
}

// UnpackOwnableInvalidOwnerError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error OwnableInvalidOwner(address owner)
func (dstackKms *DstackKms) UnpackOwnableInvalidOwnerError(raw []byte) (*DstackKmsOwnableInvalidOwner, error) {
	out := new(DstackKmsOwnableInvalidOwner)
	if err := dstackKms.abi.UnpackIntoInterface(out, "OwnableInvalidOwner", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackKmsOwnableUnauthorizedAccount represents a OwnableUnauthorizedAccount error raised by the DstackKms contract.
type DstackKmsOwnableUnauthorizedAccount struct {
	Account common.Address
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error OwnableUnauthorizedAccount(address account)
func DstackKmsOwnableUnauthorizedAccountErrorID() common.Hash {
	return common.HexToHash("0x118cdaa7a341953d1887a2245fd6665d741c67c8c50581daa59e1d03373fa188")
}

// UnpackOwnableUnauthorizedAccountError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error OwnableUnauthorizedAccount(address account)
func (dstackKms *DstackKms) UnpackOwnableUnauthorizedAccountError(raw []byte) (*DstackKmsOwnableUnauthorizedAccount, error) {
	out := new(DstackKmsOwnableUnauthorizedAccount)
	if err := dstackKms.abi.UnpackIntoInterface(out, "OwnableUnauthorizedAccount", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackKmsUUPSUnauthorizedCallContext represents a UUPSUnauthorizedCallContext error raised by the DstackKms contract.
type DstackKmsUUPSUnauthorizedCallContext struct {
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error UUPSUnauthorizedCallContext()
func DstackKmsUUPSUnauthorizedCallContextErrorID() common.Hash {
	return common.HexToHash("0xe07c8dba242a06571ac65fe4bbe20522c9fb111cb33599b799ff8039c1ed18f4")
}

// UnpackUUPSUnauthorizedCallContextError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error UUPSUnauthorizedCallContext()
func (dstackKms *DstackKms) UnpackUUPSUnauthorizedCallContextError(raw []byte) (*DstackKmsUUPSUnauthorizedCallContext, error) {
	out := new(DstackKmsUUPSUnauthorizedCallContext)
	if err := dstackKms.abi.UnpackIntoInterface(out, "UUPSUnauthorizedCallContext", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// DstackKmsUUPSUnsupportedProxiableUUID represents a UUPSUnsupportedProxiableUUID error raised by the DstackKms contract.
type DstackKmsUUPSUnsupportedProxiableUUID struct {
	Slot [32]byte
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error UUPSUnsupportedProxiableUUID(bytes32 slot)
func DstackKmsUUPSUnsupportedProxiableUUIDErrorID() common.Hash {
	return common.HexToHash("0xaa1d49a4c084bfa9aeeee2a0be65267a7f19ba7e1476b114dac513d2c14cb563")
}

// UnpackUUPSUnsupportedProxiableUUIDError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error UUPSUnsupportedProxiableUUID(bytes32 slot)
func (dstackKms *DstackKms) UnpackUUPSUnsupportedProxiableUUIDError(raw []byte) (*DstackKmsUUPSUnsupportedProxiableUUID, error) {
	out := new(DstackKmsUUPSUnsupportedProxiableUUID)
	if err := dstackKms.abi.UnpackIntoInterface(out, "UUPSUnsupportedProxiableUUID", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// ERC1967ProxyMetaData contains all meta data concerning the ERC1967Proxy contract.
var ERC1967ProxyMetaData = bind.MetaData{
	ABI: "[{\"inputs\":[{\"internalType\":\"address\",\"name\":\"implementation\",\"type\":\"address\"},{\"internalType\":\"bytes\",\"name\":\"_data\",\"type\":\"bytes\"}],\"stateMutability\":\"payable\",\"type\":\"constructor\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"target\",\"type\":\"address\"}],\"name\":\"AddressEmptyCode\",\"type\":\"error\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"implementation\",\"type\":\"address\"}],\"name\":\"ERC1967InvalidImplementation\",\"type\":\"error\"},{\"inputs\":[],\"name\":\"ERC1967NonPayable\",\"type\":\"error\"},{\"inputs\":[],\"name\":\"ERC1967ProxyUninitialized\",\"type\":\"error\"},{\"inputs\":[],\"name\":\"FailedCall\",\"type\":\"error\"},{\"anonymous\":false,\"inputs\":[{\"indexed\":true,\"internalType\":\"address\",\"name\":\"implementation\",\"type\":\"address\"}],\"name\":\"Upgraded\",\"type\":\"event\"},{\"stateMutability\":\"payable\",\"type\":\"fallback\"}]",
	ID:  "ERC1967Proxy",
	Bin: "0x608060405260405161038038038061038083398101604081905261002291610238565b8051610041576040516330a289cf60e21b815260040160405180910390fd5b61004b8282610052565b5050610307565b61005b826100b0565b6040516001600160a01b038316907fbc7cd75a20ee27fd9adebab32041f755214dbc6bffa90cc0225b39da2e5c2d3b905f90a28051156100a45761009f828261012b565b505050565b6100ac6101cc565b5050565b806001600160a01b03163b5f036100ea57604051634c9c8ce360e01b81526001600160a01b03821660048201526024015b60405180910390fd5b7f360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc80546001600160a01b0319166001600160a01b0392909216919091179055565b60605f61013884846101ed565b905080801561015957505f3d118061015957505f846001600160a01b03163b115b1561016e57610166610200565b9150506101c6565b801561019857604051639996b31560e01b81526001600160a01b03851660048201526024016100e1565b3d156101ab576101a6610219565b6101c4565b60405163d6bda27560e01b815260040160405180910390fd5b505b92915050565b34156101eb5760405163b398979f60e01b815260040160405180910390fd5b565b5f5f5f835160208501865af49392505050565b6040513d81523d5f602083013e3d602001810160405290565b6040513d5f823e3d81fd5b634e487b7160e01b5f52604160045260245ffd5b5f5f60408385031215610249575f5ffd5b82516001600160a01b038116811461025f575f5ffd5b60208401519092506001600160401b0381111561027a575f5ffd5b8301601f8101851361028a575f5ffd5b80516001600160401b038111156102a3576102a3610224565b604051601f8201601f19908116603f011681016001600160401b03811182821017156102d1576102d1610224565b6040528181528282016020018710156102e8575f5ffd5b8160208401602083015e5f602083830101528093505050509250929050565b606d806103135f395ff3fe6080604052600a600c565b005b60186014601a565b6050565b565b5f604b7f360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc546001600160a01b031690565b905090565b365f5f375f5f365f845af43d5f5f3e8080156069573d5ff35b3d5ffd",
}

// ERC1967Proxy is an auto generated Go binding around an Ethereum contract.
type ERC1967Proxy struct {
	abi abi.ABI
}

// NewERC1967Proxy creates a new instance of ERC1967Proxy.
func NewERC1967Proxy() *ERC1967Proxy {
	parsed, err := ERC1967ProxyMetaData.ParseABI()
	if err != nil {
		panic(errors.New("invalid ABI: " + err.Error()))
	}
	return &ERC1967Proxy{abi: *parsed}
}

// Instance creates a wrapper for a deployed contract instance at the given address.
// Use this to create the instance object passed to abigen v2 library functions Call, Transact, etc.
func (c *ERC1967Proxy) Instance(backend bind.ContractBackend, addr common.Address) *bind.BoundContract {
	return bind.NewBoundContract(addr, c.abi, backend, backend, backend)
}

// PackConstructor is the Go binding used to pack the parameters required for
// contract deployment.
//
// Solidity: constructor(address implementation, bytes _data) payable returns()
func (eRC1967Proxy *ERC1967Proxy) PackConstructor(implementation common.Address, _data []byte) []byte {
	enc, err := eRC1967Proxy.abi.Pack("", implementation, _data)
	if err != nil {
		panic(err)
	}
	return enc
}

// ERC1967ProxyUpgraded represents a Upgraded event raised by the ERC1967Proxy contract.
type ERC1967ProxyUpgraded struct {
	Implementation common.Address
	Raw            *types.Log // Blockchain specific contextual infos
}

const ERC1967ProxyUpgradedEventName = "Upgraded"

// ContractEventName returns the user-defined event name.
func (ERC1967ProxyUpgraded) ContractEventName() string {
	return ERC1967ProxyUpgradedEventName
}

// UnpackUpgradedEvent is the Go binding that unpacks the event data emitted
// by contract.
//
// Solidity: event Upgraded(address indexed implementation)
func (eRC1967Proxy *ERC1967Proxy) UnpackUpgradedEvent(log *types.Log) (*ERC1967ProxyUpgraded, error) {
	event := "Upgraded"
	if len(log.Topics) == 0 || log.Topics[0] != eRC1967Proxy.abi.Events[event].ID {
		return nil, errors.New("event signature mismatch")
	}
	out := new(ERC1967ProxyUpgraded)
	if len(log.Data) > 0 {
		if err := eRC1967Proxy.abi.UnpackIntoInterface(out, event, log.Data); err != nil {
			return nil, err
		}
	}
	var indexed abi.Arguments
	for _, arg := range eRC1967Proxy.abi.Events[event].Inputs {
		if arg.Indexed {
			indexed = append(indexed, arg)
		}
	}
	if err := abi.ParseTopics(out, indexed, log.Topics[1:]); err != nil {
		return nil, err
	}
	out.Raw = log
	return out, nil
}

// UnpackError attempts to decode the provided error data using user-defined
// error definitions.
func (eRC1967Proxy *ERC1967Proxy) UnpackError(raw []byte) (any, error) {
	if bytes.Equal(raw[:4], eRC1967Proxy.abi.Errors["AddressEmptyCode"].ID.Bytes()[:4]) {
		return eRC1967Proxy.UnpackAddressEmptyCodeError(raw[4:])
	}
	if bytes.Equal(raw[:4], eRC1967Proxy.abi.Errors["ERC1967InvalidImplementation"].ID.Bytes()[:4]) {
		return eRC1967Proxy.UnpackERC1967InvalidImplementationError(raw[4:])
	}
	if bytes.Equal(raw[:4], eRC1967Proxy.abi.Errors["ERC1967NonPayable"].ID.Bytes()[:4]) {
		return eRC1967Proxy.UnpackERC1967NonPayableError(raw[4:])
	}
	if bytes.Equal(raw[:4], eRC1967Proxy.abi.Errors["ERC1967ProxyUninitialized"].ID.Bytes()[:4]) {
		return eRC1967Proxy.UnpackERC1967ProxyUninitializedError(raw[4:])
	}
	if bytes.Equal(raw[:4], eRC1967Proxy.abi.Errors["FailedCall"].ID.Bytes()[:4]) {
		return eRC1967Proxy.UnpackFailedCallError(raw[4:])
	}
	return nil, errors.New("Unknown error")
}

// ERC1967ProxyAddressEmptyCode represents a AddressEmptyCode error raised by the ERC1967Proxy contract.
type ERC1967ProxyAddressEmptyCode struct {
	Target common.Address
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error AddressEmptyCode(address target)
func ERC1967ProxyAddressEmptyCodeErrorID() common.Hash {
	return common.HexToHash("0x9996b315c842ff135b8fc4a08ad5df1c344efbc03d2687aecc0678050d2aac89")
}

// UnpackAddressEmptyCodeError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error AddressEmptyCode(address target)
func (eRC1967Proxy *ERC1967Proxy) UnpackAddressEmptyCodeError(raw []byte) (*ERC1967ProxyAddressEmptyCode, error) {
	out := new(ERC1967ProxyAddressEmptyCode)
	if err := eRC1967Proxy.abi.UnpackIntoInterface(out, "AddressEmptyCode", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// ERC1967ProxyERC1967InvalidImplementation represents a ERC1967InvalidImplementation error raised by the ERC1967Proxy contract.
type ERC1967ProxyERC1967InvalidImplementation struct {
	Implementation common.Address
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error ERC1967InvalidImplementation(address implementation)
func ERC1967ProxyERC1967InvalidImplementationErrorID() common.Hash {
	return common.HexToHash("0x4c9c8ce3ceb3130f17f7cdba48d89b5b0129f266a8bac114e6e315a41879b617")
}

// UnpackERC1967InvalidImplementationError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error ERC1967InvalidImplementation(address implementation)
func (eRC1967Proxy *ERC1967Proxy) UnpackERC1967InvalidImplementationError(raw []byte) (*ERC1967ProxyERC1967InvalidImplementation, error) {
	out := new(ERC1967ProxyERC1967InvalidImplementation)
	if err := eRC1967Proxy.abi.UnpackIntoInterface(out, "ERC1967InvalidImplementation", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// ERC1967ProxyERC1967NonPayable represents a ERC1967NonPayable error raised by the ERC1967Proxy contract.
type ERC1967ProxyERC1967NonPayable struct {
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error ERC1967NonPayable()
func ERC1967ProxyERC1967NonPayableErrorID() common.Hash {
	return common.HexToHash("0xb398979fa84f543c8e222f17890372c487baf85e062276c127fef521eea7224b")
}

// UnpackERC1967NonPayableError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error ERC1967NonPayable()
func (eRC1967Proxy *ERC1967Proxy) UnpackERC1967NonPayableError(raw []byte) (*ERC1967ProxyERC1967NonPayable, error) {
	out := new(ERC1967ProxyERC1967NonPayable)
	if err := eRC1967Proxy.abi.UnpackIntoInterface(out, "ERC1967NonPayable", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// ERC1967ProxyERC1967ProxyUninitialized represents a ERC1967ProxyUninitialized error raised by the ERC1967Proxy contract.
type ERC1967ProxyERC1967ProxyUninitialized struct {
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error ERC1967ProxyUninitialized()
func ERC1967ProxyERC1967ProxyUninitializedErrorID() common.Hash {
	return common.HexToHash("0xc28a273c3fe16468cad2234091c09b146f46a93b2ad4069739c7beddfa5b3529")
}

// UnpackERC1967ProxyUninitializedError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error ERC1967ProxyUninitialized()
func (eRC1967Proxy *ERC1967Proxy) UnpackERC1967ProxyUninitializedError(raw []byte) (*ERC1967ProxyERC1967ProxyUninitialized, error) {
	out := new(ERC1967ProxyERC1967ProxyUninitialized)
	if err := eRC1967Proxy.abi.UnpackIntoInterface(out, "ERC1967ProxyUninitialized", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// ERC1967ProxyFailedCall represents a FailedCall error raised by the ERC1967Proxy contract.
type ERC1967ProxyFailedCall struct {
}

// ErrorID returns the hash of canonical representation of the error's signature.
//
// Solidity: error FailedCall()
func ERC1967ProxyFailedCallErrorID() common.Hash {
	return common.HexToHash("0xd6bda27508c0fb6d8a39b4b122878dab26f731a7d4e4abe711dd3731899052a4")
}

// UnpackFailedCallError is the Go binding used to decode the provided
// error data into the corresponding Go error struct.
//
// Solidity: error FailedCall()
func (eRC1967Proxy *ERC1967Proxy) UnpackFailedCallError(raw []byte) (*ERC1967ProxyFailedCall, error) {
	out := new(ERC1967ProxyFailedCall)
	if err := eRC1967Proxy.abi.UnpackIntoInterface(out, "FailedCall", raw); err != nil {
		return nil, err
	}
	return out, nil
}

// Multicall3MetaData contains all meta data concerning the Multicall3 contract.
var Multicall3MetaData = bind.MetaData{
	ABI: "[{\"inputs\":[{\"components\":[{\"internalType\":\"address\",\"name\":\"target\",\"type\":\"address\"},{\"internalType\":\"bytes\",\"name\":\"callData\",\"type\":\"bytes\"}],\"internalType\":\"structMulticall3.Call[]\",\"name\":\"calls\",\"type\":\"tuple[]\"}],\"name\":\"aggregate\",\"outputs\":[{\"internalType\":\"uint256\",\"name\":\"blockNumber\",\"type\":\"uint256\"},{\"internalType\":\"bytes[]\",\"name\":\"returnData\",\"type\":\"bytes[]\"}],\"stateMutability\":\"payable\",\"type\":\"function\"},{\"inputs\":[{\"components\":[{\"internalType\":\"address\",\"name\":\"target\",\"type\":\"address\"},{\"internalType\":\"bool\",\"name\":\"allowFailure\",\"type\":\"bool\"},{\"internalType\":\"bytes\",\"name\":\"callData\",\"type\":\"bytes\"}],\"internalType\":\"structMulticall3.Call3[]\",\"name\":\"calls\",\"type\":\"tuple[]\"}],\"name\":\"aggregate3\",\"outputs\":[{\"components\":[{\"internalType\":\"bool\",\"name\":\"success\",\"type\":\"bool\"},{\"internalType\":\"bytes\",\"name\":\"returnData\",\"type\":\"bytes\"}],\"internalType\":\"structMulticall3.Result[]\",\"name\":\"results\",\"type\":\"tuple[]\"}],\"stateMutability\":\"payable\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"getBasefee\",\"outputs\":[{\"internalType\":\"uint256\",\"name\":\"\",\"type\":\"uint256\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"uint256\",\"name\":\"blockNumber\",\"type\":\"uint256\"}],\"name\":\"getBlockHash\",\"outputs\":[{\"internalType\":\"bytes32\",\"name\":\"\",\"type\":\"bytes32\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"getBlockNumber\",\"outputs\":[{\"internalType\":\"uint256\",\"name\":\"\",\"type\":\"uint256\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"getChainId\",\"outputs\":[{\"internalType\":\"uint256\",\"name\":\"\",\"type\":\"uint256\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[],\"name\":\"getCurrentBlockTimestamp\",\"outputs\":[{\"internalType\":\"uint256\",\"name\":\"\",\"type\":\"uint256\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"address\",\"name\":\"addr\",\"type\":\"address\"}],\"name\":\"getEthBalance\",\"outputs\":[{\"internalType\":\"uint256\",\"name\":\"\",\"type\":\"uint256\"}],\"stateMutability\":\"view\",\"type\":\"function\"},{\"inputs\":[{\"internalType\":\"bool\",\"name\":\"requireSuccess\",\"type\":\"bool\"},{\"components\":[{\"internalType\":\"address\",\"name\":\"target\",\"type\":\"address\"},{\"internalType\":\"bytes\",\"name\":\"callData\",\"type\":\"bytes\"}],\"internalType\":\"structMulticall3.Call[]\",\"name\":\"calls\",\"type\":\"tuple[]\"}],\"name\":\"tryAggregate\",\"outputs\":[{\"components\":[{\"internalType\":\"bool\",\"name\":\"success\",\"type\":\"bool\"},{\"internalType\":\"bytes\",\"name\":\"returnData\",\"type\":\"bytes\"}],\"internalType\":\"structMulticall3.Result[]\",\"name\":\"results\",\"type\":\"tuple[]\"}],\"stateMutability\":\"payable\",\"type\":\"function\"}]",
	ID:  "Multicall3",
	Bin: "0x6080604052348015600e575f5ffd5b506109d28061001c5f395ff3fe608060405260043610610084575f3560e01c806342cbb15c1161005757806342cbb15c146100ee5780634d2301cc1461010057806382ad56cb14610127578063bce38bd714610147578063ee82ac5e1461015a575f5ffd5b80630f28c97d14610088578063252dba42146100a95780633408e470146100ca5780633e64a696146100dc575b5f5ffd5b348015610093575f5ffd5b50425b6040519081526020015b60405180910390f35b6100bc6100b73660046106dc565b610178565b6040516100a0929190610749565b3480156100d5575f5ffd5b5046610096565b3480156100e7575f5ffd5b5048610096565b3480156100f9575f5ffd5b5043610096565b34801561010b575f5ffd5b5061009661011a3660046107b3565b6001600160a01b03163190565b61013a6101353660046106dc565b6102e5565b6040516100a091906107e0565b61013a610155366004610870565b6104d5565b348015610165575f5ffd5b506100966101743660046108bf565b4090565b4360608267ffffffffffffffff811115610194576101946108d6565b6040519080825280602002602001820160405280156101c757816020015b60608152602001906001900390816101b25790505b5090505f5b838110156102dd575f8585838181106101e7576101e76108ea565b90506020028101906101f991906108fe565b6102079060208101906107b3565b6001600160a01b0316868684818110610222576102226108ea565b905060200281019061023491906108fe565b61024290602081019061091c565b60405161025092919061095f565b5f604051808303815f865af19150503d805f8114610289576040519150601f19603f3d011682016040523d82523d5f602084013e61028e565b606091505b508484815181106102a1576102a16108ea565b60209081029190910101529050806102d45760405162461bcd60e51b81526004016102cb9061096e565b60405180910390fd5b506001016101cc565b509250929050565b60608167ffffffffffffffff811115610300576103006108d6565b60405190808252806020026020018201604052801561034557816020015b604080518082019091525f81526060602082015281526020019060019003908161031e5790505b5090505f5b828110156104ce57838382818110610364576103646108ea565b905060200281019061037691906109a5565b6103849060208101906107b3565b6001600160a01b031684848381811061039f5761039f6108ea565b90506020028101906103b191906109a5565b6103bf90604081019061091c565b6040516103cd92919061095f565b5f604051808303815f865af19150503d805f8114610406576040519150601f19603f3d011682016040523d82523d5f602084013e61040b565b606091505b5083838151811061041e5761041e6108ea565b60200260200101515f0184848151811061043a5761043a6108ea565b602002602001015160200182905282151515158152505050818181518110610464576104646108ea565b60200260200101515f0151806104aa5750838382818110610487576104876108ea565b905060200281019061049991906109a5565b6104aa9060408101906020016109b9565b6104c65760405162461bcd60e51b81526004016102cb9061096e565b60010161034a565b5092915050565b60608167ffffffffffffffff8111156104f0576104f06108d6565b60405190808252806020026020018201604052801561053557816020015b604080518082019091525f81526060602082015281526020019060019003908161050e5790505b5090505f5b8281101561068c57838382818110610554576105546108ea565b905060200281019061056691906108fe565b6105749060208101906107b3565b6001600160a01b031684848381811061058f5761058f6108ea565b90506020028101906105a191906108fe565b6105af90602081019061091c565b6040516105bd92919061095f565b5f604051808303815f865af19150503d805f81146105f6576040519150601f19603f3d011682016040523d82523d5f602084013e6105fb565b606091505b5083838151811061060e5761060e6108ea565b60200260200101515f0184848151811061062a5761062a6108ea565b602002602001015160200182905282151515158152505050818181518110610654576106546108ea565b60200260200101515f015180610668575084155b6106845760405162461bcd60e51b81526004016102cb9061096e565b60010161053a565b509392505050565b5f5f83601f8401126106a4575f5ffd5b50813567ffffffffffffffff8111156106bb575f5ffd5b6020830191508360208260051b85010111156106d5575f5ffd5b9250929050565b5f5f602083850312156106ed575f5ffd5b823567ffffffffffffffff811115610703575f5ffd5b61070f85828601610694565b90969095509350505050565b5f81518084528060208401602086015e5f602082860101526020601f19601f83011685010191505092915050565b5f604082018483526040602084015280845180835260608501915060608160051b8601019250602086015f5b828110156107a657605f1987860301845261079185835161071b565b94506020938401939190910190600101610775565b5092979650505050505050565b5f602082840312156107c3575f5ffd5b81356001600160a01b03811681146107d9575f5ffd5b9392505050565b5f602082016020835280845180835260408501915060408160051b8601019250602086015f5b8281101561085057603f198786030184528151805115158652602081015190506040602087015261083a604087018261071b565b9550506020938401939190910190600101610806565b50929695505050505050565b8035801515811461086b575f5ffd5b919050565b5f5f5f60408486031215610882575f5ffd5b61088b8461085c565b9250602084013567ffffffffffffffff8111156108a6575f5ffd5b6108b286828701610694565b9497909650939450505050565b5f602082840312156108cf575f5ffd5b5035919050565b634e487b7160e01b5f52604160045260245ffd5b634e487b7160e01b5f52603260045260245ffd5b5f8235603e19833603018112610912575f5ffd5b9190910192915050565b5f5f8335601e19843603018112610931575f5ffd5b83018035915067ffffffffffffffff82111561094b575f5ffd5b6020019150368190038213156106d5575f5ffd5b818382375f9101908152919050565b60208082526017908201527f4d756c746963616c6c333a2063616c6c206661696c6564000000000000000000604082015260600190565b5f8235605e19833603018112610912575f5ffd5b5f602082840312156109c9575f5ffd5b6107d98261085c56",
}

// Multicall3 is an auto generated Go binding around an Ethereum contract.
type Multicall3 struct {
	abi abi.ABI
}

// NewMulticall3 creates a new instance of Multicall3.
func NewMulticall3() *Multicall3 {
	parsed, err := Multicall3MetaData.ParseABI()
	if err != nil {
		panic(errors.New("invalid ABI: " + err.Error()))
	}
	return &Multicall3{abi: *parsed}
}

// Instance creates a wrapper for a deployed contract instance at the given address.
// Use this to create the instance object passed to abigen v2 library functions Call, Transact, etc.
func (c *Multicall3) Instance(backend bind.ContractBackend, addr common.Address) *bind.BoundContract {
	return bind.NewBoundContract(addr, c.abi, backend, backend, backend)
}

// PackAggregate is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x252dba42.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function aggregate((address,bytes)[] calls) payable returns(uint256 blockNumber, bytes[] returnData)
func (multicall3 *Multicall3) PackAggregate(calls []Multicall3Call) []byte {
	enc, err := multicall3.abi.Pack("aggregate", calls)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackAggregate is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x252dba42.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function aggregate((address,bytes)[] calls) payable returns(uint256 blockNumber, bytes[] returnData)
func (multicall3 *Multicall3) TryPackAggregate(calls []Multicall3Call) ([]byte, error) {
	return multicall3.abi.Pack("aggregate", calls)
}

// AggregateOutput serves as a container for the return parameters of contract
// method Aggregate.
type AggregateOutput struct {
	BlockNumber *big.Int
	ReturnData  [][]byte
}

// UnpackAggregate is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x252dba42.
//
// Solidity: function aggregate((address,bytes)[] calls) payable returns(uint256 blockNumber, bytes[] returnData)
func (multicall3 *Multicall3) UnpackAggregate(data []byte) (AggregateOutput, error) {
	out, err := multicall3.abi.Unpack("aggregate", data)
	outstruct := new(AggregateOutput)
	if err != nil {
		return *outstruct, err
	}
	outstruct.BlockNumber = abi.ConvertType(out[0], new(big.Int)).(*big.Int)
	outstruct.ReturnData = *abi.ConvertType(out[1], new([][]byte)).(*[][]byte)
	return *outstruct, nil
}

// PackAggregate3 is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x82ad56cb.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function aggregate3((address,bool,bytes)[] calls) payable returns((bool,bytes)[] results)
func (multicall3 *Multicall3) PackAggregate3(calls []Multicall3Call3) []byte {
	enc, err := multicall3.abi.Pack("aggregate3", calls)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackAggregate3 is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x82ad56cb.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function aggregate3((address,bool,bytes)[] calls) payable returns((bool,bytes)[] results)
func (multicall3 *Multicall3) TryPackAggregate3(calls []Multicall3Call3) ([]byte, error) {
	return multicall3.abi.Pack("aggregate3", calls)
}

// UnpackAggregate3 is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x82ad56cb.
//
// Solidity: function aggregate3((address,bool,bytes)[] calls) payable returns((bool,bytes)[] results)
func (multicall3 *Multicall3) UnpackAggregate3(data []byte) ([]Multicall3Result, error) {
	out, err := multicall3.abi.Unpack("aggregate3", data)
	if err != nil {
		return *new([]Multicall3Result), err
	}
	out0 := *abi.ConvertType(out[0], new([]Multicall3Result)).(*[]Multicall3Result)
	return out0, nil
}

// PackGetBasefee is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x3e64a696.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function getBasefee() view returns(uint256)
func (multicall3 *Multicall3) PackGetBasefee() []byte {
	enc, err := multicall3.abi.Pack("getBasefee")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackGetBasefee is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x3e64a696.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function getBasefee() view returns(uint256)
func (multicall3 *Multicall3) TryPackGetBasefee() ([]byte, error) {
	return multicall3.abi.Pack("getBasefee")
}

// UnpackGetBasefee is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x3e64a696.
//
// Solidity: function getBasefee() view returns(uint256)
func (multicall3 *Multicall3) UnpackGetBasefee(data []byte) (*big.Int, error) {
	out, err := multicall3.abi.Unpack("getBasefee", data)
	if err != nil {
		return new(big.Int), err
	}
	out0 := abi.ConvertType(out[0], new(big.Int)).(*big.Int)
	return out0, nil
}

// PackGetBlockHash is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xee82ac5e.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function getBlockHash(uint256 blockNumber) view returns(bytes32)
func (multicall3 *Multicall3) PackGetBlockHash(blockNumber *big.Int) []byte {
	enc, err := multicall3.abi.Pack("getBlockHash", blockNumber)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackGetBlockHash is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xee82ac5e.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function getBlockHash(uint256 blockNumber) view returns(bytes32)
func (multicall3 *Multicall3) TryPackGetBlockHash(blockNumber *big.Int) ([]byte, error) {
	return multicall3.abi.Pack("getBlockHash", blockNumber)
}

// UnpackGetBlockHash is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0xee82ac5e.
//
// Solidity: function getBlockHash(uint256 blockNumber) view returns(bytes32)
func (multicall3 *Multicall3) UnpackGetBlockHash(data []byte) ([32]byte, error) {
	out, err := multicall3.abi.Unpack("getBlockHash", data)
	if err != nil {
		return *new([32]byte), err
	}
	out0 := *abi.ConvertType(out[0], new([32]byte)).(*[32]byte)
	return out0, nil
}

// PackGetBlockNumber is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x42cbb15c.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function getBlockNumber() view returns(uint256)
func (multicall3 *Multicall3) PackGetBlockNumber() []byte {
	enc, err := multicall3.abi.Pack("getBlockNumber")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackGetBlockNumber is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x42cbb15c.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function getBlockNumber() view returns(uint256)
func (multicall3 *Multicall3) TryPackGetBlockNumber() ([]byte, error) {
	return multicall3.abi.Pack("getBlockNumber")
}

// UnpackGetBlockNumber is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x42cbb15c.
//
// Solidity: function getBlockNumber() view returns(uint256)
func (multicall3 *Multicall3) UnpackGetBlockNumber(data []byte) (*big.Int, error) {
	out, err := multicall3.abi.Unpack("getBlockNumber", data)
	if err != nil {
		return new(big.Int), err
	}
	out0 := abi.ConvertType(out[0], new(big.Int)).(*big.Int)
	return out0, nil
}

// PackGetChainId is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x3408e470.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function getChainId() view returns(uint256)
func (multicall3 *Multicall3) PackGetChainId() []byte {
	enc, err := multicall3.abi.Pack("getChainId")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackGetChainId is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x3408e470.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function getChainId() view returns(uint256)
func (multicall3 *Multicall3) TryPackGetChainId() ([]byte, error) {
	return multicall3.abi.Pack("getChainId")
}

// UnpackGetChainId is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x3408e470.
//
// Solidity: function getChainId() view returns(uint256)
func (multicall3 *Multicall3) UnpackGetChainId(data []byte) (*big.Int, error) {
	out, err := multicall3.abi.Unpack("getChainId", data)
	if err != nil {
		return new(big.Int), err
	}
	out0 := abi.ConvertType(out[0], new(big.Int)).(*big.Int)
	return out0, nil
}

// PackGetCurrentBlockTimestamp is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x0f28c97d.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function getCurrentBlockTimestamp() view returns(uint256)
func (multicall3 *Multicall3) PackGetCurrentBlockTimestamp() []byte {
	enc, err := multicall3.abi.Pack("getCurrentBlockTimestamp")
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackGetCurrentBlockTimestamp is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x0f28c97d.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function getCurrentBlockTimestamp() view returns(uint256)
func (multicall3 *Multicall3) TryPackGetCurrentBlockTimestamp() ([]byte, error) {
	return multicall3.abi.Pack("getCurrentBlockTimestamp")
}

// UnpackGetCurrentBlockTimestamp is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x0f28c97d.
//
// Solidity: function getCurrentBlockTimestamp() view returns(uint256)
func (multicall3 *Multicall3) UnpackGetCurrentBlockTimestamp(data []byte) (*big.Int, error) {
	out, err := multicall3.abi.Unpack("getCurrentBlockTimestamp", data)
	if err != nil {
		return new(big.Int), err
	}
	out0 := abi.ConvertType(out[0], new(big.Int)).(*big.Int)
	return out0, nil
}

// PackGetEthBalance is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x4d2301cc.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function getEthBalance(address addr) view returns(uint256)
func (multicall3 *Multicall3) PackGetEthBalance(addr common.Address) []byte {
	enc, err := multicall3.abi.Pack("getEthBalance", addr)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackGetEthBalance is the Go binding used to pack the parameters required for calling
// the contract method with ID 0x4d2301cc.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function getEthBalance(address addr) view returns(uint256)
func (multicall3 *Multicall3) TryPackGetEthBalance(addr common.Address) ([]byte, error) {
	return multicall3.abi.Pack("getEthBalance", addr)
}

// UnpackGetEthBalance is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0x4d2301cc.
//
// Solidity: function getEthBalance(address addr) view returns(uint256)
func (multicall3 *Multicall3) UnpackGetEthBalance(data []byte) (*big.Int, error) {
	out, err := multicall3.abi.Unpack("getEthBalance", data)
	if err != nil {
		return new(big.Int), err
	}
	out0 := abi.ConvertType(out[0], new(big.Int)).(*big.Int)
	return out0, nil
}

// PackTryAggregate is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xbce38bd7.  This method will panic if any
// invalid/nil inputs are passed.
//
// Solidity: function tryAggregate(bool requireSuccess, (address,bytes)[] calls) payable returns((bool,bytes)[] results)
func (multicall3 *Multicall3) PackTryAggregate(requireSuccess bool, calls []Multicall3Call) []byte {
	enc, err := multicall3.abi.Pack("tryAggregate", requireSuccess, calls)
	if err != nil {
		panic(err)
	}
	return enc
}

// TryPackTryAggregate is the Go binding used to pack the parameters required for calling
// the contract method with ID 0xbce38bd7.  This method will return an error
// if any inputs are invalid/nil.
//
// Solidity: function tryAggregate(bool requireSuccess, (address,bytes)[] calls) payable returns((bool,bytes)[] results)
func (multicall3 *Multicall3) TryPackTryAggregate(requireSuccess bool, calls []Multicall3Call) ([]byte, error) {
	return multicall3.abi.Pack("tryAggregate", requireSuccess, calls)
}

// UnpackTryAggregate is the Go binding that unpacks the parameters returned
// from invoking the contract method with ID 0xbce38bd7.
//
// Solidity: function tryAggregate(bool requireSuccess, (address,bytes)[] calls) payable returns((bool,bytes)[] results)
func (multicall3 *Multicall3) UnpackTryAggregate(data []byte) ([]Multicall3Result, error) {
	out, err := multicall3.abi.Unpack("tryAggregate", data)
	if err != nil {
		return *new([]Multicall3Result), err
	}
	out0 := *abi.ConvertType(out[0], new([]Multicall3Result)).(*[]Multicall3Result)
	return out0, nil
}
