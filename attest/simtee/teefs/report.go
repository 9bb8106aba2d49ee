package teefs

import (
	"bytes"
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

// provider makes reports. name is what the provider file says; levels shows the
// files of privilege levels and auxiliary data.
type provider struct {
	name   string
	levels bool
	report func(ctx context.Context, in [64]byte, level uint) (out, aux []byte, err error)
}

func providerOf(d Device) provider {
	if l, ok := d.(Leveled); ok {
		return leveled(l)
	}
	return provider{name: "tdx_guest", report: func(ctx context.Context, in [64]byte, _ uint) (out, aux []byte, err error) {
		out, err = d.Quote(ctx, in)
		return out, nil, err
	}}
}

func leveled(l Leveled) provider {
	return provider{name: l.Provider(), levels: true, report: l.Report}
}

// maxLevel is the kernel's highest privilege level.
const maxLevel = 3

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
	tsm   *subsystem
	in    []byte
	level uint
	out   []byte
	aux   []byte
	dead  bool
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
	for file, a := range e.files() {
		dir.AddChild(file, dir.NewPersistentInode(ctx, a, fileAttr()), false)
	}
	return dir, 0
}

func (e *entry) files() map[string]*attribute {
	line := func(text string) func(context.Context) ([]byte, error) {
		return func(context.Context) ([]byte, error) { return []byte(text + "\n"), nil }
	}
	m := map[string]*attribute{
		"inblob":     {mode: 0o200, blob: e.setIn},
		"outblob":    {mode: 0o400, read: func(ctx context.Context) ([]byte, error) { return e.report(ctx, &e.out) }},
		"generation": {mode: 0o444, read: e.generation},
		"provider":   {mode: 0o444, read: line(e.tsm.provider.name)},
	}
	if e.tsm.provider.levels {
		m["privlevel"] = &attribute{mode: 0o200, write: e.setLevel}
		m["privlevel_floor"] = &attribute{mode: 0o444, read: line("0")}
		m["auxblob"] = &attribute{mode: 0o400, read: func(ctx context.Context) ([]byte, error) { return e.report(ctx, &e.aux) }}
	}
	return m
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

// advance counts a write.
func (e *entry) advance() error {
	if e.written+1 == e.read { // written around the clock without a reader
		return syscall.EBUSY
	}
	e.written++
	return nil
}

func (e *entry) setIn(_ context.Context, b []byte) error {
	return e.locked(func() error {
		if err := e.advance(); err != nil {
			return err
		}
		e.in = slices.Clone(b)
		return nil
	})
}

func (e *entry) setLevel(_ context.Context, b []byte) error {
	v, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 8)
	if err != nil || v > maxLevel {
		return syscall.EINVAL
	}
	return e.locked(func() error {
		if err := e.advance(); err != nil {
			return err
		}
		e.level = uint(v)
		return nil
	})
}

func (e *entry) generation(context.Context) (b []byte, err error) {
	return b, e.locked(func() error {
		b = append(strconv.AppendUint(nil, e.written, 10), '\n')
		return nil
	})
}

// report makes the report of the present input, once, and returns a part of it.
func (e *entry) report(ctx context.Context, part *[]byte) (b []byte, err error) {
	return b, e.locked(func() error {
		if len(e.in) != maxInBlob {
			return syscall.EINVAL
		}
		if e.out == nil || e.read != e.written {
			out, aux, err := e.tsm.provider.report(ctx, [64]byte(e.in), e.level)
			if err != nil {
				return err
			}
			e.out, e.aux, e.read = out, aux, e.written
		}
		b = *part
		return nil
	})
}
