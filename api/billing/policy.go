package billing

import "time"

// States of a workspace's account.
const (
	Active    = "active"
	Warned    = "warned"    // the balance is at or below WarnAt
	Empty     = "empty"     // at or below zero: the grace runs
	Suspended = "suspended" // its CVMs are stopped, their disks kept
	Abandoned = "abandoned" // its CVMs are deleted
)

// Policy says what becomes of a workspace whose money ends. The zero value does
// nothing: an operator who wants workspaces suspended says so.
type Policy struct {
	Enforce     bool
	WarnAt      Micro
	Grace       time.Duration // from zero to Suspended
	DeleteAfter time.Duration // from Suspended to Abandoned; 0 is never
}

// Next is the state of an account with a balance, and since when it has it. Each
// step is one state: a workspace is never deleted that was not suspended before.
func (p Policy) Next(state string, since time.Time, balance Micro, postPaid bool, at time.Time) (string, time.Time) {
	move := func(to string, when time.Time) (string, time.Time) {
		if to == state {
			return state, since
		}
		return to, when
	}
	switch {
	case !p.Enforce || postPaid || balance > p.WarnAt && balance > 0:
		return move(Active, at)
	case balance > 0:
		return move(Warned, at)
	case state == Suspended:
		if p.DeleteAfter > 0 && at.Sub(since) >= p.DeleteAfter {
			return Abandoned, at
		}
		return state, since
	case state == Abandoned:
		return state, since
	case state == Empty:
		if at.Sub(since) >= p.Grace {
			return Suspended, at
		}
		return state, since
	}
	return Empty, at
}

// Stops tells whether a workspace in this state has no CVMs running.
func Stops(state string) bool { return state == Suspended || state == Abandoned }

// Unlimited is a limit that is none.
const Unlimited = -1

// Limits are what a workspace may have; Unlimited is none. The zero value allows
// nothing.
type Limits struct {
	CVMs, VCPU, MemoryMB, DiskGB, DiskGBPerCVM, GPUs int
}

// NoLimits is where a cloud ends where its nodes do.
func NoLimits() Limits {
	return Limits{Unlimited, Unlimited, Unlimited, Unlimited, Unlimited, Unlimited}
}

// None tells whether there is no limit at all.
func (l Limits) None() bool { return l == NoLimits() }

// Held is what a workspace has: all its live CVMs, running or not, so that what is
// stopped can be started again.
type Held struct{ CVMs, VCPU, MemoryMB, DiskGB, GPUs int }

// Add is with one more CVM, or (times -1) with one less.
func (h Held) Add(s Size, times int) Held {
	return Held{h.CVMs + times, h.VCPU + times*s.VCPU, h.MemoryMB + times*s.MemoryMiB, h.DiskGB + times*s.DiskGB, h.GPUs + times*s.GPUs}
}

// Excess is a limit that something would break.
type Excess struct {
	What        string // CVMs, vCPU, MB memory, GB disk, GB disk of one CVM, GPUs
	Limit, Have int    // Have is what it would be
}

// Check is what h with a CVM of this size in it breaks; nil for nothing.
func (l Limits) Check(h Held, one Size) *Excess {
	for _, x := range []Excess{
		{"CVMs", l.CVMs, h.CVMs}, {"vCPU", l.VCPU, h.VCPU}, {"MB memory", l.MemoryMB, h.MemoryMB}, {"GB disk", l.DiskGB, h.DiskGB},
		{"GB disk of one CVM", l.DiskGBPerCVM, one.DiskGB}, {"GPUs", l.GPUs, h.GPUs},
	} {
		if x.Limit != Unlimited && x.Have > x.Limit {
			return &x
		}
	}
	return nil
}
