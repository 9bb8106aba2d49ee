package api

import (
	"context"
	"net/http"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/scheduler"
	"github.com/confidential-cloud/phala/cvm"
)

type explainInput struct {
	Node         int64  `path:"node_id" minimum:"1"`
	InstanceType string `query:"instance_type" doc:"a size, or vcpu and memory"`
	VCPU         int    `query:"vcpu" minimum:"0" maximum:"1024"`
	Memory       int    `query:"memory" minimum:"0" maximum:"16777216" doc:"MB"`
	DiskSize     int    `query:"disk_size" minimum:"0" maximum:"1048576" doc:"GB"`
	Region       string `query:"region" maxLength:"64"`
	Image        string `query:"image" maxLength:"128"`
	Confidence   string `query:"min_confidence" enum:"simulated,unverified,genuine," doc:"how sure it must be that VMs of the node are confidential"`
	GPUs         int    `query:"gpus" minimum:"0" maximum:"64"`
	GPU          string `query:"gpu" maxLength:"32" doc:"vendor:device"`
}

// request is what the scheduler would be asked.
func (s *Server) request(in *explainInput) (r scheduler.Request, err error) {
	r = scheduler.Request{Need: scheduler.Resources{VCPU: in.VCPU, MemoryMiB: in.Memory, DiskGB: in.DiskSize}, Region: in.Region, Image: in.Image, GPUs: in.GPUs, GPU: in.GPU}
	if in.InstanceType != "" {
		t, known := s.cfg.instanceType(in.InstanceType)
		if !known {
			return r, fail(http.StatusUnprocessableEntity, errInstanceType, cvm.Invalid, "unknown-instance-type", "this instance_type does not exist", "list them: GET /instance-types")
		}
		r.Need.VCPU, r.Need.MemoryMiB = t.VCPU, t.MemoryMB
		if t.GPUs > 0 {
			r.GPUs, r.GPU = t.GPUs, t.GPU
		}
	}
	if in.Confidence != "" {
		r.Confidence, err = scheduler.ParseConfidence(in.Confidence)
	}
	return r, err
}

func (s *Server) explainNode(ctx context.Context, in *explainInput) (out cloudapi.NodeExplanation, err error) {
	r, err := s.request(in)
	if err != nil {
		return out, err
	}
	n, err := s.node(in.Node)
	if err != nil {
		return out, err
	}
	p, err := s.placed(ctx, n)
	if err != nil {
		return out, err
	}
	out = cloudapi.NodeExplanation{NodeID: int(p.ID), Name: p.Name, Problems: []cloudapi.NodeProblem{}}
	for _, why := range scheduler.Explain(r, p) {
		out.Problems = append(out.Problems, cloudapi.NodeProblem{Check: why.Check, Reason: why.Reason, Message: why.Text})
	}
	out.Fits = len(out.Problems) == 0
	return out, nil
}
