package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/jobs"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

type operationsInput struct {
	IDInput
	Cursor string   `query:"cursor" doc:"next_cursor of the page before"`
	Limit  int      `query:"limit" default:"50" minimum:"1" maximum:"500"`
	Start  string   `query:"start_time" doc:"RFC 3339"`
	End    string   `query:"end_time" doc:"RFC 3339"`
	Types  []string `query:"operation_types,explode"`
}

// eventsPerOperation bounds what a list shows; GET /cvms/{id}/events has all.
const eventsPerOperation = 200

func (s *Server) operations(ctx context.Context, in *operationsInput) (out cloudapi.Operations, err error) {
	c, err := s.resolve(ctx, in.ID, true)
	if err != nil {
		return out, err
	}
	q := store.OpsQuery{Kinds: in.Types, Limit: in.Limit + 1}
	if err := in.read(&q); err != nil {
		return out, err
	}
	ops, total, err := s.store.Operations(ctx, c.ID, q)
	if err != nil {
		return out, err
	}
	out = cloudapi.Operations{Items: []cloudapi.OperationRecord{}, Total: total}
	if len(ops) > in.Limit {
		ops = ops[:in.Limit]
		out.NextCursor = ptr(strconv.Itoa(ops[in.Limit-1].Generation))
	}
	for _, o := range ops {
		v, err := s.operationView(ctx, c, o)
		if err != nil {
			return out, err
		}
		out.Items = append(out.Items, v)
	}
	return out, nil
}

func (in *operationsInput) read(q *store.OpsQuery) error {
	var list []cloudapi.Validation
	bad := func(field, msg string) {
		list = append(list, cloudapi.Validation{Loc: []any{"query", field}, Msg: msg, Type: "value_error"})
	}
	if in.Cursor != "" {
		n, err := strconv.Atoi(in.Cursor)
		if q.Before = n; err != nil || n < 1 {
			bad("cursor", "this is no next_cursor of ours")
		}
	}
	when := func(field, v string, into *time.Time) {
		if v == "" {
			return
		}
		t, err := parseWhen(v)
		if *into = t; err != nil {
			bad(field, err.Error())
		}
	}
	when("start_time", in.Start, &q.From)
	when("end_time", in.End, &q.To)
	if len(list) > 0 {
		return &apiError{http.StatusUnprocessableEntity, list}
	}
	return nil
}

func (s *Server) operationView(ctx context.Context, c store.CVM, o store.Operation) (v cloudapi.OperationRecord, err error) {
	v = cloudapi.OperationRecord{CorrelationID: o.CorrelationID, OperationType: o.Kind, TargetState: target(o.Kind), TriggeredBy: o.ByID,
		TriggeredByUsername: opt(o.By), StartedAt: stamp(o.CreatedAt), Status: "in_progress", SubOperations: []string{}, Events: []cloudapi.OperationEvent{},
		InstanceName: c.Name, Generation: o.Generation}
	if o.Generation == c.Generation {
		v.ComposeHash = ptr(c.ComposeHash)
	}
	if !o.Open() {
		v.CompletedAt, v.DurationMS, v.Status = ptr(stamp(o.FinishedAt)), ptr(o.FinishedAt.Sub(o.CreatedAt).Milliseconds()), o.State
		if o.State == store.Done {
			v.Status = "completed"
		}
	}
	events, err := s.store.EventsOf(ctx, c.ID, o.Generation, eventsPerOperation)
	for _, e := range events {
		if e.Error != nil && v.Status == "failed" {
			v.ErrorMessage = ptr(e.Error.Message)
		}
		v.Events = append(v.Events, cloudapi.OperationEvent{EventType: e.Kind, Timestamp: stamp(e.Time), State: e.Status, Message: e.Message})
	}
	return v, err
}

func (s *Server) operationStatus(ctx context.Context, in *IDInput) (out cloudapi.OperationStatus, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	ops, err := s.store.OpenOps(ctx, c.ID)
	out.Status = "idle"
	if err != nil || len(ops) == 0 {
		return out, err
	}
	o := ops[len(ops)-1]
	return cloudapi.OperationStatus{Status: "in_progress", InProgress: true, OperationType: ptr(o.Kind), CorrelationID: ptr(o.CorrelationID),
		StartedAt: ptr(stamp(o.CreatedAt)), TargetState: ptr(target(o.Kind))}, nil
}

// cancel gives up the operation at work. What it asked of the node already stays so:
// the CVM keeps its new settings for the next start, and its status follows the VM.
func (s *Server) cancel(ctx context.Context, in *IDInput) (out cloudapi.Cancelled, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	_, err = s.store.Change(ctx, c.ID, nil, func(x *store.Change) error {
		if len(x.Ops) == 0 {
			return nil
		}
		o := &x.Ops[len(x.Ops)-1]
		if jobs.Overtakes(o.Kind) {
			return fail(http.StatusConflict, "", cvm.Conflict, "not-cancellable", "a "+o.Kind+" cannot be cancelled", "wait for it to finish")
		}
		for i := range x.Ops {
			x.Finish(&x.Ops[i], store.Cancelled)
		}
		out = cloudapi.Cancelled{Cancelled: true, CorrelationID: ptr(o.CorrelationID)}
		x.Emit(cloudapi.Event{Kind: cloudapi.EventOperation, Message: o.Kind + " was cancelled by " + who(ctx).Username})
		if o.Kind == store.Deploy || o.Kind == store.Start { // else it keeps its status until the VM is looked at
			x.SetStatus(cloudapi.StatusStopped, "the CVM's "+o.Kind+" was cancelled; its status follows its VM")
		}
		return nil
	})
	return out, err
}

type batchStopInput struct {
	Body cloudapi.BatchStopRequest
}

// batchStop stops each CVM that is not stopped or stopping; each stands for itself.
func (s *Server) batchStop(ctx context.Context, in *batchStopInput) (out cloudapi.BatchStopped, err error) {
	out = cloudapi.BatchStopped{Total: len(in.Body.CVMIDs), Errors: []cloudapi.BatchStopError{}}
	for _, id := range in.Body.CVMIDs {
		c, err := s.find(ctx, id)
		if err == nil && (c.Status == cloudapi.StatusStopped || c.Status == cloudapi.StatusStopping || c.Status == cloudapi.StatusDeleting) {
			out.Skipped++
			continue
		}
		if err == nil {
			_, _, err = s.begin(ctx, c, store.Stop, cloudapi.StatusStopping, store.OperationBody{}, nil)
		}
		if err == nil {
			out.Stopped++
			continue
		}
		var e *apiError
		if !errors.As(s.answer(ctx, err), &e) || e.status >= http.StatusInternalServerError {
			return out, err
		}
		out.Errors = append(out.Errors, cloudapi.BatchStopError{CVMID: id, Error: e.message()})
	}
	return out, nil
}

// message is an error answer's text for people.
func (e *apiError) message() string {
	switch d := e.Detail.(type) {
	case cloudapi.ErrorDetail:
		return d.Message
	case string:
		return d
	}
	return e.Error()
}

type instanceIDInput struct {
	IDInput
	Body *cloudapi.InstanceIDRequest
}

func (s *Server) refreshInstanceID(ctx context.Context, in *instanceIDInput) (out cloudapi.InstanceIDResult, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	r := cloudapi.InstanceIDRequest{}
	if in.Body != nil {
		r = *in.Body
	}
	return s.instanceID(ctx, c, r.Overwrite, r.DryRun)
}

// instanceID asks the CVM's node for the id that its guest told, and stores it.
func (s *Server) instanceID(ctx context.Context, c store.CVM, overwrite, dry bool) (out cloudapi.InstanceIDResult, err error) {
	out = cloudapi.InstanceIDResult{CVMID: c.ID, Identifier: store.HashID(c.UUID), OldInstanceID: opt(c.InstanceID), NewInstanceID: opt(c.InstanceID), Source: "none"}
	result := func(status, reason string) (cloudapi.InstanceIDResult, error) {
		out.Status, out.Reason = status, opt(reason)
		return out, nil
	}
	vmm, err := s.nodes.vmm(c.NodeID)
	if err != nil {
		return result("error", err.Error())
	}
	vm, err := vmm.Get(ctx, c.UUID)
	switch {
	case err != nil:
		return result("error", word(explain(err)))
	case vm.InstanceID.IsZero():
		return result("skipped", "the guest has not told its instance id")
	}
	out.Source = "teepod_state"
	id := vm.InstanceID.String()
	switch {
	case id == c.InstanceID:
		return result("unchanged", "")
	case c.InstanceID != "" && !overwrite:
		out.NewInstanceID = ptr(id)
		return result("conflict", "the guest's instance id is another one; overwrite replaces it")
	}
	out.NewInstanceID = ptr(id)
	if !dry {
		if _, err := s.set(ctx, c, "instance id "+id+" was taken over from the node", func(x *store.Change) { x.CVM.InstanceID = id }); err != nil {
			return out, err
		}
	}
	return result("updated", "")
}

type instanceIDsInput struct {
	Body *cloudapi.InstanceIDsRequest
}

func (s *Server) refreshInstanceIDs(ctx context.Context, in *instanceIDsInput) (out cloudapi.InstanceIDsResult, err error) {
	r := cloudapi.InstanceIDsRequest{}
	if in.Body != nil {
		r = *in.Body
	}
	limit := 100
	if r.Limit != nil {
		limit = *r.Limit
	}
	if limit < 1 || limit > 500 {
		var p problems
		p.add("limit", "value_error", "want 1 to 500", "")
		return out, p.err()
	}
	out.Items = []cloudapi.InstanceIDResult{}
	cvms, err := s.chosen(ctx, r)
	if err != nil {
		return out, err
	}
	out.Total = len(cvms)
	for _, c := range cvms[:min(len(cvms), limit)] {
		v, err := s.instanceID(ctx, c, r.Overwrite, r.DryRun)
		if err != nil {
			return out, err
		}
		out.Scanned++
		*map[string]*int{"updated": &out.Updated, "unchanged": &out.Unchanged, "skipped": &out.Skipped, "conflict": &out.Conflicts, "error": &out.Errors}[v.Status]++
		out.Items = append(out.Items, v)
	}
	return out, nil
}

// chosen are the CVMs that a refresh means: the named ones, or all; by default those
// that run and have no instance id.
func (s *Server) chosen(ctx context.Context, r cloudapi.InstanceIDsRequest) (out []store.CVM, err error) {
	var all []store.CVM
	if r.CVMIDs == nil {
		if all, err = s.store.List(ctx, who(ctx).WorkspaceID); err != nil {
			return nil, err
		}
	}
	for _, id := range r.CVMIDs {
		c, err := s.find(ctx, id)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	yes := func(p *bool) bool { return p == nil || *p }
	for _, c := range all {
		if yes(r.RunningOnly) && c.Status != cloudapi.StatusRunning || yes(r.MissingOnly) && c.InstanceID != "" {
			continue
		}
		out = append(out, c)
	}
	return out, nil
}
