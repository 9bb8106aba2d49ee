package guestagent

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/boot"
	"github.com/confidential-cloud/phala/guest-agent/compose"
	"github.com/confidential-cloud/phala/guest-agent/disk"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/guest-agent/lease"
	"github.com/confidential-cloud/phala/guest-agent/secrets"
	"github.com/confidential-cloud/phala/guest-agent/serve"
	"github.com/confidential-cloud/phala/internal/wgnet"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
	"github.com/confidential-cloud/phala/ratls"
)

// releaseKeys is stage 4 with a KMS.
func (a *Agent) releaseKeys(ctx context.Context, s *boot.State, progress func(string)) (k boot.Keys, err error) {
	pin, err := hex.DecodeString(s.App.KeyProviderID)
	if err != nil {
		return k, cvm.Errorf(cvm.Invalid, "app-compose: key_provider_id is not hex").WithReason(boot.ReasonUnpinned)
	}
	if _, err := lease.Grace(s.App.OnStale); err != nil {
		return k, err
	}
	a.session, err = lease.New(lease.Config{URLs: s.Shared.Sys.KMSURLs, RootSPKI: pin, Prove: a.rec.Evidence, Log: a.log, Now: time.Now})
	if err != nil {
		return k, err
	}
	if a.rec.Variant() == cvm.VariantSNP {
		chain, err := chipChain(s.Shared.Sys)
		if err != nil {
			return k, err
		}
		a.rec.Chain(chain)
	}
	ask := lease.Ask{AppID: s.AppID, AppCompose: s.App.Raw(), Context: evidenceContext(s), Timeout: time.Duration(a.cfg.KeysTimeout),
		Waiting: func(reason string) { progress("requesting keys (waiting: " + reason + ")") }}
	if s.App.WantsGateway() {
		if a.wgKey, err = wgnet.GenerateKey(); err != nil {
			return k, err
		}
		if ask.Context.WireGuardKey, err = wgnet.PublicKey(a.wgKey); err != nil {
			return k, err
		}
	}
	rel, err := a.session.Release(ctx, ask)
	if err != nil {
		return k, err
	}
	spki, err := lease.RootSPKI(rel.RootCA)
	if err != nil {
		return k, err
	}
	return boot.Keys{Provider: "kms", Disk: rel.DiskKey, Env: rel.EnvKey, App: rel.AppKey, AppSig: rel.AppKeySig, RootSPKI: spki, OSImageHash: &rel.OSImageHash}, nil
}

func evidenceContext(s *boot.State) (c kmsapi.EvidenceContext) {
	c.DiskGeneration = s.DiskGeneration
	if s.Shared.EncryptedEnv == nil {
		return c
	}
	h := sha256.Sum256(s.Shared.EncryptedEnv)
	c.EnvSHA256 = hex.EncodeToString(h[:])
	if sig := s.Shared.EnvSignature; sig != nil {
		c.EnvCounter, c.EnvSigner, c.EnvSignature = sig.Counter, sig.Signer, sig.Signature
	}
	return c
}

// localKeys is stage 4 without a KMS: everything from a seed that this boot draws
// and nobody keeps (dstack-core A.8).
func (a *Agent) localKeys(_ context.Context, _ *boot.State) (k boot.Keys, err error) {
	b := make([]byte, keys.Size)
	if _, err := rand.Read(b); err != nil {
		return k, err
	}
	seed := keys.NewSecret(b)
	if k.Disk, err = keys.DeriveDH(seed, []byte("app-disk-key")); err != nil {
		return k, err
	}
	if k.App, err = keys.Derive(b, keys.Size, []byte("app-k256-key")); err != nil {
		return k, err
	}
	ca, err := keys.DeriveP256(seed, []byte("app-key"))
	if err != nil {
		return k, err
	}
	a.local, err = ratls.NewRoot(ca, ratls.Template{CommonName: "App Root Cert", NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0)})
	k.Provider = "none"
	return k, err
}

func (a *Agent) openDisk(_ context.Context, s *boot.State) (string, error) {
	return disk.Directory(a.cfg.DataDir, s.Keys.Disk)
}

// environment is stage 8. The lease is kept from here on: pulling images may take
// longer than it lasts.
func (a *Agent) environment(ctx context.Context, s *boot.State) error {
	if err := a.decrypt(s); err != nil {
		return err
	}
	if runsContainers(s.App) {
		if err := a.writeReferenceFiles(s); err != nil {
			return err
		}
	}
	return a.serve(ctx, s)
}

func (a *Agent) decrypt(s *boot.State) error {
	blob := s.Shared.EncryptedEnv
	if blob == nil {
		return nil
	}
	if s.Keys.Env.Len() == 0 {
		return cvm.Errorf(cvm.Invalid, "there is an encrypted environment, and key provider %s has no key for it", s.Keys.Provider).WithReason(secrets.ReasonEnv)
	}
	if err := secrets.CheckSignature(s.App.EnvSigners, s.Shared.EnvSignature, s.AppID, blob); err != nil {
		return err
	}
	vars, dropped, err := secrets.Open(s.Keys.Env, blob, s.App.AllowedEnvs)
	if err != nil {
		return err
	}
	if len(dropped) > 0 {
		a.log.Warn("the environment has names that the app-compose does not allow; they are dropped", "names", dropped)
	}
	s.Env = vars
	return nil
}

// writeReferenceFiles puts what apps of the reference look for into the work
// directory, which is tmpfs.
func (a *Agent) writeReferenceFiles(s *boot.State) error {
	dir := filepath.Join(a.cfg.WorkDir, ".host-shared")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	doc, err := secrets.JSONFile(s.Env)
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{
		filepath.Join(dir, ".decrypted-env"): secrets.ShellFile(s.Env), filepath.Join(dir, ".decrypted-env.json"): doc,
		filepath.Join(a.cfg.WorkDir, "app-compose.json"): s.App.Raw(), filepath.Join(a.cfg.WorkDir, "user_config"): s.Shared.UserConfig,
	} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			return fmt.Errorf("work directory: %w", err)
		}
	}
	return nil
}

// serve opens the sockets and keeps the lease.
func (a *Agent) serve(ctx context.Context, s *boot.State) error {
	b := a.newBackend(s)
	if runsContainers(s.App) {
		if err := a.newEngine(s); err != nil {
			return err
		}
		b.Containers = a.engine
		login, err := secrets.LoginOf(s.Env)
		if err != nil {
			return err
		}
		b.Prepare = func(ctx context.Context, doc *appcompose.Document, tell func(guestapi.PullProgress)) error {
			return a.engine.Prepare(ctx, doc, login, tell)
		}
	}
	if err := a.keepLease(ctx, s); err != nil {
		return err
	}
	// The sockets are for every container of the app, whatever user it runs as.
	if err := a.listen(ctx, "dstack.sock", a.cfg.DstackSock, 0o777, b.Dstack()); err != nil {
		return err
	}
	if a.cfg.TappdSock != "" {
		if err := a.listen(ctx, "tappd.sock", a.cfg.TappdSock, 0o777, b.Tappd()); err != nil {
			return err
		}
	}
	if a.cfg.ExternalAddr != "" {
		l, err := net.Listen("tcp", a.cfg.ExternalAddr)
		if err != nil {
			return fmt.Errorf("external listener: %w", err)
		}
		a.serveOn(ctx, "external", l, b.External())
	}
	a.backend.Store(b)
	return nil
}

func (a *Agent) newBackend(s *boot.State) *serve.Backend {
	b := &serve.Backend{
		Log: a.log, Now: time.Now, App: s.App, AppID: s.AppID, InstanceID: s.InstanceID,
		KeyProvider: s.KeyProvider, VMConfig: s.Shared.Sys.VMConfig, ComposeHash: s.App.Hash(),
		AppKey: s.Keys.App, AppSig: s.Keys.AppSig, Evidence: a.rec.Evidence, Sign: a.signLocally(s),
		HasEnv: s.Shared.EncryptedEnv != nil, EnvSigned: s.EnvSigned(), DataDir: a.cfg.DataDir,
	}
	if s.Keys.OSImageHash != nil {
		b.OSImageHash = s.Keys.OSImageHash[:]
	}
	if a.session == nil {
		return b
	}
	rel := a.session.Granted()
	b.Receipt, b.Sign = rel.Receipt, a.session.SignCert
	b.KMS = guestapi.KMSInfo{
		URLs: s.Shared.Sys.KMSURLs, RootCA: rel.RootCA, RootSPKI: hex.EncodeToString(s.Keys.RootSPKI),
		TicketKey: rel.TicketKey, GatewayAppID: rel.GatewayAppID, AppID: s.AppID.String(), Simulated: simulated(rel),
	}
	return b
}

// simulated reads from the ledger leaf what kind of platform the KMS verified.
func simulated(rel kmsapi.Release) bool {
	var l ledger.Leaf
	return json.Unmarshal(rel.Receipt.Leaf, &l) == nil && l.Platform == string(cvm.PlatformSimulated)
}

// signLocally is SignCert of key provider none: the app's own root signs.
func (a *Agent) signLocally(s *boot.State) func(context.Context, *ecdsa.PrivateKey, kmsapi.CertConfig) ([]string, error) {
	return func(_ context.Context, key *ecdsa.PrivateKey, c kmsapi.CertConfig) ([]string, error) {
		app := s.AppID
		return IssueLocal(a.local, &key.PublicKey, app, c, time.Now())
	}
}

// IssueLocal signs a leaf for an app without a KMS.
func IssueLocal(ca *ratls.Authority, pub *ecdsa.PublicKey, app cvm.AppID, c kmsapi.CertConfig, at time.Time) ([]string, error) {
	t := ratls.Template{
		CommonName: c.Subject, Organization: c.OrgName, AltNames: c.AltNames, ServerAuth: c.ServerAuth, ClientAuth: c.ClientAuth,
		NotBefore: at.Add(-time.Hour), NotAfter: at.AddDate(10, 0, 0),
		Extensions: ratls.Extensions{AppID: &app, Usage: ratls.UsageAppCustom, Attestation: c.Evidence},
	}
	if c.NotBefore != 0 {
		t.NotBefore = time.Unix(int64(c.NotBefore), 0) // #nosec G115
	}
	if c.NotAfter != 0 {
		t.NotAfter = time.Unix(int64(c.NotAfter), 0) // #nosec G115
	}
	der, err := ca.Issue(pub, t)
	if err != nil {
		return nil, err
	}
	enc := func(b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b}))
	}
	return []string{enc(der), enc(ca.Cert.Raw)}, nil
}

// keepLease renews in the background, after a first time where the boot took long; a lost
// lease ends the run.
func (a *Agent) keepLease(ctx context.Context, s *boot.State) error {
	if a.session == nil {
		return nil
	}
	grace, err := lease.Grace(s.App.OnStale)
	if err != nil {
		return err
	}
	k := &lease.Keeper{Session: a.session, Grace: grace, Renewed: func(ctx context.Context) {
		if e := a.edge; e != nil {
			e.kick()
		}
	}}
	if a.wgKey.Len() > 0 {
		if k.WireGuard, err = wgnet.PublicKey(a.wgKey); err != nil {
			return err
		}
		a.edge = newEdge(a, s)
	}
	if err := k.Begin(ctx); err != nil {
		return err
	}
	a.group.Go(ctx, "lease", func(ctx context.Context) error {
		if err := k.Keep(ctx); err != nil {
			a.fail(err)
		}
		<-ctx.Done()
		return nil
	})
	return nil
}

// joinGateway is stage 9. A gateway that does not answer is tried again in the
// background: the app runs without it, unreachable, and the host is told.
func (a *Agent) joinGateway(ctx context.Context, _ *boot.State) error {
	if a.edge == nil {
		return nil
	}
	if err := a.edge.register(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.log.Warn("joining the gateway failed; trying again in the background", "err", err, "reason", cvm.ReasonOf(err))
		a.notify(ctx, guestapi.Notify{Event: "boot.progress", Payload: a.present() + " joining the gateway (waiting: " + err.Error() + ")"})
		a.edge.kick()
	}
	a.group.Go(ctx, "gateway", a.edge.run)
	return nil
}

// dockerExecDir is dockerd's exec-root, which is its default.
const dockerExecDir = "/var/run/docker"

func (a *Agent) newEngine(s *boot.State) (err error) {
	a.engine, err = compose.New(compose.Config{
		Log: a.log, Daemon: a.cfg.Docker.Daemon, Containerd: a.cfg.Docker.Containerd, ExecDir: dockerExecDir, Compose: a.cfg.Docker.Compose, Sock: a.cfg.Docker.Sock, Project: a.cfg.Docker.Project,
		WorkDir: a.cfg.WorkDir, DataDir: a.cfg.DataDir, Mirror: s.Shared.Sys.DockerRegistry, Insecure: s.Shared.Sys.InsecureRegistries,
		CgroupParent: a.cgroup, StopTimeout: time.Duration(a.cfg.StopTimeout), Taken: a.taken,
	})
	return err
}

// startContainers is stage 10.
func (a *Agent) startContainers(ctx context.Context, s *boot.State) error {
	if a.engine == nil {
		return nil
	}
	login, err := secrets.LoginOf(s.Env)
	if err != nil {
		return err
	}
	env := compose.Builtin(s.AppID.String(), a.edge.base(), s.Env)
	for i, script := range s.App.InitScript {
		if err := a.engine.Script(ctx, fmt.Sprintf("init_script_%d", i), script, env); err != nil {
			return err
		}
	}
	if err := a.openVolumes(ctx, s); err != nil {
		return err
	}
	err = a.engine.Up(ctx, compose.App{Compose: s.App.DockerComposeFile, PreLaunch: s.App.PreLaunchScript, Env: env, Login: login,
		Policy: s.App.SocketPolicy, Sockets: a.serviceSockets(ctx), Progress: a.tellPull(ctx), Uses: a.tellImages(ctx)})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
