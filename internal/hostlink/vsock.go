package hostlink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
)

// The link over AF_VSOCK. The host listens on the port whose number is the machine's
// context id, so that VMMs on one host need not share a listener; it takes connections
// of that context alone, and the kernel says whose a connection is. The guest dials
// from a privileged port: a container without CAP_NET_BIND_SERVICE cannot pass for the
// agent.
const (
	// FirstCID is the lowest context id of a machine; below are the hypervisor's, the
	// loopback's and the host's.
	FirstCID = 3
	// LastCID: the number above means any.
	LastCID = unix.VMADDR_CID_ANY - 1

	lastPrivileged  = 1023 // the kernel's LAST_RESERVED_PORT
	firstPrivileged = 1008
	vsockBacklog    = 4
	// answerWithin is how long a host that took the connection may be silent: it says
	// hello four times a second.
	answerWithin = 10 * time.Second
)

// AcceptVSock waits for the machine with a context id to connect, and closes what
// anybody else opens.
func AcceptVSock(ctx context.Context, cid uint32) (io.ReadWriteCloser, error) {
	return acceptVSock(ctx, cid, cid)
}

func acceptVSock(ctx context.Context, cid, port uint32) (io.ReadWriteCloser, error) {
	l, err := vsockFile("listener")
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer l.Close()
	rc, err := l.SyscallConn()
	if err != nil {
		return nil, unavailable("%w", err)
	}
	var did error
	err = rc.Control(func(fd uintptr) {
		if did = unix.Bind(int(fd), &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}); did == nil { //nolint:gosec // a descriptor
			did = unix.Listen(int(fd), vsockBacklog) //nolint:gosec // a descriptor
		}
	})
	if err := errors.Join(err, did); err != nil {
		return nil, unavailable("vsock port %d: %w", port, err)
	}
	for {
		c, from, err := acceptOne(rc)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			return nil, unavailable("%w", context.Cause(ctx))
		case errors.Is(err, unix.ECONNABORTED):
		case err != nil:
			return nil, unavailable("vsock port %d: %w", port, err)
		case from.CID == cid && from.Port <= lastPrivileged:
			return c, nil
		default:
			_ = c.Close()
		}
	}
}

// acceptOne takes the next connection, whosever it is.
func acceptOne(rc rawConn) (c *os.File, from *unix.SockaddrVM, err error) {
	var fd int
	var sa unix.Sockaddr
	werr := rc.Read(func(l uintptr) bool {
		for {
			fd, sa, err = unix.Accept4(int(l), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC) //nolint:gosec // a descriptor
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if err := errors.Join(werr, err); err != nil {
		return nil, nil, err
	}
	from, ok := sa.(*unix.SockaddrVM)
	if !ok {
		_ = unix.Close(fd)
		return nil, nil, fmt.Errorf("a connection from %T", sa)
	}
	return os.NewFile(uintptr(fd), "vsock"), from, nil
}

// DialVSock connects a guest to its host, and returns once the host has spoken. Code
// not_found: this machine has no vsock device.
func DialVSock(ctx context.Context) (io.ReadWriteCloser, error) {
	cid, err := localCID()
	if err != nil || cid < FirstCID || cid > LastCID { // without the device the kernel knows the loopback at most
		return nil, cvm.Errorf(cvm.NotFound, "the machine has no vsock device (context id %d): %w", cid, err)
	}
	return dialVSock(ctx, cid, bindPrivileged)
}

// localCID is this machine's context id.
func localCID() (uint32, error) {
	f, err := os.Open("/dev/vsock")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return unix.IoctlGetUint32(int(f.Fd()), unix.IOCTL_VM_SOCKETS_GET_LOCAL_CID) //nolint:gosec // a descriptor
}

// dialVSock dials from the port that bind chooses.
func dialVSock(ctx context.Context, port uint32, bind func(fd int) error) (_ io.ReadWriteCloser, err error) {
	c, err := vsockFile("link")
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	defer func() {
		if err != nil {
			_ = c.Close()
		}
	}()
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, unavailable("%w", err)
	}
	var did error
	err = rc.Control(func(fd uintptr) {
		if did = bind(int(fd)); did == nil { //nolint:gosec // a descriptor
			did = unix.Connect(int(fd), &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: port}) //nolint:gosec // a descriptor
		}
	})
	if errors.Is(did, unix.EINPROGRESS) { // the kernel gives up after two seconds
		err = rc.Write(func(fd uintptr) bool {
			n, perr := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0) //nolint:gosec // a descriptor
			if n == 0 || errors.Is(perr, unix.EINTR) {
				return false
			}
			var code int
			if code, did = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); did == nil && code != 0 { //nolint:gosec // a descriptor
				did = unix.Errno(code) //nolint:gosec // an errno
			}
			return true
		})
	}
	if err := errors.Join(err, did); err != nil {
		return nil, unavailable("the host does not answer over vsock: %w", err)
	}
	if err := spoken(c, rc); err != nil {
		return nil, unavailable("the host does not speak over vsock: %w", err)
	}
	return c, nil
}

// bindPrivileged takes a port that only a privileged process may have. One that was used
// a moment ago may still be taken.
func bindPrivileged(fd int) (err error) {
	for port := uint32(lastPrivileged); port >= firstPrivileged; port-- {
		err = unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port})
		if !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
	}
	return err
}

// spoken waits until there is something to read. Who was refused reads the end.
func spoken(c *os.File, rc rawConn) error {
	if err := c.SetReadDeadline(time.Now().Add(answerWithin)); err != nil {
		return err
	}
	var n int
	var did error
	err := rc.Read(func(fd uintptr) bool {
		n, _, did = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK) //nolint:gosec // a descriptor
		return !errors.Is(did, unix.EAGAIN) && !errors.Is(did, unix.EINTR)
	})
	if err = errors.Join(err, did); err == nil && n == 0 {
		err = io.EOF
	}
	return errors.Join(err, c.SetReadDeadline(time.Time{}))
}

// rawConn is what is used of a syscall.RawConn.
type rawConn interface {
	Control(func(fd uintptr)) error
	Read(func(fd uintptr) (done bool)) error
	Write(func(fd uintptr) (done bool)) error
}

// vsockFile is a socket whose calls end when it is closed.
func vsockFile(name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, unavailable("this kernel has no vsock: %w", err)
	}
	return os.NewFile(uintptr(fd), "vsock "+name), nil //nolint:gosec // a descriptor
}
