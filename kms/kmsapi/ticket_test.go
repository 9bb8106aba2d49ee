package kmsapi_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

func TestTicket(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	pub := key.Public().(ed25519.PublicKey)
	at := time.Unix(1_800_000_000, 0).UTC()
	b, err := kmsapi.SignTicket(key, kmsapi.RouteTicket{AppID: cvm.AppID{1}, IssuedAt: at, Expires: at.Add(30 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	if tk, err := kmsapi.OpenTicket(pub, b, at); err != nil || tk.AppID != (cvm.AppID{1}) {
		t.Fatal(err)
	}
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32)).Public().(ed25519.PublicKey)
	for name, fn := range map[string]func() error{
		"expired":     func() error { _, err := kmsapi.OpenTicket(pub, b, at.Add(30*time.Second)); return err },
		"from ahead":  func() error { _, err := kmsapi.OpenTicket(pub, b, at.Add(-31*time.Second)); return err },
		"other key":   func() error { _, err := kmsapi.OpenTicket(other, b, at); return err },
		"no key":      func() error { _, err := kmsapi.OpenTicket(nil, b, at); return err },
		"changed":     func() error { c := bytes.Clone(b); c[20] ^= 1; _, err := kmsapi.OpenTicket(pub, c, at); return err },
		"trailing":    func() error { _, err := kmsapi.OpenTicket(pub, append(bytes.Clone(b), '{', '}'), at); return err },
		"not a thing": func() error { _, err := kmsapi.OpenTicket(pub, nil, at); return err },
	} {
		if fn() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzOpenTicket(f *testing.F) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	at := time.Unix(1_800_000_000, 0).UTC()
	b, _ := kmsapi.SignTicket(key, kmsapi.RouteTicket{AppID: cvm.AppID{1}, IssuedAt: at, Expires: at.Add(30 * time.Second)})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if tk, err := kmsapi.OpenTicket(key.Public().(ed25519.PublicKey), b, at); err == nil && tk.AppID != (cvm.AppID{1}) {
			t.Fatalf("a ticket nobody signed: %+v", tk)
		}
	})
}

func TestClientNeedsAPin(t *testing.T) {
	for name, c := range map[string]kmsapi.Config{
		"no URL":     {RootSPKI: "00"},
		"no pin":     {URLs: []string{"https://x"}},
		"pin no hex": {URLs: []string{"https://x"}, RootSPKI: "xyz"},
		"plain http": {URLs: []string{"http://x"}, RootSPKI: "00"},
	} {
		if _, err := kmsapi.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	k, err := kmsapi.New(kmsapi.Config{URLs: []string{"https://127.0.0.1:1"}, Unpinned: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.EnvKey(context.Background(), cvm.AppID{}); cvm.CodeOf(err) != cvm.Precondition {
		t.Errorf("an unpinned client asks for an environment key: %v", err)
	}
}
