package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/scheduler"
	"github.com/confidential-cloud/phala/cvm"
)

// pick finds the node and the image that a request means. Who prefers a development
// image and names none gets one of the cloud's own version if some node has room and
// that, else the newest.
func (s *Server) pick(ctx context.Context, r cloudapi.ProvisionRequest, z size, app string) (node scheduler.Node, image, why string, err error) {
	confidence, err := minConfidence(r.MinConfidence)
	if err != nil {
		return node, "", "", err
	}
	want := scheduler.Request{Need: z.need(), GPUs: z.gpus, GPU: z.gpu, NodeID: int64(max(r.TeepodID, r.NodeID)), Region: r.Region, Confidence: confidence}
	images := []string{cmp.Or(r.Image, s.cfg.Image)}
	if r.Image == "" && r.PreferDev != nil && *r.PreferDev {
		s.nodes.refresh(ctx, fresh)
		if images = s.nodes.devImages(want, s.cfg.Image); len(images) == 0 {
			return node, "", "", noDevImage()
		}
	}
	for _, image = range images {
		want.Image = image
		n, _, why, failed := s.choose(ctx, want, app, "")
		if failed == nil {
			return n, image, why, nil
		}
		if err == nil { // the reason why not what is wanted most
			err = unplaced(failed)
		}
	}
	return node, "", "", err
}

// devImages are the names of the development images on the nodes that r allows, best
// first: of the version of the image called like, then the newest.
func (ns *nodes) devImages(r scheduler.Request, like string) (names []string) {
	newest, own := map[string][]int{}, []int(nil)
	for _, n := range ns.list {
		allowed := (r.NodeID == 0 || r.NodeID == n.id) && (r.Region == "" || strings.EqualFold(r.Region, n.region()))
		_, images, _ := n.facts()
		for _, i := range images {
			v := versionOf(i.Version)
			if i.Name == like && like != "" {
				own = v
			}
			if allowed && i.IsDev && slices.Compare(v, newest[i.Name]) >= 0 {
				newest[i.Name] = v
			}
		}
	}
	for name := range newest {
		names = append(names, name)
	}
	rank := func(name string) int {
		if own != nil && slices.Equal(newest[name], own) {
			return 0
		}
		return 1
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(rank(a)-rank(b), slices.Compare(newest[b], newest[a]), strings.Compare(a, b))
	})
	return names
}

func noDevImage() error {
	return fail(http.StatusNotFound, errImageNotFound, cvm.NotFound, "no-dev-image", "no node that this request allows has a development image",
		"leave --dev-os out, name an image that there is (phala os-images lists them), or have the operator add one to a node's images")
}
