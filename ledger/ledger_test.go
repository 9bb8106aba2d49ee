package ledger_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/ledger"
)

func leaf(i int) ledger.Leaf {
	return ledger.Leaf{
		Version: 1, Kind: ledger.KindDeny, Time: time.Unix(1_800_000_000+int64(i), 5).In(time.FixedZone("x", 3600)),
		Member: "kms-1", AppID: fmt.Sprint(i), Reason: "r", Detail: "a<b>&\xff",
		Governance: json.RawMessage(`{"z": 1, "a": [true]}`),
	}
}

// DO NOT CHANGE: the canonical form is what every proof rests on.
const frozenLeaf = `{"v":1,"kind":"deny","time":"2027-01-15T08:00:00Z","member":"kms-1","app_id":"0","epoch":0,"reason":"r","detail":"a<b>&?","governance":{"a":[true],"z":1}}`

func TestLeafIsCanonical(t *testing.T) {
	b, err := leaf(0).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != frozenLeaf {
		t.Errorf("got  %s\nwant %s", b, frozenLeaf)
	}
	if _, err := ledger.ParseLeaf(b); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"space":       strings.Replace(frozenLeaf, `"v":1`, `"v": 1`, 1),
		"order":       strings.Replace(frozenLeaf, `"v":1,"kind":"deny"`, `"kind":"deny","v":1`, 1),
		"unknown key": strings.Replace(frozenLeaf, `"epoch":0`, `"epoch":0,"x":1`, 1),
		"twice":       strings.Replace(frozenLeaf, `"epoch":0`, `"epoch":0,"epoch":0`, 1),
		"case":        strings.Replace(frozenLeaf, `"epoch"`, `"Epoch"`, 1),
		"zone":        strings.Replace(frozenLeaf, "08:00:00Z", "09:00:00+01:00", 1),
		"inner order": strings.Replace(frozenLeaf, `{"a":[true],"z":1}`, `{"z":1,"a":[true]}`, 1),
		"tail":        frozenLeaf + " ",
		"second":      frozenLeaf + "{}",
		"kind":        strings.Replace(frozenLeaf, `"deny"`, `"maybe"`, 1),
		"version":     strings.Replace(frozenLeaf, `"v":1`, `"v":2`, 1),
	} {
		if _, err := ledger.ParseLeaf([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParseLeaf(f *testing.F) {
	f.Add([]byte(frozenLeaf))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ledger.ParseLeaf(b)
		if err != nil {
			return
		}
		again, err := l.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("accepted %q, encodes to %q (%v)", b, again, err)
		}
	})
}

type log struct {
	tree *ledger.Tree
	keys []ed25519.PrivateKey
	pub  ledger.Keys
}

func newLog(t testing.TB, leaves, members int) *log {
	l := &log{tree: &ledger.Tree{}}
	for i := range leaves {
		b, err := leaf(i).Encode()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := l.tree.Append(b); err != nil || n != int64(i) {
			t.Fatal(n, err)
		}
	}
	var pubs []string
	for i := range members {
		k := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i + 1)}, 32))
		l.keys = append(l.keys, k)
		vk, err := ledger.VerifierKey(ledger.MemberKeyName("o", fmt.Sprint(i)), k.Public().(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		pubs = append(pubs, vk)
	}
	l.pub = ledger.Majority("o", pubs)
	return l
}

func (l *log) sign(t testing.TB, size int64, members ...int) []byte {
	root, err := l.tree.Root(size)
	if err != nil {
		t.Fatal(err)
	}
	var notes [][]byte
	for _, m := range members {
		n, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: "o", Size: size, Root: root}, ledger.MemberKeyName("o", fmt.Sprint(m)), l.keys[m])
		if err != nil {
			t.Fatal(err)
		}
		notes = append(notes, n)
	}
	out, err := ledger.MergeCheckpoints(l.pub.Keys, notes...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (l *log) receipt(t testing.TB, index, size int64, members ...int) ledger.Receipt {
	b, _ := l.tree.Leaf(index)
	p, err := l.tree.Inclusion(index, size)
	if err != nil {
		t.Fatal(err)
	}
	return ledger.Receipt{Leaf: b, Index: index, TreeSize: size, Proof: p, Checkpoint: l.sign(t, size, members...)}
}

func TestReceipt(t *testing.T) {
	l := newLog(t, 300, 3)
	for _, size := range []int64{1, 2, 7, 256, 300} {
		for _, i := range []int64{0, size / 2, size - 1} {
			if got, err := l.receipt(t, i, size, 0, 2).Verify(l.pub); err != nil || got.AppID != fmt.Sprint(i) {
				t.Errorf("%d of %d: %v", i, size, err)
			}
		}
	}
	good := l.receipt(t, 5, 300, 0, 1)
	change := map[string]func(r *ledger.Receipt, k *ledger.Keys){
		"one signature":    func(r *ledger.Receipt, k *ledger.Keys) { r.Checkpoint = l.sign(t, 300, 1) },
		"one signed twice": func(r *ledger.Receipt, k *ledger.Keys) { r.Checkpoint = l.sign(t, 300, 1, 1) },
		"other leaf":       func(r *ledger.Receipt, k *ledger.Keys) { r.Leaf, _ = l.tree.Leaf(6) },
		"other index":      func(r *ledger.Receipt, k *ledger.Keys) { r.Index = 6 },
		"other size":       func(r *ledger.Receipt, k *ledger.Keys) { r.TreeSize = 299 },
		"short proof":      func(r *ledger.Receipt, k *ledger.Keys) { r.Proof = r.Proof[1:] },
		"odd hash":         func(r *ledger.Receipt, k *ledger.Keys) { r.Proof = [][]byte{{1}} },
		"no checkpoint":    func(r *ledger.Receipt, k *ledger.Keys) { r.Checkpoint = nil },
		"other origin":     func(r *ledger.Receipt, k *ledger.Keys) { k.Origin = "p" },
		"zero keys":        func(r *ledger.Receipt, k *ledger.Keys) { *k = ledger.Keys{} },
		"threshold zero":   func(r *ledger.Receipt, k *ledger.Keys) { k.Threshold = 0 },
		"minority":         func(r *ledger.Receipt, k *ledger.Keys) { k.Threshold = 1 },
		"key twice":        func(r *ledger.Receipt, k *ledger.Keys) { k.Keys = []string{k.Keys[0], k.Keys[0]} },
		"strangers' keys": func(r *ledger.Receipt, k *ledger.Keys) {
			o := newLog(t, 0, 5)
			k.Keys, k.Threshold = o.pub.Keys[3:], 2
		},
	}
	for name, f := range change {
		r, k := good, l.pub
		f(&r, &k)
		if _, err := r.Verify(k); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestForkIsSeen(t *testing.T) {
	a, b := newLog(t, 20, 3), newLog(t, 19, 3)
	other, _ := leaf(77).Encode()
	if _, err := b.tree.Append(other); err != nil {
		t.Fatal(err)
	}
	root := func(l *log, n int64) [32]byte { r, _ := l.tree.Root(n); return r }
	p, err := a.tree.Consistency(10, 20)
	if err != nil {
		t.Fatal(err)
	}
	if err := ledger.CheckConsistency(10, root(a, 10), 20, root(a, 20), p); err != nil {
		t.Fatal(err)
	}
	if err := ledger.CheckConsistency(10, root(a, 10), 20, root(b, 20), p); err == nil {
		t.Error("a fork is accepted")
	}
	_, err = ledger.MergeCheckpoints(a.pub.Keys, a.sign(t, 20, 0), b.sign(t, 20, 1))
	if err == nil {
		t.Error("signatures over different trees merge")
	}
}

// RFC 6962 test vectors of the empty tree and of one empty leaf. DO NOT CHANGE.
func TestHashing(t *testing.T) {
	var tr ledger.Tree
	empty, _ := tr.Root(0)
	if hex.EncodeToString(empty[:]) != "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Errorf("empty root %x", empty)
	}
	if _, err := tr.Append(nil); err != nil {
		t.Fatal(err)
	}
	one, _ := tr.Root(1)
	if hex.EncodeToString(one[:]) != "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d" {
		t.Errorf("root of one empty leaf %x", one)
	}
}

func TestTiles(t *testing.T) {
	l := newLog(t, 300, 1)
	for path, n := range map[string]int{"0/000": 256 * 32, "0/001.p/44": 44 * 32, "1/000.p/1": 32} {
		if b, err := l.tree.Tile(path); err != nil || len(b) != n {
			t.Errorf("%s: %d bytes, %v", path, len(b), err)
		}
	}
	b, err := l.tree.Tile("entries/001.p/44")
	if first, _ := l.tree.Leaf(256); err != nil || !bytes.Equal(b[2:2+len(first)], first) {
		t.Errorf("entries: %v", err)
	}
	for _, bad := range []string{"", "x", "0/001", "0/001.p/45", "data/000", "-1/000", "entries/002.p/1", "0/../0", "9/000"} {
		if _, err := l.tree.Tile(bad); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}

func FuzzOpenCheckpoint(f *testing.F) {
	l := newLog(f, 3, 1)
	f.Add(l.sign(f, 3, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := l.pub.Open(b); err == nil && c.Size != 3 {
			t.Fatalf("a checkpoint nobody signed: %+v", c)
		}
	})
}
