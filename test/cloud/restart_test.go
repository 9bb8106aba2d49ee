package cloud

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/devcloud"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// identity is what of a cloud and of one app in it must outlive a restart.
type identity struct {
	kmsRoot, k256, gateway, wallet string
	app, instance                  string
	envKey, appKey                 string // the latter hashed: a test log is a log
}

func identityOf(t *testing.T, name string) identity {
	t.Helper()
	c, vm := theCloud, vmOf(t, name)
	k := kmsClient(t)
	meta, err := k.Meta(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	env, err := k.EnvKey(t.Context(), vm.Spec.AppID)
	if err != nil {
		t.Fatal(err)
	}
	key, err := running(t, name).dstack.GetKey(t.Context(), guestapi.KeyRequest{Path: "restart", Purpose: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if len(key.Key) != 32 {
		t.Fatalf("the app's key has %d bytes", len(key.Key))
	}
	return identity{
		kmsRoot: meta.RootSPKI, k256: fmt.Sprintf("%x", meta.K256PubKey), gateway: c.GatewayAppID(), wallet: c.Wallet().Info().Address,
		app: vm.Spec.AppID.String(), instance: vm.InstanceID.String(),
		envKey: fmt.Sprintf("%x", env.PublicKey), appKey: fmt.Sprintf("%x", sha256.Sum256(key.Key)),
	}
}

// TestRestart stops the whole cloud and starts it again on the same state: the same
// cloud with the same keys, its apps back by themselves. It is the last test: the
// cloud that the others use is another one after it.
func TestRestart(t *testing.T) {
	cloud(t)
	helloApp(t)
	must(t, "cvms", "stop", "hello") // a boot that is known to be the newest
	must(t, "cvms", "start", "hello")
	before, boots, size := identityOf(t, "hello"), vmOf(t, "hello").Boots, ledgerSize(t)

	var held *devcloud.RunningError
	if c, err := devcloud.Start(t.Context(), theCfg); !errors.As(err, &held) || held.PID != os.Getpid() || held.Dir != theCfg.StateDir {
		if c != nil {
			_ = c.Stop()
		}
		t.Fatalf("a second start on the same state: %v", err)
	}
	getOK(t, appURL(before.app, 0)) // the attempt disturbed nothing

	if err := theCloud.Stop(); err != nil {
		t.Fatalf("stopping: %v", err)
	}
	if code, _, err := get(t, appURL(before.app, 0)); err == nil {
		t.Errorf("a stopped cloud answers with %d", code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	started := time.Now()
	c, err := devcloud.Start(ctx, theCfg)
	if err != nil {
		t.Fatalf("starting again: %v", err)
	}
	theCloud = c
	t.Logf("started again in %s", time.Since(started).Round(100*time.Millisecond))

	getOK(t, appURL(before.app, 0)) // nobody asked for it
	eventually(t, "hello runs in a new boot", 30*time.Second, func() error {
		vm := vmOf(t, "hello")
		if vm.State != vmmapi.StateRunning || vm.Boots <= boots {
			return fmt.Errorf("it is %s in boot %d, before it was %d", vm.State, vm.Boots, boots)
		}
		return nil
	})
	if after := identityOf(t, "hello"); after != before {
		t.Errorf("before the restart %+v\nafter it %+v", before, after)
	}
	if now := ledgerSize(t); now <= size {
		t.Errorf("the ledger has %d leaves, before the restart it had %d", now, size)
	}
	must(t, "verify", "hello")
	must(t, "envs", "update", "--cvm-id", "hello", "-e", "GREETING=After the restart") // the CLI's login is still good
}
