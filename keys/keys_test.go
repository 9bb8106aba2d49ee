package keys_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Frozen vectors of the reference (dstack-core B.4, C.2, C.4, E). DO NOT CHANGE.
const (
	vectorRootDER = "308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420f57527cea4ab7ffb49af99b158cdc0e3ec06398f528349ea236b7d2afe19cec1a1440342000491f50522407ce29dce3ed7d31a15d80c1c42f13a23552d2b33a0ce09ee11e47bce95936f3e7f80d195f879e28e1b144ef37ac9ab8e36a690cbf930b775897b27"
	vectorDH      = "663afd58820be8ad645f9c035e93199d114ab16f738db62393bc1d7d623e8813"
	vectorAppKey  = "1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f1a2b"
	vectorEd25519 = "5Pbre1Amf1hrp2V2bbfKlIfxpQb2pJAmrgmhxgVoG9s"
	vectorK256    = "A6t_JdVkVdMAocH3f1f20WGT6JzdntxcXimUtEax8zc9"
	vectorEnvPub  = "e33a1832c6562067ff8f844a61e51ad051f1180b66ec2551fb0251735f3ee90a"
	vectorEnvSig  = "8542c49081fbf4e03f62034f13fbf70630bdf256a53032e38465a27c36fd6bed7a5e7111652004aef37f7fd92fbfc1285212c4ae6a6154203a48f5e16cad2cef00"
	vectorEnvRoot = "0217610d74cbd39b6143842c6d8bc310d79da1d82cc9d17f8876376221eda0c38f"
	vectorEnvPriv = "7c282bf94b35dc47801dc953bfa0896fc2bd313381d3e8eca4e42f6536d2a96f"
	vectorEnvBlob = "0bd18749612f4c8b9dd583c7d6a646b90abd34e3c731a7708d0caf9039095641e1f0948e775f0b7351788db7f246d51806954626dcccb6a60d64665ca3715c6bef75616cab476d27bba04080361200d6a58cec"
)

func vectorScalar(t testing.TB) keys.Secret {
	return keys.NewSecret(unhex(t, "f57527cea4ab7ffb49af99b158cdc0e3ec06398f528349ea236b7d2afe19cec1"))
}

func TestDerivationVectors(t *testing.T) {
	dh, err := keys.DeriveDH(vectorScalar(t), []byte("context one"), []byte("context two"))
	if err != nil || hex.EncodeToString(dh.Reveal()) != vectorDH {
		t.Fatalf("dh = %x, %v", dh.Reveal(), err)
	}
	r, err := keys.ImportRoot(0, vectorScalar(t), keys.NewSecret(unhex(t, vectorAppKey)))
	if err != nil {
		t.Fatal(err)
	}
	if der, _ := x509.MarshalPKCS8PrivateKey(r.CA()); hex.EncodeToString(der) != vectorRootDER {
		t.Fatalf("PKCS8 = %x", der)
	}
	k, err := keys.KeyPath(keys.NewSecret(unhex(t, vectorAppKey)), "vms")
	if err != nil {
		t.Fatal(err)
	}
	for alg, want := range map[string]string{keys.Ed25519: vectorEd25519, keys.Secp256k1: vectorK256} {
		pub, err := keys.PublicKey(alg, k)
		if err != nil || base64.RawURLEncoding.EncodeToString(pub) != want {
			t.Errorf("%s public key = %x, %v", alg, pub, err)
		}
	}
}

// Our own outputs, frozen so that no later change can lose an app's data. DO NOT CHANGE.
func TestFrozenOutputs(t *testing.T) {
	app := cvm.AppID{1, 2, 3}
	inst := cvm.InstanceID{9}
	want := map[uint32][]string{
		0: frozenEpoch0,
		1: frozenEpoch1,
	}
	for epoch, w := range want {
		r, err := keys.ImportRoot(epoch, vectorScalar(t), keys.NewSecret(unhex(t, vectorAppKey)))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		add := func(s keys.Secret, err error) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, hex.EncodeToString(s.Reveal()))
		}
		add(r.DiskKey(app, inst))
		add(r.DiskKey(app, cvm.InstanceID{}))
		add(r.EnvKey(app))
		add(r.AppKey(app))
		ca, err := r.AppCA(app)
		if err != nil {
			t.Fatal(err)
		}
		add(keys.Scalar(ca))
		add(r.ServiceKey(keys.PurposeTicket))
		add(r.ServiceKey(keys.PurposeNonce))
		if fmt.Sprint(got) != fmt.Sprint(w) {
			t.Errorf("epoch %d:\n%s", epoch, strings.Join(got, "\n"))
		}
	}
}

// The reference's formulas, written a second time without the package's helpers.
func TestEpochZeroIsTheReference(t *testing.T) {
	app, inst := cvm.AppID{7}, cvm.InstanceID{8}
	r, _ := keys.ImportRoot(0, vectorScalar(t), keys.NewSecret(unhex(t, vectorAppKey)))
	got, _ := r.DiskKey(app, inst)
	want, _ := keys.DeriveDH(vectorScalar(t), []byte(string(app[:])+string(inst[:])+"app-disk-crypt-key"))
	if !bytes.Equal(got.Reveal(), want.Reveal()) {
		t.Error("disk key differs")
	}
	one, _ := keys.ImportRoot(1, vectorScalar(t), keys.NewSecret(unhex(t, vectorAppKey)))
	if next, _ := one.DiskKey(app, inst); bytes.Equal(next.Reveal(), got.Reveal()) {
		t.Error("an epoch changes nothing")
	}
}

func vectorDir(t *testing.T) string {
	if d := os.Getenv("PHALA_VECTORS"); d != "" {
		return d
	}
	for d, i := ".", 0; i < 6; d, i = filepath.Join(d, ".."), i+1 {
		p := filepath.Join(d, "..", "shared", "vectors")
		if _, err := os.Stat(filepath.Join(p, "simulator")); err == nil {
			return p
		}
	}
	t.Skip("SKIPPED ALOUD: the vectors directory is absent (set PHALA_VECTORS)")
	return ""
}

func TestSimulatorChain(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(vectorDir(t), "simulator", "appkeys.json"))
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		K256 string `json:"k256_key"`
		Sig  string `json:"k256_signature"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	pub, err := keys.K256Public(keys.NewSecret(unhex(t, f.K256)))
	if err != nil || hex.EncodeToString(pub) != "02818494263695e8839122dbd88e281d7380622999df4e60a14befa0f2d096fc7c" {
		t.Fatalf("app public key %x, %v", pub, err)
	}
	app, _ := cvm.ParseAppID("5bb4ff9a3837357f19dc176407a5709c62eb6c56")
	root, err := keys.RecoverAppKeyIssuer(app, pub, unhex(t, f.Sig))
	if err != nil || hex.EncodeToString(root) != "0321529e458424ab1f710a3a57ec4dad2fb195ddca572f7469242ba6c7563085b6" {
		t.Fatalf("root public key %x, %v", root, err)
	}
}

func TestKeyChain(t *testing.T) {
	app := cvm.AppID{1}
	r, err := keys.NewRoot(rand.Reader, 0)
	if err != nil {
		t.Fatal(err)
	}
	appKey, _ := r.AppKey(app)
	sig, err := r.AppKeySignature(app)
	if err != nil {
		t.Fatal(err)
	}
	k, _ := keys.KeyPath(appKey, "p")
	for _, alg := range []string{"", keys.K256, keys.Ed25519} {
		pub, _ := keys.PublicKey(alg, k)
		s0, err := keys.SignKey(appKey, "test", pub)
		if err != nil {
			t.Fatal(err)
		}
		chain := [][]byte{s0, sig}
		if err := keys.VerifyKeyChain(app, "test", pub, chain, r.K256Public()); err != nil {
			t.Errorf("%q: %v", alg, err)
		}
		other, _ := keys.NewRoot(rand.Reader, 0)
		for name, err := range map[string]error{
			"other purpose": keys.VerifyKeyChain(app, "tes", pub, chain, r.K256Public()),
			"other app":     keys.VerifyKeyChain(cvm.AppID{2}, "test", pub, chain, r.K256Public()),
			"other root":    keys.VerifyKeyChain(app, "test", pub, chain, other.K256Public()),
			"no root":       keys.VerifyKeyChain(app, "test", pub, chain, nil),
			"no chain":      keys.VerifyKeyChain(app, "test", pub, nil, r.K256Public()),
		} {
			if err == nil {
				t.Errorf("%q, %s: accepted", alg, name)
			}
		}
	}
}

func TestSignVerify(t *testing.T) {
	k := keys.NewSecret(unhex(t, vectorAppKey))
	for _, alg := range []string{keys.Ed25519, keys.Secp256k1, keys.K256, keys.Secp256k1Prehashed} {
		data := bytes.Repeat([]byte{5}, 32)
		pub, err := keys.PublicKey(alg, k)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := keys.Sign(alg, k, data)
		if err != nil || len(sig) != 64 {
			t.Fatalf("%s: %d bytes, %v", alg, len(sig), err)
		}
		if ok, err := keys.VerifySignature(alg, pub, data, sig); !ok || err != nil {
			t.Errorf("%s: %v %v", alg, ok, err)
		}
		data[0]++
		if ok, err := keys.VerifySignature(alg, pub, data, sig); ok || err != nil {
			t.Errorf("%s, other data: %v %v", alg, ok, err)
		}
		if _, err := keys.VerifySignature(alg, pub[1:], data, sig); err == nil {
			t.Errorf("%s: a short key is accepted", alg)
		}
	}
	if _, err := keys.Sign(keys.Secp256k1Prehashed, k, []byte("x")); err == nil || !strings.Contains(err.Error(), "32-byte digest") {
		t.Errorf("prehashed with 1 byte: %v", err)
	}
	if _, err := keys.Sign("rsa", k, nil); err == nil {
		t.Error("rsa accepted")
	}
}

func TestRecoverRefusesOtherEncodings(t *testing.T) {
	k := keys.NewSecret(unhex(t, vectorAppKey))
	d := keys.Keccak256([]byte("m"))
	sig, _ := keys.SignDigest(k, d)
	pub, _ := keys.K256Public(k)
	if got, err := keys.Recover(d, sig); err != nil || !bytes.Equal(got, pub) {
		t.Fatalf("%x %v", got, err)
	}
	for _, v := range []byte{2, 27, 31} {
		bad := bytes.Clone(sig)
		bad[64] = v
		if _, err := keys.Recover(d, bad); err == nil {
			t.Errorf("recid %d accepted", v)
		}
	}
	high := bytes.Clone(sig) // s := n - s
	n := unhex(t, "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")
	borrow := 0
	for i := 31; i >= 0; i-- {
		v := int(n[i]) - int(sig[32+i]) - borrow
		if borrow = 0; v < 0 {
			v, borrow = v+256, 1
		}
		high[32+i] = byte(v)
	}
	high[64] ^= 1
	if _, err := keys.Recover(d, high); err == nil {
		t.Error("the high-S form is accepted")
	}
}

func TestEnvVectors(t *testing.T) {
	root, err := keys.RecoverEnvKeySigner(cvm.AppID{}, unhex(t, vectorEnvPub), nil, unhex(t, vectorEnvSig))
	if err != nil || hex.EncodeToString(root) != vectorEnvRoot {
		t.Fatalf("%x %v", root, err)
	}
	env, err := keys.DecryptEnv(keys.NewSecret(unhex(t, vectorEnvPriv)), unhex(t, vectorEnvBlob))
	if err != nil || len(env) != 1 || env[0].Key != "" || env[0].Value != "" {
		t.Fatalf("%d variables, %v", len(env), err)
	}
}

func TestEnvRoundTripAndRefusals(t *testing.T) {
	r, _ := keys.NewRoot(rand.Reader, 0)
	app := cvm.AppID{4}
	priv, _ := r.EnvKey(app)
	pub, _ := keys.EnvPublicKey(priv)
	at := time.Unix(1_800_000_000, 0)
	_, v1, err := r.SignEnvKey(app, pub, uint64(at.Unix()))
	if err != nil {
		t.Fatal(err)
	}
	check := func(a cvm.AppID, ts uint64, root []byte, now time.Time) error {
		return keys.VerifyEnvKey(a, pub, ts, v1, root, now)
	}
	ts := uint64(at.Unix())
	if err := check(app, ts, r.K256Public(), at.Add(299*time.Second)); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"old":        check(app, ts, r.K256Public(), at.Add(301*time.Second)),
		"ahead":      check(app, ts, r.K256Public(), at.Add(-61*time.Second)),
		"other app":  check(cvm.AppID{5}, ts, r.K256Public(), at),
		"other time": check(app, ts+1, r.K256Public(), at),
		"no pin":     check(app, ts, nil, at),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	env := []keys.EnvVar{{Key: "A", Value: "ä\x00<&"}, {Key: "B", Value: ""}}
	blob, err := keys.EncryptEnv(rand.Reader, pub, env)
	if err != nil {
		t.Fatal(err)
	}
	got, err := keys.DecryptEnv(priv, blob)
	if err != nil || len(got) != 2 || got[0].Value != env[0].Value {
		t.Fatalf("%v %v", got, err)
	}
	for i := range blob {
		bad := bytes.Clone(blob)
		bad[i] ^= 1
		if i == 31 { // the top bit of an X25519 key is ignored by the curve
			continue
		}
		if _, err := keys.DecryptEnv(priv, bad); err == nil {
			t.Fatalf("byte %d flipped: accepted", i)
		}
	}
	if _, err := keys.EncryptEnv(rand.Reader, make([]byte, 32), env); err == nil {
		t.Error("the all-zero key is accepted")
	}
	if _, err := keys.EncryptEnv(rand.Reader, pub, []keys.EnvVar{{Key: "A", Value: strings.Repeat("x", keys.MaxEnvValue+1)}}); err == nil {
		t.Error("a value over the limit is accepted")
	}
}

func TestEnvSigner(t *testing.T) {
	k := keys.NewSecret(unhex(t, vectorAppKey))
	pub, _ := keys.K256Public(k)
	addr, _ := keys.Address(pub)
	app, h := cvm.AppID{1}, [32]byte{2}
	sig, err := keys.SignEnv(k, app, 7, h)
	if err != nil || sig[64] < 27 {
		t.Fatal(err)
	}
	if got, err := keys.RecoverEnvSigner(sig, app, 7, h); err != nil || got != addr {
		t.Fatalf("%s %v", got, err)
	}
	if got, _ := keys.RecoverEnvSigner(sig, app, 8, h); got == addr {
		t.Error("another counter gives the same signer")
	}
	// Address of the private key 1: well known. DO NOT CHANGE.
	one, _ := keys.K256Public(keys.NewSecret(append(make([]byte, 31), 1)))
	if a, _ := keys.Address(one); a != "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf" {
		t.Errorf("address of key 1: %s", a)
	}
	if keys.SameAddress("", "") || !keys.SameAddress("0x7E5F4552091a69125d5dfcb7b8c2659029395bdf", "7e5f4552091a69125d5dfcb7b8c2659029395bdf") {
		t.Error("SameAddress")
	}
}

func TestWrap(t *testing.T) {
	r, _ := keys.NewRoot(rand.Reader, 3)
	priv := keys.NewSecret(bytes.Repeat([]byte{9}, 32))
	pub, _ := keys.WrapPublicKey(priv)
	c, err := keys.Wrap(pub, "info", r.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	s, err := keys.Unwrap(priv, "info", c)
	if err != nil {
		t.Fatal(err)
	}
	back, err := keys.ParseRoot(s)
	if err != nil || back.Epoch() != 3 || !bytes.Equal(back.K256Public(), r.K256Public()) {
		t.Fatalf("%v", err)
	}
	if _, err := keys.Unwrap(priv, "other", c); err == nil {
		t.Error("another info opens it")
	}
	if _, err := keys.Unwrap(keys.NewSecret(bytes.Repeat([]byte{8}, 32)), "info", c); err == nil {
		t.Error("another key opens it")
	}
}

func TestNothingPrintsKeys(t *testing.T) {
	r, _ := keys.ImportRoot(0, vectorScalar(t), keys.NewSecret(unhex(t, vectorAppKey)))
	s := keys.NewSecret([]byte("hunter2hunter2"))
	v := keys.EnvVar{Key: "A", Value: "hunter2"}
	out := fmt.Sprintf("%v %+v %#v %s %v %+v %#v %q %v %#v", r, r, r, r, s, s, s, s, v, v)
	for _, bad := range []string{"hunter2", vectorAppKey, "245, 117", "f57527ce"} {
		if strings.Contains(out, bad) {
			t.Errorf("%q shows: %s", bad, out)
		}
	}
}

func FuzzDecryptEnv(f *testing.F) {
	f.Add(unhex(f, vectorEnvBlob))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = keys.DecryptEnv(keys.NewSecret(unhex(t, vectorEnvPriv)), b)
	})
}

func FuzzRecover(f *testing.F) {
	f.Add(make([]byte, 32), unhex(f, vectorEnvSig))
	f.Fuzz(func(t *testing.T, d, s []byte) {
		if pub, err := keys.Recover(d, s); err == nil && len(pub) != 33 {
			t.Fatalf("%x", pub)
		}
	})
}
