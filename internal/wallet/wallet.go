// Package wallet keeps an owner's key in an encrypted file. The file says which
// network the key was made for, and the key signs for that network only: a key
// of the development chain (whose passphrase lies beside it) must never come to
// own something of value, and a real key must not be used against a toy.
package wallet

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/accounts/abi/bind/v2"
	"github.com/ethereum/go-ethereum/accounts/keystore"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/google/uuid"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

// Dev marks a key made for a development chain (devcloud/chain).
const Dev = "dev"

// Network is the chain a key is about to be used on.
type Network struct {
	ID  uint64
	Dev bool // the chain's genesis block says so (ethereum.Detect reads it)
}

// Info is what a wallet file shows without its passphrase.
type Info struct {
	Version int       `json:"version"`
	Network string    `json:"network"` // "dev", or a chain id in decimal
	Address string    `json:"address"` // 0x, EIP-55
	Created time.Time `json:"created"`
}

type file struct {
	Info
	Crypto keystore.CryptoJSON `json:"crypto"`
}

// Wallet is an opened key. It has no String that shows it.
type Wallet struct {
	info Info
	key  *ecdsa.PrivateKey
}

// Create makes a new key and writes it to path (mode 0600), which must not exist.
// network is Dev or a chain id in decimal.
func Create(path, network string, passphrase []byte) (*Wallet, error) {
	k, err := crypto.GenerateKey()
	if err != nil {
		return nil, err
	}
	return store(path, network, k, passphrase)
}

// Import stores an existing key (hex, optional 0x) as Create stores a new one.
func Import(path, network string, key keys.Secret, passphrase []byte) (*Wallet, error) {
	raw, err := hex.DecodeString(strings.TrimPrefix(strings.TrimSpace(string(key.Reveal())), "0x"))
	if err != nil || len(raw) != 32 {
		return nil, cvm.Errorf(cvm.Invalid, "wallet import: want a private key of 64 hex digits")
	}
	k, err := crypto.ToECDSA(raw)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "wallet import: not a secp256k1 private key")
	}
	return store(path, network, k, passphrase)
}

func store(path, network string, k *ecdsa.PrivateKey, passphrase []byte) (*Wallet, error) {
	if err := checkNetwork(network); err != nil {
		return nil, err
	}
	if len(passphrase) == 0 {
		return nil, cvm.Errorf(cvm.Invalid, "wallet: an empty passphrase protects nothing")
	}
	n, p := keystore.StandardScryptN, keystore.StandardScryptP
	if network == Dev { // opened at every start, and worth nothing
		n, p = keystore.LightScryptN, keystore.LightScryptP
	}
	c, err := keystore.EncryptDataV3(crypto.FromECDSA(k), passphrase, n, p)
	if err != nil {
		return nil, err
	}
	w := &Wallet{key: k, info: Info{Version: 1, Network: network,
		Address: crypto.PubkeyToAddress(k.PublicKey).Hex(), Created: time.Now().UTC().Truncate(time.Second)}}
	b, err := json.MarshalIndent(file{w.info, c}, "", " ")
	if err != nil {
		return nil, err
	}
	return w, writeNew(path, append(b, '\n'))
}

// writeNew writes the whole file or nothing, and never over another key.
func writeNew(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp := path + "." + uuid.NewString()
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Link(tmp, path); errors.Is(err, fs.ErrExist) {
		return cvm.Errorf(cvm.Conflict, "wallet %s exists already", path).
			WithFix("choose another file, or move the old one away: it may own apps")
	} else if err != nil {
		return err
	}
	return nil
}

// Inspect reads what can be seen without the passphrase. The address is not
// authenticated before Load.
func Inspect(path string) (Info, error) {
	f, err := read(path)
	return f.Info, err
}

func read(path string) (file, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return file{}, cvm.Errorf(cvm.NotFound, "no wallet at %s", path).WithFix("run: phala wallet create")
	}
	if err != nil {
		return file{}, err
	}
	return parse(b)
}

// parse reads the outside of a wallet file strictly.
func parse(b []byte) (file, error) {
	var f file
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return file{}, cvm.Errorf(cvm.Invalid, "wallet: not a wallet file: %w", err)
	}
	if d.More() {
		return file{}, cvm.Errorf(cvm.Invalid, "wallet: data after the JSON object")
	}
	if f.Version != 1 {
		return file{}, cvm.Errorf(cvm.Unsupported, "wallet: file version %d is not 1", f.Version)
	}
	return f, checkNetwork(f.Network)
}

// Load opens a wallet file.
func Load(path string, passphrase []byte) (*Wallet, error) {
	f, err := read(path)
	if err != nil {
		return nil, err
	}
	raw, err := keystore.DecryptDataV3(f.Crypto, string(passphrase))
	if err != nil {
		return nil, cvm.Errorf(cvm.Denied, "wallet %s: wrong passphrase, or the file is damaged", path)
	}
	k, err := crypto.ToECDSA(raw)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "wallet %s: holds no private key", path)
	}
	if a := crypto.PubkeyToAddress(k.PublicKey).Hex(); a != f.Address {
		return nil, cvm.Errorf(cvm.Invalid, "wallet %s: says %s but holds the key of %s", path, f.Address, a)
	}
	return &Wallet{info: f.Info, key: k}, nil
}

func checkNetwork(n string) error {
	if n == Dev {
		return nil
	}
	if id, err := strconv.ParseUint(n, 10, 64); err != nil || id == 0 || strconv.FormatUint(id, 10) != n {
		return cvm.Errorf(cvm.Invalid, "wallet: network %q is neither %q nor a chain id", n, Dev)
	}
	return nil
}

// Info describes the wallet.
func (w *Wallet) Info() Info { return w.info }

// Address is the owner's address.
func (w *Wallet) Address() common.Address { return crypto.PubkeyToAddress(w.key.PublicKey) }

// Allow refuses a network the key was not made for.
func (w *Wallet) Allow(n Network) error {
	if w.info.Network == Dev && !n.Dev {
		return cvm.Errorf(cvm.Denied, "wallet %s was made for a development chain, and chain %d is not one", w.info.Address, n.ID).
			WithReason("wallet-wrong-network").WithFix("use a wallet made for this chain: phala wallet create --network " + strconv.FormatUint(n.ID, 10))
	}
	if w.info.Network != Dev && n.Dev {
		return cvm.Errorf(cvm.Denied, "wallet %s was made for chain %s; it is not used on a development chain", w.info.Address, w.info.Network).
			WithReason("wallet-wrong-network").WithFix("use the development cloud's own wallet")
	}
	if id := strconv.FormatUint(n.ID, 10); w.info.Network != Dev && w.info.Network != id {
		return cvm.Errorf(cvm.Denied, "wallet %s was made for chain %s, not %s", w.info.Address, w.info.Network, id).
			WithReason("wallet-wrong-network")
	}
	return nil
}

// TransactOpts signs transactions for a network that the wallet allows. It is
// what ethereum.Signer asks for.
func (w *Wallet) TransactOpts(chainID uint64, dev bool) (*bind.TransactOpts, error) {
	n := Network{ID: chainID, Dev: dev}
	if err := w.Allow(n); err != nil {
		return nil, err
	}
	return bind.NewKeyedTransactor(w.key, new(big.Int).SetUint64(n.ID)), nil
}

// SignTx signs one transaction for a network that the wallet allows.
func (w *Wallet) SignTx(tx *types.Transaction, n Network) (*types.Transaction, error) {
	if err := w.Allow(n); err != nil {
		return nil, err
	}
	return types.SignTx(tx, types.LatestSignerForChainID(new(big.Int).SetUint64(n.ID)), w.key)
}

// SignHash signs a 32-byte digest: 65 bytes r || s || v, v 27 or 28.
func (w *Wallet) SignHash(digest [32]byte) ([]byte, error) {
	sig, err := crypto.Sign(digest[:], w.key)
	if err != nil {
		return nil, err
	}
	sig[64] += 27
	return sig, nil
}

// SignPersonal signs text as EIP-191 personal messages are signed.
func (w *Wallet) SignPersonal(text []byte) ([]byte, error) {
	head := "\x19Ethereum Signed Message:\n" + strconv.Itoa(len(text))
	return w.SignHash(crypto.Keccak256Hash([]byte(head), text))
}

// Secret hands out the private key (32 bytes) for keys.SignEnv and for export.
func (w *Wallet) Secret() keys.Secret { return keys.NewSecret(crypto.FromECDSA(w.key)) }

// Export is the key as 0x-hex: for a person's eyes, after a warning.
func (w *Wallet) Export() keys.Secret {
	return keys.NewSecret([]byte("0x" + hex.EncodeToString(crypto.FromECDSA(w.key))))
}

// String shows the address only.
func (w *Wallet) String() string { return w.info.Address }

// GoString shows the address only.
func (w *Wallet) GoString() string { return w.String() }
