package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// unplaced makes the error that names each node's reasons.
func unplaced(r Request, nodes []Node) *Unplaced {
	u := &Unplaced{Verdicts: make([]Verdict, 0, len(nodes))}
	reason := ReasonNoNode
	var why []string
	for _, n := range nodes {
		v := Verdict{n, Explain(r, n)}
		u.Verdicts = append(u.Verdicts, v)
		// How near a node came is its first problem: the checks go from what it is to
		// what it has left.
		if rank(v.Problems[0].Reason) > rank(reason) {
			reason = v.Problems[0].Reason
		}
		if len(why) < told {
			texts := make([]string, len(v.Problems))
			for i, p := range v.Problems {
				texts[i] = p.Text
			}
			why = append(why, n.Name+": "+strings.Join(texts, ", "))
		}
	}
	if more := len(nodes) - told; more > 0 {
		why = append(why, fmt.Sprintf("and %d more", more))
	}
	code := cvm.Exhausted
	if reason == ReasonNoNode || reason == ReasonNoImage {
		code = cvm.NotFound
	}
	u.err = cvm.Errorf(code, "no node can take this CVM: %s", strings.Join(why, "; ")).WithReason(reason).
		WithFix("choose a smaller instance type or disk, another region or image, or free resources by deleting a CVM")
	return u
}

// rank orders reasons by how near the node came to fitting.
func rank(word string) int {
	return slices.Index([]string{ReasonNoNode, ReasonNoNodes, ReasonDraining, ReasonConfidence, ReasonNoImage, ReasonNoGPU, ReasonNoCapacity}, word)
}
