package teefs

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// maxInBlob is the kernel's bound on inblob, in bytes; maxEntries is ours on the
// report entries of one tree.
const (
	maxInBlob  = 64
	maxEntries = 1024
)

// provider makes reports. name is what the provider file says.
type provider struct {
	name   string
	report func(ctx context.Context, in []byte) ([]byte, error)
}

func tdxProvider(d Device) provider {
	return provider{name: "tdx_guest", report: func(ctx context.Context, in []byte) ([]byte, error) {
		if len(in) != 64 {
			return nil, syscall.EINVAL
		}
		return d.Quote(ctx, [64]byte(in))
	}}
}

// subsystem is /sys/kernel/config/tsm/report: mkdir makes an entry, rmdir ends it.
type subsystem struct {
	folder
	provider provider
	mu       sync.Mutex // as the kernel: one report at a time
	entries  map[string]*entry
}

var _ fs.NodeMkdirer = (*subsystem)(nil)

// entry is one user's report. Its fields are guarded by the subsystem's mutex.
type entry struct {
	folder
	tsm  *subsystem
	in   []byte
	out  []byte
	dead bool
	// A report is valid while no input was written since: read equals written.
	written, read uint64
}

func (s *subsystem) Mkdir(ctx context.Context, name string, _ uint32, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[name] != nil {
		return nil, syscall.EEXIST
	}
	if len(s.entries) >= maxEntries {
		return nil, syscall.ENOSPC
	}
	e := &entry{tsm: s}
	if s.entries == nil {
		s.entries = map[string]*entry{}
	}
	s.entries[name] = e
	dir := s.NewPersistentInode(ctx, e, dirAttr())
	for file, a := range map[string]*attribute{
		"inblob":     {mode: 0o200, blob: e.setIn},
		"outblob":    {mode: 0o400, read: e.report},
		"generation": {mode: 0o444, read: e.generation},
		"provider":   {mode: 0o444, read: func(context.Context) ([]byte, error) { return []byte(s.provider.name + "\n"), nil }},
	} {
		dir.AddChild(file, dir.NewPersistentInode(ctx, a, fileAttr()), false)
	}
	return dir, 0
}

func (s *subsystem) Rmdir(_ context.Context, name string) syscall.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[name]
	if e == nil {
		return syscall.ENOENT
	}
	e.dead = true
	delete(s.entries, name)
	return 0
}

// locked runs fn unless the entry was removed.
func (e *entry) locked(fn func() error) error {
	e.tsm.mu.Lock()
	defer e.tsm.mu.Unlock()
	if e.dead {
		return syscall.ENOENT
	}
	return fn()
}

func (e *entry) setIn(_ context.Context, b []byte) error {
	return e.locked(func() error {
		if e.written+1 == e.read { // written around the clock without a reader
			return syscall.EBUSY
		}
		e.written++
		e.in = slices.Clone(b)
		return nil
	})
}

func (e *entry) generation(context.Context) (b []byte, err error) {
	return b, e.locked(func() error {
		b = append(strconv.AppendUint(nil, e.written, 10), '\n')
		return nil
	})
}

// report makes the report of the present input, once.
func (e *entry) report(ctx context.Context) (b []byte, err error) {
	return b, e.locked(func() error {
		if len(e.in) == 0 {
			return syscall.EINVAL
		}
		if e.out == nil || e.read != e.written {
			out, err := e.tsm.provider.report(ctx, e.in)
			if err != nil {
				return err
			}
			e.out, e.read = out, e.written
		}
		b = e.out
		return nil
	})
}
