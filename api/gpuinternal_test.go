package api

import (
	"slices"
	"testing"
)

// Promised cards of a kind that is not known count against each kind.
func TestWithout(t *testing.T) {
	free := []string{"a", "b", "a"}
	for n, want := range map[int][]string{-1: free, 0: free, 1: {"a"}, 2: nil} {
		if got := without(free, n); !slices.Equal(got, want) {
			t.Errorf("%d: %v, want %v", n, got, want)
		}
	}
}

func TestTypesWithGPUs(t *testing.T) {
	ok := InstanceType{ID: "x", Family: "gpu", VCPU: 1, MemoryMB: 1, HourlyRate: "1", GPUs: 1, GPU: "10de:2335"}
	for i, c := range []struct {
		change func(*InstanceType)
		fine   bool
	}{
		{func(*InstanceType) {}, true}, {func(x *InstanceType) { x.GPUs = 0 }, false}, {func(x *InstanceType) { x.GPUs = 65 }, false},
		{func(x *InstanceType) { x.GPU = "" }, false}, {func(x *InstanceType) { x.GPU = "H200" }, false}, {func(x *InstanceType) { x.Family = "cpu" }, false},
		{func(x *InstanceType) { x.GPUs, x.GPU = 0, "" }, false}, {func(x *InstanceType) { x.GPUs, x.GPU, x.Family = 0, "", "cpu" }, true},
	} {
		x := ok
		c.change(&x)
		if errs := (Config{InstanceTypes: []InstanceType{x}}).validateTypes(); (len(errs) == 0) != c.fine {
			t.Errorf("%d: %+v: %v", i, x, errs)
		}
	}
}
