package devcloud

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway"
	"github.com/confidential-cloud/phala/gateway/certs"
	"github.com/confidential-cloud/phala/governance/ethereum"
	guestagent "github.com/confidential-cloud/phala/guest-agent"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// facts is what later starts must find again (facts.json).
type facts struct {
	// KMSVMConfig is the vm_config of the members' TDs, kept from the first start: their
	// state is sealed to it, and a new guest image must not lock them out.
	KMSVMConfig    string `json:"kms_vm_config"`
	KMSRoot        string `json:"kms_root"` // hex DER SPKI: the identity that every app pins
	K256PubKey     []byte `json:"k256_pubkey"`
	GatewayAppID   string `json:"gateway_app_id"`
	GatewayCompose string `json:"gateway_compose"` // exact bytes
	Network        string `json:"network"`         // docker network of the guests, for clean
	Driver         string `json:"driver,omitempty"`
}

// registerKMS tells the chain which keys the KMS has, once.
func (c *Cloud) registerKMS(ctx context.Context, note func(string, ...any)) error {
	if c.facts.KMSRoot != "" {
		if c.facts.KMSRoot != c.meta.RootSPKI {
			return fmt.Errorf("the KMS came back with another root key than the one in %s", c.state.Path("facts.json"))
		}
		return nil
	}
	o, err := c.owner(ctx)
	if err != nil {
		return err
	}
	spki, err := hexBytes(c.meta.RootSPKI)
	if err != nil {
		return err
	}
	if err := o.Apply(ctx, progressNote(note), ethereum.SetKMSInfo(ethereum.KMSInfo{K256PubKey: c.meta.K256PubKey, CAPubKey: spki})); err != nil {
		return err
	}
	c.facts.KMSRoot, c.facts.K256PubKey = c.meta.RootSPKI, c.meta.K256PubKey
	return c.state.WriteJSON("facts.json", c.facts)
}

// registerGateway makes the gateway an app like any other, once: an app-compose
// that pins the KMS, a contract that allows it, and its name in the KMS contract.
func (c *Cloud) registerGateway(ctx context.Context, note func(string, ...any)) error {
	if c.facts.GatewayAppID != "" {
		return nil
	}
	no := false
	raw, err := appcompose.Encode(&appcompose.Document{
		ManifestVersion: 2, Name: "phala-gateway", Runner: appcompose.RunnerNone, KMSEnabled: true,
		KeyProvider: appcompose.ProviderKMS, KeyProviderID: c.facts.KMSRoot, AllowedEnvs: []string{}, SecureTime: &no,
	})
	if err != nil {
		return err
	}
	doc, err := appcompose.Parse(raw)
	if err != nil {
		return err
	}
	o, err := c.owner(ctx)
	if err != nil {
		return err
	}
	id, err := o.DeployApp(ctx, ethereum.AppParams{AllowAnyDevice: true, ComposeHash: doc.Hash()}, progressNote(note))
	if err != nil {
		return err
	}
	if err := o.Apply(ctx, progressNote(note), ethereum.SetGateway(id)); err != nil {
		return err
	}
	c.facts.GatewayAppID, c.facts.GatewayCompose = id.String(), string(raw)
	return c.state.WriteJSON("facts.json", c.facts)
}

func (c *Cloud) gatewayGuestDir() string { return filepath.Join(c.cfg.RunDir, "gw") }

// gatewayGuest prepares the gateway's TD and the files its guest agent reads.
func (c *Cloud) gatewayGuest(ctx context.Context) (guestagent.Config, error) {
	conf := guestagent.Under(c.gatewayGuestDir())
	conf.DataDir = c.state.Path("gateway-guest")
	if err := mkdirs(conf.SharedDir, conf.DataDir, conf.WorkDir, conf.EventDir); err != nil {
		return conf, err
	}
	vm, err := c.vmConfig()
	if err != nil {
		return conf, err
	}
	app, err := cvm.ParseAppID(c.facts.GatewayAppID)
	if err != nil {
		return conf, err
	}
	sys, err := json.Marshal(guestapi.SysConfig{KMSURLs: c.memberURLs("127.0.0.1"), VMConfig: vm})
	if err != nil {
		return conf, err
	}
	info, err := c.gatewayInstance(app)
	if err != nil {
		return conf, err
	}
	for name, b := range map[string][]byte{
		"app-compose.json": []byte(c.facts.GatewayCompose), ".sys-config.json": sys, ".instance_info": info,
	} {
		if err := writeFile(filepath.Join(conf.SharedDir, name), b); err != nil {
			return conf, err
		}
	}
	return conf, c.createTD(ctx, "gateway", conf.TEESock, vm)
}

// gatewayInstance keeps the gateway's instance id the same across restarts.
func (c *Cloud) gatewayInstance(app cvm.AppID) ([]byte, error) {
	path := c.state.Path("gateway-guest", "instance.json")
	if b, err := os.ReadFile(path); err == nil {
		return b, nil
	}
	seed, err := randomBytes(20)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(guestapi.InstanceInfo{
		Seed: fmt.Sprintf("%x", seed), InstanceID: cvm.NewInstanceID(seed, app).String(), AppID: app.String(),
	})
	if err != nil {
		return nil, err
	}
	return b, writeFile(path, b)
}

// createTD makes a fresh TD with the registers that vm_config stands for.
func (c *Cloud) createTD(ctx context.Context, name, sock, vm string) error {
	regs, err := measure.Container(vm)
	if err != nil {
		return err
	}
	ccel, err := measure.ContainerCCEL(vm)
	if err != nil {
		return err
	}
	ctl := simtee.NewControl(c.teeSock())
	_ = ctl.DestroyTD(ctx, name) // of an earlier boot
	return ctl.CreateTD(ctx, name, sock, simtee.Shape{MRTD: regs.MRTD, RTMR: regs.RTMR, CCEL: ccel, SockMode: 0o600})
}

// startGateway boots the gateway's guest, then the gateway on it.
func (c *Cloud) startGateway(ctx context.Context) error {
	guest, err := c.gatewayGuest(ctx)
	if err != nil {
		return err
	}
	if guest.Log, err = c.logger("gateway-guest"); err != nil {
		return err
	}
	boot := func(ctx context.Context) error { // an agent boots once: each run is a new one
		agent, err := guestagent.New(guest)
		if err != nil {
			return err
		}
		return agent.Run(ctx)
	}
	dstack := guestapi.NewDstack(guest.DstackSock)
	if err := c.start(ctx, service{
		name: "gateway-guest", binary: "phala-guest-agent", config: &guest, run: boot,
		ready: func(ctx context.Context) error { _, err := dstack.KMS(ctx); return err },
		again: func(ctx context.Context) error { _, err := c.gatewayGuest(ctx); return err }, // registers only extend: a boot needs a fresh TD
	}); err != nil {
		return err
	}
	conf, err := c.gatewayConfig(guest.DstackSock)
	if err != nil {
		return err
	}
	if conf.Log, err = c.logger("gateway"); err != nil {
		return err
	}
	gw, err := gateway.New(conf)
	if err != nil {
		return err
	}
	health := "http://" + loopback(c.cfg.Ports.GatewayAdm) + "/healthz"
	return c.start(ctx, service{
		name: "gateway", binary: "phala-gateway", config: &conf, run: gw.Run,
		ready: func(ctx context.Context) error { return httpOK(ctx, health) },
	})
}

func (c *Cloud) gatewayConfig(dstackSock string) (gateway.Config, error) {
	conf := gateway.Default()
	ca, err := certs.EnsureCA(c.state.Path("ca"), c.cfg.BaseDomain)
	if err != nil {
		return conf, err
	}
	conf.Domain, conf.Listen, conf.DstackSock = c.cfg.BaseDomain, loopback(c.cfg.Ports.Gateway), dstackSock
	conf.StateDir = c.state.Path("gateway")
	conf.Tunnel.API = net.JoinHostPort(c.listen, strconv.Itoa(c.cfg.Ports.Tunnel))
	port := strconv.Itoa(c.cfg.Ports.WireGuard)
	conf.Tunnel.WireGuard, conf.Tunnel.Endpoint = net.JoinHostPort(c.listen, port), net.JoinHostPort(c.guestHost, port)
	conf.Admin.Listen = loopback(c.cfg.Ports.GatewayAdm)
	conf.Certs = gateway.Certs{Issuer: certs.IssuerFileCA, CACert: ca.CertFile, CAKey: ca.KeyFile}
	return conf, nil
}

// CACert is the file of the local CA that signs the gateway's certificates.
func (c *Cloud) CACert() string { return c.state.Path("ca", certs.CACertFile) }
