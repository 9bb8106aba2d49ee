package kms

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/keyring"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

func TestNonce(t *testing.T) {
	key, at := keys.NewSecret(bytes.Repeat([]byte{1}, 32)), time.Unix(1_800_000_000, 0)
	n := newNonce(key, []byte("spki"), at).Nonce
	if end, err := checkNonce(key, n, []byte("spki"), at.Add(59*time.Second)); err != nil || !end.Equal(at.Add(time.Minute)) {
		t.Fatal(end, err)
	}
	late := bytes.Clone(n)
	late[7]++ // a later time
	for name, tc := range map[string]struct {
		key    keys.Secret
		nonce  []byte
		spki   string
		at     time.Time
		reason string
	}{
		"old":          {key, n, "spki", at.Add(61 * time.Second), kmsapi.ReasonNonceExpired},
		"ahead":        {key, n, "spki", at.Add(-11 * time.Second), kmsapi.ReasonNonceExpired},
		"other client": {key, n, "x", at, kmsapi.ReasonBinding},
		"other KMS":    {keys.NewSecret([]byte("k")), n, "spki", at, kmsapi.ReasonBinding},
		"time changed": {key, late, "spki", at, kmsapi.ReasonBinding},
		"short":        {key, n[1:], "spki", at, kmsapi.ReasonBinding},
	} {
		if _, err := checkNonce(tc.key, tc.nonce, []byte(tc.spki), tc.at); cvm.ReasonOf(err) != tc.reason {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type fixedSeal byte

func (s fixedSeal) SealKey(context.Context, []byte) ([]byte, error) {
	return bytes.Repeat([]byte{byte(s)}, 32), nil
}

func TestSealedIdentity(t *testing.T) {
	dir := t.TempDir()
	box := func(s fixedSeal, id string) *sealBox {
		b, err := newSealBox(context.Background(), s, dir, id)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	first, err := loadIdentity(box(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := loadIdentity(box(1, "a"))
	if err != nil || !bytes.Equal(first.spki, again.spki) {
		t.Fatal(err)
	}
	if _, err := loadIdentity(box(2, "a")); err == nil {
		t.Error("another machine opens the sealed keys")
	}
	if _, err := loadIdentity(box(1, "b")); err == nil {
		t.Error("another member opens the sealed keys")
	}
	path := filepath.Join(dir, identityFile)
	raw, _ := os.ReadFile(path)
	if err := os.WriteFile(filepath.Join(dir, membersFile), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := box(1, "a").read(membersFile); err == nil {
		t.Error("one sealed file passes for another")
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadIdentity(box(1, "a")); err == nil {
		t.Error("a changed file opens")
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
}

// A member that is stopped while it replays its log knows afterwards whom it knew
// before.
func TestListOfMembersOutlivesAReplay(t *testing.T) {
	dir := t.TempDir()
	boot := func() *Member {
		box, err := newSealBox(context.Background(), fixedSeal(1), dir, "a")
		if err != nil {
			t.Fatal(err)
		}
		m := &Member{box: box, machine: keyring.NewMachine(), sponsors: map[string]bool{}}
		if err := m.loadMembers(); err != nil {
			t.Fatal(err)
		}
		return m
	}
	a, b, c := keyring.Member{TLSKey: []byte("a")}, keyring.Member{TLSKey: []byte("b")}, keyring.Member{TLSKey: []byte("c")}
	for _, lists := range [][][]keyring.Member{
		{{a}, {a, b}, {a, b, c}}, // the first life
		{{a}},                    // stopped in the middle of the replay
		{},
	} {
		m := boot()
		for _, l := range lists {
			if err := m.sponsor(l); err != nil {
				t.Fatal(err)
			}
		}
	}
	m := boot()
	for _, mb := range []keyring.Member{a, b, c} {
		if !m.isMember(mb.TLSKey) {
			t.Errorf("member %s is forgotten", mb.TLSKey)
		}
	}
	if m.isMember([]byte("d")) {
		t.Error("a stranger is a member")
	}
}

// mr_aggregated of every member, frozen: it is what owners allow on chain.
// It changes only with the container registers or AppCompose. DO NOT CHANGE lightly.
func TestExpectedMRIsStable(t *testing.T) {
	a, err := ExpectedMR(testVMConfig)
	b, _ := ExpectedMR(testVMConfig)
	if err != nil || a != b {
		t.Fatal(err)
	}
	const want = `{"allowed_envs":[],"gateway_enabled":false,"key_provider":"none","kms_enabled":false,"local_key_provider_enabled":false,"manifest_version":2,"name":"phala-kms","no_instance_id":true,"public_logs":false,"public_sysinfo":false,"runner":"none","secure_time":false}`
	if got := string(AppCompose()); got != want {
		t.Errorf("app-compose of the KMS: %s", got)
	}
}
