package api

import (
	"context"
	"encoding/hex"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/scheduler"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

// availableNode shows a node as the scheduler sees it.
func (s *Server) availableNode(p scheduler.Node) cloudapi.AvailableNode {
	n := s.nodes.byID[p.ID]
	info, images, nerr := n.facts()
	v := cloudapi.AvailableNode{
		TeepodID: int(p.ID), Name: p.Name, Listed: true, ResourceScore: 1,
		RemainingVCPU: max(p.Free.VCPU, 0), RemainingMemory: max(p.Free.MemoryMiB, 0), RemainingDiskGB: max(p.Free.DiskGB, 0),
		RemainingCVMSlots: max(p.Free.VCPU, 0), Images: []cloudapi.NodeImage{}, SupportOnchainKMS: s.cfg.Chain.ID != 0,
		RegionIdentifier: opt(p.Region), DefaultKMS: ptr(s.cfg.KMS.ID), KMSList: []string{s.cfg.KMS.ID},
		Driver: info.Driver, Simulated: info.Simulated, Online: nerr == nil, Warnings: info.Warnings,
		Draining: p.Draining, Confidence: p.Confidence.String(), ConfidenceWhy: p.ConfidenceWhy, GPUs: p.GPUs,
	}
	if d := n.device(); d != (cvm.DeviceID{}) {
		v.DeviceID = ptr(d.String())
	}
	if q := n.proved(); q != nil {
		proof := *q
		proof.Expired = !s.now().Before(q.ExpiresAt)
		v.Proof, v.FMSPC = &proof, opt(q.FMSPC)
		v.Simulated = v.Simulated || q.Simulated
	}
	if w := info.Maintenance; w != nil {
		v.Maintenance = &cloudapi.Maintenance{Reason: w.Reason, Since: w.Since}
		if !w.StopAt.IsZero() {
			v.Maintenance.StopAt = ptr(w.StopAt)
		}
	}
	switch {
	case keyChanged(nerr):
		v.Problem = keyChangedText
	case nerr != nil:
		v.Problem = "the VMM does not answer"
	case p.Draining:
		v.Problem = "the node is being drained" + p.DrainWhy + ": it takes no new CVMs"
	}
	for _, i := range images {
		v.Images = append(v.Images, cloudapi.NodeImage{Name: i.Name, IsDev: i.IsDev, Version: version(i.Version), OSImageHash: ptr(i.Hash.String())})
	}
	return v
}

// version reads "0.5.3" as clients want it: three or four numbers.
func version(s string) []int {
	out := []int{}
	for p := range strings.SplitSeq(strings.TrimPrefix(s, "v"), ".") {
		digits := strings.TrimRightFunc(p, func(r rune) bool { return r < '0' || r > '9' })
		n, _ := strconv.Atoi(digits) // what is no number counts as 0
		out = append(out, n)
	}
	for len(out) < 3 {
		out = append(out, 0)
	}
	return out[:min(len(out), 4)]
}

// PageInput chooses a page.
type PageInput struct {
	Page     int `query:"page" default:"1" minimum:"1"`
	PageSize int `query:"page_size" default:"30" minimum:"1" maximum:"100"`
}

// query bounds a listing to the page.
func (p PageInput) query(q store.ListQuery) store.ListQuery {
	q.Offset, q.Limit = (p.Page-1)*p.PageSize, p.PageSize
	return q
}

// pages is how many pages there are.
func (p PageInput) pages(total int) int { return (total + p.PageSize - 1) / p.PageSize }

func paginate[T any](all []T, in PageInput) cloudapi.Page[T] {
	from := min((in.Page-1)*in.PageSize, len(all))
	to := min(from+in.PageSize, len(all))
	items := append([]T{}, all[from:to]...)
	return cloudapi.Page[T]{Items: items, Total: len(all), Page: in.Page, PageSize: in.PageSize, Pages: (len(all) + in.PageSize - 1) / in.PageSize}
}

type workspaceInput struct {
	PageInput
	Slug string `path:"slug"`
}

func (s *Server) workspaceNodes(ctx context.Context, in *workspaceInput) (out cloudapi.Page[cloudapi.NodeRef], err error) {
	if in.Slug != who(ctx).WorkspaceSlug {
		return out, text(http.StatusNotFound, "workspace not found")
	}
	s.nodes.refresh(ctx, fresh)
	var all []cloudapi.NodeRef
	for _, n := range s.nodes.list {
		all = append(all, *s.nodeRef(n.id))
	}
	return paginate(all, in.PageInput), nil
}

func (s *Server) nodeRef(id int64) *cloudapi.NodeRef {
	n := s.nodes.byID[id]
	if n == nil {
		return &cloudapi.NodeRef{ObjectType: "node", ID: ptr(int(id)), Status: ptr("OFFLINE")}
	}
	info, _, err := n.facts()
	r := &cloudapi.NodeRef{ObjectType: "node", ID: ptr(int(id)), Name: ptr(n.name()), Region: opt(n.region()), Status: ptr("ONLINE"), Version: opt(info.Driver)}
	switch {
	case err != nil:
		r.Status = ptr("OFFLINE")
	case info.Draining:
		r.Status = ptr("MAINTENANCE")
	}
	if d := n.device(); d != (cvm.DeviceID{}) {
		r.DeviceID = ptr(d.String())
	}
	return r
}

func (t InstanceType) public() cloudapi.InstanceType {
	return cloudapi.InstanceType{ID: t.ID, Name: t.Name, Description: t.Description, VCPU: t.VCPU, MemoryMB: t.MemoryMB,
		HourlyRate: t.HourlyRate, RequiresGPU: t.GPUs > 0, DefaultDiskSizeGB: t.DiskGB, Family: ptr(t.Family),
		GPUs: t.GPUs, GPU: t.GPU, GPUName: t.GPUName}
}

func (s *Server) family(name string) []cloudapi.InstanceType {
	var out []cloudapi.InstanceType
	for _, t := range s.cfg.InstanceTypes {
		if t.Family == name {
			out = append(out, t.public())
		}
	}
	return out
}

func (s *Server) instanceTypes(context.Context, *none) (out cloudapi.InstanceTypes, err error) {
	seen := map[string]bool{}
	for _, t := range s.cfg.InstanceTypes {
		if !seen[t.Family] {
			seen[t.Family] = true
			items := s.family(t.Family)
			out.Result = append(out.Result, cloudapi.InstanceFamily{Name: t.Family, Items: items, Total: len(items)})
		}
	}
	return out, nil
}

type familyInput struct {
	Family string `path:"family"`
}

func (s *Server) instanceFamily(_ context.Context, in *familyInput) (out cloudapi.InstanceTypesOf, err error) {
	items := s.family(in.Family)
	if len(items) == 0 {
		return out, text(http.StatusNotFound, "Instance type family not found")
	}
	return cloudapi.InstanceTypesOf{Items: items, Total: len(items), Family: in.Family}, nil
}

type imagesInput struct {
	PageInput
	IsDev string `query:"is_dev" enum:"true,false,"`
}

func (s *Server) osImages(ctx context.Context, in *imagesInput) (out cloudapi.Page[cloudapi.OSImage], err error) {
	s.nodes.refresh(ctx, fresh)
	seen := map[string]bool{}
	var all []cloudapi.OSImage
	for _, n := range s.nodes.list {
		_, images, _ := n.facts()
		for _, i := range images {
			if seen[i.Name] || in.IsDev != "" && in.IsDev != strconv.FormatBool(i.IsDev) {
				continue
			}
			seen[i.Name] = true
			all = append(all, cloudapi.OSImage{Name: i.Name, Slug: i.Name, Version: i.Version, OSImageHash: ptr(i.Hash.String()), IsDev: i.IsDev})
		}
	}
	return paginate(all, in.PageInput), nil
}

type kmsListInput struct {
	PageInput
	IsOnchain string `query:"is_onchain" enum:"true,false,"`
}

func (s *Server) kmsList(_ context.Context, in *kmsListInput) (cloudapi.Page[cloudapi.KMS], error) {
	all := []cloudapi.KMS{s.cfg.kms()}
	if in.IsOnchain != "" && (in.IsOnchain == "true") != (s.cfg.Chain.ID != 0) {
		all = nil
	}
	return paginate(all, in.PageInput), nil
}

// KMSInput names a KMS in the path.
type KMSInput struct {
	KMS string `path:"kms"`
}

func (s *Server) knownKMS(word string) error {
	if !s.cfg.isKMS(word) {
		return s.noKMS()
	}
	return nil
}

func (s *Server) noKMS() error {
	return fail(http.StatusNotFound, errKMSNotFound, cvm.NotFound, "kms-not-found", "KMS not found", "this cloud's KMS is called "+s.cfg.KMS.ID)
}

func (s *Server) kmsOne(_ context.Context, in *KMSInput) (cloudapi.KMS, error) {
	return s.cfg.kms(), s.knownKMS(in.KMS)
}

func (s *Server) kmsInfo(ctx context.Context, in *KMSInput) (out cloudapi.KMSInfo, err error) {
	if err := s.knownKMS(in.KMS); err != nil {
		return out, err
	}
	m, err := s.keys.Meta(ctx)
	if err != nil {
		return out, err
	}
	return cloudapi.KMSInfo{KMS: s.cfg.kms(), RootCA: m.RootCA, RootSPKI: m.RootSPKI, K256: hex.EncodeToString(m.K256PubKey),
		URLs: s.cfg.KMS.URLs, Simulated: m.Simulated, Warnings: m.Warnings}, nil
}

type envKeyInput struct {
	KMSInput
	AppID string `path:"app_id" doc:"40 hex digits, 0x allowed"`
	Full  bool   `query:"full" doc:"also signature_v1 and timestamp"`
}

func (s *Server) envKey(ctx context.Context, in *envKeyInput) (out cloudapi.EnvKey, err error) {
	if err := s.knownKMS(in.KMS); err != nil {
		return out, err
	}
	app, err := cvm.ParseAppID(in.AppID)
	if err != nil {
		return out, &apiError{http.StatusUnprocessableEntity, []cloudapi.Validation{{Loc: []any{"path", "app_id"}, Msg: err.Error(), Type: "value_error"}}}
	}
	k, err := s.keys.EnvKey(ctx, app)
	if err != nil {
		return out, err
	}
	out = cloudapi.EnvKey{PublicKey: hex.EncodeToString(k.PublicKey), Signature: hex.EncodeToString(k.Signature)}
	if in.Full {
		out.SignatureV1, out.Timestamp = hex.EncodeToString(k.SignatureV1), k.Timestamp
	}
	return out, nil
}

type chainInput struct {
	Chain string `path:"chain"`
}

func (s *Server) onChain(ctx context.Context, in *chainInput) (out cloudapi.OnChain, err error) {
	c := s.cfg.Chain
	if c.ID == 0 || !strings.EqualFold(in.Chain, c.Name) && !strings.EqualFold(in.Chain, s.cfg.kmsType()) && in.Chain != strconv.FormatUint(c.ID, 10) {
		return out, text(http.StatusNotFound, "no KMS contract on that chain")
	}
	s.nodes.refresh(ctx, fresh)
	contract := cloudapi.OnChainContract{ContractAddress: c.Contract, ChainID: c.ID, ChainName: c.Name, Devices: []cloudapi.OnChainDevice{}, OSImages: []cloudapi.OnChainImage{}}
	for _, n := range s.nodes.list {
		_, images, _ := n.facts()
		contract.Devices = append(contract.Devices, cloudapi.OnChainDevice{DeviceID: n.device().String(), NodeName: ptr(n.name())})
		for _, i := range images {
			contract.OSImages = append(contract.OSImages, cloudapi.OnChainImage{Name: i.Name, Version: i.Version, OSImageHash: ptr(i.Hash.String())})
		}
	}
	return cloudapi.OnChain{ChainName: c.Name, ChainID: c.ID, RPCURL: c.RPCURL, Contracts: []cloudapi.OnChainContract{contract}}, nil
}

// trustProfile is the file as it is: its bytes are what people compare.
func (s *Server) trustProfile(context.Context, *struct{}) (*huma.StreamResponse, error) {
	if s.cfg.TrustProfile == "" {
		return nil, text(http.StatusNotFound, "this cloud serves no trust profile")
	}
	b, err := os.ReadFile(s.cfg.TrustProfile)
	if err != nil {
		return nil, text(http.StatusNotFound, "the trust profile is not there yet")
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		kind := "text/plain; charset=utf-8"
		if strings.HasSuffix(s.cfg.TrustProfile, ".json") {
			kind = "application/json"
		}
		hc.SetHeader("Content-Type", kind)
		_, _ = hc.BodyWriter().Write(b)
	}}, nil
}
