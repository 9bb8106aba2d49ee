// Package scheduler chooses the node for a CVM. Pick is a pure function of what is
// known, and says why: for the node it took and for each it did not.
//
// Among the nodes that fit, replicas of an app go to different ones; then nodes whose
// load would be within Slack of the lightest are equal (spread), and of these the one
// is taken where the least is stranded (packing).
package scheduler

import (
	"cmp"
	"fmt"

	"github.com/confidential-cloud/phala/cvm"
)

// Reasons of refusals.
const (
	ReasonNoNodes    = "no-nodes"
	ReasonNoCapacity = "no-capacity"
	ReasonNoImage    = "image-not-found"
	ReasonNoNode     = "node-not-found"
	ReasonDraining   = "node-draining"
	ReasonConfidence = "confidence-too-low"
	ReasonNoGPU      = "gpu-not-available"
)

// Slack is how much more of a node's largest resource may be in use than on the
// lightest node, in thousandths, before spread outweighs packing.
const Slack = 100

// Resources of a node or a CVM: CPU in virtual CPUs, memory in MiB, disk in GB.
type Resources struct{ VCPU, MemoryMiB, DiskGB int }

// Confidence is how sure it is that a node's VMs are confidential.
type Confidence int

// The levels, lowest first. Genuine takes a platform proof that was verified.
const (
	Simulated  Confidence = iota // no hardware behind it
	Unverified                   // says that it has hardware; nobody has checked
	Genuine
)

func (c Confidence) String() string { return [...]string{"simulated", "unverified", "genuine"}[c] }

// ParseConfidence reads a level's name.
func ParseConfidence(s string) (Confidence, error) {
	for c := Simulated; c <= Genuine; c++ {
		if c.String() == s {
			return c, nil
		}
	}
	return 0, cvm.Errorf(cvm.Invalid, "confidence %q: want simulated, unverified or genuine", s)
}

// Node is what the scheduler knows of a host.
type Node struct {
	ID         int64
	Name       string
	Region     string
	Online     bool
	Draining   bool
	Confidence Confidence
	Capacity   Resources
	Free       Resources // may be negative after a node shrank
	GPUs       []string  // products of the free ones, vendor:device
	Images     []string
	// What explanations add, and no choice rests on: why the node does not answer
	// (": ..."), why it is drained (" (...)"), why its confidence is not higher.
	OfflineWhy, DrainWhy, ConfidenceWhy string
}

// Request is what a CVM needs; zero fields do not restrict.
type Request struct {
	Need       Resources
	NodeID     int64
	Region     string
	Image      string
	Confidence Confidence // at least
	GPUs       int
	GPU        string // product of all of them; "" is any
	// Replicas counts the app's CVMs by node: others are preferred.
	Replicas map[int64]int
}

// Problem is one reason why a node does not take a CVM.
type Problem struct {
	Reason string // one of the Reasons
	Check  string // node, region, online, draining, confidence, image, gpu, vcpu, memory, disk
	Text   string
}

// told is how many nodes an explanation names.
const told = 20

// Pick returns the node for a CVM, and why. The error is an *Unplaced.
func Pick(r Request, nodes []Node) (Node, string, error) {
	if len(nodes) == 0 {
		return Node{}, "", &Unplaced{err: cvm.Errorf(cvm.Unavailable, "this cloud has no nodes").WithReason(ReasonNoNodes).
			WithFix("name a VMM under [[node]] in the API's config")}
	}
	var fit []int
	var no passed
	for i := range nodes {
		if f := fails(r, &nodes[i]); f == 0 {
			fit = append(fit, i)
		} else {
			no.add(&nodes[i], f)
		}
	}
	if len(fit) == 0 {
		return Node{}, "", unplaced(r, no)
	}
	best := nodes[choose(r, nodes, fit)]
	text := fmt.Sprintf("%s: of %d fitting node(s), among the least loaded, %d MiB memory free", best.Name, len(fit), best.Free.MemoryMiB)
	if n := r.Replicas[best.ID]; n > 0 {
		text += fmt.Sprintf("; it has %d CVM(s) of the app already, as has every other that fits", n)
	}
	named, others := no.nearest(r)
	for _, n := range named {
		text += "; not " + n.node.Name + ": " + n.fails.first().problem(r, n.node).Text
	}
	if others != "" {
		text += "; nor " + others
	}
	return best, text, nil
}

// score orders fitting nodes; the least is the best.
type score struct {
	replicas int
	load     int // of the largest resource after placing, in thousandths
	gpus     int // kept for those who need them
	stranded int // between the most and the least used resource, in thousandths
	id       int64
}

func choose(r Request, nodes []Node, fit []int) int {
	scores := make([]score, len(fit))
	first := score{replicas: int(^uint(0) >> 1)}
	for k, i := range fit {
		n := &nodes[i]
		high, low := loads(n, r.Need)
		scores[k] = score{r.Replicas[n.ID], high, len(n.GPUs), high - low, n.ID}
		if c := cmp.Compare(scores[k].replicas, first.replicas); c < 0 || c == 0 && high < first.load {
			first = score{replicas: scores[k].replicas, load: high}
		}
	}
	best := -1
	for k, s := range scores {
		if s.replicas != first.replicas || s.load > first.load+Slack {
			continue
		}
		if best < 0 || compare(s, scores[best]) < 0 {
			best = k
		}
	}
	return fit[best]
}

// compare ranks nodes that count as equally loaded: the fuller of them first.
func compare(a, b score) int {
	return cmp.Or(cmp.Compare(a.gpus, b.gpus), cmp.Compare(a.stranded/10, b.stranded/10), cmp.Compare(b.load, a.load), cmp.Compare(a.id, b.id))
}

// loads are the highest and the lowest share of a node's resources in use after
// placing, in thousandths. A node that does not tell its capacity counts as what is free.
func loads(n *Node, need Resources) (high, low int) {
	low = 1000
	for _, x := range [3][3]int{{n.Capacity.VCPU, n.Free.VCPU, need.VCPU}, {n.Capacity.MemoryMiB, n.Free.MemoryMiB, need.MemoryMiB}, {n.Capacity.DiskGB, n.Free.DiskGB, need.DiskGB}} {
		whole := max(x[0], x[1])
		if whole <= 0 {
			continue
		}
		share := 1000 * (whole - x[1] + x[2]) / whole
		high, low = max(high, share), min(low, share)
	}
	return high, min(low, high)
}

// FreeGPUs counts the free cards of a product; "" is any.
func (n *Node) FreeGPUs(product string) (count int) {
	for _, p := range n.GPUs {
		if product == "" || p == product {
			count++
		}
	}
	return count
}
