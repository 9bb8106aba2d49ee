package cloud

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/guest-agent/lease"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// helloApp makes sure that hello runs; tests share it.
func helloApp(t *testing.T) vmmapi.VM {
	t.Helper()
	compose := helloCompose(t)
	if vm, ok := findVM(t, "hello"); !ok {
		deploy(t, compose, "hello", "-e", "GREETING=Good day")
	} else if vm.State != vmmapi.StateRunning {
		must(t, "cvms", "restart", "hello")
	}
	return vmOf(t, "hello")
}

// helloCompose is the compose file of hello, whose image is in the registry then.
func helloCompose(t *testing.T) string {
	t.Helper()
	c := cloud(t)
	if err := c.PrepareHello(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c.HelloCompose()
}

// says fails unless a command ended with code and said every one of words.
func (r result) says(t *testing.T, code int, words ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d:\n%s%s", r.code, code, r.out, r.err)
	}
	for _, w := range words {
		if !strings.Contains(r.out+r.err, w) {
			t.Errorf("the CLI does not say %q:\n%s%s", w, r.out, r.err)
		}
	}
}

// shows waits until `phala cvms get` says every one of words.
func shows(t *testing.T, name string, words ...string) {
	t.Helper()
	eventually(t, "cvms get "+name, 30*time.Second, func() error {
		r := quietly(t, "cvms", "get", name)
		for _, w := range words {
			if !strings.Contains(r.out+r.err, w) {
				return fmt.Errorf("it does not say %q:\n%s%s", w, r.out, r.err)
			}
		}
		return nil
	})
}

// change writes policy as the owner and returns when it is final.
func change(t *testing.T, ops ...ethereum.Op) {
	t.Helper()
	o, err := theCloud.Owner(t.Context())
	if err == nil {
		err = o.Apply(t.Context(), nil, ops...)
	}
	if err != nil {
		t.Fatal(err)
	}
}

const exitState = 5 // cli.ExitConflict: the CVM is not as it should be

// TestRulesOnChain: what the chain does not allow does not start, says so, and is
// in the ledger; allowed again it comes back by the same command.
func TestRulesOnChain(t *testing.T) {
	c := cloud(t)
	vm := helloApp(t)
	app := vm.Spec.AppID
	doc, err := appcompose.Parse(vm.Spec.App.AppCompose)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, text  string
		deny, allow ethereum.Op
	}{
		{"compose hash", "Compose hash not allowed", ethereum.DenyCompose(app, doc.Hash()), ethereum.AllowCompose(app, doc.Hash())},
		{"device", "Device not allowed", ethereum.DenyDevice(app, c.Hardware().DeviceID()), ethereum.AllowDevice(app, c.Hardware().DeviceID())},
	} {
		t.Run(tc.name, func(t *testing.T) {
			from := ledgerSize(t)
			change(t, tc.deny)
			phala(t, "cvms", "restart", "hello").says(t, exitState, "failed", tc.text, "the rules on chain do not allow", kmsapi.ReasonGovernance)
			shows(t, "hello", "failed", tc.text, kmsapi.ReasonGovernance)
			denied(t, from, app.String(), kmsapi.ReasonGovernance, tc.text)
			change(t, tc.allow)
			must(t, "cvms", "restart", "hello")
		})
	}
	getOK(t, appURL(app.String(), 0))

	t.Run("image", func(t *testing.T) {
		image := anotherImage(t)
		from := ledgerSize(t)
		eventually(t, "the cloud knows the image", 30*time.Second, func() error {
			if r := quietly(t, "os-images"); !strings.Contains(r.out, image.Name) {
				return fmt.Errorf("it lists %s", r.out)
			}
			return nil
		})
		const text = "OS image is not allowed"
		phala(t, "deploy", "-c", c.HelloCompose(), "-n", "other-image", "-t", "tdx.small", "--image", image.Name).
			says(t, exitState, text, "the rules on chain do not allow", kmsapi.ReasonGovernance)
		vm := vmOf(t, "other-image")
		denied(t, from, vm.Spec.AppID.String(), kmsapi.ReasonGovernance, text)
		change(t, ethereum.AllowOSImage(image.Hash))
		must(t, "cvms", "start", "other-image")
		getOK(t, appURL(vm.Spec.AppID.String(), 0))
		remove(t, "other-image")
		change(t, ethereum.DenyOSImage(image.Hash))
	})
}

// TestStrangersAreCounted stands a good while behind TestForgedEvidence: the summary
// comes once a minute.
func TestStrangersAreCounted(t *testing.T) {
	cloud(t)
	if strangersSince == 0 {
		t.Skip("TestForgedEvidence did not run")
	}
	eventually(t, "a summary leaf of the stranger", 75*time.Second, func() error {
		leaves, err := leavesFrom(t, strangersSince)
		if err != nil {
			return err
		}
		for _, l := range leaves {
			if l.Kind == ledger.KindSummary && l.Count > 0 && strings.Contains(string(l.Note), kmsapi.ReasonRoot) {
				return nil
			}
		}
		return fmt.Errorf("the leaves: %s", show(leaves))
	})
}

// TestChainStale: without new blocks nothing starts, whatever the last one said.
func TestChainStale(t *testing.T) {
	c := cloud(t)
	app := helloApp(t).Spec.AppID.String()
	must(t, "cvms", "stop", "hello")
	from := ledgerSize(t)
	c.PauseChain()
	t.Cleanup(c.ResumeChain)
	k := kmsClient(t)
	eventually(t, "the view is stale", 20*time.Second, func() error {
		s, err := k.Status(t.Context())
		if err == nil && !slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, "governance is not reachable") }) {
			err = fmt.Errorf("the KMS says %+v", s)
		}
		return err
	})
	start := background(t, "cvms", "start", "hello")
	shows(t, "hello", "waiting: "+kmsapi.ReasonChainStale)
	denied(t, from, app, kmsapi.ReasonChainStale, "")
	c.ResumeChain()
	(<-start).says(t, 0, "waiting: "+kmsapi.ReasonChainStale, "running")
	getOK(t, appURL(app, 0))
}

// TestNoQuorum: one member of three releases nothing; what runs goes on running.
func TestNoQuorum(t *testing.T) {
	c := cloud(t)
	hello := helloApp(t).Spec.AppID.String()
	second := deploy(t, c.HelloCompose(), "second")
	must(t, "cvms", "stop", "hello")
	for _, m := range []string{"kms-2", "kms-3"} {
		if err := c.StopMember(m); err != nil {
			t.Fatal(err)
		}
	}
	back := func() {
		for _, m := range []string{"kms-2", "kms-3"} {
			if err := c.StartMember(t.Context(), m); err != nil {
				t.Error(err)
			}
		}
	}
	start := background(t, "cvms", "start", "hello")
	shows(t, "hello", "waiting: "+kmsapi.ReasonNoQuorum)
	if code, _, err := get(t, appURL(second.AppID, 0)); err != nil || code != 200 {
		t.Errorf("a running app does not answer without a quorum: %d, %v", code, err)
	}
	must(t, "cvms", "list")
	back()
	(<-start).says(t, 0, "waiting: "+kmsapi.ReasonNoQuorum, "running")
	getOK(t, appURL(hello, 0))
	must(t, "verify", "second")
	remove(t, "second")
}

// background starts a command and gives its result when it has ended.
func background(t *testing.T, args ...string) <-chan result {
	done := make(chan result, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		done <- phala(t, args...)
	}()
	t.Cleanup(func() { <-ended })
	return done
}

// TestFalseKMS: the host names a KMS of its own to the guest, with a root, a chain
// and a usage that are all in order except that the app does not pin it.
func TestFalseKMS(t *testing.T) {
	c := cloud(t)
	impostor := newFalseKMS(t)
	d := deploy(t, helloCompose(t), "misled")
	node, id := theVMM(t), d.VMUUID
	spec := vmOf(t, "misled").Spec
	from := ledgerSize(t)
	redefine := func(urls []string) {
		t.Helper()
		if err := node.Delete(t.Context(), id, false); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the machine is gone", 30*time.Second, func() error {
			if _, err := node.Get(t.Context(), id); cvm.CodeOf(err) != cvm.NotFound {
				return fmt.Errorf("it is there: %w", err)
			}
			return nil
		})
		spec.KMSURLs = urls
		if _, err := node.Put(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
	redefine([]string{impostor.url})
	phala(t, "cvms", "restart", "misled").says(t, exitState, "the KMS that answered is not the one that the app-compose pins", lease.ReasonFalseKMS)
	shows(t, "misled", "failed", lease.ReasonFalseKMS)
	if n := impostor.requests.Load(); n != 0 {
		t.Errorf("the guest spoke to the false KMS: %d requests", n)
	}
	if impostor.handshakes.Load() == 0 {
		t.Error("the guest never reached the false KMS: nothing was tested")
	}
	noLeafOf(t, from, d.AppID) // the true KMS was never asked
	redefine(c.KMSURLs())
	must(t, "cvms", "restart", "misled")
	getOK(t, appURL(d.AppID, 0))
	remove(t, "misled")
}

// TestHostSwapsEnvironment: the host gives the guest another environment, then an
// older one. The cloud API's own copy heals it: the CLI's restart brings it back.
func TestHostSwapsEnvironment(t *testing.T) {
	vm := helloApp(t)
	app, id, node := vm.Spec.AppID.String(), vm.Spec.ID, theVMM(t)
	older := vm.Spec.App
	must(t, "envs", "update", "--cvm-id", "hello", "-e", "GREETING=Newer")
	newer := vmOf(t, "hello").Spec.App
	if older.EnvSignature == nil || newer.EnvSignature == nil || newer.EnvSignature.Counter <= older.EnvSignature.Counter {
		t.Fatalf("counters: %+v, then %+v", older.EnvSignature, newer.EnvSignature)
	}
	swapped := newer
	swapped.EncryptedEnv = append([]byte(nil), newer.EncryptedEnv...)
	swapped.EncryptedEnv[len(swapped.EncryptedEnv)-1] ^= 1
	dropped := newer
	dropped.EncryptedEnv, dropped.EnvSignature = nil, nil
	mixed := newer // the newer signature over the older bytes
	mixed.EncryptedEnv = older.EncryptedEnv
	for _, tc := range []struct {
		name, reason, text string
		app                vmmapi.App
	}{
		{"swapped", kmsapi.ReasonEnvSwapped, "the encrypted environment is not signed by one of the app's env_signers", swapped},
		{"older bytes under the newer signature", kmsapi.ReasonEnvSwapped, "the encrypted environment is not signed by one of the app's env_signers", mixed},
		{"rolled back", kmsapi.ReasonEnvRolledBack, "the environment is older than one the KMS has already seen", older},
		{"taken away", kmsapi.ReasonEnvRolledBack, "the environment is older than one the KMS has already seen", dropped},
	} {
		t.Run(tc.name, func(t *testing.T) {
			from, boots := ledgerSize(t), vmOf(t, "hello").Boots
			if _, err := node.PutApp(t.Context(), id, tc.app); err != nil {
				t.Fatal(err)
			}
			if _, err := node.Restart(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the next boot failed", 30*time.Second, func() error {
				vm, err := node.Get(t.Context(), id)
				if err == nil && (vm.State != vmmapi.StateFailed || vm.Boots <= boots) {
					err = fmt.Errorf("it is %s in boot %d", vm.State, vm.Boots)
				}
				return err
			})
			shows(t, "hello", "failed", tc.reason, tc.text)
			denied(t, from, app, tc.reason, "")
		})
	}
	must(t, "cvms", "restart", "hello")
	eventually(t, "the newer greeting", 30*time.Second, func() error {
		_, body, err := get(t, appURL(app, 0))
		if err == nil && !strings.Contains(body, "Newer") {
			err = fmt.Errorf("page: %s", firstLine(body))
		}
		return err
	})
}
