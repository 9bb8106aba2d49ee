package keyring

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
)

// state is everything but the ledger's leaves.
type state struct {
	Origin  string               `json:"origin"`
	Members map[string]Member    `json:"members"`
	Epochs  []Epoch              `json:"epochs"`
	Leases  map[string]Lease     `json:"leases"`
	Env     map[string]envMark   `json:"env"`     // app id -> high-water mark (T11)
	Heights map[string]Heights   `json:"heights"` // chain -> high-water marks (T2)
	Nonces  map[string]time.Time `json:"nonces"`  // redeemed, until they cannot be used any more
	Once    map[string]string    `json:"once"`    // redeemed for good -> by whom
	// Places of T5 and T7: nothing writes them yet.
	Revoked     map[string]int64  `json:"revoked,omitempty"`     // app id -> leaf
	Generations map[string]uint64 `json:"generations,omitempty"` // instance -> confirmed disk generation
}

type envMark struct {
	Counter uint64 `json:"counter"`
	SHA256  string `json:"sha256"`
}

// Machine is the state machine. Reads are safe at any time; Apply and Restore are
// called by raft alone.
type Machine struct {
	mu      sync.RWMutex
	st      state
	tree    ledger.Tree
	applied uint64
	changed chan struct{} // closed and replaced at every change
}

// NewMachine is the empty state.
func NewMachine() *Machine {
	return &Machine{st: emptyState(), changed: make(chan struct{})}
}

func emptyState() state {
	return state{
		Members: map[string]Member{}, Leases: map[string]Lease{}, Env: map[string]envMark{},
		Heights: map[string]Heights{}, Nonces: map[string]time.Time{}, Once: map[string]string{},
	}
}

// headSlack is how many blocks a head may lie behind the newest one seen: members
// read the chain at different moments. The final block may not regress at all.
const headSlack = 8

// nonceSlack keeps a redeemed nonce beyond its end, for proposers' clocks that differ.
const nonceSlack = 5 * time.Minute

// Apply changes the state by one command. An error halts the member: the command
// is not one that this code understands. A refusal by the state is a Result.
func (m *Machine) Apply(index uint64, cmd []byte) ([]byte, error) {
	c, err := ParseCommand(cmd)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.apply(c)
	if err != nil {
		return nil, err
	}
	m.applied = index
	m.signal()
	return json.Marshal(r)
}

func (m *Machine) signal() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Machine) apply(c Command) (Result, error) {
	switch c.Kind {
	case KindBootstrap:
		return m.bootstrap(c)
	case KindJoin:
		return m.join(c)
	case KindDecide:
		return m.decide(c)
	case KindSummary:
		return m.summary(c)
	}
	return Result{}, fmt.Errorf("command kind %q has no code", c.Kind) // ParseCommand refuses it first
}

func refuse(reason, format string, args ...any) Result {
	return Result{Leaf: -1, Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// write appends a leaf in the name of the command's proposer.
func (m *Machine) write(c Command, kind string, l ledger.Leaf) (int64, error) {
	l.Version, l.Kind, l.Time, l.Member = ledger.LeafVersion, kind, c.Time, c.Member
	b, err := l.Encode()
	if err != nil {
		return 0, fmt.Errorf("leaf of a %s command: %w", c.Kind, err)
	}
	return m.tree.Append(b)
}

func (m *Machine) bootstrap(c Command) (Result, error) {
	if m.st.Origin != "" {
		return refuse(ReasonBootstrapped, "the cluster %s exists already", m.st.Origin), nil
	}
	b := *c.Bootstrap
	l := b.Leaf
	var err error
	if l.Note, err = memberNote(b.Member, b.Epoch.K256, b.Origin); err != nil {
		return Result{}, err
	}
	n, err := m.write(c, ledger.KindBootstrap, l)
	if err != nil {
		return Result{}, err
	}
	b.Member.JoinLeaf = n
	if b.Epoch.Wrapped == nil {
		b.Epoch.Wrapped = map[string][]byte{}
	}
	m.st.Origin = b.Origin
	m.st.Epochs = []Epoch{b.Epoch}
	m.st.Members[b.Member.ID] = b.Member
	return Result{Leaf: n}, nil
}

// memberNote is the kind-specific part of bootstrap and join leaves: it names the
// key whose signatures on checkpoints count from there on.
func memberNote(mb Member, k256 []byte, origin string) (json.RawMessage, error) {
	note := map[string]any{"member": mb.ID, "verifier_key": mb.VerifierKey, "tls_key": mb.TLSKey, "wrap_key": mb.WrapKey}
	if origin != "" {
		note["origin"], note["k256_pubkey"] = origin, k256
	}
	return json.Marshal(note)
}

func (m *Machine) join(c Command) (Result, error) {
	if m.st.Origin == "" {
		return refuse(ReasonNotFounded, "there is no cluster to join yet"), nil
	}
	j := *c.Join
	old, known := m.st.Members[j.Member.ID]
	if known && !old.sameKeys(j.Member) {
		return refuse(ReasonMemberTaken, "member %s has other keys; a lost member comes back under a new id", j.Member.ID), nil
	}
	for _, e := range m.st.Epochs {
		if len(j.Wrapped[e.Number]) == 0 {
			return refuse(ReasonNotFounded, "the join of %s lacks the root of epoch %d", j.Member.ID, e.Number), nil
		}
	}
	l := j.Leaf
	var err error
	if l.Note, err = memberNote(j.Member, nil, ""); err != nil {
		return Result{}, err
	}
	n, err := m.write(c, ledger.KindJoin, l)
	if err != nil {
		return Result{}, err
	}
	j.Member.JoinLeaf = n
	m.st.Members[j.Member.ID] = j.Member
	for i := range m.st.Epochs {
		m.st.Epochs[i].Wrapped[j.Member.ID] = j.Wrapped[m.st.Epochs[i].Number]
	}
	return Result{Leaf: n}, nil
}

func (m *Machine) summary(c Command) (Result, error) {
	note, err := json.Marshal(map[string]any{"reasons": c.Summary.Reasons})
	if err != nil {
		return Result{}, err
	}
	n, err := m.write(c, ledger.KindSummary, ledger.Leaf{Count: c.Summary.Count, Note: note})
	return Result{Leaf: n}, err
}

func (m *Machine) decide(c Command) (Result, error) {
	d := *c.Decide
	if m.st.Origin == "" {
		return refuse(ReasonNotFounded, "there is no cluster yet"), nil
	}
	if r := m.checkHeights(d); r.Reason != "" {
		return r, nil // the proposer asks the chain again; nothing was decided
	}
	reason, detail := d.Leaf.Reason, d.Leaf.Detail
	if d.Lease != nil {
		reason, detail = m.checkAllow(c, d)
	}
	m.noteNonce(c, d)
	kind := ledger.KindAllow
	if d.Lease == nil || reason != "" {
		kind = ledger.KindDeny
	}
	l := d.Leaf
	l.Reason, l.Detail = reason, detail
	if kind == ledger.KindDeny {
		l.LeaseID = ""
	}
	n, err := m.write(c, kind, l)
	if err != nil {
		return Result{}, err
	}
	m.raiseHeights(d)
	if kind == ledger.KindAllow {
		m.grant(*d.Lease, n)
		for _, o := range d.Once {
			m.st.Once[o.ID] = o.By
		}
	}
	return Result{Leaf: n, Reason: reason, Detail: detail}, nil
}

// HeightsHold reports whether a chain was read no earlier than the cluster has seen
// it. Nil (not a chain) holds.
func (m *Machine) HeightsHold(h *Heights) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.checkHeights(Decide{Heights: h}).Reason == ""
}

func (m *Machine) checkHeights(d Decide) Result {
	if d.Heights == nil {
		return Result{}
	}
	h := m.st.Heights[d.Heights.Chain]
	if d.Heights.Final < h.Final || d.Heights.Head+headSlack < h.Head {
		return refuse(ReasonChainWentBack, "the chain was read at final %d, head %d; the cluster has seen final %d, head %d",
			d.Heights.Final, d.Heights.Head, h.Final, h.Head)
	}
	return Result{}
}

func (m *Machine) raiseHeights(d Decide) {
	if d.Heights == nil {
		return
	}
	h := m.st.Heights[d.Heights.Chain]
	m.st.Heights[d.Heights.Chain] = Heights{
		Chain: d.Heights.Chain, Final: max(h.Final, d.Heights.Final), Head: max(h.Head, d.Heights.Head),
	}
}

// checkAllow is what only the replicated state can refuse: a nonce, a launch or a key
// that was redeemed, an environment that went back.
func (m *Machine) checkAllow(c Command, d Decide) (reason, detail string) {
	if d.Nonce == "" && !(d.Leaf.NoNonce && len(d.Once) > 0) {
		return kmsapi.ReasonNonceUsed, "the decision redeems no nonce"
	}
	for _, o := range d.Once {
		by, used := m.st.Once[o.ID]
		switch {
		case used && o.By == "":
			return kmsapi.ReasonNonceUsed, "this key was used before, and without a nonce a key counts once"
		case used && by != o.By:
			return kmsapi.ReasonLaunchRedeemed, "keys were released to this launch of the machine before, to another TLS key"
		}
	}
	if _, used := m.st.Nonces[d.Nonce]; used {
		return kmsapi.ReasonNonceUsed, "this nonce was redeemed before"
	}
	if d.Nonce != "" && c.Time.After(d.NonceExpires.Add(nonceSlack)) {
		return kmsapi.ReasonNonceExpired, "the nonce ended before the decision was recorded"
	}
	if _, twice := m.st.Leases[d.Lease.ID]; twice {
		return kmsapi.ReasonNonceUsed, "this lease id exists already"
	}
	if _, signed := m.st.Env[d.Lease.AppID.String()]; signed && d.Lease.NoNonce {
		return kmsapi.ReasonEnvSwapped, "the app's environment is signed, and this guest does not show which one it got"
	}
	if !d.Lease.EnvTracked {
		return "", ""
	}
	mark := m.st.Env[d.Lease.AppID.String()]
	if d.Lease.EnvCounter < mark.Counter || d.Lease.EnvCounter == mark.Counter && mark.SHA256 != "" && d.Lease.EnvSHA256 != mark.SHA256 {
		return kmsapi.ReasonEnvRolledBack, fmt.Sprintf("the environment has counter %d; the app has used %d", d.Lease.EnvCounter, mark.Counter)
	}
	return "", ""
}

// noteNonce redeems a nonce, also for a deny, and forgets those that ended.
func (m *Machine) noteNonce(c Command, d Decide) {
	for k, end := range m.st.Nonces {
		if c.Time.After(end.Add(2 * nonceSlack)) {
			delete(m.st.Nonces, k)
		}
	}
	if d.Nonce != "" {
		m.st.Nonces[d.Nonce] = d.NonceExpires
	}
}

// grant stores the lease. A new release of an instance ends its older leases: two
// machines with one disk key must not both run.
func (m *Machine) grant(l Lease, leaf int64) {
	l.Leaf = leaf
	if !l.InstanceID.IsZero() {
		for id, o := range m.st.Leases {
			if o.AppID == l.AppID && o.InstanceID == l.InstanceID {
				delete(m.st.Leases, id)
			}
		}
	}
	m.st.Leases[l.ID] = l
	if l.EnvTracked {
		m.st.Env[l.AppID.String()] = envMark{Counter: l.EnvCounter, SHA256: l.EnvSHA256}
	}
}

// Origin is the ledger's origin; "" before the bootstrap.
func (m *Machine) Origin() string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.st.Origin
}

// LeaseOf finds the lease a TLS client key may renew.
func (m *Machine) LeaseOf(id, clientKey string) (Lease, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	l, ok := m.st.Leases[id]
	if !ok || l.ClientKey != clientKey {
		return Lease{}, cvm.Errorf(cvm.Denied, "there is no such lease for this key (a newer boot of the instance ends older leases)").
			WithReason(kmsapi.ReasonLeaseUnknown).WithFix("restart the instance")
	}
	return l, nil
}
