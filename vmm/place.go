package vmm

import (
	"github.com/confidential-cloud/phala/vmm/pool"
)

// place is what of the host belongs to a VM, kept in its record: a new VMM holds
// the same for it again.
type place struct {
	Grant pool.Grant `json:"grant,omitzero"`
}

// claim is what a VM holds of the pool.
func claim(r *record) pool.Claim {
	return pool.Claim{Resources: held(r)}
}

// reserve makes the VM hold what next needs, as a whole or not at all; next becomes
// the record only afterwards.
func (v *vm) reserve(next record) error {
	g, err := v.m.pool.Set(next.VM.Spec.ID, claim(&next))
	if err == nil {
		v.rec.Place.Grant = g
	}
	return err
}
