package pool

import (
	"strings"
	"sync"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

func TestPool(t *testing.T) {
	p := New(vmmapi.Resources{VCPU: 4, MemoryMiB: 4096, DiskMiB: 10000})
	if err := p.Set("a", vmmapi.Resources{VCPU: 2, MemoryMiB: 1024, DiskMiB: 4000}); err != nil {
		t.Fatal(err)
	}
	if err := p.Set("a", vmmapi.Resources{VCPU: 4, MemoryMiB: 2048, DiskMiB: 4000}); err != nil {
		t.Fatal("growing into what is free:", err)
	}
	err := p.Set("b", vmmapi.Resources{VCPU: 1, MemoryMiB: 4096, DiskMiB: 1})
	if cvm.CodeOf(err) != cvm.Exhausted || !strings.Contains(err.Error(), "vcpu: 1 wanted, 0 free of 4") || !strings.Contains(err.Error(), "memory: 4096 MiB wanted, 2048 MiB free") {
		t.Fatalf("want exhausted with both reasons, got %v", err)
	}
	if u := p.Used(); u.VCPU != 4 || u.DiskMiB != 4000 {
		t.Fatalf("a refused request must hold nothing: %+v", u)
	}
	p.Release("a")
	if err := p.Set("b", vmmapi.Resources{VCPU: 1, MemoryMiB: 4096, DiskMiB: 1}); err != nil {
		t.Fatal(err)
	}
	p.Force("c", vmmapi.Resources{VCPU: 9})
	if err := p.Set("b", vmmapi.Resources{VCPU: 1, MemoryMiB: 100, DiskMiB: 1}); err != nil {
		t.Fatal("shrinking must succeed on an overfull node:", err)
	}
	if err := p.Set("d", vmmapi.Resources{VCPU: -1}); cvm.CodeOf(err) != cvm.Invalid {
		t.Fatalf("negative: %v", err)
	}
	if err := New(vmmapi.Resources{}).Set("x", vmmapi.Resources{VCPU: 1}); cvm.CodeOf(err) != cvm.Exhausted {
		t.Fatalf("an empty pool must admit nothing: %v", err)
	}
}

func TestPoolNeverGivesTwice(t *testing.T) {
	p := New(vmmapi.Resources{VCPU: 10, MemoryMiB: 10, DiskMiB: 10})
	var wg sync.WaitGroup
	var mu sync.Mutex
	given := 0
	for i := range 50 {
		wg.Go(func() {
			if p.Set(string(rune('A'+i)), vmmapi.Resources{VCPU: 1, MemoryMiB: 1, DiskMiB: 1}) == nil {
				mu.Lock()
				given++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if given != 10 {
		t.Fatalf("gave %d of 10", given)
	}
}
