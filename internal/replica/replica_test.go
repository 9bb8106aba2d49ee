package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/confidential-cloud/phala/cvm"
)

// list is a machine that keeps its commands. "poison" is a command it does not know.
type list struct {
	mu   sync.Mutex
	cmds []string
}

func (l *list) Apply(_ uint64, c []byte) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if string(c) == "poison" {
		return nil, errors.New("unknown command")
	}
	l.cmds = append(l.cmds, string(c))
	return binary.BigEndian.AppendUint64(nil, uint64(len(l.cmds))), nil
}

func (l *list) Snapshot() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return []byte("list\n" + strings.Join(l.cmds, "\n")), nil
}

func (l *list) Restore(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest, ok := bytes.CutPrefix(b, []byte("list\n"))
	if !ok {
		return errors.New("not a snapshot")
	}
	l.cmds = strings.Split(string(rest), "\n")
	return nil
}

func (l *list) len() int { l.mu.Lock(); defer l.mu.Unlock(); return len(l.cmds) }

type trio struct {
	r     [3]*Replica
	lists [3]*list
	trans [3]*raft.InmemTransport
}

func newTrio(t *testing.T) *trio {
	var w trio
	var servers []raft.Server
	for i := range w.r {
		_, w.trans[i] = raft.NewInmemTransport(raft.ServerAddress(fmt.Sprint(i)))
		servers = append(servers, raft.Server{ID: raft.ServerID(fmt.Sprint(i)), Address: w.trans[i].LocalAddr()})
	}
	w.connect(0, 1, 2)
	for i := range w.r {
		w.lists[i] = &list{}
		var err error
		w.r[i], err = New(Config{ID: fmt.Sprint(i), Address: fmt.Sprint(i), Machine: w.lists[i], transport: w.trans[i], memory: true})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.r[0].raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		t.Fatal(err)
	}
	return &w
}

func (w *trio) connect(members ...int) {
	for _, i := range members {
		for _, j := range members {
			if i != j {
				w.trans[i].Connect(w.trans[j].LocalAddr(), w.trans[j])
			}
		}
	}
}

func (w *trio) cut(i int) {
	for j := range w.trans {
		if i != j {
			w.trans[i].Disconnect(w.trans[j].LocalAddr())
			w.trans[j].Disconnect(w.trans[i].LocalAddr())
		}
	}
}

func (w *trio) stop() {
	for _, r := range w.r {
		_ = r.Stop()
	}
}

// leader waits for one among the members, in virtual time.
func (w *trio) leader(t *testing.T, among ...int) int {
	for range 1000 {
		for _, i := range among {
			if w.r[i].IsLeader() {
				return i
			}
		}
		<-time.After(100 * time.Millisecond)
	}
	t.Fatal("no leader")
	return 0
}

// A leader that is cut off from the majority neither commits nor confirms itself;
// the majority goes on; after an hour the lost one follows, with one history.
func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrio(t)
		defer w.stop()
		old := w.leader(t, 0, 1, 2)
		ctx := context.Background()
		if _, _, err := w.r[old].Apply(ctx, []byte("one")); err != nil {
			t.Fatal(err)
		}
		w.cut(old)
		if _, _, err := w.r[old].Apply(ctx, []byte("lost")); cvm.ReasonOf(err) != ReasonNoQuorum && !errors.Is(err, ErrNotLeader) {
			t.Errorf("a minority commits: %v", err)
		}
		if _, err := w.r[old].Barrier(ctx); err == nil {
			t.Error("a minority confirms its view")
		}
		next := w.leader(t, (old+1)%3, (old+2)%3)
		if _, _, err := w.r[next].Apply(ctx, []byte("two")); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour)
		w.connect(0, 1, 2)
		for range 1000 {
			if w.lists[old].len() == 2 {
				break
			}
			<-time.After(100 * time.Millisecond)
		}
		for i, l := range w.lists {
			if got := strings.Join(l.cmds, ","); got != "one,two" {
				t.Errorf("member %d: %s", i, got)
			}
		}
	})
}

func TestUnknownCommandHaltsTheMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrio(t)
		defer w.stop()
		i := w.leader(t, 0, 1, 2)
		ended := make(chan error, 1)
		go func() { ended <- w.r[i].Run(context.Background()) }()
		if _, _, err := w.r[i].Apply(context.Background(), []byte("poison")); err == nil {
			t.Error("the proposal succeeds")
		}
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "unknown command") {
			t.Errorf("Run: %v", err)
		}
		if _, err := w.r[i].fsm.Snapshot(); err == nil {
			t.Error("a halted machine is snapshotted")
		}
		if _, ok := w.r[i].fsm.Apply(&raft.Log{Data: []byte("x")}).(error); !ok || w.lists[i].len() != 0 {
			t.Error("something was applied after the halt")
		}
	})
}

// One member on disk: entries and snapshot survive a restart; a snapshot that the
// machine refuses stops the start.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	open := func() (*Replica, *list, error) {
		l := &list{}
		_, tr := raft.NewInmemTransport("a")
		r, err := New(Config{ID: "a", Address: "a", Dir: dir, Key: make([]byte, MinKey), Machine: l, transport: tr, heartbeat: 50 * time.Millisecond})
		return r, l, err
	}
	r, _, err := open()
	if err != nil || !r.Fresh() {
		t.Fatal(err)
	}
	if err := r.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		applySoon(t, r, fmt.Sprint(i))
	}
	if err := r.Snapshot(); err != nil {
		t.Fatal(err)
	}
	applySoon(t, r, "after")
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	r, l, err := open()
	if err != nil || r.Fresh() {
		t.Fatal(err)
	}
	if err := r.Bootstrap(); err == nil {
		t.Error("a second bootstrap over state")
	}
	applySoon(t, r, "again")
	if got := strings.Join(l.cmds, ","); got != "0,1,2,after,again" {
		t.Error(got)
	}
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
}

func applySoon(t *testing.T, r *Replica, cmd string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		_, _, err := r.Apply(context.Background(), []byte(cmd))
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
