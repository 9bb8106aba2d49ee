package devcloud

import (
	"context"
	"os"
	"strings"

	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/internal/wallet"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// What tests and tools reach of a running cloud.

// Owner writes policy on the dev chain.
func (c *Cloud) Owner(ctx context.Context) (*ethereum.Owner, error) { return c.owner(ctx) }

// Wallet is the owner's key.
func (c *Cloud) Wallet() *wallet.Wallet { return c.wallet }

// KMS is a client of all members, pinned, without a certificate. Close it.
func (c *Cloud) KMS() (*kmsapi.Client, error) { return c.kmsClient(c.memberURLs("127.0.0.1")) }

// KMSURLs are the members as guests reach them.
func (c *Cloud) KMSURLs() []string { return c.memberURLs(c.guestHost) }

// KMSRoot is the hex SPKI that apps pin.
func (c *Cloud) KMSRoot() string { return c.facts.KMSRoot }

// GatewayAppID is the app that the gateway is.
func (c *Cloud) GatewayAppID() string { return c.facts.GatewayAppID }

// VMM is a client of the node.
func (c *Cloud) VMM() (*vmmapi.Client, error) {
	token, err := os.ReadFile(c.state.Path("vmm", "token"))
	if err != nil {
		return nil, err
	}
	return vmmapi.NewClient("http://"+loopback(c.cfg.Ports.VMM), strings.TrimSpace(string(token)), nil), nil
}

// Hardware is the simulated machine.
func (c *Cloud) Hardware() *simtee.Hardware { return c.hw }

// TEESock is its control socket.
func (c *Cloud) TEESock() string { return c.teeSock() }

// CollateralURL is its vendor's service.
func (c *Cloud) CollateralURL() string { return c.collateralURL() }

// Image is the guest image.
func (c *Cloud) Image() *image.Image { return c.image }

// Bridge is the host's address as guests reach it.
func (c *Cloud) Bridge() string { return c.guestHost }

// RPCURL is the chain's.
func (c *Cloud) RPCURL() string { return c.rpcURL() }

// PauseChain stops the chain's blocks; its RPC goes on answering. ResumeChain
// makes blocks again.
func (c *Cloud) PauseChain() { c.chain.Pause() }

// ResumeChain undoes PauseChain.
func (c *Cloud) ResumeChain() { c.chain.Resume() }

// MemberURLs are the members as this host reaches them.
func (c *Cloud) MemberURLs() []string { return c.memberURLs("127.0.0.1") }

// StopMember stops one KMS member ("kms-2"); StartMember brings it back.
func (c *Cloud) StopMember(id string) error { return c.group.StopOne(id) }

// StartMember starts a stopped member again with its state.
func (c *Cloud) StartMember(ctx context.Context, id string) error {
	for i, m := range c.members {
		if m == id {
			return c.startMember(ctx, i)
		}
	}
	return os.ErrNotExist
}
