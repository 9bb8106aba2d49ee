package cli

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/ledger"
)

const ledgerOrigin = "test/ledger"

// logSource is a KMS that keeps its ledger in memory, signed by one member.
type logSource struct {
	t    *testing.T
	tree ledger.Tree
	key  ed25519.PrivateKey
	keys ledger.Keys
	// size is what it signs: behind the tree for a member that is late.
	size int64
	leaf func(int64, []byte) []byte // what it gives out instead
}

func newLog(t *testing.T, n int) *logSource {
	t.Helper()
	s := &logSource{t: t, key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)), leaf: func(_ int64, b []byte) []byte { return b }}
	vk, err := ledger.VerifierKey(ledger.MemberKeyName(ledgerOrigin, "kms-1"), s.key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	s.keys = ledger.Majority(ledgerOrigin, []string{vk})
	for range n {
		s.add(ledger.Leaf{Kind: ledger.KindAllow})
	}
	return s
}

func (s *logSource) add(l ledger.Leaf) {
	s.t.Helper()
	l.Version, l.Time, l.Member = ledger.LeafVersion, time.Unix(1_700_000_000+s.tree.Size(), 0), "kms-1"
	b, err := l.Encode()
	if err == nil {
		_, err = s.tree.Append(b)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.size = s.tree.Size()
}

func (s *logSource) Checkpoint(context.Context) ([]byte, error) {
	root, err := s.tree.Root(s.size)
	if err != nil {
		return nil, err
	}
	return ledger.SignCheckpoint(ledger.Checkpoint{Origin: ledgerOrigin, Size: s.size, Root: root}, ledger.MemberKeyName(ledgerOrigin, "kms-1"), s.key)
}

func (s *logSource) Leaf(_ context.Context, i int64) ([]byte, error) {
	b, err := s.tree.Leaf(i)
	return s.leaf(i, b), err
}

func (s *logSource) Inclusion(_ context.Context, i, size int64) ([][]byte, error) {
	return s.tree.Inclusion(i, size)
}

func (s *logSource) Consistency(_ context.Context, from, to int64) ([][]byte, error) {
	return s.tree.Consistency(from, to)
}

func look(t *testing.T, s *logSource, file string) (*book, error) {
	t.Helper()
	b := &book{kms: s, stop: func() {}, file: file}
	return b, b.open(t.Context(), s.keys)
}

// A ledger that this machine has seen may grow, and nothing else.
func TestLedgerIsWitnessed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ledger", "x.note")
	s := newLog(t, 5)
	if b, err := look(t, s, file); err != nil || b.seen.Size != 0 || b.at.Size != 5 {
		t.Fatalf("first: %+v %v", b, err)
	}
	s.add(ledger.Leaf{Kind: ledger.KindDeny})
	if b, err := look(t, s, file); err != nil || b.seen.Size != 5 || b.at.Size != 6 {
		t.Fatalf("grown: %+v %v", b, err)
	}
	s.size = 4 // a member that is late
	if b, err := look(t, s, file); err != nil || b.at.Size != 6 {
		t.Fatalf("late: %+v %v", b, err)
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := newLog(t, 2)
	for range 6 {
		other.add(ledger.Leaf{Kind: ledger.KindDeny})
	}
	for name, bad := range map[string]*logSource{"rewritten": other, "cut off": newLog(t, 3), "empty": newLog(t, 0)} {
		if _, err := look(t, bad, file); cvm.ReasonOf(err) != "ledger-forked" {
			t.Errorf("%s: %v", name, err)
		}
		if now, _ := os.ReadFile(file); !bytes.Equal(now, kept) {
			t.Fatalf("%s: the witness forgot what it saw", name)
		}
		if _, err := os.Stat(file + ".other"); err != nil {
			t.Errorf("%s: the other checkpoint is the proof, and is not kept: %v", name, err)
		}
	}
	stranger := newLog(t, 9)
	stranger.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
	if _, err := look(t, stranger, file); cvm.CodeOf(err) != cvm.Denied {
		t.Errorf("signed by a stranger: %v", err)
	}
	if err := os.WriteFile(file, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := look(t, s, file); cvm.CodeOf(err) != cvm.Precondition {
		t.Errorf("a damaged memory: %v", err)
	}
}

// Entries that are not the signed ones are refused, one by one and in the audit.
func TestLedgerEntriesAreProved(t *testing.T) {
	t.Parallel()
	s := newLog(t, 70)
	s.add(ledger.Leaf{Kind: ledger.KindDeny, AppID: strings.Repeat("ab", 20), Reason: "image-not-allowed"})
	a := &app{Config: Config{Getenv: func(string) string { return "" }, Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}, Now: time.Now}}
	b, err := look(t, s, filepath.Join(t.TempDir(), "x.note"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		f    ledgerFilter
		want string
	}{
		{ledgerFilter{count: 2}, "[69 70]"}, {ledgerFilter{count: 5, kind: ledger.KindDeny}, "[70]"},
		{ledgerFilter{count: 5, app: "0x" + strings.Repeat("AB", 20)}, "[70]"}, {ledgerFilter{count: 5, instance: "ff"}, "[]"},
	} {
		got, err := a.ledgerEntries(t.Context(), b, &tc.f)
		at := []int64{}
		for _, e := range got {
			at = append(at, e.Index)
		}
		if err != nil || fmt.Sprint(at) != tc.want {
			t.Errorf("%+v: %v %v, want %s", tc.f, at, err, tc.want)
		}
	}
	if all, err := a.ledgerEntries(t.Context(), b, &ledgerFilter{count: 1000}); err != nil || len(all) != 71 || all[0].Index != 0 {
		t.Errorf("all: %d %v", len(all), err)
	}
	if kinds, err := a.auditLedger(t.Context(), b); err != nil || kinds[ledger.KindAllow] != 70 || kinds[ledger.KindDeny] != 1 {
		t.Errorf("%v %v", kinds, err)
	}
	changed, err := ledger.Leaf{Version: 1, Kind: ledger.KindAllow, Time: time.Unix(1, 0), Member: "kms-2"}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s.leaf = func(i int64, b []byte) []byte {
		if i == 69 {
			return changed
		}
		return b
	}
	if _, err := b.entry(t.Context(), 69); cvm.ReasonOf(err) != "ledger-not-included" {
		t.Errorf("a changed entry: %v", err)
	}
	if _, err := a.ledgerEntries(t.Context(), b, &ledgerFilter{count: 3}); cvm.ReasonOf(err) != "ledger-not-included" {
		t.Errorf("a changed entry in a list: %v", err)
	}
	if _, err := a.auditLedger(t.Context(), b); cvm.ReasonOf(err) != "ledger-not-included" {
		t.Errorf("a changed entry in the audit: %v", err)
	}
}
