package vmmapi

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// ProverApp is the app-compose of the VM that proves a node's platform: no
// containers, no keys, nothing but a guest agent that answers a nonce with a quote.
func ProverApp() ([]byte, error) {
	no := false
	return appcompose.Encode(&appcompose.Document{ManifestVersion: 2, Name: "phala-node-join", Runner: appcompose.RunnerNone,
		KeyProvider: appcompose.ProviderNone, NoInstanceID: true, SecureTime: &no, AllowedEnvs: []string{}})
}

// JoinNonce is what a prover answers: fresh bytes, and the SubjectPublicKeyInfo (DER)
// of the TLS key with which the node's VMM answered, empty for a VMM without TLS.
func JoinNonce(fresh [32]byte, spki []byte) []byte {
	return JoinNonceOf(fresh, sha256.Sum256(spki))
}

// JoinNonceOf is JoinNonce by the key's SHA-256, for who checks a proof later.
func JoinNonceOf(fresh, key [32]byte) []byte {
	n := sha512.Sum512(append(append([]byte("phala-node-join:v1:"), fresh[:]...), key[:]...))
	return n[:]
}

// proverPoll is how often a prover is asked whether it runs.
const proverPoll = 500 * time.Millisecond

// Prove starts a VM of ProverApp on the node, asks it for evidence over nonce and
// deletes it again, whatever happens. image "" is the node's default; step is told
// each new state and may be nil. The evidence is unverified: see verify.Platform.
func (c *Client) Prove(ctx context.Context, image string, nonce []byte, step func(state string)) (ev guestapi.Evidence, err error) {
	doc, err := ProverApp()
	if err != nil {
		return ev, err
	}
	hash := sha256.Sum256(doc)
	s := Spec{ID: uuid.NewString(), Name: "node-join", Image: image, Resources: Resources{VCPU: 1, MemoryMiB: 2048, DiskMiB: 1024},
		AppID: cvm.AppID(hash[:20]), App: App{AppCompose: doc}, KMSURLs: []string{}, GatewayURLs: []string{}, Restart: "never"}
	if _, err := c.Put(ctx, s); err != nil {
		return ev, fmt.Errorf("defining the prover VM: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if derr := c.Delete(ctx, s.ID, false); derr != nil && err == nil {
			err = fmt.Errorf("deleting the prover VM %s: %w", s.ID, derr)
		}
	}()
	if _, err := c.Start(ctx, s.ID); err != nil {
		return ev, fmt.Errorf("starting the prover VM: %w", err)
	}
	if err := c.proverRuns(ctx, s.ID, step); err != nil {
		return ev, err
	}
	if ev, err = c.GuestEvidence(ctx, s.ID, nonce); err != nil {
		return ev, fmt.Errorf("asking the prover VM for evidence: %w", err)
	}
	return ev, nil
}

// proverRuns waits until the VM runs, or says why it does not.
func (c *Client) proverRuns(ctx context.Context, id string, step func(string)) error {
	tick := time.NewTicker(proverPoll)
	defer tick.Stop()
	for last := ""; ; {
		vm, err := c.Get(ctx, id)
		if err != nil {
			return err
		}
		if now := vm.State; now != last && step != nil {
			step(now)
		}
		last = vm.State
		switch vm.State {
		case StateRunning:
			return nil
		case StateFailed, StateStopped:
			e := VMError{Message: "it ended without saying why"}
			if vm.Error != nil {
				e = *vm.Error
			}
			return cvm.Errorf(cvm.Precondition, "the prover VM does not run: %s", e.Message).WithReason(e.Reason).WithFix(e.Fix)
		}
		select {
		case <-ctx.Done():
			return cvm.Errorf(cvm.Unavailable, "the prover VM is %s: %w", last, ctx.Err()).WithFix("give it more time: an emulated machine boots in a minute or two")
		case <-tick.C:
		}
	}
}
