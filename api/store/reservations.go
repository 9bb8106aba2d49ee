package store

import (
	"context"
	"errors"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
)

// ErrNoRoom is returned when a node's room was promised to others meanwhile.
var ErrNoRoom = errors.New("no room on the node")

// ErrReservationGone is returned when a reservation is needed that has expired.
var ErrReservationGone = errors.New("the reservation has expired")

// Room is what CVMs take of a node: memory in MiB, disk in GB, GPUs of whatever kind.
type Room struct{ VCPU, MemoryMiB, DiskGB, GPUs int }

// Plus is both together.
func (r Room) Plus(o Room) Room {
	return Room{r.VCPU + o.VCPU, r.MemoryMiB + o.MemoryMiB, r.DiskGB + o.DiskGB, r.GPUs + o.GPUs}
}

// Minus is r without o.
func (r Room) Minus(o Room) Room {
	return Room{r.VCPU - o.VCPU, r.MemoryMiB - o.MemoryMiB, r.DiskGB - o.DiskGB, r.GPUs - o.GPUs}
}

// Within tells whether r is not more than limit in anything.
func (r Room) Within(limit Room) bool {
	return r.VCPU <= limit.VCPU && r.MemoryMiB <= limit.MemoryMiB && r.DiskGB <= limit.DiskGB && r.GPUs <= limit.GPUs
}

// Takes is the room that a CVM has a right to: its disk always, the rest while it is
// not down.
func (c *CVM) Takes() Room {
	if c.Status == cloudapi.StatusStopped || c.Status == cloudapi.StatusFailed {
		return Room{DiskGB: c.DiskGB}
	}
	return Room{c.VCPU, c.MemoryMiB, c.DiskGB, c.GPUs}
}

// Reservation is room on a node for a CVM that is about to be stored. The change that
// stores the CVM names it (Change.Reservation), and it ends there, in one transaction.
type Reservation struct {
	ID        string
	NodeID    int64
	Room      Room
	ExpiresAt time.Time
}

// Promised is what is promised on nodes, as of one moment.
type Promised struct {
	// Rooms sums, by node, what live CVMs take and the reservations that have not
	// expired. Nodes with neither are missing.
	Rooms map[int64]Room
	// Held are the ids of the reservations in it.
	Held map[string]bool
}

// Reservations hold for all API processes together, and over their restarts.
type Reservations interface {
	// HoldRoom stores one unless the node's CVMs, the reservations on it and this one
	// are together more than limit: then ErrNoRoom.
	HoldRoom(ctx context.Context, r Reservation, limit Room) error
	// FreeRoom gives one back; one that is gone is no error.
	FreeRoom(ctx context.Context, id string) error
	// PromisedRoom is what is promised on a node, or (0) on all.
	PromisedRoom(ctx context.Context, node int64) (Promised, error)
	// ReplicasOf counts an app's live CVMs by node.
	ReplicasOf(ctx context.Context, appID string) (map[int64]int, error)
}
