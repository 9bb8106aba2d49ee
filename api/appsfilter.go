package api

import (
	"context"
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

// appPage is a page of apps, of those CVMs that meet the conditions. Regions, images and
// the KMS are no tables of the store: with conditions on them all CVMs are looked at, and
// those of the page kept; with one on the node, those of the node.
func (s *Server) appPage(ctx context.Context, in *appsInput) (page [][]store.CVM, total int, err error) {
	q := store.ListQuery{Workspace: who(ctx).WorkspaceID, Search: in.Search, Status: in.Status}
	if in.empty() {
		return s.store.AppPage(ctx, in.query(q))
	}
	q.Node = s.onlyNode(in.Node)
	first := (in.Page - 1) * in.PageSize
	at := map[string]int{} // place of an app: that of the newest of its CVMs that match
	err = s.each(ctx, q, func(some []store.CVM) {
		for _, c := range some {
			if !s.admitted(in.AppsFilter, c) {
				continue
			}
			i, seen := at[c.AppID]
			if !seen {
				i = len(at)
				at[c.AppID] = i
			}
			switch i -= first; {
			case i < 0 || i >= in.PageSize:
			case i == len(page):
				page = append(page, []store.CVM{c})
			default:
				page[i] = append(page[i], c)
			}
		}
	})
	return page, len(at), err
}

// onlyNode is the one node that a name or id means; 0 where it is none or several.
func (s *Server) onlyNode(want string) (id int64) {
	for _, n := range s.nodes.list {
		if want != "" && (strings.EqualFold(want, n.name()) || want == strconv.FormatInt(n.id, 10)) {
			if id != 0 {
				return 0
			}
			id = n.id
		}
	}
	return id
}
