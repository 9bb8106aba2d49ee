package replica

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// slow is a machine that takes a command only when it is let.
type slow struct {
	list
	let chan struct{}
}

func (s *slow) Apply(i uint64, c []byte) ([]byte, error) {
	if bytes.Equal(c, []byte("slow")) {
		<-s.let
	}
	return s.list.Apply(i, c)
}

// A command that is queued for the machine is not one that it has taken.
func TestWaitAppliedWaitsForTheMachine(t *testing.T) {
	m := &slow{let: make(chan struct{})}
	_, tr := raft.NewInmemTransport("a")
	r, err := New(Config{ID: "a", Address: "a", Machine: m, transport: tr, memory: true, heartbeat: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	applySoon(t, r, "first")
	before := r.raft.LastIndex()
	f := r.raft.Apply([]byte("slow"), time.Second)
	for deadline := time.Now().Add(10 * time.Second); r.raft.AppliedIndex() <= before; {
		if time.Now().After(deadline) {
			t.Fatal("the command is not queued")
		}
		<-time.After(time.Millisecond)
	}
	index := r.raft.AppliedIndex()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := r.WaitApplied(ctx, index); m.len() == 1 && err == nil {
		t.Error("a queued command counts as applied")
	}
	close(m.let)
	err = f.Error()
	if err == nil {
		err = r.WaitApplied(context.Background(), f.Index())
	}
	if err = errors.Join(err, r.Stop()); err != nil || m.len() != 2 {
		t.Error(err, m.len())
	}
}
