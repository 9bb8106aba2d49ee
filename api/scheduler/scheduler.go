// Package scheduler chooses the node for a CVM. Pick is a pure function of what is
// known, and says why: for the node it took and for each it did not.
package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// Reasons of refusals.
const (
	ReasonNoNodes    = "no-nodes"
	ReasonNoCapacity = "no-capacity"
	ReasonNoImage    = "image-not-found"
	ReasonNoNode     = "node-not-found"
)

// Resources of a node or a CVM: CPU in virtual CPUs, memory in MiB, disk in GB.
type Resources struct{ VCPU, MemoryMiB, DiskGB int }

// Node is what the scheduler knows of a host.
type Node struct {
	ID     int64
	Name   string
	Region string
	Online bool
	Free   Resources // may be negative after a node shrank
	Images []string
}

// Request is what a CVM needs; zero fields do not restrict.
type Request struct {
	Need   Resources
	NodeID int64
	Region string
	Image  string
}

// Pick returns the online node with the most memory left after placing, then the
// most CPUs, then the lowest id, and why. The error names each node's reason.
func Pick(r Request, nodes []Node) (Node, string, error) {
	if len(nodes) == 0 {
		return Node{}, "", cvm.Errorf(cvm.Unavailable, "this cloud has no nodes").WithReason(ReasonNoNodes).
			WithFix("name a VMM under [[node]] in the API's config")
	}
	var fit []Node
	var why []string
	reason := ReasonNoNode
	for _, n := range nodes {
		word, problem := refuse(r, n)
		if problem == "" {
			fit = append(fit, n)
			continue
		}
		why = append(why, n.Name+": "+problem)
		if rank(word) > rank(reason) {
			reason = word
		}
	}
	if len(fit) == 0 {
		code := cvm.Exhausted
		if reason == ReasonNoNode || reason == ReasonNoImage {
			code = cvm.NotFound
		}
		return Node{}, "", cvm.Errorf(code, "no node can take this CVM: %s", strings.Join(why, "; ")).WithReason(reason).
			WithFix("choose a smaller instance type or disk, another region or image, or free resources by deleting a CVM")
	}
	best := slices.MinFunc(fit, func(a, b Node) int {
		return cmp.Or(cmp.Compare(b.Free.MemoryMiB, a.Free.MemoryMiB), cmp.Compare(b.Free.VCPU, a.Free.VCPU), cmp.Compare(a.ID, b.ID))
	})
	text := fmt.Sprintf("%s: most free memory (%d MiB) of %d fitting node(s)", best.Name, best.Free.MemoryMiB, len(fit))
	if len(why) > 0 {
		text += "; not " + strings.Join(why, "; not ")
	}
	return best, text, nil
}

// rank orders reasons by how near the node came to fitting.
func rank(word string) int {
	return slices.Index([]string{ReasonNoNode, ReasonNoNodes, ReasonNoImage, ReasonNoCapacity}, word)
}

func refuse(r Request, n Node) (word, problem string) {
	switch {
	case r.NodeID != 0 && r.NodeID != n.ID:
		return ReasonNoNode, fmt.Sprintf("is not node %d", r.NodeID)
	case r.Region != "" && !strings.EqualFold(r.Region, n.Region):
		return ReasonNoNode, fmt.Sprintf("is in region %q, not %q", n.Region, r.Region)
	case !n.Online:
		return ReasonNoNodes, "does not answer"
	case r.Image != "" && !slices.Contains(n.Images, r.Image):
		return ReasonNoImage, fmt.Sprintf("has no image %q (it has: %s)", r.Image, strings.Join(n.Images, ", "))
	case n.Free.VCPU < r.Need.VCPU:
		return ReasonNoCapacity, fmt.Sprintf("has %d vCPU free, %d needed", max(n.Free.VCPU, 0), r.Need.VCPU)
	case n.Free.MemoryMiB < r.Need.MemoryMiB:
		return ReasonNoCapacity, fmt.Sprintf("has %d MiB memory free, %d needed", max(n.Free.MemoryMiB, 0), r.Need.MemoryMiB)
	case n.Free.DiskGB < r.Need.DiskGB:
		return ReasonNoCapacity, fmt.Sprintf("has %d GB disk free, %d needed", max(n.Free.DiskGB, 0), r.Need.DiskGB)
	}
	return "", ""
}
