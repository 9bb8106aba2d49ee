package devcloud

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/devcloud/chain"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/internal/wallet"
	"github.com/confidential-cloud/phala/kms"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/container"
	"github.com/confidential-cloud/phala/vmm/image"
)

// network is the guests' docker network of this cloud.
func (c *Cloud) network() container.Network { return guestNetwork(c.cfg) }

func guestNetwork(cfg Config) container.Network {
	n := container.DefaultNetwork()
	n.Name, n.Subnet = cfg.Network, cfg.Subnet
	if n.Name != container.DefaultNetwork().Name {
		n.Bridge = bridgeName(n.Name)
	}
	return n
}

// bridgeName is an interface name (at most 15 bytes) for another network.
func bridgeName(network string) string {
	if len(network) > 15 {
		return network[:15]
	}
	return network
}

// foundation starts what the others stand on: the guests' network, the simulated
// hardware, the chain with its contracts, and meanwhile the guest image.
func (c *Cloud) foundation(ctx context.Context, note func(string, ...any)) error {
	if err := c.guestNetwork(ctx); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.buildImage(gctx, note) })
	g.Go(func() error {
		if err := c.startHardware(ctx); err != nil {
			return err
		}
		return c.startChain(ctx, note)
	})
	return g.Wait()
}

// userNetHost is how a virtual machine with user-mode networking reaches this
// host's loopback.
const userNetHost = "10.0.2.2"

// guestNetwork decides where guests find this host. Containers share a bridge with
// it; a virtual machine's user-mode network leads to its loopback.
func (c *Cloud) guestNetwork(ctx context.Context) (err error) {
	if c.cfg.Driver == DriverQEMU {
		c.listen, c.guestHost = "127.0.0.1", userNetHost
		return nil
	}
	c.listen, err = container.EnsureNetwork(ctx, c.network())
	c.guestHost = c.listen
	return err
}

// addrs are the addresses of a service that this host and the guests use.
func (c *Cloud) addrs(port string) []string {
	out := []string{net.JoinHostPort("127.0.0.1", port)}
	if c.listen != "127.0.0.1" {
		out = append(out, net.JoinHostPort(c.listen, port))
	}
	return out
}

// variants are the measurement variants that this cloud admits: services live in
// TDs of variant container. A virtual machine's ACPI tables come from a QEMU
// without a TEE: nobody lists them.
func (c *Cloud) variants() (names []string, anyACPI bool) {
	if c.cfg.Driver == DriverQEMU {
		return []string{measure.VariantContainer, measure.VariantLite}, true
	}
	return []string{measure.VariantContainer}, false
}

// buildImage builds the guest image when its sources are newer, and opens it.
func (c *Cloud) buildImage(ctx context.Context, note func(string, ...any)) error {
	if c.cfg.ImageDir == "" {
		flavour := "container"
		if c.cfg.Driver == DriverQEMU {
			flavour = "prod"
		}
		cmd := exec.CommandContext(ctx, filepath.Join(c.cfg.Source, "os", "build.sh"), flavour)
		cmd.Dir = c.cfg.Source
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		cmd.Stderr = cmd.Stdout
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("building the guest image: %w", err)
		}
		var last []string
		for s := bufio.NewScanner(out); s.Scan(); {
			note("guest image: %s", s.Text())
			last = append(last, s.Text())
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("building the guest image (os/build.sh): %w\n%s", err, strings.Join(last, "\n"))
		}
	}
	img, err := image.Open(c.cfg.imageDir())
	if err != nil {
		return fmt.Errorf("the guest image in %s: %w", c.cfg.imageDir(), err)
	}
	c.image = img
	return nil
}

func (c *Cloud) startHardware(ctx context.Context) error {
	log, err := c.logger("simtee")
	if err != nil {
		return err
	}
	c.hw, err = simtee.New(simtee.Config{
		Dir: c.state.Path("simtee"), ControlSock: c.teeSock(), CollateralAddr: loopback(c.cfg.Ports.Collateral), SNP: c.snp(), Log: log,
	})
	if err != nil {
		return fmt.Errorf("simulated TEE: %w", err)
	}
	c.group.Go(ctx, "simulated TEE", c.hw.Run)
	select {
	case <-c.hw.Ready():
		return nil
	case err := <-c.group.Failed():
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Cloud) teeSock() string       { return filepath.Join(c.cfg.RunDir, "simtee.sock") }
func (c *Cloud) collateralURL() string { return "http://" + loopback(c.cfg.Ports.Collateral) }
func (c *Cloud) rpcURL() string        { return "http://" + loopback(c.cfg.Ports.Chain) }

func (c *Cloud) startChain(ctx context.Context, note func(string, ...any)) error {
	log, err := c.logger("chain")
	if err != nil {
		return err
	}
	ch, err := chain.New(chain.Config{
		Dir: c.state.Path("chain"), Listen: loopback(c.cfg.Ports.Chain), ChainID: c.cfg.ChainID, Multicall3: true, Log: log,
	})
	if err != nil {
		return err
	}
	c.chain = ch
	c.group.Go(ctx, "chain", ch.Run)
	if c.wallet, err = wallet.OpenDev(c.WalletPath()); err != nil {
		return err
	}
	c.contracts, err = ch.DeployContracts(ctx, c.wallet, progressNote(note))
	if err != nil {
		return fmt.Errorf("deploying the contracts: %w", err)
	}
	return nil
}

// WalletPath is the owner's encrypted key.
func (c *Cloud) WalletPath() string { return c.state.Path("wallet", "owner.json") }

// progressNote shows a change on its way to the final block.
func progressNote(note func(string, ...any)) func(ethereum.Progress) {
	return func(p ethereum.Progress) {
		switch p.Stage {
		case ethereum.StageIncluded:
			if p.Name == "" && p.Final > 0 {
				note("waiting for finality: block %d, final %d, head %d", p.Block, p.Final, p.Head)
			}
		case ethereum.StageSent:
			note("%s: sent %s", p.Name, p.TxHash)
		}
	}
}

// owner writes policy with the owner's wallet.
func (c *Cloud) owner(ctx context.Context) (*ethereum.Owner, error) {
	return ethereum.NewOwner(ctx, ethereum.OwnerConfig{
		RPCURL: c.rpcURL(), ChainID: c.cfg.ChainID, KMSContract: c.contracts.KMS.Hex(), Log: c.log,
	}, c.wallet)
}

// vmConfig is the vm_config of the TDs that services of this process live in.
func (c *Cloud) vmConfig() (string, error) {
	b, err := json.Marshal(map[string]any{
		"spec_version": 1, "os_image_hash": c.image.Hash.String(), "cpu_count": 1, "memory_size": 1 << 30,
		"tdx_attestation_variant": "container", "image": c.image.Name,
	})
	return string(b), err
}

// policy writes on chain what may run: this image, KMS members measured like
// ours, on this device.
func (c *Cloud) policy(ctx context.Context, note func(string, ...any)) error {
	if c.facts.KMSVMConfig == "" {
		vm, err := c.vmConfig()
		if err != nil {
			return err
		}
		c.facts.KMSVMConfig = vm
		if err := c.state.WriteJSON("facts.json", c.facts); err != nil {
			return err
		}
	}
	var members struct {
		Image cvm.ImageHash `json:"os_image_hash"`
	}
	if err := json.Unmarshal([]byte(c.facts.KMSVMConfig), &members); err != nil {
		return fmt.Errorf("%s: kms_vm_config: %w", c.state.Path("facts.json"), err)
	}
	mr, err := kms.ExpectedMR(c.facts.KMSVMConfig)
	if err != nil {
		return err
	}
	o, err := c.owner(ctx)
	if err != nil {
		return err
	}
	return o.Apply(ctx, progressNote(note),
		ethereum.AllowOSImage(c.image.Hash), ethereum.AllowOSImage(members.Image), ethereum.AllowKMSDevice(c.hw.DeviceID()), ethereum.AllowKMS(mr))
}

// simRoot is the root of this machine's simulated TEE, hex sha256 of its SPKI.
func (c *Cloud) simRoot() string {
	r := c.hw.RootSPKI()
	return hex.EncodeToString(r[:])
}

// snp reports whether guests run on the simulated SEV-SNP side of this machine.
func (c *Cloud) snp() bool { return c.cfg.Simulate == vmm.SimulateSNP }

// simRoots are those of both simulated vendors, as far as they are there.
func (c *Cloud) simRoots() []string {
	roots := []string{c.simRoot()}
	if c.snp() {
		r := c.hw.AMD().RootSPKI()
		roots = append(roots, hex.EncodeToString(r[:]))
	}
	return roots
}

// snpPolicy is what this cloud admits of SEV-SNP: the simulated processor as it is, and
// nothing without one.
func (c *Cloud) snpPolicy() (policy *attest.SNPPolicy, kds []string) {
	if !c.snp() {
		return nil, nil
	}
	return &attest.SNPPolicy{
		Admit: true, Products: []string{sevsnp.Milan}, MinTCB: map[string]sevsnp.TCB{sevsnp.Milan: simtee.DefaultTCB(sevsnp.Milan)},
	}, []string{c.collateralURL()}
}

func httpOK(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	return nil
}

func mkdirs(dirs ...string) error {
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func hexBytes(s string) ([]byte, error) {
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil {
		return nil, fmt.Errorf("%q is not hex", s)
	}
	return b, nil
}

func randomBytes(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := rand.Read(b)
	return b, err
}
