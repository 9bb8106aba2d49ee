package scheduler

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

func (n *Node) take(x Resources) {
	n.Free = Resources{n.Free.VCPU - x.VCPU, n.Free.MemoryMiB - x.MemoryMiB, n.Free.DiskGB - x.DiskGB}
}

func randomNodes(r *rand.Rand, count int) []Node {
	out := make([]Node, count)
	for i := range out {
		c := Resources{1 + r.IntN(64), 1024 * (1 + r.IntN(256)), 20 * (1 + r.IntN(100))}
		out[i] = Node{ID: int64(i + 1), Name: fmt.Sprint("n", i+1), Region: []string{"a", "b"}[r.IntN(2)], Online: r.IntN(8) > 0, Draining: r.IntN(8) == 0,
			Confidence: Confidence(r.IntN(3)), Capacity: c, Free: c, Images: []string{"x", "y"}[:r.IntN(3)], GPUs: []string{"g", "g", "h"}[:r.IntN(4)]}
	}
	return out
}

func randomRequest(r *rand.Rand) Request {
	q := Request{Need: Resources{1 + r.IntN(8), 1024 * (1 + r.IntN(16)), 20 + r.IntN(80)}, Confidence: Confidence(r.IntN(3)), Replicas: map[int64]int{}}
	if r.IntN(3) == 0 {
		q.Region, q.Image = "a", "x"
	}
	if r.IntN(4) == 0 {
		q.GPUs, q.GPU = 1+r.IntN(2), []string{"", "g", "h"}[r.IntN(3)]
	}
	return q
}

// Whatever is asked: a node that is picked fits, one that fits is picked if any does,
// nothing goes over capacity, the order of the nodes does not matter, and a node with
// fewer replicas of the app is never passed over.
func TestPickProperties(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		nodes := randomNodes(r, 1+r.IntN(12))
		for range 60 {
			q := randomRequest(r)
			for i := range nodes {
				q.Replicas[nodes[i].ID] = r.IntN(3)
			}
			got, why, err := Pick(q, nodes)
			least := -1
			for i := range nodes {
				if n := q.Replicas[nodes[i].ID]; fails(q, &nodes[i]) == 0 && (least < 0 || n < least) {
					least = n
				}
			}
			if (err == nil) != (least >= 0) {
				t.Fatalf("seed %d: %v, though %d", seed, err, least)
			}
			mixed := slices.Clone(nodes)
			r.Shuffle(len(mixed), func(i, k int) { mixed[i], mixed[k] = mixed[k], mixed[i] })
			if again, _, _ := Pick(q, mixed); !reflect.DeepEqual(again, got) {
				t.Fatalf("seed %d: another order of nodes gives %d, not %d", seed, again.ID, got.ID)
			}
			if err != nil {
				continue
			}
			if n := q.Replicas[got.ID]; n != least || why == "" {
				t.Fatalf("seed %d: picked a node with %d replicas, one has %d", seed, n, least)
			}
			n := &nodes[got.ID-1]
			n.take(q.Need)
			if n.Free.VCPU < 0 || n.Free.MemoryMiB < 0 || n.Free.DiskGB < 0 {
				t.Fatalf("seed %d: over capacity: %+v", seed, n)
			}
		}
	}
}

// Equal nodes are never further apart than the slack and one CVM.
func TestSpreadBound(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 2))
		whole := Resources{64, 256 << 10, 4000}
		nodes := make([]Node, 2+r.IntN(8))
		for i := range nodes {
			nodes[i] = Node{ID: int64(i + 1), Online: true, Capacity: whole, Free: whole}
		}
		largest := 0
		for range 100 {
			q := Request{Need: Resources{1 + r.IntN(4), 1024 * (1 + r.IntN(16)), 20 + r.IntN(100)}}
			full := slices.ContainsFunc(nodes, func(n Node) bool { return fails(q, &n) != 0 })
			if full { // a node that cannot take it is no measure
				break
			}
			alone, _ := loads(&Node{Capacity: whole, Free: whole}, q.Need)
			largest = max(largest, alone+1)
			got, _, err := Pick(q, nodes)
			if err != nil {
				t.Fatal(err)
			}
			nodes[got.ID-1].take(q.Need)
			high, low := 0, 1000
			for i := range nodes {
				l, _ := loads(&nodes[i], Resources{})
				high, low = max(high, l), min(low, l)
			}
			if high-low > Slack+largest {
				t.Fatalf("seed %d: loads from %d to %d of 1000, more than %d apart", seed, low, high, Slack+largest)
			}
		}
	}
}

func BenchmarkPick10000(b *testing.B) {
	nodes := randomNodes(rand.New(rand.NewPCG(1, 1)), 10000)
	q := Request{Need: Resources{2, 4096, 40}, Region: "a", Image: "x"}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Pick(q, nodes); err != nil {
			b.Fatal(err)
		}
	}
}
