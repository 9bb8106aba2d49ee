// Package dry is a driver without machines: states move, nothing runs. It is for
// tests of what stands above the driver line and for API development. Its guests
// follow a script of notifications, spoken over the real host socket.
package dry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// Config of the dry driver.
type Config struct {
	// Script says what the guest of a machine notifies, in order; nil is
	// DefaultScript. A script that ends without "ready" leaves the guest booting.
	Script func(machine.Machine) []guestapi.Notify
	// Guest answers the guest API; nil answers with boot state and empty lists.
	Guest func(machine.Machine) http.Handler
	// LogDir, if set, is where machines write their channels: <id>.<channel>.log.
	LogDir string
}

// Driver holds the machines; a VMM that is made anew with the same Driver adopts them.
type Driver struct {
	cfg Config
	mu  sync.Mutex
	vms map[string]*instance
	// Launches counts launches per machine.
	launches map[string]int
}

var _ machine.Driver = (*Driver)(nil)

// New makes a driver without machines.
func New(cfg Config) *Driver {
	if cfg.Script == nil {
		cfg.Script = DefaultScript
	}
	return &Driver{cfg: cfg, vms: map[string]*instance{}, launches: map[string]int{}}
}

// DefaultScript is a boot that succeeds.
func DefaultScript(machine.Machine) []guestapi.Notify {
	return []guestapi.Notify{{Event: "boot.progress", Payload: "1/10 host-shared"}, {Event: "boot.progress", Payload: "10/10 containers"}, {Event: "ready"}}
}

// noMachine is this driver's warning, and what its machines say of themselves.
const noMachine = "dry driver: no machine runs"

// Describe says that nothing is real.
func (d *Driver) Describe(context.Context) (machine.Description, error) {
	return machine.Description{Name: "dry", Simulated: true, Warnings: []string{noMachine}}, nil
}

// Launches is how often a machine was launched.
func (d *Driver) Launches(id string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.launches[id]
}

// Machines is how many machines there are, alive or not.
func (d *Driver) Machines() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.vms)
}

// Launch plays the script.
func (d *Driver) Launch(_ context.Context, m machine.Machine) (machine.Instance, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old := d.vms[m.ID]; old != nil && old.alive() {
		return nil, cvm.Errorf(cvm.Conflict, "dry machine %s runs already", m.ID)
	}
	i := &instance{m: m, done: make(chan struct{}), text: "dry guest of " + m.Name + "\n"}
	if d.cfg.Guest != nil {
		i.guest = d.cfg.Guest(m)
	} else {
		i.guest = i.defaultGuest()
	}
	d.vms[m.ID] = i
	d.launches[m.ID]++
	if err := i.openLog(d.cfg.LogDir); err != nil {
		return nil, err
	}
	go i.play(d.cfg.Script(m))
	return i, nil
}

// Adopt finds a machine of this driver.
func (d *Driver) Adopt(_ context.Context, id string) (machine.Instance, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.vms[id]
	if i == nil {
		return nil, false, cvm.Errorf(cvm.NotFound, "no dry machine %s", id)
	}
	return i, i.alive(), nil
}

// Remove forgets a machine.
func (d *Driver) Remove(_ context.Context, id string, _ bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := d.vms[id]; i != nil {
		i.end(machine.Exit{Requested: true})
	}
	delete(d.vms, id)
	if d.cfg.LogDir == "" {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(d.cfg.LogDir, id+".*.log*"))
	for _, f := range files {
		err = errors.Join(err, os.Remove(f))
	}
	return err
}

// Crash ends a machine as if its guest had died.
func (d *Driver) Crash(id string, e machine.Exit) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := d.vms[id]; i != nil {
		i.end(e)
	}
}

// Say makes a machine's guest notify its host.
func (d *Driver) Say(ctx context.Context, id string, n guestapi.Notify) error {
	d.mu.Lock()
	i := d.vms[id]
	d.mu.Unlock()
	if i == nil {
		return cvm.Errorf(cvm.NotFound, "no dry machine %s", id)
	}
	return i.say(ctx, n)
}

// Print writes to the console of a machine, as its guest would.
func (d *Driver) Print(id, text string) error {
	d.mu.Lock()
	i := d.vms[id]
	d.mu.Unlock()
	if i == nil || i.dir == "" {
		return cvm.Errorf(cvm.NotFound, "no dry machine %s with a console file", id)
	}
	return i.print(machine.ChannelSerial, text)
}

type instance struct {
	m     machine.Machine
	guest http.Handler
	text  string
	dir   string // of the channels' files, or ""

	mu   sync.Mutex
	exit machine.Exit
	boot guestapi.Boot
	done chan struct{}
}

// LogFile is a channel's file, if there are files.
func (i *instance) LogFile(channel string) string {
	if i.dir == "" {
		return ""
	}
	return filepath.Join(i.dir, i.m.ID+"."+channel+".log")
}

func (i *instance) openLog(dir string) error {
	if i.dir = dir; dir == "" {
		return nil
	}
	return errors.Join(i.print(machine.ChannelSerial, i.text), i.print(machine.ChannelStdout, "dry machine of "+i.m.Name+"\n"),
		i.print(machine.ChannelStderr, noMachine+"\n"))
}

func (i *instance) print(channel, text string) error {
	f, err := os.OpenFile(i.LogFile(channel), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func (i *instance) alive() bool {
	select {
	case <-i.done:
		return false
	default:
		return true
	}
}

func (i *instance) end(e machine.Exit) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.alive() {
		i.exit = e
		close(i.done)
	}
}

func (i *instance) play(script []guestapi.Notify) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, n := range script {
		if !i.alive() {
			return
		}
		i.mu.Lock()
		switch n.Event {
		case "boot.progress":
			i.boot.Progress = n.Payload
		case "instance.info":
			i.boot.Instance = n.Payload
		case "ready":
			i.boot.Ready = true
		}
		i.mu.Unlock()
		_ = i.say(ctx, n) // a VMM that is away asks /v1/boot later
	}
}

func (i *instance) say(ctx context.Context, n guestapi.Notify) error {
	sock := filepath.Join(i.m.Run, filepath.Base(guestapi.HostSock))
	c := rpc.Client{Base: "http://unix", HTTP: rpc.UnixClient(sock)}
	return c.Call(ctx, http.MethodPost, "/api/Notify", n, nil)
}

func (i *instance) Wait(ctx context.Context) (machine.Exit, error) {
	select {
	case <-i.done:
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.exit, nil
	case <-ctx.Done():
		return machine.Exit{}, ctx.Err()
	}
}

func (i *instance) Stop(context.Context, time.Duration) error {
	i.end(machine.Exit{Requested: true})
	return nil
}

func (i *instance) Console(context.Context, machine.ConsoleOptions) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(i.text)), nil
}

// DialGuest serves one connection from memory.
func (i *instance) DialGuest(context.Context) (net.Conn, error) {
	if !i.alive() {
		return nil, cvm.Errorf(cvm.Unavailable, "the dry machine is not running")
	}
	client, server := net.Pipe()
	l := &oneConn{conn: server, closed: make(chan struct{})}
	go func() { _ = http.Serve(l, i.guest) }() //nolint:gosec // memory only
	return &pipeConn{Conn: client, l: l}, nil
}

func (i *instance) defaultGuest() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/boot", func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		rpc.WriteJSON(w, http.StatusOK, i.boot)
	})
	mux.HandleFunc("GET /v1/containers", func(w http.ResponseWriter, _ *http.Request) {
		rpc.WriteJSON(w, http.StatusOK, guestapi.Containers{Containers: []guestapi.Container{}})
	})
	mux.HandleFunc("GET /v1/sysinfo", func(w http.ResponseWriter, _ *http.Request) {
		rpc.WriteJSON(w, http.StatusOK, guestapi.SysInfo{OSName: "dry"})
	})
	mux.HandleFunc("POST /v1/shutdown", func(w http.ResponseWriter, _ *http.Request) {
		rpc.WriteJSON(w, http.StatusOK, struct{}{})
		i.end(machine.Exit{})
	})
	return mux
}

// oneConn is a listener that yields one connection.
type oneConn struct {
	mu     sync.Mutex
	conn   net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	l.mu.Lock()
	c := l.conn
	l.conn = nil
	l.mu.Unlock()
	if c != nil {
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "dry", Net: "unix"} }

type pipeConn struct {
	net.Conn
	l *oneConn
}

func (c *pipeConn) Close() error {
	_ = c.l.Close()
	return c.Conn.Close()
}
