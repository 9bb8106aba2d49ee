package wallet

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

// DO NOT CHANGE: private key 1 and its address.
const (
	keyOne  = "0000000000000000000000000000000000000000000000000000000000000001"
	addrOne = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
)

func TestKeptAcrossProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "w.json")
	w, err := Import(path, Dev, keys.NewSecret([]byte("0x"+keyOne+"\n")), []byte("pw"))
	if err != nil || w.Address().Hex() != addrOne {
		t.Fatalf("%v, %v", w, err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", st.Mode(), err)
	}
	b, _ := os.ReadFile(path)
	if bytes.Contains(b, []byte(keyOne)) {
		t.Fatal("the key is in the file in clear")
	}
	info, err := Inspect(path)
	if err != nil || info.Address != addrOne || info.Network != Dev {
		t.Fatalf("%+v, %v", info, err)
	}
	again, err := Load(path, []byte("pw"))
	if err != nil || string(again.Export().Reveal()) != "0x"+keyOne {
		t.Fatalf("%v", err)
	}
	for _, f := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(f, again); s != addrOne {
			t.Errorf("%s prints %q", f, s)
		}
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "w.json")
	if _, err := Create(path, Dev, []byte("pw")); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	if _, err := Create(path, Dev, []byte("pw")); cvm.CodeOf(err) != cvm.Conflict {
		t.Errorf("over another key: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("a refused Create changed the file")
	}
	if _, err := Load(path, []byte("wrong")); cvm.CodeOf(err) != cvm.Denied {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := Load(filepath.Join(dir, "none"), []byte("x")); cvm.CodeOf(err) != cvm.NotFound {
		t.Errorf("no file: %v", err)
	}
	if _, err := Create(filepath.Join(dir, "a"), Dev, nil); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("empty passphrase: %v", err)
	}
	for _, n := range []string{"", "main", "0", "01", "-1", "1.0"} {
		if _, err := Create(filepath.Join(dir, "b"), n, []byte("x")); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("network %q: %v", n, err)
		}
	}
	for _, k := range []string{"", "zz", keyOne + "00", strings.Repeat("0", 64), strings.Repeat("f", 64)} {
		_, err := Import(filepath.Join(dir, "c"), Dev, keys.NewSecret([]byte(k)), []byte("x"))
		if cvm.CodeOf(err) != cvm.Invalid || (k != "" && strings.Contains(err.Error(), k)) {
			t.Errorf("key %q: %v", k, err)
		}
	}
	// Someone swaps the visible address.
	bad := bytes.Replace(before, []byte(`"address": "0x`), []byte(`"address": "0X`), 1)
	if err := os.WriteFile(filepath.Join(dir, "swapped"), bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(filepath.Join(dir, "swapped"), []byte("pw")); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("another address than the key's: %v", err)
	}
}

func TestSignsOnlyOnItsNetwork(t *testing.T) {
	dir := t.TempDir()
	dev, err := Import(filepath.Join(dir, "dev"), Dev, keys.NewSecret([]byte(keyOne)), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	base := &Wallet{key: dev.key, info: Info{Network: "8453", Address: addrOne}}
	for _, c := range []struct {
		w    *Wallet
		n    Network
		good bool
	}{
		{dev, Network{31337, true}, true},
		{dev, Network{8453, true}, true}, // the compatibility tests' development chain
		{dev, Network{8453, false}, false},
		{dev, Network{31337, false}, false}, // an id proves nothing
		{base, Network{8453, false}, true},
		{base, Network{1, false}, false},
		{base, Network{8453, true}, false},
	} {
		_, err1 := c.w.TransactOpts(c.n.ID, c.n.Dev)
		tx, err2 := c.w.SignTx(types.NewTx(&types.DynamicFeeTx{ChainID: new(big.Int).SetUint64(c.n.ID), To: &common.Address{}}), c.n)
		if (err1 == nil) != c.good || (err2 == nil) != c.good {
			t.Errorf("%s wallet on %+v: %v, %v", c.w.info.Network, c.n, err1, err2)
		}
		if !c.good && (cvm.ReasonOf(err1) != "wallet-wrong-network" || tx != nil) {
			t.Errorf("%s wallet on %+v: %v", c.w.info.Network, c.n, err1)
		}
	}
}

func TestSignatures(t *testing.T) {
	w, err := Import(filepath.Join(t.TempDir(), "w"), Dev, keys.NewSecret([]byte(keyOne)), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	app, blob := cvm.AppID{1}, [32]byte{2}
	want, err := keys.SignEnv(w.Secret(), app, 7, blob)
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.SignPersonal([]byte(keys.EnvText(app, 7, blob)))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := keys.RecoverEnvSigner(got, app, 7, blob)
	if err != nil || !strings.EqualFold(signer, addrOne) || len(got) != 65 {
		t.Errorf("signer %s, %v (%d bytes)", signer, err, len(got))
	}
	if s2, err := keys.RecoverEnvSigner(want, app, 7, blob); err != nil || s2 != signer {
		t.Errorf("keys.SignEnv with the wallet's key: %s, %v", s2, err)
	}
	sig, err := w.SignHash([32]byte{3})
	if err != nil {
		t.Fatal(err)
	}
	sig[64] -= 27
	pub, err := crypto.SigToPub(make32(3), sig)
	if err != nil || crypto.PubkeyToAddress(*pub).Hex() != addrOne {
		t.Errorf("SignHash: %v", err)
	}
}

func make32(first byte) []byte { return append([]byte{first}, make([]byte, 31)...) }

func TestOpenDev(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.json")
	a, err := OpenDev(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenDev(path)
	if err != nil || a.Address() != b.Address() {
		t.Fatalf("opened again: %v", err)
	}
	if err := os.Chmod(path+".pass", 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDev(path); cvm.CodeOf(err) != cvm.Denied {
		t.Errorf("a passphrase that others can read: %v", err)
	}
	if err := os.Remove(path + ".pass"); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDev(path); cvm.CodeOf(err) != cvm.Precondition {
		t.Errorf("a lost passphrase must not make a new key: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"network":"dev","address":"` + addrOne + `","created":"2026-01-01T00:00:00Z","crypto":{}}`))
	f.Add([]byte(hex.EncodeToString(make([]byte, 8))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if w, err := parse(b); err == nil && (w.Version != 1 || checkNetwork(w.Network) != nil) {
			t.Fatalf("accepted %q", b)
		}
	})
}
