package cli_test

import (
	"strings"
	"testing"
)

// TestDevicesOnChain: the machines of an app, in a real contract.
func TestDevicesOnChain(t *testing.T) {
	b := newBench(t)
	app, _ := b.works("deploy", "-n", "hello", "-e", "SECRET=x", "--json").json["app_id"].(string)
	other := strings.Repeat("7", 64)
	if r := b.works("allow-devices", "list", "hello", "--json"); r.json["allow_any_device"] != false || !strings.Contains(r.out, `"allowed_onchain": true`) {
		t.Errorf("after a deploy its machine is allowed, and no other: %s", r.out)
	}
	b.works("allow-devices", "add", app, other, "--json")
	b.works("allow-devices", "remove", app, "node-1", "--json")
	if r := b.works("allow-devices", "list", app, "--json"); strings.Contains(r.out, `"allowed_onchain": true`) {
		t.Errorf("node-1 was removed: %s", r.out)
	}
	for _, c := range []struct {
		args []string
		want bool
	}{{[]string{"toggle-allow-any"}, true}, {[]string{"disallow-any"}, false}, {[]string{"allow-any", "--enable"}, true}, {[]string{"allow-any", "--disable"}, false}} {
		b.works(append(append([]string{"allow-devices"}, c.args...), app)...)
		if r := b.works("allow-devices", "list", app, "--json"); r.json["allow_any_device"] != c.want {
			t.Errorf("after %v any device is %v", c.args, r.json["allow_any_device"])
		}
	}
}

// TestReplicaApproval: what the chain allows is approved; a hash that only the cloud
// vouches for is not signed.
func TestReplicaApproval(t *testing.T) {
	b := newBench(t)
	app, _ := b.works("deploy", "-n", "hello", "-e", "SECRET=x", "--json").json["app_id"].(string)
	b.works("cvms", "replicate", "hello", "--no-wait", "--json")
	b.cloud.mu.Lock()
	committed := b.cloud.committed
	b.cloud.prepared = strings.Repeat("e", 64)
	b.cloud.mu.Unlock()
	if len(committed) != 1 || committed[0]["token"] != "tok-1" || committed[0]["transaction_hash"] != "already-registered" {
		t.Fatalf("committed %v", committed)
	}
	if r := b.phala("cvms", "replicate", "hello", "--no-wait"); r.code != 3 || !strings.Contains(r.stderr, "nothing was put on chain") {
		t.Errorf("a hash of the cloud's own: exit code %d\n%s", r.code, r.stderr)
	}
	if b.allowed(app, strings.Repeat("e", 64)) {
		t.Error("the cloud's hash is on chain")
	}
	// The person named it: the transaction is the proof that is sent.
	named := strings.Repeat("f", 64)
	b.cloud.mu.Lock()
	b.cloud.prepared = named
	b.cloud.mu.Unlock()
	b.works("cvms", "replicate", "hello", "--no-wait", "--compose-hash", named)
	b.cloud.mu.Lock()
	defer b.cloud.mu.Unlock()
	last := b.cloud.committed[len(b.cloud.committed)-1]
	if tx, _ := last["transaction_hash"].(string); len(tx) != 66 || !b.allowed(app, named) {
		t.Errorf("committed with %v", last)
	}
}
