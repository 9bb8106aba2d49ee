package ethereum

import (
	"context"
	"testing"

	"github.com/ethereum/go-ethereum/common"

	"github.com/confidential-cloud/phala/cvm"
)

func TestAppsState(t *testing.T) {
	c := newCloud(t)
	a := NewAppsWith(c.rpc(), 1337)
	d := cvm.DeviceID{4}
	s, err := a.State(t.Context(), c.app, testCompose, d)
	if err != nil || !s.ComposeAllowed || !s.AnyDevice || len(s.Devices) != 1 || s.Devices[0] {
		t.Fatalf("%+v %v", s, err)
	}
	c.mining(func() {
		if err := c.owner.Apply(t.Context(), nil, SetAllowAnyDevice(c.app, false), AllowDevice(c.app, d), DenyCompose(c.app, testCompose)); err != nil {
			t.Fatal(err)
		}
	})
	if s, err = a.State(t.Context(), c.app, testCompose, cvm.DeviceID{5}, d); err != nil || s.ComposeAllowed || s.AnyDevice || s.Devices[0] || !s.Devices[1] {
		t.Fatalf("after the owner's changes: %+v %v", s, err)
	}
	if _, err := a.State(t.Context(), cvm.AppID{1, 2}, testCompose); cvm.ReasonOf(err) != ReasonNoApp {
		t.Errorf("no contract: %v", err)
	}
	if _, err := NewAppsWith(c.rpc(), 1).State(t.Context(), c.app, testCompose); cvm.ReasonOf(err) != ReasonDisagrees {
		t.Errorf("another chain: %v", err)
	}
}

func TestComposeAdded(t *testing.T) {
	c := newCloud(t)
	a := NewAppsWith(c.rpc(), 1337)
	h := cvm.ComposeHash{7}
	var sent []string
	c.mining(func() {
		note := func(p Progress) {
			if p.Stage == StageSent {
				sent = append(sent, p.TxHash)
			}
		}
		if err := c.owner.Apply(t.Context(), note, AllowCompose(c.app, h), AllowDevice(c.app, cvm.DeviceID{4})); err != nil {
			t.Fatal(err)
		}
	})
	if len(sent) != 2 {
		t.Fatalf("sent %v", sent)
	}
	if err := a.ComposeAdded(t.Context(), sent[0], c.app, h); err != nil {
		t.Errorf("the owner's transaction: %v", err)
	}
	for name, x := range map[string]struct {
		tx     string
		app    cvm.AppID
		h      cvm.ComposeHash
		reason string
	}{
		"another hash":        {sent[0], c.app, testCompose, ReasonTxOther},
		"another app":         {sent[0], cvm.AppID{9}, h, ReasonTxOther},
		"another transaction": {sent[1], c.app, h, ReasonTxOther},
		"unknown":             {common.Hash{1}.Hex(), c.app, h, ReasonTxUnknown},
		"not a hash":          {"0x12", c.app, h, ReasonTxOther},
		"empty":               {"", c.app, h, ReasonTxOther},
	} {
		if err := a.ComposeAdded(context.Background(), x.tx, x.app, x.h); cvm.ReasonOf(err) != x.reason {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := NewAppsWith(c.rpc(), 1).ComposeAdded(t.Context(), sent[0], c.app, h); cvm.ReasonOf(err) != ReasonDisagrees {
		t.Errorf("another chain: %v", err)
	}
}
