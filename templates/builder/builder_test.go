package builder

import (
	"testing"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/registry"
)

func TestBuildHello(t *testing.T) {
	r, err := registry.New(registry.Config{Dir: t.TempDir(), Addrs: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	a, err := BuildHello(t.Context(), "../..", r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := BuildHello(t.Context(), "../..", r)
	if err != nil || a != b {
		t.Fatalf("not reproducible: %s, %s, %v", a, b, err)
	}
	if _, err := BuildHello(t.Context(), t.TempDir(), r); cvm.CodeOf(err) != cvm.Precondition {
		t.Fatalf("outside of the repository: %v", err)
	}
}
