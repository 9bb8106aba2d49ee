package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/jobs"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// nodes knows the configured VMMs and how they were when last asked.
type nodes struct {
	list []*node
	byID map[int64]*node
	lap  atomic.Int64 // how long run takes to ask all of them, in ns

	store     store.Store
	log       *slog.Logger
	now       func() time.Time
	pins      pins
	transport *http.Transport
	proofs    proofs
}

type node struct {
	id      int64
	cfg     NodeConfig
	client  *vmmapi.Client
	address string // host:port of a VMM with TLS, else ""

	asking sync.Mutex // one question at a time; mu is not held meanwhile

	mu       sync.Mutex
	info     *vmmapi.Node   // never nil; another one whenever it differs
	images   []vmmapi.Image // the same
	err      error          // why the last question failed
	asked    time.Time
	imagesAt time.Time           // when images was listed
	proof    *cloudapi.NodeProof // of its platform; nil: it has not joined
	shown    shown
}

// fresh is how old an answer may be and still count; where there are so many nodes
// that asking all takes longer, two rounds and the pause between them.
const fresh = 3 * time.Second

// askEvery is the pause between two rounds over all nodes; askAtOnce is how many are
// asked at the same time, askGap is from one to the next, on average: what else the
// process has to do goes on between them.
const (
	askEvery  = 2 * time.Second
	askAtOnce = 64
	askGap    = time.Millisecond
	// imagesEvery is how often each of more nodes than that is asked for its images,
	// which hardly ever change.
	imagesEvery = 20 * time.Second
)

func newNodes(ctx context.Context, cfg Config, st store.Store, now func() time.Time) (*nodes, error) {
	ns := &nodes{byID: map[int64]*node{}, store: st, log: cfg.Log, now: now, pins: pins{by: map[string]*pin{}}}
	urls := make([]string, len(cfg.Nodes))
	for i, c := range cfg.Nodes {
		urls[i] = c.URL
	}
	ids, err := st.NodeIDs(ctx, urls)
	if err != nil {
		return nil, fmt.Errorf("nodes: %w", err)
	}
	ns.transport = ns.pins.transport()
	shared := &http.Client{Transport: ns.transport}
	for i, c := range cfg.Nodes {
		token, err := os.ReadFile(c.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("node %s: token: %w", c.URL, err)
		}
		if err := ns.pins.add(c); err != nil {
			return nil, fmt.Errorf("node %s: ca_file: %w", c.URL, err)
		}
		address, _ := vmmAddress(c.URL)
		n := &node{id: ids[i], cfg: c, address: address, client: vmmapi.NewClient(strings.TrimRight(c.URL, "/"), strings.TrimSpace(string(token)), shared), info: &vmmapi.Node{}, err: errors.New("not asked yet")}
		ns.list, ns.byID[n.id] = append(ns.list, n), n
	}
	return ns, ns.recall(ctx)
}

func (ns *nodes) ids() []int64 {
	out := make([]int64, len(ns.list))
	for i, n := range ns.list {
		out[i] = n.id
	}
	return out
}

// gone is the error for a node that the config does not name any more.
func gone() error {
	return cvm.Errorf(cvm.Precondition, "the node of this CVM is not in the API's config any more").WithReason("node-not-found").
		WithFix("add the node's [[node]] entry again")
}

// vmm is jobs.Config.Node: calls are bounded, so that a hanging VMM is one that
// does not answer.
func (ns *nodes) vmm(id int64) (jobs.VMM, error) {
	n := ns.byID[id]
	if n == nil {
		return nil, gone()
	}
	return bounded{n.client}, nil
}

// client is for streams, bounded by their request.
func (ns *nodes) client(id int64) (*vmmapi.Client, error) {
	n := ns.byID[id]
	if n == nil {
		return nil, gone()
	}
	return n.client, nil
}

func (ns *nodes) run(ctx context.Context) error {
	for gap := time.Duration(0); ; gap = askGap { // nothing is known before the first round: it is as fast as can be
		begin := time.Now()
		if err := ns.recall(ctx); err != nil && ctx.Err() == nil {
			ns.log.Error("reading what the nodes proved", "err", err)
		}
		ns.ask(ctx, 0, gap)
		ns.lap.Store(int64(time.Since(begin)))
		if run.Pause(ctx, askEvery) != nil {
			return nil //nolint:nilerr // it is to end
		}
	}
}

// refresh asks every node whose answer is older than maxAge, before a request is answered.
func (ns *nodes) refresh(ctx context.Context, maxAge time.Duration) {
	lap := time.Duration(ns.lap.Load())
	if lap > 0 && len(ns.list) > askAtOnce {
		return // run asks them: nobody has to wait for a node that hangs
	}
	if lap > askEvery/2 {
		maxAge = max(maxAge, 2*lap+askEvery)
	}
	ns.ask(ctx, maxAge, 0)
}

// ask asks every node whose answer is older than maxAge, one each gap.
func (ns *nodes) ask(ctx context.Context, maxAge, gap time.Duration) {
	begin := time.Now()
	every := time.Duration(0)
	if len(ns.list) > askAtOnce {
		every = imagesEvery
	}
	var at errgroup.Group
	at.SetLimit(askAtOnce)
	for i, n := range ns.list {
		if n.known(maxAge) {
			continue
		}
		const some = 5 * time.Millisecond // less is not worth a timer
		if early := time.Until(begin.Add(time.Duration(i) * gap)); early > some && run.Pause(ctx, early) != nil {
			break
		}
		at.Go(func() error {
			if n.ask(ctx, maxAge, every) {
				ns.tellKeyChanged(ctx, n)
			}
			return nil
		})
	}
	_ = at.Wait()
}

// known tells whether the last answer is young enough.
func (n *node) known(maxAge time.Duration) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err == nil && time.Since(n.asked) < maxAge
}

// ask asks the node, and tells whether another TLS key than before answers only now.
func (n *node) ask(ctx context.Context, maxAge, every time.Duration) (changed bool) {
	n.asking.Lock()
	defer n.asking.Unlock()
	if n.known(maxAge) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	info, err := n.client.Node(ctx)
	images, listed := n.listed(every)
	if err == nil && !listed {
		images, err = n.client.Images(ctx)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	changed = keyChanged(err) && !keyChanged(n.err)
	n.asked, n.err = time.Now(), err
	if err == nil { // else keep the last known facts
		if !reflect.DeepEqual(*n.info, info) {
			n.info = &info
		}
		if !slices.Equal(n.images, images) {
			n.images = images
		}
		if !listed {
			n.imagesAt = n.asked
		}
	}
	return changed
}

// listed are the images as last listed, and whether that was less than every ago.
func (n *node) listed(every time.Duration) ([]vmmapi.Image, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.images, !n.imagesAt.IsZero() && time.Since(n.imagesAt) < every
}

// facts are a node's last answers, not to be changed; err says why there is no newer
// one.
func (n *node) facts() (*vmmapi.Node, []vmmapi.Image, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.info, n.images, n.err
}

func (n *node) name() string {
	info, _, _ := n.facts()
	if info.Name != "" {
		return info.Name
	}
	return strings.TrimPrefix(strings.TrimPrefix(n.cfg.URL, "http://"), "https://")
}

func (n *node) region() string {
	info, _, _ := n.facts()
	if n.cfg.Region != "" {
		return n.cfg.Region
	}
	return info.Region
}

// callTimeout bounds one call of a job to a VMM, which answers at once by contract.
const callTimeout = 30 * time.Second

// bounded is a VMM client whose calls end.
type bounded struct{ c *vmmapi.Client }

func call[T any](ctx context.Context, fn func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return fn(ctx)
}

func (b bounded) Get(ctx context.Context, id string) (vmmapi.VM, error) {
	return call(ctx, func(ctx context.Context) (vmmapi.VM, error) { return b.c.Get(ctx, id) })
}

func (b bounded) List(ctx context.Context) ([]vmmapi.VM, error) { return call(ctx, b.c.ListBrief) }

func (b bounded) Put(ctx context.Context, s vmmapi.Spec) (vmmapi.VM, error) {
	return call(ctx, func(ctx context.Context) (vmmapi.VM, error) { return b.c.Put(ctx, s) })
}

func (b bounded) PutApp(ctx context.Context, id string, a vmmapi.App) (vmmapi.VM, error) {
	return call(ctx, func(ctx context.Context) (vmmapi.VM, error) { return b.c.PutApp(ctx, id, a) })
}

func (b bounded) PutResources(ctx context.Context, id string, r vmmapi.Resources) (vmmapi.VM, error) {
	return call(ctx, func(ctx context.Context) (vmmapi.VM, error) { return b.c.PutResources(ctx, id, r) })
}

func (b bounded) PutImage(ctx context.Context, id, image string) (vmmapi.VM, error) {
	return call(ctx, func(ctx context.Context) (vmmapi.VM, error) { return b.c.PutImage(ctx, id, image) })
}

func (b bounded) Update(ctx context.Context, id string, q vmmapi.UpdateRequest) (vmmapi.VM, error) {
	return call(ctx, func(ctx context.Context) (vmmapi.VM, error) { return b.c.Update(ctx, id, q) })
}

func (b bounded) Start(ctx context.Context, id string) (vmmapi.VM, error) {
	return call(ctx, func(ctx context.Context) (vmmapi.VM, error) { return b.c.Start(ctx, id) })
}

func (b bounded) Stop(ctx context.Context, id string) (vmmapi.VM, error) {
	return call(ctx, func(ctx context.Context) (vmmapi.VM, error) { return b.c.Stop(ctx, id) })
}

func (b bounded) Restart(ctx context.Context, id string) (vmmapi.VM, error) {
	return call(ctx, func(ctx context.Context) (vmmapi.VM, error) { return b.c.Restart(ctx, id) })
}

func (b bounded) Delete(ctx context.Context, id string, keepVolumes bool) error {
	_, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, b.c.Delete(ctx, id, keepVolumes) })
	return err
}

func (b bounded) Events(ctx context.Context, id string) ([]vmmapi.Event, error) {
	return call(ctx, func(ctx context.Context) ([]vmmapi.Event, error) { return b.c.Events(ctx, id) })
}
