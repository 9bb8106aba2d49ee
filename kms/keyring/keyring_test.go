package keyring_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/keyring"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
)

func at() time.Time { return time.Unix(1_800_000_000, 0).UTC() }

type world struct {
	t    testing.TB
	root *keys.Root
	wrap keys.Secret
	cmds [][]byte
}

func member(t testing.TB, id string, wrap keys.Secret) keyring.Member {
	pub, err := keys.WrapPublicKey(wrap)
	if err != nil {
		t.Fatal(err)
	}
	seed := sha256.Sum256([]byte(id))
	vk, err := ledger.VerifierKey(ledger.MemberKeyName("o", id), ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return keyring.Member{ID: id, URLs: []string{"https://" + id}, Raft: id + ":1", TLSKey: []byte("tls " + id), WrapKey: pub, VerifierKey: vk}
}

func (w *world) add(c keyring.Command) {
	w.t.Helper()
	c.V, c.Time, c.Member = keyring.Version, at().Add(time.Duration(len(w.cmds))*time.Second), "a"
	b, err := c.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	w.cmds = append(w.cmds, b)
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, wrap: keys.NewSecret(bytes.Repeat([]byte{5}, 32))}
	var err error
	if w.root, err = keys.NewRoot(rand.Reader, 0); err != nil {
		t.Fatal(err)
	}
	mb := member(t, "a", w.wrap)
	c, err := keyring.WrapRoot("o", w.root, mb)
	if err != nil {
		t.Fatal(err)
	}
	w.add(keyring.Command{Kind: keyring.KindBootstrap, Bootstrap: &keyring.Bootstrap{
		Origin: "o", Member: mb, Epoch: keyring.Epoch{K256: w.root.K256Public(), Wrapped: map[string][]byte{"a": c}},
	}})
	return w
}

func decide(n int, change func(d *keyring.Decide)) keyring.Command {
	id := fmt.Sprint("lease-", n)
	d := &keyring.Decide{
		Leaf:  ledger.Leaf{AppID: cvm.AppID{1}.String(), ClientKey: "key", LeaseID: id},
		Nonce: fmt.Sprint("nonce-", n), NonceExpires: at().Add(time.Minute), Heights: &keyring.Heights{Chain: "c", Final: uint64(100 + n), Head: uint64(110 + n)},
		Lease: &keyring.Lease{ID: id, AppID: cvm.AppID{1}, InstanceID: cvm.InstanceID{byte(n + 1)}, ClientKey: "key"},
	}
	if change != nil {
		change(d)
	}
	return keyring.Command{Kind: keyring.KindDecide, Decide: d}
}

func (w *world) run(t testing.TB, m *keyring.Machine) (out []keyring.Result) {
	for i, c := range w.cmds {
		b, err := m.Apply(uint64(i+1), c)
		if err != nil {
			t.Fatal(err)
		}
		var r keyring.Result
		if err := json.Unmarshal(b, &r); err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func full(t testing.TB) *world {
	w := newWorld(t)
	for n := range 40 {
		w.add(decide(n, func(d *keyring.Decide) {
			d.Lease.EnvTracked, d.Lease.EnvCounter = n%3 == 0, uint64(n)
		}))
	}
	w.add(keyring.Command{Kind: keyring.KindSummary, Summary: &keyring.Summary{Count: 3, Reasons: map[string]uint64{"b": 1, "a": 2}}})
	return w
}

func TestDeterministic(t *testing.T) {
	w := full(t)
	var first []byte
	for i := range 8 {
		m := keyring.NewMachine()
		w.run(t, m)
		s, err := m.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = s
		} else if !bytes.Equal(first, s) {
			t.Fatal("two runs of the same commands differ")
		}
	}
}

func TestSnapshot(t *testing.T) {
	w := full(t)
	m := keyring.NewMachine()
	w.run(t, m)
	s, _ := m.Snapshot()
	again := keyring.NewMachine()
	if err := again.Restore(s); err != nil {
		t.Fatal(err)
	}
	if b, _ := again.Snapshot(); !bytes.Equal(b, s) || again.Applied() != m.Applied() || again.Size() != m.Size() {
		t.Error("a restored machine differs")
	}
	for i := 0; i < len(s); i += 97 {
		bad := bytes.Clone(s)
		bad[i] ^= 1
		if err := keyring.NewMachine().Restore(bad); err == nil {
			t.Fatalf("byte %d flipped: accepted", i)
		}
	}
	if err := keyring.NewMachine().Restore(s[:len(s)-1]); err == nil {
		t.Error("a short snapshot is accepted")
	}
	root := w.root.Marshal().Reveal()
	for _, form := range []string{string(root[4:36]), hex.EncodeToString(root[4:36]), hex.EncodeToString(root[36:])} {
		if bytes.Contains(s, []byte(form)) {
			t.Error("the snapshot holds a root key")
		}
	}
}

func TestUnknownCommandHalts(t *testing.T) {
	for _, c := range []string{
		``, `{}`, `{"v":2,"kind":"summary","time":"2027-01-15T08:00:00Z","member":"a","summary":{"count":1,"reasons":{}}}`,
		`{"v":1,"kind":"rotate","time":"2027-01-15T08:00:00Z","member":"a"}`, `{"v":1,"kind":"join","time":"2027-01-15T08:00:00Z","member":"a"}`,
		`{"v":1,"kind":"summary","time":"2027-01-15T08:00:00Z","member":"a","summary":{"count":1,"reasons":{}},"x":1}`,
	} {
		if _, err := keyring.NewMachine().Apply(1, []byte(c)); err == nil {
			t.Errorf("%s: applied", c)
		}
	}
}

func TestStateRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		cmd    keyring.Command
	}{
		"nonce again":        {kmsapi.ReasonNonceUsed, decide(2, func(d *keyring.Decide) { d.Nonce = "nonce-1" })},
		"no nonce":           {kmsapi.ReasonNonceUsed, decide(2, func(d *keyring.Decide) { d.Nonce = "" })},
		"lease again":        {kmsapi.ReasonNonceUsed, decide(2, func(d *keyring.Decide) { d.Lease.ID = "lease-1" })},
		"nonce too old":      {kmsapi.ReasonNonceExpired, decide(2, func(d *keyring.Decide) { d.NonceExpires = at().Add(-time.Hour) })},
		"env back":           {kmsapi.ReasonEnvRolledBack, decide(2, func(d *keyring.Decide) { d.Lease.EnvTracked, d.Lease.EnvCounter = true, 6 })},
		"env other bytes":    {kmsapi.ReasonEnvRolledBack, decide(2, func(d *keyring.Decide) { d.Lease.EnvTracked, d.Lease.EnvCounter, d.Lease.EnvSHA256 = true, 7, "y" })},
		"final back":         {keyring.ReasonChainWentBack, decide(2, func(d *keyring.Decide) { d.Heights.Final = 100 })},
		"head far back":      {keyring.ReasonChainWentBack, decide(2, func(d *keyring.Decide) { d.Heights.Head = 102 })},
		"second bootstrap":   {keyring.ReasonBootstrapped, keyring.Command{Kind: keyring.KindBootstrap, Bootstrap: &keyring.Bootstrap{Origin: "x"}}},
		"join without roots": {keyring.ReasonNotFounded, keyring.Command{Kind: keyring.KindJoin, Join: &keyring.Join{Member: member(t, "b", keys.NewSecret(bytes.Repeat([]byte{6}, 32)))}}},
		"member's id taken":  {keyring.ReasonMemberTaken, keyring.Command{Kind: keyring.KindJoin, Join: &keyring.Join{Member: member(t, "a", keys.NewSecret(bytes.Repeat([]byte{6}, 32)))}}},
	} {
		w := newWorld(t)
		w.add(decide(1, func(d *keyring.Decide) { d.Lease.EnvTracked, d.Lease.EnvCounter, d.Lease.EnvSHA256 = true, 7, "x" }))
		w.add(tc.cmd)
		m := keyring.NewMachine()
		r := w.run(t, m)[2]
		if r.Reason != tc.reason {
			t.Errorf("%s: %+v, want %s", name, r, tc.reason)
		}
		if _, err := m.Recorded("lease-2", "key"); err == nil {
			t.Errorf("%s: the lease was granted", name)
		}
	}
}

// What is redeemed for good stays so, for whom it was, over a snapshot, and only by
// an allow.
func TestOnce(t *testing.T) {
	launch := func(by string) []keyring.Once { return []keyring.Once{{ID: "launch", By: by}} }
	key := []keyring.Once{{ID: "key"}}
	with := func(n int, once []keyring.Once, nonce bool) keyring.Command {
		return decide(n, func(d *keyring.Decide) {
			if d.Once = once; !nonce {
				d.Nonce, d.NonceExpires, d.Leaf.NoNonce = "", time.Time{}, true
			}
		})
	}
	w := newWorld(t)
	w.add(decide(0, func(d *keyring.Decide) { d.Once, d.Lease, d.Leaf.Reason = launch("c"), nil, "denied" })) // redeems nothing
	for n, c := range []struct {
		once  []keyring.Once
		nonce bool
	}{{launch("a"), true}, {launch("a"), true}, {launch("b"), true}, {launch(""), true}, {key, false}, {key, false}, {key, true}, {nil, false}} {
		w.add(with(n+1, c.once, c.nonce))
	}
	m := keyring.NewMachine()
	var got []string
	for _, r := range w.run(t, m)[2:] {
		got = append(got, r.Reason)
	}
	used := kmsapi.ReasonNonceUsed
	if want := []string{"", "", kmsapi.ReasonLaunchRedeemed, used, "", used, used, used}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	b, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	again := keyring.NewMachine()
	if err := again.Restore(b); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*keyring.Machine{m, again} {
		if !m.Redeemed(key[0]) || !m.Redeemed(launch("b")[0]) || m.Redeemed(launch("a")[0]) || m.Redeemed(keyring.Once{ID: "other"}) {
			t.Error("Redeemed")
		}
	}
}

// T1: a vault opens for what the state has applied, and for nothing else.
func TestVaultNeedsARecord(t *testing.T) {
	w := newWorld(t)
	w.add(decide(0, nil))
	m := keyring.NewMachine()
	w.run(t, m)
	v, err := keyring.Open(m, "a", w.wrap)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.AppKeys(keyring.Recorded{}); err == nil {
		t.Error("keys without a decision")
	}
	if _, err := v.AppCA(keyring.Recorded{}); err == nil {
		t.Error("a CA key without a decision")
	}
	if _, err := m.Recorded("lease-0", "another key"); cvm.ReasonOf(err) != kmsapi.ReasonLeaseUnknown {
		t.Errorf("%v", err)
	}
	rec, err := m.Recorded("lease-0", "key")
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.AppKeys(rec)
	want, _ := w.root.DiskKey(cvm.AppID{1}, cvm.InstanceID{1})
	if err != nil || !bytes.Equal(got.Disk.Reveal(), want.Reveal()) {
		t.Errorf("%v", err)
	}
	if _, err := keyring.Open(m, "a", keys.NewSecret(bytes.Repeat([]byte{6}, 32))); err == nil {
		t.Error("another member's key opens the vault")
	}
	if s := fmt.Sprintf("%v", v); !strings.Contains(s, "redacted") {
		t.Error(s)
	}
}

func TestNewBootEndsOldLease(t *testing.T) {
	w := newWorld(t)
	w.add(decide(0, nil))
	w.add(decide(1, func(d *keyring.Decide) { d.Lease.InstanceID = cvm.InstanceID{1} }))
	m := keyring.NewMachine()
	w.run(t, m)
	if _, err := m.Recorded("lease-0", "key"); err == nil {
		t.Error("two machines hold a lease for one instance")
	}
	if _, err := m.Recorded("lease-1", "key"); err != nil {
		t.Error(err)
	}
}

func FuzzApply(f *testing.F) {
	w := full(f)
	for _, c := range w.cmds[:3] {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := keyring.NewMachine()
		w.cmds = w.cmds[:2]
		w.run(t, m)
		if _, err := m.Apply(3, b); err != nil {
			return
		}
		s, err := m.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if err := keyring.NewMachine().Restore(s); err != nil {
			t.Fatalf("a state that cannot be restored: %v", err)
		}
	})
}

func FuzzRestore(f *testing.F) {
	m := keyring.NewMachine()
	full(f).run(f, m)
	s, _ := m.Snapshot()
	f.Add(s)
	f.Fuzz(func(t *testing.T, b []byte) { _ = keyring.NewMachine().Restore(b) })
}
