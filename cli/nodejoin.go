package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/verify"
	"github.com/confidential-cloud/phala/verify/online"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

const nodeJoinLong = `Prove the platform of a host: its VMM starts a small VM that runs no containers, the VM
answers a fresh nonce with a quote, and the quote is verified here under your trust profile.
The VM is deleted again. What is proved is that whoever holds the VMM's TLS key can start
confidential VMs on the device with this id; apps never rest on it, since every VM proves
its own device to the KMS. Without an error the platform is proved; on a host without a TEE
the simulated one answers, and the answer says SIMULATED.

Who operates the cloud also gives it the proof (--node, or, when logged in, the node of the
same name): the cloud chose the nonce, verifies the evidence itself under its own trust
profile, keeps it for everybody to check (phala node check), counts the node as what it
proved until the proof's end, and from then on speaks to no other TLS key.`

type joinFlags struct {
	vmmFlags
	trust, image, bundle, out string
	timeout                   time.Duration

	node         string // of the cloud
	cloud, asked bool   // asked: the flag was given
}

// joined is what is known of a node that has proved its platform.
type joined struct {
	Node      string       `json:"node"`
	VMM       string       `json:"vmm"`
	DeviceID  cvm.DeviceID `json:"device_id"`
	Platform  cvm.Platform `json:"platform"`
	Simulated bool         `json:"simulated"`
	TCB       claim.TCB    `json:"tcb"`
	FMSPC     string       `json:"fmspc,omitempty"`
	Image     string       `json:"os_image_hash"`
	Profile   string       `json:"profile"`
	TLSKey    string       `json:"tls_key_sha256,omitempty"` // of the VMM's SubjectPublicKeyInfo
	At        time.Time    `json:"at"`
	Expires   time.Time    `json:"expires"` // when what it rests on ends: join again before

	// What was verified, so that anyone can do it again.
	Fresh       string        `json:"fresh"` // hex; the nonce is vmmapi.JoinNonce of it and the TLS key
	Attestation []byte        `json:"attestation"`
	Checks      []claim.Check `json:"checks"`

	Cloud *cloudapi.NodeProof `json:"cloud,omitempty"` // as the cloud keeps it
}

func (a *app) nodeJoinCmd() *cobra.Command {
	var f joinFlags
	c := &cobra.Command{Use: "join", Short: "Prove a host's platform: genuine, on which device, with which TCB", Long: nodeJoinLong, Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			f.asked = c.Flags().Changed("cloud")
			return a.nodeJoin(c.Context(), f)
		}}
	f.add(c.Flags())
	c.Flags().StringVar(&f.trust, "trust", "", "trust profile: which roots and TCB states you admit (default: the login's)")
	c.Flags().StringVar(&f.image, "image", "", "guest image of the node that the VM boots (default: the node's)")
	c.Flags().StringVar(&f.bundle, "collateral", "", "file of the vendors' statements (phala collateral export) to rest on, instead of asking their services")
	c.Flags().StringVar(&f.out, "out", "", "also write the proof to a file (JSON), with the evidence")
	c.Flags().StringVar(&f.node, "node", "", "node of the cloud that the VMM is, by id or name (default: the one with the VMM's name)")
	c.Flags().BoolVar(&f.cloud, "cloud", true, "give the cloud the proof; without the flag, as far as the login may")
	c.Flags().DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long the VM may take to boot")
	return c
}

// tlsPeer is the one key that a VMM answers with.
type tlsPeer struct {
	mu   sync.Mutex
	spki []byte
}

// see refuses a second key: the proof is about the first.
func (p *tlsPeer) see(spki []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spki != nil && !bytes.Equal(p.spki, spki) {
		return cvm.Errorf(cvm.Denied, "the VMM answered with another TLS key than before").WithReason("tls-key-changed").WithFix("name one VMM, not a balancer before several")
	}
	p.spki = bytes.Clone(spki)
	return nil
}

func (a *app) nodeJoin(ctx context.Context, f joinFlags) error {
	s, err := a.session()
	if err != nil {
		return err
	}
	t, _, err := a.trust(s, f.trust)
	if err != nil {
		return err
	}
	o := online.Options{CacheDir: s.collateralDir()}
	if f.bundle != "" {
		b, err := readBundle(a.path(f.bundle))
		if err != nil {
			return err
		}
		o.Bundle = &b
	}
	src, closeAll, err := online.Open(ctx, *t, o)
	if err != nil {
		return err
	}
	defer closeAll()
	j, err := a.prove(ctx, s, f, *t, src)
	if err != nil && j.Fresh == "" {
		return err
	}
	return errors.Join(a.showJoined(j, f.out, err == nil), err)
}

// prove runs the prover on the node, verifies what it says and gives it to the cloud.
// An error with a joined node is the cloud's.
func (a *app) prove(ctx context.Context, s *session, f joinFlags, t verify.Profile, src verify.Sources) (j joined, err error) {
	peer := &tlsPeer{}
	f.seen = peer.see
	v, err := a.vmm(f.vmmFlags)
	if err != nil {
		return j, err
	}
	node, err := v.Node(ctx)
	if err != nil {
		return j, err
	}
	to, fresh, err := a.challenge(ctx, s, f, node.Name)
	if err != nil {
		return j, err
	}
	st := a.steps()
	defer st.drop()
	st.start("starting the prover on %s", node.Name)
	nonce := vmmapi.JoinNonce(fresh, peer.spki)
	boot, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	ev, err := v.Prove(boot, f.image, nonce, func(state string) { st.news("%s", state) })
	if err != nil {
		return j, err
	}
	st.start("verifying its evidence")
	if j, err = judge(ctx, t, src, node, ev, fresh, peer.spki, f.url); err != nil || to == nil {
		return j, err
	}
	st.start("giving the proof to the cloud")
	p, err := s.api.JoinNode(ctx, to.node.TeepodID, cloudapi.NodeJoin{Challenge: to.challenge, Attestation: ev.Attestation, TLSKey: j.TLSKey})
	if err != nil {
		return j, a.explain(s, err)
	}
	j.Cloud = &p
	return j, nil
}

func judge(ctx context.Context, t verify.Profile, src verify.Sources, node vmmapi.Node, ev guestapi.Evidence, fresh [32]byte, spki []byte, url string) (j joined, err error) {
	doc, err := vmmapi.ProverApp()
	if err != nil {
		return j, err
	}
	c, checks, err := verify.Platform(ctx, t, src, ev, vmmapi.JoinNonce(fresh, spki), doc)
	if err != nil {
		return j, err
	}
	if node.DeviceID != (cvm.DeviceID{}) && node.DeviceID != c.DeviceID {
		return j, cvm.Errorf(cvm.Denied, "the node says that it is device %s, and proved that it is %s", node.DeviceID, c.DeviceID).WithReason("device-differs").
			WithFix("the VMM relays to another host, or its configuration is of another")
	}
	j = joined{Node: node.Name, VMM: url, DeviceID: c.DeviceID, Platform: c.Platform, Simulated: c.Platform == cvm.PlatformSimulated, TCB: c.TCB, FMSPC: c.FMSPC,
		Image: c.OSImageHash.String(), Profile: t.Name, At: c.CheckedAt, Expires: c.Expires, Fresh: hex.EncodeToString(fresh[:]), Attestation: ev.Attestation, Checks: checks}
	if spki != nil {
		h := sha256.Sum256(spki)
		j.TLSKey = hex.EncodeToString(h[:])
	}
	return j, nil
}

// showJoined writes the proof, and shows it unless the cloud refused it.
func (a *app) showJoined(j joined, out string, taken bool) error {
	if out != "" {
		var b bytes.Buffer
		if err := writeJSON(&b, j); err != nil {
			return err
		}
		if err := os.WriteFile(a.path(out), b.Bytes(), 0o644); err != nil { //nolint:gosec // a proof is for everyone
			return cvm.Errorf(cvm.Invalid, "--out: %w", err)
		}
	}
	if !taken {
		return nil
	}
	if a.json {
		return a.printJSON(j)
	}
	if j.Simulated {
		a.say("%s", a.warn(verify.BannerSimulated))
	}
	a.printFields([]field{{"node", j.Node}, {"device id", j.DeviceID.String()}, {"platform", j.Platform.String()}, {"TCB", tcbText(j.TCB)}, {"guest image", j.Image},
		{"VMM's TLS key", first(j.TLSKey, "none: it speaks http")}, {"trust profile", j.Profile}, {"join again before", j.Expires.Format(time.RFC3339)}})
	a.say("%s", a.good("the node has proved its platform"))
	if j.Cloud != nil {
		a.say("%s", a.good("the cloud has verified the proof under its profile "+j.Cloud.Profile+" and keeps it until "+j.Cloud.ExpiresAt.Format(time.RFC3339)))
	}
	return nil
}
