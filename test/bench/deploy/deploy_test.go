package deploy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/devcloud"
	"github.com/confidential-cloud/phala/verify"
	"github.com/confidential-cloud/phala/verify/online"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// Stages of a deploy that are not the guest's own.
const (
	stageCLI        = "`phala deploy`: app-compose, provisioning"
	stageChain      = "app contract registered and final on the (dev) chain"
	stageAccepted   = "API: commit accepted, CVM placed"
	stageScheduled  = "job begun, VM defined at its node"
	stageLaunching  = "VMM launches it"
	stageMachine    = "machine there, guest agent's first word"
	stageReady      = "guest told ready"
	stageAnswer     = "first HTTPS answer through the gateway"
	stageVerified   = "verified: TLS key, evidence, chain, ledger"
	guestPrefix     = "guest "
	guestContainers = "starting the containers"
)

// guest tells the guest's own stages from the cloud's.
func guest(name string) bool { return strings.HasPrefix(name, guestPrefix) }

// ours is what the guest does beyond starting containers: agent, attestation, keys, gateway.
func ours(name string) bool { return guest(name) && !strings.Contains(name, guestContainers) }

// launched is everything from the VMM's start to the answer.
func launched(name string) bool {
	return guest(name) || name == stageMachine || name == stageReady || name == stageAnswer
}

// unverified is everything to the first answer.
func unverified(name string) bool { return name != stageVerified }

// askEvery is how often an app that comes up is asked for its first answer. Each request
// is a stream through the tunnel that the guest has to refuse: asked fifty times a
// second, an emulated machine did little else.
func askEvery(driver string) time.Duration {
	if driver == devcloud.DriverQEMU {
		return 500 * time.Millisecond
	}
	return 20 * time.Millisecond
}

// patienceOnce bounds one request for the first answer: while an engine writes its packet
// filter, a connection may wait a second for its next attempt.
const patienceOnce = 400 * time.Millisecond

// deploy deploys the compose file as name and watches it come up.
func (b *cloud) deploy(name, file string, patience time.Duration) (*timeline, vmmapi.VM) {
	t := b.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := b.phala(ctx, "deploy", "-c", file, "-n", name, "-t", "tdx.small", "--json")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	line := begin(time.Now())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := listen(stderr)
	vm, err := b.appears(ctx, name)
	if err != nil {
		t.Fatalf("%v\n%s", err, said.text())
	}
	url := appURL(b, vm.Spec.AppID.String())
	err = answered(ctx, askEvery(b.cfg.Driver), func() error {
		once, cancel := context.WithTimeout(ctx, patienceOnce) // one that hangs must not hide the next
		defer cancel()
		_, err := get(once, b.http, url)
		return err
	})
	answer := time.Now()
	if err == nil {
		err = b.verify(ctx, url)
	}
	verified := time.Now()
	if err != nil {
		t.Fatalf("%s: %v\n%s", url, err, said.text())
	}
	said.wait()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("phala deploy: %v\n%s", err, said.text())
	}
	b.history(ctx, line, vm, said)
	line.until(stageAnswer, answer)
	line.until(stageVerified, verified)
	return line, vm
}

// appears waits for the VM at its node.
func (b *cloud) appears(ctx context.Context, name string) (vm vmmapi.VM, err error) {
	err = answered(ctx, 20*time.Millisecond, func() error {
		all, err := b.vmm.List(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(v vmmapi.VM) bool { return v.Spec.Name == name })
		if i < 0 {
			return fmt.Errorf("no VM is called %s", name)
		}
		vm = all[i]
		return nil
	})
	return vm, err
}

func (b *cloud) verify(ctx context.Context, url string) error {
	target, err := b.trust.ParseTarget(url)
	if err != nil {
		return err
	}
	src, done, err := online.Open(ctx, b.trust, online.Options{})
	if err != nil {
		return err
	}
	defer done()
	r, err := verify.Run(ctx, b.trust, target, src, func(string) {})
	if err == nil && !r.Verified {
		var text strings.Builder
		_ = r.WriteText(&text, verify.Style{})
		err = fmt.Errorf("not verified:\n%s", text.String())
	}
	return err
}

// history reads what CLI, API, VMM and guest noted, each with its time.
func (b *cloud) history(ctx context.Context, line *timeline, vm vmmapi.VM, said *lines) {
	t := b.t
	t.Helper()
	var ops cloudapi.Operations
	if err := b.api.Do(ctx, "GET", "/cvms/"+vm.Spec.ID+"/operations", nil, &ops); err != nil {
		t.Fatal(err)
	}
	accepted, err := time.Parse(time.RFC3339, ops.Items[len(ops.Items)-1].StartedAt)
	if err != nil {
		t.Fatal(err)
	}
	line.until(stageCLI, said.when(t.Fatalf, "registering the app", "transaction"))
	line.until(stageChain, said.when(t.Fatalf, "registered and final"))
	line.until(stageAccepted, accepted)
	events, err := b.vmm.Events(ctx, vm.Spec.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []struct{ kind, stage string }{{"created", stageScheduled}, {"starting", stageLaunching}} {
		i := slices.IndexFunc(events, func(v vmmapi.Event) bool { return v.Kind == e.kind })
		if i < 0 {
			t.Fatalf("the VM has no event %q: %+v", e.kind, events)
		}
		line.until(e.stage, events[i].Time)
	}
	boots, err := b.vmm.Boots(ctx, vm.Spec.ID)
	if err != nil || len(boots) != 1 || boots[0].ReadyAt.IsZero() {
		t.Fatalf("boots: %v %+v", err, boots)
	}
	guestStages(line, boots[0])
}

// guestStages adds a boot's stages, each until the next one's beginning.
func guestStages(line *timeline, boot vmmapi.Boot) {
	at := func(seconds float64) time.Time {
		return boot.StartedAt.Add(time.Duration(seconds * float64(time.Second)))
	}
	for i, s := range boot.Stages {
		if i == 0 {
			line.until(stageMachine, at(s.At))
		}
		next := boot.ReadyAt
		if i+1 < len(boot.Stages) {
			next = at(boot.Stages[i+1].At)
		}
		line.until(guestPrefix+s.Name, next)
	}
}

// lines are what a program says, with the time of each line.
type lines struct {
	mu   sync.Mutex
	said []struct {
		at   time.Time
		text string
	}
	done chan struct{}
}

func listen(r io.Reader) *lines {
	l := &lines{done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for s := bufio.NewScanner(r); s.Scan(); {
			l.mu.Lock()
			l.said = append(l.said, struct {
				at   time.Time
				text string
			}{time.Now(), s.Text()})
			l.mu.Unlock()
		}
	}()
	return l
}

func (l *lines) wait() { <-l.done }

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, s := range l.said {
		b.WriteString(s.text + "\n")
	}
	return b.String()
}

// when is the time of the first line that has all the words.
func (l *lines) when(fail func(string, ...any), words ...string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.said {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(s.text, w) }) {
			return s.at
		}
	}
	fail("phala deploy never said %q", words)
	return time.Time{}
}
