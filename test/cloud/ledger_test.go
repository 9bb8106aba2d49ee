package cloud

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
	"github.com/confidential-cloud/phala/verify"
)

// ledgerKeys are the keys that a verifier of this cloud pins.
func ledgerKeys(t *testing.T) ledger.Keys {
	t.Helper()
	p, err := verify.LoadProfile(theCloud.TrustPath())
	if err != nil {
		t.Fatal(err)
	}
	return p.LedgerKeys
}

func kmsClient(t *testing.T) *kmsapi.Client {
	t.Helper()
	k, err := theCloud.KMS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// ledgerSize is how many leaves a majority has signed for.
func ledgerSize(t *testing.T) int64 {
	t.Helper()
	var size int64
	eventually(t, "a signed checkpoint", 20*time.Second, func() error {
		note, err := kmsClient(t).Checkpoint(t.Context())
		if err != nil {
			return err
		}
		cp, err := ledgerKeys(t).Open(note)
		size = cp.Size
		return err
	})
	return size
}

// leavesFrom reads the public ledger from an index on; every leaf is checked with
// its proof against a checkpoint of the pinned members.
func leavesFrom(t *testing.T, from int64) (leaves []ledger.Leaf, err error) {
	t.Helper()
	k, keys := kmsClient(t), ledgerKeys(t)
	note, err := k.Checkpoint(t.Context())
	if err != nil {
		return nil, err
	}
	cp, err := keys.Open(note)
	if err != nil {
		return nil, err
	}
	for i := from; i < cp.Size; i++ {
		_, l, err := k.Receipt(t.Context(), keys, i)
		if err != nil {
			return nil, err
		}
		leaves = append(leaves, l)
	}
	return leaves, nil
}

// denied waits for the deny leaf of an app with a reason, at or after from, whose
// text holds detail.
func denied(t *testing.T, from int64, app, reason, detail string) {
	t.Helper()
	eventually(t, "a deny leaf "+reason, 20*time.Second, func() error {
		leaves, err := leavesFrom(t, from)
		if err != nil {
			return err
		}
		for _, l := range leaves {
			if l.Kind == ledger.KindDeny && l.AppID == app && l.Reason == reason && strings.Contains(l.Detail, detail) {
				return nil
			}
		}
		return fmt.Errorf("the leaves from %d on: %s", from, show(leaves))
	})
}

func show(leaves []ledger.Leaf) string {
	var b strings.Builder
	for _, l := range leaves {
		fmt.Fprintf(&b, "\n  %s app=%s reason=%s %s", l.Kind, l.AppID, l.Reason, l.Detail)
	}
	return b.String()
}

// noLeafOf fails when the ledger has a leaf of one of these apps since from.
func noLeafOf(t *testing.T, from int64, apps ...string) {
	t.Helper()
	leaves, err := leavesFrom(t, from)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leaves {
		if slices.Contains(apps, l.AppID) {
			t.Errorf("the ledger should have no leaf of that: %s", show([]ledger.Leaf{l}))
		}
	}
}
