package sevsnp

import (
	"github.com/confidential-cloud/phala/attest/claim"
)

// tcbs are the four TCBs of a report in parts.
type tcbs struct{ reported, committed, current, launch TCB }

func (r *Report) tcbs(product string) (t tcbs, err error) {
	for _, x := range []struct {
		v   uint64
		dst *TCB
	}{{r.ReportedTCB, &t.reported}, {r.CommittedTCB, &t.committed}, {r.CurrentTCB, &t.current}, {r.LaunchTCB, &t.launch}} {
		if *x.dst, err = ParseTCB(product, x.v); err != nil {
			return t, err
		}
	}
	return t, nil
}

// tcb checks how the report's TCBs stand to the certificate's and to each other,
// and rates them.
func (v *verifier) tcb() {
	t, err := v.r.tcbs(v.e.leaf.Product)
	if err == nil {
		err = v.relations(t)
	}
	if !v.rec.Try(claim.SNPTCB, err) {
		return
	}
	least, ok := v.o.MinTCB[v.e.leaf.Product]
	if !ok || least == (TCB{}) {
		v.rec.Fail(claim.TCBMatch, "", v.e.leaf.Product, "the policy has no minimum TCB for this product")
		return
	}
	status := UpToDate
	for _, x := range []TCB{t.reported, t.committed, t.current, t.launch} {
		if !x.AtLeast(least) {
			status = OutOfDate
		}
	}
	v.res.TCB.Status, v.res.TCB.Platform, v.res.TCB.Advisories = status, status, []string{}
	v.rec.Pass(claim.TCBMatch, status)
}

// relations: the certificate is for the reported TCB; nothing stands above what
// runs; the host cannot go back below what runs, unless the policy admits that.
func (v *verifier) relations(t tcbs) error {
	r := v.r
	switch {
	case t.reported != v.e.leaf.TCB:
		return refuse("the reported TCB is (%s), the certificate is for (%s)", t.reported, v.e.leaf.TCB)
	case !t.current.AtLeast(t.reported):
		return refuse("the reported TCB (%s) is above the current one (%s)", t.reported, t.current)
	case !t.current.AtLeast(t.committed) || !r.Current.AtLeast(r.Committed):
		return refuse("the committed firmware is above the current one")
	case !v.o.AnyProvisional && (t.committed != t.current || r.Committed != r.Current):
		return refuse("the firmware is provisional: the host can go back to (%s)", t.committed)
	}
	return nil
}
