package cloud

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

// attacker speaks the KMS's own protocol with evidence that it makes itself.
type attacker struct {
	t    *testing.T
	kms  *kmsapi.Client
	spki []byte
	app  cvm.AppID
	raw  []byte // app-compose
	boot *simtee.Guest
}

func newAttacker(t *testing.T, app cvm.AppID, raw []byte) *attacker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &attacker{t: t, app: app, raw: raw}
	if a.spki, err = x509.MarshalPKIXPublicKey(&key.PublicKey); err != nil {
		t.Fatal(err)
	}
	a.kms, err = kmsapi.New(kmsapi.Config{
		URLs: theCloud.MemberURLs(), RootSPKI: theCloud.KMSRoot(),
		Certificate: &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.kms.Close)
	return a
}

// on starts a TD of a vendor and measures the app in it, up to the release.
func (a *attacker) on(hw *simtee.Hardware) *attacker {
	a.t.Helper()
	var err error
	a.boot, err = hw.Boot(a.t.Context(), simtee.Boot{
		Name: "attacker-" + strings.ReplaceAll(a.t.Name(), "/", "-"), OSImageHash: theCloud.Image().Hash, AppID: a.app,
		ComposeHash: sha256.Sum256(a.raw), InstanceID: cvm.NewInstanceID([]byte(a.t.Name()), a.app), Phase: claim.PhaseRelease,
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return a
}

// request takes a nonce and has prove make the attestation over what it must bind.
func (a *attacker) request(prove func(reportData [64]byte) (attest.Evidence, error)) kmsapi.ReleaseRequest {
	a.t.Helper()
	n, err := a.kms.Nonce(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	doc, err := json.Marshal(kmsapi.EvidenceContext{})
	if err != nil {
		a.t.Fatal(err)
	}
	ev, err := prove(kmsapi.ReportDataRelease(n.Nonce, a.spki, doc))
	if err != nil {
		a.t.Fatal(err)
	}
	att, err := ev.Marshal()
	if err != nil {
		a.t.Fatal(err)
	}
	return kmsapi.ReleaseRequest{Nonce: n.Nonce, Attestation: att, Context: doc, AppCompose: a.raw}
}

// own is the evidence of the attacker's own TD.
func (a *attacker) own(rd [64]byte) (attest.Evidence, error) {
	return a.boot.Evidence(a.t.Context(), rd)
}

// refused fails unless the release is refused with the reason and a text that
// holds words.
func (a *attacker) refused(r kmsapi.ReleaseRequest, reason, words string) {
	a.t.Helper()
	rel, err := a.kms.Release(a.t.Context(), r)
	if err == nil {
		a.t.Fatalf("keys were released (lease %s)", rel.Lease.ID)
	}
	if cvm.ReasonOf(err) != reason || !strings.Contains(err.Error(), words) {
		a.t.Fatalf("refused with %q: %v; want %q and %q", cvm.ReasonOf(err), err, reason, words)
	}
}

// plainApp registers an app without env_signers, allowed on this device, so that
// only what a subtest spoils can be the reason of a refusal.
func plainApp(t *testing.T) (cvm.AppID, []byte) {
	t.Helper()
	raw, err := appcompose.Encode(&appcompose.Document{
		ManifestVersion: 2, Name: "plain", Runner: appcompose.RunnerDockerCompose, DockerComposeFile: "services: {}\n",
		KMSEnabled: true, KeyProvider: appcompose.ProviderKMS, KeyProviderID: theCloud.KMSRoot(), AllowedEnvs: []string{},
	})
	if err != nil {
		t.Fatal(err)
	}
	o, err := theCloud.Owner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	app, err := o.DeployApp(t.Context(), ethereum.AppParams{Device: theCloud.Hardware().DeviceID(), ComposeHash: sha256.Sum256(raw)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return app, raw
}

// nobody is the app id in the leaf of evidence that shows none.
var nobody = cvm.AppID{}.String()

// TestForgedEvidence attacks the KMS directly. Each refusal has its own reason;
// what a vendor signed gets a deny leaf, what none signed is only counted (T12).
func TestForgedEvidence(t *testing.T) {
	hw := cloud(t).Hardware()
	app, raw := plainApp(t)
	helloApp(t)
	hello := vmOf(t, "hello").Spec

	t.Run("one event payload flipped", func(t *testing.T) {
		a, from := newAttacker(t, app, raw).on(hw), ledgerSize(t)
		e := &a.boot.Events[2] // the log names another compose than RTMR3 has measured
		e.Payload = bytes.Clone(e.Payload)
		e.Payload[0] ^= 1
		a.refused(a.request(a.own), kmsapi.ReasonEvidence, "RTMR3 does not replay")
		denied(t, from, nobody, kmsapi.ReasonEvidence, "RTMR3 does not replay")
	})

	t.Run("a quote of a running app", func(t *testing.T) {
		a, from := newAttacker(t, hello.AppID, hello.App.AppCompose), ledgerSize(t)
		a.refused(a.request(running(t, "hello").quote), kmsapi.ReasonPhase, "phase")
		denied(t, from, hello.AppID.String(), kmsapi.ReasonPhase, "phase")
	})

	t.Run("the same, its log cut at the release", func(t *testing.T) {
		a, from := newAttacker(t, hello.AppID, hello.App.AppCompose), ledgerSize(t)
		a.refused(a.request(func(rd [64]byte) (attest.Evidence, error) {
			ev, err := running(t, "hello").quote(rd)
			cut := slices.IndexFunc(ev.RuntimeEvents, func(e eventlog.Runtime) bool { return e.Name == eventlog.BootMRDone }) + 1
			rest := len(ev.RuntimeEvents) - cut
			ev.RuntimeEvents, ev.EventLog = ev.RuntimeEvents[:cut], ev.EventLog[:len(ev.EventLog)-rest]
			return ev, err
		}), kmsapi.ReasonEvidence, "RTMR3 does not replay")
		denied(t, from, nobody, kmsapi.ReasonEvidence, "RTMR3 does not replay")
	})

	t.Run("a replayed nonce", func(t *testing.T) {
		a := newAttacker(t, app, raw).on(hw)
		r, from := a.request(a.own), ledgerSize(t)
		if rel, err := a.kms.Release(t.Context(), r); err != nil || rel.AppID != app {
			t.Fatalf("the honest request: app %s, %v", rel.AppID, err)
		}
		a.refused(r, kmsapi.ReasonNonceUsed, "redeemed before")
		denied(t, from, app.String(), kmsapi.ReasonNonceUsed, "redeemed before")
	})

	t.Run("a quote of another root", func(t *testing.T) {
		dir := t.TempDir()
		other, err := simtee.New(simtee.Config{Dir: dir, ControlSock: dir + "/s"}) // draws a seed of its own
		if err != nil {
			t.Fatal(err)
		}
		a, from := newAttacker(t, app, raw).on(other), ledgerSize(t)
		a.refused(a.request(a.own), kmsapi.ReasonRoot, "root is not admitted")
		noLeafOf(t, from, app.String(), nobody)
		strangersSince = from
	})
}

// strangersSince is the ledger's size when a stranger was refused; 0: none was.
var strangersSince int64

// guest is a running guest as the containers in it see it.
type guest struct {
	t      *testing.T
	dstack *guestapi.Dstack
}

// running reaches the dstack.sock inside the guest of a running app.
func running(t *testing.T, name string) guest {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "docker", "inspect", "-f", "{{.State.Pid}}", "phala-vm-"+vmOf(t, name).Spec.ID).CombinedOutput()
	if err != nil {
		t.Fatalf("finding the guest's process: %v: %s", err, out)
	}
	return guest{t, guestapi.NewDstack("/proc/" + strings.TrimSpace(string(out)) + "/root/run/dstack.sock")}
}

// quote is the evidence that a container gets by GetQuote.
func (g guest) quote(rd [64]byte) (ev attest.Evidence, err error) {
	q, err := g.dstack.GetQuote(g.t.Context(), rd[:])
	if err != nil {
		return ev, err
	}
	ev = attest.Evidence{Quote: q.Quote, ReportData: rd, Config: q.VMConfig}
	ev.EventLog, err = eventlog.ParseJSON([]byte(q.EventLog))
	ev.RuntimeEvents = eventlog.Runtimes(ev.EventLog)
	return ev, err
}
