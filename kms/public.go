package kms

import (
	"bytes"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
)

// handler is the API for guests, clients and verifiers.
func (m *Member) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+kmsapi.PathNonce, rpc.Handle(m.handleNonce))
	mux.HandleFunc("POST "+kmsapi.PathRelease, rpc.Handle(m.handleRelease))
	mux.HandleFunc("POST "+kmsapi.PathRenew, rpc.Handle(m.handleRenew))
	mux.HandleFunc("POST "+kmsapi.PathSignCert, rpc.Handle(m.handleSignCert))
	mux.HandleFunc("GET "+kmsapi.PathEnvKey+"{app}", rpc.Handle(m.handleEnvKey))
	mux.HandleFunc("GET "+kmsapi.PathMeta, rpc.Handle(m.handleMeta))
	mux.HandleFunc("GET "+kmsapi.PathStatus, rpc.Handle(m.handleStatus))
	mux.HandleFunc("GET "+kmsapi.PathLedger+"checkpoint", m.raw(m.handleCheckpoint))
	mux.HandleFunc("GET "+kmsapi.PathLedger+"leaf/{index}", m.raw(m.handleLeaf))
	mux.HandleFunc("GET "+kmsapi.PathLedger+"proof/inclusion", rpc.Handle(m.handleInclusion))
	mux.HandleFunc("GET "+kmsapi.PathLedger+"proof/consistency", rpc.Handle(m.handleConsistency))
	mux.HandleFunc("GET "+kmsapi.PathLedger+"tile/{path...}", m.raw(m.handleTile))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("OK")) })
	mux.HandleFunc(referenceMount, func(w http.ResponseWriter, r *http.Request) { m.reference(r).Handler(referenceMount, "KMS.")(w, r) })
	return mux
}

// clientKey is the DER SubjectPublicKeyInfo of the TLS client certificate.
func clientKey(r *http.Request) ([]byte, error) {
	if k := peerKey(r.TLS); k != nil {
		return k, nil
	}
	return nil, cvm.Errorf(cvm.Unauthenticated, "this call needs a TLS client certificate (self-signed will do)")
}

func (m *Member) handleNonce(r *http.Request, _ empty) (kmsapi.Nonce, error) {
	spki, err := clientKey(r)
	if err != nil {
		return kmsapi.Nonce{}, err
	}
	return newNonce(m.nonceKey, spki, m.now()), nil
}

func (m *Member) handleEnvKey(r *http.Request, _ empty) (out kmsapi.EnvKey, err error) {
	app, err := cvm.ParseAppID(r.PathValue("app"))
	if err != nil {
		return out, err
	}
	out.Timestamp = uint64(m.now().Unix())
	out.PublicKey, out.Signature, out.SignatureV1, err = m.vault.Load().EnvPublicKey(app, out.Timestamp)
	return out, err
}

func (m *Member) handleMeta(r *http.Request, _ empty) (kmsapi.Meta, error) {
	info, err := m.cfg.Authority.Info(r.Context())
	warnings := m.warnings()
	if err != nil { // the KMS's own identity is known without the chain
		warnings = append(warnings, "governance is not reachable: "+err.Error())
	}
	e := m.machine.Epochs()
	last := e[len(e)-1]
	out := kmsapi.Meta{
		RootCA: m.rootPEM(), RootSPKI: hex.EncodeToString(m.root.Cert.RawSubjectPublicKeyInfo), K256PubKey: last.K256,
		TicketKey: last.Ticket, LedgerOrigin: m.machine.Origin(), Simulated: m.simulated, Epoch: last.Number, Warnings: warnings,
		Governance: kmsapi.GovernanceMeta{Source: info.Source, ChainID: info.ChainID, Contract: info.Contract, GatewayAppID: info.GatewayAppID},
	}
	for _, mb := range m.machine.Members() {
		out.Members = append(out.Members, kmsapi.Member{ID: mb.ID, VerifierKey: mb.VerifierKey, RPC: mb.URLs[0], Raft: mb.Raft, JoinLeaf: mb.JoinLeaf})
	}
	return out, nil
}

func (m *Member) warnings() []string {
	var out []string
	if m.simulated {
		out = append(out, "SIMULATED TEE: this KMS runs without hardware protection")
	}
	if !m.warm.Load() {
		out = append(out, "NO ANTI-ROLLBACK: the whole cluster was restarted; nothing outside it has confirmed that its state is the newest")
	}
	return out
}

func (m *Member) handleStatus(r *http.Request, _ empty) (kmsapi.Status, error) {
	out := kmsapi.Status{
		ID: m.cfg.ID, State: m.replica.State(), Members: len(m.machine.Members()), LedgerSize: m.machine.Size(), Warnings: m.warnings(),
	}
	out.Leader, _ = m.replica.Leader()
	out.Quorum = m.barrier(r.Context()) == nil
	if info, err := m.cfg.Authority.Info(r.Context()); err == nil && !info.View.SeenAt.IsZero() {
		out.Staleness = m.now().Sub(info.View.SeenAt)
		if t := info.View.Head.Time; !t.IsZero() {
			out.Staleness = max(out.Staleness, m.now().Sub(t))
		}
	} else if err != nil {
		out.Warnings = append(out.Warnings, "governance is not reachable: "+err.Error())
	}
	return out, nil
}

// raw answers with bytes as they are.
func (m *Member) raw(fn func(r *http.Request) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, err := fn(r)
		if err != nil {
			rpc.WriteError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}
}

func (m *Member) handleCheckpoint(r *http.Request) ([]byte, error) {
	note, _, err := m.checkpoint(r.Context(), m.machine.Size())
	return note, err
}

func number(s, what string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, cvm.Errorf(cvm.Invalid, "%s: %q is not a number", what, s)
	}
	return n, nil
}

func (m *Member) handleLeaf(r *http.Request) (out []byte, err error) {
	n, err := number(r.PathValue("index"), "leaf")
	if err != nil {
		return nil, err
	}
	err = m.machine.Ledger(func(t *ledger.Tree) error { out, err = t.Leaf(n); return err })
	return out, err
}

func (m *Member) handleTile(r *http.Request) (out []byte, err error) {
	err = m.machine.Ledger(func(t *ledger.Tree) error { out, err = t.Tile(r.PathValue("path")); return err })
	return out, err
}

func (m *Member) proof(r *http.Request, a, b string, fn func(t *ledger.Tree, a, b int64) ([][]byte, error)) (out kmsapi.Proof, err error) {
	x, err := number(r.URL.Query().Get(a), a)
	if err != nil {
		return out, err
	}
	y, err := number(r.URL.Query().Get(b), b)
	if err != nil {
		return out, err
	}
	err = m.machine.Ledger(func(t *ledger.Tree) error { out.Proof, err = fn(t, x, y); return err })
	return out, err
}

func (m *Member) handleInclusion(r *http.Request, _ empty) (kmsapi.Proof, error) {
	return m.proof(r, "index", "size", (*ledger.Tree).Inclusion)
}

func (m *Member) handleConsistency(r *http.Request, _ empty) (kmsapi.Proof, error) {
	return m.proof(r, "old", "new", (*ledger.Tree).Consistency)
}
