package api

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/verify"
	"github.com/confidential-cloud/phala/verify/online"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// challengeAge is how long a challenge may be answered: an emulated machine boots in
// minutes.
const challengeAge = 30 * time.Minute

const challengeUse = "node-join"

// challengeNode draws fresh bytes for a node's proof. Nothing is stored: the
// challenge is sealed for the node, and its hash is what the proof answers.
func (s *Server) challengeNode(ctx context.Context, in *NodeInput) (out cloudapi.NodeChallenge, err error) {
	n, err := s.operated(ctx, in.Node)
	if err != nil {
		return out, err
	}
	if _, _, err := s.ownProfile(); err != nil {
		return out, err // sooner than after a machine was booted for nothing
	}
	now := s.now()
	c := s.sealer.seal(challengeUse, n.id, binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli()))) //nolint:gosec // after 1970
	fresh := sha(c)
	return cloudapi.NodeChallenge{Challenge: hex.EncodeToString(c), Fresh: hex.EncodeToString(fresh[:]), ExpiresAt: now.Add(challengeAge).UTC()}, nil
}

// challenged is what the proof of a node must answer for a challenge of ours.
func (s *Server) challenged(node int64, challenge string) (fresh [32]byte, err error) {
	refused := func(why string) error {
		return fail(http.StatusUnprocessableEntity, errBadRequest, cvm.Invalid, "challenge", why, "ask for a new one: POST /nodes/{id}/challenge, which phala node join does")
	}
	c, err := hex.DecodeString(challenge)
	if err != nil {
		return fresh, refused("the challenge is not hex")
	}
	plain, err := s.sealer.open(challengeUse, node, c)
	if err != nil || len(plain) != 8 {
		return fresh, refused("this is no challenge of this cloud for this node")
	}
	age := s.now().Sub(time.UnixMilli(int64(binary.BigEndian.Uint64(plain)))) //nolint:gosec // our own
	if age < 0 || age > challengeAge {
		return fresh, refused("the challenge is too old")
	}
	return sha(c), nil
}

// ownProfile is the cloud's own trust profile and its hash: without one nothing is
// admitted.
func (s *Server) ownProfile() (p verify.Profile, hash string, err error) {
	if s.cfg.TrustProfile == "" {
		return p, "", cvm.Errorf(cvm.Unsupported, "this cloud has no trust profile: nothing says which platforms it admits").WithReason("no-trust-profile").
			WithFix("the operator sets trust_profile in the API's config")
	}
	raw, err := os.ReadFile(s.cfg.TrustProfile)
	if err == nil {
		p, err = verify.LoadProfile(s.cfg.TrustProfile)
	}
	if err != nil {
		s.log.Error("the cloud's trust profile", "err", err)
		return p, "", cvm.Errorf(cvm.Unavailable, "this cloud's trust profile cannot be read (see the cloud API's log): nothing is admitted without it").WithReason("trust-profile")
	}
	h := sha(raw)
	return p, hex.EncodeToString(h[:]), nil
}

type joinInput struct {
	NodeInput
	Body cloudapi.NodeJoin
}

// joinNode verifies a node's proof under the cloud's trust profile and keeps it.
func (s *Server) joinNode(ctx context.Context, in *joinInput) (out cloudapi.NodeProof, err error) {
	n, err := s.operated(ctx, in.Node)
	if err != nil {
		return out, err
	}
	fresh, err := s.challenged(n.id, in.Body.Challenge)
	if err != nil {
		return out, err
	}
	profile, hash, err := s.ownProfile()
	if err != nil {
		return out, err
	}
	key, err := s.joiningKey(ctx, n, in.Body.TLSKey)
	if err != nil {
		return out, err
	}
	claims, checks, err := s.judgePlatform(ctx, profile, in.Body.Attestation, fresh, key)
	if err != nil {
		return out, err
	}
	info, _, _ := n.facts()
	if info.DeviceID != (cvm.DeviceID{}) && info.DeviceID != claims.DeviceID {
		return out, cvm.Errorf(cvm.Denied, "the node says that it is device %s, and proved that it is %s", info.DeviceID, claims.DeviceID).WithReason("device-differs").
			WithFix("the VMM relays to another host, or its configuration is of another")
	}
	now := s.now().UTC()
	if !now.Before(claims.Expires) {
		return out, cvm.Errorf(cvm.Denied, "what the proof rests on has ended already, at %s", claims.Expires.UTC().Format(time.RFC3339)).WithReason("platform-unproved")
	}
	before := n.proved()
	p := cloudapi.NodeProof{Platform: claims.Platform.String(), Simulated: claims.Platform == cvm.PlatformSimulated, DeviceID: claims.DeviceID.String(), TCB: claims.TCB,
		FMSPC: claims.FMSPC, PPID: claims.PPID, OSImageHash: claims.OSImageHash.String(), TLSKey: key, Profile: profile.Name, ProfileHash: hash,
		JoinedAt: now, JoinedBy: who(ctx).Username, ExpiresAt: claims.Expires.UTC()}
	e := cloudapi.NodeEvent{NodeID: n.id, Kind: cloudapi.NodeJoined, Message: s.joinedText(n, &p, before), By: p.JoinedBy}
	proof := store.NodeProof{NodeEvidence: cloudapi.NodeEvidence{NodeID: int(n.id), NodeProof: p, Fresh: hex.EncodeToString(fresh[:]), Attestation: in.Body.Attestation, Checks: checks}}
	if err := s.store.PutNodeProof(ctx, proof, e); err != nil {
		return out, err
	}
	if err := s.nodes.recall(ctx); err != nil {
		return out, err
	}
	n.ask(ctx, 0, 0)
	return p, nil
}

// joiningKey is the TLS key that the node's VMM answers the cloud with now. It must be
// the one that who joins the node saw; "" for a VMM without TLS on this machine.
func (s *Server) joiningKey(ctx context.Context, n *node, seen string) (key string, err error) {
	switch {
	case n.address != "":
		if key, err = s.nodes.pins.key(ctx, n.address); err != nil {
			return "", cvm.Errorf(cvm.Unavailable, "the VMM of node %s does not answer the cloud: %w", n.name(), err).WithReason("node-offline")
		}
	case !plainLoopback(n.cfg.URL):
		return "", cvm.Errorf(cvm.Precondition, "the cloud speaks to node %s without TLS: anybody on the way could be it", n.name()).WithReason("tls-needed").
			WithFix("give the VMM a certificate ([tls]) and the API its https URL")
	default:
		n.ask(ctx, 0, 0)
		if _, _, err := n.facts(); err != nil {
			return "", cvm.Errorf(cvm.Unavailable, "the VMM of node %s does not answer the cloud", n.name()).WithReason("node-offline")
		}
	}
	if !strings.EqualFold(seen, key) {
		return "", cvm.Errorf(cvm.Denied, "the VMM answered you with the TLS key %q and the cloud with %q", seen, key).WithReason(reasonKeyChanged).
			WithFix("is it the VMM of this node (phala node list)? name one VMM, by the URL that the cloud has, not a balancer")
	}
	return key, nil
}

// judgePlatform verifies the evidence of a prover that answered fresh under key.
func (s *Server) judgePlatform(ctx context.Context, p verify.Profile, attestation []byte, fresh [32]byte, key string) (c claim.Claims, checks []claim.Check, err error) {
	doc, err := vmmapi.ProverApp()
	if err != nil {
		return c, nil, err
	}
	hash := sha(nil)
	if key != "" {
		if _, err := hex.Decode(hash[:], []byte(key)); err != nil {
			return c, nil, err
		}
	}
	src, closeAll, err := online.OpenPlatform(ctx, p, online.Options{Log: s.log, Timeout: 10 * time.Second})
	if err != nil {
		s.log.Error("the sources of the cloud's trust profile", "err", err)
		return c, nil, cvm.Errorf(cvm.Unavailable, "this cloud's trust profile names sources that cannot be opened (see the cloud API's log)").WithReason("trust-profile")
	}
	defer closeAll()
	src.Now = s.now
	return verify.Platform(ctx, p, src, guestapi.Evidence{Attestation: attestation}, vmmapi.JoinNonceOf(fresh, hash), doc)
}

// joinedText says what is new about a proof.
func (s *Server) joinedText(n *node, p, before *cloudapi.NodeProof) string {
	text := fmt.Sprintf("proved platform %s, TCB %s, device %s, until %s", p.Platform, p.TCB.Status, p.DeviceID, p.ExpiresAt.Format(time.RFC3339))
	if p.Simulated {
		text = "SIMULATED: " + text
	}
	if before != nil && before.DeviceID != p.DeviceID {
		text += "; another device than before (" + before.DeviceID + ")"
	}
	if before != nil && before.TLSKey != p.TLSKey {
		text += "; another TLS key than before"
	}
	for _, o := range s.nodes.list {
		if q := o.proved(); o != n && q != nil && q.DeviceID == p.DeviceID {
			text += "; node " + o.name() + " proved the same device"
		}
	}
	return text
}

// leaveNode drops a node's proof and its key.
func (s *Server) leaveNode(ctx context.Context, in *NodeInput) (none, error) {
	n, err := s.operated(ctx, in.Node)
	if err != nil {
		return none{}, err
	}
	e := cloudapi.NodeEvent{NodeID: n.id, Kind: cloudapi.NodeLeft, Message: "its proof was dropped: it counts as unverified", By: who(ctx).Username}
	if err := s.store.DropNodeProof(ctx, e); err != nil {
		return none{}, notJoined(err)
	}
	return none{}, s.nodes.recall(ctx)
}

func notJoined(err error) error {
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return fail(http.StatusNotFound, "", cvm.NotFound, "not-joined", "this node has not proved its platform", "the operator joins it: phala node join")
}

// nodeEvidence is a node's proof, for whoever wants to check it.
func (s *Server) nodeEvidence(ctx context.Context, in *NodeInput) (out cloudapi.NodeEvidence, err error) {
	n, err := s.node(in.Node)
	if err != nil {
		return out, err
	}
	p, err := s.store.NodeProof(ctx, n.id)
	if err != nil {
		return out, notJoined(err)
	}
	p.Name, p.Expired = n.name(), !s.now().Before(p.ExpiresAt)
	return p.NodeEvidence, nil
}
