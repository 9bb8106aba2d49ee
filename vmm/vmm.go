// Package vmm runs a node's confidential VMs: durable records, admission control,
// restart policy, the host API of each guest, and a REST API (vmmapi) for the
// cloud. What a machine is, the driver decides (vmm/machine).
//
// Call New with a Config and Run it. VMs outlive the VMM: a VMM that was killed
// finds its machines again. The VMM is not trusted with anything: it sees the
// app's environment only encrypted, and what it hands to a guest is measured.
package vmm

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/vmm/confine"
	"github.com/confidential-cloud/phala/vmm/container"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/image/oci"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/pool"
	"github.com/confidential-cloud/phala/vmm/qemu"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// VMM is a node.
type VMM struct {
	cfg    Config
	log    *slog.Logger
	store  store
	driver machine.Driver
	pool   *pool.Pool
	host   hostPlane
	puller *oci.Puller
	drain  *drain
	tokens map[[32]byte]caller // by sha256
	tls    *tls.Config         // nil: plain HTTP
	ready  chan struct{}
	addr   string // set before ready is closed
	now    func() time.Time
	wg     sync.WaitGroup
	ctx    func() context.Context // of Run; loops of new VMs live in it

	mu   sync.Mutex
	vms  map[string]*vm
	desc machine.Description
}

// New reads the records and the token. It starts nothing.
func New(cfg Config) (*VMM, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Node.ID = orWord(cfg.Node.ID, cfg.Node.Name)
	m := &VMM{cfg: cfg, log: cfg.Log, store: store{dir: cfg.Dir}, driver: cfg.Machines, ready: make(chan struct{}), now: time.Now, vms: map[string]*vm{}}
	for _, d := range []string{cfg.Dir, cfg.RunDir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("VMM directory: %w", err)
		}
	}
	var err error
	if m.tokens, err = loadTokens(cfg.TokenFile, cfg.Tokens); err != nil {
		return nil, err
	}
	if m.tls, err = cfg.TLS.config(); err != nil {
		return nil, err
	}
	if m.host, err = newHostPlane(&cfg); err != nil {
		return nil, err
	}
	if m.driver == nil {
		if m.driver, err = newDriver(cfg, m.host.confine); err != nil {
			return nil, err
		}
	}
	if cfg.Wrap != nil {
		m.driver = cfg.Wrap(m.driver)
	}
	if m.puller, err = cfg.ImageRegistry.puller(cfg.ImagesDir, cfg.Log); err != nil {
		return nil, err
	}
	if m.drain, err = openDrain(cfg.Dir); err != nil {
		return nil, err
	}
	m.pool = m.host.newPool(&cfg)
	records, err := m.store.load()
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		m.vms[r.VM.Spec.ID] = m.newVM(r)
		m.vms[r.VM.Spec.ID].recall()
	}
	return m, nil
}

// LoadConfig reads a TOML file over Default.
func LoadConfig(path string) (Config, error) {
	c := Default()
	return c, config.Load(path, &c)
}

func newDriver(cfg Config, walls *confine.Confiner) (machine.Driver, error) {
	switch cfg.Driver {
	case "dry":
		return dry.New(dry.Config{}), nil
	case "qemu":
		q := qemu.Config{Options: cfg.QEMU, Dir: filepath.Join(cfg.Dir, "machines"), Log: cfg.Log, Confine: walls}
		if cfg.Confine.UIDs > 0 { // hypervisors of other users pass through it to their machine
			if err := os.Chmod(cfg.Dir, 0o711); err != nil { //nolint:gosec // search only
				return nil, fmt.Errorf("VMM directory: %w", err)
			}
		}
		if cfg.TEESocket != "" {
			q.TEE = simtee.NewControl(cfg.TEESocket)
		}
		return qemu.New(q)
	}
	cfg.Network.DockerHost = cfg.DockerHost
	return container.New(container.Config{DockerHost: cfg.DockerHost, Network: cfg.Network, TEE: simtee.NewControl(cfg.TEESocket), SNP: cfg.Simulate == SimulateSNP, Log: cfg.Log})
}

// Ready is closed when the API answers.
func (m *VMM) Ready() <-chan struct{} { return m.ready }

// Addr is the API's address once Ready.
func (m *VMM) Addr() string { return m.addr }

// Run serves until ctx ends. Machines run on, unless StopOnExit.
func (m *VMM) Run(ctx context.Context) error {
	ln, err := net.Listen("tcp", m.cfg.Listen)
	if err != nil {
		return cvm.Errorf(cvm.Unavailable, "VMM API: %w", err).WithFix("choose another `listen` or stop what uses it")
	}
	m.addr = ln.Addr().String()
	if m.tls != nil {
		ln = tls.NewListener(ln, m.tls)
	}
	loops, stop := context.WithCancel(ctx)
	defer stop()
	m.ctx = func() context.Context { return loops }
	m.refresh(ctx)
	if err := m.startHost(loops); err != nil {
		_ = ln.Close()
		return err
	}
	m.mu.Lock()
	for _, v := range m.vms {
		m.wg.Go(func() { v.loop(loops) })
	}
	m.mu.Unlock()
	m.wg.Go(func() { m.drainLoop(loops) })
	srv := &http.Server{Handler: m.handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug), BaseContext: func(net.Listener) context.Context { return loops }}
	ended := make(chan struct{})
	closing := context.AfterFunc(ctx, func() {
		defer close(ended)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = srv.Shutdown(grace) // calls that write a record are not cut off
		_ = srv.Close()
	})
	m.log.Info("VMM listens", "address", m.addr, "driver", m.desc.Name)
	close(m.ready)
	err = srv.Serve(ln)
	stop()
	if !closing() {
		<-ended
	}
	m.wg.Wait()
	m.puller.Close()
	if m.cfg.StopOnExit {
		m.stopAll(context.WithoutCancel(ctx))
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// stopAll stops the machines and leaves what is wanted as it is.
func (m *VMM) stopAll(ctx context.Context) {
	var wg sync.WaitGroup
	for _, v := range m.all() {
		if v.inst == nil {
			continue
		}
		wg.Go(func() {
			grace, cancel := context.WithTimeout(ctx, time.Duration(m.cfg.StopGrace))
			defer cancel()
			if m.guestShutdown(grace, v.inst) == nil {
				_, _ = v.inst.Wait(grace)
			}
			if err := v.inst.Stop(ctx, 5*time.Second); err != nil {
				m.log.Error("stopping a machine", "vm", v.rec.VM.Spec.ID, "error", err)
				return
			}
			v.change("stopped", "stopped with the VMM", func(r *record) {
				if r.VM.State = vmmapi.StateStopped; r.VM.Desired == running {
					r.VM.State = vmmapi.StateStarting
				}
				r.VM.BootProgress = ""
			})
		})
	}
	wg.Wait()
}

// refresh asks the driver what it is; a driver that is not there yet is a warning.
func (m *VMM) refresh(ctx context.Context) machine.Description {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	d, err := m.driver.Describe(ctx)
	if err != nil {
		m.log.Warn("asking the driver", "error", err)
		d.Warnings = append(d.Warnings, err.Error())
	}
	m.mu.Lock()
	m.desc = d
	m.mu.Unlock()
	return d
}

func (m *VMM) described() machine.Description {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.desc
}

// runDir is short: unix socket paths are limited.
func (m *VMM) runDir(id string) string {
	h := sha256.Sum256([]byte(id))
	return filepath.Join(m.cfg.RunDir, hex.EncodeToString(h[:6]))
}

// image opens the named image, or the default one.
func (m *VMM) image(name string) (*image.Image, error) {
	fix := "run `make image`, or copy an image to " + m.cfg.ImagesDir
	if m.cfg.Driver == "dry" {
		return &image.Image{Name: orWord(name, "dry")}, nil
	}
	name = orWord(name, m.cfg.DefaultImage)
	if name != "" {
		if _, err := os.Stat(filepath.Join(m.cfg.ImagesDir, name)); err != nil {
			return nil, cvm.Errorf(cvm.NotFound, "guest image %s is not on this node", name).WithReason("image-missing").WithFix(fix)
		}
		return image.Open(filepath.Join(m.cfg.ImagesDir, name))
	}
	images, err := image.List(m.cfg.ImagesDir)
	switch {
	case len(images) == 1:
		return images[0], nil
	case err != nil:
		return nil, err
	case len(images) == 0:
		return nil, cvm.Errorf(cvm.NotFound, "there is no guest image in %s", m.cfg.ImagesDir).WithReason("image-missing").WithFix(fix)
	}
	return nil, cvm.Errorf(cvm.Precondition, "there are %d guest images and no default_image", len(images)).WithReason("image-ambiguous").WithFix("set default_image")
}

// held is what a VM occupies: its disk always, CPU and memory while it is to run.
func held(r *record) vmmapi.Resources {
	res := r.VM.Spec.Resources
	if u := r.Update; u != nil { // both versions must fit until one of them is left
		res = vmmapi.Resources{VCPU: max(u.Old.Resources.VCPU, u.Next.Resources.VCPU),
			MemoryMiB: max(u.Old.Resources.MemoryMiB, u.Next.Resources.MemoryMiB), DiskMiB: u.Next.Resources.DiskMiB}
	}
	if r.VM.Desired != running || r.VM.State == vmmapi.StateFailed {
		res.VCPU, res.MemoryMiB = 0, 0
	}
	return res
}

// releaseCompute gives back what a VM that does not run needs not.
func (m *VMM) releaseCompute(r *record) { m.pool.Shrink(r.VM.Spec.ID) }

func (m *VMM) forget(id string) {
	m.mu.Lock()
	delete(m.vms, id)
	m.mu.Unlock()
	m.pool.Release(id)
}

func (m *VMM) all() []*vm {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*vm, 0, len(m.vms))
	for _, v := range m.vms {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b *vm) int { return strings.Compare(a.rec.VM.Spec.ID, b.rec.VM.Spec.ID) })
	return out
}

func (m *VMM) find(id string) (*vm, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v := m.vms[id]; v != nil {
		return v, nil
	}
	return nil, cvm.Errorf(cvm.NotFound, "no VM %q on this node", id).WithReason("vm-not-found")
}

// settled is find for operations that depend on whether a machine runs: right
// after the start of the VMM that has to be found out.
func (m *VMM) settled(ctx context.Context, id string) (*vm, error) {
	v, err := m.find(id)
	if err != nil {
		return nil, err
	}
	t := time.NewTimer(5 * time.Second)
	defer t.Stop()
	select {
	case <-v.adopted:
		return v, nil
	case <-t.C:
	case <-ctx.Done():
	}
	return nil, cvm.Errorf(cvm.Unavailable, "the VMM is still looking whether VM %s runs", id).WithReason("vmm-starting").WithFix("is the machines' engine running? Try again in a moment")
}
