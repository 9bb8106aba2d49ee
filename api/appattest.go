package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// appAttestRoutes show anybody what an app's CVMs say of themselves, as far as the
// app makes that public (public_tcbinfo). Another app, and one without such a CVM,
// do not exist here.
func (s *Server) appAttestRoutes(api huma.API) {
	register(s, api, op{method: "GET", path: "/apps/{app_id}/attestations", summary: "Quotes and measurements of an app's CVMs, for anybody", access: open()}, s.appAttestations)
	register(s, api, op{method: "GET", path: "/apps/{app_id}/attestations/tcb-evaluation", summary: "An app's machines by their vendor's newest word, for anybody", access: open()}, s.tcbEvaluation)
}

// recall keeps public answers for a moment, so that guests are not asked for each.
type recall struct {
	mu sync.Mutex
	m  map[string]recalled
}

type recalled struct {
	until time.Time
	v     any
}

const (
	recallAge = 20 * time.Second
	recallMax = 512
	// maxPublicCVMs bounds how many guests one public request asks.
	maxPublicCVMs = 20
)

func (r *recall) get(key string, now time.Time) (any, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.m[key]
	return e.v, ok && now.Before(e.until)
}

func (r *recall) put(key string, v any, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil || len(r.m) >= recallMax {
		r.m = map[string]recalled{}
	}
	r.m[key] = recalled{now.Add(recallAge), v}
}

// publicCVMs are the CVMs of an app that show themselves to anybody.
func (s *Server) publicCVMs(ctx context.Context, appID string) (running []store.CVM, err error) {
	if err := s.take(ctx, limitPublic(), s.caller(ctx)); err != nil {
		return nil, err
	}
	app, err := cvm.ParseAppID(strings.TrimPrefix(strings.ToLower(appID), "app_"))
	if err != nil {
		return nil, text(http.StatusNotFound, "App not found")
	}
	all, err := s.store.AppCVMs(ctx, app.String())
	public := 0
	for _, c := range all {
		if !parsed(c).TCBInfoPublic() {
			continue
		}
		public++
		if c.Status == cloudapi.StatusRunning && len(running) < maxPublicCVMs {
			running = append(running, c)
		}
	}
	if err == nil && public == 0 {
		err = text(http.StatusNotFound, "App not found")
	}
	return running, err
}

type appAttestInput struct {
	AppInput
	Nonce string `query:"nonce" pattern:"^([0-9a-fA-F]{2}){8,64}$" doc:"hex, 8 to 64 bytes: the quotes answer it, and come with the guests' whole evidence"`
}

func (s *Server) appAttestations(ctx context.Context, in *appAttestInput) (out cloudapi.AppAttestations, err error) {
	cvms, err := s.publicCVMs(ctx, in.AppID)
	if err != nil {
		return out, err
	}
	app, _ := cvm.ParseAppID(strings.TrimPrefix(strings.ToLower(in.AppID), "app_")) // publicCVMs parsed it
	if v, ok := s.shown.get("attestations "+app.String(), s.now()); ok && in.Nonce == "" {
		if out, ok := v.(cloudapi.AppAttestations); ok {
			return out, nil
		}
	}
	k := s.cfg.kms()
	out = cloudapi.AppAttestations{AppID: app.String(), Instances: []cloudapi.InstanceAttestation{}, KMSInfo: cloudapi.AttestationKMS{Version: k.Version, URL: k.URL,
		GatewayAppID: k.GatewayAppID, GatewayAppURL: "https://gateway." + s.cfg.baseDomain(), KMSType: s.cfg.kmsType(), Chain: s.cfg.Chain.ID}}
	if s.governed() {
		out.ContractAddress, out.KMSInfo.ContractAddress = "0x"+app.String(), s.cfg.Chain.Contract
	}
	out.Instances = make([]cloudapi.InstanceAttestation, len(cvms))
	var wg sync.WaitGroup
	for i, c := range cvms {
		wg.Go(func() { out.Instances[i] = s.instanceAttestation(ctx, c, in.Nonce) })
	}
	wg.Wait()
	if in.Nonce == "" {
		s.shown.put("attestations "+app.String(), out, s.now())
	}
	return out, nil
}

// instanceAttestation asks one guest; what fails is said in the answer.
func (s *Server) instanceAttestation(ctx context.Context, c store.CVM, nonce string) (v cloudapi.InstanceAttestation) {
	v = cloudapi.InstanceAttestation{Status: c.Status, DeviceID: word(s.deviceID(c)), VMUUID: ptr(c.UUID), InstanceID: opt(c.InstanceID), ImageVersion: s.os(c).Name,
		ComposeFile: ptr(string(c.AppCompose)), Simulated: s.simulated(c)}
	if c.Listed {
		v.Name = c.Name
	}
	ctx, cancel := context.WithTimeout(ctx, guestTimeout)
	defer cancel()
	vmm, err := s.nodes.client(c.NodeID)
	if err != nil {
		v.Error = explain(err)
		return v
	}
	var g guestapi.AppInfo
	if err := vmm.GuestInfo(ctx, c.UUID, &g); err != nil {
		v.Error = explain(err)
		return v
	}
	v.AppCertificates = certificates(g.AppCert)
	var tcb cloudapi.TCBInfo
	if g.TCBInfo != "" && json.Unmarshal([]byte(g.TCBInfo), &tcb) == nil {
		v.TCBInfo = &tcb
	}
	ev, quote, err := s.guestQuote(ctx, c, nonce)
	if err != nil {
		v.Error = explain(err)
		return v
	}
	v.Quote = ptr(hex.EncodeToString(quote))
	if nonce != "" {
		v.Evidence = ev
	}
	return v
}

// guestQuote asks a guest for evidence over a nonce (hex; "" is a random one).
func (s *Server) guestQuote(ctx context.Context, c store.CVM, nonce string) (ev guestapi.Evidence, quote []byte, err error) {
	vmm, err := s.nodes.client(c.NodeID)
	if err != nil {
		return ev, nil, err
	}
	n, _ := hex.DecodeString(nonce) // its pattern was checked
	if len(n) == 0 {
		n = make([]byte, 32)
		_, _ = rand.Read(n) // never fails
	}
	if ev, err = vmm.GuestEvidence(ctx, c.UUID, n); err != nil {
		return ev, nil, err
	}
	e, err := attest.ParseEvidence(ev.Attestation)
	if err == nil && len(e.Quote) == 0 {
		err = cvm.Errorf(cvm.Unsupported, "the guest's evidence holds no TDX quote")
	}
	return ev, e.Quote, err
}

func (s *Server) tcbEvaluation(ctx context.Context, in *AppInput) (out cloudapi.TCBEvaluation, err error) {
	cvms, err := s.publicCVMs(ctx, in.AppID)
	if err != nil {
		return out, err
	}
	app, _ := cvm.ParseAppID(strings.TrimPrefix(strings.ToLower(in.AppID), "app_")) // publicCVMs parsed it
	if v, ok := s.shown.get("tcb "+app.String(), s.now()); ok {
		if out, ok := v.(cloudapi.TCBEvaluation); ok {
			return out, nil
		}
	}
	out = cloudapi.TCBEvaluation{AppID: app.String(), Update: "early", Instances: make([]cloudapi.InstanceTCBEvaluation, len(cvms))}
	var wg sync.WaitGroup
	for i, c := range cvms {
		wg.Go(func() { out.Instances[i] = s.evaluateTCB(ctx, c) })
	}
	wg.Wait()
	s.shown.put("tcb "+app.String(), out, s.now())
	return out, nil
}

func (s *Server) evaluateTCB(ctx context.Context, c store.CVM) (v cloudapi.InstanceTCBEvaluation) {
	v = cloudapi.InstanceTCBEvaluation{VMUUID: ptr(c.UUID), InstanceID: opt(c.InstanceID), Status: ptr(c.Status), ImageVersion: s.os(c).Name, DeviceID: s.deviceID(c), EvaluationUpdate: "early"}
	if c.Listed {
		v.Name = ptr(c.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, guestTimeout)
	defer cancel()
	_, quote, err := s.guestQuote(ctx, c, "")
	var j judged
	if err == nil {
		j, err = s.judge.quote(ctx, quote, true)
	}
	switch {
	case err != nil:
		v.Error = explain(err)
		return v
	case !j.genuine:
		v.EvaluationOK, v.Error = ptr(false), ptr("no admitted vendor stands behind the guest's quote: "+j.complaints)
		return v
	}
	v.PPID, v.EvaluationOK, v.EvaluationStatus = hex.EncodeToString(j.ppid), ptr(j.report.Verified()), opt(j.report.TCBStatus)
	if !j.report.Verified() {
		v.Error = ptr(j.report.Summary)
	}
	return v
}
