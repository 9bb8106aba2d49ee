package api

import (
	"context"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance/ethereum"
)

// AppReader is what the API asks of the chain. *ethereum.Apps is one.
type AppReader interface {
	State(ctx context.Context, app cvm.AppID, h cvm.ComposeHash, devices ...cvm.DeviceID) (ethereum.AppState, error)
	ComposeAdded(ctx context.Context, tx string, app cvm.AppID, h cvm.ComposeHash) error
}

// alreadyRegistered in place of a transaction hash: the chain's state is proof enough.
const alreadyRegistered = "already-registered"

func (s *Server) governed() bool { return s.cfg.Chain.ID != 0 }

// onchain reads what an app's contract says about a compose hash on a device; an
// app without a contract has nothing allowed. No device is not allowed.
func (s *Server) onchain(ctx context.Context, appID, hash, device string) (a cloudapi.Allowed, err error) {
	app, err := cvm.ParseAppID(appID)
	if err != nil {
		return a, err
	}
	h, err := cvm.ParseComposeHash(hash)
	if err != nil {
		return a, err
	}
	a = cloudapi.Allowed{AppContractAddress: "0x" + app.String(), ComposeHash: h.String(), DeviceID: device}
	if s.chain == nil {
		return a, cvm.Errorf(cvm.Unavailable, "this cloud has no chain that it can read").WithReason(ethereum.ReasonUnreachable).WithFix("set chain.rpc_url in the API's config")
	}
	var devices []cvm.DeviceID
	if device != "" {
		d, err := cvm.ParseDeviceID(device)
		if err != nil {
			return a, err
		}
		devices = append(devices, d)
	}
	st, err := s.chain.State(ctx, app, h, devices...)
	if cvm.ReasonOf(err) == ethereum.ReasonNoApp {
		a.Error = ptr(err.Error())
		return a, nil
	}
	if err != nil {
		return a, err
	}
	a.ComposeHashAllowed, a.AllowAnyDevice = st.ComposeAllowed, st.AnyDevice
	if device != "" {
		a.DeviceIDAllowed = ptr(st.Devices[0])
	}
	a.IsAllowed = st.ComposeAllowed && (st.AnyDevice || device != "" && st.Devices[0])
	return a, nil
}

// chainStatus is the short form of a reading; nil when the chain cannot be read.
func (s *Server) chainStatus(ctx context.Context, app, hash, device string) *cloudapi.ChainStatus {
	a, err := s.onchain(ctx, app, hash, device)
	if err != nil {
		s.log.Warn("reading the chain", "app", app, "err", err)
		return nil
	}
	return &cloudapi.ChainStatus{ComposeHashAllowed: a.ComposeHashAllowed, IsAllowed: a.IsAllowed,
		DeviceIDAllowed: a.AllowAnyDevice || a.DeviceIDAllowed != nil && *a.DeviceIDAllowed}
}

// prove checks that the chain allows a compose hash on a device, and that a
// transaction, if one is named, is what allowed it.
func (s *Server) prove(ctx context.Context, appID, hash, device, tx string) error {
	if tx != "" && !strings.EqualFold(tx, alreadyRegistered) {
		app, err := cvm.ParseAppID(appID)
		if err != nil {
			return err
		}
		h, err := cvm.ParseComposeHash(hash)
		if err != nil {
			return err
		}
		if s.chain == nil {
			return cvm.Errorf(cvm.Unavailable, "this cloud has no chain that it can read").WithReason(ethereum.ReasonUnreachable)
		}
		err = s.chain.ComposeAdded(ctx, tx, app, h)
		switch code := cvm.CodeOf(err); {
		case err == nil:
		case code == cvm.Precondition || code == cvm.Invalid:
			return fail(statusTxFailed, errTxFailed, cvm.Precondition, cvm.ReasonOf(err), err.Error(),
				"send the hash of the transaction that added this compose hash, or already-registered")
		default:
			return err
		}
	}
	a, err := s.onchain(ctx, appID, hash, device)
	switch {
	case err != nil:
		return err
	case !a.ComposeHashAllowed:
		return fail(statusNotAllowed, errNotAllowed, cvm.Precondition, "compose-hash-not-allowed", "the app's contract does not allow this compose hash",
			"add it with addComposeHash, then commit again")
	case !a.IsAllowed:
		return fail(statusNotAllowed, errNotAllowed, cvm.Precondition, "device-not-allowed", "the app's contract does not allow this device: "+device,
			"add it with addDevice, then commit again")
	}
	return nil
}

func word(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

type isAllowedInput struct {
	IDInput
	Body cloudapi.AllowedRequest
}

// cvmIsAllowed is about a CVM's own hash and device unless others are named.
func (s *Server) cvmIsAllowed(ctx context.Context, in *isAllowedInput) (out cloudapi.Allowed, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	if in.Body.ComposeHash == "" {
		in.Body.ComposeHash = c.ComposeHash
	}
	if in.Body.NodeID == 0 {
		in.Body.NodeID = int(c.NodeID)
	}
	out, err = s.isAllowed(ctx, c.AppID, in.Body)
	out.CVMID = c.ID
	return out, err
}

type appIsAllowedInput struct {
	AppInput
	Body cloudapi.AllowedRequest
}

func (s *Server) appIsAllowed(ctx context.Context, in *appIsAllowedInput) (out cloudapi.Allowed, err error) {
	cvms, err := s.cvmsOf(ctx, in.AppID)
	if err != nil {
		return out, err
	}
	return s.isAllowed(ctx, cvms[0].AppID, in.Body)
}

func (s *Server) isAllowed(ctx context.Context, app string, r cloudapi.AllowedRequest) (out cloudapi.Allowed, err error) {
	if !s.governed() {
		return out, notOnChain()
	}
	var p problems
	if b, err := hex.DecodeString(bare(r.ComposeHash)); err != nil || len(b) != 32 {
		p.add("compose_hash", "value_error", "want 32 bytes in hex", "")
	}
	if r.ChainID != 0 && r.ChainID != s.cfg.Chain.ID {
		p.add("chain_id", "value_error", "this cloud's KMS is on another chain", "leave chain_id out")
	}
	device := bare(r.DeviceID)
	if b, err := hex.DecodeString(device); err != nil || device != "" && len(b) != 32 {
		p.add("device_id", "value_error", "want 32 bytes in hex", "")
	}
	if err := p.err(); err != nil {
		return out, err
	}
	if device == "" && r.NodeID != 0 {
		if s.nodes.byID[int64(r.NodeID)] == nil {
			return out, fail(http.StatusNotFound, errNodeNotFound, cvm.NotFound, "node-not-found", "node not found")
		}
		device = word(s.nodeRef(int64(r.NodeID)).DeviceID)
	}
	return s.onchain(ctx, app, bare(r.ComposeHash), device)
}

func bare(h string) string { return strings.ToLower(strings.TrimPrefix(strings.TrimSpace(h), "0x")) }

func notOnChain() error {
	return fail(http.StatusNotFound, "", cvm.NotFound, "not-on-chain", "this cloud's KMS is not on a chain: its own allow-list decides")
}

// cvmsAreAllowed asks for every CVM of an app; one that cannot be asked is an error
// of its own.
func (s *Server) cvmsAreAllowed(ctx context.Context, in *AppInput) (out cloudapi.AllowedAll, err error) {
	cvms, err := s.cvmsOf(ctx, in.AppID)
	if err != nil {
		return out, err
	}
	out = cloudapi.AllowedAll{IsOnchain: s.governed(), Results: []cloudapi.Allowed{}, SkippedCVMIDs: []int64{}}
	if !out.IsOnchain {
		return out, nil
	}
	for _, c := range cvms {
		device := word(s.deviceID(c))
		if device == "" {
			out.SkippedCVMIDs = append(out.SkippedCVMIDs, c.ID) // its node never answered
			continue
		}
		a, err := s.onchain(ctx, c.AppID, c.ComposeHash, device)
		a.CVMID = c.ID
		switch {
		case err != nil:
			a.Error, out.ErrorCount = explain(err), out.ErrorCount+1
		case a.IsAllowed:
			out.AllowedCount++
		default:
			out.DeniedCount++
		}
		out.Results, out.Total = append(out.Results, a), out.Total+1
	}
	return out, nil
}

func (s *Server) deviceAllowlist(ctx context.Context, in *AppInput) (out cloudapi.DeviceAllowlist, err error) {
	cvms, err := s.cvmsOf(ctx, in.AppID)
	if err != nil {
		return out, err
	}
	out.Devices = []cloudapi.AllowedDevice{}
	if !s.governed() {
		return out, nil
	}
	first := cvms[0]
	out = cloudapi.DeviceAllowlist{IsOnchainKMS: true, ChainID: ptr(s.cfg.Chain.ID), AppContractAddress: ptr("0x" + first.AppID), Devices: out.Devices}
	byDevice := map[string][]store.CVM{}
	var order []string
	for _, c := range cvms {
		d := word(s.deviceID(c))
		if d == "" {
			continue
		}
		if !slices.Contains(order, d) {
			order = append(order, d)
		}
		byDevice[d] = append(byDevice[d], c)
	}
	for _, d := range order {
		a, err := s.onchain(ctx, first.AppID, first.ComposeHash, d)
		if err != nil {
			return out, err
		}
		out.AllowAnyDevice = ptr(a.AllowAnyDevice)
		v := cloudapi.AllowedDevice{DeviceID: d, NodeName: s.nodeRef(byDevice[d][0].NodeID).Name, AllowedOnchain: a.DeviceIDAllowed != nil && *a.DeviceIDAllowed, Status: "not_allowed"}
		if v.AllowedOnchain || a.AllowAnyDevice {
			v.Status = "allowed"
		}
		for _, c := range byDevice[d] {
			v.CVMIDs = append(v.CVMIDs, c.ID)
		}
		out.Devices = append(out.Devices, v)
	}
	return out, nil
}
