package teefs

import (
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/confidential-cloud/phala/cvm"
)

func dirAttr() fs.StableAttr  { return fs.StableAttr{Mode: fuse.S_IFDIR} }
func fileAttr() fs.StableAttr { return fs.StableAttr{Mode: fuse.S_IFREG} }

// folder is a directory in which users can make and remove nothing (without these
// methods go-fuse lets them).
type folder struct{ fs.Inode }

var (
	_ fs.NodeMkdirer  = (*folder)(nil)
	_ fs.NodeCreater  = (*folder)(nil)
	_ fs.NodeUnlinker = (*folder)(nil)
	_ fs.NodeRmdirer  = (*folder)(nil)
)

func (*folder) Mkdir(context.Context, string, uint32, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

func (*folder) Create(context.Context, string, uint32, uint32, *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EACCES
}
func (*folder) Unlink(context.Context, string) syscall.Errno { return syscall.EPERM }
func (*folder) Rmdir(context.Context, string) syscall.Errno  { return syscall.EPERM }

func (*folder) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = 0o755
	return 0
}

// walk makes the folders of a path and returns the last one and the path's last name.
func (f *folder) walk(ctx context.Context, path string) (*fs.Inode, string) {
	parts := strings.Split(path, "/")
	at := f.EmbeddedInode()
	for _, p := range parts[:len(parts)-1] {
		next := at.GetChild(p)
		if next == nil {
			next = at.NewPersistentInode(ctx, &folder{}, dirAttr())
			at.AddChild(p, next, false)
		}
		at = next
	}
	return at, parts[len(parts)-1]
}

// attribute is one file of configfs or sysfs.
type attribute struct {
	fs.Inode
	mode  uint32                                // permission bits
	read  func(context.Context) ([]byte, error) // nil: not readable
	write func(context.Context, []byte) error   // nil: not writable; called at each write
	blob  func(context.Context, []byte) error   // a configfs binary attribute: called at close with all that was written
}

var (
	_ fs.NodeOpener    = (*attribute)(nil)
	_ fs.NodeGetattrer = (*attribute)(nil)
	_ fs.NodeSetattrer = (*attribute)(nil)
	_ fs.FileReader    = (*handle)(nil)
	_ fs.FileWriter    = (*handle)(nil)
	_ fs.FileFlusher   = (*handle)(nil)
)

func (a *attribute) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = a.mode
	return 0
}

// Setattr takes the truncation of O_TRUNC, which means nothing here, and refuses
// other changes.
func (a *attribute) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		return syscall.EPERM
	}
	out.Mode = a.mode
	return 0
}

// Open refuses what the mode does not offer, also to root.
func (a *attribute) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	mode := flags & syscall.O_ACCMODE
	if mode != syscall.O_WRONLY && a.read == nil || mode != syscall.O_RDONLY && a.write == nil && a.blob == nil {
		return nil, 0, syscall.EACCES
	}
	return &handle{a: a}, fuse.FOPEN_DIRECT_IO, 0
}

// handle is an open attribute: it reads one snapshot.
type handle struct {
	a *attribute

	mu      sync.Mutex
	data    []byte
	loaded  bool
	pending []byte // of a blob
	written bool
}

func (h *handle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.loaded {
		b, err := h.a.read(ctx)
		if err != nil {
			return nil, errno(err)
		}
		h.data, h.loaded = b, true
	}
	if off < 0 || off >= int64(len(h.data)) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(h.data[off:min(int64(len(h.data)), off+int64(len(dest)))]), 0
}

func (h *handle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := uint32(len(data)) //nolint:gosec // FUSE writes are bounded
	if h.a.blob != nil {
		if off+int64(len(data)) > maxInBlob {
			return 0, syscall.EFBIG
		}
		if end := int(off) + len(data); end > len(h.pending) {
			h.pending = append(h.pending, make([]byte, end-len(h.pending))...)
		}
		copy(h.pending[off:], data)
		h.written = true
		return n, 0
	}
	if off != 0 {
		return 0, syscall.EINVAL
	}
	if err := h.a.write(ctx, data); err != nil {
		return 0, errno(err)
	}
	return n, 0
}

// Flush is close(2). Linux commits a blob then and drops the result; so do we: what
// was written twice or not at all shows in the generation.
func (h *handle) Flush(ctx context.Context) syscall.Errno {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.written {
		h.written = false
		_ = h.a.blob(ctx, h.pending)
		h.pending = nil
	}
	return 0
}

// errno is the kernel's word for an error.
func errno(err error) syscall.Errno {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	switch cvm.CodeOf(err) {
	case cvm.Invalid:
		return syscall.EINVAL
	case cvm.Denied:
		return syscall.EPERM
	case cvm.Unavailable:
		return syscall.ENXIO
	}
	if errors.Is(err, context.Canceled) {
		return syscall.EINTR
	}
	return syscall.EIO
}

// extend is a write to an RTMR's file: exactly one digest at offset 0.
func extend(d Device, index int) func(context.Context, []byte) error {
	return func(ctx context.Context, b []byte) error {
		var m cvm.Measurement
		if len(b) != len(m) {
			return syscall.EINVAL
		}
		copy(m[:], b)
		return d.Extend(ctx, index, m)
	}
}
