package verify

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/ledger"
)

const (
	origin   = "ledger.test"
	contract = "0x00000000000000000000000000000000000000Aa"
)

// world is a cloud in memory: simulated hardware, two booted guests, a ledger with
// three members, a chain. Hooks let a test tamper with what a verifier sees.
type world struct {
	t       *testing.T
	hw      *simtee.Hardware
	members []ed25519.PrivateKey
	tree    ledger.Tree
	profile Profile
	tlsKey  []byte
	rootKey []byte
	gw, app *guest
	chain   *fakeChain

	peer     func(*Peer)
	evidence func(who string, e *guestapi.Evidence)
	raw      func(who string, e *attest.Evidence)
	provider string // name of the key provider that is measured
	note     func([]byte) []byte
	proof    func([][]byte) [][]byte
}

// guest is a booted guest and the record of its release.
type guest struct {
	*simtee.Guest
	doc     string
	receipt ledger.Receipt
	leaf    ledger.Leaf
	app     cvm.AppID
	inst    cvm.InstanceID
}

func spki(t *testing.T) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newHardware(t *testing.T, seed byte) *simtee.Hardware {
	t.Helper()
	hw, err := simtee.New(simtee.Config{Seed: append([]byte{seed}, make([]byte, 31)...)})
	if err != nil {
		t.Fatal(err)
	}
	return hw
}

// newWorld builds it. leaf may change each guest's entry before it is written.
func newWorld(t *testing.T, leaf func(*ledger.Leaf)) *world {
	t.Helper()
	return newWorldWith(t, appcompose.ProviderKMS, leaf)
}

func newWorldWith(t *testing.T, provider string, leaf func(*ledger.Leaf)) *world {
	t.Helper()
	w := &world{t: t, provider: provider, hw: newHardware(t, 1), tlsKey: spki(t), rootKey: spki(t), chain: &fakeChain{denied: map[uint64]string{}}}
	var vkeys []string
	for i := range 3 {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		v, err := ledger.VerifierKey(ledger.MemberKeyName(origin, fmt.Sprint(i)), k.Public().(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		w.members, vkeys = append(w.members, k), append(vkeys, v)
	}
	gatewayID, appID := cvm.AppID{0x99}, cvm.AppID{0xaa}
	w.chain.gateway = gatewayID.String()
	root := w.hw.RootSPKI()
	w.profile = Profile{Version: 1, Name: "test", Chain: Chains{ID: 31337, RPCURLs: []string{"http://chain"}, KMSContract: contract},
		KMS:        KMSPins{RootSPKI: hex.EncodeToString(w.rootKey), K256PubKey: "02" + hex.EncodeToString(make([]byte, 32)), URLs: []string{"https://kms"}},
		TEE:        TEEPins{Roots: []RootPin{{hex.EncodeToString(root[:]), cvm.PlatformSimulated}}, CollateralURLs: []string{"http://pcs"}, TCBStatus: []string{"UpToDate"}, ImageVariants: []string{measure.VariantContainer}},
		Gateway:    GatewayPin{AppID: gatewayID.String(), Domain: "dev.localhost", Port: 8443, Address: "127.0.0.1:8443"},
		LedgerKeys: ledger.Majority(origin, vkeys)}
	w.gw = w.boot("gateway", gatewayID, cvm.InstanceID{1}, leaf)
	w.app = w.boot("app", appID, cvm.InstanceID{2}, leaf)
	return w
}

func (w *world) boot(name string, app cvm.AppID, inst cvm.InstanceID, change func(*ledger.Leaf)) *guest {
	w.t.Helper()
	provider := hex.EncodeToString(w.rootKey)
	doc, err := appcompose.Encode(&appcompose.Document{ManifestVersion: 2, Name: name, Runner: appcompose.RunnerDockerCompose,
		KeyProvider: appcompose.ProviderKMS, KeyProviderID: provider, AllowedEnvs: []string{}})
	if err != nil {
		w.t.Fatal(err)
	}
	g := &guest{doc: string(doc), app: app, inst: inst}
	g.Guest, err = w.hw.Boot(w.t.Context(), simtee.Boot{Name: name, AppID: app, ComposeHash: sumOf(doc), InstanceID: inst,
		KeyProvider: `{"name":"` + w.provider + `","id":"` + provider + `"}`, Phase: claim.PhaseRunning})
	if err != nil {
		w.t.Fatal(err)
	}
	// The verifier's own view of the boot is what the KMS wrote down.
	ev, err := g.Evidence(w.t.Context(), [64]byte{})
	if err != nil {
		w.t.Fatal(err)
	}
	col, err := w.hw.Collateral(time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	v, _, err := attest.Verify(ev, col, w.hw.Policy([64]byte{}, claim.PhaseRunning), time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	c := v.Claims()
	r := governance.RequestAtBoot(c)
	view, _ := json.Marshal(governance.View{Source: "ethereum", ChainID: 31337, Contract: contract,
		Final: governance.BlockRef{Number: 10, Hash: "0x0a"}, Head: governance.BlockRef{Number: 12, Hash: "0x0c"}})
	g.leaf = ledger.Leaf{Version: 1, Kind: ledger.KindAllow, Time: time.Now(), Member: "0", AppID: c.AppID.String(), InstanceID: inst.String(),
		ComposeHash: c.ComposeHash.String(), ImageHash: c.OSImageHash.String(), DeviceID: c.DeviceID.String(), Platform: string(c.Platform),
		MRSystem: hex.EncodeToString(r.MRSystem[:]), MRAggregate: hex.EncodeToString(r.MRAggregated[:]), TCBStatus: "UpToDate", Governance: view}
	if change != nil {
		change(&g.leaf)
	}
	g.receipt = w.write(g.leaf)
	return g
}

func sumOf(b []byte) cvm.ComposeHash { return cvm.ComposeHash(sum(b)) }

// write appends a leaf and gives its receipt.
func (w *world) write(l ledger.Leaf) ledger.Receipt {
	w.t.Helper()
	b, err := l.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	i, err := w.tree.Append(b)
	if err != nil {
		w.t.Fatal(err)
	}
	size := w.tree.Size()
	proof, err := w.tree.Inclusion(i, size)
	if err != nil {
		w.t.Fatal(err)
	}
	return ledger.Receipt{Leaf: b, Index: i, TreeSize: size, Proof: proof, Checkpoint: w.checkpoint(&w.tree, 3)}
}

// checkpoint is signed by the first n members.
func (w *world) checkpoint(tree *ledger.Tree, n int) []byte {
	w.t.Helper()
	root, err := tree.Root(tree.Size())
	if err != nil {
		w.t.Fatal(err)
	}
	c := ledger.Checkpoint{Origin: origin, Size: tree.Size(), Root: root}
	var notes [][]byte
	for i := range n {
		b, err := ledger.SignCheckpoint(c, ledger.MemberKeyName(origin, fmt.Sprint(i)), w.members[i])
		if err != nil {
			w.t.Fatal(err)
		}
		notes = append(notes, b)
	}
	all, err := ledger.MergeCheckpoints(w.profile.LedgerKeys.Keys, notes...)
	if w.profile.LedgerKeys.Keys == nil {
		w.t.Fatal("no keys")
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// Edge.

func (w *world) Connect(_ context.Context, host string, _ int) (Peer, error) {
	p := Peer{SPKI: w.tlsKey, Subject: host}
	if w.peer != nil {
		w.peer(&p)
	}
	return p, nil
}

func (w *world) guestEvidence(who string, g *guest, nonce, bound []byte) guestapi.Evidence {
	w.t.Helper()
	ev, err := g.Evidence(w.t.Context(), guestapi.ReportDataEvidence(nonce, bound))
	if err != nil {
		w.t.Fatal(err)
	}
	if w.raw != nil {
		w.raw(who, &ev)
	}
	b, err := ev.Marshal()
	if err != nil {
		w.t.Fatal(err)
	}
	out := guestapi.Evidence{Attestation: b, AppCompose: g.doc, Receipt: g.receipt, Bound: bound}
	if w.evidence != nil {
		w.evidence(who, &out)
	}
	return out
}

func (w *world) GatewayEvidence(_ context.Context, nonce []byte) (gatewayapi.Evidence, Peer, error) {
	return gatewayapi.Evidence{Evidence: w.guestEvidence("gateway", w.gw, nonce, w.tlsKey), Domain: "dev.localhost"}, Peer{SPKI: w.tlsKey}, nil
}

func (w *world) AppEvidence(_ context.Context, id string, nonce []byte) (guestapi.Evidence, Peer, error) {
	if id == "" {
		return guestapi.Evidence{}, Peer{}, errors.New("no id")
	}
	return w.guestEvidence("app", w.app, nonce, nil), Peer{SPKI: w.tlsKey}, nil
}

// Collateral and Ledger.

func (w *world) For(context.Context, attest.Evidence) (collateral.Set, error) {
	return w.hw.Collateral(time.Now())
}

func (w *world) Checkpoint(context.Context) ([]byte, error) {
	b := w.checkpoint(&w.tree, 2)
	if w.note != nil {
		b = w.note(b)
	}
	return b, nil
}

func (w *world) Consistency(_ context.Context, from, to int64) ([][]byte, error) {
	p, err := w.tree.Consistency(from, to)
	if w.proof != nil {
		p = w.proof(p)
	}
	return p, err
}

// fakeChain allows everything but what a test says.
type fakeChain struct {
	denied  map[uint64]string // by block; 0 is now
	err     error
	gateway string
}

func (c *fakeChain) AuthorizeApp(context.Context, governance.BootRequest) (governance.Decision, error) {
	if c.err != nil {
		return governance.Decision{}, c.err
	}
	why := c.denied[0]
	return governance.Decision{Allowed: why == "", Reason: why}, nil
}

func (c *fakeChain) DecisionAt(_ context.Context, r governance.BootRequest, kms bool, b governance.BlockRef) (bool, string, error) {
	if kms || r.AppID.IsZero() {
		return false, "wrong question", nil
	}
	why := c.denied[b.Number]
	return why == "", why, c.err
}

func (c *fakeChain) Info(context.Context) (governance.Info, error) {
	return governance.Info{GatewayAppID: c.gateway}, c.err
}

func (w *world) run() *Report {
	w.t.Helper()
	t, err := w.profile.ParseTarget("https://" + w.app.app.String() + "-8080.dev.localhost:8443/")
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := Run(w.t.Context(), w.profile, t, Sources{Edge: w, Collateral: w, Chain: w.chain, Ledger: w}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}
