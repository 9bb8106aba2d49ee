package cli

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/verify"
	"github.com/confidential-cloud/phala/verify/online"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// cloudNode finds a node of the cloud by its id or its name.
func (a *app) cloudNode(ctx context.Context, s *session, ref string) (n cloudapi.AvailableNode, err error) {
	all, err := s.api.Nodes(ctx)
	if err != nil {
		return n, a.explain(s, err)
	}
	var names []string
	for _, x := range all.Nodes {
		if fmt.Sprint(x.TeepodID) == ref {
			return x, nil
		}
		if x.Name == ref {
			n, names = x, append(names, fmt.Sprint(x.TeepodID))
		}
	}
	switch len(names) {
	case 1:
		return n, nil
	case 0:
		return n, cvm.Errorf(cvm.NotFound, "the cloud has no node %q", ref).WithReason("node-not-found").WithFix("phala node list shows them")
	}
	return n, cvm.Errorf(cvm.Conflict, "nodes %s are called %q", strings.Join(names, ", "), ref).WithFix("name it by its id")
}

// joining is a node of the cloud that is to take a proof.
type joining struct {
	node      cloudapi.AvailableNode
	challenge string
}

// challenge asks the cloud for the bytes that the proof must answer. Who did not ask
// for the cloud, and may not or cannot give it the proof, is told so; the bytes are
// then our own and to is nil.
func (a *app) challenge(ctx context.Context, s *session, f joinFlags, name string) (to *joining, fresh [32]byte, err error) {
	_, _ = rand.Read(fresh[:]) // crypto/rand does not fail
	explicit := f.node != "" || f.asked && f.cloud
	if !f.cloud && f.node != "" {
		return nil, fresh, usage("--node names a node of the cloud, and --cloud=false keeps the proof from it")
	}
	if !f.cloud || s.api.Key == "" && !explicit {
		return nil, fresh, nil
	}
	if to, fresh, err = a.challenged(ctx, s, first(f.node, name)); err != nil && !explicit {
		a.say("%s", a.warn("the proof is not given to the cloud: "+err.Error()))
		_, _ = rand.Read(fresh[:])
		return nil, fresh, nil //nolint:nilerr // it was told, and nobody asked for the cloud
	}
	return to, fresh, err
}

func (a *app) challenged(ctx context.Context, s *session, ref string) (to *joining, fresh [32]byte, err error) {
	if _, err = a.loggedIn(); err != nil {
		return nil, fresh, err
	}
	n, err := a.cloudNode(ctx, s, ref)
	if err != nil {
		return nil, fresh, err
	}
	c, err := s.api.ChallengeNode(ctx, n.TeepodID)
	if err != nil {
		return nil, fresh, a.explain(s, err)
	}
	b, err := hex.DecodeString(c.Challenge)
	if err != nil || len(b) == 0 {
		return nil, fresh, cvm.Errorf(cvm.Invalid, "the cloud's challenge is not hex")
	}
	return &joining{node: n, challenge: c.Challenge}, sha256.Sum256(b), nil
}

// cloudNodeFlag names a node of the cloud.
type cloudNodeFlag struct{ ref string }

func (f *cloudNodeFlag) add(s *pflag.FlagSet) {
	s.StringVar(&f.ref, "node", "", "node of the cloud, by id or name: the cloud tells its VMM (instead of --vmm)")
}

// drainer is a VMM, or a node of the cloud, that can be drained.
type drainer interface {
	Drain(context.Context, vmmapi.DrainRequest) (vmmapi.DrainState, error)
	Undrain(context.Context, vmmapi.UndrainRequest) (vmmapi.DrainState, error)
	DrainState(context.Context) (vmmapi.DrainState, error)
}

func (a *app) drainer(c *cobra.Command, on cloudNodeFlag, f vmmFlags) (drainer, error) {
	if on.ref == "" {
		return a.vmm(f)
	}
	if c.Flags().Changed("vmm") {
		return nil, usage("--node and --vmm exclude each other")
	}
	s, err := a.loggedIn()
	if err != nil {
		return nil, err
	}
	n, err := a.cloudNode(c.Context(), s, on.ref)
	return cloudDrainer{a, s, n.TeepodID}, err
}

// cloudDrainer has the cloud drain a node.
type cloudDrainer struct {
	a  *app
	s  *session
	id int
}

func (d cloudDrainer) state(n cloudapi.NodeDrain, err error) (vmmapi.DrainState, error) {
	when := func(t *time.Time) time.Time {
		if t == nil {
			return time.Time{}
		}
		return *t
	}
	return vmmapi.DrainState{Draining: n.Draining, Reason: n.Reason, Since: when(n.Since), StopAt: when(n.StopAt), Running: n.Running, Stopped: n.Stopped}, d.a.explain(d.s, err)
}

func (d cloudDrainer) Drain(ctx context.Context, r vmmapi.DrainRequest) (vmmapi.DrainState, error) {
	return d.state(d.s.api.DrainNode(ctx, d.id, cloudapi.NodeDrainRequest{Reason: r.Reason, StopAfterSeconds: r.StopAfterSeconds}))
}

func (d cloudDrainer) Undrain(ctx context.Context, r vmmapi.UndrainRequest) (vmmapi.DrainState, error) {
	return d.state(d.s.api.UndrainNode(ctx, d.id, cloudapi.NodeUndrainRequest{Start: r.Start}))
}

func (d cloudDrainer) DrainState(ctx context.Context) (vmmapi.DrainState, error) {
	return d.state(d.s.api.NodeDrainState(ctx, d.id))
}

func (a *app) nodeLeaveCmd() *cobra.Command {
	return &cobra.Command{Use: "leave <node>", Short: "Have the cloud drop a node's proof: it counts as unverified, under any TLS key", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			n, err := a.cloudNode(c.Context(), s, as[0])
			if err != nil {
				return err
			}
			if err := s.api.LeaveNode(c.Context(), n.TeepodID); err != nil {
				return a.explain(s, err)
			}
			if a.json {
				return a.printJSON(map[string]any{"node_id": n.TeepodID, "name": n.Name})
			}
			a.say("%s", a.good("the proof of node "+n.Name+" is dropped"))
			return nil
		}}
}

// shownNode is a node with what happened to it.
type shownNode struct {
	cloudapi.AvailableNode
	Events []cloudapi.NodeEvent `json:"events"`
}

func (a *app) nodeShowCmd() *cobra.Command {
	return &cobra.Command{Use: "show <node>", Short: "Show a node of the cloud: what it proved, maintenance, events", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			n, err := a.cloudNode(c.Context(), s, as[0])
			if err != nil {
				return err
			}
			events, err := s.api.NodeEvents(c.Context(), n.TeepodID, 0)
			if err != nil {
				return a.explain(s, err)
			}
			if a.json {
				return a.printJSON(shownNode{n, events})
			}
			a.printFields(nodeFields(n))
			for _, e := range events {
				a.printf("%s  %-16s %s %s\n", e.Time.Format(time.RFC3339), e.Kind, e.Message, e.By)
			}
			return nil
		}}
}

func nodeFields(n cloudapi.AvailableNode) []field {
	out := []field{{"id", fmt.Sprint(n.TeepodID)}, {"name", n.Name}, {"region", str(n.RegionIdentifier)}, {"driver", n.Driver},
		{"free", fmt.Sprintf("%d vCPU, %d MB, %d GB disk", n.RemainingVCPU, n.RemainingMemory, n.RemainingDiskGB)}, {"free GPUs", strings.Join(n.GPUs, " ")},
		{"confidence", n.Confidence}, {"why not more", n.ConfidenceWhy}, {"problem", n.Problem}}
	if p := n.Proof; p != nil {
		word := p.Platform
		if p.Simulated {
			word += " (SIMULATED)"
		}
		end := p.ExpiresAt.Format(time.RFC3339)
		if p.Expired {
			end += " (over)"
		}
		out = append(out, field{"proved platform", word}, field{"device id", p.DeviceID}, field{"TCB", tcbText(p.TCB)}, field{"VMM's TLS key", first(p.TLSKey, "none: it speaks http on the cloud's machine")},
			field{"joined", p.JoinedAt.Format(time.RFC3339) + " by " + p.JoinedBy}, field{"until", end})
	}
	if m := n.Maintenance; m != nil {
		out = append(out, field{"drained since", m.Since.Format(time.RFC3339)}, field{"because", m.Reason})
	}
	return out
}

func tcbText(t claim.TCB) string {
	if len(t.Advisories) == 0 {
		return t.Status
	}
	return t.Status + " (" + strings.Join(t.Advisories, ", ") + ")"
}

const nodeCheckLong = `Verify again, on this machine and under your own trust profile, what a node showed the
cloud when it joined: the same checks as phala node join, over the evidence that the cloud
keeps (GET /nodes/{id}/evidence), or over a file that join --out wrote.`

func (a *app) nodeCheckCmd() *cobra.Command {
	var trust, file, bundle string
	c := &cobra.Command{Use: "check [node]", Short: "Verify the evidence with which a node joined the cloud", Long: nodeCheckLong, Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			if (file == "") == (len(as) == 0) {
				return usage("name a node of the cloud, or --file")
			}
			s, err := a.session()
			if err != nil {
				return err
			}
			t, _, err := a.trust(s, trust)
			if err != nil {
				return err
			}
			ev, err := a.shownEvidence(c.Context(), s, file, as)
			if err != nil {
				return err
			}
			o := online.Options{CacheDir: s.collateralDir()}
			if bundle != "" {
				b, err := readBundle(a.path(bundle))
				if err != nil {
					return err
				}
				o.Bundle = &b
			}
			return a.checkNode(c.Context(), *t, o, ev)
		}}
	c.Flags().StringVar(&trust, "trust", "", "trust profile: which roots and TCB states you admit (default: the login's)")
	c.Flags().StringVar(&file, "file", "", "check this file (of join --out) instead")
	c.Flags().StringVar(&bundle, "collateral", "", "file of the vendors' statements (phala collateral export) to rest on, instead of asking their services")
	return c
}

// shownEvidence is what a node showed: as the cloud has it, or from a file.
func (a *app) shownEvidence(ctx context.Context, s *session, file string, as []string) (ev cloudapi.NodeEvidence, err error) {
	if file == "" {
		if _, err = a.loggedIn(); err != nil {
			return ev, err
		}
		n, err := a.cloudNode(ctx, s, as[0])
		if err != nil {
			return ev, err
		}
		ev, err = s.api.NodeEvidence(ctx, n.TeepodID)
		return ev, a.explain(s, err)
	}
	b, err := readBounded(a.path(file), 8<<20)
	if err != nil {
		return ev, err
	}
	var j joined
	if err := json.Unmarshal(b, &j); err != nil {
		return ev, cvm.Errorf(cvm.Invalid, "--file %s: %w", file, err).WithFix("give a file that phala node join --out wrote")
	}
	ev = cloudapi.NodeEvidence{Name: j.Node, Fresh: j.Fresh, Attestation: j.Attestation}
	ev.DeviceID, ev.TLSKey, ev.Platform = j.DeviceID.String(), j.TLSKey, j.Platform.String()
	return ev, nil
}

// checkedNode is the answer of node check.
type checkedNode struct {
	Node      string        `json:"node"`
	Verified  bool          `json:"verified"`
	Simulated bool          `json:"simulated"`
	DeviceID  cvm.DeviceID  `json:"device_id"`
	Platform  cvm.Platform  `json:"platform"`
	TCB       claim.TCB     `json:"tcb"`
	Expires   time.Time     `json:"expires"`
	Checks    []claim.Check `json:"checks"`
}

func (a *app) checkNode(ctx context.Context, t verify.Profile, o online.Options, ev cloudapi.NodeEvidence) error {
	doc, err := vmmapi.ProverApp()
	if err != nil {
		return err
	}
	var fresh [32]byte
	key := sha256.Sum256(nil)
	if n, err := hex.Decode(fresh[:], []byte(ev.Fresh[:min(len(ev.Fresh), 64)])); err != nil || n != 32 {
		return cvm.Errorf(cvm.Invalid, "the evidence's fresh bytes are not 32 bytes of hex")
	}
	if ev.TLSKey != "" {
		if n, err := hex.Decode(key[:], []byte(ev.TLSKey[:min(len(ev.TLSKey), 64)])); err != nil || n != 32 {
			return cvm.Errorf(cvm.Invalid, "the evidence's TLS key is not a sha256 in hex")
		}
	}
	src, closeAll, err := online.OpenPlatform(ctx, t, o)
	if err != nil {
		return err
	}
	defer closeAll()
	c, checks, err := verify.Platform(ctx, t, src, guestapi.Evidence{Attestation: ev.Attestation}, vmmapi.JoinNonceOf(fresh, key), doc)
	if err != nil {
		return err
	}
	if ev.DeviceID != c.DeviceID.String() || ev.Platform != c.Platform.String() {
		return cvm.Errorf(cvm.Denied, "it is said to prove platform %s of device %s, and proves %s of %s", ev.Platform, ev.DeviceID, c.Platform, c.DeviceID).WithReason("device-differs")
	}
	out := checkedNode{ev.Name, true, c.Platform == cvm.PlatformSimulated, c.DeviceID, c.Platform, c.TCB, c.Expires, checks}
	if a.json {
		return a.printJSON(out)
	}
	if out.Simulated {
		a.say("%s", a.warn(verify.BannerSimulated))
	}
	a.printFields([]field{{"node", out.Node}, {"device id", out.DeviceID.String()}, {"platform", out.Platform.String()}, {"TCB", tcbText(c.TCB)}, {"VMM's TLS key", first(ev.TLSKey, "none")},
		{"trust profile", t.Name}, {"holds until", out.Expires.Format(time.RFC3339)}})
	a.say("%s", a.good(fmt.Sprintf("the evidence proves it: %d checks", len(checks))))
	return nil
}
