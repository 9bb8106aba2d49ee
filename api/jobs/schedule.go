package jobs

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

// Schedule is who asked for an operation that a schedule began.
const Schedule = "schedule"

// deleteDue begins the deletion of CVMs whose time has come. Several processes may
// see the same one: the first to change it takes it off the list.
func (r *Runner) deleteDue(ctx context.Context) error {
	due, err := r.cfg.Store.DueDeletions(ctx)
	if err != nil {
		return err
	}
	for _, id := range due {
		if _, err := r.cfg.Store.Change(ctx, id, r.Enqueue, deleteScheduled); err != nil {
			return err
		}
	}
	return nil
}

func deleteScheduled(c *store.Change) error {
	if !c.CVM.Live() || c.CVM.DeleteAt.IsZero() || c.CVM.DeleteAt.After(c.At) {
		return nil // put off or called off meanwhile
	}
	c.CVM.DeleteAt = time.Time{}
	if n := len(c.Ops); n > 0 && c.Ops[n-1].Kind == store.Delete {
		return nil
	}
	c.Begin(store.Delete, store.OperationBody{CorrelationID: uuid.NewString(), By: Schedule, Volumes: "delete"})
	c.CVM.Error = nil
	c.SetStatus(cloudapi.StatusDeleting, "the CVM is deleting: its scheduled time has come")
	return nil
}
