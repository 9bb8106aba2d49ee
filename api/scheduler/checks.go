package scheduler

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// checks is a set of things that keep a node from taking a CVM, as bits; nothing means
// that it fits. They go from what a node is to what it has left: how near it came to
// fitting is the first of them.
type checks uint16

const (
	notThat checks = 1 << iota
	elsewhere
	offline
	draining
	doubtful
	noImage
	noGPU
	noVCPU
	noMemory
	noDisk
)

// fails is what a node lacks. It makes no words: it is asked of every node for each CVM.
func fails(r Request, n *Node) (f checks) {
	if r.NodeID != 0 && r.NodeID != n.ID {
		f |= notThat
	}
	if r.Region != "" && r.Region != n.Region && !strings.EqualFold(r.Region, n.Region) {
		f |= elsewhere
	}
	if !n.Online {
		f |= offline
	}
	if n.Draining {
		f |= draining
	}
	if n.Confidence < r.Confidence {
		f |= doubtful
	}
	if r.Image != "" && !slices.Contains(n.Images, r.Image) {
		f |= noImage
	}
	if r.GPUs > 0 && n.FreeGPUs(r.GPU) < r.GPUs {
		f |= noGPU
	}
	if n.Free.VCPU < r.Need.VCPU {
		f |= noVCPU
	}
	if n.Free.MemoryMiB < r.Need.MemoryMiB {
		f |= noMemory
	}
	if n.Free.DiskGB < r.Need.DiskGB {
		f |= noDisk
	}
	return f
}

// first is the first of them.
func (f checks) first() checks { return f & -f }

// bit is the number of the first.
func (f checks) bit() int { return bits.TrailingZeros16(uint16(f)) & 15 }

// count is how many there are.
func (f checks) count() int { return bits.OnesCount16(uint16(f)) }

// Explain lists all that keeps a node from taking a CVM; nothing means it fits.
func Explain(r Request, n Node) []Problem { return fails(r, &n).problems(r, &n) }

func (f checks) problems(r Request, n *Node) (all []Problem) {
	for ; f != 0; f &= f - 1 {
		all = append(all, f.first().problem(r, n))
	}
	return all
}

// problem says what one check found at a node.
func (f checks) problem(r Request, n *Node) Problem {
	reason, check := f.words()
	text := ""
	switch f {
	case notThat:
		text = fmt.Sprintf("is not node %d", r.NodeID)
	case elsewhere:
		text = fmt.Sprintf("is in region %q, not %q", n.Region, r.Region)
	case offline:
		text = "does not answer" + n.OfflineWhy
	case draining:
		text = fmt.Sprintf("is being drained%s and takes no new CVMs", n.DrainWhy)
	case doubtful:
		text = fmt.Sprintf("is %s, %s wanted%s", n.Confidence, r.Confidence, because(n.ConfidenceWhy))
	case noImage:
		text = fmt.Sprintf("has no image %q (it has: %s)", r.Image, strings.Join(n.Images, ", "))
	case noGPU:
		text = fmt.Sprintf("has %d GPU(s) %s free, %d needed", n.FreeGPUs(r.GPU), r.GPU, r.GPUs)
	case noVCPU:
		text = fmt.Sprintf("has %d vCPU free, %d needed", max(n.Free.VCPU, 0), r.Need.VCPU)
	case noMemory:
		text = fmt.Sprintf("has %d MiB memory free, %d needed", max(n.Free.MemoryMiB, 0), r.Need.MemoryMiB)
	case noDisk:
		text = fmt.Sprintf("has %d GB disk free, %d needed", max(n.Free.DiskGB, 0), r.Need.DiskGB)
	}
	return Problem{reason, check, text}
}

// words are the reason and the name of a check.
func (f checks) words() (reason, check string) {
	switch f {
	case notThat:
		return ReasonNoNode, "node"
	case elsewhere:
		return ReasonNoNode, "region"
	case offline:
		return ReasonNoNodes, "online"
	case draining:
		return ReasonDraining, "draining"
	case doubtful:
		return ReasonConfidence, "confidence"
	case noImage:
		return ReasonNoImage, "image"
	case noGPU:
		return ReasonNoGPU, "gpu"
	case noVCPU:
		return ReasonNoCapacity, "vcpu"
	case noMemory:
		return ReasonNoCapacity, "memory"
	case noDisk:
		return ReasonNoCapacity, "disk"
	}
	return "", ""
}

// others says of several nodes at once what a check found.
func (f checks) others(r Request) string {
	switch f {
	case notThat:
		return "not the one that was asked for"
	case elsewhere:
		return fmt.Sprintf("in other regions than %q", r.Region)
	case offline:
		return "not answering"
	case draining:
		return "being drained"
	case doubtful:
		return fmt.Sprintf("less than %s", r.Confidence)
	case noImage:
		return fmt.Sprintf("without the image %q", r.Image)
	case noGPU:
		return "with too few GPUs free"
	case noVCPU:
		return "with too few vCPU free"
	case noMemory:
		return "with too little memory free"
	case noDisk:
		return "with too little disk free"
	}
	return ""
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}
