// Package replica replicates a pure state machine with hashicorp/raft: it is the
// only package that knows raft. Log and stable store are a write-ahead log on
// disk, snapshots are files, the transport is whatever stream layer the caller
// hands in (the KMS: mutual RA-TLS).
//
// A machine that refuses to apply a command (one of a newer version) halts the
// member: Run returns its error, and nothing is applied after it.
package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	boltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/confidential-cloud/phala/cvm"
)

// ReasonNoQuorum is the machine word of every refusal for lack of a quorum.
const ReasonNoQuorum = "kms-no-quorum"

// Machine is what is replicated. Apply must be a pure function of the state, the
// index and the command; its error halts the member. Restore must check that the
// bytes are what Snapshot gave.
type Machine interface {
	Apply(index uint64, command []byte) ([]byte, error)
	Snapshot() ([]byte, error)
	Restore([]byte) error
}

// Layer carries raft's connections.
type Layer interface {
	net.Listener
	Dial(address string, timeout time.Duration) (net.Conn, error)
}

type streams struct{ Layer }

func (s streams) Dial(a raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.Layer.Dial(string(a), timeout)
}

// Config of a replica.
type Config struct {
	ID      string
	Address string // under which the others dial this member
	Dir     string // log and snapshots
	Key     []byte // authenticates them: 32 bytes or more that the disk's owner does not have
	Layer   Layer
	Machine Machine
	Log     *slog.Logger // nil: discarded
	// ApplyTimeout bounds one proposal; 0: 5 s.
	ApplyTimeout time.Duration
	// SnapshotEvery is the number of log entries between snapshots; 0: 1024.
	SnapshotEvery uint64

	transport raft.Transport // tests
	heartbeat time.Duration  // tests; 0: raft's default, 1 s
	memory    bool           // tests: log and snapshots in memory
}

// Replica is one running member.
type Replica struct {
	cfg    Config
	fsm    *fsm
	raft   *raft.Raft
	logs   raft.LogStore
	trans  raft.Transport
	close  func() error
	fresh  bool
	closed sync.Once
}

// New opens the stores and starts raft. Without state and without Bootstrap it
// waits, as a member that nobody knows, to be added.
func New(c Config) (*Replica, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.ApplyTimeout == 0 {
		c.ApplyTimeout = 5 * time.Second
	}
	if c.SnapshotEvery == 0 {
		c.SnapshotEvery = 1024
	}
	r := &Replica{cfg: c, fsm: &fsm{machine: c.Machine, halted: make(chan struct{})}}
	logger := hclog.New(&hclog.LoggerOptions{Name: "raft", Level: hclog.Info, Output: logWriter{c.Log}, DisableTime: true})
	st, err := r.open(logger)
	if err != nil {
		return nil, err
	}
	has, err := raft.HasExistingState(st.logs, st.stable, st.snaps)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading raft state: %w", err), r.close())
	}
	r.fresh, r.logs = !has, st.logs
	r.trans = c.transport
	if r.trans == nil {
		r.trans = raft.NewNetworkTransportWithLogger(streams{c.Layer}, 3, 10*time.Second, logger)
	}
	if r.raft, err = raft.NewRaft(r.settings(logger), r.fsm, st.logs, st.stable, st.snaps, r.trans); err != nil {
		return nil, errors.Join(fmt.Errorf("starting raft: %w", err), r.close())
	}
	return r, nil
}

type stores struct {
	logs   raft.LogStore
	stable raft.StableStore
	snaps  raft.SnapshotStore
}

// openLog opens the log below dir. raft-wal would be faster, but v0.4.0 cannot be
// opened again after a follower cut a conflicting tail and stopped ("sealed
// segment has no index block"); the KMS writes a few entries a second.
func openLog(dir string) (*boltdb.BoltStore, error) {
	// The timeout: another process that holds the file is an error, not a wait.
	w, err := boltdb.New(boltdb.Options{Path: filepath.Join(dir, "raft.db"), BoltOptions: &bbolt.Options{Timeout: 5 * time.Second}})
	if err != nil {
		return nil, fmt.Errorf("opening the raft log in %s: %w", dir, err)
	}
	return w, nil
}

func (r *Replica) open(logger hclog.Logger) (stores, error) {
	if r.cfg.memory {
		s := raft.NewInmemStore()
		r.close = func() error { return nil }
		return stores{s, s, raft.NewInmemSnapshotStore()}, nil
	}
	if len(r.cfg.Key) < MinKey {
		return stores{}, cvm.Errorf(cvm.Internal, "replica: the key for the disk has %d bytes, want %d", len(r.cfg.Key), MinKey)
	}
	if err := os.MkdirAll(r.cfg.Dir, 0o700); err != nil {
		return stores{}, fmt.Errorf("raft directory: %w", err)
	}
	w, err := openLog(r.cfg.Dir)
	if err != nil {
		return stores{}, err
	}
	r.close = w.Close
	snaps, err := raft.NewFileSnapshotStoreWithLogger(r.cfg.Dir, 2, logger)
	if err != nil {
		return stores{}, errors.Join(fmt.Errorf("opening snapshots: %w", err), r.close())
	}
	logs := sealedLogs{w, r.cfg.Key}
	if err := logs.check(); err != nil {
		return stores{}, errors.Join(err, r.close())
	}
	return stores{logs, w, sealedSnapshots{snaps, r.cfg.Key}}, nil
}

func (r *Replica) settings(logger hclog.Logger) *raft.Config {
	s := raft.DefaultConfig()
	s.LocalID = raft.ServerID(r.cfg.ID)
	s.Logger = logger
	s.SnapshotThreshold = r.cfg.SnapshotEvery
	s.NoLegacyTelemetry = true
	if h := r.cfg.heartbeat; h != 0 {
		s.HeartbeatTimeout, s.ElectionTimeout, s.LeaderLeaseTimeout = h, h, h/2
	}
	return s
}

// Fresh reports whether there was no state on disk.
func (r *Replica) Fresh() bool { return r.fresh }

// Bootstrap makes this member a cluster of one. It refuses where there is state.
func (r *Replica) Bootstrap() error {
	if !r.fresh {
		return cvm.Errorf(cvm.Conflict, "there is raft state already")
	}
	c := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(r.cfg.ID), Address: raft.ServerAddress(r.cfg.Address)}}}
	if err := r.raft.BootstrapCluster(c).Error(); err != nil {
		return fmt.Errorf("bootstrapping raft: %w", err)
	}
	return nil
}

// Run waits until ctx ends or the machine halts, then stops raft.
func (r *Replica) Run(ctx context.Context) error {
	var err error
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case <-r.fsm.halted:
		err = fmt.Errorf("the state machine halted: %w", r.fsm.cause())
	}
	return errors.Join(err, r.Stop())
}

// Stop ends raft and closes the stores. Run calls it.
func (r *Replica) Stop() (err error) {
	r.closed.Do(func() {
		err = r.raft.Shutdown().Error()
		if t, ok := r.trans.(io.Closer); ok {
			err = errors.Join(err, t.Close())
		}
		err = errors.Join(err, r.close())
	})
	return err
}

// NoQuorum is the refusal of a member that cannot reach a majority.
func NoQuorum(cause error) error {
	return cvm.Errorf(cvm.Unavailable, "the KMS has no quorum: %w", cause).WithReason(ReasonNoQuorum).
		WithFix("start the other KMS members; a majority must run and reach each other")
}

// ErrNotLeader says that another member must do it.
var ErrNotLeader = errors.New("not the leader")

// Apply commits a command and returns its index and the machine's result. On a
// member that is not the leader it gives ErrNotLeader; without a quorum NoQuorum.
// After an error the command may still be committed later: callers must be able
// to live with that.
func (r *Replica) Apply(ctx context.Context, cmd []byte) (uint64, []byte, error) {
	f := r.raft.Apply(cmd, r.cfg.ApplyTimeout)
	if err := wait(ctx, r.cfg.ApplyTimeout, f.Error); err != nil {
		return 0, nil, refused(err)
	}
	switch v := f.Response().(type) {
	case []byte:
		return f.Index(), v, nil
	case error:
		return 0, nil, fmt.Errorf("applying: %w", v)
	}
	return 0, nil, fmt.Errorf("applying: no result")
}

func refused(err error) error {
	if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		return ErrNotLeader
	}
	return NoQuorum(err)
}

// wait bounds a future that raft itself bounds only until it is enqueued.
func wait(ctx context.Context, timeout time.Duration, fn func() error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("no answer from a majority: %w", ctx.Err())
	}
}

// Barrier proves that this member is still the leader, and returns the index that
// a reader must have applied to see everything committed so far.
func (r *Replica) Barrier(ctx context.Context) (uint64, error) {
	index := r.raft.CommitIndex()
	if err := wait(ctx, r.cfg.ApplyTimeout, r.raft.VerifyLeader().Error); err != nil {
		return 0, refused(err)
	}
	return index, nil
}

// AddVoter adds a member to the cluster; adding it again changes its address.
func (r *Replica) AddVoter(ctx context.Context, id, address string) error {
	f := r.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(address), 0, r.cfg.ApplyTimeout)
	if err := wait(ctx, 2*r.cfg.ApplyTimeout, f.Error); err != nil {
		return refused(err)
	}
	return nil
}

// Leader is the leader this member knows of; "" when there is none.
func (r *Replica) Leader() (id, address string) {
	a, i := r.raft.LeaderWithID()
	return string(i), string(a)
}

// State is leader, follower, candidate or stopped.
func (r *Replica) State() string {
	switch r.raft.State() {
	case raft.Leader:
		return "leader"
	case raft.Follower:
		return "follower"
	case raft.Candidate:
		return "candidate"
	}
	return "stopped"
}

// IsLeader reports whether this member believes to lead.
func (r *Replica) IsLeader() bool { return r.raft.State() == raft.Leader }

// AppliedIndex is the last log index given to the machine.
func (r *Replica) AppliedIndex() uint64 { return r.raft.AppliedIndex() }

// WaitApplied returns when this member has applied up to index.
func (r *Replica) WaitApplied(ctx context.Context, index uint64) error {
	t := time.NewTicker(2 * time.Millisecond)
	defer t.Stop()
	for !r.reached(index) {
		select {
		case <-ctx.Done():
			return NoQuorum(fmt.Errorf("this member has not caught up: %w", ctx.Err()))
		case <-r.fsm.halted:
			return NoQuorum(r.fsm.cause())
		case <-t.C:
		}
	}
	return nil
}

// reached reports whether the machine has taken every command up to index. Raft's
// own applied index only says that they are queued for it.
func (r *Replica) reached(index uint64) bool {
	if r.raft.AppliedIndex() < index {
		return false
	}
	took := r.fsm.applied.Load()
	for i := index; i > took; i-- {
		var l raft.Log
		if err := r.logs.GetLog(i, &l); errors.Is(err, raft.ErrLogNotFound) {
			return true // part of a snapshot, which the machine has
		} else if err != nil {
			return false
		}
		if l.Type == raft.LogCommand {
			snap, err := strconv.ParseUint(r.raft.Stats()["last_snapshot_index"], 10, 64)
			return err == nil && snap >= i
		}
	}
	return true
}

// Snapshot forces a snapshot (operators and tests).
func (r *Replica) Snapshot() error { return r.raft.Snapshot().Error() }

type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(b []byte) (int, error) {
	w.log.Debug(string(b))
	return len(b), nil
}
