package scheduler

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
)

func node(id int64, free Resources, mod func(*Node)) Node {
	n := Node{ID: id, Name: "n" + string(rune('0'+id)), Region: "here", Online: true, Free: free, Images: []string{"img"}}
	if mod != nil {
		mod(&n)
	}
	return n
}

func TestPick(t *testing.T) {
	big, small := Resources{8, 16384, 200}, Resources{2, 2048, 40}
	tests := []struct {
		name   string
		req    Request
		nodes  []Node
		want   int64
		reason string
		text   string // in the explanation or the error
	}{
		{"most memory wins", Request{Need: Resources{1, 1024, 20}}, []Node{node(1, small, nil), node(2, big, nil)}, 2, "", "of 2 fitting node(s)"},
		{"tie: lowest id", Request{Need: Resources{1, 1024, 20}}, []Node{node(2, big, nil), node(1, big, nil)}, 1, "", "n1"},
		{"exact fit", Request{Need: small}, []Node{node(1, small, nil)}, 1, "", "n1"},
		{"explains the others", Request{Need: Resources{4, 1024, 20}}, []Node{node(1, small, nil), node(2, big, nil)}, 2, "", "not n1: has 2 vCPU free, 4 needed"},
		{"no nodes", Request{}, nil, 0, ReasonNoNodes, "no nodes"},
		{"offline", Request{}, []Node{node(1, big, func(n *Node) { n.Online = false })}, 0, ReasonNoNodes, "n1: does not answer"},
		{"cpu", Request{Need: Resources{9, 1, 1}}, []Node{node(1, big, nil)}, 0, ReasonNoCapacity, "8 vCPU free, 9 needed"},
		{"memory", Request{Need: Resources{1, 16385, 1}}, []Node{node(1, big, nil)}, 0, ReasonNoCapacity, "16384 MiB memory free, 16385 needed"},
		{"disk", Request{Need: Resources{1, 1, 201}}, []Node{node(1, big, nil)}, 0, ReasonNoCapacity, "200 GB disk free, 201 needed"},
		{"negative is shown as 0", Request{Need: Resources{1, 1, 1}}, []Node{node(1, Resources{-1, 5, 5}, nil)}, 0, ReasonNoCapacity, "has 0 vCPU"},
		{"region", Request{Region: "moon"}, []Node{node(1, big, nil)}, 0, ReasonNoNode, `not "moon"`},
		{"node id", Request{NodeID: 7}, []Node{node(1, big, nil)}, 0, ReasonNoNode, "is not node 7"},
		{"image", Request{Image: "other"}, []Node{node(1, big, nil)}, 0, ReasonNoImage, `no image "other" (it has: img)`},
		{"drained", Request{}, []Node{node(1, big, func(n *Node) { n.Draining = true })}, 0, ReasonDraining, "is being drained"},
		{"simulated", Request{Confidence: Unverified}, []Node{node(1, big, nil)}, 0, ReasonConfidence, "is simulated, unverified wanted"},
		{"nobody verified it", Request{Confidence: Genuine}, []Node{node(1, big, func(n *Node) { n.Confidence = Unverified })}, 0, ReasonConfidence, "is unverified, genuine wanted"},
		{"no GPU", Request{GPUs: 1, GPU: "10de:2330"}, []Node{node(1, big, func(n *Node) { n.GPUs = []string{"10de:1"} })}, 0, ReasonNoGPU, "0 GPU(s) 10de:2330 free"},
		{"GPU nodes are kept for GPUs", Request{}, []Node{node(1, big, func(n *Node) { n.GPUs = []string{"g"} }), node(2, big, nil)}, 2, "", "n2"},
		{"a replica goes elsewhere", Request{Replicas: map[int64]int{2: 1}}, []Node{node(1, small, nil), node(2, big, nil)}, 1, "", "n1"},
		{"all reasons at once", Request{Need: Resources{9, 99999, 1}}, []Node{node(1, big, nil)}, 0, ReasonNoCapacity, "8 vCPU free, 9 needed, has 16384 MiB memory free"},
		{"nearest reason wins", Request{Image: "img", Need: Resources{9, 1, 1}}, []Node{node(1, big, nil), node(2, big, func(n *Node) { n.Images = nil })}, 0, ReasonNoCapacity, "n2: has no image"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, why, err := Pick(tt.req, tt.nodes)
			if err != nil {
				why = err.Error()
			}
			if n.ID != tt.want || cvm.ReasonOf(err) != tt.reason || !strings.Contains(why, tt.text) {
				t.Errorf("got node %d, reason %q, %q; want %d, %q, %q", n.ID, cvm.ReasonOf(err), why, tt.want, tt.reason, tt.text)
			}
		})
	}
}

// Of many nodes those are named that came nearest to fitting, and the others counted
// by their reason, whatever order the nodes are in.
func TestNearestFirst(t *testing.T) {
	small := Resources{2, 2048, 40}
	var nodes []Node
	for i := range 30 {
		nodes = append(nodes, node(int64(100+i), small, func(n *Node) { n.Name, n.Region = "far", "moon" }))
	}
	nodes = append(nodes, node(2, small, func(n *Node) { n.Online = false }), node(3, Resources{2, 9999, 40}, nil), node(1, small, nil))
	r := Request{Region: "here", Need: Resources{9, 4096, 40}}
	_, _, err := Pick(r, nodes)
	const want = `no node can take this CVM: n3: has 2 vCPU free, 9 needed; n1: has 2 vCPU free, 9 needed, has 2048 MiB memory free, 4096 needed; n2: does not answer, ` +
		`has 2 vCPU free, 9 needed, has 2048 MiB memory free, 4096 needed; and 30 in other regions than "here"`
	var u *Unplaced
	if !errors.As(err, &u) || err.Error() != want {
		t.Fatalf("got  %v\nwant %s", err, want)
	}
	if cvm.ReasonOf(err) != ReasonNoCapacity || len(u.Verdicts) != 3 || u.Verdicts[0].Node.ID != 3 || u.Check() != "vcpu" {
		t.Errorf("reason %q, check %q, %d verdicts", cvm.ReasonOf(err), u.Check(), len(u.Verdicts))
	}
	// More that are near than can be named.
	for i := range 30 {
		nodes = append(nodes, node(int64(10+i), small, nil))
	}
	if _, _, err = Pick(r, nodes); !strings.HasSuffix(err.Error(), `; and 12 with too few vCPU free, 1 not answering, 30 in other regions than "here"`) {
		t.Error(err)
	}
	// One that is taken says so of the others.
	nodes[5].Region, nodes[5].Free = "here", Resources{16, 16384, 400}
	if n, why, err := Pick(r, nodes); err != nil || n.ID != 105 || !strings.Contains(why, "; not n3: has 2 vCPU free, 9 needed; not n1: ") ||
		!strings.HasSuffix(why, `; nor 12 with too few vCPU free, 1 not answering, 29 in other regions than "here"`) {
		t.Errorf("%d %s %v", n.ID, why, err)
	}
	// A region that no node is in.
	if _, _, err = Pick(Request{Region: "sun"}, nodes); err.Error() != `no node can take this CVM: 63 in other regions than "sun"` {
		t.Error(err)
	}
}

func BenchmarkUnplaced10000(b *testing.B) {
	nodes := randomNodes(rand.New(rand.NewPCG(1, 1)), 10000)
	for b.Loop() {
		if _, _, err := Pick(Request{Need: Resources{2, 4096, 40}, Region: "moon", Image: "x"}, nodes); err == nil {
			b.Fatal("placed")
		}
	}
}
