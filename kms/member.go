package kms

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/replica"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/keyring"
	"github.com/confidential-cloud/phala/ledger"
	"github.com/confidential-cloud/phala/ratls"
)

// Member is one KMS node.
type Member struct {
	cfg        Config
	values     *values // the policy, with the newest reference values
	verifier   *attest.Verifier
	log        *slog.Logger
	now        func() time.Time
	collateral Collateral
	fetcher    *fetch.Client // nil when Config.Collateral was handed in
	machine    *keyring.Machine
	ready      chan struct{}

	// Set while booting, before anything is served.
	self      *self
	box       *sealBox
	id        *identity
	ownClaims claim.Claims
	simulated bool
	link      *link
	replica   *replica.Replica
	raftAddr  string
	peers     *http.Client
	root      *ratls.Authority
	temp      tempCA
	nonceKey  keys.Secret
	raftCert  atomic.Pointer[tls.Certificate] // of the members' port; short-lived
	cert      atomic.Pointer[tls.Certificate] // nil until ready
	vault     atomic.Pointer[keyring.Vault]   // nil until ready

	warm      atomic.Bool  // the cluster's memory has not been interrupted
	denied    atomic.Value // error: why this member may not serve, or noError
	cp        checkpoints
	strangers tally
	denials   denials

	mu       sync.Mutex
	sponsors map[string]bool // keys of members, learned while joining
}

// New checks the config. Nothing is started.
func New(c Config) (*Member, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Authority == nil {
		return nil, errors.New("kms: no authority: without governance nothing is allowed")
	}
	m := &Member{
		cfg: c, log: c.Log, now: c.Clock, collateral: c.Collateral, machine: keyring.NewMachine(),
		ready: make(chan struct{}), sponsors: map[string]bool{}, verifier: attest.NewVerifier(maxHosts),
	}
	m.denied.Store(verdict{})
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.log = m.log.With("kms", c.ID)
	if m.now == nil {
		m.now = time.Now
	}
	var err error
	if m.values, err = newValues(c, m.now, m.log); err != nil {
		return nil, err
	}
	if m.collateral == nil {
		if m.fetcher, err = newCollateral(c, m.values.base.Roots, m.now, m.log); err != nil {
			return nil, err
		}
		m.collateral = m.fetcher
	}
	if c.TEE == nil && c.SimTEE == "" {
		return nil, errors.New("kms: no TEE: set simtee")
	}
	if m.raftAddr = c.RaftAdvertise; m.raftAddr == "" {
		m.raftAddr = c.Raft
	}
	return m, nil
}

// Ready is closed when the member serves requests.
func (m *Member) Ready() <-chan struct{} { return m.ready }

// Run boots, bootstraps or joins, and serves until ctx ends.
func (m *Member) Run(ctx context.Context) error {
	if err := os.MkdirAll(m.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("kms directory: %w", err)
	}
	m.values.start(ctx)
	tee, stop, err := m.startTEE(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if m.self, err = measuredBoot(ctx, tee, m.cfg.VMConfig); err != nil {
		return err
	}
	if m.box, err = newSealBox(ctx, tee, m.cfg.Dir, m.cfg.ID); err != nil {
		return err
	}
	if m.id, err = loadIdentity(m.box); err != nil {
		return err
	}
	if err := m.loadMembers(); err != nil {
		return err
	}
	if err := errors.Join(m.bootEvidence(ctx), m.renewCertificate(ctx)); err != nil {
		return err
	}
	source := func() (*tls.Certificate, error) { return m.raftCert.Load(), nil }
	if m.link, err = newLink(m.cfg.Raft, source, m.believePeer, m.isMember, m.now, m.log); err != nil {
		return err
	}
	m.peers = m.link.httpClient(func(spki []byte) error {
		if !m.isMember(spki) {
			return cvm.Errorf(cvm.Denied, "the other end is no member")
		}
		return nil
	})
	state, err := tee.SealKey(ctx, []byte("phala-kms-raft:v1:"+m.cfg.ID))
	if err != nil {
		return errors.Join(fmt.Errorf("the TEE's seal key: %w", err), m.link.close())
	}
	m.replica, err = replica.New(replica.Config{
		Key: state, ID: m.cfg.ID, Address: m.raftAddr, Dir: filepath.Join(m.cfg.Dir, "raft"), Machine: m.machine, Log: m.log,
		Layer: raftLayer{m.link.raft, m.link, m.raftAddr},
	})
	if err != nil {
		return errors.Join(err, m.link.close())
	}
	return m.serve(ctx)
}

func (m *Member) serve(ctx context.Context) (err error) {
	g := &run.Group{Log: m.log, StopTimeout: 15 * time.Second}
	defer func() { err = errors.Join(err, g.Stop(), m.link.close()) }()
	g.Go(ctx, "members' port", m.link.run)
	g.Go(ctx, "members' calls", serveHTTP(m.peerHandler(), m.link.peer))
	g.Go(ctx, "raft", m.replica.Run)
	g.Go(ctx, "list of members", m.keepMembers)
	g.Go(ctx, "certificate", m.keepCertificate)
	for _, addr := range m.cfg.RPC {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return fmt.Errorf("rpc: %w", err)
		}
		g.Go(ctx, "rpc "+addr, serveHTTP(m.handler(), tls.NewListener(ln, m.rpcTLS())))
	}
	boot, cancel := context.WithCancel(ctx)
	defer cancel()
	started := make(chan error, 1)
	go func() { started <- m.start(boot) }()
	select {
	case err := <-started:
		if err != nil {
			return err
		}
	case err := <-g.Failed():
		return err
	}
	g.Go(ctx, "self check", m.watchSelf)
	if m.fetcher != nil {
		g.Go(ctx, "collateral", m.fetcher.Run)
	}
	g.Go(ctx, "reference values", m.values.run)
	g.Go(ctx, "summaries", m.summarize)
	return g.Wait(ctx)
}

func serveHTTP(h http.Handler, ln net.Listener) func(context.Context) error {
	return func(ctx context.Context) error {
		s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
		stop := context.AfterFunc(ctx, func() {
			sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
			defer cancel()
			if s.Shutdown(sctx) != nil {
				_ = s.Close()
			}
		})
		defer stop()
		if err := s.Serve(ln); err != nil && ctx.Err() == nil {
			return err
		}
		return ctx.Err()
	}
}

// startTEE makes the member's TD in the simulated hardware, unless one was handed in.
func (m *Member) startTEE(ctx context.Context) (TEE, func(), error) {
	if m.cfg.TEE != nil {
		return m.cfg.TEE, func() {}, nil
	}
	shape, err := Shape(m.cfg.VMConfig)
	if err != nil {
		return nil, nil, err
	}
	control, name := simtee.NewControl(m.cfg.SimTEE), "kms-"+m.cfg.ID
	_ = control.DestroyTD(ctx, name) // of an earlier run: a boot needs fresh registers
	sock := filepath.Join(m.cfg.Dir, "tee.sock")
	if err := control.CreateTD(ctx, name, sock, shape); err != nil {
		return nil, nil, fmt.Errorf("starting the member's TD: %w", err)
	}
	stop := func() {
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = control.DestroyTD(sctx, name)
	}
	return simtee.NewDevice(sock), stop, nil
}

// bootEvidence quotes over the member's TLS key and checks the quote with its own
// policy: a member that others will refuse says so at its start.
func (m *Member) bootEvidence(ctx context.Context) error {
	binding := ratls.ReportData(m.id.spki)
	ev, err := m.self.evidence(ctx, binding)
	if err != nil {
		return err
	}
	if m.ownClaims, err = m.believePeer(ctx, ev, binding); err != nil {
		return fmt.Errorf("this member's own evidence is not admitted by its policy: %w", err)
	}
	m.simulated = m.ownClaims.Platform == cvm.PlatformSimulated
	return nil
}

// renewCertificate makes a certificate of the members' port with evidence of now.
func (m *Member) renewCertificate(ctx context.Context) error {
	ev, err := m.self.evidence(ctx, ratls.ReportData(m.id.spki))
	if err != nil {
		return err
	}
	at := m.now()
	c, err := ratls.NewCertificate(m.id.tls, ev, ratls.Template{
		CommonName: "phala-kms " + m.cfg.ID, ServerAuth: true, ClientAuth: true, NotBefore: at.Add(-ratls.Backdate), NotAfter: at.Add(ratls.Lifetime),
		Extensions: ratls.Extensions{Usage: ratls.UsageKMSRaft},
	})
	if err != nil {
		return err
	}
	m.raftCert.Store(&c)
	return nil
}

// renewEvery is how often the certificate of the members' port is renewed: two
// failures leave time for a third.
const renewEvery = ratls.Lifetime / 4

// keepCertificate renews until ctx ends.
func (m *Member) keepCertificate(ctx context.Context) error {
	for {
		if err := run.Pause(ctx, renewEvery); err != nil {
			return err
		}
		if err := m.renewCertificate(ctx); err != nil {
			m.log.Error("the certificate of the members' port could not be renewed", "until", m.raftCert.Load().Leaf.NotAfter, "err", err)
		}
	}
}

// believe stores what a peer's evidence shows in c.
func (m *Member) believe(ctx context.Context, c *claim.Claims) ratls.VerifyPeer {
	return func(ev attest.Evidence, _ ratls.Extensions, binding [64]byte) (err error) {
		*c, err = m.believePeer(ctx, ev, binding)
		return err
	}
}

func (m *Member) believePeer(ctx context.Context, ev attest.Evidence, binding [64]byte) (claim.Claims, error) {
	v, err := m.judgePhase(ctx, ev, binding, claim.PhaseRunning) // members run on TEEs with registers
	if err != nil {
		return claim.Claims{}, err
	}
	if c := v.Claims(); c.AppID != AppID() {
		return claim.Claims{}, cvm.Errorf(cvm.Denied, "the peer is app %s, not a KMS", c.AppID)
	}
	return v.Claims(), nil
}

// record of this member for the state.
func (m *Member) memberRecord(origin string) (keyring.Member, error) {
	wrap, err := keys.WrapPublicKey(m.id.wrap)
	if err != nil {
		return keyring.Member{}, err
	}
	vk, err := ledger.VerifierKey(ledger.MemberKeyName(origin, m.cfg.ID), m.id.note.Public().(ed25519.PublicKey))
	return keyring.Member{ID: m.cfg.ID, URLs: m.cfg.URLs, Raft: m.raftAddr, TLSKey: m.id.spki, WrapKey: wrap, VerifierKey: vk}, err
}

// open unlocks the vault and makes the certificate of the API.
func (m *Member) open(ctx context.Context) error {
	vault, err := keyring.Open(m.machine, m.cfg.ID, m.id.wrap)
	if err != nil {
		return err
	}
	e := m.machine.Epochs()
	ca, err := x509.ParseCertificate(e[len(e)-1].RootCA)
	if err != nil {
		return fmt.Errorf("the recorded root CA: %w", err)
	}
	m.root = &ratls.Authority{Cert: ca, Key: vault.CA()}
	if m.nonceKey, err = vault.NonceKey(); err != nil {
		return err
	}
	cert, err := m.rpcCertificate(ctx)
	if err != nil {
		return err
	}
	m.vault.Store(vault)
	m.cert.Store(cert)
	return nil
}

// verdict is nil or why this member may not serve.
type verdict struct{ err error }

// serving refuses while the member is not ready or was disallowed.
func (m *Member) serving() error {
	if m.vault.Load() == nil {
		return cvm.Errorf(cvm.Unavailable, "this member is starting").WithReason("kms-starting")
	}
	return m.denied.Load().(verdict).err
}

// selfCheckEvery is how soon a member notices that it was disallowed.
const selfCheckEvery = 15 * time.Second

// watchSelf stops this member's releases once the authority disallows it.
func (m *Member) watchSelf(ctx context.Context) error {
	t := time.NewTicker(selfCheckEvery)
	defer t.Stop()
	for {
		m.checkWarm(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		_, err := m.admit(ctx, m.ownClaims)
		switch {
		case err == nil:
			m.denied.Store(verdict{})
		case cvm.CodeOf(err) == cvm.Denied:
			m.log.Error("this member is not allowed any more: it stops releasing", "err", err)
			m.denied.Store(verdict{cvm.Errorf(cvm.Unavailable, "KMS self authorization failed: %w", err).WithReason("kms-not-allowed")})
		}
	}
}

// checkWarm asks the others whether the cluster's memory was uninterrupted.
func (m *Member) checkWarm(ctx context.Context) {
	if m.warm.Load() {
		return
	}
	for _, mb := range m.machine.Members() {
		if mb.ID == m.cfg.ID {
			continue
		}
		var h hello
		cctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := m.peer(mb.Raft).Call(cctx, http.MethodPost, pathHello, empty{}, &h)
		cancel()
		if err == nil && h.Warm && m.barrier(ctx) == nil {
			m.warm.Store(true)
			return
		}
	}
}
