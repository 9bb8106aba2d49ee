package cli_test

import (
	"strings"
	"testing"
)

// An API that dies after it has accepted a deploy is followed again, from where it was.
func TestDeployOutlivesTheAPI(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.cloud.breaks = 1
	r := b.works("deploy", "-n", "hello", "-e", "SECRET=x")
	if !strings.Contains(r.stderr, "went away") || strings.Count(r.stderr, "✓ boot 4/10 keys") != 1 {
		t.Errorf("stderr:\n%s", r.stderr)
	}
	if len(b.cloud.after) != 2 || b.cloud.after[1] != "8" {
		t.Errorf("followed after events %q", b.cloud.after)
	}
}
