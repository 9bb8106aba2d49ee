package api

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/confidential-cloud/phala/api/store"
)

// AppsFilter are the conditions of GET /apps that concern what a CVM is and where it is;
// "" is no condition.
type AppsFilter struct {
	Listed       string `query:"listed" enum:"true,false," doc:"CVMs that are listed publicly, or that are not"`
	BaseImage    string `query:"base_image" doc:"name of the OS image"`
	InstanceType string `query:"instance_type"`
	KMSSlug      string `query:"kms_slug" doc:"id of the KMS"`
	KMSType      string `query:"kms_type" doc:"phala, ethereum or base"`
	Node         string `query:"node" doc:"name or id of the node"`
	Region       string `query:"region"`
}

func (f AppsFilter) empty() bool { return f == AppsFilter{} }

// admitted tells whether a CVM meets all conditions.
func (s *Server) admitted(f AppsFilter, c store.CVM) bool {
	is := func(want string, have *string) bool {
		return want == "" || have != nil && strings.EqualFold(want, *have)
	}
	node := s.nodeRef(c.NodeID)
	return (f.Listed == "" || f.Listed == strconv.FormatBool(c.Listed)) && is(f.BaseImage, s.os(c).Name) && is(f.InstanceType, &c.InstanceType) &&
		is(f.KMSSlug, &s.cfg.KMS.ID) && is(f.KMSType, ptr(s.cfg.kmsType())) &&
		(is(f.Node, node.Name) || f.Node == strconv.FormatInt(c.NodeID, 10)) && is(f.Region, node.Region)
}

// appPage is a page of apps, of those CVMs that meet the conditions. Nodes, images and
// the KMS are no tables of the store: with conditions on them all apps are looked at.
func (s *Server) appPage(ctx context.Context, in *appsInput) (page [][]store.CVM, total int, err error) {
	q := store.ListQuery{Workspace: who(ctx).WorkspaceID, Search: in.Search, Status: in.Status}
	if in.empty() {
		return s.store.AppPage(ctx, in.query(q))
	}
	all, _, err := s.store.AppPage(ctx, q)
	if err != nil {
		return nil, 0, err
	}
	for i, cvms := range all {
		all[i] = slices.DeleteFunc(cvms, func(c store.CVM) bool { return !s.admitted(in.AppsFilter, c) })
	}
	all = slices.DeleteFunc(all, func(cvms []store.CVM) bool { return len(cvms) == 0 })
	from := min((in.Page-1)*in.PageSize, len(all))
	return all[from:min(from+in.PageSize, len(all))], len(all), nil
}
